"""Channels that take velocities and torques, and positions with a safe place: the node's C code in virtual time."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kizzasi_bridge.errors import WireError
from kizzasi_bridge.protocol import (
    NO_SAFE,
    AckResult,
    Arm,
    ChannelLimits,
    Clear,
    Command,
    Fault,
    Limits,
    MsgType,
    NodeState,
    StopCategory,
)
from kizzasi_bridge.schema import Channel, Schema, Sensor
from kizzasi_bridge.virtual import VirtualNode

TTL_MS, BUDGET = 50, 3
ENDLESS = 0x3FFFFFFF
SEEDS = st.integers(0, 2**32 - 1)


def schema_of(mode: str) -> Schema:
    """Two channels and what they measure, a quantum for a unit."""
    return Schema(
        "t",
        1000,
        tuple(Channel(f"j{i}/x", "1", 0, 1.0, mode) for i in range(2)),  # type: ignore[arg-type]
        tuple(Sensor(f"j{i}/position", "1", 0, 1.0, i) for i in range(2)),
    )


class Driven:
    """A session with a node whose period is two ticks."""

    def __init__(self, mode: str, channel: ChannelLimits, *, period_us: int = 2000) -> None:
        self.node = VirtualNode(schema_of(mode))
        self.limits = Limits((channel,) * 2, period_us, BUDGET, TTL_MS, 500)
        self.session = 0

    def upload(self) -> list[AckResult]:
        self.node.tick(2)
        self.node.send(MsgType.HELLO_REQ, b"\1\0")
        hello = self.node.hello
        assert hello is not None
        answers = [self.node.request(MsgType.LIMITS, payload) for payload in self.limits.channel_payloads()]
        answers.append(self.node.request(MsgType.LIMITS_COMMIT, self.limits.commit_payload(hello.schema_hash)))
        self.hash = self.limits.hash(hello.schema_hash)
        self.node.tick(4)
        return [AckResult(ack.result) for ack in answers]

    def armed(self) -> Driven:
        assert set(self.upload()) == {AckResult.OK}
        state = self.node.state
        assert state is not None
        ack = self.node.request(MsgType.ARM, Arm(state.nonce, self.hash).pack())
        assert ack.result == 0
        self.session = ack.value
        return self

    def ask(self, values: tuple[int, int]) -> None:
        self.node.send(MsgType.COMMAND, Command(self.session, self.node.t_us, TTL_MS, values).pack())

    def period(self, values: tuple[int, int] | None = None) -> np.ndarray:
        """What the node applied in the next period."""
        if values is not None:
            self.ask(values)
        self.node.tick(2)
        return self.node.applied.astype(np.int64)

    @property
    def state(self) -> tuple[NodeState, Fault]:
        assert self.node.state is not None
        return NodeState(self.node.state.state), Fault(self.node.state.fault)

    def clear(self) -> AckResult:
        assert self.node.state is not None
        return AckResult(self.node.request(MsgType.CLEAR, Clear(self.node.state.nonce).pack()).result)


def damped(kd: float, moved: int) -> int:
    """What a torque channel answers to motion: -kd·moved towards zero, kd as an f32."""
    exact = struct.unpack("<f", struct.pack("<f", kd))[0]
    return -math.trunc(exact * abs(moved)) * (1 if moved > 0 else -1)


# ---- velocities ------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(1, 2000), st.integers(1, 400), st.integers(0, 200_000))
def test_velocities_keep_step_and_change_and_an_ideal_joint_its_range(seed: int, w: int, h: int, reach: int) -> None:
    rng = np.random.default_rng(seed)
    limit = ChannelLimits(-reach, reach // 2, w, h)
    rig = Driven("velocity", limit).armed()
    before = np.zeros(2, np.int64)
    silent = 0
    for _ in range(300):
        silent = silent - 1 if silent else (int(rng.integers(1, BUDGET + 1)) if rng.random() < 0.1 else 0)
        wild = int(10.0 ** rng.uniform(0, 9))
        values = tuple(int(x) for x in rng.integers(-wild, wild + 1, 2))
        v = rig.period(None if silent else values)
        assert np.abs(v).max() <= w
        assert np.abs(v - before).max() <= h
        measured = rig.node.sensors
        assert measured.min() >= limit.lo
        assert measured.max() <= limit.hi
        assert rig.state[0] == NodeState.ARMED
        before = v


def test_a_velocity_that_is_admissible_is_sent_as_asked_and_ends_without_commands() -> None:
    rig = Driven("velocity", ChannelLimits(-(10**6), 10**6, 100, 10)).armed()
    for speed in (10, 20, 25, 25):
        assert rig.period((speed, -speed)).tolist() == [speed, -speed]
        assert rig.node.state is not None
        assert rig.node.state.clamp_mask == 0
    assert [int(rig.period()[0]) for _ in range(BUDGET + 4)] == [25, 25, 25, 15, 5, 0, 0]
    while rig.state[0] == NodeState.ARMED:
        rig.period()
    assert rig.state == (NodeState.FAILSAFE, Fault.TTL)
    assert rig.period().tolist() == [0, 0]


def test_outputs_run_from_one_velocity_to_the_next_within_a_period() -> None:
    rig = Driven("velocity", ChannelLimits(-(10**6), 10**6, 100, 40)).armed()
    rig.period((40, 0))
    rig.ask((80, 0))
    seen = []
    for _ in range(2):
        rig.node.tick()
        seen.append(int(rig.node.out[0]))
    assert seen == [60, 80]


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.integers(-(2**31), 2**31 - 1))
def test_a_wheel_turns_without_end_through_the_wrap_of_its_encoder(seed: int, start: int) -> None:
    rng = np.random.default_rng(seed)
    rig = Driven("velocity", ChannelLimits(-ENDLESS, ENDLESS, 10**6, 2 * 10**6))
    rig.node.sensors[:] = start
    rig.armed()
    for _ in range(100):
        speed = int(rng.integers(-(10**6), 10**6))
        assert rig.period((speed, -speed)).tolist() == [speed, -speed]
        rig.node.sensors[:] = rng.integers(-(2**31), 2**31 - 1)  # wherever its counter stands


def test_a_velocity_outside_its_range_leads_inwards_only() -> None:
    rig = Driven("velocity", ChannelLimits(-1000, 1000, 80, 10))
    rig.node.ideal(False)
    rig.node.sensors[:] = 1500
    rig.armed()
    assert [int(rig.period((50, 50))[0]) for _ in range(3)] == [0, 0, 0]
    assert [int(rig.period((-50, -50))[0]) for _ in range(3)] == [-10, -10, -10], "an eighth of 80"


# ---- torques ---------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(0, 5000), st.integers(0, 5000), st.integers(1, 3000), st.floats(0, 100, width=32))
def test_torques_keep_range_and_rate_whatever_happens(seed: int, down: int, up: int, w: int, kd: float) -> None:
    rng = np.random.default_rng(seed)
    rig = Driven("torque", ChannelLimits(-down, up, w, 10**6, kd=kd)).armed()
    before = np.zeros(2, np.int64)
    for _ in range(200):
        values = tuple(int(x) for x in rng.integers(-(2**31) + 1, 2**31, 2) >> int(rng.integers(0, 31)))
        u = rig.period(values if rng.random() < 0.8 else None)
        rig.node.sensors[:] = rng.integers(-(2**31), 2**31 - 1, 2) >> int(rng.integers(0, 31))
        assert u.min() >= -down
        assert u.max() <= up
        assert np.abs(u - before).max() <= w
        before = u


@pytest.mark.parametrize("kd", [0.0, 0.001, 0.4999, 1.0, 3.75, 1e4, 16_777_215.0, 1e-40])
def test_a_torque_without_commands_is_held_then_damps_the_motion(kd: float) -> None:
    rig = Driven("torque", ChannelLimits(-(10**6), 10**6, 2 * 10**6, 1, kd=kd)).armed()
    rig.period((300, -300))
    assert [rig.period().tolist() for _ in range(BUDGET)] == [[300, -300]] * BUDGET, "the miss budget"
    at = 0
    for moved in (0, 7, -7, 1000, -123_456, 1):
        at += moved
        rig.node.sensors[:] = at
        assert rig.period().tolist() == [min(max(damped(kd, moved), -(10**6)), 10**6)] * 2


def test_a_torque_ends_with_the_session_and_rest_must_be_measured() -> None:
    rig = Driven("torque", ChannelLimits(-1000, 1000, 300, 5, kd=0.5)).armed()
    for _ in range(4):
        rig.period((1000, 1000))
    assert rig.node.request(MsgType.DISARM).result == AckResult.OK
    at, states = 0, []
    for _ in range(40):  # it coasts, 200 a period
        at += 200
        rig.node.sensors[:] = at
        u = rig.period()
        states.append(rig.state[0])
    assert u.tolist() == [-100, -100]
    assert set(states) == {NodeState.ARMED}, "it moves: braking goes on"
    for _ in range(80):
        rig.period()
    assert rig.state[0] == NodeState.READY
    assert rig.node.applied.tolist() == [0, 0]
    at += 50
    rig.node.sensors[:] = at
    assert rig.period().tolist() == [0, 0], "READY is without torque"


@pytest.mark.parametrize("category", StopCategory)
def test_estop_takes_the_torque_away(category: StopCategory) -> None:
    rig = Driven("torque", ChannelLimits(-1000, 1000, 300, 5, kd=0.5, stop_category=category)).armed()
    for _ in range(4):
        rig.period((900, 900))
    rig.node.send(MsgType.ESTOP)
    applied = [int(rig.period()[0]) for _ in range(5)]
    assert applied == ([0] * 5 if category == StopCategory.CUT else [600, 300, 0, 0, 0])
    assert rig.node.enabled == 0
    for _ in range(70):
        rig.period()
    assert rig.clear() == AckResult.OK


# ---- positions with a safe place -------------------------------------------------------------------------------------


def retreating(safe: int, **channel: int) -> Driven:
    rig = Driven("position", ChannelLimits(-10_000, 10_000, 400, 20, safe=safe, **channel)).armed()
    for _ in range(30):
        rig.period((9000, 9000))
    return rig


def test_failsafe_brakes_and_then_goes_to_the_safe_place_slowly() -> None:
    rig = retreating(-500)
    q = [rig.node.applied.astype(np.int64).copy()]
    while len(q) < 2 or rig.state[0] == NodeState.ARMED or (q[-1] != -500).any():
        q.append(rig.period().copy())
        assert len(q) < 2000
    steps, changes = np.diff(q, axis=0), np.diff(q, 2, axis=0)
    assert rig.state == (NodeState.FAILSAFE, Fault.TTL)
    assert np.abs(changes).max() <= 20
    rest = next(i for i in range(BUDGET + 1, len(steps)) if (steps[i] == 0).all())
    assert np.abs(steps[rest:]).max() == 50, "an eighth of 400"
    rig.period()
    assert rig.clear() == AckResult.OK
    assert rig.period().tolist() == [-500, -500], "READY holds there"


def test_failsafe_holds_without_a_safe_place() -> None:
    rig = retreating(NO_SAFE)
    for _ in range(400):
        last = rig.period().copy()
    assert rig.state == (NodeState.FAILSAFE, Fault.TTL)
    assert rig.period().tolist() == last.tolist() != [0, 0]


@pytest.mark.parametrize("bits", [2, 4], ids=["actuator fault", "sensor fault"])
def test_a_broken_machine_stays_where_it_came_to_rest(bits: int) -> None:
    rig = retreating(-500)
    rig.node.inputs(bits)
    rig.period()
    rig.node.inputs(0)
    for _ in range(100):
        last = rig.period().copy()
    assert rig.period().tolist() == last.tolist() != [-500, -500]


def test_a_machine_that_breaks_on_its_way_stops() -> None:
    rig = retreating(-500)
    while rig.state[0] == NodeState.ARMED or rig.node.applied[0] > 4000:
        rig.period()
    rig.node.inputs(4)
    for _ in range(20):
        last = rig.period().copy()
    assert rig.period().tolist() == last.tolist() != [-500, -500]
    rig.node.inputs(0)
    for _ in range(400):
        rig.period()
    assert rig.node.applied.tolist() == [-500, -500], "and goes on when that is over"


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "channel"),
    [
        ("position", ChannelLimits(-10, 10, 5, 1, safe=11)),
        ("position", ChannelLimits(-10, 10, 5, 1, safe=-11)),
        ("torque", ChannelLimits(1, 10, 5, 1)),
        ("torque", ChannelLimits(-10, -1, 5, 1)),
        ("torque", ChannelLimits(-10, 10, 5, 1, kd=2.0**24)),
        ("torque", ChannelLimits(-10, 10, 5, 1, kd=-0.5)),
        ("torque", ChannelLimits(-10, 10, 5, 1, kd=math.nan)),
        ("torque", ChannelLimits(-10, 10, 5, 1, kd=math.inf)),
        ("torque", ChannelLimits(-10, 10, 0, 1)),
        ("velocity", ChannelLimits(-10, 10, 0, 1)),
    ],
)
def test_limits_that_mean_nothing_are_refused(mode: str, channel: ChannelLimits) -> None:
    assert Driven(mode, channel).upload()[0] == AckResult.BAD_LIMITS


def test_an_unknown_mode_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kizzasi_bridge.virtual.CHANNEL_TYPES", ("a", "b", "c", "position"))
    with pytest.raises(WireError, match="do not fit"):
        VirtualNode(schema_of("position"))
