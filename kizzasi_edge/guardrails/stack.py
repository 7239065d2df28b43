"""The guard as a user holds it: built from a file or a builder, stepped once per command period.

One period: what happened (operator, sensors, temporal rules) becomes events, the fault machine turns them into an
action, the drive carries it out. In the common case, nothing happened and all is nominal, that is one call into the
drive.
"""

from __future__ import annotations

import logging
import struct
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.builder import Builder
from kizzasi_edge.guardrails.core import CoreDrive
from kizzasi_edge.guardrails.drive import Drive
from kizzasi_edge.guardrails.explain import explain_faults, explain_needs
from kizzasi_edge.guardrails.faults import Action, Event, FaultMachine, State, advance
from kizzasi_edge.guardrails.inputs import F32, FloatArray, Inputs
from kizzasi_edge.guardrails.parts import Parts, build_parts
from kizzasi_edge.guardrails.senses import Senses
from kizzasi_edge.guardrails.spec import GuardFile, load_spec
from kizzasi_edge.guardrails.verdict import Status, Verdict

_log = logging.getLogger(__name__)
_STATE_AND_CAUSE = struct.Struct("=II")
_STATUS = struct.Struct("=i")
_ESTOP, _PASS = _STATUS.pack(Status.ESTOP), int(Status.PASS)
_NON_FINITE, _LATE, _EXCEPTION = int(Event.NON_FINITE), int(Event.LATE), int(Event.EXCEPTION)
_UNFOLLOWED = _NON_FINITE | _EXCEPTION
_BIT = {_NON_FINITE: 16, _LATE: 32}


