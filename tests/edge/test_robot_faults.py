"""Faults of a whole robot, and how its operator clears them: the real firmware on a pty, the loop in this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from looprig import FloatArray, Ramp, plant_bugs
from robots import BOARD_JOINTS, GUARD, INPUTS, QUANTUM, cleared, running, status, until, write_files

from kizzasi_bridge.board import PosixBoard
from kizzasi_bridge.schema import Schema
from kizzasi_edge.bundle import write_bundle
from kizzasi_edge.config import load_config
from kizzasi_edge.control import request
from kizzasi_edge.errors import ConfigError, ConnectorError
from kizzasi_edge.robot import Robot


@pytest.fixture
def board() -> Iterator[PosixBoard]:
    with PosixBoard(Schema.positions(BOARD_JOINTS, scale=QUANTUM)) as board:
        yield board


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory, build: Any, arm_core: bytes, board: PosixBoard) -> Path:
    home = tmp_path_factory.mktemp("r")
    write_bundle(home / "m.onnx", arm_core, build.manifest_for(arm_core, INPUTS, build.outputs, sample_rate_hz=200.0))
    write_files(home, board.port)
    return home


class Hanging(Ramp):
    """A policy that can be made to hang."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()
        self.go_on.set()

    def propose(self, x: FloatArray) -> Any:
        assert self.go_on.wait(60)
        return super().propose(x)


def moves(home: Path, robot: Robot) -> bool:
    """Armed, followed by the guard, and on its way."""
    assert robot.operator is not None
    now = status(home)
    sent = robot.operator.loop.recorder.history()["sent"][-2:]
    return bool(now["state"] == "ARMED" and now["guard"]["state"] == "NOMINAL" and np.ptp(sent, axis=0).max() > 0)


def arm_again(home: Path, robot: Robot) -> None:
    sessions = status(home)["sessions"]
    request(home / "s", "arm")
    until(lambda: status(home)["sessions"] > sessions and status(home)["guard"]["state"] == "NOMINAL")
    assert status(home)["state"] == "ARMED"


def test_a_hanging_model_is_stopped_and_counted(home: Path) -> None:
    policy = Hanging()
    robot = Robot(load_config(home / "robot.toml"), wrap=lambda _: policy)
    with running(robot, arm=True):
        until(lambda: moves(home, robot))
        policy.go_on.clear()
        until(lambda: status(home)["state"] == "ESTOP")
        assert status(home)["device"]["fault"] == "ESTOP_HOST"
        assert status(home)["hangs"] == 1
        with pytest.raises(ConnectorError, match="arm"):
            request(home / "s", "arm")
        policy.go_on.set()
        until(lambda: status(home)["guard"]["state"] == "ESTOP")
        assert status(home)["state"] == "ESTOP"
        until(lambda: cleared(home))
        arm_again(home, robot)
        assert status(home)["hangs"] == 1


def test_an_operators_estop_latches_the_guard_too(home: Path) -> None:
    robot = Robot(load_config(home / "robot.toml"), wrap=lambda _: Ramp())
    with running(robot, arm=True):
        until(lambda: moves(home, robot))
        request(home / "s", "estop")
        until(lambda: status(home)["state"] == "ESTOP" and status(home)["guard"]["state"] == "ESTOP")
        assert status(home)["guard"]["cause"] == ["ESTOP"]
        until(lambda: cleared(home))
        armed = status(home)["armed_ticks"]
        assert status(home)["guard"]["state"] in ("REARM", "NOMINAL")
        arm_again(home, robot)
        until(lambda: status(home)["armed_ticks"] > armed + 20)
        assert status(home)["guard"]["state"] == "NOMINAL"
    assert robot.status()["hangs"] == 0  # not even while it disarmed at the end
    assert robot.operator is not None
    assert robot.operator.loop.in_flight == 0


