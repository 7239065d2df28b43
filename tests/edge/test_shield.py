"""The deadline shield with the real guard: adversaries command, frames are lost, and the goals are still in time."""

from __future__ import annotations

import builtins
import math
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kizzasi_edge.errors import GuardrailError, MissingExtra
from kizzasi_edge.guardrails import Guardrails, Status
from kizzasi_edge.guardrails.temporal.fallback import Brake, Fallback, GoToPose, Hold, require_goal
from kizzasi_edge.guardrails.temporal.shield import DeadlineShield
from kizzasi_edge.guardrails.temporal.time_to_go import F64, BrakeTime, Lattice, PoseTime, TimeToGo

Goal = Callable[[F64, F64], bool]
RATE = 100.0
DT = 1 / RATE


def guard_of(n: int, *, v: float = 2.0, a: float = 12.0, miss: int = 0, rate: float = RATE) -> Guardrails:
    """Joints that differ: range, speed and acceleration."""
    builder = Guardrails.builder(rate_hz=rate, miss_budget=miss, velocity_scale=1.0)
    for i in range(n):
        builder.joint(
            f"j{i}", position=(-1.0 - 0.2 * i, 1.5), velocity=v * (1 + 0.1 * i), acceleration=a * (1 - 0.1 * i)
        )
    guard = builder.build()
    guard.reset(np.zeros(n))
    return guard


# ---- adversaries: each proposes the next position, knowing everything ------------------------------------------------

ADVERSARIES = ("random", "away", "bang", "nan", "pass", "crawl")


def adversary(kind: str, rng: np.random.Generator, guard: Guardrails, q: F64, step: F64, aim: F64) -> F64:
    lattice = Lattice(guard.lattice, 1 / guard.rate_hz)
    quantum = lattice.quantum
    if kind == "random":
        return rng.uniform(lattice.lo * quantum * 1.5, lattice.hi * quantum * 1.5)
    if kind == "away":  # the limit that is farther from the goal
        return np.where(aim * 2 > (lattice.hi + lattice.lo) * quantum, lattice.lo, lattice.hi) * quantum
    if kind == "bang":  # full speed, either way, with switches
        return (q + rng.choice([-2.0, 2.0], q.shape) * lattice.w) * quantum
    if kind == "nan":  # every other period, so that the guard does not latch
        bang = (q + rng.choice([-2.0, 2.0], q.shape) * lattice.w) * quantum
        return np.where(rng.random() < 0.5, rng.choice([np.nan, np.inf]), bang)
    if kind == "pass":  # through the goal at full speed, never at rest in it
        return (q + np.where(step == 0, np.sign(aim / quantum - q + 0.5), np.sign(step)) * lattice.w) * quantum
    return (q + np.sign(step + 0.5)) * quantum  # crawl: one quantum a period, so never at rest


@dataclass
class Tally:
    requests: int = 0
    infeasible: int = 0
    late: int = 0
    lattice: int = 0
    altered: int = 0
    periods: int = 0
    engaged: int = 0
    engagements: int = 0
    slack: list[float] = field(default_factory=list)


