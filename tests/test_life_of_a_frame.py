"""docs/life-of-a-frame.md, executed: one STATE becomes one COMMAND becomes one applied setpoint.

The firmware is the real node in virtual time; only the serial port is left out, so that every byte can be followed.
"""

from __future__ import annotations

import numpy as np

from kizzasi_bridge import Decoder, encode
from kizzasi_bridge.protocol import Arm, ChannelLimits, Command, Limits, MsgType, NodeState, State
from kizzasi_bridge.schema import Schema
from kizzasi_bridge.virtual import VirtualNode
from kizzasi_edge import Guardrails, Predictor
from kizzasi_edge.demo.expert import HOME, JOINTS
from kizzasi_edge.demo.physics import ASSETS, QUANTUM
from kizzasi_edge.frames import Observation

PERIOD_US = 2000


def test_one_frame_from_sensor_to_actuator() -> None:
    guard = Guardrails.load(ASSETS / "arm.guard.toml")
    policy = Predictor(ASSETS / "arm.onnx")
    node = VirtualNode(Schema.positions(JOINTS, scale=QUANTUM))
    node.sensors[:] = np.rint(HOME / QUANTUM)
    node.tick()

    # The node is given the very integers that the gateway's guard uses, and armed with their hash.
    cells = tuple(ChannelLimits(c.lo, c.hi, c.w, c.h) for c in guard.lattice)
    limits = Limits(cells, PERIOD_US, guard.miss_budget, ttl_max_ms=100, arm_ttl_ms=1000)
    node.send(MsgType.HELLO_REQ, b"\x01\x00")
    assert node.hello is not None
    for payload in limits.channel_payloads():
        assert node.request(MsgType.LIMITS, payload).result == 0
    assert node.request(MsgType.LIMITS_COMMIT, limits.commit_payload(node.hello.schema_hash)).result == 0
    node.tick(20)
    assert node.state is not None
    session = node.request(MsgType.ARM, Arm(node.state.nonce, limits.hash(node.hello.schema_hash)).pack()).value

    decoder = Decoder()
    previous: np.ndarray | None = None
    promised = np.zeros(6, np.int32)
    for k in range(400):
        # 1. The node begins a period: applies its setpoint, samples its sensors, and says both.
        frames = [frame for frame in node.tick(2) if frame.type == MsgType.STATE]
        assert len(frames) == 1
        # 2. The bytes arrive in pieces and are decoded.
        data = encode(MsgType.STATE, frames[0].payload, seq=frames[0].seq, t_us=frames[0].t_us, flags=frames[0].flags)
        (frame,) = decoder.feed(data[:7]) + decoder.feed(data[7:])
        state = State.unpack(frame.payload)
        assert state.state == NodeState.ARMED
        values = np.array(state.values, np.int32)
        applied, sensors = values[:6], values[6:]
        # 3. One observation in SI units, with the node's own sampling time.
        target = (HOME + 0.5).astype(np.float32)
        x = np.concatenate([(sensors * QUANTUM).astype(np.float32), target])
        observation = Observation(1, k, policy.input_names, x, np.ones(12, np.bool_), state.sample_t_us)
        # 4. The model proposes; 5. the guard admits, standing on what the node applied.
        proposal = policy.propose(observation.values)
        guard.rebase(applied, applied - previous if previous is not None else np.zeros(6, np.int32))
        sent, _ = guard.step(proposal)
        command = observation.command(JOINTS, sent)
        # 6. COMMAND carries the session and the time of the observation that it answers.
        raw = np.rint(command.values.astype(np.float64) / QUANTUM).astype(np.int32)
        node.send(MsgType.COMMAND, Command(session, command.t_us, 100, tuple(raw.tolist())).pack())
        # 7. At its next period the node's own guard, the same C on the same integers, applies exactly that.
        if k:
            assert np.array_equal(applied, promised)
        previous, promised = applied, raw
    # And the arm has moved towards the target.
    assert np.abs(applied * QUANTUM - target).max() < 0.5
