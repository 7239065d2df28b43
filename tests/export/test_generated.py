"""Generated systems against their equations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from recordings import open_

from kizzasi_export.datasets import Streams


def generate(system: str, rate_hz: float | None = None, **keys: Any) -> Streams:
    return open_(Path(), rate_hz, format="generated", system=system, **{"recordings": 4, "steps": 200, **keys})


def stacked(streams: Streams) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return np.stack([r.x for r in streams]), np.stack([r.y for r in streams])


@pytest.mark.parametrize(
    "system", ["lorenz", "mackey_glass", "pendulum", "teleoperation", "narma10", "selective_recall", "delay_copy"]
)
def test_generated_systems_repeat_by_seed(system: str) -> None:
    first, again, other = generate(system), generate(system), generate(system, seed=1)
    (x, y), (x2, y2), (x3, _) = stacked(first), stacked(again), stacked(other)
    assert x.shape == (4, 200, len(first.input_names or ()))
    assert y.shape == (4, 200, len(first.output_names or ()))
    assert np.array_equal(x, x2)
    assert np.array_equal(y, y2)
    assert not np.array_equal(x, x3)
    assert len({r.x.tobytes() for r in first}) == 4
    assert first.source["seed"] == 0
    json.dumps(first.source)


@pytest.mark.parametrize(("system", "low", "high"), [("lorenz", 7.5, 8.3), ("mackey_glass", 0.19, 0.27)])
def test_chaotic_systems_are_one_step_ahead_and_on_their_attractor(system: str, low: float, high: float) -> None:
    x, y = stacked(generate(system, noise=0.0, steps=2000))
    assert np.array_equal(x[:, 1:], y[:, :-1])
    assert low < y[..., 0].std() < high  # the published attractors: 7.9 and 0.23
    noisy, clean = stacked(generate(system, noise=0.05, steps=2000))
    assert np.array_equal(clean, y)
    error = (noisy - x).std(axis=(0, 1)) / x.std(axis=(0, 1))
    np.testing.assert_allclose(error, 0.05, rtol=0.05)


def test_the_hand_of_teleoperation_moves_as_documented() -> None:
    streams = generate("teleoperation", 200.0, noise=0.0, steps=2000)
    for recording in streams:
        path = np.concatenate([recording.x[:1, 2:], recording.y]).astype(np.float64)  # [T + 1, 2]
        velocity = np.diff(path, axis=0) * 200
        acceleration = np.diff(velocity, axis=0) * 200
        assert np.abs(velocity).max() == pytest.approx(3.0, rel=1e-3)
        assert np.abs(acceleration).max() == pytest.approx(25.0, rel=2e-2)
        assert np.abs(path).max() < 1.05
        held = recording.x[:, :2]
        assert 6 < np.count_nonzero(np.abs(np.diff(held, axis=0)).max(1)) < 22  # ten seconds of targets


def test_the_pendulum_obeys_its_equation_at_any_rate() -> None:
    for rate in (None, 200.0):
        streams = generate("pendulum", rate, noise=0.0, steps=1000)
        assert streams.sample_rate_hz == (rate or 100.0)
        x, y = stacked(streams)
        torque, angle, velocity = (v.astype(np.float64) for v in (x[:, 1:, 1], y[:, :, 0], y[:, :, 1]))
        dt = 1 / streams.sample_rate_hz
        middle = [(v[:, 1:] + v[:, :-1]) / 2 for v in (angle, velocity)]
        acceleration = np.diff(velocity, axis=1) / dt
        np.testing.assert_allclose(np.diff(angle, axis=1) / dt, middle[1], atol=0.02)
        np.testing.assert_allclose(acceleration, torque - 9.81 * np.sin(middle[0]) - middle[1], atol=0.02)
        assert angle.std() > 0.3
        assert np.abs(angle).max() < np.pi


def test_narma10_follows_its_recurrence() -> None:
    x, y = (v[..., 0].astype(np.float64) for v in stacked(generate("narma10", steps=300)))
    for t in range(10, 300):
        past = y[:, t - 10 : t]
        expected = 0.3 * past[:, -1] + 0.05 * past[:, -1] * past.sum(1) + 1.5 * x[:, t - 9] * x[:, t] + 0.1
        np.testing.assert_allclose(y[:, t], np.minimum(expected, 1), atol=1e-6)


@pytest.mark.parametrize("lag", [1, 30])
def test_memory_tasks(lag: int) -> None:
    asked = 0
    for recording in generate("selective_recall", lag=lag, steps=8 * lag + 50):
        assert recording.weight is not None
        value, flag, query = recording.x.T
        flags, queries = np.flatnonzero(flag), np.flatnonzero(query)
        assert len(queries) >= 1
        asked += len(queries)
        np.testing.assert_array_equal(np.flatnonzero(recording.weight), queries)
        for at in queries:
            last = flags[flags < at].max()
            assert lag <= at - last <= 2 * lag
            assert recording.y[at, 0] == value[last]
    assert asked > 4
    for recording in generate("delay_copy", lag=lag):
        assert recording.weight is not None
        np.testing.assert_array_equal(recording.y[lag:], recording.x[:-lag])
        np.testing.assert_array_equal(recording.weight, np.arange(200) >= lag)
