"""From SI units to quanta: exact, inwards, and what is refused says what would do."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.lattice import (
    RAW_MAX,
    JointLimits,
    LatticeLimits,
    default_quantum,
    jerk_quanta,
    to_lattice,
    to_velocity_lattice,
)

ORIGIN = {kind: kind for kind in ("position", "velocity", "acceleration")}
RATE = 4.0
HALF = JointLimits("a", -1.25, 1.75, 2.5, 20.0, ORIGIN, quantum=0.5)
"""In quanta: −2.5 to 3.5, 1.25 a period, 2.5 a period²."""


@pytest.mark.parametrize(
    ("lower", "upper", "exponent"),
    [
        (-1, 1, -24),
        (-1.001, 1, -23),
        (-1, 1.0000001, -23),
        (-0.5, 0.7, -24),
        (-0.3, 0.2, -25),
        (-3, 1, -22),
        (-math.tau, math.tau, -21),
        (0, 2.0**-120, -126),
    ],
)
def test_the_finest_quantum_whose_multiples_are_float32(lower: float, upper: float, exponent: int) -> None:
    assert default_quantum(lower, upper) == 2.0**exponent


FINITE = st.floats(-100, 100, allow_subnormal=False)


@settings(max_examples=200, deadline=None)
@given(
    FINITE, st.floats(1e-3, 100), st.floats(1e-2, 100), st.floats(1e-1, 1000),
    st.sampled_from([10.0, 333.3, 500.0, 1000.0]), st.none() | st.floats(1e-4, 1e-3),
)  # fmt: skip
def test_lattice_rounds_inwards(lower: float, width: float, v: float, a: float, rate: float, q: float | None) -> None:
    limits = JointLimits("j", lower, lower + width, v, a, {}, q)
    try:
        cell = to_lattice(limits, rate)
    except GuardrailError:
        return
    quantum = Fraction(cell.quantum)
    assert Fraction(limits.lower) <= cell.lo * quantum < Fraction(limits.lower) + quantum
    assert Fraction(limits.upper) - quantum < cell.hi * quantum <= Fraction(limits.upper)
    assert cell.w == min(math.floor(Fraction(v) / Fraction(rate) / quantum), RAW_MAX)
    assert cell.h == min(math.floor(Fraction(a) / Fraction(rate) ** 2 / quantum), 2 * cell.w, RAW_MAX)
    assert 0 <= cell.acceleration_lost < 1
    for value in (cell.lo, cell.hi, (cell.lo + cell.hi) // 2):
        assert round(float(np.float32(value * cell.quantum)) / cell.quantum) == value


def test_rounded_inwards() -> None:
    assert to_lattice(HALF, RATE) == LatticeLimits("a", 0.5, -2, 3, 1, 2, 0.2)
    coarse = replace(HALF, lower=-3.0, upper=2.0, velocity=2.0, acceleration=8.0)
    assert to_lattice(coarse, RATE) == LatticeLimits("a", 0.5, -6, 4, 1, 1, 0.0)
    assert to_lattice(replace(HALF, quantum=None), RATE).quantum == 2.0**-23
    assert to_lattice(replace(HALF, lower=0.25, upper=0.75), RATE) == LatticeLimits("a", 0.5, 1, 1, 1, 2, 0.2)


def test_what_never_happens_or_does_not_fit_is_cut() -> None:
    assert to_lattice(replace(HALF, velocity=7.0, acceleration=99.0), RATE).h == 2 * 3  # a change above 2w
    assert to_lattice(replace(HALF, velocity=7.0, acceleration=40.0), RATE).h == 5
    fast = to_lattice(replace(HALF, velocity=1e12, acceleration=1e12), RATE)
    assert (fast.w, fast.h) == (RAW_MAX, RAW_MAX)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lower": 0.6, "upper": 0.9}, "position: joint 'a': no position left in [0.6, 0.9] at 0.5"),
        (
            {"velocity": 1.9},
            "velocity: joint 'a': found 1.9 (after velocity_scale), below one quantum of 0.5 per period; at least 2",
        ),
        (
            {"acceleration": 7.9},
            "acceleration: joint 'a': found 7.9, below one quantum of 0.5 per period² at 4 Hz; at least 8",
        ),
        (
            {"upper": 2.5, "quantum": 3 * 2.0**-25},
            "quantum: joint 'a': found 8.9407e-08; too fine for positions in float32 up to 2.5; at least 2.98024e-07",
        ),
    ],
)
def test_refusals(change: dict[str, float], message: str) -> None:
    limits = replace(HALF, **change)  # type: ignore[arg-type]
    with pytest.raises(GuardrailError, match=f"^{re.escape(f'[joints] {message}')}$"):
        to_lattice(limits, RATE)
    kind, rest = message.split(":", 1)
    origin = {**ORIGIN, kind: "edge"}
    with pytest.raises(GuardrailError, match=re.escape("[constraint] 'edge':" + rest)):
        to_lattice(replace(limits, origin=origin), RATE)


@pytest.mark.parametrize(("quantum", "most"), [(2.0**-20, 1 << 24), (3 * 2.0**-20, 1 << 23)])
def test_as_many_positions_as_a_float32_tells_apart(quantum: float, most: int) -> None:
    for sign in (1, -1):
        lower, upper = sorted((0.0, sign * most * quantum))
        widest = replace(HALF, lower=lower, upper=upper, quantum=quantum)
        cell = to_lattice(widest, RATE)
        assert max(-cell.lo, cell.hi) == most
        one_more = replace(widest, lower=lower * (1 + 1 / most), upper=upper * (1 + 1 / most))
        with pytest.raises(GuardrailError, match="too fine"):
            to_lattice(one_more, RATE)


def found_least(message: str) -> float:
    return float(message.rsplit("at least ", 1)[1])


@settings(max_examples=100, deadline=None)
@given(st.integers(-20, 8).map(lambda k: 2.0**k), st.integers(10, 2000))
def test_the_least_that_is_named_works_and_little_less_does_not(quantum: float, rate: float) -> None:
    limits = JointLimits("a", -8 * quantum, 8 * quantum, 0.0, 0.0, ORIGIN, quantum)
    for key in ("velocity", "acceleration"):
        with pytest.raises(GuardrailError, match=rf"\] {key}") as refused:
            to_lattice(limits, rate)
        least = found_least(str(refused.value))
        with pytest.raises(GuardrailError, match=rf"\] {key}"):
            to_lattice(replace(limits, **{key: least * (1 - 2e-5)}), rate)  # type: ignore[arg-type]
        limits = replace(limits, **{key: least})  # type: ignore[arg-type]
    cell = to_lattice(limits, rate)
    assert (cell.w, cell.h) == (1, 1)
    assert 0 <= cell.acceleration_lost < 2e-5


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 3000), st.sampled_from([3, 7, 10, 50, 100, 1000]))
@example(19, 100)
def test_what_is_named_has_six_digits_and_one_less_is_too_little(thousandths: int, rate: int) -> None:
    quantum = thousandths / 1000
    with pytest.raises(GuardrailError) as refused:
        to_lattice(JointLimits("a", -8 * quantum, 8 * quantum, 0.0, 0.0, ORIGIN, quantum), rate)
    words, needed = str(refused.value).rsplit(" ", 1)[1], Fraction(quantum) * rate
    least = Decimal(words)
    assert len(least.as_tuple().digits) <= 6
    assert Fraction(float(least)) >= needed
    less = least - Decimal(1).scaleb(least.adjusted() - 5)
    assert min(Fraction(less), Fraction(float(less))) < needed  # as it is written, or as it is read


# ---- velocity commands -----------------------------------------------------------------------------------------------

MOVING = JointLimits("a", -1.3, 1.8, 2.7, 9.0, ORIGIN, quantum=0.5)
"""In quanta of 0.5 per second, which make 0.125 in a period: −10.4 to 14.4, 5.4, and 4.5 more a period."""
ENDLESS = replace(MOVING, lower=-math.inf, upper=math.inf)


def test_velocities_rounded_inwards() -> None:
    assert to_velocity_lattice(MOVING, RATE) == LatticeLimits(
        "a", 0.5, -10, 14, 5, 4, float(1 - Fraction(4) / Fraction(4.5))
    )
    assert to_velocity_lattice(ENDLESS, RATE) == replace(to_velocity_lattice(MOVING, RATE), lo=-RAW_MAX, hi=RAW_MAX)
    assert to_velocity_lattice(replace(MOVING, acceleration=99.0), RATE).h == 2 * 5  # a change above 2w
    point = replace(MOVING, lower=0.25, upper=0.3, velocity=0.5, acceleration=2.0)
    assert to_velocity_lattice(point, RATE) == LatticeLimits("a", 0.5, 2, 2, 1, 1, 0.0)


@pytest.mark.parametrize(
    ("velocity", "lower", "upper", "exponent"),
    [
        (2.7, -1.3, 1.8, 2 - 24),  # the finest whose multiples up to 2.7 are float32
        (2.7, -math.inf, math.inf, 2 - 24),
        (2.0**-10, -math.inf, math.inf, -10 - 24),
        (1.0, -1.0, 1.0, 0 - 24),
        (1.0, -1000.0, 10.0, 12 - 29),  # and whose periods count to 4000
        (1.0, -10.0, 1000.0, 12 - 29),
        (1.0, -1024.0, 0.0, 12 - 29),
        (2.0**-120, -(2.0**-130), 2.0**-130, -126),
    ],
)
def test_the_finest_quantum_of_velocity(velocity: float, lower: float, upper: float, exponent: int) -> None:
    limits = JointLimits("a", lower, upper, velocity, velocity * RATE, ORIGIN)
    assert to_velocity_lattice(limits, RATE).quantum == 2.0**exponent


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lower": 0.01, "upper": 0.02}, "position: joint 'a': no position left in [0.01, 0.02]"),
        ({"velocity": 0.4}, "velocity: joint 'a': found 0.4; expected 1 to 2^24 quanta of 0.5"),
        ({"velocity": 2.0**23 + 0.5}, "velocity: joint 'a': found 8.38861e+06; expected 1 to 2^24 quanta of 0.5"),
        (
            {"acceleration": 1.9},
            "acceleration: joint 'a': found 1.9, below one quantum of 0.5 per period at 4 Hz; at least 2",
        ),
        (
            {"upper": 2.0**27},
            "quantum: joint 'a': found 0.5 per second; too fine for this range; at least 0.500001",
        ),
        (
            {"lower": -(2.0**27)},
            "quantum: joint 'a': found 0.5 per second; too fine for this range; at least 0.500001",
        ),
    ],
)
def test_velocity_refusals(change: dict[str, float], message: str) -> None:
    with pytest.raises(GuardrailError, match=f"^{re.escape(f'[joints] {message}')}$"):
        to_velocity_lattice(replace(MOVING, **change), RATE)  # type: ignore[arg-type]


def test_as_far_as_velocities_and_positions_count() -> None:
    fast = to_velocity_lattice(replace(MOVING, velocity=2.0**23, acceleration=1e9), RATE)
    assert (fast.w, fast.h) == (1 << 24, 1 << 25)
    far = replace(MOVING, lower=-(RAW_MAX - 1) * 0.125, upper=(RAW_MAX - 1) * 0.125)
    assert to_velocity_lattice(far, RATE).hi == -to_velocity_lattice(far, RATE).lo == RAW_MAX - 1
    edge = RAW_MAX * 0.125  # that says: no range
    for lower, upper in ((-edge, far.upper), (far.lower, edge)):
        with pytest.raises(GuardrailError, match="too fine for this range"):
            to_velocity_lattice(replace(far, lower=lower, upper=upper), RATE)
    wide = replace(MOVING, upper=2.0**28)
    with pytest.raises(GuardrailError) as refused:
        to_velocity_lattice(wide, RATE)
    least = found_least(str(refused.value))
    assert to_velocity_lattice(replace(wide, quantum=least), RATE).hi < RAW_MAX


# ---- jerk ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("periods", "one"), [(3, 32.0), (2, 8.0)])
def test_jerk_in_quanta(periods: int, one: float) -> None:
    """0.5 per period³ (of positions) is 32 per second³; per period² (of velocities) 8."""

    def quanta(jerk: float) -> int:
        return jerk_quanta(replace(HALF, jerk=jerk), 0.5, RATE, periods)

    assert quanta(math.inf) == 0
    assert [quanta(one), quanta(2.9 * one), quanta(1e18)] == [1, 2, RAW_MAX]
    words = f"found {0.9 * one:g}, below one quantum of 0.5; at least {one:g}"
    with pytest.raises(GuardrailError, match="^" + re.escape(f"[joints] jerk: joint 'a': {words}") + "$"):
        quanta(0.9 * one)
