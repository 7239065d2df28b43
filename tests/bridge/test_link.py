"""Link against the real firmware process: handshake, limits, arming and the command stream."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import count, pairwise

import numpy as np
import pytest
import serial
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from linked import PATIENT_MS, clear_at_rest, until

from kizzasi_bridge import Decoder, LinkError, WireError, encode
from kizzasi_bridge.board import PosixBoard
from kizzasi_bridge.link import Link
from kizzasi_bridge.protocol import NO_SAFE, Ack, AckResult, Arm, ChannelLimits, Limits, MsgType, NodeState
from kizzasi_bridge.schema import Schema, Sensor

N = 6
SCHEMA = Schema.positions(tuple(f"joint_{i}" for i in range(N)), scale=2.0**-21)
W, H = 4000, 100
PERIOD_US = 2000
LIMITS = Limits((ChannelLimits(-1_000_000, 1_000_000, W, H),) * N, PERIOD_US, 3, PATIENT_MS, PATIENT_MS)


@pytest.fixture
def board() -> Iterator[PosixBoard]:
    with PosixBoard(SCHEMA) as running:
        yield running


@pytest.fixture
def link(board: PosixBoard) -> Iterator[Link]:
    with Link(board.port) as opened:
        yield opened


def stream(link: Link, target: np.ndarray, enough: Callable[[list], object]) -> list:
    """Answer STATEs with COMMANDs towards ``target`` until those seen are ``enough``; returns them."""
    seen: list = []
    latest, deadline = link.latest.count, time.monotonic() + 20
    while not enough(seen):
        assert time.monotonic() < deadline, seen[-1]
        state = link.wait_state(latest, 5.0)
        assert state is not None
        latest = state.count
        seen.append(state)
        link.command(target, state.t_us, PATIENT_MS)
    return seen


def fast(seen: list) -> bool:
    """They end at a good speed, every channel."""
    return bool(seen) and np.abs(seen[-1].step).min() > W // 2


def wait_for(link: Link, wanted: NodeState, timeout_s: float = 20.0):
    """The first STATE from now on that shows ``wanted``."""
    deadline = time.monotonic() + timeout_s
    count = link.latest.count if link.latest else 0
    while True:
        state = link.wait_state(count, 0.1)
        if state is not None:
            if state.state == wanted:
                return state
            count = state.count
        assert time.monotonic() < deadline, f"{wanted.name} not reached, last: {state}"


def test_handshake_names_the_board(link: Link):
    assert link.connected
    assert link.schema == SCHEMA
    assert (link.hello.n_channels, link.hello.n_sensors) == (N, N)
    assert link.hello.limits_hash == 0
    first = link.wait_state(0, 5.0)
    assert first is not None
    assert first.state == NodeState.INIT
    assert not first.step.any()
    assert link.wait_state(first.count, 5.0).count > first.count


def test_limits_are_adopted_with_the_hash_python_computes(link: Link):
    wanted = LIMITS.hash(link.hello.schema_hash)
    assert link.upload_limits(LIMITS) == wanted
    assert link.hello.limits_hash == wanted
    assert link.hello.period_us == 2000
    state = wait_for(link, NodeState.READY)
    following = link.wait_state(state.count, 5.0)
    lost = link.counters["lost_states"]
    assert 0 <= (following.t_us - state.t_us) / PERIOD_US - (following.count - state.count) <= lost
    requests = link.counters["requests_tx"]
    link.upload_limits(LIMITS)  # the board holds them already
    assert link.counters["requests_tx"] == requests


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_valid_limits_hash_alike_on_both_sides(link: Link, data: st.DataObject):
    i32 = st.integers(-(2**29), 2**29)
    channel = st.builds(
        lambda a, b, w, h, safe, kd, stop: ChannelLimits(
            min(a, b), max(a, b) + 1, w, h, {"none": NO_SAFE, "low": min(a, b), "high": max(a, b)}[safe], kd, stop
        ),
        i32, i32, st.integers(1, 2**20), st.integers(1, 2**16), st.sampled_from(["none", "low", "high"]),
        st.floats(width=32, allow_nan=False), st.sampled_from([0, 1]),
    )  # fmt: skip
    limits = Limits(
        tuple(data.draw(st.lists(channel, min_size=N, max_size=N))),
        1000 * data.draw(st.integers(1, 10)),
        data.draw(st.integers(0, 10)),
        data.draw(st.integers(1, 60000)),
        data.draw(st.integers(1, 60000)),
    )
    assert link.upload_limits(limits) == link.hello.limits_hash == limits.hash(link.hello.schema_hash)


def test_limits_that_cannot_be_adopted_are_refused_in_words(link: Link):
    with pytest.raises(LinkError, match="limits for 2 channels, the board has 6"):
        link.upload_limits(Limits(LIMITS.channels[:2], 2000, 3, 200, 500))
    with pytest.raises(LinkError, match="refuses LIMITS: BAD_LIMITS"):
        link.upload_limits(Limits((ChannelLimits(5, -5, W, H),) * N, 2000, 3, 200, 500))
    assert link.latest is None or link.latest.state == NodeState.INIT


def test_an_admissible_stream_is_applied_unchanged(link: Link):
    link.upload_limits(LIMITS)
    link.arm()
    state = link.wait_state(link.latest.count, 5.0)
    sent: set[bytes] = set()
    unchanged = 0
    deadline = time.monotonic() + 30
    for k in count():
        smooth = 40_000 * (1 - np.cos(np.pi * k / 250))
        raw = np.array([smooth, -smooth, smooth / 2, 0, 1, -smooth / 3]).astype(np.int32)
        assert link.command(raw, state.t_us, PATIENT_MS)
        sent.add(raw.tobytes())
        misses = state.misses
        state = link.wait_state(state.count, 5.0)
        if state.misses == misses and not state.clamp_mask:  # on a busy machine some periods are coasted through
            assert state.applied.tobytes() in sent or not unchanged
            unchanged += 1
        assert not state.clamp_mask or state.misses
        if k >= 300 and unchanged > 100:
            break
        assert time.monotonic() < deadline, (k, unchanged)
    assert (state.session, state.state) == (link.session, NodeState.ARMED)
    assert state.ignored == state.stale == 0
    assert link.counters["commands_tx"] == k + 1


def test_jumps_are_applied_as_the_guard_allows(link: Link):
    link.upload_limits(LIMITS)
    link.arm()

    def at_the_edge(seen: list) -> bool:  # of the range, not short of it; at rest, and clamped where COMMANDs came
        there = [np.abs(s.applied[:2]).min() > 0.999e6 and not s.step[:2].any() for s in seen[-20:]]
        return sum(there) == 20 and any(s.clamp_mask & 0b11 == 0b11 for s in seen[-20:])

    seen = stream(link, np.array([2_000_000, -2_000_000, 0, 900_000, 5, -5], dtype=np.int32), at_the_edge)
    pairs = 0
    for before, after in pairwise(seen):
        if after.t_us - before.t_us == PERIOD_US:
            np.testing.assert_array_equal(after.step, after.applied - before.applied)
            assert np.abs(after.step).max() <= W
            assert np.abs(after.step - before.step).max() <= H
            pairs += 1
    assert pairs > 20
    assert np.abs([state.applied for state in seen]).max() <= 1_000_000
    np.testing.assert_allclose(seen[-1].sensors, seen[-1].applied, atol=W)  # ideal actuators follow


def test_wait_state_returns_the_newest_and_counts_what_it_skipped(link: Link):
    link.upload_limits(LIMITS)
    state = wait_for(link, NodeState.READY)
    before = link.counters["skipped_states"]
    until(lambda: link.latest.count > state.count + 20)
    least = link.latest.count
    newest = link.wait_state(state.count, 5.0)
    assert newest.count >= least
    skipped = newest.count - state.count - 1
    assert link.counters["skipped_states"] - before == skipped
    assert link.wait_state(newest.count + 1000, 0.02) is None


def test_command_refuses_what_must_not_be_sent(link: Link):
    raw = np.zeros(N, dtype=np.int32)
    link.upload_limits(LIMITS)
    state = wait_for(link, NodeState.READY)
    assert not link.command(raw, state.t_us, 100)
    assert link.counters["commands_not_armed"] == 1
    link.arm()
    state = link.wait_state(link.latest.count, 5.0)
    assert link.command(raw, state.t_us, PATIENT_MS)
    assert link.command(raw, state.t_us, PATIENT_MS)  # the same observation again is allowed
    assert not link.command(raw, state.t_us - 1, PATIENT_MS)
    assert link.counters["obs_backwards"] == 1
    assert link.counters["commands_tx"] == 2
    for wrong in (np.zeros(N, dtype=np.int64), np.zeros(N - 1, dtype=np.int32), np.zeros(1, dtype=np.int32)):
        with pytest.raises(WireError, match="expected int32"):
            link.command(wrong, state.t_us, 100)
    with pytest.raises(WireError, match="ttl_ms 70000"):
        link.command(raw, state.t_us, 70000)


def test_disarm_brakes_and_ends_the_session(link: Link):
    link.upload_limits(LIMITS)
    link.arm()
    moving = stream(link, np.full(N, 900_000, dtype=np.int32), fast)[-1]
    link.disarm()
    assert link.session == 0
    assert not link.command(moving.applied, moving.t_us, 100)
    ready = wait_for(link, NodeState.READY)
    link.wait_state(ready.count + 3, 5.0)
    rows = link.history()
    rows = rows[rows["count"] >= moving.count]
    q, t_us = rows["applied"].astype(np.int64), rows["t_us"].astype(np.int64)
    whole = (t_us[2:] - t_us[:-2]) == 2 * PERIOD_US
    assert whole.sum() > 20
    assert np.abs(np.diff(q, 2, axis=0)[whole]).max() <= H  # it brakes,
    still = np.diff(q[rows["state"] == NodeState.READY], axis=0)
    assert len(still) >= 3
    assert not still.any()  # and is READY at rest
    assert ready.nonce != moving.nonce
    assert link.arm() not in (0, moving.session)


def test_arm_waits_for_a_first_command_only_so_long(link: Link):
    link.upload_limits(Limits(LIMITS.channels, 2000, 3, 200, 60))
    link.arm()
    assert wait_for(link, NodeState.FAILSAFE).fault == 2
    assert link.session == 0
    with pytest.raises(LinkError, match=r"refuses ARM: WRONG_STATE.*in FAILSAFE, fault ARM_TTL"):
        link.arm()
    clear_at_rest(link)
    assert link.arm()


def test_a_stale_nonce_is_refused(board: PosixBoard):
    with Link(board.port) as link:
        limits_hash = link.upload_limits(LIMITS)
        old = wait_for(link, NodeState.READY).nonce
        link.arm()
        link.disarm()
        assert wait_for(link, NodeState.READY).nonce != old
    with serial.Serial(str(board.port), timeout=0.01, exclusive=True) as port:
        port.write(encode(MsgType.ARM, Arm(old, limits_hash).pack(), seq=77, t_us=0))
        decoder = Decoder()
        deadline = time.monotonic() + 10.0
        acks = []
        while not acks and time.monotonic() < deadline:
            acks = [Ack.unpack(f.payload) for f in decoder.feed(port.read(4096)) if f.type == MsgType.ACK]
    assert acks == [Ack(MsgType.ARM, AckResult.WRONG_NONCE, 77, 0)]


def test_estop_stops_and_needs_clear_and_arm(link: Link):
    link.upload_limits(LIMITS)
    link.arm()
    last = stream(link, np.full(N, 900_000, dtype=np.int32), fast)[-1]
    link.estop()
    stopped = wait_for(link, NodeState.ESTOP)
    assert stopped.fault == 7
    assert not link.estop_pending
    assert link.session == 0
    assert not link.command(last.applied, stopped.t_us, 100)
    with pytest.raises(LinkError, match="WRONG_STATE"):
        link.arm()
    clear_at_rest(link)
    wait_for(link, NodeState.READY)
    assert link.arm()


def test_heartbeat_is_counted_and_harmless(link: Link):
    assert link.heartbeat()
    assert link.counters["heartbeats_tx"] == 1
    assert link.wait_state(link.latest.count if link.latest else 0, 5.0).state == NodeState.INIT


def test_states_of_several_pages_are_joined():
    base = Schema.positions(tuple(f"joint_{i}" for i in range(16)), scale=2.0**-21)
    extra = tuple(Sensor(f"adc_{i}", unit="V", scale=1e-4) for i in range(40))
    wide = Schema(base.board, base.tick_us, base.channels, base.sensors + extra)
    with PosixBoard(wide) as board, Link(board.port) as link:
        assert link.schema == wide
        state = link.wait_state(0, 5.0)
        assert state.applied.shape == (16,)
        assert state.sensors.shape == (56,)
        assert link.wait_state(state.count + 3, 5.0) is not None
        assert link.counters["lost_states"] == 0


def test_requests_from_another_thread_do_not_disturb_the_stream(link: Link):
    link.upload_limits(LIMITS)
    link.arm()
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            for _ in range(20):
                link.upload_limits(LIMITS)
        except BaseException as error:  # handed to the test's own thread
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    target = np.full(N, 100_000, dtype=np.int32)
    seen = stream(link, target, lambda seen: len(seen) >= 150 and not thread.is_alive())
    thread.join()
    assert not errors
    assert {s.state for s in seen[1:]} == {NodeState.ARMED}
    assert link.counters["obs_backwards"] == link.counters["commands_not_armed"] == 0
    assert seen[-1].ignored == seen[-1].stale == 0