def campaign(
    guard: Guardrails, shield: DeadlineShield | None, goal: Goal, aim: F64, bound: int, *,
    requests: int, seed: int, misses: int = 0, skips: bool = False,
) -> Tally:  # fmt: skip
    """So many requests, each waited for until its goal or well past its deadline. Deadlines, limits and passing of the
    fallback's proposals are judged here, from the applied integers, not by what the shield says of itself."""
    rng = np.random.default_rng(seed)
    lattice = Lattice(guard.lattice, 1 / guard.rate_hz)
    quantum, rate = lattice.quantum, guard.rate_hz
    tally, out = Tally(), np.zeros(len(quantum), np.float32)
    kind, idle, waited, feasible, late, budget, burst, elapsed = "bang", 0, -1, True, False, misses, 0, 1
    q, step = (np.asarray(x, np.float64) for x in guard.motion)
    while tally.requests < requests or waited >= 0:
        position, velocity = q * quantum, step * (quantum * rate)
        holds = goal(position, velocity)
        trigger = tally.requests < requests and idle >= 3 and (waited >= 0 or rng.random() < 0.3)
        decision = None if shield is None else shield.update(trigger, holds, position, velocity, elapsed)
        idle = idle + 1 if waited < 0 else 0
        elapsed = 1
        if holds:
            if waited > bound and not late:
                tally.late += feasible
            waited, kind = -1, "bang"  # away from the goal, or there would never be another request
        elif waited >= 0 or trigger:
            if waited < 0:
                tally.requests += 1
                kind = str(rng.choice(ADVERSARIES))
                waited, late = 0, False
                feasible = decision is None or not decision.infeasible_at_request
                tally.infeasible += not feasible
            if waited >= bound and not late:
                tally.late, late = tally.late + feasible, True
            if waited > bound + 20 and shield is None:
                waited = -1
        engaged = decision is not None and decision.engaged
        if not engaged:
            budget = misses
        # Losses: bursts at will while the model commands, at most the budget from there to the goal.
        if burst == 0 and misses and rng.random() < 0.15:
            burst = int(rng.integers(1, misses + 1))
        lost = burst > 0 and (not engaged or budget > 0)
        burst = max(burst - 1, 0)
        budget -= lost and engaged
        command = adversary(kind, rng, guard, q, step, aim)
        if decision is not None and decision.proposal is not None:
            command = decision.proposal.copy()
            tally.engaged += 1
        tally.periods += 1
        before, v = q, step
        if lost:
            guard.miss(out)
        else:
            _, verdict = guard.step(command)
            q_sent = np.asarray(guard.motion[0], np.float64)
            if engaged:
                tally.altered += verdict.status != Status.PASS or not np.array_equal(q_sent * quantum, command)
        waited += waited >= 0
        q, step = (np.asarray(x, np.float64) for x in guard.motion)
        tally.lattice += int(
            (q < lattice.lo).any() or (q > lattice.hi).any() or (np.abs(q - before) > lattice.w).any()
            or (np.abs(q - before - v) > lattice.h).any() or (step != q - before).any()
        )  # fmt: skip
        if skips and not engaged and budget > 0 and rng.random() < 0.05:  # a period that the loop slept through
            guard.miss(out)
            q, step = (np.asarray(x, np.float64) for x in guard.motion)
            budget, elapsed = budget - 1, 2
            waited += waited >= 0
    if shield is not None:
        tally.engagements = shield.engagements
    return tally


def at_rest(position: F64, velocity: F64) -> bool:
    return not velocity.any()


def at(pose: F64, tolerance: float = 1e-3) -> Goal:
    return lambda position, velocity: bool(np.abs(position - pose).max() <= tolerance and not velocity.any())


def shield_of(
    guard: Guardrails, bound: int, misses: int, pose: F64 | None = None
) -> tuple[DeadlineShield, TimeToGo, Fallback]:
    dt = 1 / guard.rate_hz
    time: TimeToGo
    fallback: Fallback
    if pose is None:
        time, fallback = BrakeTime(guard.lattice, dt), Brake(guard.lattice, dt)
    else:
        time = PoseTime(guard.lattice, dt, pose, guard.miss_budget)
        fallback = GoToPose(time)
    return DeadlineShield(bound * dt, dt, time, fallback, 0.0, misses), time, fallback


# ---- no feasible deadline is missed ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("joints", "misses"), [(2, 0), (3, 3), (7, 2)])
def test_brake_is_in_time_whoever_commands(joints: int, misses: int) -> None:
    bound = 30
    guard = guard_of(joints, miss=misses)
    shield, _, _ = shield_of(guard, bound, misses)
    tally = campaign(
        guard, shield, at_rest, np.zeros(joints), bound, requests=400, seed=joints, misses=misses, skips=True
    )
    assert (tally.late, tally.lattice, tally.altered, tally.infeasible) == (0, 0, 0, 0), tally
    assert shield.violations == 0
    assert shield.requests == tally.requests
    assert tally.engagements > 100
    assert tally.engaged < 0.95 * tally.periods


@pytest.mark.parametrize(("joints", "misses"), [(2, 0), (3, 3), (7, 2)])
def test_pose_is_reached_in_time_whoever_commands(joints: int, misses: int) -> None:
    bound = 400
    guard = guard_of(joints, miss=misses)
    aim = np.linspace(-0.5, 0.7, joints)
    shield, time, _ = shield_of(guard, bound, misses, aim)
    assert isinstance(time, PoseTime)
    tally = campaign(guard, shield, at(aim), aim, bound, requests=20, seed=joints, misses=misses, skips=True)
    assert (tally.late, tally.lattice, tally.altered, tally.infeasible) == (0, 0, 0, 0), tally
    assert time.failures == 0
    assert tally.engagements >= 10


