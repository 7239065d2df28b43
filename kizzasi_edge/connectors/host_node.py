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

from kizzasi_bridge.protocol import Command as Setpoint
from kizzasi_bridge.protocol import Fault, MsgType, NodeState, StopCategory
from kizzasi_bridge.request import code_name
from kizzasi_bridge.virtual import VirtualNode
from kizzasi_edge.clock import DeadlineClock
from kizzasi_edge.connectors import host_handshake
from kizzasi_edge.connectors.device_map import Session
from kizzasi_edge.connectors.host_map import HostMap
from kizzasi_edge.connectors.periods import Periods
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
    """Sends commands ``(n,)`` float32 [rad, rad/s or N·m], in the guard's order: one for each period with a command,
    and those by which it brakes without, down to rest; otherwise nothing. All methods may be called from any thread,
    :meth:`wait` from one.

    Each session is a node's whole life, from boot at the measured positions to rest, or to CLEAR of what ended it. A
    command is applied as the next period begins, as on a board. Between measurements a velocity's position is reckoned
    from what was sent. ``damping`` [N·m·s/rad] by joint: how torques brake.

    Raises :class:`ConfigError` as :class:`~kizzasi_edge.connectors.host_map.HostMap` does, naming ``where``.
    """

    def __init__(
        self,
        guard: Guardrails,
        rate_hz: float,
        send: Send,
        *,
        ttl_s: float,
        arm_ttl_s: float,
        damping: Mapping[str, float] | None = None,
        where: str = "host node",
    ) -> None:
        times = round(ttl_s * 1e3), round(arm_ttl_s * 1e3)
        session = Session(*times, StopCategory.BRAKE_THEN_CUT, {}, damping or {})
        self._map = HostMap(guard, rate_hz, session, where)
        self._rate_hz, self._send = rate_hz, send
        self._measures = guard.command != "position"
        self._somewhere = guard.command != "velocity" or "position" in guard.measures  # else: it turns without end
        self._clock = DeadlineClock(rate_hz)
        self._turn = threading.Condition()
        self._periods = Periods()
        self._node: VirtualNode | None = None
        n = len(guard.joints)
        self._at = np.zeros(n, np.int32)  # measured, in counts
        self._placed_ns = -FRESH_NS
        self._session = 0
        self._began_us = self._ticks = 0  # of the node's life
        self._applied = np.zeros(n, np.int32)
        self._step = np.zeros(n, np.int32)
        self._applied_seq = 0
        self._driven = self._applied if self._measures else self._step
        """Not 0: what is sent asks for motion."""
        self._drives = False
        self._closing = False
        self.counters = {**dict.fromkeys(_COUNTED, 0), "clamped": 0}
        self._before = (0,) * len(_COUNTED)  # of this node
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
        """Where the joints are measured ``(n,)`` [rad], finite: there the next session begins, and there velocities and
        torques stand in this one."""
        with self._turn:
            node = self._node
            if node is not None and not self._measures:
                return
            self._at[:] = self._map.measured(position)
            if node is not None:
                node.sensors[:] = self._at
            self._placed_ns = time.monotonic_ns()
            self._turn.notify_all()

    def _is_placed(self) -> bool:
        return not self._somewhere or time.monotonic_ns() - self._placed_ns < FRESH_NS

    def motion(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]] | None:
        """The command applied last and its change, in quanta; ``None`` out of session and at rest."""
        with self._turn:
            return (self._applied.copy(), self._step.copy()) if self._moving else None

    def wait(self, timeout_s: float) -> int:
        """Block until the next period begins; how many began since the last call (0 = timed out)."""
        return self._periods.wait(timeout_s)

    def write(self, command: Command) -> None:
        with self._turn:
            node = self._node
            if node is None or not self._session:
                self.counters["ignored"] += 1
                return
            stamp = command.stamp_ns // 1000 & _U32
            if (node.t_us - stamp) & _U32 >= 1 << 31:  # younger than the last tick, which is the node's now
                stamp = node.t_us
            wanted = self._map.to_raw(command.values).tolist()
            node.send(MsgType.COMMAND, Setpoint(self._session, stamp, self._map.limits.ttl_max_ms, wanted).pack())
            self._look(node)

    def arm(self) -> None:
        """Raises :class:`LinkError` unless READY, and where no joints are measured."""
        with self._turn:
            if not (self._node is not None or self._turn.wait_for(self._is_placed, MEASURED_S)):
                raise LinkError("arm: no measured positions come; expected every joint's among the inputs")
            if self._node is not None:
                raise LinkError(f"arm: refused in state {self.state}; expected READY")
            node = self._boot()
            self._session = host_handshake.arm(node, self._map.limits)
            self._node = node

    def _boot(self) -> VirtualNode:
        self._began_us, self._ticks = time.monotonic_ns() // 1000, 0
        self._applied[:] = 0 if self._measures else self._at
        self._step[:], self._applied_seq, self._drives = 0, 0, False
        self._before = (0,) * len(_COUNTED)
        node = VirtualNode(self._map.schema, boot_id=secrets.randbits(32), start_us=self._began_us & _U32)
        node.sensors[:] = self._at
        node.tick()  # it stands there before anything is asked of it, an emergency stop too
        return node

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
        """Wait for the node to see rest, for a second or twice the periods that it watches; raises :class:`LinkError`
        if it does not."""
        with self._turn:
            node = self._node
            if node is None or self.state not in ("FAILSAFE", "ESTOP"):
                return
            if not self._turn.wait_for(lambda: host_handshake.clear(node), max(1.0, 64 / self._rate_hz)):
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
        fault = 0 if node is None else node.fault
        return {"fault": code_name(Fault, fault), "session": self._session, "node": dict(self.counters)}

    @property
    def _moving(self) -> bool:
        """Whether there is a session, the end of one, or motion asked for."""
        node = self._node
        return node is not None and (bool(self._session) or self._drives or node.state_now is NodeState.ARMED)

    def _run(self) -> None:
        while not self._closing:
            began = self._clock.wait()
            with self._turn:
                if self._node is not None:
                    self._period(self._node, began)
                self._turn.notify_all()
            self._periods.begin(began)

    def _period(self, node: VirtualNode, began: int) -> None:
        """A tick of the node, on its deadline's time: it must not come early."""
        if began > 1:
            self._map.reckon(node.sensors, self._applied, began - 1)
        self._ticks += began
        node.run_at(self._began_us + round(self._ticks * 1e6 / self._rate_hz) & _U32)
        self._count(node)
        state = self._look(node)
        drove, applied, now = self._drives, self._applied, node.applied
        np.subtract(now, applied, out=self._step)
        applied[:] = now
        self._drives = bool(self._driven.any())
        if drove or self._drives or node.applied_seq != self._applied_seq:  # and rest, once
            self._publish(node)
        self._applied_seq = node.applied_seq
        if state is NodeState.READY:  # disarmed, and at rest
            self._node = None

    def _count(self, node: VirtualNode) -> None:
        counters, now = self.counters, node.counters
        if now != self._before:
            for name, before, after in zip(_COUNTED, self._before, now, strict=True):
                counters[name] += (after - before) & 0xFFFF
            self._before = now
        counters["clamped"] += node.clamped != 0

    def _look(self, node: VirtualNode) -> NodeState:
        """A session that the node has ended is over."""
        state = node.state_now
        if state is not NodeState.ARMED:
            self._session = 0
        return state

    def _publish(self, node: VirtualNode) -> None:
        try:
            self._send(self._map.to_si(self._applied))
            node.inputs(0)
        except ConnectorError:
            node.inputs(ACTUATOR_FAULT)
