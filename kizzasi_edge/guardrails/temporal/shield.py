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

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.temporal.time_to_go import ROUND_OFF, TimeToGo, Values


class DeadlineShield:
    """Keeps one deadline of ``bound_s`` seconds, rounded down to periods of ``dt``.

    ``margin_s``: seconds by which the fallback is to be early. ``miss_budget``: missed periods reserved for (see
    above). ``stays``: the fallback keeps driving after its goal as long as the trigger holds.

    After each :meth:`update`: ``pending``: a request waits for its goal. ``remaining_s``: until its deadline (negative:
    passed; ``inf``: none pending). ``engaged``: the fallback drives. ``infeasible_at_request``: the pending request
    could not be promised when it was made. ``violated``: its deadline has come without the goal. Counters: ``requests``
    that started a deadline, ``engagements``, ``infeasible``, ``violations``.

    Raises :class:`GuardrailError` on bounds that make no sense.
    """

    def __init__(
        self,
        bound_s: float,
        dt: float,
        time_to_go: TimeToGo,
        margin_s: float = 0.0,
        miss_budget: int = 0,
        *,
        stays: bool = False,
    ) -> None:
        for name, value, least in (("dt", dt, 0.0), ("bound_s", bound_s, dt)):
            if not (math.isfinite(value) and value >= least and value > 0):
                raise GuardrailError(f"{name}: found {value} s; expected at least {f'dt = {dt} s' if least else '> 0'}")
        if not (math.isfinite(margin_s) and margin_s >= 0 and miss_budget >= 0):
            raise GuardrailError(f"margin_s {margin_s}, miss_budget {miss_budget}: expected finite and not negative")
        self.requests = self.engagements = self.infeasible = self.violations = 0
        self._dt, self._time, self._stays = dt, time_to_go, stays
        self._periods = math.floor(bound_s / dt + ROUND_OFF)
        self.reserve = margin_s + miss_budget * time_to_go.missed_period
        """Seconds kept free besides the time to go."""
        self.reset()

    def reset(self) -> None:
        """Forget the pending request; the counters stay."""
        self._left = 0
        self.remaining_s = math.inf
        self.pending = self.engaged = self.infeasible_at_request = self.violated = False

    def update(self, trigger: bool, goal: bool, position: Values, velocity: Values) -> bool:
        """Once per period, before its command is chosen: whether the fallback drives.

        ``trigger``, ``goal``: p and q now; ``position``, ``velocity``: ``n`` floats, the state applied last, in rad and
        rad/s. Of several requests the earliest unfulfilled one counts: a goal in time for it is in time for all.
        """
        if goal or not (trigger or self.pending):
            stay = self._stays and self.engaged and trigger
            self.reset()
            self.engaged = stay
            return stay
        if self.pending:
            self._left -= 1
        else:
            self.pending, self._left = True, self._periods
            self.requests += 1
            if not self._fits(self._time.now(position, velocity), self._left):
                self.infeasible_at_request = True
                self.infeasible += 1
                self._engage()
        if not self.engaged and not self._fits(self._time.after(position, velocity), self._left - 1):
            self._engage()
        if self._left <= 0 and not self.violated:
            self.violated = True
            self.violations += 1
        self.remaining_s = self._left * self._dt
        return self.engaged

    def _fits(self, seconds: float, periods: int) -> bool:
        return seconds + self.reserve <= (periods + ROUND_OFF) * self._dt

    def _engage(self) -> None:
        self.engagements += not self.engaged
        self.engaged = True
