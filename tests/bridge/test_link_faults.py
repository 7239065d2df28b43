"""Link in trouble: killed hosts, pulled cables, lost and damaged bytes, other boards, deaf and mute ones."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from linked import PATIENT_MS, clear_at_rest, until
from tap import Tap, nothing

from kizzasi_bridge import Decoder, LinkError, encode, request
from kizzasi_bridge.board import PosixBoard
from kizzasi_bridge.link import Link
from kizzasi_bridge.protocol import ChannelLimits, Fault, Limits, MsgType, NodeState
from kizzasi_bridge.schema import Schema

N = 2
SCHEMA = Schema.positions(("shoulder", "elbow"), scale=2.0**-21)
W, H = 4000, 100
LIMITS = Limits((ChannelLimits(-1_000_000, 1_000_000, W, H),) * N, 2000, 3, PATIENT_MS, PATIENT_MS)
TARGET = np.full(N, 900_000, dtype=np.int32)


@pytest.fixture
def board() -> Iterator[PosixBoard]:
    with PosixBoard(SCHEMA) as running:
        yield running


def stream(link: Link, periods: int, ttl_ms: int = PATIENT_MS) -> None:
    count = link.latest.count if link.latest else 0
    for _ in range(periods):
        state = link.wait_state(count, 5.0)
        assert state is not None
        count = state.count
        link.command(TARGET, state.t_us, ttl_ms)


@pytest.fixture
def tap(board: PosixBoard, tmp_path: Path) -> Iterator[Tap]:
    with Tap(board.port, tmp_path) as wired:
        yield wired


TTL_MS = 400  # more than a busy machine forgets a process for; it costs the tests that wait for it
HOST = textwrap.dedent("""
    import json, sys, time
    import numpy as np
    from kizzasi_bridge.link import Link
    from kizzasi_bridge.protocol import ChannelLimits, Limits
    link = Link(sys.argv[1])
    link.open()
    ttl_ms = int(sys.argv[2])
    link.upload_limits(Limits((ChannelLimits(-1_000_000, 1_000_000, 4000, 100),) * 2, 2000, 3, ttl_ms, 5000))
    link.arm()
    target, count, told, end = np.full(2, 900_000, dtype=np.int32), 0, False, time.monotonic() + 20
    while time.monotonic() < end:
        state = link.wait_state(count, 5.0)
        if state is None:
            continue
        count = state.count
        link.command(target, state.t_us, ttl_ms)
        if not told and state.step.all():
            print("moving", flush=True)
            told = True
        if told and link.session == 0:
            print(json.dumps({"state": state.state, "fault": state.fault, "stale": state.stale,
                              "ignored": state.ignored, **link.counters}), flush=True)
            break
""")


@pytest.fixture
def armed_host(board: PosixBoard) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that has armed the board and is moving it."""
    host = subprocess.Popen([sys.executable, "-c", HOST, str(board.port), str(TTL_MS)], stdout=subprocess.PIPE)
    try:
        assert host.stdout is not None
        assert host.stdout.readline() == b"moving\n"
        yield host
    finally:
        host.kill()
        host.communicate()


def test_a_killed_host_leaves_a_board_that_stops_by_its_ttl(board: PosixBoard, armed_host: subprocess.Popen[bytes]):
    armed_host.kill()
    armed_host.wait()
    with Link(board.port) as link:
        first = link.wait_state(0, 5.0)
        until(lambda: link.latest.state == NodeState.FAILSAFE)
        # By the board's clock, which a busy test machine cannot bend: ARMED for no longer than the TTL.
        rows = link.history()
        armed = rows["t_us"][rows["state"] == NodeState.ARMED].astype(np.int64)
        assert (armed - first.t_us <= TTL_MS * 1000).all()
        assert link.latest.fault == Fault.TTL
        assert link.session == 0
        until(lambda: not link.latest.step.any())
        assert np.abs(link.latest.applied).max() <= 1_000_000
        assert not link.command(TARGET, link.latest.t_us, TTL_MS)
        with pytest.raises(LinkError, match="refuses ARM: WRONG_STATE"):
            link.arm()
        clear_at_rest(link)
        until(lambda: link.latest.state == NodeState.READY)
        assert link.latest.nonce != first.nonce
        assert link.arm() not in (0, first.session)


