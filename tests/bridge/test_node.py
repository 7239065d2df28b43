"""The node in virtual time: boot, limits, sessions, and what it says (docs/protocol.md)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from nodes import FAR, arm_payload, states

from kizzasi_bridge.protocol import (
    VALUES_PER_PAGE,
    AckResult,
    Arm,
    ChannelLimits,
    Clear,
    Fault,
    FaultReport,
    Hello,
    MsgType,
    NodeState,
    SchemaData,
    SchemaGet,
    TimeRequest,
    TimeResponse,
)
from kizzasi_bridge.schema import Channel, Schema, Sensor
from kizzasi_bridge.virtual import VirtualNode

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
