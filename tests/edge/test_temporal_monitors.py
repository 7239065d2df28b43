"""Temporal monitors against their definition."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Sequence
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.temporal.monitors import Monitor
from kizzasi_edge.guardrails.temporal.syntax import (
    Atom,
    Binary,
    Const,
    Formula,
    Not,
    Unary,
    Until,
    Verdict3,
    has_future,
    parse,
)

Trace = Sequence[tuple[int, int, int]]
NAMES = ("p", "q", "r")


def define(formula: Formula, trace: Trace) -> int:
    """The semantics, word by word: strong Kleene at period 0, the future unknown. NaN literals are false in negation
    normal form: an atom under an even number of negations counts as false, under an odd number as true."""
    n = len(trace)

    @cache
    def at(f: Formula, k: int, positive: bool) -> int:
        if k >= n and not has_future(f):
            return 0
        match f:
            case Const(value):
                return 1 if value else -1
            case Atom(name):
                value = trace[k][NAMES.index(name)]
                return {1: 1, 0: -1, -1: -1 if positive else 1}[value]
            case Not(arg):
                return -at(arg, k, not positive)
            case Binary("and", a, b):
                return min(at(a, k, positive), at(b, k, positive))
            case Binary("or", a, b):
                return max(at(a, k, positive), at(b, k, positive))
            case Binary("->", a, b):
                return max(-at(a, k, not positive), at(b, k, positive))
            case Binary("<->", a, b):
                return min(
                    max(-at(a, k, not positive), at(b, k, positive)), max(-at(b, k, not positive), at(a, k, positive))
                )
            case Unary("X", _, _, arg):
                return at(arg, k + 1, positive)
            case Unary("Y", _, _, arg):
                return at(arg, k - 1, positive) if k else -1
            case Unary(op, lo, hi, arg):
                values = [at(arg, j, positive) for j in instants(k, op in "OH", lo, hi)]
                if op in "OH":
                    return max(values, default=-1) if op == "O" else min(values, default=1)
                unknown = [0] if hi is None else []
                return max(values + unknown) if op == "F" else min(values + unknown)
            case Until(op, lo, hi, a, b):
                best = -1
                for j in instants(k, op == "S", lo, hi):
                    between = range(j + 1, k + 1) if op == "S" else range(k, j)
                    held = min((at(a, i, positive) for i in between), default=1)
                    best = max(best, min(held, at(b, j, positive)))
                if op == "U" and hi is None:
                    best = max(best, min([0, *(at(a, i, positive) for i in range(k, max(n, k + lo)))]))
                return best
        raise AssertionError(f)

    def instants(k: int, past: bool, lo: int, hi: int | None) -> range:
        if past:
            return range(0 if hi is None else max(0, k - hi), k - lo + 1)
        return range(k + lo, (max(n, k + lo) if hi is None else k + hi) + 1)

    return at(formula, 0, True)


def check_against_definition(formula: Formula, trace: Trace) -> None:
    monitor = Monitor(formula, 1.0, NAMES)
    for _ in range(2):
        for k in range(len(trace)):
            expected = define(formula, trace[: k + 1])
            got = monitor.update(trace[k])
            assert got == expected, (formula, trace[: k + 1])
            if got is not Verdict3.PENDING:
                assert monitor.remaining == math.inf
        monitor.reset()


intervals = st.tuples(st.integers(0, 3), st.integers(0, 4)).map(lambda ab: (ab[0], ab[0] + ab[1]))
leaves = st.one_of(st.sampled_from([Atom(name) for name in NAMES]), st.booleans().map(Const))


def grow(inner: st.SearchStrategy[Formula], ops: str) -> st.SearchStrategy[Formula]:
    binary: st.SearchStrategy[Formula] = st.builds(Binary, st.sampled_from(["and", "or", "->", "<->"]), inner, inner)
    unary = [op for op in ops if op in "GFOH"]
    until = [op for op in ops if op in "US"]
    step = [op for op in ops if op in "XY"]
    return st.one_of(
        st.builds(Not, inner),
        binary,
        st.builds(lambda op, i, f: Unary(op, *i, f), st.sampled_from(unary), intervals, inner),
        st.builds(lambda op, i, f, g: Until(op, *i, f, g), st.sampled_from(until), intervals, inner, inner),
        st.builds(lambda op, f: Unary(op, 1, 1, f), st.sampled_from(step), inner),
    )


def unbounded(inner: st.SearchStrategy[Formula], ops: str) -> st.SearchStrategy[Formula]:
    unary, until = [op for op in ops if op in "GFOH"], [op for op in ops if op in "US"]
    return st.one_of(
        st.builds(lambda op, lo, f: Unary(op, lo, None, f), st.sampled_from(unary), st.integers(0, 3), inner),
        st.builds(
            lambda op, lo, f, g: Until(op, lo, None, f, g), st.sampled_from(until), st.integers(0, 3), inner, inner
        ),
    )


past = st.recursive(leaves, lambda inner: grow(inner, "OHYS") | unbounded(inner, "OHS"), max_leaves=5)
bounded = st.recursive(past, lambda inner: grow(inner, "GFXU"), max_leaves=6)
boolean = st.recursive(
    unbounded(bounded, "GFU") | bounded,
    lambda inner: st.one_of(
        st.builds(Not, inner), st.builds(Binary, st.sampled_from(["and", "or", "->", "<->"]), inner, inner)
    ),
    max_leaves=3,
)
samples = st.tuples(*[st.sampled_from([1, 1, 0, 0, -1])] * 3)
traces = st.lists(samples, min_size=1, max_size=24)


@settings(max_examples=150, deadline=None)
@given(past.map(lambda f: Unary("G", 0, None, f)) | past, traces)
def test_present_and_past(formula: Formula, trace: Trace) -> None:
    check_against_definition(formula, trace)


@settings(max_examples=300, deadline=None)
@given(boolean, traces)
def test_any_formula(formula: Formula, trace: Trace) -> None:
    check_against_definition(formula, trace)


def test_remaining_counts_down_from_the_oldest_trigger() -> None:
    monitor = Monitor(parse("always(p -> eventually[0,0.006] q)", 500.0), 500.0, ("p", "q"))
    seen = []
    for values in [(0, 0), (1, 0), (1, 0), (0, 1), (-1, 0), (0, -1), (0, 0)]:
        assert monitor.update(values) is Verdict3.PENDING
        seen.append(round(monitor.remaining, 9))
    assert seen == [math.inf, 0.006, 0.004, math.inf, 0.006, 0.004, 0.002]
    assert monitor.update((0, 0)) is Verdict3.VIOLATED
    assert monitor.update((0, 1)) is Verdict3.VIOLATED
    monitor.reset()
    assert monitor.update((0, 0)) is Verdict3.PENDING


@pytest.mark.parametrize(
    ("text", "trace", "remaining"),
    [
        # of several triggers the oldest unanswered one counts, also while it is too early for its goal
        ("always(p -> eventually[2,4] q)", [(0, 0), (1, 0), (0, 1), (1, 0), (0, 1), (0, 0), (0, 0)],
         [math.inf, 4, 3, 2, 3, 2, 1]),
        ("always(p -> eventually[1,1] q)", [(1, 0), (1, 1), (0, 1), (0, 0)], [1, 1, math.inf, math.inf]),
        ("always(p -> always[1,3] q)", [(0, 0), (1, 0), (0, 1), (1, 1), (0, 1), (0, 1), (0, 1), (0, 0)],
         [math.inf, 3, 2, 1, 2, 1, math.inf, math.inf]),
        ("always(p -> not eventually[0,2] not q)", [(1, 1), (0, 1), (0, 1), (0, 0)], [2, 1, math.inf, math.inf]),
    ],
)  # fmt: skip
def test_remaining_of_intervals(text: str, trace: Trace, remaining: list[float]) -> None:
    monitor = Monitor(parse(text, 1.0), 1.0, NAMES)
    for _ in range(2):
        for sample, left in zip(trace, remaining, strict=True):
            assert monitor.update((*sample, 0)) is Verdict3.PENDING
            assert monitor.remaining == left
        monitor.reset()


responses = st.builds(
    lambda op, interval, trigger, goal: Unary("G", 0, None, Binary("->", trigger, Unary(op, *interval, goal))),
    st.sampled_from("FG"), intervals, past, past,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(responses, min_size=1, max_size=2), traces)
def test_responses(parts: list[Formula], trace: Trace) -> None:
    check_against_definition(parts[0] if len(parts) == 1 else Binary("and", *parts), trace)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("always (p -> eventually q)", ["unbounded", "'always'", "interval"]),
        ("once eventually[0,1] p", ["future operator inside 'once'"]),
        ("always s", ["'s'", "['p', 'q']"]),
        ("F[0,900] G[0,900] p", ["1800000 periods", "at most 1000000"]),
    ],
)
def test_what_cannot_be_monitored_is_refused(text: str, words: list[str]) -> None:
    with pytest.raises(GuardrailError) as error:
        Monitor(parse(text, 1000.0), 1000.0, ("p", "q"))
    for word in words:
        assert word in str(error.value)


def test_a_long_window_costs_no_more_memory_as_it_runs() -> None:
    monitor = Monitor(parse("always(p -> eventually[0.1,2] G[0,0.1] q)", 500.0), 500.0, ("p", "q"))
    values = [(1, int(k % 400 < 200)) for k in range(400)]
    for sample in values * 5:
        assert monitor.update(sample) is Verdict3.PENDING
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for sample in values * 10:
        assert monitor.update(sample) is Verdict3.PENDING
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 200_000  # the rings' integers, once
