"""The expert keeps its own limits, arrives without overshoot, and can take over from any state."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kizzasi_edge.demo.expert import (
    HOME,
    JOINTS,
    RATE_HZ,
    TASK_RANGE,
    Expert,
    random_pose,
    random_targets,
    reference_trajectory,
)
from kizzasi_edge.demo.physics import ASSETS
from kizzasi_edge.demo.witness import raw_limits

DT = 1.0 / RATE_HZ


def test_the_task_lies_inside_the_limits() -> None:
    low, high, speed = raw_limits(ASSETS / "arm.urdf", JOINTS)
    assert (low + 0.2 < HOME - TASK_RANGE).all()
    assert (high - 0.2 > HOME + TASK_RANGE).all()
    assert (Expert().speed < 0.6 * speed).all()


@given(seed=st.integers(0, 2**32 - 1), gain=st.floats(2.0, 6.0))
@settings(max_examples=5, deadline=None)
def test_any_state_is_brought_to_the_target_within_limits(seed: int, gain: float) -> None:
    law = Expert(gain=gain, lag=0.3 / gain)
    rng = np.random.default_rng(seed)
    q, v = rng.uniform(-3.0, 3.0, 200), rng.uniform(-law.speed, law.speed, 200)
    target = q + rng.uniform(-6.0, 6.0, 200)
    for _ in range(4000):
        nq, nv = law.step(q, v, target, DT)
        assert (np.abs(nv - v) <= law.acceleration * DT * (1 + 1e-9)).all()
        assert (np.abs(nv) <= law.speed * (1 + 1e-12)).all()
        assert np.array_equal(nq, q + nv * DT)
        q, v = nq, nv
    assert np.abs(q - target).max() < 1e-4
    assert np.abs(v).max() < 1e-3


def test_arrives_from_rest_without_overshoot_nearly_time_optimal() -> None:
    law = Expert()
    path = reference_trajectory(np.zeros(1), np.full((4000, 1), 1.0))[:, 0]
    assert path.max() <= 1.0 + 1e-3
    arrival = np.argmax(path > 0.99) * DT
    # Bang-cruise-bang at the same speed and acceleration.
    bound = 1.0 / law.speed + law.speed / law.acceleration
    assert bound * 0.9 < arrival < bound * 1.6


def test_velocity_law_is_continuous_and_odd() -> None:
    law = Expert()
    error = np.linspace(-2.0, 2.0, 400_001)
    speed = law.reference_velocity(error)
    assert np.abs(np.diff(speed)).max() <= law.gain * 1e-5 * 1.001
    assert np.array_equal(speed, -law.reference_velocity(-error))


def test_batches_are_independent() -> None:
    rng = np.random.default_rng(0)
    start, targets = random_pose(rng, 3), random_targets(rng, 3, 400)
    together = reference_trajectory(start, targets)
    assert together.shape == (3, 400, 6)
    for one in range(3):
        assert np.array_equal(together[one], reference_trajectory(start[one], targets[one]))


def test_targets_are_seeded_held_and_in_range() -> None:
    targets = random_targets(np.random.default_rng(5), 2, 10_000)
    assert np.array_equal(targets, random_targets(np.random.default_rng(5), 2, 10_000))
    assert not np.array_equal(targets, random_targets(np.random.default_rng(6), 2, 10_000))
    assert np.abs(targets - HOME).max() <= TASK_RANGE
    for row in targets:
        changes = np.flatnonzero(np.any(np.diff(row, axis=0) != 0, axis=1))
        dwell = np.diff(changes) * DT
        assert dwell.min() >= 1.5 - 1e-9
        assert dwell.max() <= 3.5 + 1e-9
