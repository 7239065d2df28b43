"""How long fallbacks take: the bounds against the real guard, and what they refuse."""

from __future__ import annotations

import builtins
import math
import sys

import numpy as np
import pytest
from deadlines import DT, RATE, at, at_rest, guard_of, proposed, run_fallback, shield_of, state, wander
from hypothesis import given, settings
from hypothesis import strategies as st

from kizzasi_edge.errors import GuardrailError, MissingExtra
from kizzasi_edge.guardrails import Guardrails, Status
from kizzasi_edge.guardrails.temporal.fallback import Brake, GoToPose, require_goal
from kizzasi_edge.guardrails.temporal.shield import DeadlineShield
from kizzasi_edge.guardrails.temporal.time_to_go import BrakeTime, PoseTime

# ---- the bounds themselves -------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 7), st.integers(0, 60), st.integers(0, 2**31))
def test_braking_takes_exactly_the_time_it_is_given(n: int, periods: int, seed: int) -> None:
    guard = guard_of(n)
    promised = BrakeTime(guard.lattice, DT).now(*wander(guard, np.random.default_rng(seed), periods))
    assert run_fallback(guard, Brake(), at_rest, 1000) * DT == pytest.approx(promised, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 7), st.integers(0, 60), st.integers(0, 3), st.integers(0, 2**31))
def test_a_pose_takes_no_longer_and_hardly_less(n: int, periods: int, misses: int, seed: int) -> None:
    guard = guard_of(n, miss=misses)
    rng = np.random.default_rng(seed)
    time = PoseTime(guard.lattice, DT, rng.uniform(-0.85, 1.3, n), misses)
    promised = time.now(*wander(guard, rng, periods))
    fallback = GoToPose(time)
    assert time.pose is not None
    taken = run_fallback(guard, fallback, at(time.pose, 0.0), 2000) * DT
    assert taken <= promised + 1e-9
    # at most 3 periods are added to ruckig's time; a joint that brakes first, at the guard's own limit, may save more
    assert taken >= promised - 4 * DT or fallback._delay.any()
    assert fallback.plans == (taken > 0)


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 3), st.integers(0, 60), st.integers(0, 1), st.integers(0, 2**31), st.booleans())
def test_no_state_takes_longer_than_the_worst(n: int, periods: int, misses: int, seed: int, pose: bool) -> None:
    guard = guard_of(n, miss=misses)
    rng = np.random.default_rng(seed)
    _, time, _ = shield_of(guard, 10, 0, rng.uniform(-0.7, 1.1, n) if pose else None)
    assert time.now(*wander(guard, rng, periods)) <= time.worst
    seen = 0.0
    for direction in (-9.0, 9.0):  # from limit to limit at full speed
        guard.reset(
            [limit.hi * limit.quantum if direction < 0 else limit.lo * limit.quantum for limit in guard.lattice]
        )
        for _ in range(150):
            guard.step(np.full(n, direction))
            seen = max(seen, time.now(*state(guard)))
            assert seen <= time.worst
    if not misses:
        assert seen >= time.worst - 3 * DT


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 60), st.integers(0, 2**31))
def test_coupled_joints_brake_in_the_time_of_the_slowest(periods: int, seed: int) -> None:
    builder = Guardrails.builder(rate_hz=RATE, miss_budget=1, velocity_scale=1.0)
    for i, acceleration in enumerate((12.0, 3.0, 31.0)):
        builder.joint(f"j{i}", position=(-1.5, 1.5), velocity=1.0 + i, acceleration=acceleration)
    builder.constraint("linear", "together", a={"j0": 1.0, "j1": -1.0, "j2": 0.3}, min=-0.9, max=0.9, on="velocity")
    guard = builder.build()
    wander(guard, np.random.default_rng(seed), periods)
    promised = BrakeTime(guard.lattice, DT).now(*state(guard))
    out, taken = np.zeros(3, np.float32), 0
    while guard.motion[1].any():
        guard.drive.brake(out, 0)
        taken += 1
    assert taken * DT == pytest.approx(promised, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(0, 60), st.integers(0, 2**31), st.booleans())
def test_after_bounds_every_command_that_the_guard_admits(n: int, periods: int, seed: int, pose: bool) -> None:
    guard = guard_of(n, miss=1)
    rng = np.random.default_rng(seed)
    _, time, _ = shield_of(guard, 10, 0, rng.uniform(-0.85, 1.2, n) if pose else None)
    bound = time.after(*wander(guard, rng, periods))
    q, step = guard.motion
    worst = 0.0
    for _ in range(12):
        guard.rebase(q, step)
        guard.step(rng.choice([-9.0, 0.0, 9.0], n) + rng.normal(0, 1, n))
        worst = max(worst, time.now(*state(guard)))
    assert worst <= bound + 1e-9


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(0, 40), st.integers(1, 3), st.integers(0, 2**31), st.booleans())
def test_a_missed_period_costs_no_more_than_stated(n: int, periods: int, lost: int, seed: int, pose: bool) -> None:
    guard = guard_of(n, miss=3)
    rng = np.random.default_rng(seed)
    _, time, fallback = shield_of(guard, 10, 0, rng.uniform(-0.7, 1.1, n) if pose else None)
    promised = time.now(*wander(guard, rng, periods))
    goal = at_rest if time.pose is None else at(time.pose, 0.0)
    when = set(rng.choice(np.arange(int(promised * RATE) + 1), lost).tolist())
    out = np.zeros(n, np.float32)
    for k in range(4000):
        if goal(*state(guard)):
            break
        proposal = proposed(guard, fallback)
        if k in when:
            guard.miss(out)
        else:
            assert guard.step(proposal)[1].status == Status.PASS
    assert k * DT <= promised + len(when) * time.missed_period + 1e-9


