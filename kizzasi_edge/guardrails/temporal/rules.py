"""The temporal rules of a guard file: what they add to the projection, what they decide each period (docs/temporal.md).

Who reads which state: deadlines' goals, and monitors of what is enforced, read what the guard applied; triggers, and
rules that are only watched, read measurements where there are any. ``command`` is the proposal; in an enforced rule it
is what was sent last, so that what is judged there is what was done.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.lattice import LatticeLimits
from kizzasi_edge.guardrails.rows import F64, Row
from kizzasi_edge.guardrails.spec import GuardFile
from kizzasi_edge.guardrails.temporal.atoms import Evaluate, compile_atoms
from kizzasi_edge.guardrails.temporal.classes import Deadline, UntilRows
from kizzasi_edge.guardrails.temporal.declared import Declared, Fallbacks, declared, rows_of
from kizzasi_edge.guardrails.temporal.fallback import Fallback, require_goal
from kizzasi_edge.guardrails.temporal.monitors import Monitor
from kizzasi_edge.guardrails.temporal.present import Code
from kizzasi_edge.guardrails.temporal.shield import DeadlineShield
from kizzasi_edge.guardrails.temporal.syntax import FUTURE, Formula, Unary, Until, Verdict3, atoms_of, walk

Floats = Sequence[float]
_NO_SIGNALS: Mapping[str, float] = {}
_VIOLATED = Verdict3.VIOLATED
_HOLD = "hold"


class _Watch(NamedTuple):
    """A monitor. ``applied``: it reads what the guard applied."""

    bit: int
    applied: bool
    atoms: Evaluate
    step: Callable[[Sequence[int]], Verdict3]


class _Deadline(NamedTuple):
    """A shield: its ``trigger`` on the atoms that ``sees`` gives, its ``goal`` on those of ``reaches``. ``rows``:
    mask of those that are in force until its goal."""

    bit: int
    sees: Evaluate
    trigger: Callable[[Sequence[int]], bool]
    reaches: Evaluate
    goal: Callable[[Sequence[int]], bool]
    shield: DeadlineShield
    fallback: Fallback
    rows: int


class TemporalRules:
    """All ``[[temporal]]`` of one guard: what they add to the projection, and what they decide each period.

    ``names`` of all rules, each of which has a monitor; ``deadlines``: names of those with one. ``rows``: hard rows of
    the projection, named after their rules; ``enabled_rows``: a bit for each that is in force. ``signals``: names that
    the atoms read. ``violated_bits``: a bit for each rule that has been violated since :meth:`reset`. ``times``:
    seconds until each deadline (``inf``: none pending; negative: passed). ``proposal``: while a fallback drives, its
    next position ``(n,)`` [rad], or ``None`` for braking.

    Raises :class:`GuardrailError` naming ``where``, rule and key, for what cannot be parsed, monitored, or enforced as
    asked for; :class:`MissingExtra` where a go-to-pose fallback has no ruckig.
    """

    def __init__(self, spec: GuardFile, limits: Sequence[LatticeLimits], where: str | Path) -> None:
        guard = spec.guard
        self._rate, self._command_kind, self._n = float(guard.rate_hz), guard.command, len(limits)
        rules = declared(spec, [limit.name for limit in limits], where)
        self.names = tuple(rule.section.name for rule in rules)
        self.deadlines = tuple(rule.section.name for rule in rules if _has_deadline(rule.formula))
        self.signals = tuple(sorted(frozenset().union(*(rule.signals for rule in rules))))
        rows = [rows_of(rule, guard.command, limits, self._rate) if rule.enforced else [] for rule in rules]
        self.rows: tuple[Row, ...] = tuple(row for group in rows for row in group)
        fallbacks = Fallbacks(spec, limits, self.rows, where)
        self._watches: list[_Watch] = []
        self._shields: list[_Deadline] = []
        self._clocks: list[Callable[[], float]] = []
        self._resets: list[Callable[[], None]] = []
        self._lines: list[str] = []
        first = 0
        for i, (rule, group) in enumerate(zip(rules, rows, strict=True)):
            mask = ((1 << len(group)) - 1) << first
            first += len(group)
            self._add(rule, 1 << i, mask, fallbacks, guard.miss_budget)
        ends = {id(shield.fallback) for shield in self._shields if shield.fallback.pose is not None}
        if len(ends) + any(shield.fallback.pose is None for shield in self._shields) > 1:
            self._lines.append(
                "temporal: fallbacks that end differently: while several are engaged the one with the least time left "
                "drives, and the deadlines of the others are not promised"
            )
        self._idle = (math.inf,) * len(self.deadlines)
        self.reset()

    # ---- building ----------------------------------------------------------------------------------------------------

    def _add(self, rule: Declared, bit: int, mask: int, fallbacks: Fallbacks, miss_budget: int) -> None:
        line = f"temporal rule {rule.section.name!r}, {rule.section.formula!r}: "
        kind = rule.kind if rule.enforced else None
        shielded = isinstance(kind, Deadline | UntilRows)
        if isinstance(kind, Deadline | UntilRows):
            about = self._guard(rule, kind, bit, mask, fallbacks, miss_budget)
            self._lines.append(f"{line}{kind.explain()}; {about}")
            if isinstance(kind, Deadline):
                return  # the shield is its monitor
        else:
            self._lines.append(line + (rule.kind.explain() if rule.enforced else 'monitored only: mode = "monitor"'))
        monitor = Monitor(rule.formula, self._rate)
        atoms = compile_atoms([rule.atoms[name] for name in monitor.atoms], self._n)
        self._watches.append(_Watch(bit, rule.enforced, atoms, monitor.update))
        self._resets.append(monitor.reset)
        if _has_deadline(rule.formula) and not shielded:
            self._clocks.append(lambda: monitor.remaining)

    def _guard(
        self, rule: Declared, kind: Deadline | UntilRows, bit: int, mask: int, fallbacks: Fallbacks, miss_budget: int
    ) -> str:
        """Add the shield of an enforced deadline; what to say about it."""
        section, dt = rule.section, 1.0 / self._rate
        try:
            fallback, time = fallbacks.of(rule)
            shield = DeadlineShield(
                kind.bound_s, dt, time, section.margin, miss_budget, stays=section.fallback == _HOLD
            )
            if shield.reserve + time.worst > kind.bound_s + dt * 1e-9:
                raise GuardrailError(
                    f"a deadline of {kind.bound_s:g} s; expected at least {shield.reserve + time.worst:.4g}: fallback "
                    f"{section.fallback!r} takes up to {time.worst:.4g} s, and {shield.reserve:.4g} are kept for "
                    "margin and missed periods"
                )
            if any(isinstance(node, Unary | Until) for node in walk(kind.goal)):
                raise GuardrailError("the goal looks at the past; expected one about the present")
            reaches, goal, _ = self._present(rule, kind.goal, positive=True)
            require_goal(
                fallback,
                lambda p, v: goal(reaches(p.tolist(), v.tolist(), (), _NO_SIGNALS)),
                rule.reads(kind.goal),
                self._n,
            )
        except GuardrailError as exc:
            raise exc if str(exc).startswith(rule.place) else type(exc)(f"{rule.place}: {exc}") from None
        if isinstance(kind, Deadline):
            sees, trigger, reset = self._present(rule, kind.trigger, positive=False)
        else:
            sees, (trigger, reset) = compile_atoms([], self._n), _first()
        self._resets += [reset, shield.reset]
        self._shields.append(_Deadline(bit, sees, trigger, reaches, goal, shield, fallback, mask))
        self._clocks.append(lambda: shield.remaining_s)
        assumed = "declared, not checked: " if isinstance(section.time_to_go, float) else ""
        return (
            f"fallback {section.fallback!r} ({assumed}at most {time.worst:.4g} s to the goal), {miss_budget} missed "
            f"periods allowed for; the goal is read from what the guard applied"
        )

    def _present(
        self, rule: Declared, formula: Formula, *, positive: bool
    ) -> tuple[Evaluate, Callable[[Sequence[int]], bool], Callable[[], None]]:
        """A formula of the present and past: its atoms, its value from theirs, its reset."""
        names = atoms_of(formula)
        code = Code(names)
        step, _, reset = code.build(f"return {code.value(formula, positive)}")
        return compile_atoms([rule.atoms[name] for name in names], self._n), step, reset

    # ---- running -----------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """A new trace: no requests, no violations, rules that hold until a goal in force again."""
        for reset in self._resets:
            reset()
        self.times: tuple[float, ...] = self._idle
        self.violated_bits = 0
        self.proposal: F64 | None = None
        self.enabled_rows = (1 << len(self.rows)) - 1
        self._proposed: Floats = (math.nan,) * self._n

    def update(
        self,
        applied_position: Floats,
        applied_velocity: Floats,
        position: Floats | None,
        velocity: Floats | None,
        command: Floats | None,
        signals: Mapping[str, float] | None,
    ) -> bool:
        """One period, before its command is chosen: whether a fallback drives. To be called once for every period, a
        missed one too.

        ``n`` floats each (lists are fastest): the state applied last [rad, rad/s]; the measured one and the proposal,
        ``None`` where there is none: then the applied state, and the last proposal, stand in. ``signals`` by name.
        """
        if position is None:
            position = applied_position
        if velocity is None:
            velocity = applied_velocity
        if command is None:
            command = self._proposed
        else:
            self._proposed = command
        if signals is None:
            signals = _NO_SIGNALS
        sent = applied_velocity if self._command_kind == "velocity" else applied_position
        for bit, applied, atoms, step in self._watches:
            if applied:
                values = atoms(applied_position, applied_velocity, sent, signals)
            else:
                values = atoms(position, velocity, command, signals)
            if step(values) is _VIOLATED:
                self.violated_bits |= bit
        least, driver = math.inf, None
        for deadline in self._shields:
            bit, sees, trigger, reaches, goal, shield, fallback, rows = deadline
            triggered = trigger(sees(position, velocity, command, signals))
            if triggered or shield.pending or shield.engaged:
                reached = goal(reaches(applied_position, applied_velocity, sent, signals))
                if shield.update(triggered, reached, applied_position, applied_velocity) and (
                    driver is None or shield.remaining_s < least
                ):
                    least, driver = shield.remaining_s, fallback
                if reached:
                    self.enabled_rows &= ~rows
                elif shield.violated:
                    self.violated_bits |= bit
        if self._clocks:
            self.times = tuple([clock() for clock in self._clocks])
        if driver is None:
            return False
        self.proposal = driver.propose(applied_position, applied_velocity)
        return True

    def explain(self) -> list[str]:
        """What is promised of each rule, and what is assumed: lines of text."""
        return list(self._lines)


def _has_deadline(formula: Formula) -> bool:
    return any(isinstance(node, Unary | Until) and node.op in FUTURE and node.hi is not None for node in walk(formula))


def _first() -> tuple[Callable[[Sequence[int]], bool], Callable[[], None]]:
    """A trigger that holds in the first period only, and its reset."""
    waiting = True

    def trigger(_: Sequence[int]) -> bool:
        nonlocal waiting
        first, waiting = waiting, False
        return first

    def reset() -> None:
        nonlocal waiting
        waiting = True

    return trigger, reset