def test_a_stopped_host_sends_no_backlog_when_it_goes_on(board: PosixBoard, armed_host: subprocess.Popen[bytes]):
    armed_host.send_signal(signal.SIGSTOP)
    time.sleep(4 * TTL_MS * 1e-3)  # of this machine's time: a busy one may give the board less
    armed_host.send_signal(signal.SIGCONT)
    assert armed_host.stdout is not None
    report = json.loads(armed_host.stdout.readline())
    assert (report["state"], report["fault"]) == (NodeState.FAILSAFE, Fault.TTL)
    assert report["sessions_lost"] == 1
    # That are hundreds of periods; what arrives late is at most the command that was under way, and its successor.
    assert report["ignored"] + report["stale"] <= 3


def test_unplug_and_replug_reconnect_and_never_arm(board: PosixBoard):
    with Link(board.port) as link:
        link.upload_limits(LIMITS)
        link.arm()
        stream(link, 30, 1000)
        board.unplug()
        until(lambda: not link.connected)
        assert link.session == 0
        assert "gone" in link.diagnosis
        assert not link.command(TARGET, link.latest.t_us, 150)
        with pytest.raises(LinkError, match="not connected"):
            link.arm()
        time.sleep(0.3)
        count = link.latest.count
        board.replug()
        after = link.wait_state(count, 20.0)
        assert after.count > count + 1 or not after.step.any()  # no predecessor on this connection
        until(lambda: link.latest.state == NodeState.FAILSAFE)
        assert not link.command(TARGET, after.t_us, 150)
        counters = link.counters
        assert (counters["disconnects"], counters["reconnects"], counters["device_resets"]) == (1, 1, 0)
        clear_at_rest(link)
        assert link.arm()
        stream(link, 5)
        assert link.latest.session == link.session != 0


def test_many_quick_replugs_are_all_survived(board: PosixBoard):
    with Link(board.port) as link:
        for k in range(1, 6):
            board.unplug()
            until(lambda k=k: link.counters["disconnects"] == k)
            board.replug()
            until(lambda: link.connected)
        assert link.counters["reconnects"] == 5
        assert link.wait_state(link.latest.count if link.latest else 0, 5.0) is not None


def test_a_rebooted_or_other_board_behind_the_same_port_is_noticed(tmp_path: Path):
    with PosixBoard(SCHEMA, directory=tmp_path, boot_id=1) as board:
        link = Link(board.port)
        link.open()
        link.upload_limits(LIMITS)
        link.arm()
    with link:
        until(lambda: not link.connected)
        with PosixBoard(SCHEMA, directory=tmp_path, boot_id=2):
            until(lambda: link.connected)
            assert link.session == 0
            assert link.counters["device_resets"] == 1
            assert link.hello.limits_hash == 0
            with pytest.raises(LinkError, match="refuses ARM"):
                link.arm()
        until(lambda: not link.connected)
        other = Schema.positions(("a", "b", "c"), scale=2.0**-20)
        with PosixBoard(other, directory=tmp_path, boot_id=3):
            until(lambda: link.connected)
            assert link.counters["schema_changes"] == 1
            assert link.schema == other
            with pytest.raises(LinkError, match="limits for 2 channels, the board has 3"):
                link.upload_limits(LIMITS)
            until(lambda: link.latest.applied.shape == (3,))


def test_estop_is_repeated_until_the_board_shows_it(tap: Tap):
    with Link(tap.port) as link:
        link.upload_limits(LIMITS)
        link.arm()
        stream(link, 20)
        sent = link.counters["commands_tx"]
        tap.to_board = nothing
        link.estop()
        for _ in range(10):
            state = link.wait_state(link.latest.count, 5.0)
            assert not link.command(TARGET, state.t_us, PATIENT_MS)
        assert link.estop_pending
        assert link.counters["estops_tx"] == 11
        assert link.counters["commands_tx"] == sent
        for refused in (link.arm, link.clear):
            with pytest.raises(LinkError, match="emergency stop is not confirmed"):
                refused()
        tap.to_board = bytes
        time.sleep(0.01)  # what was under way in the tap
        pending = link.estop_pending
        assert pending or link.latest.state == NodeState.ESTOP
        link.heartbeat()
        until(lambda: not link.estop_pending and link.latest.state == NodeState.ESTOP)
        assert link.latest.fault == Fault.ESTOP_HOST
        beats = link.counters["heartbeats_tx"]
        link.heartbeat()
        assert link.counters["heartbeats_tx"] == beats + 1


