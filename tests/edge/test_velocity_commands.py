"""Velocity commands: exact on what is sent, and the range as far as the plant follows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kizzasi_edge.errors import GuardrailError, InputError
from kizzasi_edge.guardrails import Guardrails, State, Status

RATE = 250.0
SEEDS = st.integers(0, 2**32 - 1)


def guard_of(n: int = 2, *, miss: int = 2, margin: float = 0.0, bounded: bool = True, **rules: float) -> Guardrails:
    builder = Guardrails.builder(rate_hz=RATE, miss_budget=miss, velocity_scale=1.0, command="velocity")
    for i in range(n):
        builder.joint(
            f"j{i}",
            position=(-1.0, 1.5) if bounded else None,
            velocity=2.0 + i,
            acceleration=12.0,
            margin=margin,
            jerk=rules.get("jerk"),
        )
    return builder.build()


def adversary(rng: np.random.Generator, n: int) -> np.ndarray:
    """A velocity to ask for: far too much, noise, bang-bang, or NaN."""
    kind = rng.integers(0, 10)
    if kind == 0:
        return np.full(n, np.nan)
    scale = (50.0, 3.0, 0.3)[kind % 3]
    return rng.normal(size=n) * scale if kind < 6 else np.sign(rng.normal(size=n)) * scale


class Plant:
    """Joints that move by exactly what is sent, counted in the guard's own integers."""

    def __init__(self, guard: Guardrails, position: np.ndarray) -> None:
        self.unit = guard.quanta / RATE
        self.q = np.rint(position / self.unit).astype(np.int64)
        self.guard = guard

    @property
    def position(self) -> np.ndarray:
        return self.q * self.unit

    def move(self, sent: np.ndarray) -> np.ndarray:
        raw = sent.astype(np.float64) / self.guard.quanta
        assert np.array_equal(raw, np.rint(raw)), "what is sent is on the lattice"
        self.q += raw.astype(np.int64)
        return raw.astype(np.int64)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(0, 4))
def test_velocities_their_changes_and_the_range_hold_in_integers(seed: int, miss: int) -> None:
    rng = np.random.default_rng(seed)
    guard = guard_of(miss=miss)
    plant = Plant(guard, rng.uniform(-0.9, 1.4, 2))
    lo = np.ceil(-1.0 / plant.unit)
    hi = np.floor(1.5 / plant.unit)
    w, h = (np.array([getattr(cell, key) for cell in guard.lattice]) for key in ("hi", "w"))
    before, out = np.zeros(2, np.int64), np.empty(2, np.float32)
    guard.reset(plant.position)
    want = np.zeros(2)
    for _ in range(600):
        if rng.random() < 0.1:
            want = adversary(rng, 2)
        if rng.random() < 0.05:
            for _ in range(rng.integers(1, miss + 3)):
                guard.miss(out)  # nobody measured either: the guard goes by what it sent
                raw = plant.move(out)
                assert (np.abs(raw) <= w).all()
                assert (np.abs(raw - before) <= h).all()
                before = raw
        sent, verdict = guard.step(want, position=plant.position)
        raw = plant.move(sent)
        assert (np.abs(raw) <= w).all()
        assert (np.abs(raw - before) <= h).all()
        assert (lo <= plant.q).all()
        assert (plant.q <= hi).all()
        if verdict.status is Status.PASS:
            assert np.abs(sent - want).max() <= guard.quanta.max()
        before = raw


def test_an_admissible_velocity_passes_unchanged_and_limits_are_reached() -> None:
    guard = guard_of()
    plant = Plant(guard, np.zeros(2))
    fastest, far = 0.0, 0.0
    for _ in range(2000):
        sent, _ = guard.step([9.0, 0.0], position=plant.position)
        plant.move(sent)
        fastest, far = max(fastest, float(sent[0])), max(far, float(plant.position[0]))
    assert fastest == 2.0  # a multiple of the quantum, so exactly
    assert 1.5 - 3 * (2 + 1) * guard.quanta[0] < far <= 1.5  # a few quanta stay unused: rounding down to rest
    sent, verdict = guard.step([-0.01, 0.0], position=plant.position)
    assert verdict.status is Status.PASS
    assert abs(sent[0] + 0.01) <= guard.quanta[0] / 2


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_noise_within_the_margin_never_leads_outside_the_raw_range(seed: int) -> None:
    rng = np.random.default_rng(seed)
    guard = guard_of(margin=0.02)
    plant = Plant(guard, np.zeros(2))
    want = np.zeros(2)
    for _ in range(1500):
        if rng.random() < 0.05:
            want = adversary(rng, 2)
        sent, _ = guard.step(want, position=plant.position + rng.uniform(-0.019, 0.019, 2))
        plant.move(sent)
        assert (plant.position >= -1.0).all()
        assert (plant.position <= 1.5).all()


