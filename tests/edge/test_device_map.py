"""One guard, two sides: what the gateway's guard sends, the device's guard finds nothing to change in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from devices import FINE, JOINTS, RATE, guard_of, schema_of, torque_guard, torque_schema

from kizzasi_bridge.protocol import NO_SAFE, Arm, Command, MsgType, NodeState, StopCategory
from kizzasi_bridge.schema import Schema
from kizzasi_bridge.states import StateAssembler
from kizzasi_bridge.virtual import VirtualNode
from kizzasi_edge.connectors.device_map import DeviceMap, Session, device_map
from kizzasi_edge.demo.torque_physics import HOME
from kizzasi_edge.errors import ConfigError
from kizzasi_edge.guardrails import Guardrails
from kizzasi_edge.joints import SUFFIX

SESSION = Session(100, 500, StopCategory.BRAKE_THEN_CUT, {}, {})


class Device:
    """The firmware's node, told what device_map makes of a guard."""

    def __init__(self, guard: Guardrails, schema: Schema, session: Session = SESSION) -> None:
        self.schema = schema
        self.map: DeviceMap = device_map(guard, schema, RATE, session, "/dev/t")
        self.node = VirtualNode(schema)
        self.node.sensors[:] = [sensor.zero for sensor in schema.sensors]
        self.node.tick(2)
        self.node.send(MsgType.HELLO_REQ, b"\1\0")
        assert self.node.hello is not None
        limits, schema_hash = self.map.limits, self.node.hello.schema_hash
        for payload in limits.channel_payloads():
            assert self.node.request(MsgType.LIMITS, payload).result == 0
        assert self.node.request(MsgType.LIMITS_COMMIT, limits.commit_payload(schema_hash)).result == 0
        self.states = StateAssembler()
        self.states.restart(len(schema.channels), len(schema.sensors))
        self.states.set_period(2000)
        self.live(2)
        ack = self.node.request(MsgType.ARM, Arm(self.now.nonce, limits.hash(schema_hash)).pack())
        assert ack.result == 0
        self.session = ack.value

    def live(self, periods: int = 1) -> None:
        for frame in self.node.tick(2 * periods):
            if frame.type == MsgType.STATE and (state := self.states.feed(frame.payload, 0)) is not None:
                self.now = state

    def write(self, values: np.ndarray) -> None:
        raw = self.map.to_raw(values)
        self.node.send(MsgType.COMMAND, Command(self.session, self.now.t_us, 100, raw.tolist()).pack())

    def position(self, guard: Guardrails) -> np.ndarray:
        scale = np.array([sensor.scale for sensor in self.schema.sensors])
        zero = np.array([sensor.zero for sensor in self.schema.sensors])
        at = dict(zip(JOINTS, (self.now.sensors - zero) * scale, strict=True))
        return np.array([at[joint] for joint in guard.joints])


