"""The deadline shield: ``always(p -> eventually[0,D] q)`` kept by a latched fallback.

The model commands as long as the fallback would still be in time afterwards. At each period with a request pending:

    time_to_go.after(state) + margin + miss_budget · time_to_go.missed_period  ≤  remaining − dt

``after`` is the worst over every command that the guard can admit in this period, so nothing is assumed about the
model. If it holds, the next period starts from a state with ``now ≤ remaining``: the condition under which engaging
is still in time. If not, the fallback engages, from a state with ``now ≤ remaining`` by that same induction (the
request itself is the start: if ``now`` does not fit then, no shield can promise anything, and the decision says
``infeasible_at_request``). Engaged, it stays so until q holds. This is the Simplex architecture (Sha, *Using
simplicity to control complexity*, IEEE Software 2001) with the time to go as its switching condition.

Assumed: at most ``miss_budget`` missed periods, in bursts or singly, between the last period left to the model and
the goal; and that the guard admits what the fallback proposes, so that the bound of ``time_to_go`` holds.

``φ until[0,D] ψ`` is the same shield with q = ψ: its ``pending`` says while which the rows of φ are to be kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.temporal.fallback import Fallback
from kizzasi_edge.guardrails.temporal.time_to_go import F64, ROUND_OFF, TimeToGo


@dataclass(slots=True)
class Decision:
    """What the shield decided about one period.

    ``pending``: a request waits for its goal. ``remaining_s``: until its deadline (negative: passed; ``inf``: none
    pending). ``proposal``: the fallback's position ``(n,)`` [rad] that replaces the model's; ``None``: the model may
    command. ``infeasible_at_request``: the pending request could not be promised when it was made. ``violated``: its
    deadline has come without the goal.
    """

    pending: bool = False
    remaining_s: float = math.inf
    proposal: F64 | None = None
    infeasible_at_request: bool = False
    violated: bool = False

    @property
    def engaged(self) -> bool:
        return self.proposal is not None


class DeadlineShield:
    """Keeps one deadline of ``bound_s`` seconds, rounded down to periods of ``dt``.

    ``margin_s``: seconds by which the fallback is to be early. ``miss_budget``: missed periods reserved for (see
    above). Counters: ``requests`` that started a deadline, ``engagements``, ``infeasible``, ``violations``.

    Raises :class:`GuardrailError` on bounds that make no sense, and if ``time_to_go`` is not about where ``fallback``
    ends.
    """

    def __init__(
        self,
        bound_s: float,
        dt: float,
        time_to_go: TimeToGo,
        fallback: Fallback,
        margin_s: float = 0.0,
        miss_budget: int = 0,
    ) -> None:
        for name, value, least in (("dt", dt, 0.0), ("bound_s", bound_s, dt)):
            if not (math.isfinite(value) and value >= least and value > 0):
                raise GuardrailError(f"{name}: found {value} s; expected at least {f'dt = {dt} s' if least else '> 0'}")
        if not (math.isfinite(margin_s) and margin_s >= 0 and miss_budget >= 0):
            raise GuardrailError(f"margin_s {margin_s}, miss_budget {miss_budget}: expected finite and not negative")
        if time_to_go.pose is not fallback.pose:
            raise GuardrailError(
                f"time to go {type(time_to_go).__name__} does not say when fallback {type(fallback).__name__} arrives"
            )
        self.requests = self.engagements = self.infeasible = self.violations = 0
        self._dt = dt
        self._periods = math.floor(bound_s / dt + ROUND_OFF)
        self._time, self._fallback = time_to_go, fallback
        self._reserve = margin_s + miss_budget * time_to_go.missed_period - ROUND_OFF * dt
        self._left: int | None = None
        self._engaged = False
        self._decision = Decision()

    def reset(self) -> None:
        """Forget the pending request; the counters stay."""
        decision = self._decision
        self._left, self._engaged = None, False
        decision.pending = decision.violated = decision.infeasible_at_request = False
        decision.remaining_s, decision.proposal = math.inf, None

    def update(self, trigger: bool, goal: bool, position: F64, velocity: F64, periods: int = 1) -> Decision:
        """Once per period, before its command is chosen. The decision is the shield's own: it changes with each call.

        ``trigger``, ``goal``: p and q in the state applied last; ``position``, ``velocity`` ``(n,)`` that state, in
        rad and rad/s. ``periods``: since the last call (more than 1 after skipped ones). Of several requests the
        earliest unfulfilled one counts: a goal in time for it is in time for all.
        """
        decision = self._decision
        if goal or (self._left is None and not trigger):
            if self._left is not None and self._left < periods and not decision.violated:
                self.violations += 1  # it came, but in a period after the deadline
            self.reset()
            return decision
        if self._left is None:
            self._left = self._periods
            self.requests += 1
            self._check_request(position, velocity)
        else:
            self._left -= periods
        if not self._engaged and not self._fits(self._time.after(position, velocity), self._left - 1):
            self._engage()
        if self._left <= 0 and not decision.violated:
            decision.violated = True
            self.violations += 1
        decision.pending, decision.remaining_s = True, self._left * self._dt
        decision.proposal = self._fallback.propose(position, velocity) if self._engaged else None
        return decision

    def _fits(self, seconds: float, periods: int) -> bool:
        return seconds + self._reserve <= periods * self._dt

    def _check_request(self, position: F64, velocity: F64) -> None:
        if not self._fits(self._time.now(position, velocity), self._periods):
            self._decision.infeasible_at_request = True
            self.infeasible += 1
            self._engage()

    def _engage(self) -> None:
        self._engaged = True
        self.engagements += 1
        self._fallback.start()
