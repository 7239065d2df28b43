"""Ports that cannot be opened: one clear ConnectorError each. And what importing the link does not import."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from kizzasi_bridge import ConnectorError, LinkError
from kizzasi_bridge.board import PosixBoard
from kizzasi_bridge.link import Link
from kizzasi_bridge.schema import Schema

SCHEMA = Schema.positions(("shoulder",), scale=2.0**-21)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/dev/no-such-port", "port /dev/no-such-port does not exist; serial ports present: "),
        ("/dev/null", "port /dev/null is not a serial port"),
        ("/tmp", "port /tmp is a directory, not a serial port"),
    ],
)
def test_a_path_that_is_no_port(path: str, message: str):
    with pytest.raises(ConnectorError, match=message):
        Link(path).open()


def test_a_file_is_no_port(tmp_path: Path):
    file = tmp_path / "port"
    file.write_text("left alone")
    with pytest.raises(ConnectorError, match="is a regular file, not a serial port"):
        Link(file).open()
    assert file.read_text() == "left alone"


def test_a_port_has_one_user_at_a_time():
    with PosixBoard(SCHEMA) as board:
        with Link(board.port) as first:
            with pytest.raises(ConnectorError, match=r"is in use by .*\(pid \d+\)"):
                Link(board.port).open()
            count = first.wait_state(0, 0.5).count
            assert first.wait_state(count, 0.5) is not None  # undisturbed
            with pytest.raises(LinkError, match="already open"):
                first.open()
        with Link(board.port) as second:
            assert second.connected


def test_a_closed_link_opens_again_and_forgets():
    with PosixBoard(SCHEMA) as board:
        link = Link(board.port)
        for _ in range(3):
            link.open()
            assert link.connected
            link.close()
            assert not link.connected
        link.close()
        started = time.monotonic()
        assert not link.heartbeat()
        assert time.monotonic() - started < 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [({"baud": -5}, "baud"), ({"dtr": "maybe"}, "dtr must be one of auto, on, off, found 'maybe'")],
)
def test_settings_that_make_no_sense(options: dict, message: str):
    with PosixBoard(SCHEMA) as board, pytest.raises(ConnectorError, match=message):
        Link(board.port, **options).open()


@pytest.mark.parametrize("dtr", ["auto", "on", "off"])
def test_every_dtr_setting_opens_a_port_without_modem_lines(dtr: str):
    with PosixBoard(SCHEMA) as board, Link(board.port, dtr=dtr) as link:
        assert link.connected


def test_pyserial_is_asked_for_only_when_a_port_is_opened():
    code = """
import sys
from kizzasi_bridge.link import Link
assert "serial" not in sys.modules
sys.modules["serial"] = None
try:
    Link("/dev/null").open()
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(
        "ConnectorError port /dev/null: pyserial is not installed; install the extra `serial`"
    )
