"""Monitors of all other formulas: leaves by generated code, the rest by nodes that settle instants (instants.py)."""

from __future__ import annotations

from collections.abc import Sequence

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.temporal import instants as it
from kizzasi_edge.guardrails.temporal.present import Code, Steps
from kizzasi_edge.guardrails.temporal.syntax import (
    Binary,
    Formula,
    Not,
    Unary,
    Until,
    Verdict3,
    children,
    has_future,
    horizon,
    walk,
)

MAX_SLOTS = 1 << 23
"""Ring slots (nodes × periods looked ahead) that one monitor may take."""
MAX_DOUBLED = 64
"""How often ``<->`` may write an unbounded formula twice."""


class Engine:
    def __init__(self, formula: Formula, atoms: tuple[str, ...]) -> None:
        self.atoms = atoms
        ahead = max((h for node in walk(formula) if (h := _reach(node)) is not None), default=0)
        size = 1 << (ahead + 4).bit_length()
        self.clock = it.Clock(-1, size)
        self.code = Code(atoms)
        self.leaves: list[it.Node] = []
        self.values: list[str] = []
        self.nodes: list[it.Node] = []
        self._known: dict[tuple[int, bool], tuple[Formula, it.Ref]] = {}
        self.doubled = 0
        self.top, self.sign = self._top(formula, True)
        self._step, _, self._reset_code = self.code.build(f"return ({''.join(f'{value}, ' for value in self.values)})")

    def steps(self) -> Steps:
        return self.step, self.remaining, self.reset

    def step(self, values: Sequence[int]) -> Verdict3:
        top, clock = self.top, self.clock
        if not top.value:
            clock.t += 1
            for node in self.nodes:
                node.clear(clock.t + 1)
            for leaf, value in zip(self.leaves, self._step(values), strict=True):
                leaf.settle(clock.t, 1 if value else -1)
            top.step()
        return Verdict3(self.sign * top.value)

    def remaining(self) -> float:
        return float("inf") if self.top.value else self.top.remaining()

    def reset(self) -> None:
        self.clock.t = -1
        for node in self.nodes:
            for k in range(self.clock.size):
                node.clear(k)
        self._reset_code()
        self.top.reset()

    def _top(self, formula: Formula, positive: bool) -> tuple[it.Top, int]:
        """The verdict's source and sign for the formula at period 0."""
        clock, ahead = self.clock, horizon(formula)
        if ahead is not None:
            return it.Instant(clock, self._ref(formula, positive), ahead), 1
        match formula:
            case Not(arg):
                top, sign = self._top(arg, not positive)
                return top, -sign
            case Binary("->", left, right):
                return self._top(Binary("or", Not(left), right), positive)
            case Binary("<->", left, right):
                if (horizon(left) is None) + (horizon(right) is None) + self.doubled > MAX_DOUBLED:
                    raise GuardrailError(f"formula: more than {MAX_DOUBLED} unbounded formulas under <->")
                self.doubled += 1
                return self._top(_iff(left, right), positive)
            case Binary(op, left, right):
                sign = 1 if op == "and" else -1
                (a, a_sign), (b, b_sign) = self._top(left, positive), self._top(right, positive)
                return it.Both(((a, sign * a_sign), (b, sign * b_sign))), sign
            case Unary(op, lo, _, arg):
                sign = 1 if op == "F" else -1
                ref = self._ref(arg, positive)
                return it.Sometime(clock, lo, ref if sign > 0 else -ref, horizon(arg) or 0), sign
            case Until(_, lo, _, left, right):
                until = it.Until0(
                    clock,
                    lo,
                    self._ref(left, positive),
                    self._ref(right, positive),
                    max(horizon(left) or 0, horizon(right) or 0),
                )
                if lo == 0:
                    return until, 1
                first, _ = self._top(Unary("G", 0, lo - 1, left), positive)
                return it.Both(((first, 1), (until, 1))), 1
        raise AssertionError(formula)

    def _ref(self, formula: Formula, positive: bool) -> it.Ref:
        key = (id(formula), positive)
        if key not in self._known:
            self._known[key] = formula, self._new_ref(formula, positive)
        return self._known[key][1]

    def _new_ref(self, formula: Formula, positive: bool) -> it.Ref:
        clock = self.clock
        if not has_future(formula):
            self.values.append(self.code.value(formula, positive))
            self.leaves.append(it.Node(clock))
            return self._add(self.leaves[-1])
        match formula:
            case Not(arg):
                return -self._ref(arg, not positive)
            case Binary("->", left, right):
                return -self._and(self._ref(left, not positive), -self._ref(right, positive))
            case Binary("<->", left, right):
                return self._ref(_iff(left, right), positive)
            case Binary("and", left, right):
                return self._and(self._ref(left, positive), self._ref(right, positive))
            case Binary("or", left, right):
                return -self._and(-self._ref(left, positive), -self._ref(right, positive))
            case Unary("X", lo, _, arg):
                return self._add(it.Later(clock, lo, self._ref(arg, positive)))
            case Unary("F", lo, int(hi), arg):
                return self._add(it.Within(clock, lo, hi, self._ref(arg, positive)))
            case Unary("G", lo, int(hi), arg):
                return -self._add(it.Within(clock, lo, hi, -self._ref(arg, positive)))
            case Until("U", lo, int(hi), left, right):
                held, goal = self._ref(left, positive), self._ref(right, positive)
                until = self._and(
                    self._add(it.Within(clock, 0, hi - lo, goal)), self._add(it.Unless(clock, held, goal))
                )
                if lo == 0:
                    return until
                first = -self._add(it.Within(clock, 0, lo - 1, -held))
                return self._and(first, self._add(it.Later(clock, lo, until)))
        raise AssertionError(formula)  # check() has refused the rest

    def _and(self, left: it.Ref, right: it.Ref) -> it.Ref:
        return self._add(it.And(self.clock, left, right))

    def _add(self, node: it.Node) -> it.Ref:
        self.nodes.append(node)
        if len(self.nodes) * self.clock.size > MAX_SLOTS:
            raise GuardrailError(
                f"formula: {len(self.nodes)} or more subformulas over {self.clock.size} periods; expected at most "
                f"{MAX_SLOTS} in all: shorten its intervals"
            )
        return it.Ref(node)


def _iff(left: Formula, right: Formula) -> Formula:
    return Binary("and", Binary("->", left, right), Binary("->", right, left))


def _reach(formula: Formula) -> int | None:
    """Periods that a ring has to hold for this part: as :func:`horizon`, and the start of an unbounded interval."""
    ahead = horizon(formula)
    if ahead is None and isinstance(formula, Unary | Until):
        return formula.lo + max(horizon(child) or 0 for child in children(formula))
    return ahead
