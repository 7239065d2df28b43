"""kizzasi-bridge as a technician uses it, against the real firmware process."""

from __future__ import annotations

import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kizzasi_bridge import ConnectorError, LinkError
from kizzasi_bridge.board import PosixBoard
from kizzasi_bridge.cli import app
from kizzasi_bridge.link import Link
from kizzasi_bridge.protocol import ChannelLimits, Limits, NodeState
from kizzasi_bridge.schema import Schema, Sensor
from kizzasi_edge.control import ControlServer

BASE = Schema.positions(("shoulder", "elbow"), scale=2.0**-21)
SCHEMA = Schema(BASE.board, BASE.tick_us, BASE.channels, (*BASE.sensors, Sensor("supply", "V", 0, 1e-3)))
LIMITS = Limits((ChannelLimits(-1_000_000, 1_000_000, 4000, 100),) * 2, 2000, 3, 200, 5000)


@pytest.fixture
def board() -> Iterator[PosixBoard]:
    with PosixBoard(SCHEMA) as running:
        with Link(running.port) as link:
            link.upload_limits(LIMITS)
        yield running


def run(*arguments: object) -> str:
    """Output of a command that succeeds; its error otherwise."""
    done = CliRunner(env={"COLUMNS": "110"}).invoke(app, [str(a) for a in arguments])
    if done.exception is not None:
        raise done.exception
    return done.output


def test_flash_info_shows_hello_and_schema(board: PosixBoard):
    shown = run("flash-info", board.port)
    for text in ("READY", "POWER_ON", "2000 µs", "shoulder/position", "elbow/position", "supply", "channel 1"):
        assert text in shown
    assert f"{LIMITS.hash(zlib.crc32(SCHEMA.to_bytes())):#010x}" in shown


def test_send_takes_a_board_through_its_states(board: PosixBoard):
    assert "board is in ARMED" in run("send", "arm", board.port)
    assert "board is in READY" in run("send", "disarm", board.port)
    assert "board is in ESTOP, fault ESTOP_HOST" in run("send", "estop", board.port)
    with pytest.raises(LinkError, match="refuses ARM: WRONG_STATE"):
        run("send", "arm", board.port)
    time.sleep(0.5)  # the board wants to see the cut channels at rest for a while
    assert "board is in READY" in run("send", "clear", board.port)


def test_monitor_draws_channels_in_si(board: PosixBoard):
    shown = run("monitor", board.port, "--seconds", "0.4")
    for text in ("READY", "Hz of 500", "shoulder/position", "rad", "supply", "nothing to report"):
        assert text in shown


def test_send_goes_through_the_run_that_holds_the_port(
    board: PosixBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with Link(board.port) as link:
        with pytest.raises(ConnectorError, match="is in use by"):
            run("send", "arm", board.port)

        def arm() -> dict[str, int]:
            return {"session": link.arm()}

        with ControlServer(tmp_path / "kizzasi-arm.sock", {"arm": arm}):
            assert "done by the run behind" in run("send", "arm", board.port)
            assert link.session
            with pytest.raises(ConnectorError, match="clear"):
                run("send", "clear", board.port)  # this run does not know it: its words are passed on
        assert link.wait_state(link.latest.count, 0.5).state == NodeState.ARMED


def test_another_robots_socket_is_never_used(board: PosixBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    code = """
import sys
from pathlib import Path
from kizzasi_edge.control import ControlServer
with ControlServer(Path(sys.argv[1]), {"arm": lambda: {}}):
    print("ready", flush=True)
    sys.stdin.read()
"""
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "kizzasi-other.sock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"ready\n"
        with Link(board.port), pytest.raises(ConnectorError, match="is in use by"):
            run("send", "arm", board.port)
    finally:
        other.communicate()


def test_errors_are_one_line_and_exit_code_1():
    done = subprocess.run(
        [sys.executable, "-c", "from kizzasi_bridge.cli import main; main()", "flash-info", "/dev/no-such-port"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: port /dev/no-such-port does not exist")
    assert done.stderr.count("\n") == 1
