"""Generated code for conjunctions of the common shapes: responses, invariants, single intervals and untils."""

from __future__ import annotations

from kizzasi_edge.guardrails.temporal.present import Code, Steps
from kizzasi_edge.guardrails.temporal.shapes import as_until, conjuncts, response
from kizzasi_edge.guardrails.temporal.syntax import Formula, Unary, has_future


def clauses(formula: Formula, atoms: tuple[str, ...]) -> Steps | None:
    """Generated code, if the formula is a conjunction of the common shapes over present and past formulas."""
    code = Code(atoms)
    done = code.keep(0)
    ending: list[str] = []
    once: list[str] = []  # verdicts of the clauses that period 0 has one of; 0 for an unbounded always
    waits: list[str] = []
    parts = conjuncts(formula)
    for part in parts:
        answer = response(part)
        if answer is not None and answer.op == "G":  # a trigger within the interval before a period binds that period
            trigger, goal = code.value(answer.trigger, positive=False), code.value(answer.goal)
            ending.append(f"if {code.once(trigger, answer.lo, answer.bound)} and not ({goal}): {done} = -1")
            if answer.bound:
                _, ring, i = code.delay(trigger, answer.bound)
                waits.append(f"1 + oldest({ring}, {i})")
        elif answer is not None:
            left = code.keep(-1)  # periods until the oldest unanswered trigger's deadline
            trigger, goal = code.value(answer.trigger, positive=False), code.value(answer.goal)
            bound, later = answer.bound - answer.lo, "inf"
            if answer.lo:  # a goal from lo on answers a trigger as a goal from now on answers that of lo periods ago
                trigger, ring, i = code.delay(trigger, answer.lo)
                later = f"{bound + 1} + oldest({ring}, {i})"
            ending += [
                f"if {goal}: {left} = -1",
                f"elif {left} > 0:",
                f"    {left} -= 1",
                f"    if not {left}: {done} = -1",
                f"elif {trigger}: {left} = {bound}" + (f"; {done} = -1" if bound == 0 else ""),
            ]
            waits.append(f"({left} if {left} >= 0 else {later})")
        elif isinstance(part, Unary) and part.op == "G" and part.hi is None and not has_future(part.arg):
            holds = code.value(part.arg)
            if part.lo:
                n = code.keep(0)
                ending += [f"if {n} < {part.lo}: {n} += 1", f"elif not ({holds}): {done} = -1"]
            else:
                ending.append(f"if not ({holds}): {done} = -1")
            once.append("0")
        else:
            until = as_until(part)
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
