"""One guard file with everything in it, on a whole robot: rules that couple joints, a formula with a deadline, faults.

Real parts: a model file, `kizzasi-edge run` in its own process, the firmware on a pty, MuJoCo behind it; at 100 Hz, so
that a busy machine is on time. What the board applied is judged by the plant's witness and by this file, which share no
code with the guard.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from robots import until
from setpoint_model import write_policy

from kizzasi_bridge.board import PosixBoard
from kizzasi_bridge.protocol import NodeState
from kizzasi_bridge.schema import Schema
from kizzasi_edge.check import check
from kizzasi_edge.control import request
from kizzasi_edge.demo.expert import HOME, JOINTS
from kizzasi_edge.demo.physics import ASSETS, QUANTUM, ArmPhysics
from kizzasi_edge.demo.plant import Plant, serve
from kizzasi_edge.demo.witness import Lattice, LimitWitness, Trace, raw_limits
from kizzasi_edge.errors import ConnectorError
from kizzasi_edge.guardrails import Guardrails

N, RATE_HZ, PERIOD_US = len(JOINTS), 100, 10_000
DEADLINE_S = 0.8
RULES = f"""
[[constraint]]
kind = "linear"
name = "forearm"
a = {{ elbow_joint = 1.0, wrist_1_joint = 1.0 }}
min = -0.5
max = 0.5

[[temporal]]
name = "stop_when_near"
formula = "always(near -> eventually[0,{DEADLINE_S}] stopped)"
atoms = {{ near = "distance < 0.3", stopped = "max(abs(velocity)) < 0.01" }}
fallback = "brake"