def test_a_start_outside_moves_inwards_slowly() -> None:
    guard = guard_of(1)
    plant = Plant(guard, np.array([1.6]))
    sent, verdict = guard.step([2.0], position=plant.position)
    assert sent[0] == 0.0
    assert verdict.state is State.RECOVERY
    for _ in range(3000):
        sent, verdict = guard.step([-9.0], position=plant.position)
        assert sent[0] >= -2.0 / 8 or plant.position[0] <= 1.5
        plant.move(sent)
    assert verdict.state is State.NOMINAL
    assert plant.position[0] < 1.5


def test_every_step_needs_a_position_where_there_is_a_range() -> None:
    guard = guard_of(1)
    guard.step([0.0], position=[0.0])
    with pytest.raises(GuardrailError, match="position=: missing"):
        guard.step([0.1])
    with pytest.raises(InputError, match="shape"):
        guard.step([0.1], position=[0.0, 1.0])


def test_a_position_that_is_not_a_number_brakes_and_recovers() -> None:
    guard = guard_of(1)
    for _ in range(50):
        sent, _ = guard.step([1.0], position=[0.0])
    assert sent[0] > 0
    slower, verdict = guard.step([1.0], position=[np.nan])
    assert verdict.status is Status.BRAKE
    assert slower[0] < sent[0]
    assert verdict.rules == ("sensor_non_finite",)
    for _ in range(guard.faults.limits.settle_ticks):
        _, verdict = guard.step([1.0], position=[0.0])
    assert verdict.state is State.NOMINAL


def test_joints_without_a_range_need_no_position() -> None:
    guard = guard_of(2, bounded=False)
    assert guard.measures == ()
    for _ in range(1000):
        sent, verdict = guard.step([9.0, -9.0])
    assert np.array_equal(sent, np.array([2.0, -3.0], np.float32))
    assert verdict.rules == ("velocity",)
    assert "no range" in guard.explain()


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_jerk_is_kept_outside_brake(seed: int) -> None:
    rng = np.random.default_rng(seed)
    guard = guard_of(2, jerk=400.0)
    plant = Plant(guard, np.zeros(2))
    j = [cell.h for cell in guard.lattice]
    raws = [np.zeros(2, np.int64)] * 2
    relaxed = 0
    want = np.zeros(2)
    for _ in range(800):
        if rng.random() < 0.1:
            want = np.nan_to_num(adversary(rng, 2))
        sent, verdict = guard.step(want, position=plant.position)
        raws.append(plant.move(sent))
        broke = np.abs(raws[-1] - 2 * raws[-2] + raws[-3]) > j
        assert not broke.any() or (verdict.status is Status.BRAKE and "jerk" in verdict.given_up)
        assert broke.any() or "jerk" not in verdict.given_up
        relaxed += bool(broke.any())
        assert (plant.position >= -1.0).all()
        assert (plant.position <= 1.5).all()
    assert relaxed < 400


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_rules_that_couple_velocities_hold_exactly(seed: int) -> None:
    rng = np.random.default_rng(seed)
    builder = Guardrails.builder(rate_hz=RATE, miss_budget=1, velocity_scale=1.0, command="velocity")
    for i in range(3):
        builder.joint(f"j{i}", position=(-1.0, 1.0), velocity=2.0, acceleration=8.0)
    guard = (
        builder.constraint("linear", "together", a={"j0": 1.0, "j1": -1.0}, max=0.5, min=-0.5, on="velocity")
        .constraint("linear", "apart", a={"j1": 1.0, "j2": 1.0}, max=0.7)
        .constraint("quadratic", "energy", diagonal={"j0": 1.0, "j1": 1.0, "j2": 1.0}, max=1.5, on="velocity")
        .build()
    )
    plant = Plant(guard, np.zeros(3))
    want, shaped = np.zeros(3), set[str]()
    for _ in range(500):
        if rng.random() < 0.1:
            want = np.nan_to_num(adversary(rng, 3))
        sent, verdict = guard.step(want, position=plant.position)
        v = sent.astype(np.float64)
        assert abs(v[0] - v[1]) <= 0.5
        assert v @ v <= 1.5
        plant.move(sent)
        q = plant.position
        assert q[1] + q[2] <= 0.7
        assert (np.abs(q) <= 1.0).all()
        shaped.update(verdict.rules)
    assert "together" in shaped or "energy" in shaped


def test_what_velocity_commands_refuse() -> None:
    builder = Guardrails.builder(rate_hz=RATE, command="velocity")
    builder.joint("a", position=(-1, 1), velocity=1.0, acceleration=5.0)
    with pytest.raises(GuardrailError, match=r"\[dynamics\]: not used with velocity"):
        builder.dynamics(urdf="x.urdf").build()
