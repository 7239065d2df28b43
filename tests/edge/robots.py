"""A whole robot in a folder: the real firmware on a pty, a real model, and what tests wait for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kizzasi_edge.control import request
from kizzasi_edge.errors import ConnectorError
from kizzasi_edge.robot import Robot

QUANTUM = 2.0**-21
PERIOD_US = 5000
# The board's order is not the guard's, nor the model's; the model fails (1/0) when its first input is 10.
BOARD_JOINTS = ("lift", "pan")
INPUTS = ("pan/target_position", "lift/target_position", "pan/position", "lift/position")
GUARD = f"""schema = 1
[guard]
rate_hz = 200
nan_ticks = 20
[joints]
names = ["pan", "lift"]
position = [[-0.4, 0.4], [-0.3, 0.3]]
velocity = 1.5
acceleration = 10
quantum = {QUANTUM}
[faults]
hang_ticks = 100   # longer than a busy machine forgets a process, shorter than the TTL
"""
ROBOT = """schema = 1
[robot]
name = "t"
[model]
path = "m.onnx"
[guard]
path = "g.guard.toml"
[loop]
rate_hz = 200
pace = "device"
[[input]]
name = "arm"
connector = "serial"
port = "{port}"
stale_ms = 300
[[input]]
name = "targets"
connector = "waypoints"
path = "t.csv"
[[output]]
connector = "serial"
port = "{port}"
ttl_ms = 1000
arm_ttl_ms = 5000
[control]
socket = "s"
[record]
path = "r.npz"
seconds = 30
"""


def until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait for what must happen; how long it takes is the machine's affair."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@contextmanager
def running(robot: Robot, **options: Any) -> Iterator[None]:
    """``robot.run`` on a thread of its own, until it is up and until the end of the block."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            robot.run(**options)
        except BaseException as exc:
            failed.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        until(lambda: bool(failed) or (robot.config.socket.exists() and robot.status()["state"] != "INIT"))
        yield
    except ConnectorError as exc:
        raise AssertionError(f"{exc}; it said of arming: {robot.arm_error}; failed: {failed}") from exc
    finally:
        robot.stop()
        thread.join(15)
    assert not thread.is_alive()
    if failed:
        raise failed[0]
    assert robot.arm_error is None


def status(home: Path) -> dict[str, Any]:
    return request(home / "s", "status")


def cleared(home: Path) -> bool:
    """CLEAR is refused until the arm is at rest."""
    try:
        request(home / "s", "clear")
    except ConnectorError as error:
        if any(text in str(error) for text in ("NOT_AT_REST", "not confirmed", "expected the robot at rest")):
            return False
        raise
    until(lambda: bool(status(home)["state"] == "READY"))
    return True


def write_files(home: Path, port: str | Path) -> Path:
    """All but the model; returns the robot.toml."""
    (home / "g.guard.toml").write_text(GUARD)
    (home / "robot.toml").write_text(ROBOT.format(port=port))
    (home / "t.csv").write_text("time_s,pan/target_position,lift/target_position\n0,2,-2\n")
    return home / "robot.toml"
