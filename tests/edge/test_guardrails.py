"""The guard as Python sees it, against an oracle that knows nothing of its formulas: it simulates the braking."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kizzasi_edge.errors import GuardrailError, InputError
from kizzasi_edge.guardrails import Guardrails, State, Status
from kizzasi_edge.guardrails.lattice import LatticeLimits

RATE = 500.0


def guard_of(
    n: int = 1, *, lo: float = -1.0, hi: float = 1.0, v: float = 2.0, a: float = 12.0, miss: int = 0, rate: float = RATE
) -> Guardrails:
    builder = Guardrails.builder(rate_hz=rate, miss_budget=miss, velocity_scale=1.0)
    for i in range(n):
        builder.joint(f"j{i}", position=(lo, hi), velocity=v, acceleration=a)
    return builder.build()


def from_table(joints: str, guard: str = "rate_hz = 500") -> Guardrails:
    import tomllib

    from kizzasi_edge.guardrails.spec import parse_spec

    return Guardrails(parse_spec(tomllib.loads(f"schema = 1\n[guard]\n{guard}\n[joints]\n{joints}"), "t"), "t")


# ---- the oracle ------------------------------------------------------------------------------------------------------


def brakes_inside(limit: LatticeLimits, q: int, v: int, coast: int) -> bool:
    """Applied q, reached with step v: coast at v so long, then brake by h a period; every position inside?"""
    for _ in range(coast):
        q += v
        if not limit.lo <= q <= limit.hi:
            return False
    while v:
        v = v - limit.h if v > limit.h else v + limit.h if v < -limit.h else 0
        q += v
        if not limit.lo <= q <= limit.hi:
            return False
    return limit.lo <= q <= limit.hi


def admissible(limit: LatticeLimits, q: int, v: int, step: int, coast: int) -> bool:
    return (
        abs(step) <= limit.w and abs(step - v) <= limit.h and brakes_inside(limit, q + step, step, coast)
        # (1+coast)·step and then the braking: the first of those periods is the step itself
    )


def brute_nearest(limit: LatticeLimits, q: int, v: int, want: int, coast: int) -> int | None:
    """The admissible position nearest to want, by trying them all."""
    steps = [s for s in range(max(-limit.w, v - limit.h), min(limit.w, v + limit.h) + 1)
             if admissible(limit, q, v, s, coast)]  # fmt: skip
    return q + min(steps, key=lambda s: abs(q + s - want)) if steps else None


def coarse(miss: int, *, w: int = 13, h: int = 3, reach: int = 60) -> Guardrails:
    """A lattice small enough to search: quantum 1/8, rate 1 Hz."""
    quantum = 0.125
    return from_table(
        f'names = ["a"]\nposition = [[{-reach * quantum}, {reach * quantum}]]\nvelocity = {w * quantum}\n'
        f"velocity_scale = 1\nacceleration = {h * quantum}\nquantum = {quantum}",
        f"rate_hz = 1\nmiss_budget = {miss}",
    )


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 4), st.integers(1, 20), st.integers(1, 9), st.integers(3, 70), st.integers(-70, 70),
    st.lists(st.integers(-90, 90), min_size=1, max_size=60),
)  # fmt: skip
def test_is_the_nearest_admissible_value(miss: int, w: int, h: int, reach: int, start: int, wants: list[int]) -> None:
    guard = coarse(miss, w=w, h=h, reach=reach)
    limit = guard.lattice[0]
    assert (limit.lo, limit.hi, limit.w, limit.h) == (-reach, reach, w, min(h, 2 * w))
    q, v = max(-reach, min(reach, start)), 0
    guard.reset([q * 0.125])
    for want in wants:
        best = brute_nearest(limit, q, v, want, miss)
        assert best is not None  # never an empty set
        sent, verdict = guard.step([want * 0.125])
        assert sent[0] / 0.125 == best
        assert (verdict.status is Status.PASS) == (best == want) == (verdict.rules == ())
        assert verdict.intervention == pytest.approx(abs(best - want) * 0.125)
        q, v = best, best - q
        assert guard.motion[0][0] == q
        assert guard.motion[1][0] == v


def check_triples(guard: Guardrails, sent: np.ndarray, start: np.ndarray) -> None:
    """Every consecutive triple of sent values, in integers, from rest at start."""
    quanta = sent.astype(np.float64) / guard.quanta
    whole = quanta.astype(np.int64)
    assert (quanta == whole).all()  # float32 lost nothing
    q = np.vstack([start, start, whole])
    for i, limit in enumerate(guard.lattice):
        assert limit.lo <= q[:, i].min()
        assert q[:, i].max() <= limit.hi
        assert np.abs(np.diff(q[:, i])).max() <= limit.w
        assert np.abs(np.diff(q[:, i], 2)).max() <= limit.h


PROPOSAL = st.one_of(
    st.floats(-3, 3, width=32), st.floats(width=32), st.sampled_from([np.nan, np.inf, -np.inf, 1e38, -1e38, 0.0])
)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(PROPOSAL, PROPOSAL, st.integers(1, 40)), min_size=1, max_size=20),
    st.floats(-1, 1), st.integers(0, 5), st.sampled_from([50.0, 500.0, 2000.0]), st.floats(0.2, 7), st.floats(2, 40),
)  # fmt: skip
def test_adversarial_proposals_obey_the_limits(
    script: list[tuple[float, float, int]], start: float, miss: int, rate: float, v: float, a: float
) -> None:
    guard = guard_of(2, lo=-1.1, hi=1.3, v=v, a=a, miss=miss, rate=rate)
    guard.reset([start, -start])
    origin = guard.motion[0].copy()
    sent = [guard.step(np.array([x, y], np.float32))[0] for x, y, times in script for _ in range(times)]
    check_triples(guard, np.array(sent), origin)


def test_random_long_run_obeys_and_reaches_every_limit() -> None:
    guard = guard_of(2, v=1.5, a=12.0, miss=3)
    rng = np.random.default_rng(0)
    guard.reset([0, 0])
    held, sent = np.zeros(2, np.float32), np.empty((20_000, 2), np.float32)
    for k in range(len(sent)):
        if k % 700 == 0 or rng.random() < 0.002:
            held = rng.choice([-9, 9, 0.3, -0.2], 2).astype(np.float32)
        guard.step_into(held, sent[k])
    check_triples(guard, sent, np.zeros(2, np.int64))
    q = np.round(sent / guard.quanta).astype(np.int64)
    limit = guard.lattice[0]
    # A guard that freezes is as wrong as one that leaks.
    assert q.max() > 0.99 * limit.hi
    assert q.min() < 0.99 * limit.lo
    assert np.abs(np.diff(q, axis=0)).max() > 0.99 * limit.w
    assert np.abs(np.diff(q, 2, axis=0)).max() > 0.99 * limit.h


@pytest.mark.parametrize("miss", [0, 3])
def test_reaches_the_last_quantum_of_the_range(miss: int) -> None:
    """... but for the one quantum for each period of coasting that the smallest step must leave room for."""
    guard = guard_of(miss=miss)
    guard.reset([0])
    for _ in range(3000):
        guard.step([5.0])
    assert guard.lattice[0].hi - guard.motion[0][0] == miss
    assert guard.motion[1][0] == 0


@settings(max_examples=30, deadline=None)
@given(st.floats(-0.4, 0.4), st.floats(0.1, 1.2), st.integers(0, 3))
def test_admissible_motion_passes_unchanged(centre: float, hertz: float, miss: int) -> None:
    """A sine within the limits, started smoothly: the guard must be invisible."""
    guard = guard_of(a=12.0, v=2.0, miss=miss)
    guard.reset([centre])
    amplitude = 0.8 * min(0.4, 2.0 / (math.tau * hertz), 12.0 / (math.tau * hertz) ** 2)
    for k in range(600):
        phase = math.tau * hertz * k / RATE
        want = np.array([centre + amplitude * min(1.0, phase / math.tau) ** 3 * math.sin(phase)], np.float32)
        sent, verdict = guard.step(want)
        assert verdict.status is Status.PASS
        assert verdict.intervention == 0
        assert abs(float(sent[0]) - float(want[0])) <= guard.quanta[0] / 2


# ---- without a usable command ----------------------------------------------------------------------------------------


def moving(guard: Guardrails, ticks: int = 40) -> None:
    guard.reset(np.zeros(len(guard.joints)))
    for _ in range(ticks):
        guard.step(np.full(len(guard.joints), 5.0))
    assert guard.motion[1][0] > 0


def test_nan_coasts_one_period_then_brakes_then_rests() -> None:
    guard = guard_of(miss=1)
    moving(guard)
    q, v, h = int(guard.motion[0][0]), int(guard.motion[1][0]), guard.lattice[0].h
    _, verdict = guard.step([np.nan])
    assert (verdict.status, verdict.rules, verdict.intervention) == (Status.HOLD, ("non_finite",), math.inf)
    assert (int(guard.motion[0][0]), int(guard.motion[1][0])) == (q + v, v)
    _, verdict = guard.step([np.inf])
    assert verdict.status is Status.BRAKE
    assert int(guard.motion[1][0]) == v - h
    while guard.motion[1][0]:
        _, verdict = guard.step([-np.inf])
    _, verdict = guard.step([np.nan])
    assert verdict.status is Status.HOLD  # at rest
    _, verdict = guard.step(np.array([guard.motion[0][0] * guard.quanta[0]], np.float32))
    assert verdict.status is Status.PASS


def test_a_nan_that_cannot_coast_brakes_and_says_so() -> None:
    guard = guard_of()
    guard.reset([0.9])
    while True:
        guard.step([5.0])
        limit, (q, v) = guard.lattice[0], (int(m[0]) for m in guard.motion)
        if not brakes_inside(limit, q + v, v, 0):
            break
    _, verdict = guard.step([np.nan])
    assert verdict.status is Status.BRAKE
    assert int(guard.motion[1][0]) == max(v - limit.h, 0)


def test_lasting_nan_latches_until_clear() -> None:
    guard = from_table(
        'names = ["a"]\nposition = [[-1, 1]]\nvelocity = 2\nacceleration = 12', "rate_hz = 500\nnan_ticks = 4"
    )
    moving(guard)
    seen = [guard.step([np.nan])[1].status for _ in range(4)]
    assert seen == [Status.HOLD, Status.BRAKE, Status.BRAKE, Status.ESTOP]
    for _ in range(300):
        _, verdict = guard.step([0.0])
        assert verdict.status is Status.ESTOP
    assert guard.motion[1][0] == 0
    guard.rebase(*guard.motion)
    assert guard.step([0.0])[1].status is Status.ESTOP  # a STATE does not release it
    here = [guard.motion[0][0] * guard.quanta[0]]
    guard.clear()
    verdict = guard.step([0.0])[1]
    assert (verdict.status, verdict.state) == (Status.HOLD, State.REARM)
    assert guard.step([here[0] - 0.1])[1].state is State.REARM  # asks for motion
    verdict = guard.step(here)[1]
    assert (verdict.status, verdict.state) == (Status.PASS, State.NOMINAL)


def test_a_finite_command_resets_the_nan_count() -> None:
    guard = from_table(
        'names = ["a"]\nposition = [[-1, 1]]\nvelocity = 2\nacceleration = 12', "rate_hz = 500\nnan_ticks = 2"
    )
    moving(guard)
    for _ in range(10):
        assert guard.step([np.nan])[1].status is Status.HOLD
        assert guard.step([0.0])[1].status in (Status.PASS, Status.CLAMPED)


def test_one_nan_among_joints_stops_all_of_them() -> None:
    guard = guard_of(3, miss=1)
    moving(guard)
    before = guard.motion[1].copy()
    guard.step([0.0, np.nan, 0.0])
    assert (guard.motion[1] == before).all()


def test_estop_brakes_at_h_and_reset_releases() -> None:
    guard = guard_of()
    moving(guard)
    guard.estop()
    while guard.motion[1][0]:
        v = int(guard.motion[1][0])
        _, verdict = guard.step([9.0])
        assert verdict.status is Status.ESTOP
        assert int(guard.motion[1][0]) == max(v - guard.lattice[0].h, 0)
    guard.reset([0.5])
    assert guard.step([0.5])[1].status is Status.PASS


def test_miss_coasts_within_the_budget_then_brakes() -> None:
    guard = guard_of(miss=3)
    moving(guard)
    v = int(guard.motion[1][0])
    out = np.empty(1, np.float32)
    seen = []
    for _ in range(5):
        verdict = guard.miss(out, stamp_ns=7)
        seen.append((verdict.status, int(guard.motion[1][0])))
        assert verdict.rules == ("miss",)
        assert verdict.stamp_ns == 7
        assert out[0] == np.float32(guard.motion[0][0] * guard.quanta[0])
    h = guard.lattice[0].h
    assert seen == [(Status.HOLD, v)] * 3 + [(Status.BRAKE, v - h), (Status.BRAKE, v - 2 * h)]
    guard.step([0.0])
    v = int(guard.motion[1][0])
    assert guard.miss(out).status is Status.HOLD  # the budget is whole again
    assert int(guard.motion[1][0]) == v


def test_miss_before_a_position_is_refused() -> None:
    with pytest.raises(GuardrailError, match="no position yet"):
        guard_of().miss(np.empty(1, np.float32))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 6), st.lists(st.tuples(st.floats(-2, 2, width=32), st.integers(0, 9)), min_size=1, max_size=60))
def test_misses_anywhere_keep_the_promise(budget: int, script: list[tuple[float, int]]) -> None:
    guard = guard_of(miss=budget, v=6.0, a=30.0)
    guard.reset([0.0])
    sent, out = [], np.empty(1, np.float32)
    for want, misses in script:
        sent += [guard.step([want])[0] for _ in range(8)]
        for _ in range(misses):
            guard.miss(out)
            sent.append(out.copy())
    check_triples(guard, np.array(sent), np.zeros(1, np.int64))


# ---- seeding and rebasing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [-1, 1])
def test_outside_moves_inwards_only_at_an_eighth(side: int) -> None:
    guard = guard_of(v=2.0, a=12.0)
    limit = guard.lattice[0]
    guard.reset([side * 1.2])
    q = int(guard.motion[0][0])
    assert guard.step([side * 9.0])[1].rules == ("position", "recovery")  # asked outwards: stays
    assert int(guard.motion[0][0]) == q
    steps = []
    while abs(int(guard.motion[0][0])) > limit.hi:
        _, verdict = guard.step([-side * 9.0])
        steps.append(-side * int(guard.motion[1][0]))
        assert "recovery" in verdict.rules
        assert len(steps) < 5000
    assert min(steps) > 0
    assert max(steps) == limit.w // 8
    assert np.abs(np.diff([0, *steps])).max() <= limit.h
    assert brakes_inside(limit, int(guard.motion[0][0]), int(guard.motion[1][0]), 0)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(-2**31, 2**31 - 1) | st.integers(-70, 70), st.integers(-2**31, 2**31 - 1) | st.integers(-40, 40),
    st.lists(st.integers(-90, 90), min_size=1, max_size=30), st.integers(0, 3),
)  # fmt: skip
def test_rebase_on_an_inconsistent_step_never_leads_outside(q: int, v: int, wants: list[int], miss: int) -> None:
    guard = coarse(miss)
    limit = guard.lattice[0]
    guard.rebase(np.array([q], np.int32), np.array([v], np.int32))
    last, step = (int(m[0]) for m in guard.motion)
    assert abs(step) <= limit.w
    for want in wants:
        guard.step([want * 0.125])
        now = int(guard.motion[0][0])
        assert abs(now - last) <= limit.w
        if limit.lo <= last <= limit.hi:
            assert limit.lo <= now <= limit.hi
        else:  # outside: only inwards, and not past the other side
            assert abs(now) <= abs(last)
        last = now


def test_rebase_on_the_truth_changes_nothing() -> None:
    a, b = guard_of(2), guard_of(2)
    rng = np.random.default_rng(5)
    for guard in (a, b):
        guard.reset([0, 0.2])
    for _ in range(500):
        want = rng.uniform(-2, 2, 2)
        b.rebase(*b.motion)
        assert (a.step(want)[0] == b.step(want)[0]).all()


# ---- the interface ---------------------------------------------------------------------------------------------------


def test_first_step_needs_a_position() -> None:
    guard = guard_of(2)
    with pytest.raises(GuardrailError, match=r"position=.*j0.*j1"):
        guard.step([0, 0])
    sent, _ = guard.step([0.5, 0.5], position=[0.5, 0.5])
    assert sent == pytest.approx([0.5, 0.5])
    guard.step([0.5, 0.5], position=[-1, -1])  # only seeds: the recursion stands on what was sent
    assert guard.motion[0] * guard.quanta == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("command", [0.5, [0.5], [0.5] * 3, [[0.5, 0.5]], [], None])
def test_a_command_of_another_shape_is_refused_and_nothing_moves(command: object) -> None:
    guard = guard_of(2)
    moving(guard)
    before = [m.copy() for m in guard.motion]
    with pytest.raises(InputError, match=r"command: found shape .*expected \(2,\)"):
        guard.step(command)  # type: ignore[arg-type]
    for out in (np.empty(3, np.float32), np.empty((4, 2), np.float32), np.empty(2, np.float64)):
        with pytest.raises(InputError, match=r"out: found"):
            guard.step_into(np.zeros(2, np.float32), out)
    assert (before[0] == guard.motion[0]).all()
    assert (before[1] == guard.motion[1]).all()


@pytest.mark.parametrize(("position", "text"), [([0, np.nan], r"position\[1\] \(j1\): found nan"), ([0], "shape")])
def test_a_bad_measured_position_is_refused(position: list[float], text: str) -> None:
    guard = guard_of(2)
    with pytest.raises(InputError, match=text):
        guard.step([0, 0], position=position)
    with pytest.raises(InputError, match=text):
        guard.reset(position)
    with pytest.raises(GuardrailError, match="first step"):
        guard.step([0, 0])  # still not seeded


def test_measurements_for_rules_that_do_not_exist() -> None:
    guard = guard_of(2)
    guard.reset([0, 0])
    guard.step([0, 0], velocity=[0, 0], signals={})
    with pytest.raises(InputError, match="velocity"):
        guard.step([0, 0], velocity=[0])
    with pytest.raises(GuardrailError, match="distance"):
        guard.step([0, 0], signals={"distance": 1.0})


def test_step_and_step_into_agree_and_verdicts_are_fresh_or_live() -> None:
    a, b = guard_of(2), guard_of(2)
    out = np.empty(2, np.float32)
    first = first_live = None
    for k in range(50):
        want = np.array([math.sin(k), np.nan if k == 30 else 9.0], np.float32)
        sent, fresh = a.step(want, position=[0, 0], stamp_ns=k)
        live = b.step_into(want, out, position=[0, 0], stamp_ns=k)
        assert (sent == out).all()
        assert sent.dtype == np.float32
        assert (fresh.status, fresh.bits, fresh.intervention, fresh.stamp_ns, fresh.rules) == (
            live.status, live.bits, live.intervention, live.stamp_ns, live.rules,
        )  # fmt: skip
        first, first_live = first or fresh, first_live or live
    assert first_live is live
    assert first is not None
    assert first.stamp_ns == 0
    assert live.stamp_ns == 49


def test_the_verdict_names_what_shaped_each_joint() -> None:
    builder = Guardrails.builder(rate_hz=500, miss_budget=0)
    for name in ("a", "b", "c"):
        builder.joint(name, position=(-1, 1), velocity=2.0, acceleration=12.0)
    builder.constraint("range", "table_edge", "b", min=-0.2, max=0.2).constraint("velocity", "slow_c", "c", max=0.05)
    guard = builder.build()
    guard.reset([0, 0, 0])
    for _ in range(1000):
        _, verdict = guard.step([0.0, 0.5, 0.9])
    assert verdict.status is Status.CLAMPED
    assert verdict.by_joint == {"b": ("table_edge",), "c": ("slow_c",)}
    assert verdict.rules == ("table_edge", "slow_c")
    sent = guard.motion[0] * guard.quanta
    assert verdict.intervention == pytest.approx(math.hypot(sent[1] - 0.5, sent[2] - 0.9), abs=1e-6)


def test_step_into_does_not_allocate() -> None:
    guard = guard_of(6)
    guard.reset(np.zeros(6))
    wants = np.random.default_rng(1).normal(0, 1, (64, 6)).astype(np.float32)
    out = np.empty(6, np.float32)
    for want in wants:
        guard.step_into(want, out)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for _ in range(20):
            for want in wants:
                guard.step_into(want, out)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Numbers and the bits of the newest verdict come and go; nothing stays, and no array is made.
    assert after - before < 1024
    assert peak - before < 2048


def test_a_quantum_too_fine_for_float32_is_refused() -> None:
    with pytest.raises(GuardrailError, match=r"\[joints\] quantum: joint 'a'.*too fine.*at least 3\.57628e-07"):
        from_table('names = ["a"]\nposition = [[-3, 3]]\nvelocity = 1\nacceleration = 9\nquantum = 1e-9')


def test_an_actuators_own_tick_comes_back_as_the_same_integers() -> None:
    """2π/4096, as many servos count: float32 is not exact there, but rounds back to the guarded integer."""
    tick = math.tau / 4096
    guard = from_table(
        f'names = ["a"]\nposition = [[-3, 3]]\nvelocity = 5\nacceleration = 20\nquantum = {tick!r}', "rate_hz = 50"
    )
    guard.reset([0.0])
    for want in np.random.default_rng(0).uniform(-4, 4, 500):
        sent, _ = guard.step([want])
        assert round(float(sent[0]) / tick) == guard.motion[0][0]
