"""A node in this process, for robots that take commands from a topic and have no node of ours: states, sessions, one
guarded setpoint per period, coast and brake (CONTRACT §2–§4), by the same C guard as on a microcontroller.

What no process can do is stop a robot after its own death: then the robot's controller keeps the last setpoint.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from kizzasi_edge.clock import DeadlineClock
from kizzasi_edge.errors import ConnectorError, LinkError
from kizzasi_edge.frames import Command
from kizzasi_edge.guardrails import Guardrails
from kizzasi_edge.guardrails.core import CoreDrive

BRAKE_S = 10.0
"""How long the end waits for the robot's setpoint to come to rest."""
NO_RULE = 0

Send = Callable[[npt.NDArray[np.float32]], None]


class HostNode:
    """Sends one setpoint ``(n,)`` float32 [rad], in the guard's order, for each period it is armed and for each until
    it has braked to rest; otherwise nothing. All methods may be called from any thread.

    A command is sent as soon as it comes, the first of its period; a period that ends without one is a miss: coast for
    the guard's miss budget, then brake; after ``ttl_s`` without one FAILSAFE, latched.
    """

    def __init__(self, guard: Guardrails, rate_hz: float, send: Send, *, ttl_s: float, arm_ttl_s: float) -> None:
        self._drive = CoreDrive(guard.lattice, guard.layout, rate_hz=rate_hz, miss_budget=guard.miss_budget)
        self._clock, self._budget = DeadlineClock(rate_hz), guard.miss_budget
        self._period_ns = 1e9 / rate_hz
        self._send, self._ttl_ns, self._arm_ttl_ns = send, ttl_s * 1e9, arm_ttl_s * 1e9
        self._out = np.zeros(len(guard.joints), np.float32)
        self._turn = threading.Condition()
        self._state, self._session, self._fault = "READY", 0, "NONE"
        self._moving = False  # between a session's first command and the last setpoint of its brake
        self._answered = False  # this period has its setpoint
        self._ending = False  # disarmed, and braking
        self._closing = False
        self._heard_ns = 0  # of the last command, or of ARM
        self._periods = self._seen = self._misses_in_a_row = 0
        self.counters = {"misses": 0, "ignored": 0, "stale": 0, "clamped": 0}
        self._thread = threading.Thread(target=self._run, name="host-node", daemon=True)
        self._thread.start()

    @property
    def session(self) -> int:
        return 0 if self._ending else self._session

    @property
    def state(self) -> str:
        return self._state

    def motion(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]] | None:
        """The last setpoint sent and its step, in quanta; ``None`` while nothing moves."""
        with self._turn:
            return self._drive.motion() if self._moving else None

    def wait(self, timeout_s: float) -> int:
        """Block until the next period begins; how many began since the last call (0 = timed out)."""
        with self._turn:
            self._turn.wait_for(lambda: self._periods != self._seen, timeout_s)
            began, self._seen = self._periods - self._seen, self._periods
            return began

    def write(self, command: Command) -> None:
        now = time.monotonic_ns()
        with self._turn:
            if self._state != "ARMED" or self._ending or self._answered:
                self.counters["ignored"] += 1
            elif now - command.stamp_ns > self._ttl_ns:
                self.counters["stale"] += 1
            elif not np.isfinite(command.values).all():
                self._fail("INVALID_VALUE")
            else:
                self._follow(command.values, now)

    def arm(self) -> None:
        """Raises :class:`LinkError` unless READY."""
        with self._turn:
            if self._state != "READY":
                raise LinkError(f"arm: refused in state {self._state}; expected READY")
            self._state, self._session, self._fault = "ARMED", secrets.randbits(31) + 1, "NONE"
            self._heard_ns, self._misses_in_a_row = time.monotonic_ns(), 0

    def disarm(self) -> None:
        with self._turn:
            self._ending = self._state == "ARMED"

    def estop(self) -> None:
        with self._turn:
            self._state, self._session, self._ending = "ESTOP", 0, False

    def clear(self) -> None:
        """Raises :class:`LinkError` while the brake is not at rest."""
        with self._turn:
            if self._moving and self._state != "ARMED":
                raise LinkError(f"clear: NOT_AT_REST in state {self._state}")
            if self._state in ("FAILSAFE", "ESTOP"):
                self._state, self._fault = "READY", "NONE"

    def close(self) -> None:
        """Brake to rest, then end."""
        self.disarm()
        with self._turn:
            self._turn.wait_for(lambda: not self._moving, BRAKE_S)
            self._closing = True
        self._thread.join()

    @property
    def status(self) -> Mapping[str, object]:
        return {"fault": self._fault, "session": self.session, "node": dict(self.counters)}

    def _run(self) -> None:
        while not self._closing:
            began = self._clock.wait()
            with self._turn:
                if self._moving and not self._answered:
                    self._miss()
                elif self._state == "ARMED" and not self._moving:
                    self._wait_for_first()
                self._answered = False
                self._periods += began
                self._turn.notify_all()

    def _follow(self, values: npt.NDArray[np.float32], now: int) -> None:
        if not self._moving:
            self._drive.seed(values.astype(np.float64))  # at rest there, as the guard that sent it starts at rest
            self._moving = True
        self._drive.follow(values, self._out)
        self.counters["clamped"] += int(not np.array_equal(self._out, values))
        self._heard_ns, self._misses_in_a_row, self._answered = now, 0, True
        self._publish()

    def _miss(self) -> None:
        """A period without a command: what a robot with a node of its own would do."""
        stopping = self._state != "ARMED" or self._ending
        if not stopping:
            self.counters["misses"] += 1
            self._misses_in_a_row += 1
            if time.monotonic_ns() - self._heard_ns > self._ttl_ns:
                self._fail("TTL")
        if stopping and self._drive.at_rest:
            self._moving = False
            if self._ending:
                self._state, self._session, self._ending = "READY", 0, False
        elif stopping or self._misses_in_a_row > self._budget:
            if not self._drive.at_rest:
                self._drive.brake(self._out, NO_RULE)
                self._publish()
        else:
            self._drive.coast(self._out, NO_RULE)
            self._publish()

    def _wait_for_first(self) -> None:
        if self._ending:
            self._state, self._session, self._ending = "READY", 0, False
        elif time.monotonic_ns() - self._heard_ns > self._arm_ttl_ns:
            self._fail("ARM_TTL")

    def _fail(self, fault: str) -> None:
        self._state, self._session, self._ending, self._fault = "FAILSAFE", 0, False, fault

    def _publish(self) -> None:
        try:
            self._send(self._out)
        except ConnectorError:
            self._fail("ACTUATOR")
