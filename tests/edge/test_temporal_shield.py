"""The deadline shield with the real guard: adversaries command, frames are lost, and the goals are still in time."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from deadlines import DT, RATE, at, at_rest, campaign, guard_of, shield_of, state
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kizzasi_edge.guardrails.temporal.fallback import Brake
from kizzasi_edge.guardrails.temporal.shield import DeadlineShield
from kizzasi_edge.guardrails.temporal.time_to_go import F64, BrakeTime, Lattice, PoseTime

# ---- no feasible deadline is missed ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("joints", "misses"), [(2, 0), (3, 3), (7, 2)])
def test_brake_is_in_time_whoever_commands(joints: int, misses: int) -> None:
    bound = 30
    guard = guard_of(joints, miss=misses)
    shield, _, fallback = shield_of(guard, bound, misses)
    tally = campaign(
        guard, shield, fallback, at_rest, np.zeros(joints), bound, requests=400, seed=joints, misses=misses
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
    shield, time, fallback = shield_of(guard, bound, misses, aim)
    assert isinstance(time, PoseTime)
    tally = campaign(guard, shield, fallback, at(aim), aim, bound, requests=20, seed=joints, misses=misses)
    assert (tally.late, tally.lattice, tally.altered, tally.infeasible) == (0, 0, 0, 0), tally
    assert time.failures == 0
    assert tally.engagements >= 10


def test_without_the_shield_the_same_adversaries_miss_deadlines() -> None:
    guard = guard_of(3, miss=3)
    assert campaign(guard, None, Brake(), at_rest, np.zeros(3), 30, requests=60, seed=1, misses=3).late > 20
    aim = np.full(3, 0.4)
    assert campaign(guard, None, Brake(), at(aim), aim, 60, requests=20, seed=1, misses=3).late > 10


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
    shield, time, fallback = shield_of(guard, bound, misses, pose)
    assert time.pose is not None
    tally = campaign(guard, shield, fallback, at(time.pose), pose, bound, requests=3, seed=seed, misses=misses)
    assert (tally.late, tally.lattice, tally.altered) == (0, 0, 0), tally


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
    while not shield.update(acted == 0, False, np.zeros(1), full):
        assert shield.pending
        assert shield.remaining_s == pytest.approx((30 - acted) * DT)
        acted += 1
    assert acted == 30 - needed  # not one period early
    for _ in range(3):
        assert shield.update(False, False, *standing(1))  # however soon it would be, it stays
    assert not shield.update(True, True, *standing(1))
    assert not shield.pending
    assert not shield.update(False, False, *standing(1))
    assert shield.remaining_s == math.inf
    assert (shield.requests, shield.engagements, shield.violations) == (1, 1, 0)


def test_the_earliest_request_counts() -> None:
    shield, _, _ = shield_of(guard_of(1), 30, 0)
    for k in range(10):
        shield.update(True, False, *standing(1))
        assert shield.remaining_s == pytest.approx((30 - k) * DT)
    shield.update(False, True, *standing(1))
    shield.update(True, False, *standing(1))
    assert shield.remaining_s == pytest.approx(30 * DT)
    assert shield.requests == 2


def test_an_impossible_request_engages_at_once_and_says_so() -> None:
    guard = guard_of(1)
    shield, _, _ = shield_of(guard, 3, 0, np.array([1.0]))
    assert shield.update(True, False, *standing(1))
    assert shield.infeasible_at_request
    assert not shield.violated
    for left in (2, 1, 0, -1):
        assert shield.update(False, False, *standing(1))
        assert shield.infeasible_at_request
        assert shield.violated == (left <= 0)
        assert shield.remaining_s == pytest.approx(left * DT)
    assert (shield.infeasible, shield.violations, shield.engagements) == (1, 1, 1)
    assert not shield.update(False, True, *standing(1))
    assert not shield.violated
    assert not shield.infeasible_at_request


def test_a_fallback_that_stays_drives_until_the_trigger_ends() -> None:
    guard = guard_of(1)
    full = np.array([guard.lattice[0].w * guard.lattice[0].quantum * RATE])
    for stays in (False, True):
        shield = DeadlineShield(0.3, DT, BrakeTime(guard.lattice, DT), stays=stays)
        while not shield.update(True, False, np.zeros(1), full):
            pass
        for _ in range(3):
            assert shield.update(True, True, *standing(1)) == stays
            assert (shield.pending, shield.remaining_s) == (False, math.inf)
        assert shield.update(True, False, np.zeros(1), full) == stays  # moved: a new request, driven on if it stays
        assert shield.pending
        assert not shield.update(False, True, *standing(1))
        assert shield.engagements == 1


def test_margin_and_miss_budget_engage_earlier() -> None:
    guard = guard_of(1)
    limit = guard.lattice[0]
    full = np.array([limit.w * limit.quantum * RATE])
    counts = []
    for margin, misses in ((0.0, 0), (0.05, 0), (0.0, 3), (0.05, 3)):
        time = BrakeTime(guard.lattice, DT)
        shield = DeadlineShield(0.5, DT, time, margin, misses)
        k = 0
        while not shield.update(True, False, np.zeros(1), full):
            k += 1
        counts.append(k)
    assert counts == [counts[0], counts[0] - 5, counts[0] - 3, counts[0] - 8]


def test_a_state_that_is_not_finite_or_outside_engages_at_once() -> None:
    guard = guard_of(2)
    for pose in (None, np.array([0.1, 0.1])):
        shield, time, _ = shield_of(guard, 500, 0, pose)
        assert not shield.update(True, False, *standing(2))
        assert shield.update(False, False, np.full(2, np.nan), np.full(2, np.nan))
        shield.reset()
        assert not shield.update(True, False, *standing(2))
    assert time.now(np.array([1.6, 0.0]), np.zeros(2)) == math.inf  # recovery is slow: no bound is claimed


def test_ruckig_refusals_are_counted_and_fail_to_the_safe_side(monkeypatch: pytest.MonkeyPatch) -> None:
    guard = guard_of(2)
    shield, time, fallback = shield_of(guard, 500, 0, np.array([0.1, 0.1]))
    assert isinstance(time, PoseTime)
    moving = np.array([1.0, -1.0])
    time._request.max_acceleration = [-1.0, -1.0]  # what ruckig really refuses
    assert shield.update(True, False, np.zeros(2), moving)
    assert time.failures == 1
    h = np.array([limit.h for limit in guard.lattice])
    guard.rebase(np.zeros(2, np.int32), np.array([3, -3], np.int32) * h)
    proposal = fallback.propose(*state(guard))
    assert proposal is not None
    assert np.array_equal(proposal, np.array([2, -2]) * h * guard.quanta)  # it brakes
    assert time.failures == 2


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
