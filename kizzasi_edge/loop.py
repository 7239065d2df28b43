"""THE PATH of one command: wait → read → align → step → guard → write → record (docs/life-of-a-frame.md).

One thread runs it. Whatever another thread wants (arm, disarm, e-stop, clear) goes to the actuator, which is
thread-safe; this loop only sees the actuator's state change. Nothing in here waits except ``pace.wait``.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from kizzasi_edge.align import Align
from kizzasi_edge.clock import Pace
from kizzasi_edge.connectors.base import Actuator
from kizzasi_edge.errors import InputError, ModelError
from kizzasi_edge.frames import Observation
from kizzasi_edge.guardrails import Guardrails, Status, Verdict
from kizzasi_edge.joints import command_order, position_index
from kizzasi_edge.recorder import Recorder

MAX_STEPS = 10
"""Most model steps of one tick: after a longer gap the node has braked, and the model must find its way anyway."""


class Policy(Protocol):
    """The model as the loop uses it: :class:`~kizzasi_edge.predictor.Predictor` without its guard."""

    output_names: tuple[str, ...]

    def propose(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]: ...

    def reset(self) -> None: ...


@dataclass(slots=True)
class LoopStats:
    """Counters of a run; nothing is lost silently. ``interventions`` counts armed ticks by rule."""

    ticks: int = 0
    armed_ticks: int = 0
    silent: int = 0
    stale_ticks: int = 0
    bad_inputs: int = 0
    bad_outputs: int = 0
    sessions: int = 0
    interventions: Counter[str] = field(default_factory=Counter)


class Loop:
    """Runs one model behind one guard against one actuator (``None``: read, step, guard and record only)."""

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
        self._order = command_order(policy.output_names, guard.joints, guard.where)
        self._measured = position_index(align.names, guard.joints)
        self._proposal = np.full(len(guard.joints), np.nan, np.float32)
        self._sent = np.zeros(len(guard.joints), np.float32)
        self._valid = np.ones(len(guard.joints), np.bool_)
        self._session = 0

    def tick(self) -> None:
        """One command period, from the wait for its start to its record."""
        stats, actuator = self.stats, self.actuator
        periods = self.pace.wait()
        start_ns = time.monotonic_ns()
        observation = self.align.read(start_ns, stats.ticks)
        stats.silent += periods == 0
        session = 0 if actuator is None else actuator.session
        stats.ticks += 1
        if session != self._session:
            self._session = session
            if session:
                stats.sessions += 1
                self.policy.reset()  # a policy starts at rest from its initial state, as in training
        stats.stale_ticks += observation is None
        if observation is None or not periods:  # nothing new to answer
            if actuator is not None:
                actuator.idle()  # no command: the node coasts, brakes and trips its TTL by itself
            return
        self._stand()
        model_ns = self._propose(observation, periods)
        verdict = self._guard(observation)
        if actuator is not None:
            if session and verdict.status is Status.ESTOP:
                actuator.estop()  # the guard has latched: let the node latch too, and stop by itself
            elif session:
                actuator.write(observation.command(self.guard.joints, self._sent, self._valid))
            else:
                actuator.idle()
        if session:
            stats.armed_ticks += 1
            if verdict.status:
                stats.interventions.update(verdict.rules)
        self.recorder.add(
            observation,
            verdict,
            proposal=self._proposal,
            sent=self._sent,
            armed=bool(session),
            model_ns=model_ns,
            late_ns=start_ns - observation.stamp_ns,
            tick_ns=time.monotonic_ns() - observation.stamp_ns,
        )

    def _stand(self) -> None:
        """Let the guard stand on what the device applied; without a device it stands on what it sent."""
        motion = None if self.actuator is None else self.actuator.motion()
        if motion is not None:
            self.guard.rebase(*motion)

    def _propose(self, observation: Observation, periods: int) -> int:
        """Step the model once for each period that began, so that its time stays the robot's; the last one counts."""
        start_ns = time.monotonic_ns()
        try:
            for _ in range(min(periods, MAX_STEPS)):
                y = self.policy.propose(observation.values)
        except InputError:
            self.stats.bad_inputs += 1
            self._proposal.fill(np.nan)
        except ModelError:
            self.stats.bad_outputs += 1
            self._proposal.fill(np.nan)
        else:
            np.take(y, self._order, out=self._proposal, mode="clip")
        return time.monotonic_ns() - start_ns

    def _guard(self, observation: Observation) -> Verdict:
        position = None if self._measured is None else observation.values[self._measured]
        return self.guard.step_into(self._proposal, self._sent, position=position, stamp_ns=observation.stamp_ns)
