"""What a run counts; nothing is lost silently."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from kizzasi_edge.guardrails import Verdict
from kizzasi_edge.guardrails.faults import State


@dataclass(slots=True)
class LoopStats:
    """Counters of a run. ``interventions`` counts armed ticks by rule, ``relaxed`` those in which a soft rule was given
    up, ``overtaken`` commands not sent because the device had moved on, ``resets`` the model's new starts that were
    asked for; ``last_error`` is the newest failure of model or guard, in words; ``state``: of the guard's fault machine
    at the end of the last tick."""

    ticks: int = 0
    armed_ticks: int = 0
    silent: int = 0
    overtaken: int = 0
    stale_ticks: int = 0
    bad_inputs: int = 0
    bad_outputs: int = 0
    guard_exceptions: int = 0
    sessions: int = 0
    resets: int = 0
    interventions: Counter[str] = field(default_factory=Counter)
    relaxed: Counter[str] = field(default_factory=Counter)
    last_error: str = ""
    state: State = State.NOMINAL

    def judged(self, verdict: Verdict) -> None:
        """Count what the guard did about a command in an armed tick."""
        if verdict.status or verdict.state:
            self.interventions.update(verdict.rules)
        if given_up := verdict.given_up:
            self.relaxed.update(given_up)
