"""Rules that couple joints, through the public guard, judged in exact rational arithmetic."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails import Builder, Guardrails, Status

RATE = 500.0


def arm(n: int, *, miss: int = 3) -> Builder:
    builder = Guardrails.builder(rate_hz=RATE, miss_budget=miss, velocity_scale=1.0)
    for i in range(n):
        builder.joint(f"j{i}", position=(-2, 2), velocity=2, acceleration=12)
    return builder


def positions(guard: Guardrails) -> list[Fraction]:
    return [Fraction(int(q)) * Fraction(float(u)) for q, u in zip(guard.motion[0], guard.quanta, strict=True)]


def speeds(guard: Guardrails) -> list[Fraction]:
    steps = zip(guard.motion[1], guard.quanta, strict=True)
    return [Fraction(int(v)) * Fraction(float(u)) * Fraction(RATE) for v, u in steps]


def keeps_rules(guard: Guardrails) -> bool:
    """Every rule on positions and velocities, with the coefficients exactly as declared."""
    for rule in (*guard.rows, *guard.quadratics):
        z = positions(guard) if rule.on == "position" else speeds(guard)
        if rule in guard.rows:
            if sum(Fraction(float(a)) * x for a, x in zip(rule.a, z, strict=True)) > Fraction(float(rule.b)):
                return False
        else:
            linear = sum(Fraction(float(c)) * x for c, x in zip(rule.c, z, strict=True))
            bent = sum(
                Fraction(float(rule.q[i, j])) * x * y for i, x in enumerate(z) for j, y in enumerate(z) if rule.q[i, j]
            )
            if linear + bent > Fraction(float(rule.r)):
                return False
    return True


def coupled() -> Guardrails:
    builder = arm(4)
    builder.constraint("linear", "wrist", a={"j0": 1.0, "j1": -1.0}, max=0.8)
    builder.constraint("linear", "pair", a={"j2": 1.0, "j3": 1.0}, max=1.5, on="velocity")
    builder.constraint("quadratic", "disc", diagonal={"j2": 1.0, "j3": 0.5}, max=1.0)
    return builder.build()


WANT = st.lists(st.floats(-3, 3, width=32) | st.sampled_from([np.nan, np.inf]), min_size=4, max_size=4)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(WANT, st.integers(1, 60), st.integers(0, 3)), min_size=1, max_size=8))
def test_every_sent_value_keeps_every_rule(script: list[tuple[list[float], int, int]]) -> None:
    guard = coupled()
    guard.reset(np.zeros(4))
    out = np.zeros(4, np.float32)
    for want, times, missed in script:
        for _ in range(times):
            guard.step_into(np.array(want, np.float32), out)
            assert keeps_rules(guard)
        for _ in range(missed):
            guard.miss(out)
            assert keeps_rules(guard)


def test_limits_are_reached_and_named() -> None:
    guard = coupled()
    guard.reset(np.zeros(4))
    out = np.zeros(4, np.float32)
    seen: Counter[str] = Counter()
    for _ in range(3000):
        verdict = guard.step_into(np.array([1.5, -1.5, 1.5, 1.5], np.float32), out)
        seen.update(verdict.rules)
    assert 0.8 - 1e-5 < out[0] - out[1] <= 0.8
    assert 1 - 1e-4 < out[2] ** 2 + 0.5 * out[3] ** 2 <= 1
    assert seen["wrist"] > 1000
    assert seen["disc"] > 1000
    assert seen["pair"] > 10
    assert verdict.status is Status.PROJECTED
    assert guard.motion[1].tolist() == [0] * 4  # and stays there


def test_the_edge_of_a_row_itself_is_admissible() -> None:
    guard = arm(2, miss=0).constraint("linear", "wrist", a={"j0": 1.0, "j1": -1.0}, max=0.75).build()
    quantum = guard.quanta[0]
    guard.reset([0.5 - quantum, -0.25])
    for want in ([0.5, -0.25], [0.5, -0.25 + quantum], [0.5 - quantum, -0.25]):  # on it, along it, on it again
        sent, verdict = guard.step(want)
        assert verdict.status is Status.PASS
        assert verdict.rules == ()
        assert sent.tolist() == want
    assert guard.step([0.5, -0.25 - quantum])[1].status is not Status.PASS  # one quantum beyond
    assert keeps_rules(guard)


def test_slides_along_a_rule_towards_the_nearest_point() -> None:
    """Slowly: while it slides, each joint keeps the room that it would need to stop alone."""
    guard = arm(2, miss=0).constraint("linear", "wrist", a={"j0": 1.0, "j1": -1.0}, max=0.8).build()
    guard.reset([0.39, -0.39])
    nearest = np.array([0.5, -0.3])  # of (0.7, -0.5), on j0 - j1 = 0.8
    far = []
    for _ in range(8000):
        sent, _ = guard.step([0.7, -0.5])
        far.append(float(np.linalg.norm(sent - nearest)))
    assert sent[0] - sent[1] == pytest.approx(0.8, abs=1e-5)
    assert (np.diff(far[500:]) <= 1e-6).all()
    assert far[-1] < 0.75 * far[500]


@settings(max_examples=30, deadline=None)
@given(st.floats(0.2, 1.0), st.floats(0.1, 0.6), st.floats(0, 0.3))
def test_admissible_motion_passes_unchanged(hertz: float, size: float, phase: float) -> None:
    guard = coupled()
    guard.reset(np.zeros(4))
    amplitude = min(0.2, size, 0.7 / (2 * np.pi * hertz), 3 / (2 * np.pi * hertz) ** 2)
    for k in range(800):
        t = min(1.0, k / 500)
        ramp = t**3 * (10 - 15 * t + 6 * t * t)
        angle = 2 * np.pi * hertz * k / RATE
        want = ramp * amplitude * np.sin(angle + phase * np.arange(4))
        sent, verdict = guard.step(want)
        assert verdict.status is Status.PASS, verdict
        assert np.abs(sent - want.astype(np.float32)).max() <= guard.quanta.max() / 2


def test_soft_rules_yield_to_hard_ones_in_order_of_priority() -> None:
    builder = arm(2, miss=0)
    builder.constraint("linear", "hard", a={"j0": 1.0}, max=0.5)
    builder.constraint("linear", "minor", a={"j0": -1.0}, max=-0.9, hard=False, priority=5)
    guard = builder.build()
    guard.reset([0.4, 0.0])
    given_up: Counter[str] = Counter()
    for _ in range(1000):
        sent, verdict = guard.step([0.45, 0.0])
        given_up.update(verdict.given_up)
        assert sent[0] <= 0.5
    assert given_up["minor"] > 500


def test_start_outside_a_rule_may_only_come_back() -> None:
    guard = arm(2).constraint("linear", "wrist", a={"j0": 1.0, "j1": -1.0}, max=0.8).build()
    guard.reset([0.8, -0.4])
    worst = positions(guard)[0] - positions(guard)[1]
    limit = guard.lattice[0]
    for _ in range(200):
        guard.step([2.0, -2.0])
        now = positions(guard)[0] - positions(guard)[1]
        assert now <= worst
    for _ in range(3000):
        _, verdict = guard.step([0.0, 0.0])
        now = positions(guard)[0] - positions(guard)[1]
        if worst > Fraction(8, 10):
            assert now <= worst
            assert np.abs(guard.motion[1]).max() <= max(limit.w // 8, 1)
            assert "recovery" in verdict.rules
        worst = now
    assert worst < Fraction(8, 10)


def test_brakes_together_where_speeds_are_coupled() -> None:
    guard = coupled()
    guard.reset(np.zeros(4))
    for _ in range(200):
        guard.step([0, 0, 1.5, -1.5])
    guard.estop()
    while (before := guard.motion[1].copy()).any():
        guard.step([0, 0, 1.5, -1.5])
        after = guard.motion[1]
        assert keeps_rules(guard)
        assert (np.abs(after) <= np.abs(before)).all()
        if abs(int(before[2])) > 5000:  # in proportion, but for rounding
            assert after[2] / before[2] == pytest.approx(after[3] / before[3], abs=1e-3)


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        ({"kind": "linear", "a": {"j9": 1.0}, "max": 1.0}, "j9"),
        ({"kind": "linear", "a": {"j0": 1.0}, "max": -0.1, "on": "velocity"}, "stand still"),
        ({"kind": "linear", "a": {"j0": 1.0}, "max": 1e-4, "on": "velocity"}, "at least"),
        ({"kind": "linear", "a": {"j0": 1.0}, "max": 5.0, "on": "acceleration"}, "braking"),
        ({"kind": "linear", "a": {"j0": 1.0, "j1": 1.0}, "max": -9.0}, "rule"),
        ({"kind": "quadratic", "diagonal": {"j0": -1.0}, "max": 1.0}, "eigenvalue"),
    ],
)
def test_refused_before_anything_moves(constraint: dict[str, object], message: str) -> None:
    keys = dict(constraint)
    with pytest.raises(GuardrailError, match=r"rule") as caught:
        arm(2).constraint(str(keys.pop("kind")), "rule", None, **keys).build()
    assert message in str(caught.value)


def test_too_many_rows_are_refused() -> None:
    builder = arm(2)
    for i in range(65):
        builder.constraint("linear", f"row{i}", a={"j0": 1.0, "j1": 0.01 * (i + 1)}, max=1.5)
    with pytest.raises(GuardrailError, match="64 rows, found 65"):
        builder.build()


def test_explained(tmp_path: Path) -> None:
    text = coupled().explain()
    assert "wrist: +1·j0 -1·j1 ≤ 0.8 on positions, hard" in text
    assert "pair" in text
    assert "brakes each at its own limit" in text