def test_estop_while_unplugged_is_sent_on_return(board: PosixBoard):
    with Link(board.port) as link:
        link.upload_limits(LIMITS)
        board.unplug()
        until(lambda: not link.connected)
        link.estop()
        board.replug()
        until(lambda: not link.estop_pending)
        until(lambda: link.latest.state == NodeState.ESTOP)
        assert link.connected


def test_a_lost_ack_does_not_make_a_second_session(tap: Tap):
    with Link(tap.port) as link:
        link.upload_limits(LIMITS)
        until(lambda: link.latest is not None and link.latest.state == NodeState.READY)

        def without_first_ack(data: bytes, decoder: Decoder = Decoder()) -> bytes:  # noqa: B008 - one per test
            out = b""
            for frame in decoder.feed(data):
                if frame.type == MsgType.ACK:
                    tap.to_host = bytes
                    continue
                out += encode(frame.type, frame.payload, seq=frame.seq, t_us=frame.t_us, flags=frame.flags)
            return out

        tap.to_host = without_first_ack
        session = link.arm()
        assert link.counters["acks_timeout"] >= 1  # once, on a machine that is not too busy to answer the second
        stream(link, 10)
        rows = link.history()
        assert set(rows["session"][rows["state"] == NodeState.ARMED]) == {session}


def test_garbage_on_the_line_is_counted_and_survived(tap: Tap):
    rng = np.random.default_rng(7)
    with Link(tap.port) as link:
        link.upload_limits(LIMITS)
        link.arm()
        errors = link.latest.rx_errors
        for _ in range(20):
            tap.inject_to_host(rng.integers(0, 256, 300, dtype=np.uint8).tobytes())
            tap.inject_to_board(rng.integers(0, 256, 100, dtype=np.uint8).tobytes())
            stream(link, 10)
        assert link.latest.state == NodeState.ARMED
        until(lambda: link.latest.rx_errors > errors)
        until(lambda: sum(link.counters[name] for name in ("bad_crc", "bad_cobs", "runt", "too_long")) >= 20)
        assert link.counters["sessions_lost"] == 0
        assert link.diagnosis is None


def test_bytes_without_frames_are_reported_as_a_baud_mismatch(tap: Tap):
    with Link(tap.port) as link:
        tap.to_host = lambda data: bytes(b ^ 0x55 for b in data)
        until(lambda: link.counters["baud_suspects"])
        assert "no valid frame for 1 s" in link.diagnosis
        assert "1000000 baud" in link.diagnosis
        tap.to_host = bytes
        until(lambda: link.diagnosis is None)
    tap.to_host = lambda data: bytes(b ^ 0x55 for b in data)
    with pytest.raises(LinkError, match=r"no valid frame.*baud"):
        Link(tap.port).open(timeout_s=1.0)


def test_a_board_that_stops_reading_never_blocks_the_loop(board: PosixBoard, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(request, "_TRIES", 5)
    with Link(board.port) as link:
        link.upload_limits(LIMITS)
        link.arm()
        state = link.wait_state(link.latest.count, 5.0)
        board.process.send_signal(signal.SIGSTOP)
        try:
            waits = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
            for _ in range(40_000):  # far more than any tty buffers
                link.command(TARGET, state.t_us, PATIENT_MS)
            # To be interrupted is the machine's affair; to give up the processor is ours: not for a full port.
            waits = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - waits
            assert link.counters["tx_blocked"] > 20
            assert waits < link.counters["tx_blocked"] / 2
            with pytest.raises(LinkError, match="no answer to DISARM after 5 tries"):
                link.disarm()
            link.estop()  # once: it takes the place of the stale commands in the buffers
        finally:
            board.process.send_signal(signal.SIGCONT)
        until(lambda: not link.estop_pending and link.latest.state == NodeState.ESTOP)
