"""What a link says about its line: rates, lost STATEs, bytes held back, and what can be known without opening it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tap import Tap

from kizzasi_bridge.board import PosixBoard
from kizzasi_bridge.codec import encode
from kizzasi_bridge.line import Counts, Line, LineWatch, baud_needed, state_bytes
from kizzasi_bridge.link import Link
from kizzasi_bridge.protocol import ChannelLimits, Command, Hello, Limits, MsgType, State
from kizzasi_bridge.schema import Schema
from kizzasi_bridge.serial_port import port_findings

SCHEMA = Schema.positions(("shoulder", "elbow"), scale=2.0**-21)
LIMITS = Limits((ChannelLimits(-1_000_000, 1_000_000, 4000, 100),) * 2, 2000, 3, 200, 2000)
HELLO = Hello(6, 6, 0, 1, 100, 1, 1, 1, 1, 2000)


@pytest.fixture
def tap(tmp_path: Path) -> Iterator[Tap]:
    with PosixBoard(SCHEMA) as board, Tap(board.port, tmp_path) as wired:
        yield wired


def line(link: Link, wanted: Callable[[Line], object], timeout_s: float = 30.0) -> Line:
    """The first look at the line that shows what is wanted."""
    deadline = time.monotonic() + timeout_s
    while not wanted(found := link.line):
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


def looked(watch: LineWatch, states: int, lost: int = 0, reads: int = 0, rtt_us: float | None = 900.0) -> Line:
    """After one second with these counts, at a tick of 1 ms."""
    watch.restart(5.0)
    watch.look(5.0, Counts(100, 7, 50, 9000), HELLO, 1000, rtt_us)
    watch.look(6.0, Counts(100 + states, 7 + lost, 50 + (reads or states), 9000 + 91 * states), HELLO, 1000, rtt_us)
    return watch.now


@pytest.mark.parametrize("values", [(6, 6), (1, 0), (16, 56), (16, 64)])
def test_bytes_of_a_state_are_those_on_the_wire(values: tuple[int, int]):
    everything = list(range(1, sum(values) + 1))
    pages = [everything[i : i + 53] for i in range(0, len(everything), 53)]
    sent = [
        encode(MsgType.STATE, State(1, 0, k, len(pages), 1, 1, 1, 0, 1, 0, 0, 0, 0, tuple(page)).pack(), seq=1, t_us=1)
        for k, page in enumerate(pages)
    ]
    assert state_bytes(*values) == sum(map(len, sent))
    command = encode(MsgType.COMMAND, Command(1, 1, 1, range(values[0])).pack(), seq=1, t_us=1)
    assert baud_needed(500.0, *values) == 5000 * (state_bytes(*values) + len(command))


def test_a_good_line_has_rates_and_no_findings():
    assert looked(LineWatch(1_000_000), 500) == Line(500.0, 45_500.0, 1.0, 0.0, ())
    assert looked(LineWatch(1_000_000), 0) == Line()
    assert not looked(LineWatch(1_000_000), 500, lost=5).findings


@pytest.mark.parametrize(
    ("baud", "counts", "says"),
    [
        (115_200, {"states": 120, "lost": 380}, "76% of the STATEs do not arrive.* 455000 bit/s, too many for 115200"),
        (1_000_000, {"states": 400, "lost": 100}, "20% of the STATEs do not arrive.* noise, a slow adapter, or"),
        (1_000_000, {"states": 500, "rtt_us": 17_400.0}, "answers after 17 ms at best, at a tick of 1 ms"),
        (1_000_000, {"states": 500, "reads": 60}, "STATEs arrive 8 at a time"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(baud: int, counts: dict, says: str):
    (found,) = looked(LineWatch(baud), **counts).findings
    assert re.search(says, found), found


def test_a_look_comes_every_two_seconds_and_a_new_port_begins_anew():
    watch = LineWatch(1_000_000)
    looked(watch, 500)
    seen = watch.now
    watch.look(7.9, Counts(10_000, 0, 10_000, 0), HELLO, 1000, None)
    assert watch.now is seen
    watch.look(8.0, Counts(1600, 7, 1550, 0), HELLO, 1000, None)
    assert watch.now.states_hz == 500.0
    watch.restart(9.0)
    assert watch.now == Line()


def test_a_real_line_is_measured(tap: Tap):
    with Link(tap.port) as link:
        link.upload_limits(LIMITS)
        found = line(link, lambda now: now.states_hz > 200)
        assert found.bytes_s == pytest.approx(found.states_hz * state_bytes(2, 2), rel=0.1)
        assert found.lost_share < 0.5


def test_an_adapter_that_holds_bytes_back_is_found(tap: Tap):
    def hold(data: bytes) -> bytes:
        time.sleep(0.025)  # what comes meanwhile comes with the next
        return data

    with Link(tap.port) as link:
        link.upload_limits(LIMITS)
        tap.to_host = hold
        line(link, lambda now: any("at a time" in text for text in now.findings))
        found = line(link, lambda now: any("answers after" in text for text in now.findings), 60.0)
        assert link.clock.rtt_us > 12_000
        assert found.states_per_read > 3


def test_a_line_that_loses_states_is_found(tap: Tap):
    with Link(tap.port) as link:
        link.upload_limits(LIMITS)
        reads = iter(range(10**9))
        tap.to_host = lambda data: b"" if next(reads) % 3 == 0 else data
        found = line(link, lambda now: now.lost_share > 0.1)
        assert "of the STATEs do not arrive" in found.findings[0]
        assert link.counters["lost_states"] > 0


def adapter(root: Path, name: str, timer: str | None, *, manager: bool = False, rule: bool = False) -> str:
    """A made-up machine under ``root`` with a device of that name; its path."""
    device = root / "dev" / name
    device.parent.mkdir(parents=True)
    device.touch()
    if timer is not None:
        folder = root / "sys/bus/usb-serial/devices" / name
        folder.mkdir(parents=True)
        (folder / "latency_timer").write_text(f"{timer}\n")
    if manager:
        (root / "usr/sbin").mkdir(parents=True)
        (root / "usr/sbin/ModemManager").touch()
    rules = root / "etc/udev/rules.d"
    rules.mkdir(parents=True)
    (rules / "99-robot.rules").write_text('ENV{ID_MM_DEVICE_IGNORE}="1"' if rule else "# nothing")
    return str(device)


def test_a_port_is_judged_without_opening_it(tmp_path: Path):
    slow = adapter(tmp_path / "slow", "ttyUSB0", "16")
    assert port_findings(slow, tmp_path / "slow") == [
        (False, f"{slow}: FTDI latency_timer is 16 ms; set 1 (udev ATTR{{latency_timer}})")
    ]
    for name, timer in (("ttyUSB0", "1"), ("ttyACM0", None), ("ttyUSB1", "?")):
        root = tmp_path / f"good-{name}"
        assert port_findings(adapter(root, name, timer), root) == []
    by_id = tmp_path / "by-id"
    by_id.symlink_to(slow)
    assert len(port_findings(str(by_id), tmp_path / "slow")) == 1
    assert port_findings("/dev/no-such-port") == [(True, "port: found '/dev/no-such-port'; no such device")]


def test_modem_manager_is_to_be_kept_away(tmp_path: Path):
    found = {}
    for name, rule in (("ttyACM0", False), ("ttyACM1", True), ("pts", False)):
        root = tmp_path / name
        found[name] = port_findings(adapter(root, name, None, manager=True, rule=rule), root)
    assert "no udev rule with ID_MM_DEVICE_IGNORE" in found["ttyACM0"][0][1]
    assert found["ttyACM1"] == found["pts"] == []
