"""From SI units to quanta: exact, inwards, and what is refused says what would do."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.lattice import RAW_MAX, JointLimits, LatticeLimits, default_quantum, to_lattice

ORIGIN = {kind: kind for kind in ("position", "velocity", "acceleration")}
RATE = 4.0
HALF = JointLimits("a", -1.25, 1.75, 2.5, 20.0, ORIGIN, quantum=0.5)
"""In quanta: −2.5 to 3.5, 1.25 a period, 2.5 a period²."""


@pytest.mark.parametrize(
    ("lower", "upper", "exponent"),
    [(-1, 1, -24), (-1.001, 1, -23), (-0.5, 0.7, -24), (-3, 1, -22), (0, 2.0**-120, -126)],
)
def test_the_finest_quantum_whose_multiples_are_float32(lower: float, upper: float, exponent: int) -> None:
    assert default_quantum(lower, upper) == 2.0**exponent


def test_rounded_inwards() -> None:
    assert to_lattice(HALF, RATE) == LatticeLimits("a", 0.5, -2, 3, 1, 2, 0.2)
    coarse = replace(HALF, lower=-3.0, upper=2.0, velocity=2.0, acceleration=8.0)
    assert to_lattice(coarse, RATE) == LatticeLimits("a", 0.5, -6, 4, 1, 1, 0.0)
    assert to_lattice(replace(HALF, quantum=None), RATE).quantum == 2.0**-23


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
