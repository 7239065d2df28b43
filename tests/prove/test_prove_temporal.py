"""Temporal monitors against rtamt (discrete time, offline) and against the definition, at length."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from kizzasi_edge.guardrails.temporal import Monitor, parse
from kizzasi_edge.guardrails.temporal.present import Code
from kizzasi_edge.guardrails.temporal.syntax import has_future, horizon

rtamt = pytest.importorskip("rtamt")

# The same formula in both notations, 1 period = 1 s; rtamt's truth is the sign of its robustness.
PAIRS = [
    ("p -> F[0,5] q", "(p>0) implies (eventually[0:5](q>0))"),
    ("p -> F[2,5] q", "(p>0) implies (eventually[2:5](q>0))"),
    ("p U[0,4] q", "(p>0) until[0:4] (q>0)"),
    ("p -> (q U[1,4] r)", "(p>0) implies ((q>0) until[1:4] (r>0))"),
    ("G[0,3] p or F[1,2] q", "(always[0:3](p>0)) or (eventually[1:2](q>0))"),
    ("F[0,4] G[0,2] p", "eventually[0:4](always[0:2](p>0))"),
    ("r -> once[0,3] p", "(r>0) implies (once[0:3](p>0))"),
    ("historically[1,3] p or q", "(historically[1:3](p>0)) or (q>0)"),
    ("p since[0,4] q", "(p>0) since[0:4] (q>0)"),
    ("(p since q) -> not previous not (r or q)", "((p>0) since (q>0)) implies (prev ((r>0) or (q>0)))"),
]


def rtamt_values(text: str, trace: list[tuple[int, int, int]]) -> list[bool]:
    """The truth of the formula at each period of one long trace, by rtamt."""
    spec = rtamt.StlDiscreteTimeSpecification()
    for name in "pqr":
        spec.declare_var(name, "float")
    spec.spec = text
    spec.parse()
    data: dict[str, list[float]] = {"time": [float(k) for k in range(len(trace))]}
    for i, name in enumerate("pqr"):
        data[name] = [2.0 * sample[i] - 1.0 for sample in trace]
    return [value > 0 for _, value in spec.evaluate(data)]


TRACES = 100_000
"""Short traces for each pair: 10⁶ in all."""


def random_trace(source: random.Random, length: int) -> list[tuple[int, int, int]]:
    bias = source.choice((0.2, 0.5, 0.8, 0.95))
    return [(int(source.random() < bias), int(source.random() < bias), source.randrange(2)) for _ in range(length)]


def compare(ours: str, theirs: str, traces: int) -> None:
    """One long trace of rtamt holds many short ones. A formula that looks ahead: the suffix from each period is one,
    judged by a monitor restarted there, which must reach rtamt's value within the horizon. One that looks back: the
    prefix up to each period is one, judged by the monitor's code for present and past formulas."""
    source = random.Random(ours)
    formula = parse(ours, 1.0)
    ahead = horizon(formula)
    assert ahead is not None
    seen: Counter[bool] = Counter()
    while seen.total() < traces:
        n = min(5_000, traces - seen.total())
        trace = random_trace(source, n + ahead)
        expected = rtamt_values(theirs, trace)[:n]
        if not has_future(formula):
            code = Code(("p", "q", "r"))
            value = code.value(formula)
            step, _, _ = code.build(f"return {value}")
            got = [step(sample) for sample in trace]
        else:
            got = []
            monitor = Monitor(formula, 1.0, ("p", "q", "r"))
            for k in range(n):
                monitor.reset()
                verdict = next(v for sample in trace[k : k + ahead + 1] if (v := monitor.update(sample)))
                got.append(verdict > 0)
        assert got == expected, ours
        seen.update(got)
    assert min(seen[True], seen[False]) > traces // 1000, seen


@pytest.mark.prove
@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_verdicts_equal_those_of_rtamt(ours: str, theirs: str) -> None:
    compare(ours, theirs, TRACES)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_verdicts_equal_those_of_rtamt_shortly(ours: str, theirs: str) -> None:
    compare(ours, theirs, 1_000)
