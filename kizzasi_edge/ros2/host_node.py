"""A node in this process, for robots that take commands from a topic and have no node of ours: the firmware's own C
code (sessions, guard, coast, brake, failsafe: docs/protocol.md) on a thread, with a topic in place of motors.

What no process can do is stop a robot after its own death: then the robot's controller keeps the last setpoint.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from kizzasi_bridge.calibration import Calibration
from kizzasi_bridge.protocol import (
    AckResult,
    Arm,
    ChannelLimits,
    Fault,
    Limits,
    MsgType,
    NodeState,
)
from kizzasi_bridge.protocol import Command as Setpoint
from kizzasi_bridge.request import code_name
from kizzasi_bridge.schema import Channel, Schema, Sensor
from kizzasi_bridge.virtual import VirtualNode
from kizzasi_edge.clock import DeadlineClock
from kizzasi_edge.errors import ConnectorError, LinkError
from kizzasi_edge.frames import Command
from kizzasi_edge.guardrails import Guardrails

MEASURED_S = 2.0
"""How long arming waits for measured positions: a run's start arms before its first tick."""
FRESH_NS = 1_000_000_000
"""How old they may be: a session must not begin where the joints once were."""
BRAKE_S = 10.0
"""How long the end waits for the robot's setpoint to come to rest."""
ACTUATOR_FAULT = 2  # KZ_IN_ACTUATOR_FAULT
_U32 = 0xFFFFFFFF
_COUNTED = ("misses", "ignored", "stale")

Send = Callable[[npt.NDArray[np.float32]], None]


