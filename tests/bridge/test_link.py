"""Link against the real firmware process: handshake, limits, arming and the command stream."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import serial
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from linked import clear_at_rest

from kizzasi_bridge import Decoder, LinkError, WireError, encode
from kizzasi_bridge.board import PosixBoard
from kizzasi_bridge.link import Link
from kizzasi_bridge.protocol import NO_SAFE, Ack, AckResult, Arm, ChannelLimits, Limits, MsgType, NodeState
from kizzasi_bridge.schema import Schema, Sensor

N = 6
SCHEMA = Schema.positions(tuple(f"joint_{i}" for i in range(N)), scale=2.0**-21)
W, H = 4000, 100
LIMITS = Limits((ChannelLimits(-1_000_000, 1_000_000, W, H),) * N, 2000, 3, 200, 500)


@pytest.fixture
def board() -> Iterator[PosixBoard]:
    with PosixBoard(SCHEMA) as running:
        yield running


@pytest.fixture
def link(board: PosixBoard) -> Iterator[Link]:
    with Link(board.port) as opened:
        yield opened


def stream(link: Link, target: np.ndarray, states: int, ttl_ms: int = 150) -> list:
    """Answer ``states`` STATEs with COMMANDs towards ``target``; the STATEs seen."""
    seen = []
    count = link.latest.count
    for _ in range(states):
        state = link.wait_state(count, 0.5)
        assert state is not None
        count = state.count
        seen.append(state)
        link.command(target, state.t_us, ttl_ms)
    return seen


def wait_for(link: Link, wanted: NodeState, timeout_s: float = 2.0):
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
    first = link.wait_state(0, 0.5)
    assert first is not None
    assert first.state == NodeState.INIT
    assert not first.step.any()
    assert link.wait_state(first.count, 0.5).count > first.count


def test_limits_are_adopted_with_the_hash_python_computes(link: Link):
    wanted = LIMITS.hash(link.hello.schema_hash)
    assert link.upload_limits(LIMITS) == wanted
    assert link.hello.limits_hash == wanted
    assert link.hello.period_us == 2000
    state = wait_for(link, NodeState.READY)
    following = link.wait_state(state.count, 0.5)
    assert (following.t_us - state.t_us) == 2000 * (following.count - state.count)
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
    state = link.wait_state(link.latest.count, 0.5)
    sent: set[bytes] = set()
    unchanged = 0
    for k in range(300):
        smooth = 40_000 * (1 - np.cos(np.pi * min(k, 250) / 250))
        raw = np.array([smooth, -smooth, smooth / 2, 0, 1, -smooth / 3]).astype(np.int32)
        assert link.command(raw, state.t_us, 150)
        sent.add(raw.tobytes())
        misses = state.misses
        state = link.wait_state(state.count, 0.5)
        if state.misses == misses and not state.clamp_mask:  # on a busy machine some periods are coasted through
            assert state.applied.tobytes() in sent or not unchanged
            unchanged += 1
        assert not state.clamp_mask or state.misses
    assert unchanged > 100
    assert (state.session, state.state) == (link.session, NodeState.ARMED)
    assert state.ignored == state.stale == 0
    assert link.counters["commands_tx"] == 300


def test_jumps_are_applied_as_the_guard_allows(link: Link):
    link.upload_limits(LIMITS)
    link.arm()
    seen = stream(link, np.array([2_000_000, -2_000_000, 0, 900_000, 5, -5], dtype=np.int32), 400)
    for before, after in pairwise(seen):
        if after.t_us - before.t_us == 2000:
            np.testing.assert_array_equal(after.step, after.applied - before.applied)
            assert np.abs(after.step).max() <= W
            assert np.abs(after.step - before.step).max() <= H
    assert np.abs(seen[-1].applied[:2]).min() > 0.999e6  # at the edge of the range, not short of it
    assert np.abs(seen[-1].applied).max() <= 1_000_000
    assert any(state.clamp_mask & 0b11 == 0b11 for state in seen[-50:])  # those that a COMMAND came for
    np.testing.assert_allclose(seen[-1].sensors, seen[-1].applied, atol=W)  # ideal actuators follow


def test_wait_state_returns_the_newest_and_counts_what_it_skipped(link: Link):
    link.upload_limits(LIMITS)
    state = wait_for(link, NodeState.READY)
    before = link.counters["skipped_states"]
    time.sleep(0.1)
    newest = link.wait_state(state.count, 0.5)
    skipped = newest.count - state.count - 1
    assert skipped >= 20
    assert time.monotonic_ns() - newest.recv_ns < 50e6
    assert link.counters["skipped_states"] - before == skipped
    assert link.wait_state(newest.count + 1000, 0.02) is None


def test_command_refuses_what_must_not_be_sent(link: Link):
    raw = np.zeros(N, dtype=np.int32)
    link.upload_limits(LIMITS)
    state = wait_for(link, NodeState.READY)
    assert not link.command(raw, state.t_us, 100)
    assert link.counters["commands_not_armed"] == 1
    link.arm()
    state = link.wait_state(link.latest.count, 0.5)
    assert link.command(raw, state.t_us, 100)
    assert link.command(raw, state.t_us, 100)  # the same observation again is allowed
    assert not link.command(raw, state.t_us - 1, 100)
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
    moving = stream(link, np.full(N, 900_000, dtype=np.int32), 40)[-1]
    assert moving.step.all()
    link.disarm()
    assert link.session == 0
    assert not link.command(moving.applied, moving.t_us, 100)
    braking = link.wait_state(link.latest.count, 0.5)
    assert braking.state == NodeState.ARMED  # until it is at rest
    ready = wait_for(link, NodeState.READY)
    assert not link.wait_state(ready.count, 0.5).step.any()
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
        deadline = time.monotonic() + 1.0
        acks = []
        while not acks and time.monotonic() < deadline:
            acks = [Ack.unpack(f.payload) for f in decoder.feed(port.read(4096)) if f.type == MsgType.ACK]
    assert acks == [Ack(MsgType.ARM, AckResult.WRONG_NONCE, 77, 0)]


def test_estop_stops_and_needs_clear_and_arm(link: Link):
    link.upload_limits(LIMITS)
    link.arm()
    last = stream(link, np.full(N, 900_000, dtype=np.int32), 30)[-1]
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
    assert link.wait_state(link.latest.count if link.latest else 0, 0.5).state == NodeState.INIT


def test_states_of_several_pages_are_joined():
    base = Schema.positions(tuple(f"joint_{i}" for i in range(16)), scale=2.0**-21)
    extra = tuple(Sensor(f"adc_{i}", unit="V", scale=1e-4) for i in range(40))
    wide = Schema(base.board, base.tick_us, base.channels, base.sensors + extra)
    with PosixBoard(wide) as board, Link(board.port) as link:
        assert link.schema == wide
        state = link.wait_state(0, 0.5)
        assert state.applied.shape == (16,)
        assert state.sensors.shape == (56,)
        assert link.wait_state(state.count + 3, 0.5) is not None
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
    seen = stream(link, np.full(N, 100_000, dtype=np.int32), 150)
    thread.join()
    assert not errors
    assert {s.state for s in seen[1:]} == {NodeState.ARMED}
    assert link.counters["acks_timeout"] == 0