@pytest.mark.parametrize("command", ["position", "velocity"])
@pytest.mark.parametrize("seed", range(3))
def test_the_device_finds_nothing_to_change(command: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    guard = guard_of(command)
    device = Device(guard, schema_of(command))
    guard.reset(device.position(guard))
    clamped = 0
    for _ in range(3000):
        if rng.random() < 0.05:
            device.live(int(rng.integers(1, 6)))  # the gateway is late: the device coasts and brakes by itself
        guard.rebase(*device.map.motion(device.now))
        wild = rng.normal(size=3) * (0.01, 1.0, 40.0)[rng.integers(3)]
        sent, verdict = guard.step(wild, position=device.position(guard))
        clamped += verdict.status.name != "PASS"
        device.write(sent)
        device.live()
        assert device.now.state == NodeState.ARMED
        assert device.now.clamp_mask == 0, "both guards are one"
        applied, _ = device.map.motion(device.now)
        assert (applied * guard.quanta).astype(np.float32).tolist() == sent.tolist()
    assert clamped > 1000
    at = device.position(guard)
    assert (at >= [-0.4, -1.0, -0.3]).all()
    assert (at <= [0.6, 1.0, 0.2]).all()


@pytest.fixture(scope="module")
def torques() -> Guardrails:
    return torque_guard()


def test_torques_are_the_devices_own(torques: Guardrails) -> None:
    rng, n = np.random.default_rng(3), len(torques.joints)
    first = torques.joints[0]
    device = Device(torques, torque_schema(torques), replace(SESSION, damping={first: 0.5}))
    limits = device.map.limits.channels[::-1]
    quantum = torques.node[0].quantum
    assert [channel.kd for channel in limits] == [np.float32(0.5 * FINE * RATE / quantum), *[0.0] * (n - 1)]
    assert limits[0].h == int(torques.limits[0].velocity / 8 / (FINE * RATE))
    torques.reset(np.array(HOME))
    clamped = 0
    for _ in range(100):
        torques.rebase(*device.map.motion(device.now))
        sent, verdict = torques.step(rng.normal(size=n) * 200.0, position=HOME, velocity=np.zeros(n))
        clamped += verdict.status.name != "PASS"
        device.write(sent)
        device.live()
        assert device.now.clamp_mask == 0, "both guards are one"
        assert (device.map.motion(device.now)[0] * torques.quanta).astype(np.float32).tolist() == sent.tolist()
    assert clamped > 50
    assert np.abs(sent).max() > 1.0


def test_a_torque_must_count_as_its_sensor_does_to_damp(torques: Guardrails) -> None:
    last = torques.joints[-1]
    with pytest.raises(ConfigError, match=rf"damping of '{last}': found 1 N·m·s/rad, .* count in one direction"):
        device_map(torques, torque_schema(torques, 0), RATE, replace(SESSION, damping={last: 1.0}), "/dev/t")
    assert device_map(torques, torque_schema(torques, 0), RATE, SESSION, "/dev/t").limits.channels[0].kd == 0.0


def test_the_safe_place_is_counted_as_the_channel_is() -> None:
    guard = guard_of("position")
    session = replace(SESSION, safe={"pan": 0.5, "lift": 0.0})
    limits = device_map(guard, schema_of("position"), RATE, session, "/dev/t").limits.channels
    assert [channel.safe for channel in limits] == [0, 12_345 - round(0.5 / FINE), NO_SAFE]


def test_a_joint_without_a_range_turns_without_end() -> None:
    guard = guard_of("velocity", position=None)
    limits = device_map(guard, schema_of("velocity"), RATE, SESSION, "/dev/t").limits.channels
    assert {(channel.lo, channel.hi) for channel in limits} == {(-0x3FFFFFFF, 0x3FFFFFFF)}


WRONG: Mapping[str, tuple[str, str, float, Session, str]] = {
    "another mode": ("position", "velocity", RATE, SESSION, "takes a velocity; the guard t.guard.toml commands pos"),
    "another rate": ("position", "position", 333.0, SESSION, "rate_hz: found 333; the device /dev/t needs"),
    "nobody's safe place": ("position", "position", RATE, replace(SESSION, safe={"x": 0.0}), r"found \['x'\]"),
    "unsafe place": ("position", "position", RATE, replace(SESSION, safe={"lift": 0.3}), "of 'lift': found 0.3"),
    "safe velocity": ("velocity", "velocity", RATE, replace(SESSION, safe={"lift": 0.1}), "commands velocity; exp"),
    "damped position": ("position", "position", RATE, replace(SESSION, damping={"lift": 1.0}), "expected torque"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused(case: str) -> None:
    command, kind, rate, session, message = WRONG[case]
    schema = schema_of(kind)
    if kind != command:  # names as the guard's, so that only the mode differs
        channels = tuple(replace(c, name=c.name.replace(SUFFIX[kind], SUFFIX[command])) for c in schema.channels)
        schema = replace(schema, channels=channels)
    with pytest.raises(ConfigError, match=message):
        device_map(guard_of(command), schema, rate, session, "/dev/t")


def test_another_quantum_is_refused_with_the_right_one() -> None:
    with pytest.raises(ConfigError, match=rf"quanta of {FINE * RATE!r}, the guard in .*; set \[joints\] quantum"):
        device_map(guard_of("velocity", quantum=2.0**-12), schema_of("velocity"), RATE, SESSION, "/dev/t")
