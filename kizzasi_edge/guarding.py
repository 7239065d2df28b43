"""The guard's part of a tick: where it stands, what it is told, and what is done when it fails itself."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kizzasi_edge.connectors.base import Actuator
from kizzasi_edge.frames import Observation
from kizzasi_edge.guardrails import Guardrails, Verdict
from kizzasi_edge.guardrails.faults import Event, State
from kizzasi_edge.joints import Measured
from kizzasi_edge.stats import LoopStats

LOST = ("INIT", "FAILSAFE", "DISCONNECTED")
"""States of an actuator that has ended a session by itself."""


class Guarding:
    """A guard between a model's proposals and an actuator (``None``: the guard stands on what it sent).

    ``session``: the actuator's, as of the last :meth:`begin`. ``sent``: float32, the guard's last answer.
    ``moving``: whether the guard is in charge of something: an armed actuator, or a dry run that has begun. Only then
    is it told of periods without a proposal: what happens before the start latches nothing.
    """

    def __init__(self, guard: Guardrails, names: tuple[str, ...], actuator: Actuator | None, stats: LoopStats) -> None:
        self.guard, self.actuator, self.stats = guard, actuator, stats
        self.session = 0
        self.sent = np.zeros(len(guard.output_names), np.float32)
        self._measured = Measured(names, guard)
        self._seeded = False
        self._ending = False  # a session is over, and its end is not explained yet
        self._stamp_ns = 0
        self._stood: tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]] | None = None

    @property
    def moving(self) -> bool:
        return bool(self.session) if self.actuator is not None else self._seeded

    def begin(self, skipped: int) -> bool:
        """Follow the actuator's session, and live through ``skipped`` periods that nobody answered. True: the model
        must start from its initial state, because the robot starts from rest."""
        if self.actuator is None:
            starts = False
        else:
            before, self.session = self.session, self.actuator.session
            starts = bool(self.session) and self.session != before
            self.stats.sessions += starts
            self._ending = not self.session and (self._ending or bool(before))
            if self._ending:
                self._explain_end(self.actuator.state)
        if self.moving and not starts:
            for _ in range(min(skipped, self.guard.faults.limits.hang_ticks)):
                self.miss(Event.LATE)
        return starts or self.guard.state is State.REARM  # REARM waits for a proposal that asks for no motion

    def _explain_end(self, state: str) -> None:
        """Why a session ended: the operator (READY), an emergency stop, or nobody who is here."""
        if state == "ESTOP":
            self.miss(Event.ESTOP)  # at once: a mere wish (guard.estop) would not outlive the reset before a session
        elif state in LOST:
            self.miss(Event.HEARTBEAT_LOSS)
        self._ending = state == "ARMED"  # a disarmed node brakes first

    def stand(self, observation: Observation) -> None:
        """Let the guard stand on what the device applied. Before a session it stands at rest, and has no past."""
        if self.actuator is None:
            return
        position = self._measured.position(observation.values)
        if position is not None and np.isfinite(position).all():
            self.actuator.place(position)  # also while the guard is latched: there the next session begins
            if not self.session and self.guard.state < State.REARM:
                self.guard.reset(position)
                self._seeded = True
        self._rebase()

    def _rebase(self) -> None:
        if self.actuator is None:
            return
        motion = self._stood = self.actuator.motion()
        if motion is not None:
            self.guard.rebase(*motion)
            self._seeded = True

    def overtaken(self) -> bool:
        """Whether the device has moved on since the guard stood on it. It takes a late command joint by joint, and then
        nobody keeps what couples them; without one it coasts and brakes, which keeps it (docs/guardrails.md)."""
        if self.actuator is None or self._stood is None or not (self.guard.rows or self.guard.quadratics):
            return False
        now = self.actuator.motion()
        return now is not None and not all(map(np.array_equal, now, self._stood))

    def admit(self, proposal: npt.NDArray[np.float32], observation: Observation) -> Verdict | None:
        """The guard's answer, in ``sent``. If the guard raises while a robot is moving, that is a fault like others, if
        it can still brake; None if it cannot, or if it has nowhere to stand yet."""
        self._stamp_ns, values, measured = observation.stamp_ns, observation.values, self._measured
        position = measured.position(values)
        if not (self._seeded or position is None or np.isfinite(position).all()):
            self.stats.bad_inputs += 1  # nowhere to stand yet
            return None
        try:
            verdict = self.guard.step_into(
                proposal,
                self.sent,
                position=position,
                velocity=measured.velocity(values),
                signals=measured.signals(values),
                stamp_ns=observation.stamp_ns,
            )
        except Exception as exc:
            if not self.moving:
                raise
            self._failed(exc)
            return self.miss(Event.EXCEPTION)
        self._seeded = True
        return verdict

    def miss(self, event: Event) -> Verdict | None:
        """A period without a proposal; the guard stands on what the device has made of it. None if it cannot answer."""
        try:
            self._rebase()
            if not self._seeded:
                return None
            return self.guard.miss(self.sent, event, self._stamp_ns)
        except Exception as exc:
            self._failed(exc)
            return None

    def _failed(self, exc: Exception) -> None:
        self.stats.guard_exceptions += 1
        self.stats.last_error = f"guard: {type(exc).__name__}: {exc}"