class HostNode:
    """Sends setpoints ``(n,)`` float32 [rad], in the guard's order: one for each period with a command, and those by
    which it brakes without; otherwise nothing. All methods may be called from any thread.

    Each session is a node's whole life, from boot at the measured positions to rest, or to CLEAR of what ended it. A
    command is applied as the next period begins, as on a board.
    """

    def __init__(self, guard: Guardrails, rate_hz: float, send: Send, *, ttl_s: float, arm_ttl_s: float) -> None:
        self._rate_hz, self._send = rate_hz, send
        period_us = round(1e6 / rate_hz)
        rows = [
            (f"{joint}/position", "rad", 0, cell.quantum) for joint, cell in zip(guard.joints, guard.node, strict=True)
        ]
        sensors = tuple(Sensor(*row, channel=i) for i, row in enumerate(rows))
        self._schema = Schema("host", period_us, tuple(Channel(*row) for row in rows), sensors)
        self._counts = Calibration(self._schema.channels)
        self._limits = Limits(
            tuple(ChannelLimits(cell.lo, cell.hi, cell.w, cell.h) for cell in guard.node),
            period_us,
            guard.miss_budget,
            round(ttl_s * 1e3),
            round(arm_ttl_s * 1e3),
        )
        self._clock = DeadlineClock(rate_hz)
        self._turn = threading.Condition()
        self._node: VirtualNode | None = None
        self._at = np.zeros(len(guard.joints), np.int32)  # measured, quanta
        self._placed_ns = -FRESH_NS
        self._session = 0
        self._began_us = self._ticks = 0  # of the node's life
        self._applied = np.zeros(len(guard.joints), np.int32)
        self._step = np.zeros_like(self._applied)
        self._applied_seq = 0
        self._periods = self._seen = 0
        self._closing = False
        self.counters = {**dict.fromkeys(_COUNTED, 0), "clamped": 0}
        self._before = dict.fromkeys(_COUNTED, 0)  # of this node
        self._thread = threading.Thread(target=self._run, name="host-node", daemon=True)
        self._thread.start()

    @property
    def session(self) -> int:
        return self._session

    @property
    def state(self) -> str:
        node = self._node
        return "READY" if node is None else node.state_now.name

    def place(self, position: npt.NDArray[np.float32]) -> None:
        """Where the joints are measured ``(n,)`` [rad], finite: there the next session begins."""
        with self._turn:
            self._at[:] = self._counts.to_raw(position)
            self._placed_ns = time.monotonic_ns()
            self._turn.notify_all()

    def _is_fresh(self) -> bool:
        return time.monotonic_ns() - self._placed_ns < FRESH_NS

    def motion(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]] | None:
        """The setpoint applied last and its step, in quanta; ``None`` out of session and at rest."""
        with self._turn:
            return (self._applied.copy(), self._step.copy()) if self._moving else None

    def wait(self, timeout_s: float) -> int:
        """Block until the next period begins; how many began since the last call (0 = timed out)."""
        with self._turn:
            self._turn.wait_for(lambda: self._periods != self._seen, timeout_s)
            began, self._seen = self._periods - self._seen, self._periods
            return began

    def write(self, command: Command) -> None:
        with self._turn:
            node = self._node
            if node is None or not self._session:
                self.counters["ignored"] += 1
                return
            stamp = command.stamp_ns // 1000 & _U32
            if (node.t_us - stamp) & _U32 >= 1 << 31:  # younger than the last tick, which is the node's now
                stamp = node.t_us
            wanted = self._counts.to_raw(command.values).tolist()
            node.send(MsgType.COMMAND, Setpoint(self._session, stamp, self._limits.ttl_max_ms, wanted).pack())
            self._look(node)

    def arm(self) -> None:
        """Raises :class:`LinkError` unless READY, and where no joints are measured."""
        with self._turn:
            measured = self._node is not None or self._turn.wait_for(self._is_fresh, MEASURED_S)
            if not measured:
                raise LinkError("arm: no measured positions come; expected every joint's among the inputs")
            if self._node is not None:
                raise LinkError(f"arm: refused in state {self.state}; expected READY")
            node = self._boot()
            node.sensors[:] = self._at
            node.tick()
            assert node.hello is not None
            schema_hash = node.hello.schema_hash
            for payload in self._limits.channel_payloads():
                _accepted(node, MsgType.LIMITS, payload)
            _accepted(node, MsgType.LIMITS_COMMIT, self._limits.commit_payload(schema_hash))
            node.send(MsgType.HELLO_REQ, b"\1\0")  # for the nonce of READY
            arm = Arm(node.hello.nonce, self._limits.hash(schema_hash))
            self._session = _accepted(node, MsgType.ARM, arm.pack())
            self._node = node

    def _boot(self) -> VirtualNode:
        self._began_us, self._ticks = time.monotonic_ns() // 1000, 0
        self._applied[:], self._step[:], self._applied_seq = self._at, 0, 0
        self._before = dict.fromkeys(_COUNTED, 0)
        return VirtualNode(self._schema, boot_id=secrets.randbits(32), start_us=self._began_us & _U32)

    def disarm(self) -> None:
        with self._turn:
            if self._node is not None and self._session:
                self._session = 0
                self._node.send(MsgType.DISARM)
                self._look(self._node)

    def estop(self) -> None:
        """Brake, and stay; also where nothing is armed."""
        with self._turn:
            if self._node is None:
                self._node = self._boot()
            self._session = 0
            self._node.send(MsgType.ESTOP)
            self._look(self._node)

    def clear(self) -> None:
        """Raises :class:`LinkError` while the brake is not at rest."""
        with self._turn:
            if self.state not in ("FAILSAFE", "ESTOP"):
                return
            if self._moving:
                raise LinkError(f"clear: NOT_AT_REST in state {self.state}")
            self._node = None

    def close(self) -> None:
        """Brake to rest, then end."""
        self.disarm()
        with self._turn:
            self._turn.wait_for(lambda: not self._moving, BRAKE_S)
            self._closing = True
        self._thread.join()

    @property
    def status(self) -> Mapping[str, object]:
        node = self._node
        fault = 0 if node is None or node.state is None else node.state.fault
        return {"fault": code_name(Fault, fault), "session": self._session, "node": dict(self.counters)}

    @property
    def _moving(self) -> bool:
        return self._node is not None and (bool(self._session) or bool(self._step.any()))

    def _run(self) -> None:
        while not self._closing:
            began = self._clock.wait()
            with self._turn:
                if self._node is not None:
                    self._period(self._node, began)
                self._periods += began
                self._turn.notify_all()

    def _period(self, node: VirtualNode, began: int) -> None:
        """A tick of the node, on its deadline's time: it must not come early."""
        self._ticks += began
        node.tick_at(self._began_us + round(self._ticks * 1e6 / self._rate_hz) & _U32)
        self._look(node)
        state = node.state
        if state is None:
            return
        for name in _COUNTED:
            now = getattr(state, name)
            self.counters[name] += (now - self._before[name]) & 0xFFFF
            self._before[name] = now
        self.counters["clamped"] += state.clamp_mask != 0
        moved = self._step.any()
        self._step[:] = node.applied - self._applied
        self._applied[:] = node.applied
        if moved or self._step.any() or state.applied_seq != self._applied_seq:  # and rest, once
            self._publish(node)
        self._applied_seq = state.applied_seq
        if state.state == NodeState.READY:  # disarmed, and at rest
            self._node = None

    def _look(self, node: VirtualNode) -> None:
        """A session that the node has ended is over."""
        if node.state_now is not NodeState.ARMED:
            self._session = 0

    def _publish(self, node: VirtualNode) -> None:
        try:
            self._send(self._counts.to_si(self._applied).astype(np.float32))
            node.inputs(0)
        except ConnectorError:
            node.inputs(ACTUATOR_FAULT)


def _accepted(node: VirtualNode, kind: MsgType, payload: bytes) -> int:
    ack = node.request(kind, payload)
    if ack.result != AckResult.OK:
        raise LinkError(f"arm: the node refuses {kind.name}: {code_name(AckResult, ack.result)}")
    return ack.value