def test_without_the_shield_the_same_adversaries_miss_deadlines() -> None:
    guard = guard_of(3, miss=3)
    assert campaign(guard, None, at_rest, np.zeros(3), 30, requests=60, seed=1, misses=3).late > 20
    aim = np.full(3, 0.4)
    assert campaign(guard, None, at(aim), aim, 60, requests=20, seed=1, misses=3).late > 10


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 4), st.floats(0.3, 4), st.floats(2, 40), st.sampled_from([50.0, 100.0, 400.0]), st.integers(0, 3),
    st.integers(0, 2**31), st.data(),
)  # fmt: skip
def test_any_limits_any_pose_any_deadline(
    n: int, v: float, a: float, rate: float, misses: int, seed: int, data: st.DataObject
) -> None:
    guard = guard_of(n, v=v, a=a, miss=misses, rate=rate)
    pose = np.array([data.draw(st.floats(-0.9, 1.4)) for _ in range(n)])
    bound = data.draw(st.integers(5, 400))
    lattice = Lattice(guard.lattice, 1 / rate)
    room = (1 + misses) * (lattice.w + 2) * lattice.quantum
    assume((room < 0.8).all())
    pose = np.clip(pose, lattice.lo * lattice.quantum + room, lattice.hi * lattice.quantum - room)
    shield, time, _ = shield_of(guard, bound, misses, pose)
    assert time.pose is not None
    tally = campaign(guard, shield, at(time.pose), pose, bound, requests=3, seed=seed, misses=misses, skips=True)
    assert (tally.late, tally.lattice, tally.altered) == (0, 0, 0), tally


# ---- the bounds themselves -------------------------------------------------------------------------------------------


def wander(guard: Guardrails, rng: np.random.Generator, periods: int) -> tuple[F64, F64]:
    """A state that the guard really gets into."""
    n = len(guard.joints)
    guard.reset(rng.uniform(-0.9, 1.4, n))
    direction = rng.choice([-3.0, 3.0], n)
    for _ in range(periods):
        direction = np.where(rng.random(n) < 0.05, -direction, direction)
        guard.step(direction)
    q, step = guard.motion
    return q * guard.quanta, step * (guard.quanta * guard.rate_hz)


def run_fallback(guard: Guardrails, fallback: Fallback, goal: Goal, limit: int) -> int:
    """Periods until the goal, every proposal passing as it is."""
    fallback.start()
    for k in range(limit):
        q, step = guard.motion
        position, velocity = q * guard.quanta, step * (guard.quanta * guard.rate_hz)
        if goal(position, velocity):
            return k
        _, verdict = guard.step(fallback.propose(position, velocity))
        assert verdict.status == Status.PASS
        assert verdict.intervention < 1e-12
    return limit


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 7), st.integers(0, 60), st.integers(0, 2**31))
def test_braking_takes_exactly_the_time_it_is_given(n: int, periods: int, seed: int) -> None:
    guard = guard_of(n)
    state = wander(guard, np.random.default_rng(seed), periods)
    promised = BrakeTime(guard.lattice, DT).now(*state)
    assert run_fallback(guard, Brake(guard.lattice, DT), at_rest, 1000) * DT == pytest.approx(promised, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 7), st.integers(0, 60), st.integers(0, 3), st.integers(0, 2**31))
def test_a_pose_takes_no_longer_and_hardly_less(n: int, periods: int, misses: int, seed: int) -> None:
    guard = guard_of(n, miss=misses)
    rng = np.random.default_rng(seed)
    time = PoseTime(guard.lattice, DT, rng.uniform(-0.85, 1.3, n), misses)
    state = wander(guard, rng, periods)
    promised = time.now(*state)
    fallback = GoToPose(time)
    assert time.pose is not None
    taken = run_fallback(guard, fallback, at(time.pose, 0.0), 2000) * DT
    assert taken <= promised + 1e-9
    # at most 3 periods are added to ruckig's time; a joint that brakes first, at the guard's own limit, may save more
    assert taken >= promised - 4 * DT or fallback._delay.any()
    assert fallback.plans == (taken > 0)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(0, 60), st.integers(0, 2**31), st.booleans())