def test_ruckig_time_is_the_textbook_time() -> None:
    guard = guard_of(1, v=2.0, a=12.0)
    time = PoseTime(guard.lattice, DT, [0.0], 0)
    limit = guard.lattice[0]
    speed, acceleration = (limit.w - 1) * limit.quantum * RATE, (limit.h - 2) * limit.quantum * RATE**2
    far, near = 0.75, 0.125
    trapezoid = far / speed + speed / acceleration
    assert time.now(np.array([far]), np.zeros(1)) == pytest.approx((math.ceil(trapezoid / DT) + 2) * DT, rel=1e-12)
    triangle = 2 * math.sqrt(near / acceleration)
    assert time.now(np.array([-near]), np.zeros(1)) == pytest.approx((math.ceil(triangle / DT) + 2) * DT, rel=1e-12)


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_goals_that_a_fallback_cannot_establish_are_refused() -> None:
    guard = guard_of(2)
    brake = Brake()
    time = PoseTime(guard.lattice, DT, [0.5, 0.5], 0)
    pose = GoToPose(time)
    require_goal(brake, lambda p, v: bool(np.abs(v).max() < 0.01), {"velocity"}, 2)
    require_goal(pose, lambda p, v: bool(np.abs(p - 0.5).max() < 1e-6), {"position"}, 2)
    with pytest.raises(GuardrailError, match="reads distance; expected position and velocity only"):
        require_goal(brake, lambda p, v: True, {"velocity", "distance"}, 2)
    with pytest.raises(GuardrailError, match="Brake comes to rest anywhere"):
        require_goal(brake, lambda p, v: True, {"position"}, 2)
    with pytest.raises(GuardrailError, match=r"GoToPose ends at rest at \[0.5, 0.5\], where the goal does not hold"):
        require_goal(pose, lambda p, v: bool(p[0] > 0.6), {"position"}, 2)
    with pytest.raises(GuardrailError, match="Brake ends at rest, where"):
        require_goal(brake, lambda p, v: bool(v[0] > 0.1), {"velocity"}, 2)


def test_builds_that_make_no_sense_are_refused() -> None:
    guard = guard_of(2, miss=3)
    time = BrakeTime(guard.lattice, DT)
    for bound, dt, margin, misses in (
        (DT / 2, DT, 0.0, 0), (math.nan, DT, 0.0, 0), (math.inf, DT, 0.0, 0), (1.0, 0.0, 0.0, 0), (0.0, 0.0, 0.0, 0),
        (1.0, DT, -0.1, 0), (1.0, DT, math.nan, 0), (1.0, DT, 0.0, -1),
    ):  # fmt: skip
        with pytest.raises(GuardrailError, match="expected"):
            DeadlineShield(bound, dt, time, margin, misses)
    DeadlineShield(DT, DT, time)
    with pytest.raises(GuardrailError, match=r"joint 'j1': found 1.49; expected within \[-1.1\d+, 1.4\d+\]: 4 periods"):
        PoseTime(guard.lattice, DT, [0.0, 1.49], 3)
    for bad in ([0.0], [0.0, math.nan], [[0.0, 0.0]]):
        with pytest.raises(GuardrailError, match="expected 2 finite numbers"):
            PoseTime(guard.lattice, DT, bad, 3)
    with pytest.raises(GuardrailError, match="period dt"):
        BrakeTime(guard.lattice, -1.0)
    slow = guard_of(1, a=0.0025)
    with pytest.raises(GuardrailError, match=r"needs w > 1 and h > 2"):
        PoseTime(slow.lattice, DT, [0.0], 0)


def test_without_ruckig_only_the_pose_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def blocked(name: str, *args: object, **kwargs: object) -> object:
        if name == "ruckig":
            raise ImportError(name)
        return real(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.delitem(sys.modules, "ruckig", raising=False)
    monkeypatch.setattr(builtins, "__import__", blocked)
    guard = guard_of(1)
    shield_of(guard, 30, 0)
    with pytest.raises(MissingExtra, match=r"kizzasi-edge\[temporal\]"):
        shield_of(guard, 30, 0, np.zeros(1))
