"""The shapes of formulas that have a monitor or a class of their own."""

from __future__ import annotations

from dataclasses import dataclass

from kizzasi_edge.guardrails.temporal.syntax import Binary, Const, Formula, Not, Unary, Until, has_future


@dataclass(frozen=True, slots=True)
class Response:
    """``always (trigger -> eventually [lo, bound] goal)`` in periods (``op`` F), or with a second ``always`` (G)."""

    op: str
    trigger: Formula
    goal: Formula
    lo: int
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
        case Not(Unary("F" | "G" as op, lo, hi, arg)):
            return [Unary("G" if op == "F" else "F", lo, hi, Not(arg))]
    return [formula]


def response(formula: Formula) -> Response | None:
    """The formula as a response, if it is one with a present or past trigger and goal."""
    if not isinstance(formula, Unary) or (formula.op, formula.lo, formula.hi) != ("G", 0, None):
        return None
    parts = disjuncts(formula.arg)
    ahead = [part for part in parts if has_future(part)]
    if len(ahead) != 1 or not isinstance(ahead[0], Unary) or ahead[0].op not in "FG":
        return None
    goal = ahead[0]
    if goal.hi is None or has_future(goal.arg):
        return None
    trigger: Formula = Const(True)
    for part in parts:
        if part is not goal:
            negated = part.arg if isinstance(part, Not) else Not(part)
            trigger = negated if trigger == Const(True) else Binary("and", trigger, negated)
    return Response(goal.op, trigger, goal.arg, goal.lo, goal.hi)


def as_until(formula: Formula) -> Until | None:
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