def test_after_bounds_every_command_that_the_guard_admits(n: int, periods: int, seed: int, pose: bool) -> None:
    guard = guard_of(n, miss=1)
    rng = np.random.default_rng(seed)
    _, time, _ = shield_of(guard, 10, 0, rng.uniform(-0.85, 1.2, n) if pose else None)
    state = wander(guard, rng, periods)
    bound = time.after(*state)
    q, step = guard.motion
    worst = 0.0
    for _ in range(12):
        guard.rebase(q, step)
        guard.step(rng.choice([-9.0, 0.0, 9.0], n) + rng.normal(0, 1, n))
        q2, step2 = guard.motion
        worst = max(worst, time.now(q2 * guard.quanta, step2 * (guard.quanta * guard.rate_hz)))
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
    fallback.start()
    for k in range(4000):
        q, step = guard.motion
        position, velocity = q * guard.quanta, step * (guard.quanta * guard.rate_hz)
        if goal(position, velocity):
            break
        proposal = fallback.propose(position, velocity)
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


# ---- the shield's own behaviour --------------------------------------------------------------------------------------


def standing(n: int) -> tuple[F64, F64]:
    return np.zeros(n), np.zeros(n)


def test_engages_at_the_last_period_and_stays_until_the_goal() -> None:
    guard = guard_of(1)
    limit = guard.lattice[0]
    shield, time, _ = shield_of(guard, 30, 0)
    full = np.array([limit.w * limit.quantum * RATE])
    needed = round(time.now(np.zeros(1), full) / DT)
    acted = 0
    while not (decision := shield.update(acted == 0, False, np.zeros(1), full)).engaged:
        assert decision.pending
        assert decision.remaining_s == pytest.approx((30 - acted) * DT)
        acted += 1
    assert acted == 30 - needed  # not one period early
    for _ in range(3):
        assert shield.update(False, False, *standing(1)).engaged  # however soon it would be, it stays
    assert not shield.update(True, True, *standing(1)).pending
    assert shield.update(False, False, *standing(1)).remaining_s == math.inf
    assert (shield.requests, shield.engagements, shield.violations) == (1, 1, 0)


def test_the_earliest_request_counts() -> None:
    shield, _, _ = shield_of(guard_of(1), 30, 0)
    for k in range(10):
        assert shield.update(True, False, *standing(1)).remaining_s == pytest.approx((30 - k) * DT)
    shield.update(False, True, *standing(1))
    assert shield.update(True, False, *standing(1)).remaining_s == pytest.approx(30 * DT)
    assert shield.requests == 2


def test_an_impossible_request_engages_at_once_and_says_so() -> None:
    guard = guard_of(1)
    shield, _, _ = shield_of(guard, 3, 0, np.array([1.0]))
    decision = shield.update(True, False, *standing(1))
    assert decision.engaged
    assert decision.infeasible_at_request
    assert not decision.violated
    for left in (2, 1, 0, -1):
        decision = shield.update(False, False, *standing(1))
        assert decision.engaged
        assert decision.infeasible_at_request
        assert decision.violated == (left <= 0)
        assert decision.remaining_s == pytest.approx(left * DT)
    assert (shield.infeasible, shield.violations, shield.engagements) == (1, 1, 1)
    decision = shield.update(False, True, *standing(1))
    assert not (decision.engaged)
    assert not (decision.violated)
    assert not (decision.infeasible_at_request)


def test_a_goal_after_skipped_periods_may_be_late() -> None:
    shield, _, _ = shield_of(guard_of(1), 5, 0)
    shield.update(True, False, *standing(1))
    shield.update(False, True, *standing(1), periods=5)
    assert shield.violations == 0
    shield.update(True, False, *standing(1))
    shield.update(False, True, *standing(1), periods=6)
    assert shield.violations == 1


def test_margin_and_miss_budget_engage_earlier() -> None:
    guard = guard_of(1)
    limit = guard.lattice[0]
    full = np.array([limit.w * limit.quantum * RATE])
    counts = []
    for margin, misses in ((0.0, 0), (0.05, 0), (0.0, 3), (0.05, 3)):
        time = BrakeTime(guard.lattice, DT)
        shield = DeadlineShield(0.5, DT, time, Brake(guard.lattice, DT), margin, misses)
        k = 0
        while not shield.update(True, False, np.zeros(1), full).engaged:
            k += 1
        counts.append(k)
    assert counts == [counts[0], counts[0] - 5, counts[0] - 3, counts[0] - 8]


def test_a_state_that_is_not_finite_or_outside_engages_at_once() -> None:
    guard = guard_of(2)
    for pose in (None, np.array([0.1, 0.1])):
        shield, time, _ = shield_of(guard, 500, 0, pose)
        assert not shield.update(True, False, *standing(2)).engaged
        assert shield.update(False, False, np.full(2, np.nan), np.full(2, np.nan)).engaged
        shield.reset()
        assert not shield.update(True, False, *standing(2)).engaged
    assert time.now(np.array([1.6, 0.0]), np.zeros(2)) == math.inf  # recovery is slow: no bound is claimed


