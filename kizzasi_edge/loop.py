"""THE PATH of one command: wait → read → align → step → guard → write → record (docs/life-of-a-frame.md).

One thread runs it. Whatever another thread wants (arm, disarm, e-stop, clear) goes to the actuator and the guard, which
take it at any time; this loop only sees their states change. Nothing in here waits except ``pace.wait``.
"""

from __future__ import annotations

import time
from typing import Protocol

import numpy as np
import numpy.typing as npt

from kizzasi_edge.align import Align
from kizzasi_edge.clock import Pace
from kizzasi_edge.connectors.base import Actuator
from kizzasi_edge.errors import InputError
from kizzasi_edge.frames import Observation
from kizzasi_edge.guarding import Guarding
from kizzasi_edge.guardrails import Guardrails, Verdict
from kizzasi_edge.guardrails.faults import Event, State
from kizzasi_edge.joints import guard_order
from kizzasi_edge.recorder import Recorder
from kizzasi_edge.stats import LoopStats

MAX_STEPS = 10
"""Most model steps of one tick: after a longer gap the node has braked, and the model must find its way anyway."""


class Policy(Protocol):
    """The model as the loop uses it: :class:`~kizzasi_edge.predictor.Predictor` without its guard."""

    output_names: tuple[str, ...]

    def propose(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]: ...

    def reset(self) -> None: ...


class Loop:
    """Runs one model behind one guard against one actuator (``None``: read, step, guard and record only).

    ``in_flight``: number of the tick that is being worked on, 0 between ticks; the watchdog looks at it.
    ``verdict``: the guard's last decision, its own object. ``reset_asked``: set by others, so that the next tick starts
    the model anew.
    """

    def __init__(
        self,
        policy: Policy,
        guard: Guardrails,
        align: Align,
        actuator: Actuator | None,
        pace: Pace,
        recorder: Recorder,
    ) -> None:
        self.policy, self.guard, self.align = policy, guard, align
        self.actuator, self.pace, self.recorder = actuator, pace, recorder
        self.stats = LoopStats()
        self.guarding = Guarding(guard, align.names, actuator, self.stats)
        self.in_flight = 0
        self.reset_asked = False
        self.verdict: Verdict | None = None
        self._order = guard_order(policy.output_names, guard, guard.where)
        self._proposal = np.full(len(self._order), np.nan, np.float32)
        self._valid = np.ones(len(self._order), np.bool_)

    def tick(self) -> None:
        """One command period, from the wait for its start to its record."""
        periods = self.pace.wait()
        self.stats.ticks += 1
        self.in_flight = self.stats.ticks
        self._answer(periods, time.monotonic_ns())
        self.stats.state = self.guard.state
        self.in_flight = 0

    def attend(self) -> None:
        """A period without the model, while the device brakes: it is told where the joints are."""
        self.pace.wait()
        observation = self.align.read(time.monotonic_ns(), self.stats.ticks)
        if observation is not None:
            self.guarding.stand(observation)
        if self.actuator is not None:
            self.actuator.idle()

    def _answer(self, periods: int, start_ns: int) -> None:
        stats = self.stats
        if self.guarding.begin(skipped=periods - 1) or self.reset_asked:
            self.policy.reset()  # a policy starts at rest from its initial state, as in training
            stats.resets += self.reset_asked
            self.reset_asked = False
        observation = self.align.read(start_ns, stats.ticks)
        stats.silent += periods == 0
        stats.stale_ticks += observation is None
        if observation is None or not periods:
            self._rest()
            return
        self.guarding.stand(observation)
        model_ns = self._propose(observation, periods)
        verdict = self.verdict = self.guarding.admit(self._proposal, observation)
        self._write(verdict, observation)
        if verdict is None:
            return
        armed = bool(self.guarding.session)
        if armed:
            stats.armed_ticks += 1
            stats.judged(verdict)
        self.recorder.add(
            observation,
            verdict,
            proposal=self._proposal,
            sent=self.guarding.sent,
            armed=armed,
            model_ns=model_ns,
            late_ns=start_ns - observation.stamp_ns,
            tick_ns=time.monotonic_ns() - observation.stamp_ns,
        )

    def _rest(self) -> None:
        """Nothing new to answer: no command; the node coasts, brakes and trips its TTL by itself. The guard is told."""
        if self.guarding.moving:
            self.guarding.miss(Event.STALE)
        if self.actuator is not None:
            self.actuator.idle()

    def _propose(self, observation: Observation, periods: int) -> int:
        """Step the model once for each period that began, so that its time stays the robot's; the last one counts.

        Whatever is wrong with a model is answered by a proposal of NaN, which the guard never passes on.
        """
        start_ns = time.monotonic_ns()
        x = observation.values[: self.align.model_dim]
        try:
            for _ in range(min(periods, MAX_STEPS)):
                y = self.policy.propose(x)
            if y.shape != self._proposal.shape:
                raise ValueError(f"found shape {y.shape}; expected {self._proposal.shape}")
            np.take(y, self._order, out=self._proposal, mode="clip")
        except Exception as exc:
            if isinstance(exc, InputError):
                self.stats.bad_inputs += 1
            else:
                self.stats.bad_outputs += 1
            self.stats.last_error = f"model: {exc}"
            self._proposal.fill(np.nan)
        return time.monotonic_ns() - start_ns

    def _write(self, verdict: Verdict | None, observation: Observation) -> None:
        """The guard's answer to the actuator, while one is armed; its emergency stop, or its silence, is the node's."""
        actuator = self.actuator
        if actuator is None:
            return
        if not self.guarding.session:
            actuator.idle()
        elif verdict is None or verdict.state is State.ESTOP:
            actuator.estop()
        elif self.guarding.overtaken():
            self.stats.overtaken += 1
            actuator.idle()
        else:
            actuator.write(observation.command(self.guard.output_names, self.guarding.sent, self._valid))