[faults]
jump = 0.05
tracking_error = 0.3
tracking_stop = 0.4
hang_ticks = 300
"""
ROBOT = """schema = 1
[robot]
name = "guarded"
[model]
path = "m.onnx"
[guard]
path = "arm.guard.toml"
[loop]
rate_hz = 100
pace = "device"
[[input]]
name = "arm"
connector = "serial"
port = "{port}"
stale_ms = 500
[[input]]
name = "targets"
connector = "waypoints"
path = "targets.csv"
[[input]]
name = "laser"
connector = "waypoints"
path = "laser.csv"
fields = {{ distance = "range" }}
[[output]]
connector = "serial"
port = "{port}"
ttl_ms = 2000
arm_ttl_ms = 5000
[control]
socket = "{socket}"
[record]
path = "gateway.npz"
seconds = 120
"""


class Jamming(ArmPhysics):
    """The arm, with a joint that can be jammed; freed, it is led back to its setpoint by hand before it is let go."""

    jammed: int | None = None
    freed = False

    def step(self, command: npt.NDArray[np.float64], dt_us: int, enabled: bool) -> None:
        joint = self.jammed
        before = 0.0 if joint is None else float(self.q[joint])
        super().step(command, dt_us, enabled)
        if joint is None:
            return
        gap = float(command[joint]) - before
        self.q[joint] = before + (np.clip(gap, -1e-3, 1e-3) if self.freed else 0.0)
        self.qvel[joint] = 0.0
        if self.freed and abs(gap) < 2e-3:
            self.jammed = None


class Cell:
    """Plant (a thread here), firmware and gateway, in ``home``."""

    def __init__(self, home: Path, scratch: Path) -> None:
        self.home, self.socket = home, scratch / "s"
        guard = Guardrails.load(home / "arm.guard.toml")
        self.arm = Jamming(ASSETS / "arm.xml", noise=0.001, seed=1)
        self.arm.reset(HOME)
        columns = [[getattr(cell, key) for cell in guard.lattice] for key in ("lo", "hi", "w", "h")]
        lattice = Lattice(*(np.array(column, np.int64) for column in columns))
        self.witness = LimitWitness(raw_limits(ASSETS / "arm.urdf", JOINTS), lattice)
        self.trace = Trace(N, 60_000)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(scratch / "p"))
        self._listener.listen(1)
        self._plant = threading.Thread(target=serve, args=(Plant(self.arm, self.witness, self.trace), self._listener))
        self._plant.start()
        self.board = PosixBoard(Schema.positions(JOINTS, scale=QUANTUM), plant=scratch / "p", directory=scratch)
        (home / "robot.toml").write_text(ROBOT.format(port=self.board.port, socket=self.socket))
        self.gateway = subprocess.Popen(
            [sys.executable, "-c", "from kizzasi_edge.cli import main; main()", "run", str(home / "robot.toml")],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def until(self, condition: Callable[[], bool]) -> None:
        try:
            until(condition)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.ask('status')}") from None

    def ask(self, op: str) -> dict[str, Any]:
        return request(self.socket, op)

    def guard(self) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("status")["guard"]
        return found

    def ready(self) -> bool:
        assert self.gateway.poll() is None, self.gateway.stderr.read().decode() if self.gateway.stderr else ""
        with suppress(ConnectorError):
            return bool(self.ask("status")["state"] == "READY")
        return False

    def end(self) -> None:
        """Stop the gateway as an operator does, so that it writes its record; then the board, and with it the plant."""
        if self.gateway.poll() is None:
            with suppress(ConnectorError):
                self.ask("stop")
            try:
                self.gateway.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                self.gateway.send_signal(signal.SIGKILL)
                self.gateway.communicate()
        self.board.terminate()
        self._plant.join(10)
        self._listener.close()


@pytest.fixture
def cell(tmp_path: Path) -> Iterator[Cell]:
    shutil.copyfile(ASSETS / "arm.urdf", tmp_path / "arm.urdf")
    text = (ASSETS / "arm.guard.toml").read_text().replace("rate_hz = 500", "rate_hz = 100")
    (tmp_path / "arm.guard.toml").write_text(text.replace("miss_budget = 10", "miss_budget = 3") + RULES)
    write_policy(tmp_path / "m.onnx", JOINTS, RATE_HZ)
    names = ",".join(f"{joint}/target_position" for joint in JOINTS)
    # To and fro for ever: every other target is one that the rule on the forearm does not admit.
    rows = [HOME + sign * np.array([1.0, 0.5, 0.7, 0.7, -0.8, 1.0]) for sign in (1, -1)]
    lines = [f"{1.6 * k},{','.join(map(str, rows[k % 2]))}" for k in range(100)]
    (tmp_path / "targets.csv").write_text("\n".join([f"time_s,{names}", *lines]))
    near = [f"{3.1 * k},2.0\n{3.1 * k + 0.1},0.2" for k in range(1, 50)]
    (tmp_path / "laser.csv").write_text("\n".join(["time_s,range", "0,2.0", *(f"{line}" for line in near)]))
    with tempfile.TemporaryDirectory(prefix="kz-") as scratch:  # unix socket paths are limited to 107 bytes
        cell = Cell(tmp_path, Path(scratch))
        try:
            until(cell.ready, 30)
            yield cell
        finally:
            cell.end()


def test_it_moves_stops_in_time_and_comes_back_from_a_jam(cell: Cell) -> None:
    report = check(cell.home / "robot.toml")
    assert report["ok"], report["errors"]
    assert "stop_when_near" in report["guard"]
    cell.ask("arm")
    cell.until(lambda: cell.ask("status")["interventions"].get("forearm", 0) > 20)  # it moves, up to the rule
    cell.until(lambda: "NOMINAL → FALLBACK" in cell.guard()["transitions"])
    cell.until(lambda: "FALLBACK → NOMINAL" in cell.guard()["transitions"])

    # A joint jams: at first half speed, then stopped; no clear while it lasts.
    cell.arm.jammed = 0
    cell.until(lambda: cell.guard()["state"] == "STOPPED")
    assert cell.guard()["cause"] == ["TRACKING_STOP"]
    assert cell.guard()["events"]["TRACKING_WARN"] > 0
    with pytest.raises(ConnectorError, match=r"the guard stays STOPPED \(TRACKING_STOP\)"):
        cell.ask("clear")
    cell.arm.freed = True
    cell.until(lambda: cell.arm.jammed is None)
    cell.until(lambda: _cleared(cell))
    status = cell.ask("status")
    assert status["state"] == "READY"
    armed = status["armed_ticks"]

    # Armed again, the first command that asks for no motion is followed, and then the others.
    cell.ask("arm")
    cell.until(lambda: cell.ask("status")["armed_ticks"] > armed + 100 and cell.guard()["state"] == "NOMINAL")
    seen = cell.guard()["transitions"]
    assert "STOPPED → REARM" in seen
    assert "REARM → NOMINAL" in seen
    violated = cell.guard()["violated"]
    last = cell.trace.rows
    cell.until(lambda: cell.trace.rows > last + 150)
    moved = np.ptp(cell.trace.columns["applied"][last : last + 150], axis=0)
    assert moved.max() * QUANTUM > 0.05
    cell.end()
    assert _judge(cell) or violated == []


def _cleared(cell: Cell) -> bool:
    with suppress(ConnectorError):
        cell.ask("clear")
        return True
    return False


def _judge(cell: Cell) -> bool:
    """0 violations: of the robot's limits, of the guard's integers, of the rule, of the deadline. Returns whether a
    stop came after that, for the periods that a busy machine had lost."""
    counted = cell.witness.summary(JOINTS)
    assert set(counted["violations"].values()) == {0}, counted
    assert counted["periods_compared"] > 500
    trace = {name: column[: cell.trace.rows] for name, column in cell.trace.columns.items()}
    applied, t_us = trace["applied"].astype(np.int64), trace["t_us"].astype(np.int64)
    forearm = applied[:, JOINTS.index("elbow_joint")] + applied[:, JOINTS.index("wrist_1_joint")]
    most = Fraction(1, 2) / Fraction(QUANTUM)
    assert np.abs(forearm).max() <= most  # in integers
    assert np.abs(forearm).max() > 0.98 * most  # and it was reached

    with np.load(cell.home / "gateway.npz") as file:
        record = {name: file[name] for name in file.files}
    near = (record["x"][:, record["inputs"].tolist().index("distance")] < 0.3) & record["armed"]
    triggers = record["t_us"].astype(np.int64)[near]
    assert len(triggers) > 20
    # Velocity of what was applied; the board moves in periods, its trace has one row each.
    still = np.abs(np.diff(applied, axis=0)).max(axis=1) * QUANTUM < 0.01 * PERIOD_US * 1e-6
    stops = t_us[1:][still]
    after = np.searchsorted(stops, triggers)
    judged = triggers + DEADLINE_S * 1e6 < t_us[-1]
    waited = stops[after[judged]] - triggers[judged]
    # A busy machine loses periods, which the node coasts and brakes through: each may delay the stop by itself.
    rows = record["t_us"].astype(np.int64)
    lost = np.concatenate([[0], np.cumsum(np.diff(rows) - PERIOD_US)])
    end = np.searchsorted(rows, triggers[judged] + waited).clip(max=len(rows) - 1)
    assert (waited <= DEADLINE_S * 1e6 + lost[end] - lost[near][judged]).all(), waited.max()
    assert waited.max() > 0.3 * DEADLINE_S * 1e6  # the model was left to move for a while
    state = trace["state"]
    assert (state == NodeState.FAILSAFE).sum() == 0
    return bool((waited > DEADLINE_S * 1e6).any())
