"""A whole robot: the real firmware on a pty, a real model, `kizzasi-edge run`, and the operator's commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from robots import BOARD_JOINTS, INPUTS, PERIOD_US, QUANTUM, ROBOT, cleared, status, until, write_files

from kizzasi_bridge import Link
from kizzasi_bridge.board import PosixBoard
from kizzasi_bridge.schema import Schema
from kizzasi_edge.bundle import write_bundle
from kizzasi_edge.config import load_config
from kizzasi_edge.control import request
from kizzasi_edge.errors import ConnectorError, LinkError
from kizzasi_edge.guardrails import Guardrails, Status
from kizzasi_edge.robot import Robot


@pytest.fixture
def board() -> Iterator[PosixBoard]:
    with PosixBoard(Schema.positions(BOARD_JOINTS, scale=QUANTUM)) as board:
        yield board


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory, build: Any, arm_core: bytes, board: PosixBoard) -> Path:
    home = tmp_path_factory.mktemp("r")
    manifest = build.manifest_for(arm_core, INPUTS, build.outputs, sample_rate_hz=200.0)
    write_bundle(home / "m.onnx", arm_core, manifest)
    write_files(home, board.port)
    return home


@contextmanager
def gateway(home: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """`kizzasi-edge run robot.toml`, in its own process."""
    command = [sys.executable, "-c", "from kizzasi_edge.cli import main; main()", "run", "robot.toml", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=home, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        until(lambda: (home / "s").exists() or process.poll() is not None)
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def end(home: Path, process: subprocess.Popen[bytes]) -> tuple[str, str]:
    request(home / "s", "stop")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err.decode()
    assert not (home / "s").exists()
    return out.decode(), err.decode()


def record(home: Path) -> dict[str, np.ndarray]:
    with np.load(home / "r.npz") as file:
        return {name: file[name] for name in file.files}


def test_a_dry_run_leaves_the_device_alone(home: Path, board: PosixBoard) -> None:
    with gateway(home, "--dry-run") as process:
        until(lambda: status(home)["ticks"] > 150)
        seen = status(home)
        assert seen["state"] == "DRY_RUN"
        for op in ("arm", "disarm", "estop", "clear"):
            with pytest.raises(ConnectorError, match=f"{op}: this run drives no actuator \\(dry run\\)"):
                request(home / "s", op)
        out, err = end(home, process)
    assert err == ""
    summary = json.loads(out[: out.rindex("}") + 1])
    assert summary["armed_ticks"] == summary["sessions"] == 0
    data = record(home)
    assert not data["armed"].any()
    assert len(data["sent"]) >= 60
    assert data["joints"].tolist() == ["pan", "lift"]
    assert data["inputs"].tolist() == list(INPUTS)
    with Link(board.port) as link:
        assert link.hello.limits_hash == 0  # not even limits were uploaded
    # The policy is stepped at its own rate, though a device without limits sends STATE at another.
    periods = len(data["sent"]) - 1 + summary["overruns"]  # a busy machine skips some
    assert np.ptp(data["stamp_ns"] + data["late_ns"]) / periods == pytest.approx(5e6, rel=0.4)  # not its 10 ms


def test_arm_disarm_estop_and_clear_by_the_socket(home: Path) -> None:
    with gateway(home) as process:
        until(lambda: status(home)["state"] == "READY")
        time.sleep(0.2)
        assert status(home)["armed_ticks"] == 0  # nobody asked
        with pytest.raises(ConnectorError, match=r"clear: .*WRONG_STATE"):
            request(home / "s", "clear")
        request(home / "s", "arm")
        until(lambda: status(home)["armed_ticks"] > 80)
        seen = status(home)
        assert seen["state"] == "ARMED"
        assert seen["sessions"] == 1
        assert seen["device"]["session"] != 0
        assert seen["interventions"]  # targets are far outside
        with pytest.raises(ConnectorError, match=r"arm: .*WRONG_STATE"):
            request(home / "s", "arm")
        request(home / "s", "disarm")
        until(lambda: status(home)["state"] == "READY")
        request(home / "s", "arm")
        until(lambda: status(home)["sessions"] == 2)
        request(home / "s", "estop")
        until(lambda: status(home)["state"] == "ESTOP")
        assert status(home)["device"]["fault"] == "ESTOP_HOST"
        with pytest.raises(ConnectorError, match="arm: "):
            request(home / "s", "arm")
        until(lambda: cleared(home))
        assert status(home)["state"] == "READY"
        armed = status(home)["armed_ticks"]
        time.sleep(0.2)
        assert status(home)["armed_ticks"] == armed  # CLEAR does not arm
        end(home, process)
    check_promise(home)


def check_promise(home: Path) -> None:
    """Runs of consecutive armed ticks: what was sent obeys the limits, in integers."""
    data, guard = record(home), Guardrails.load(home / "g.guard.toml")
    q = np.rint(data["sent"].astype(np.float64) / QUANTUM).astype(np.int64)
    # Judge only ticks whose neighbours were one period away, by either clock, and that sent without delay: a busy
    # machine skips some or sends too late, the node coasts then, and the guard stands on that.
    steady = np.diff(data["t_us"]).astype(np.uint32) == PERIOD_US
    steady &= np.abs(np.diff(data["stamp_ns"]) - 1000 * PERIOD_US) < 500 * PERIOD_US
    in_time = data["armed"] & (data["tick_ns"] < 500 * PERIOD_US)
    whole = in_time[1:-1] & in_time[:-2] & in_time[2:] & steady[1:] & steady[:-1]
    assert data["armed"].sum() > 60
    assert whole.sum() > 20 or steady.mean() < 0.8 or in_time[data["armed"]].mean() < 0.8
    for i, cell in enumerate(guard.lattice):
        assert q[:, i].min() >= cell.lo
        assert q[:, i].max() <= cell.hi
        assert (np.abs(np.diff(q[:, i]))[1:][whole] <= cell.w).all()


def test_run_arm_moves_and_sigterm_stops_it_at_rest(home: Path, board: PosixBoard) -> None:
    with gateway(home, "--arm") as process:
        until(lambda: status(home)["armed_ticks"] > 120)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err.decode()
    assert "armed" in out.decode()
    check_promise(home)
    data = record(home)
    assert np.ptp(data["sent"], axis=0).min() > 0.01
    assert (data["status"][data["armed"]] == Status.CLAMPED).any()
    with Link(board.port) as link:
        state = link.wait_state(0, 2.0)
        assert state is not None
        assert link.hello.state == 1  # READY: disarmed and at rest, not left to its TTL
        assert (state.step == 0).all()


def test_run_arm_that_is_refused_says_why(home: Path, board: PosixBoard) -> None:
    with Link(board.port) as link:
        link.estop()
        until(lambda: (link.heartbeat(), not link.estop_pending)[1])
    with gateway(home, "--arm") as process:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 1
    assert b"not armed" in err
    assert b"ESTOP" in err
    assert len(err.splitlines()) <= 20


def test_a_killed_gateway_leaves_a_failsafe_and_a_new_one_does_not_arm(home: Path) -> None:
    with gateway(home, "--arm") as process:
        until(lambda: status(home)["armed_ticks"] > 20)
        process.kill()
        process.wait()
    with gateway(home) as process:  # the socket left behind is no hindrance
        until(lambda: answers(home))
        until(lambda: status(home)["state"] == "FAILSAFE")
        assert status(home)["device"]["fault"] == "TTL"
        assert status(home)["armed_ticks"] == 0
        until(lambda: cleared(home))
        request(home / "s", "arm")
        until(lambda: status(home)["armed_ticks"] > 5)
        end(home, process)


def answers(home: Path) -> bool:
    try:
        request(home / "s", "status")
    except ConnectorError:
        return False
    return True


def test_unplugging_ends_the_session_and_replugging_does_not_begin_one(home: Path, board: PosixBoard) -> None:
    with gateway(home, "--arm") as process:
        until(lambda: status(home)["armed_ticks"] > 20)
        board.unplug()
        until(lambda: status(home)["state"] == "DISCONNECTED")
        stale = status(home)["stale"]["arm"]
        until(lambda: status(home)["stale"]["arm"] > stale)
        armed = status(home)["armed_ticks"]
        board.replug()
        until(lambda: status(home)["state"] in ("FAILSAFE", "ARMED"))
        until(lambda: status(home)["state"] == "FAILSAFE")
        seen = status(home)
        assert seen["armed_ticks"] == armed
        assert seen["device"]["counters"]["disconnects"] == 1
        assert seen["device"]["counters"]["reconnects"] == 1
        end(home, process)


def test_a_model_that_fails_for_good_latches_node_and_guard(home: Path) -> None:
    (home / "t.csv").write_text("time_s,pan/target_position,lift/target_position\n0,1,-1\n1.5,10,0\n4,1,-1\n")
    with gateway(home, "--arm") as process:
        until(lambda: status(home)["bad_outputs"] >= 20)
        until(lambda: status(home)["state"] == "ESTOP")
        seen = status(home)
        assert seen["interventions"]["non_finite"] >= 15
        until(lambda: status(home)["bad_outputs"] == status_later(home)["bad_outputs"])  # the model works again
        until(lambda: cleared(home))
        request(home / "s", "arm")
        before = status(home)["armed_ticks"]
        until(lambda: status(home)["armed_ticks"] > before + 10)
        assert status(home)["state"] == "ARMED"
        end(home, process)


def status_later(home: Path) -> dict[str, Any]:
    time.sleep(0.3)
    return status(home)


def test_another_board_in_the_same_place_is_not_used(home: Path, tmp_path: Path) -> None:
    """Two boards that look alike but for their names: what the second measures must not reach the model."""
    port = tmp_path / "tty"
    (home / "robot.toml").write_text(ROBOT.format(port=port))
    first, second = (PosixBoard(Schema.positions(names, scale=QUANTUM)) for names in (BOARD_JOINTS, BOARD_JOINTS[::-1]))
    robot = Robot(load_config(home / "robot.toml"))
    thread = threading.Thread(target=robot.run)
    with first, second:
        port.symlink_to(os.readlink(first.port))
        thread.start()
        try:
            until(lambda: robot.status()["state"] == "READY")
            first.terminate()
            until(lambda: robot.status()["state"] == "DISCONNECTED")
            port.unlink()
            port.symlink_to(os.readlink(second.port))
            until(lambda: robot.status()["state"] == "INIT")
            stale = robot.status()["stale"]["arm"]
            until(lambda: robot.status()["stale"]["arm"] > stale + 3)
            assert robot.actuator is not None
            with pytest.raises(LinkError, match="another device was plugged in"):
                robot.actuator.arm()
        finally:
            robot.stop()
            thread.join(15)
    assert not thread.is_alive()
