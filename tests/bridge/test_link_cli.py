"""kizzasi-bridge as a technician uses it, against the real firmware process."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from linked import PATIENT_MS, clear_at_rest
from typer.testing import CliRunner

from kizzasi_bridge import ConnectorError, LinkError
from kizzasi_bridge.advice import FAULTS, RESETS, STATES
from kizzasi_bridge.board import PosixBoard
from kizzasi_bridge.cli import app
from kizzasi_bridge.link import Link
from kizzasi_bridge.protocol import ChannelLimits, Fault, Limits, NodeState, ResetCause
from kizzasi_bridge.schema import Schema, Sensor
from kizzasi_edge.control import ControlServer

BASE = Schema.positions(("shoulder", "elbow"), scale=2.0**-21)
SCHEMA = Schema(BASE.board, BASE.tick_us, BASE.channels, (*BASE.sensors, Sensor("supply", "V", 0, 1e-3)))
LIMITS = Limits((ChannelLimits(-1_000_000, 1_000_000, 4000, 100),) * 2, 2000, 3, PATIENT_MS, PATIENT_MS)
SLOWER = (1.0, 5.0, 20.0)
"""Times as much a busy machine is given, one after the other, to show what it must."""


@pytest.fixture
def board() -> Iterator[PosixBoard]:
    with PosixBoard(SCHEMA) as running:
        with Link(running.port) as link:
            link.upload_limits(LIMITS)
        yield running


def run(*arguments: object, columns: int = 110) -> str:
    """Output of a command that succeeds; its error otherwise."""
    done = CliRunner(env={"COLUMNS": str(columns)}).invoke(app, [str(a) for a in arguments])
    if done.exception is not None:
        raise done.exception
    return done.output


def test_flash_info_shows_hello_and_schema(board: PosixBoard):
    shown = run("flash-info", board.port)
    for text in ("READY", "POWER_ON, switched on", "2000 µs", "shoulder/position", "supply", "channel 1", "answers in"):
        assert text in shown
    assert f"{LIMITS.hash(zlib.crc32(SCHEMA.to_bytes())):#010x}" in shown


def test_send_takes_a_board_through_its_states(board: PosixBoard):
    assert "board is in ARMED" in run("send", "arm", board.port)
    assert "board is in READY" in run("send", "disarm", board.port)
    assert "board is in ESTOP, fault ESTOP_HOST" in run("send", "estop", board.port)
    with pytest.raises(LinkError, match="refuses ARM: WRONG_STATE"):
        run("send", "arm", board.port)
    with Link(board.port) as link:
        link.wait_state(100, 20.0)  # it wants to see the cut channels at rest for a while, by its own clock
    assert "board is in READY" in run("send", "clear", board.port)


def test_send_speaks_json_to_scripts(board: PosixBoard):
    def told(*arguments: object) -> tuple[int, dict[str, object]]:
        done = CliRunner(env={"COLUMNS": "40"}).invoke(app, [str(a) for a in (*arguments, "--json")])
        assert done.exception is None or isinstance(done.exception, SystemExit)
        return done.exit_code, json.loads(done.output)

    code, ready = told("send", "disarm", board.port)
    assert (code, ready) == (0, {"ok": True, "state": "READY", "fault": "NONE", "session": 0})
    code, armed = told("send", "arm", board.port)
    assert (code, armed["ok"], armed["state"]) == (0, True, "ARMED")
    assert armed["session"]
    assert told("send", "estop", board.port) == (0, armed | {"state": "ESTOP", "fault": "ESTOP_HOST"})
    code, refused = told("send", "arm", board.port)
    assert (code, refused["ok"]) == (1, False)
    assert "refuses ARM: WRONG_STATE" in str(refused["error"])
    assert CliRunner().invoke(app, ["send", "jump", str(board.port)]).exit_code == 2


def test_monitor_draws_channels_in_si(board: PosixBoard):
    for slower in SLOWER:
        shown = run("monitor", board.port, "--seconds", 0.8 * slower, columns=140)
        if "answers in" in shown:
            break
    for text in ("READY", "holds; moves once a host arms it", "Hz of 500", "answers in", "shoulder/position", "rad"):
        assert text in shown
    for text in ("supply", "recent", "nothing to report"):
        assert text in shown


@pytest.mark.parametrize("columns", [30, 60, 90, 200])
def test_monitor_fits_the_terminal(board: PosixBoard, columns: int):
    shown = run("monitor", board.port, "--seconds", "0.1", columns=columns)
    assert max(map(len, shown.splitlines())) <= columns
    assert ("recent" in shown) == (columns == 200)
    assert "applied" in shown
    assert "shoulder" in shown


def test_monitor_tells_what_led_to_a_fault_and_writes_it_down(board: PosixBoard, tmp_path: Path):
    """A host that is gone: nobody reads the port any more, so that the monitor opens it before the TTL is over."""
    table = tmp_path / "fault.csv"
    for slower, target in zip(SLOWER, (900_000, -900_000, 900_000), strict=True):
        ttl_ms = int(1000 * slower)
        with Link(board.port) as link:
            if link.hello.state == NodeState.FAILSAFE:
                clear_at_rest(link)
            link.upload_limits(
                Limits(LIMITS.channels, 2000, 255, ttl_ms, 5000)
            )  # misses are coasted through until then
            link.arm()
            latest = 0
            for _ in range(10):
                state = link.wait_state(latest, 5.0)
                latest = state.count
                link.command(np.full(2, target, dtype=np.int32), state.t_us, ttl_ms)
            assert state.state == NodeState.ARMED
        shown = run("monitor", board.port, "--seconds", 2.5 * slower, "--csv", table, columns=160)
        with table.open() as file:
            rows = list(csv.DictReader(file))
        faults = [row["fault"] for row in rows]
        if "TTL" in faults[11:-50]:
            break
    for text in ("fault TTL", "no fresh COMMAND in time", "last fault", "TTL in ARMED", "▁", "█"):
        assert text in shown
    began = faults.index("TTL")
    assert began > 10
    assert set(faults[:began]) == {"NONE"}
    assert set(faults[began:]) == {"TTL"}
    assert {row["state"] for row in rows} == {"ARMED", "FAILSAFE"}
    applied = [float(row["applied elbow/position [rad]"]) for row in rows]
    assert applied == sorted(applied, reverse=target < 0), "it coasted, braked and held"
    assert applied[-1] != applied[0]
    when = [datetime.fromisoformat(row["time"]).timestamp() for row in rows]
    assert 0.1 <= when[-1] - when[began] <= 1.001, "a second"


def test_monitor_writes_the_newest_states_where_there_is_no_fault(board: PosixBoard, tmp_path: Path):
    for slower in SLOWER:
        run("monitor", board.port, "--seconds", 0.5 * slower, "--csv", tmp_path / "now.csv")
        lines = (tmp_path / "now.csv").read_text().splitlines()
        if len(lines) > 50:
            break
    assert len(lines) > 50
    assert "supply [V]" in lines[0]
    with pytest.raises(ConnectorError, match="No such file"):
        run("monitor", board.port, "--seconds", "1", "--csv", tmp_path / "no" / "folder.csv")


def test_monitor_lives_through_an_unplugged_cable(board: PosixBoard):
    for slower in SLOWER:

        def pull(pause_s: float = 0.7 * slower) -> None:
            for act in (board.unplug, board.replug, board.unplug):
                time.sleep(pause_s)
                act()

        puller = threading.Thread(target=pull)
        puller.start()
        shown = run("monitor", board.port, "--seconds", 2.5 * slower)
        puller.join()
        if "disconnects 2  reconnects 1" in shown:
            break
        board.replug()
    for text in ("disconnects 2  reconnects 1", "DISCONNECTED", "the device is gone", "shoulder/position"):
        assert text in shown


def test_every_code_has_its_words():
    assert set(FAULTS) == set(Fault) - {Fault.NONE}
    assert set(RESETS) == set(ResetCause)
    assert set(STATES) == set(NodeState)


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
        assert link.wait_state(link.latest.count, 5.0).state == NodeState.ARMED


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
