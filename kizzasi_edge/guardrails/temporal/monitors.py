"""Online monitors: each formula's verdict after each period, in O(1) amortised time and constant memory.

The verdict is that of the formula at the first period, over all traces that extend the prefix seen so far, by strong
Kleene logic: VIOLATED and SATISFIED are final; PENDING says that some subformula still has to be decided.
(Bauer, Leucker, Schallhart: Runtime verification for LTL and TLTL, 2011, with the formula's operators judged one by
one: a contradiction such as ``eventually (p and not p)`` is found at its deadline, not before.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.temporal import instants as it
from kizzasi_edge.guardrails.temporal.present import Code, Steps
from kizzasi_edge.guardrails.temporal.syntax import (
    FUTURE,
    MAX_PERIODS,
    Binary,
    Const,
    Formula,
    Not,
    Unary,
    Until,
    Verdict3,
    atoms_of,
    children,
    has_future,
    horizon,
    walk,
)

MAX_SLOTS = 1 << 23
"""Ring slots (nodes × periods looked ahead) that one monitor may take."""
MAX_DOUBLED = 64
"""How often ``<->`` may write an unbounded formula twice."""


class Monitor:
    """A running formula.

    ``update(values)`` takes one period's atoms in the order of ``atoms`` (1 or True holds, 0 or False fails, -1
    invalid) and gives the verdict. Once it is not PENDING it stays; ``reset()`` starts a new trace.
    """

    __slots__ = ("_remaining", "_reset", "atoms", "period_s", "update")

    def __init__(self, formula: Formula, rate_hz: float, atoms: Sequence[str] | None = None) -> None:
        """``atoms``: the order of the values (default: that of first appearance).

        Raises :class:`GuardrailError` for an atom that is not listed, an unbounded future operator inside another
        temporal operator, a future operator inside a past one, or intervals too long to watch.
        """
        self.atoms = atoms_of(formula) if atoms is None else tuple(atoms)
        for name in atoms_of(formula):
            if name not in self.atoms:
                raise GuardrailError(f"formula: found the atom {name!r}; expected one of {list(self.atoms)}")
        check(formula)
        self.period_s = 1.0 / rate_hz
        self.update: Callable[[Sequence[int]], Verdict3]
        step, self._remaining, self._reset = _clauses(formula, self.atoms) or _Engine(formula, self.atoms).steps()
        self.update = step

    @property
    def remaining(self) -> float:
        """Seconds until the oldest pending instant is decided at the latest; inf when none has a deadline."""
        return self._remaining() * self.period_s

    def reset(self) -> None:
        self._reset()


def check(formula: Formula) -> None:
    """Refuse what cannot be monitored in bounded memory. Raises :class:`GuardrailError` with the way out."""
    for node in walk(formula):
        if not isinstance(node, Unary | Until):
            continue
        for child in children(node):
            if node.op not in FUTURE and has_future(child):
                raise GuardrailError(
                    f"formula: found a future operator inside {_WORD[node.op]!r}; expected present and past ones there"
                )
            ahead = horizon(child)
            if ahead is None:
                raise GuardrailError(
                    f"formula: found an unbounded future operator inside {_WORD[node.op]!r}; "
                    "expected an interval [a, b] there"
                )
            if ahead + max(node.lo, node.hi or 0) > MAX_PERIODS:
                raise GuardrailError(
                    f"formula: its intervals add up to {ahead + max(node.lo, node.hi or 0)} periods; "
                    f"expected at most {MAX_PERIODS}"
                )


_WORD = {
    "G": "always", "F": "eventually", "X": "next", "U": "until", "O": "once", "H": "historically", "Y": "previous",
    "S": "since",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Response:
    """``always (trigger -> eventually [0, bound] goal)``, bound in periods."""

    trigger: Formula
    goal: Formula
    bound: int


def conjuncts(formula: Formula) -> list[Formula]:
    """The formulas that a conjunction joins; ``always`` and negation are pushed through."""
    match formula:
        case Binary("and", left, right):
            return conjuncts(left) + conjuncts(right)
        case Not(Not(arg)):
            return conjuncts(arg)
        case Not(Binary("or", left, right)):
            return conjuncts(Not(left)) + conjuncts(Not(right))
        case Not(Binary("->", left, right)):
            return conjuncts(left) + conjuncts(Not(right))
        case Not(Unary("F", lo, hi, arg)):
            return conjuncts(Unary("G", lo, hi, Not(arg)))
        case Unary("G", lo, hi, arg):
            return [formula if part is arg else Unary("G", lo, hi, part) for part in conjuncts(arg)]
    return [formula]


def disjuncts(formula: Formula) -> list[Formula]:
    """The formulas that a disjunction joins; ``p -> q`` is ``not p or q``."""
    match formula:
        case Binary("or", left, right):
            return disjuncts(left) + disjuncts(right)
        case Binary("->", left, right):
            return disjuncts(Not(left)) + disjuncts(right)
        case Not(Binary("and", left, right)):
            return disjuncts(Not(left)) + disjuncts(Not(right))
        case Not(Not(arg)):
            return disjuncts(arg)
        case Not(Unary("G", lo, hi, arg)):
            return [Unary("F", lo, hi, Not(arg))]
    return [formula]


def response(formula: Formula) -> Response | None:
    """The formula as a response, if it is one with a present or past trigger and goal."""
    if not isinstance(formula, Unary) or (formula.op, formula.lo, formula.hi) != ("G", 0, None):
        return None
    parts = disjuncts(formula.arg)
    ahead = [part for part in parts if has_future(part)]
    if len(ahead) != 1 or not isinstance(ahead[0], Unary) or ahead[0].op != "F":
        return None
    goal = ahead[0]
    if goal.lo or goal.hi is None or has_future(goal.arg):
        return None
    trigger: Formula = Const(True)
    for part in parts:
        if part is not goal:
            negated = part.arg if isinstance(part, Not) else Not(part)
            trigger = negated if trigger == Const(True) else Binary("and", trigger, negated)
    return Response(trigger, goal.arg, goal.hi)


def _clauses(formula: Formula, atoms: tuple[str, ...]) -> Steps | None:
    """Generated code, if the formula is a conjunction of the common shapes over present and past formulas."""
    code = Code(atoms)
    done = code.keep(0)
    ending: list[str] = []
    once: list[str] = []  # verdicts of the clauses that period 0 has one of; 0 for an unbounded always
    waits: list[str] = []
    parts = conjuncts(formula)
    for part in parts:
        answer = response(part)
        if answer is not None:
            left = code.keep(-1)  # periods until the oldest unanswered trigger's deadline
            trigger, goal = code.value(answer.trigger, positive=False), code.value(answer.goal)
            ending += [
                f"if {goal}: {left} = -1",
                f"elif {left} > 0:",
                f"    {left} -= 1",
                f"    if not {left}: {done} = -1",
                f"elif {trigger}: {left} = {answer.bound}" + (f"; {done} = -1" if answer.bound == 0 else ""),
            ]
            waits.append(f"({left} if {left} >= 0 else inf)")
        elif isinstance(part, Unary) and part.op == "G" and part.hi is None and not has_future(part.arg):
            holds = code.value(part.arg)
            if part.lo:
                n = code.keep(0)
                ending += [f"if {n} < {part.lo}: {n} += 1", f"elif not ({holds}): {done} = -1"]
            else:
                ending.append(f"if not ({holds}): {done} = -1")
            once.append("0")
        else:
            until = _as_until(part)
            if until is None:
                return None
            verdict, n = code.keep(0), code.keep(0)
            negated = -1 if isinstance(part, Unary) and part.op == "G" else 1
            held, goal = code.value(until.left, negated > 0), code.value(until.right, negated > 0)
            late = "False" if until.hi is None else f"{n} == {until.hi}"
            early = f"{n} >= {until.lo} and " if until.lo else ""
            ending += [
                f"if not {verdict}:",
                f"    if {early}({goal}): {verdict} = {negated}",
                f"    elif {late} or not ({held}): {verdict} = {-negated}",
                f"    {n} += 1",
                f"if {verdict} < 0: {done} = -1",
            ]
            once.append(verdict)
            if until.hi is not None:
                waits.append(f"({until.hi + 1} - {n} if not {verdict} else inf)")
    if len(once) == len(parts) and "0" not in once:
        ending.append(f"if not {done} and {' and '.join(f'{verdict} > 0' for verdict in once)}: {done} = 1")
    code.lines.insert(0, f"if {done}: return VERDICT[{done}]")
    soonest = f"min({', '.join(waits)}, inf)" if waits else "inf"
    return code.build("\n".join([*ending, f"return VERDICT[{done}]"]), f"inf if {done} else {soonest}")


def _as_until(formula: Formula) -> Until | None:
    """The formula (for G: its negation) as an until over present and past formulas, if it is one."""
    match formula:
        case Unary("F" | "X", lo, hi, arg):
            until = Until("U", lo, hi, Const(True), arg)
        case Unary("G", lo, hi, arg):
            until = Until("U", lo, hi, Const(True), Not(arg))
        case Until("U"):
            until = formula
        case _:
            return None if has_future(formula) else Until("U", 0, 0, Const(True), formula)
    return None if has_future(until.left) or has_future(until.right) else until


class _Engine:
    """Any other formula: leaves by generated code, the rest by nodes that settle instants."""

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