def test_a_lost_link_latches_the_guard(home: Path, board: PosixBoard) -> None:
    robot = Robot(load_config(home / "robot.toml"), wrap=lambda _: Ramp())
    with running(robot, arm=True):
        until(lambda: moves(home, robot))
        board.unplug()
        until(lambda: status(home)["guard"]["state"] == "STOPPED")
        seen = status(home)["guard"]
        assert seen["cause"] == ["HEARTBEAT_LOSS"]
        assert seen["events"]["HEARTBEAT_LOSS"] == 1
        board.replug()
        until(lambda: status(home)["state"] == "FAILSAFE")
        assert status(home)["guard"]["state"] == "STOPPED"
        until(lambda: cleared(home))
        arm_again(home, robot)


def test_a_guard_that_stopped_in_a_session_is_cleared_out_of_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bugs = plant_bugs(monkeypatch)
    robot = Robot(load_config(home / "robot.toml"), wrap=lambda _: Ramp())
    with running(robot, arm=True):
        until(lambda: moves(home, robot))
        bugs.add("follow")
        until(lambda: status(home)["guard"]["state"] == "STOPPED")
        bugs.clear()
        seen = status(home)
        assert (seen["state"], seen["guard"]["cause"]) == ("ARMED", ["EXCEPTION"])
        until(lambda: cleared(home))  # READY: not back into the session
        assert status(home)["guard"]["state"] in ("REARM", "NOMINAL")
        arm_again(home, robot)


def test_what_still_fails_cannot_be_cleared(home: Path) -> None:
    policy = Ramp()
    robot = Robot(load_config(home / "robot.toml"), wrap=lambda _: policy)
    with running(robot, arm=True):
        until(lambda: moves(home, robot))
        policy.broken = RuntimeError("a bug")
        until(lambda: status(home)["state"] == "ESTOP")
        assert status(home)["last_error"] == "model: a bug"
        with pytest.raises(ConnectorError, match=r"clear: the guard stays ESTOP \(NON_FINITE\): expected the robot at"):
            request(home / "s", "clear")
        assert status(home)["state"] == "ESTOP"
        policy.broken = None
        until(lambda: cleared(home))
        arm_again(home, robot)


RULE = """
[[temporal]]
name = "calm"
formula = "always quiet"
atoms = { quiet = "contact < 5" }
mode = "monitor"
"""
CONTACT = """
[[input]]
name = "touch"
connector = "waypoints"
path = "c.csv"
"""


def test_a_rules_signal_comes_from_an_input_and_what_it_finds_is_shown(home: Path) -> None:
    (home / "g.guard.toml").write_text(GUARD + RULE)
    with pytest.raises(ConfigError, match=r"no \[\[input\]\] gives what the guard reads: \['contact'\]"):
        Robot(load_config(home / "robot.toml")).run(dry_run=True, ticks=1)
    (home / "robot.toml").write_text((home / "robot.toml").read_text() + CONTACT)
    (home / "c.csv").write_text("time_s,contact\n0,1\n0.5,9\n")
    robot = Robot(load_config(home / "robot.toml"), wrap=lambda _: Ramp())
    with running(robot, dry_run=True):
        until(lambda: status(home)["guard"]["violated"] == ["calm"])
        assert status(home)["guard"]["state"] == "NOMINAL"  # it is only watched
    with np.load(home / "r.npz") as file:
        assert file["inputs"].tolist() == [*INPUTS, "contact"]
        assert {9} <= set(np.unique(file["x"][:, 4])) <= {1, 9}
        assert (file["state"] == 0).all()


def test_a_device_of_positions_takes_no_velocities(home: Path, build: Any, arm_core: bytes) -> None:
    manifest = build.manifest_for(arm_core, INPUTS, ("pan/velocity", "lift/velocity"), sample_rate_hz=200.0)
    write_bundle(home / "m.onnx", arm_core, manifest)
    (home / "g.guard.toml").write_text(GUARD.replace("[joints]", 'command = "velocity"\n[joints]'))
    with pytest.raises(ConfigError, match=r"takes a position; the guard .*g\.guard\.toml commands velocity"):
        Robot(load_config(home / "robot.toml")).run(ticks=1)
