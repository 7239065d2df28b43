"""The node in virtual time: every row of the state table and every rule of COMMAND (docs/protocol.md)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kizzasi_bridge.frame import Frame
from kizzasi_bridge.protocol import (
    INVALID,
    VALUES_PER_PAGE,
    AckResult,
    Arm,
    ChannelLimits,
    Clear,
    Fault,
    FaultReport,
    Hello,
    Limits,
    MsgType,
    NodeState,
    SchemaData,
    SchemaGet,
    State,
    TimeRequest,
    TimeResponse,
)
from kizzasi_bridge.schema import Channel, Schema, Sensor
from kizzasi_bridge.virtual import VirtualNode

FAR = (100_000, -100_000)  # the limits themselves: the guard brakes before them, not before any other target
CLOSE = 3  # quanta: the coasting room of the miss budget may stay unused


def states(frames: list[Frame]) -> list[State]:
    return [State.unpack(f.payload) for f in frames if f.type == MsgType.STATE]


def arm_payload(node) -> bytes:
    return Arm(node.now.nonce, node.limits_hash).pack()


def motion(node, ticks: int) -> np.ndarray:
    """Setpoints of each period during ``ticks``."""
    rows = [node.applied.copy()]
    for _ in range(ticks):
        node.tick()
        if node.boundary:
            rows.append(node.applied.copy())
    return np.array(rows, dtype=np.int64)


def run_to_rest(node) -> None:
    for _ in range(1000):
        before = node.applied.copy()
        node.tick(2)
        if (node.applied == before).all():
            return
    raise AssertionError("never came to rest")


# ---- INIT ----------------------------------------------------------------------------------------------------


def test_boot_sends_hello_and_state_every_10_ms(node) -> None:
    frames = node.tick(50)
    assert frames[0].type == MsgType.HELLO
    assert [s.sample_t_us for s in states(frames)] == [0, 10_000, 20_000, 30_000, 40_000]
    assert node.now.state == NodeState.INIT
    assert node.enabled == 0
    assert node.hello.limits_hash == node.hello.period_us == 0
    assert node.hello.nonce != 0


def test_init_refuses_arm_disarm_is_harmless_and_commands_are_counted(node) -> None:
    node.tick(2)
    assert node.request(MsgType.ARM, Arm(node.hello.nonce, 0).pack()).result == AckResult.WRONG_STATE
    assert node.request(MsgType.DISARM).result == AckResult.OK
    assert node.request(MsgType.CLEAR, Clear(node.hello.nonce).pack()).result == AckResult.WRONG_STATE
    node.command((0, 0))
    node.tick(20)
    assert node.now.ignored == 1
    assert node.enabled == 0


def test_init_waits_for_a_measurement(node) -> None:
    node.inputs(8)
    node.tick(2)
    node.upload()
    node.tick(4)
    assert node.now.state == NodeState.INIT
    assert node.request(MsgType.ARM, arm_payload(node)).result == AckResult.NO_MEASUREMENT
    node.inputs(0)
    node.sensors[:] = (500, -700)
    node.tick(2)
    assert node.now.state == NodeState.READY
    assert tuple(node.applied) == (500, -700)


def test_schema_arrives_in_chunks(node) -> None:
    node.tick()
    data = b""
    while len(data) < node.hello.schema_len:
        (frame,) = node.send(MsgType.SCHEMA_GET, SchemaGet(len(data), 60).pack())
        chunk = SchemaData.unpack(frame.payload)
        assert chunk.offset == len(data)
        assert chunk.data
        data += chunk.data
    assert Schema.from_bytes(data).channels[1].name == "elbow/position"
    (frame,) = node.send(MsgType.SCHEMA_GET, SchemaGet(60_000, 60).pack())
    assert SchemaData.unpack(frame.payload).data == b""


# ---- LIMITS --------------------------------------------------------------------------------------------------


def test_limits_are_adopted_only_by_commit(node) -> None:
    node.tick(2)
    for payload in node.limits.channel_payloads():
        node.request(MsgType.LIMITS, payload)
    node.tick(20)
    assert node.now.state == NodeState.INIT
    commit = node.limits.commit_payload(node.hello.schema_hash)
    damaged = commit[:-1] + bytes([commit[-1] ^ 1])
    assert node.request(MsgType.LIMITS_COMMIT, damaged).result == AckResult.HASH_MISMATCH
    assert node.request(MsgType.LIMITS_COMMIT, commit).value == node.limits.hash(node.hello.schema_hash)
    node.send(MsgType.HELLO_REQ)
    assert node.hello.state == NodeState.READY
    assert (node.hello.limits_hash, node.hello.period_us) == (node.limits.hash(node.hello.schema_hash), 2000)


def test_torn_upload_changes_nothing(make_session) -> None:
    node = make_session().ready()
    node.send(MsgType.HELLO_REQ)
    before = node.hello
    other = replace(node.limits, channels=(ChannelLimits(-5, 5, 1, 1), ChannelLimits(-6, 6, 1, 1)))
    node.request(MsgType.LIMITS, other.channel_payloads()[0])  # the second is lost
    refused = node.request(MsgType.LIMITS_COMMIT, other.commit_payload(before.schema_hash))
    assert refused.result == AckResult.HASH_MISMATCH
    node.send(MsgType.HELLO_REQ)
    assert node.hello == before
    assert node.request(MsgType.ARM, arm_payload(node)).result == AckResult.OK, "the committed limits still hold"


def test_a_lost_commit_ack_changes_nothing(node) -> None:
    node.ready()
    nonce = node.now.nonce
    again = node.request(MsgType.LIMITS_COMMIT, node.limits.commit_payload(node.hello.schema_hash))
    assert (again.result, again.value) == (AckResult.OK, node.limits_hash)
    node.tick(2)
    assert node.now.nonce == nonce


@pytest.mark.parametrize(
    "bad",
    [
        ChannelLimits(5, 4, 1, 1),
        ChannelLimits(0, 4, 0, 1),
        ChannelLimits(0, 4, 1, 0),
        ChannelLimits(0, 4, -1, 1),
        ChannelLimits(-(2**31), 4, 1, 1),
        ChannelLimits(0, 4, 1, 1, stop_category=2),
    ],
)
def test_limits_that_cannot_be_guarded_are_refused(node, bad) -> None:
    node.tick()
    assert node.request(MsgType.LIMITS, bad.pack(0)).result == AckResult.BAD_LIMITS


@pytest.mark.parametrize(
    "change",
    [{"period_us": 0}, {"period_us": 1500}, {"period_us": 2_000_000}, {"ttl_max_ms": 0}, {"arm_ttl_ms": 0}],
)
def test_commit_values_that_make_no_sense_are_refused(node, change) -> None:
    node.tick()
    limits = replace(node.limits, **change)
    for payload in limits.channel_payloads():
        node.request(MsgType.LIMITS, payload)
    ack = node.request(MsgType.LIMITS_COMMIT, limits.commit_payload(node.hello.schema_hash))
    assert ack.result == AckResult.BAD_LIMITS


def test_missing_channel_and_wrong_lengths_are_refused(node) -> None:
    node.tick()
    first, _ = node.limits.channel_payloads()
    node.request(MsgType.LIMITS, first)
    commit = node.limits.commit_payload(node.hello.schema_hash)
    assert node.request(MsgType.LIMITS_COMMIT, commit).result == AckResult.BAD_LIMITS
    assert node.request(MsgType.LIMITS, b"\2" + first[1:]).result == AckResult.BAD_LIMITS
    for kind in (MsgType.LIMITS, MsgType.LIMITS_COMMIT, MsgType.ARM, MsgType.CLEAR):
        assert node.request(kind, b"12345").result == AckResult.BAD_LENGTH
    assert node.request(MsgType.DISARM, b"1").result == AckResult.BAD_LENGTH


def test_limits_are_refused_outside_init_and_ready(node) -> None:
    node.armed()
    for end in (None, MsgType.FAULT, MsgType.ESTOP):
        if end:
            node.send(end, FaultReport(1).pack())
        assert node.request(MsgType.LIMITS, node.limits.channel_payloads()[0]).result == AckResult.WRONG_STATE
        commit = node.limits.commit_payload(node.hello.schema_hash)
        assert node.request(MsgType.LIMITS_COMMIT, commit).result == AckResult.WRONG_STATE


# ---- READY and ARM -------------------------------------------------------------------------------------------


def test_ready_holds_and_counts_commands(node) -> None:
    node.sensors[:] = (300, 400)
    node.ready()
    node.command(FAR)
    node.tick(20)
    assert tuple(node.applied) == tuple(node.out) == (300, 400)
    assert node.enabled == 3
    assert node.now.ignored == 1


def test_arm_wants_the_current_nonce_and_hash(node) -> None:
    node.ready()
    nonce, good = node.now.nonce, node.limits_hash
    assert node.request(MsgType.ARM, Arm(nonce ^ 1, good).pack()).result == AckResult.WRONG_NONCE
    assert node.request(MsgType.ARM, Arm(nonce, good ^ 1).pack()).result == AckResult.WRONG_LIMITS_HASH
    node.tick(2)
    assert node.now.state == NodeState.READY
    assert node.request(MsgType.ARM, Arm(nonce, good).pack()).result == AckResult.OK
    node.tick(2)
    assert node.now.state == NodeState.ARMED


def test_lost_arm_ack_gives_the_same_session_and_only_to_the_same_request(node) -> None:
    node.ready()
    payload = arm_payload(node)
    first = node.request(MsgType.ARM, payload, seq=700)
    assert node.request(MsgType.ARM, payload, seq=700) == first
    assert node.request(MsgType.ARM, payload, seq=701).result == AckResult.WRONG_STATE, "another host, same nonce"
    node.session = first.value
    node.command((0, 0))
    assert node.request(MsgType.ARM, payload, seq=700).result == AckResult.WRONG_STATE, "replayed after a COMMAND"


def test_a_replayed_arm_is_void_in_the_next_ready(node) -> None:
    node.ready()
    payload = arm_payload(node)
    node.request(MsgType.ARM, payload, seq=700)
    node.request(MsgType.DISARM)
    assert node.request(MsgType.ARM, payload, seq=700).result == AckResult.WRONG_NONCE


def test_two_hosts_the_second_cannot_move_the_arm(node) -> None:
    node.armed()
    mine = node.session
    node.command((0, 0))
    node.tick(2)
    assert node.request(MsgType.ARM, Arm(node.now.nonce, node.limits_hash).pack()).result == AckResult.WRONG_STATE
    node.command(FAR, session=mine ^ 1)
    node.tick(2)
    assert tuple(node.applied) == (0, 0)
    assert node.now.ignored == 1
    assert node.request(MsgType.DISARM).result == AckResult.OK, "anybody may make it safer"
    node.tick(2)
    assert node.now.state == NodeState.READY


def test_arm_ttl_without_a_first_command(node) -> None:
    node.armed()
    node.tick(499)
    node.send(MsgType.HEARTBEAT)
    assert node.now.state == NodeState.ARMED
    node.tick(2)
    assert (node.now.state, node.now.fault) == (NodeState.FAILSAFE, Fault.ARM_TTL)


# ---- COMMAND -------------------------------------------------------------------------------------------------


def test_commands_are_guarded_and_interpolated(node) -> None:
    node.armed()
    path, out = [node.applied.copy()], []
    for _ in range(250):
        node.command(FAR)
        for _ in range(2):
            node.tick()
            out.append(node.out.copy())
        path.append(node.applied.copy())
        assert (node.out == node.applied).all(), "reached on the last tick of the period"
    q = np.array(path, dtype=np.int64)
    assert np.abs(q[-1] - FAR).max() <= CLOSE
    assert np.abs(np.diff(q, axis=0)).max() == 1000
    assert np.abs(np.diff(q, 2, axis=0)).max() == 50
    ticks = np.array(out, dtype=np.int64)
    middle = (q[:-1] + q[1:]) / 2
    assert np.abs(ticks[0::2] - middle).max() <= 0.5
    assert node.now.misses == 0


def test_clamp_mask_names_the_channels(node) -> None:
    node.armed()
    node.command((90_000, 10))
    node.tick(2)
    assert node.now.clamp_mask == 1


def test_newest_wins_within_a_period(node) -> None:
    node.armed()
    node.command((50, 50), seq=100)
    node.command((20, -20), seq=101)
    node.tick(2)
    assert tuple(node.applied) == (20, -20)
    assert (node.now.applied_seq, node.now.misses, node.now.ignored) == (101, 0, 0)


def test_old_and_duplicate_seq_are_ignored_across_the_wrap(node) -> None:
    node.armed()
    node.command((10, 10), seq=0xFFFF)
    node.command((40, 40), seq=0xFFFF)
    node.command((40, 40), seq=0xFFFE)
    node.command((40, 40), seq=0x8000)
    node.tick(2)
    assert tuple(node.applied) == (10, 10)
    assert node.now.ignored == 3
    node.command((20, 20), seq=0)
    node.tick(2)
    assert tuple(node.applied) == (20, 20)
    assert node.now.ignored == 3


def test_observation_must_not_lie_in_the_future_nor_go_back(node) -> None:
    node.armed()
    node.tick(4)
    node.command((10, 10), obs=node.t_us + 1)
    node.command((10, 10), obs=node.t_us - 1000)
    node.command((20, 20), obs=node.t_us - 2000)
    node.tick(2)
    assert tuple(node.applied) == (10, 10)
    assert node.now.ignored == 2
    node.command((30, 30), obs=node.t_us - 3000)  # the same stamp again is fine: one observation, two commands
    node.tick(2)
    assert tuple(node.applied) == (30, 30)


def test_stale_on_arrival_is_counted_and_does_nothing(node) -> None:
    node.armed()
    node.tick(40)
    node.command(FAR, obs=node.t_us - 20_000, ttl_ms=20)
    node.command(FAR, ttl_ms=0)
    node.tick(2)
    assert (node.now.stale, node.now.ignored) == (2, 0)
    assert tuple(node.applied) == (0, 0)


def test_deadline_counts_from_the_observation_and_is_capped(node) -> None:
    node.armed()
    node.tick(50)
    seen = node.t_us - 40_000
    node.command((0, 0), obs=seen, ttl_ms=60_000)  # ttl_max is 100 ms
    while node.t_us - seen < 99_000:
        node.tick()
    assert node.now.state == NodeState.ARMED
    node.tick(2)
    assert (node.now.state, node.now.fault) == (NodeState.FAILSAFE, Fault.TTL)


def test_heartbeats_do_not_extend_a_command(node) -> None:
    node.armed()
    node.command((0, 0), ttl_ms=20)
    for _ in range(25):
        node.send(MsgType.HEARTBEAT)
        node.tick()
    assert node.now.fault == Fault.TTL


@pytest.mark.parametrize("before_wrap_us", [1000, 30_000, 100_000])
def test_a_session_across_the_wrap_of_the_clock(make_session, before_wrap_us: int) -> None:
    node = make_session(start_us=2**32 - before_wrap_us).armed()
    node.stream(FAR, 300)
    assert node.t_us < 2**31
    assert np.abs(node.applied - FAR).max() <= CLOSE
    assert (node.now.state, node.now.ignored, node.now.stale) == (NodeState.ARMED, 0, 0)
    node.tick(110)
    assert node.now.fault == Fault.TTL


def test_wrong_length_and_wrong_major_are_ignored(node) -> None:
    node.armed()
    node.command((1, 2, 3))
    node.command((1,))
    node.command((1, 1), flags=0x20)
    node.tick(2)
    assert node.now.ignored == 3
    assert tuple(node.applied) == (0, 0)


@pytest.mark.parametrize("position", [0, 1])
def test_an_invalid_value_trips_failsafe(node, position: int) -> None:
    node.armed()
    node.stream(FAR, 10)
    values = list(FAR)
    values[position] = INVALID
    node.command(values)
    node.tick(2)
    assert (node.now.state, node.now.fault) == (NodeState.FAILSAFE, Fault.INVALID_VALUE)


def test_an_invalid_value_in_a_void_command_does_nothing(node) -> None:
    node.armed()
    node.command((0, 0), seq=10)
    node.command((INVALID, 0), session=node.session ^ 1, seq=11)
    node.command((INVALID, 0), seq=9)
    node.tick(2)
    assert node.now.state == NodeState.ARMED


# ---- miss, TTL, FAILSAFE -------------------------------------------------------------------------------------


def test_misses_coast_for_the_budget_then_brake(node) -> None:
    node.armed()
    node.stream(FAR, 15)
    v = np.abs(np.diff(motion(node, 2), axis=0))[-1][0]  # first miss
    steps = np.abs(np.diff(motion(node, 20), axis=0))[:, 0]
    assert v == 750
    assert list(steps[:4]) == [750, 750, 700, 650], "two more coasting periods of a budget of three, then brake"
    assert node.now.misses == 11


@pytest.mark.parametrize(("step", "coasts"), [(750, 3), (700, 1)])
def test_a_brake_does_not_renew_the_miss_budget(node, step: int, coasts: int) -> None:
    """Two misses of a budget of three, a command, and misses again: how often it coasts depends on the command."""
    node.armed()
    node.stream(FAR, 15)
    motion(node, 4)
    node.command(node.applied + np.sign(np.asarray(FAR) - node.applied) * step)
    node.tick(2)
    steps = np.abs(np.diff(motion(node, 16), axis=0))[:, 0]
    assert list(steps[:coasts] - steps[0]) == [0] * coasts
    assert steps[coasts] < steps[0]


def test_a_returning_stream_continues_from_the_applied_value(node) -> None:
    node.armed()
    node.stream(FAR, 15)
    node.tick(12)
    before = node.applied.copy()
    node.stream(FAR, 1)
    assert np.abs(node.applied - before).max() <= 750
    node.stream(FAR, 250)
    assert np.abs(node.applied - FAR).max() <= CLOSE
    assert node.now.state == NodeState.ARMED


def test_ttl_brakes_at_a_and_latches(node) -> None:
    node.armed()
    node.stream(FAR, 15)
    node.tick(100)
    assert (node.now.state, node.now.fault) == (NodeState.FAILSAFE, Fault.TTL)
    held = node.applied.copy()
    node.command(FAR)
    node.tick(100)
    assert (node.applied == held).all()
    assert node.enabled == 3, "FAILSAFE holds"
    assert node.request(MsgType.ARM, arm_payload(node)).result == AckResult.WRONG_STATE


@pytest.mark.parametrize(
    ("trip", "fault"),
    [("host", Fault.HOST), (2, Fault.ACTUATOR), (4, Fault.SENSOR), (8, Fault.SENSOR), ("value", Fault.INVALID_VALUE)],
)
def test_every_fault_brakes_within_limits_and_holds(node, trip, fault) -> None:
    node.armed()
    node.stream(FAR, 30)
    start = motion(node, 0)
    if trip == "host":
        node.send(MsgType.FAULT, FaultReport(7, "gripper hot").pack())
    elif trip == "value":
        node.command((INVALID, 0))
    else:
        node.inputs(trip)
    steps = np.abs(np.diff(np.vstack([start, motion(node, 80)[1:]]), axis=0))
    assert (node.now.state, node.now.fault) == (NodeState.FAILSAFE, fault)
    assert list(steps[:3, 0]) == [950, 900, 850]
    assert (steps[-1] == 0).all()
    assert node.enabled == 3


@pytest.mark.parametrize("trip", [2, 4])
def test_faults_latch_in_ready_too(node, trip) -> None:
    node.ready()
    node.inputs(trip)
    node.tick(2)
    node.inputs(0)
    node.tick(2)
    assert node.now.state == NodeState.FAILSAFE


# ---- DISARM --------------------------------------------------------------------------------------------------


def test_disarm_brakes_first_and_takes_no_commands(node) -> None:
    node.armed()
    node.stream(FAR, 30)
    nonce = node.now.nonce
    assert node.request(MsgType.DISARM).result == AckResult.OK
    node.command(FAR)
    node.tick(2)
    assert node.now.state == NodeState.ARMED
    assert node.now.ignored == 1
    assert node.request(MsgType.DISARM).result == AckResult.OK, "a retry"
    run_to_rest(node)
    assert node.now.state == NodeState.READY
    assert node.now.nonce != nonce
    assert node.now.session == 0
    assert node.now.misses == 0


def test_ready_after_disarm_keeps_holding_what_it_held(node) -> None:
    node.armed()
    node.stream(FAR, 300)
    held = node.applied.copy()
    node.ideal(False)
    node.sensors[:] = held - 120  # the steady load of a servo must not make the setpoint creep
    node.request(MsgType.DISARM)
    node.tick(10)
    assert node.now.state == NodeState.READY
    assert (node.applied == held).all()


# ---- ESTOP ---------------------------------------------------------------------------------------------------


def mixed_stop() -> Limits:
    cut = ChannelLimits(-100_000, 100_000, 1000, 50, stop_category=0)
    return Limits((cut, replace(cut, stop_category=1)), 2000, 3, 100, 500)


def test_estop_cuts_or_brakes_each_channel(make_session) -> None:
    node = make_session(limits=mixed_stop()).armed()
    node.stream(FAR, 30)
    node.send(MsgType.ESTOP)
    node.tick()
    assert node.enabled == 2
    steps = np.abs(np.diff(motion(node, 80), axis=0))[:, 1]
    assert (np.diff(steps) >= -50).all()
    assert steps[-1] == 0
    assert node.enabled == 0
    assert (node.now.state, node.now.fault) == (NodeState.ESTOP, Fault.ESTOP_HOST)


@pytest.mark.parametrize("flags", [0x10, 0x00, 0xF0])
@pytest.mark.parametrize("payload", [b"", b"x", bytes(240)])
@pytest.mark.parametrize("state", ["boot", "ready", "armed", "failsafe"])
def test_estop_is_taken_from_anyone_in_any_state(node, state, payload, flags) -> None:
    node.tick(2)
    if state in ("ready", "failsafe"):
        node.ready()
    if state == "armed":
        node.armed()
    if state == "failsafe":
        node.send(MsgType.FAULT, b"\1")
    node.send(MsgType.ESTOP, payload, flags=flags, seq=0)
    node.tick(20)
    assert node.now.state == NodeState.ESTOP
    node.send(MsgType.HEARTBEAT)
    node.command(FAR)
    assert node.request(MsgType.DISARM).result == AckResult.OK
    node.tick(200)
    assert node.now.state == NodeState.ESTOP


def test_local_estop_latches_until_released_and_cleared(node) -> None:
    node.armed()
    node.inputs(1)
    node.tick(2)
    assert (node.now.state, node.now.fault) == (NodeState.ESTOP, Fault.ESTOP_LOCAL)
    node.tick(4)
    payload = Clear(node.now.nonce).pack()
    assert node.request(MsgType.CLEAR, payload).result == AckResult.ESTOP_INPUT
    node.inputs(0)
    node.send(MsgType.ESTOP)
    node.tick(2 * 33)  # a whole window at rest
    assert (node.now.state, node.now.fault) == (NodeState.ESTOP, Fault.ESTOP_LOCAL), "the first cause is kept"
    assert node.request(MsgType.CLEAR, payload).result == AckResult.OK
    node.tick(2)
    assert node.now.state == NodeState.READY


# ---- CLEAR ---------------------------------------------------------------------------------------------------


def test_clear_wants_the_nonce_and_rest_and_gives_a_new_nonce(node) -> None:
    node.armed()
    node.stream(FAR, 30)
    node.send(MsgType.FAULT, b"\1")
    node.tick(2)
    nonce = node.now.nonce
    assert node.request(MsgType.CLEAR, Clear(nonce ^ 1).pack()).result == AckResult.WRONG_NONCE
    assert node.request(MsgType.CLEAR, Clear(nonce).pack()).result == AckResult.NOT_AT_REST
    run_to_rest(node)
    ack = node.request(MsgType.CLEAR, Clear(nonce).pack(), seq=900)
    assert ack.result == AckResult.OK
    assert ack.value not in (0, nonce)
    assert node.request(MsgType.CLEAR, Clear(nonce).pack(), seq=900) == ack, "a lost ACK"
    node.tick(2)
    assert (node.now.state, node.now.fault, node.now.nonce) == (NodeState.READY, Fault.NONE, ack.value)
    assert node.request(MsgType.CLEAR, Clear(nonce).pack(), seq=901).result == AckResult.WRONG_STATE


def test_clear_after_a_cut_waits_for_the_arm_to_stop_and_starts_from_where_it_is(make_session) -> None:
    node = make_session(limits=mixed_stop()).armed()
    node.ideal(False)
    node.send(MsgType.ESTOP)
    for _ in range(10):
        node.sensors[0] -= 400  # falling
        node.tick(2)
    payload = Clear(node.now.nonce).pack()
    assert node.request(MsgType.CLEAR, payload).result == AckResult.NOT_AT_REST
    # It rests now, but that takes a whole window of 32 periods to be seen, and the one under way saw it fall.
    node.tick(4)
    assert node.request(MsgType.CLEAR, payload).result == AckResult.NOT_AT_REST
    node.tick(2 * 2 * 32)
    assert node.request(MsgType.CLEAR, payload).result == AckResult.OK
    node.tick(2)
    assert tuple(node.applied) == (-4000, 0)


def test_encoder_noise_is_not_motion(make_session) -> None:
    node = make_session(limits=mixed_stop()).armed()
    node.ideal(False)
    node.send(MsgType.ESTOP)
    at = node.sensors.copy()
    rng = np.random.default_rng(0)
    for _ in range(100):  # ±1000 quanta of noise a period is far above the recovery speed
        node.sensors[:] = at + rng.integers(-1000, 1001, len(at))
        node.tick(2)
    assert node.request(MsgType.CLEAR, Clear(node.now.nonce).pack()).result == AckResult.OK


def test_clear_without_a_measurement_is_refused(node) -> None:
    node.ready()
    node.inputs(4)
    node.tick(2)
    assert node.request(MsgType.CLEAR, Clear(node.now.nonce).pack()).result == AckResult.NO_MEASUREMENT


def test_clear_of_an_estop_before_limits_goes_back_to_init(node) -> None:
    node.tick(2)
    node.send(MsgType.ESTOP)
    ack = node.request(MsgType.CLEAR, Clear(node.hello.nonce).pack())
    assert ack.result == AckResult.OK
    node.tick(20)
    assert (node.now.state, node.now.nonce) == (NodeState.INIT, ack.value)


# ---- the rest ------------------------------------------------------------------------------------------------


def test_state_comes_at_every_boundary_and_echoes_node_state_in_flags(node) -> None:
    node.ready()
    frames = node.tick(20)
    assert [f.type for f in frames] == [MsgType.STATE] * 10
    assert {f.flags for f in frames} == {0x10 | NodeState.READY}
    assert np.diff([s.sample_t_us for s in states(frames)]).tolist() == [2000] * 9
    assert np.diff([f.seq for f in frames]).tolist() == [1] * 9


def test_a_late_tick_skips_and_never_catches_up(node) -> None:
    node.armed()
    node.stream(FAR, 20)
    before = node.applied.copy()
    node.stall(50_000)
    frames = node.tick(2)
    assert len(states(frames)) == 1
    assert np.abs(node.applied - before).max() <= 1000


def test_time_and_unknown_types(node) -> None:
    node.tick(5)
    (frame,) = node.send(MsgType.TIME_REQ, TimeRequest(77).pack())
    assert TimeResponse.unpack(frame.payload) == TimeResponse(77, 4000)
    assert node.send(200, b"?") == node.send(MsgType.STATE, b"?") == node.send(MsgType.TIME_REQ) == []
    node.feed(b"\0garbage\0" * 3)
    node.tick(10)
    assert node.now.ignored == 3
    assert node.now.rx_errors == 3


def test_hello_answers_every_major(node) -> None:
    node.tick()
    (frame,) = node.send(MsgType.HELLO_REQ, bytes([9, 9]), flags=0x90)
    assert Hello.unpack(frame.payload).major == 1


def test_many_values_are_paged() -> None:
    schema = Schema("big", 1000, tuple(Channel(f"c{i}") for i in range(16)), tuple(Sensor(f"s{i}") for i in range(64)))
    node = VirtualNode(schema)
    node.ideal(False)
    node.sensors[:] = np.arange(64) + 1000
    pages = states(node.tick(1))
    assert [(p.page, p.n_pages, len(p.values)) for p in pages] == [
        (0, 2, VALUES_PER_PAGE),
        (1, 2, 80 - VALUES_PER_PAGE),
    ]
    assert pages[0].values + pages[1].values == (*range(1000, 1016), *range(1000, 1064))


def test_nonces_and_sessions_never_repeat(node) -> None:
    node.ready()
    seen = {node.hello.nonce}
    for _ in range(200):
        assert node.now.nonce not in seen
        seen.add(node.now.nonce)
        session = node.request(MsgType.ARM, arm_payload(node)).value
        assert session not in seen | {0}
        seen.add(session)
        node.request(MsgType.DISARM)
        node.tick(2)