class Guardrails:
    """Keeps every command admissible (docs/guardrails.md) and reacts to faults (docs/faults.md).

    The recursion stands on the last value sent, or on what :meth:`rebase` says was applied; of position commands the
    measured positions only seed it. One instance guards one stream of commands; only :meth:`estop` and :meth:`clear`
    may be called from other threads.

    Attributes: ``joints`` (nodes, of poses) in order; ``output_names`` what a model's outputs are called, one per
    element of a command; ``shape`` of a command; ``command`` "position", "velocity", "torque" or "pose"; ``rate_hz``;
    ``limits`` SI limits after margins; ``lattice`` the integers that hold of sent values, ``node`` those that a node is
    given to hold them; ``rows`` and ``quadratics`` the rules that couple joints; ``measures`` what of "position" and
    "velocity" every step needs; ``signals`` names of the signals that rules read; ``drive`` what moves; ``temporal``
    the temporal rules, or None; ``faults`` the fault machine with its counters; ``hang_s`` how long a model may be
    silent before it counts as hanging.
    """

    def __init__(self, spec: GuardFile, where: str | Path = "guard") -> None:
        parts: Parts = build_parts(spec, where)
        self.spec, self.where, self.rate_hz = spec, str(where), float(spec.guard.rate_hz)
        self.command, self.limits = parts.command, parts.limits
        self.lattice, self.node = parts.lattice, parts.node
        self.rows, self.quadratics, self.output_names = parts.rows, parts.quadratics, parts.output_names
        self.drive: Drive = parts.drive
        self._describe = parts.describe
        self._follow = parts.drive.follow
        self._core = parts.drive if isinstance(parts.drive, CoreDrive) else None
        self.temporal = parts.temporal
        self.faults = FaultMachine(parts.fault_limits)
        self.hang_s = parts.fault_limits.hang_ticks / self.rate_hz
        self.layout = parts.layout
        self.joints, self.shape = self.layout.channels, self.drive.shape
        watched = ("position",) if parts.needs_position else ()
        self.measures = tuple(dict.fromkeys((*self.drive.measures, *watched)))
        self.signals: tuple[str, ...] = () if self.temporal is None else self.temporal.signals
        self.quanta: npt.NDArray[np.float64] = np.array([limit.quantum for limit in self.lattice])
        self._inputs = Inputs(
            self.where, self.shape, self.output_names, self.measures, frozenset(self.signals), parts.stamped
        )
        self._senses = Senses(parts, self.rate_hz)
        self._checked: FloatArray | None = None  # the last `out`: mostly the next one too
        self._asked: deque[Event] = deque()
        self._seeded = self.command == "pose"
        self._calm = not self._senses.needed
        self._record = self.drive.record
        self._live = Verdict(self.layout, self._record)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Build from a ``*.guard.toml``. Raises :class:`GuardrailError` naming file, section, key, found, expected."""
        return cls(load_spec(path), path)

    @staticmethod
    def builder(
        *, rate_hz: float, miss_budget: int = 3, velocity_scale: float = 0.9, command: str = "position"
    ) -> Builder:
        """Start building a guard in code; see :class:`Builder`."""
        guard = {"rate_hz": rate_hz, "miss_budget": miss_budget, "command": command}
        return Builder(lambda spec: Guardrails(spec, "builder"), guard, velocity_scale)

    @property
    def miss_budget(self) -> int:
        return self.spec.guard.miss_budget

    @property
    def state(self) -> State:
        """Where the fault machine stands."""
        return self.faults.memory.state

    def reset(self, position: npt.ArrayLike) -> None:
        """Stand at rest at a measured ``position`` ``(n,)`` [rad], as new: latches and pending rules are forgotten.

        Outside the limits an axis may then only move inwards, at an eighth of its speed.
        """
        self.drive.seed(self._inputs.place(position))
        self._seeded = True
        self._asked.clear()
        self.faults.reset()
        self.drive.derate(False)
        self._senses.reset()
        self._mark()

    def rebase(self, applied: npt.NDArray[np.int32], step: npt.NDArray[np.int32]) -> None:
        """Stand on what the node says it applied: its last values sent and their last changes ``(n,)`` in quanta of
        ``node``. Not of poses."""
        self.drive.rebase(applied, step)
        self._seeded = True

    def step(
        self,
        command: npt.ArrayLike,
        *,
        position: npt.ArrayLike | None = None,
        velocity: npt.ArrayLike | None = None,
        signals: Mapping[str, float] | None = None,
        stamp_ns: int = 0,
    ) -> tuple[FloatArray, Verdict]:
        """Admit one command.

        ``command`` of ``shape``: proposed positions [rad], velocities [rad/s] or torques [N·m]; may hold NaN or Inf:
        then the guard coasts, then brakes. ``position``, ``velocity`` ``(n,)`` measured [rad, rad/s]: those in
        ``measures`` every time, a position at the first step. ``signals`` by name, for rules that read them (one that
        is missing is NaN). ``stamp_ns`` monotonic receive time of the oldest input; needed where ``[faults]`` watches
        times. Returns a fresh float32 array of ``shape`` and a verdict of its own.

        Raises :class:`GuardrailError` without a measurement that is needed, :class:`InputError` on a wrong shape; the
        guard then stands where it stood.
        """
        out = np.empty(self.shape, F32)
        self._run(command, out, position, velocity, signals, stamp_ns)
        if self.temporal is None:
            return out, Verdict(self.layout, self._record[:], stamp_ns)
        rules = self.temporal
        return out, Verdict(self.layout, self._record[:], stamp_ns, rules.times, rules.violated_bits)

    def step_into(
        self,
        command: npt.ArrayLike,
        out: FloatArray,
        *,
        position: npt.ArrayLike | None = None,
        velocity: npt.ArrayLike | None = None,
        signals: Mapping[str, float] | None = None,
        stamp_ns: int = 0,
    ) -> Verdict:
        """:meth:`step` into ``out``. The verdict returned is the guard's own: it changes with the next call."""
        if out is not self._checked:
            self._inputs.out(out)
            self._checked = out
        self._run(command, out, position, velocity, signals, stamp_ns)
        return self._refresh(stamp_ns)

    def miss(self, out: FloatArray, events: Event = Event.LATE, stamp_ns: int = 0) -> Verdict:
        """One period without a proposal, for the reason ``events``: coast within the budget, then brake."""
        if not self._seeded:
            raise GuardrailError(f"{self.where}: a guard that has no position yet cannot coast or brake")
        self._inputs.out(out)
        now = int(events)
        try:
            now |= self._senses.miss(late=now == _LATE)
        except Exception as exc:
            now |= self._failed(exc)
        self._react(now, None, out)
        return self._refresh(stamp_ns)

    def estop(self) -> None:
        """Latch: from the next call on brake to rest and stay there, until :meth:`clear` and a proposal at rest, or
        :meth:`reset`. Any thread."""
        self._ask(Event.ESTOP)

    def clear(self) -> None:
        """Release a latched state, where nothing is wrong any more and all is at rest: the first proposal after it that
        asks for no motion is followed again. Any thread."""
        self._ask(Event.CLEAR)

    @property
    def motion(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Last sent positions and steps ``(n,)`` in quanta; of velocities where joints were measured, and what was
        sent."""
        if self._core is None:
            raise GuardrailError(f"{self.where}: {self.command} commands have no motion in quanta")
        return self._core.motion()

    def explain(self) -> str:
        """What is enforced and under which assumptions, in words."""
        rules = [] if self.temporal is None else ["", *self.temporal.explain()]
        needs = explain_needs(self.measures, self.signals, self.command, stamped=self._inputs.stamped)
        faults = explain_faults(self.spec.faults, self.faults.limits, self.command)
        return "\n".join([*self._describe(), *rules, "", *needs, "", *faults])

    # ---- one period --------------------------------------------------------------------------------------------------

    def _run(
        self,
        command: npt.ArrayLike,
        out: FloatArray,
        position: npt.ArrayLike | None,
        velocity: npt.ArrayLike | None,
        signals: Mapping[str, float] | None,
        stamp_ns: int,
    ) -> None:
        if type(command) is not np.ndarray or command.dtype is not F32 or command.shape != self.shape:
            command = self._inputs.command(command)
        if not self._seeded:
            self._first(position, velocity, signals, stamp_ns)
        if self._calm and not self._asked:
            if velocity is not None or signals is not None:
                self._inputs.measured(None, velocity, signals, stamp_ns)
        elif self._observe(command, out, position, velocity, signals, stamp_ns):
            return
        try:  # nominal so far: follow, and ask the machine only if that finds something
            found = self._follow(command, out)
        except Exception as exc:
            found = self._failed(exc)
        if found:
            self._react(found, command, out, followed=not found & _UNFOLLOWED)

    def _observe(
        self,
        command: FloatArray,
        out: FloatArray,
        position: npt.ArrayLike | None,
        velocity: npt.ArrayLike | None,
        signals: Mapping[str, float] | None,
        stamp_ns: int,
    ) -> bool:
        """Where there is more to look at than the command. True: that has decided the period."""
        q, v = self._inputs.measured(position, velocity, signals, stamp_ns)
        state = self.faults.memory.state
        # What is latched is not active: it could never be cleared.
        active = _STATUS.unpack_from(self._record)[0] != _PASS and state < State.REARM
        try:
            events = self._senses.look(command, q, v, signals, stamp_ns, active=active)
        except Exception as exc:
            events = self._failed(exc)
        if not (events or state or self._asked):
            return False
        self._react(events, command, out)
        return True

    def _react(self, events: int, command: FloatArray | None, out: FloatArray, *, followed: bool = False) -> None:
        """Let the machine decide, and carry it out. ``followed``: the drive has followed the command already."""
        while self._asked:
            events |= self._asked.popleft()
        drive, machine = self.drive, self.faults
        rest = drive.at_rest
        if command is not None and not followed:
            if not np.isfinite(command).all():
                events |= _NON_FINITE
            elif machine.memory.state == State.REARM and drive.asks_no_motion(command):
                events |= Event.ZERO_COMMAND
        if not (followed or (command is None and self.temporal is None)):
            found = self._try(events, command, out, rest)
            if found is not None:
                events |= found
                followed = not found & _UNFOLLOWED
        action = machine.tick(Event(events), at_rest=rest)
        self._calm = False  # also if the drive raises now
        if not followed:
            rule = 0 if action == Action.FALLBACK else _BIT.get(events & (_NON_FINITE | _LATE), 0)
            if action == Action.COAST:
                drive.coast(out, rule)
            else:
                drive.brake(out, rule)
        self._mark()

    def _try(self, events: int, command: FloatArray | None, out: FloatArray, rest: bool) -> int | None:
        """Follow what the machine would follow as things stand: the proposal, or the fallback's. What that finds, or
        None if there is neither."""
        machine, rules = self.faults, self.temporal
        action = advance(machine.memory, Event(events), machine.limits, at_rest=rest).action
        if action == Action.FALLBACK:
            command = None if rules is None or rules.proposal is None else rules.proposal.astype(np.float32)
        if command is None or action > Action.FALLBACK:
            return None
        try:
            self.drive.derate(action == Action.FOLLOW_DERATED)  # a fallback promises its time at full speed
            return self.drive.follow(command, out)
        except Exception as exc:
            return self._failed(exc)

    def _mark(self) -> None:
        """Write the machine's state into the verdict's record; calm: nothing is to be looked at but the command."""
        memory = self.faults.memory
        _STATE_AND_CAUSE.pack_into(self._record, 4, memory.state, memory.cause if memory.state else 0)
        if memory.state == State.ESTOP:
            self._record[0:4] = _ESTOP
        self._calm = not (memory.state or self._senses.needed or self._asked)

    def _failed(self, exc: Exception) -> int:
        """Our own fault: report it, and stop."""
        _log.exception("%s: the guard raised; it brakes and stays", self.where, exc_info=exc)
        return _EXCEPTION

    def _ask(self, event: Event) -> None:
        self._asked.append(event)

    def _first(
        self,
        position: npt.ArrayLike | None,
        velocity: npt.ArrayLike | None,
        signals: Mapping[str, float] | None,
        stamp_ns: int,
    ) -> None:
        """The first step: stand where the joints are, if it is one."""
        if position is None and self.command == "velocity" and not self.drive.measures:
            position = np.zeros(self.shape)  # no joint has a range: it does not matter where they are
        if position is None:
            raise GuardrailError(
                f"{self.where}: the first step needs position=, the measured positions of {list(self.joints)}"
            )
        self._inputs.measured(position, velocity, signals, stamp_ns)
        self.drive.seed(self._inputs.place(position))
        self._seeded = True

    def _refresh(self, stamp_ns: int) -> Verdict:
        live, rules = self._live, self.temporal
        live.stamp_ns = stamp_ns
        if rules is not None:
            live.times, live.violated_bits = rules.times, rules.violated_bits
        return live
