"""Random lives of a node against a small model: no path to ARMED but ARM, no way out of a latch but CLEAR, and the
sent values obey their limits in integers whatever happens."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kizzasi_bridge.protocol import INVALID, Arm, ChannelLimits, Clear, Command, Limits, MsgType, NodeState
from kizzasi_bridge.schema import Schema
from kizzasi_bridge.virtual import VirtualNode

LATCHED = (NodeState.FAILSAFE, NodeState.ESTOP)
VALUES = st.one_of(st.integers(-120_000, 120_000), st.integers(-(2**31) + 1, 2**31 - 1))


class NodeLife(RuleBasedStateMachine):
    @initialize(start=st.integers(0, 2**32 - 1), budget=st.integers(0, 5), category=st.integers(0, 1))
    def boot(self, start: int, budget: int, category: int) -> None:
        self.limit = ChannelLimits(-100_000, 100_000, 1000, 70, stop_category=category)
        self.limits = Limits((self.limit,) * 2, 2000, budget, 60, 200)
        self.node = VirtualNode(Schema.positions(("a", "b"), scale=2.0**-21), start_us=start)
        self.was = NodeState.INIT
        self.arm_ok = self.clear_ok = self.committed = False
        self.nonces: list[int] = []
        self.session = 0
        self.hash = 0
        self.path: list[np.ndarray] = []
        self.step()
        self.upload()

    def step(self) -> None:
        """One tick and everything that must hold after it."""
        node = self.node
        driven = node.enabled
        node.tick()
        assert node.state is not None
        if node.boundary:
            # The promise is about sent values: a channel without torque is sent none, and starts anew from where the
            # machine is found, which may happen in the middle of a period.
            if driven != 3 or node.enabled != 3:
                self.path.clear()
            if node.enabled == 3:
                self.path.append(node.applied.astype(np.int64))
            del self.path[:-3]
            self.check_motion()
            self.observe(NodeState(node.state.state))

    def check_motion(self) -> None:
        q = np.array(self.path)
        assert (q >= self.limit.lo).all()
        assert (q <= self.limit.hi).all()
        assert (np.abs(np.diff(q, axis=0)) <= self.limit.w).all()
        assert (np.abs(np.diff(q, 2, axis=0)) <= self.limit.h).all()

    def observe(self, now: NodeState) -> None:
        if now == NodeState.ARMED and self.was != NodeState.ARMED:
            assert self.arm_ok, "ARMED without an accepted ARM"
        if self.was in LATCHED and now not in LATCHED:
            assert self.clear_ok, "left a latch without an accepted CLEAR"
        if self.was == NodeState.ESTOP and now == NodeState.FAILSAFE:
            raise AssertionError("ESTOP became FAILSAFE")
        self.arm_ok = self.clear_ok = False
        self.was = now

    def fresh(self) -> VirtualNode:
        """The node with a HELLO of this moment."""
        self.node.send(MsgType.HELLO_REQ)
        assert self.node.hello is not None
        if self.node.hello.nonce not in self.nonces:
            self.nonces.append(self.node.hello.nonce)
        return self.node

    @rule()
    def upload(self) -> None:
        node = self.fresh()
        assert node.hello is not None
        for payload in self.limits.channel_payloads():
            node.request(MsgType.LIMITS, payload)
        ack = node.request(MsgType.LIMITS_COMMIT, self.limits.commit_payload(node.hello.schema_hash))
        if ack.result == 0:
            self.hash = ack.value
        self.step()
        self.step()

    @rule(age=st.integers(0, 3), seq=st.sampled_from([None, 7]))
    def arm(self, age: int, seq: int | None) -> None:
        node = self.fresh()
        assert node.hello is not None
        state = node.hello.state
        nonce = self.nonces[max(0, len(self.nonces) - 1 - age)]
        ack = node.request(MsgType.ARM, Arm(nonce, self.hash).pack(), seq=seq)
        if ack.result == 0:
            assert state in (NodeState.READY, NodeState.ARMED)
            assert nonce == node.hello.nonce, "armed with an old nonce"
            if state == NodeState.ARMED:
                assert ack.value == self.session
            self.session = ack.value
            self.arm_ok = True
        self.step()
        self.step()

    @rule(age=st.integers(0, 3))
    def clear(self, age: int) -> None:
        node = self.fresh()
        assert node.hello is not None
        nonce = self.nonces[max(0, len(self.nonces) - 1 - age)]
        state = node.hello.state
        if node.request(MsgType.CLEAR, Clear(nonce).pack()).result == 0:
            assert state in LATCHED
            assert nonce == node.hello.nonce
            self.clear_ok = True
        self.step()
        self.step()

    @rule(a=VALUES, b=VALUES, periods=st.integers(1, 60), ttl=st.integers(10, 80))
    def drive(self, a: int, b: int, periods: int, ttl: int) -> None:
        """What a patient operator does: wait, clear, arm, and then the stream."""
        self.silence(100)
        self.clear(0)
        self.arm(0, None)
        self.stream(a, b, ttl, 0, periods)

    @rule(a=VALUES, b=VALUES, ttl=st.integers(0, 80), age=st.integers(0, 3000), periods=st.integers(1, 40))
    def stream(self, a: int, b: int, ttl: int, age: int, periods: int) -> None:
        for _ in range(periods):
            stamp = (self.node.t_us - age) & 0xFFFFFFFF
            self.node.send(MsgType.COMMAND, Command(self.session, stamp, ttl, (a, b)).pack())
            self.step()
            self.step()

    @rule(values=st.tuples(VALUES, VALUES), session=st.integers(0, 2**32 - 1), seq=st.integers(0, 0xFFFF))
    def stray_command(self, values: tuple[int, int], session: int, seq: int) -> None:
        self.node.send(MsgType.COMMAND, Command(session, self.node.t_us, 50, values).pack(), seq=seq)
        self.step()

    @rule()
    def invalid_value(self) -> None:
        self.node.send(MsgType.COMMAND, Command(self.session, self.node.t_us, 50, (0, INVALID)).pack())
        self.step()

    @rule(n=st.integers(1, 120))
    def silence(self, n: int) -> None:
        for _ in range(n):
            self.step()

    @rule(us=st.integers(1, 30_000))
    def stall(self, us: int) -> None:
        self.node.stall(us)
        self.step()

    @rule(kind=st.sampled_from([MsgType.DISARM, MsgType.ESTOP, MsgType.HEARTBEAT]))
    def order(self, kind: MsgType) -> None:
        self.node.send(kind)
        self.step()

    @rule(code=st.integers(0, 255))
    def host_fault(self, code: int) -> None:
        self.node.send(MsgType.FAULT, bytes([code]))
        self.step()

    @rule(bits=st.integers(0, 15), n=st.integers(1, 5))
    def inputs(self, bits: int, n: int) -> None:
        self.node.inputs(bits)
        for _ in range(n):
            self.step()
        self.node.inputs(0)

    @rule(noise=st.binary(min_size=1, max_size=60))
    def noise(self, noise: bytes) -> None:
        self.node.feed(noise)
        self.step()

    @invariant()
    def no_drive_before_ready(self) -> None:
        if getattr(self, "was", None) == NodeState.INIT:
            assert self.node.enabled == 0


NodeLife.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestNodeLife = NodeLife.TestCase
