"""How the node stops and starts again, in virtual time: DISARM, ESTOP, CLEAR (docs/protocol.md)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from nodes import FAR, motion, run_to_rest

from kizzasi_bridge.protocol import (
    AckResult,
    ChannelLimits,
    Clear,
    Fault,
    Limits,
    MsgType,
    NodeState,
)

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