def test_ruckig_refusals_are_counted_and_fail_to_the_safe_side(monkeypatch: pytest.MonkeyPatch) -> None:
    guard = guard_of(2)
    shield, time, fallback = shield_of(guard, 500, 0, np.array([0.1, 0.1]))
    assert isinstance(time, PoseTime)
    moving = np.array([1.0, -1.0])
    time._request.max_acceleration = [-1.0, -1.0]  # what ruckig really refuses
    assert shield.update(True, False, np.zeros(2), moving).engaged
    assert time.failures >= 2
    lattice = Lattice(guard.lattice, DT)
    expected = np.rint(moving * DT / lattice.quantum)
    proposal = fallback.propose(np.zeros(2), moving)
    assert np.array_equal(proposal, np.sign(moving) * (abs(expected) - lattice.h) * lattice.quantum)  # it brakes


def test_hold_brakes_and_then_asks_back_to_its_place() -> None:
    guard = guard_of(2)
    wander(guard, np.random.default_rng(3), 20)
    hold = Hold(guard.lattice, DT)
    assert run_fallback(guard, hold, at_rest, 100) > 5
    q, _ = guard.motion
    place = hold.propose(q * guard.quanta, np.zeros(2)).copy()
    assert np.array_equal(place, q * guard.quanta)
    moved = (q + 1000) * guard.quanta
    assert np.array_equal(hold.propose(moved, np.zeros(2)), place)
    hold.start()
    assert np.array_equal(hold.propose(moved, np.zeros(2)), moved)


def test_an_update_keeps_no_memory() -> None:
    guard = guard_of(7)
    shield, _, _ = shield_of(guard, 100000, 0, np.full(7, 0.2))
    state = standing(7)
    for _ in range(50):
        shield.update(True, False, *state)
    tracemalloc.start()
    try:
        for _ in range(20):
            shield.update(True, False, *state)
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(1000):
            shield.update(True, False, *state)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 500


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_goals_that_a_fallback_cannot_establish_are_refused() -> None:
    guard = guard_of(2)
    brake = Brake(guard.lattice, DT)
    time = PoseTime(guard.lattice, DT, [0.5, 0.5], 0)
    pose = GoToPose(time)
    require_goal(brake, lambda p, v: bool(np.abs(v).max() < 0.01), {"velocity"}, 2)
    require_goal(pose, lambda p, v: bool(np.abs(p - 0.5).max() < 1e-6), {"position"}, 2)
    with pytest.raises(GuardrailError, match="reads distance, which no command of this guard determines"):
        require_goal(brake, lambda p, v: True, {"velocity", "distance"}, 2)
    with pytest.raises(GuardrailError, match="Brake comes to rest anywhere"):
        require_goal(brake, lambda p, v: True, {"position"}, 2)
    with pytest.raises(GuardrailError, match=r"GoToPose ends at rest at \[0.5, 0.5\], where the goal does not hold"):
        require_goal(pose, lambda p, v: bool(p[0] > 0.6), {"position"}, 2)
    with pytest.raises(GuardrailError, match="Hold ends at rest, where"):
        require_goal(Hold(guard.lattice, DT), lambda p, v: bool(v[0] > 0.1), {"velocity"}, 2)


def test_builds_that_make_no_sense_are_refused() -> None:
    guard = guard_of(2, miss=3)
    time, brake = BrakeTime(guard.lattice, DT), Brake(guard.lattice, DT)
    pose = PoseTime(guard.lattice, DT, [0.5, 0.5], 3)
    with pytest.raises(GuardrailError, match="PoseTime does not say when fallback Brake arrives"):
        DeadlineShield(1.0, DT, pose, brake)
    for bound, dt, margin, misses in (
        (DT / 2, DT, 0.0, 0), (math.nan, DT, 0.0, 0), (math.inf, DT, 0.0, 0), (1.0, 0.0, 0.0, 0), (0.0, 0.0, 0.0, 0),
        (1.0, DT, -0.1, 0), (1.0, DT, math.nan, 0), (1.0, DT, 0.0, -1),
    ):  # fmt: skip
        with pytest.raises(GuardrailError, match="expected"):
            DeadlineShield(bound, dt, time, brake, margin, misses)
    DeadlineShield(DT, DT, time, brake)
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
