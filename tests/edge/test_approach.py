"""``on_clamp = "approach"``: the promise is the same; what changes is how a far command is pursued."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails import Guardrails, Status
from kizzasi_edge.guardrails.spec import parse_spec


def guard(
    on_clamp: str = "approach", *, reach: float = 3.0, velocity: float = 2.0, acceleration: float = 8.0
) -> Guardrails:
    joints = {"names": ["a"], "position": [[-reach, reach]], "velocity": velocity, "acceleration": acceleration}
    data = {"schema": 1, "guard": {"rate_hz": 500, "on_clamp": on_clamp}, "joints": joints}
    return Guardrails(parse_spec(data, "test"), "test")


def follow(one: Guardrails, commands: np.ndarray, start: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """(sent positions in quanta, statuses), from rest at start."""
    one.reset([start])
    sent, status = [], []
    for command in commands:
        out, verdict = one.step([command])
        sent.append(round(float(out[0]) / one.quanta[0]))
        status.append(verdict.status)
    return np.array([round(start / one.quanta[0])] * 2 + sent), np.array(status)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    reach=st.floats(0.01, 6.0),
    velocity=st.floats(0.1, 10.0),
    acceleration=st.floats(1.0, 100.0),
    hold=st.integers(1, 80),
)
def test_the_promise_holds(seed: int, reach: float, velocity: float, acceleration: float, hold: int) -> None:
    one = guard(reach=reach, velocity=velocity, acceleration=acceleration)
    rng = np.random.default_rng(seed)
    commands = np.repeat(rng.uniform(-2 * reach, 2 * reach, 600 // hold + 1), hold)[:600]
    q, _ = follow(one, commands)
    cell = one.lattice[0]
    assert q.min() >= cell.lo
    assert q.max() <= cell.hi
    assert np.abs(np.diff(q)).max() <= cell.w
    assert np.abs(np.diff(q, 2)).max() <= cell.h


def test_an_admissible_command_passes() -> None:
    one = guard()
    t = np.arange(3000) / 500
    q, status = follow(one, 0.5 * np.sin(t) - 0.5 * np.sin(0) + 1e-6)
    assert (status[200:] == Status.PASS).all()
    assert abs(q[-1] * one.quanta[0] - 0.5 * np.sin(t[-1])) < 1e-5


@example(target=1.3721694685650903, velocity=2.0, acceleration=1.34375, quantum=2.0**-16)
@settings(max_examples=100, deadline=None)
@given(
    target=st.floats(-2.9, 2.9), velocity=st.floats(0.5, 10.0), acceleration=st.floats(1.0, 100.0),
    quantum=st.sampled_from([2.0**-12, 2.0**-16, 2.0**-20]),
)  # fmt: skip
def test_what_stands_still_is_passed_by_three_steps_of_acceleration_at_most(
    target: float, velocity: float, acceleration: float, quantum: float
) -> None:
    joints = {"names": ["a"], "position": [[-3, 3]], "velocity": velocity, "acceleration": acceleration}
    data = {"schema": 1, "guard": {"rate_hz": 60, "on_clamp": "approach"}, "joints": {**joints, "quantum": quantum}}
    if acceleration / 60**2 < 2 * quantum:
        with pytest.raises(GuardrailError, match="quant"):
            Guardrails(parse_spec(data, "test"), "test")
        return
    one = Guardrails(parse_spec(data, "test"), "test")
    q, _ = follow(one, np.full(1200, target))
    # The guard rounds halves away from zero, Python to even: 89926.5 was once a quantum short here.
    side = 1 if target > 0 else -1
    want = side * math.floor(abs(float(np.float32(target))) / quantum + 0.5)
    assert ((q - want) * side).max() <= 3 * one.lattice[0].h
    assert abs(int(q[-1]) - want) <= 1


def test_a_step_is_reached_without_circling_it() -> None:
    for target in (1.0, -0.3, 0.01, 2.99):
        q, status = follow(guard(), np.full(3000, target))
        path = q * guard().quanta[0] * np.sign(target)
        assert path.max() <= abs(target) + (3 * guard().lattice[0].h + 1) * guard().quanta[0]
        assert (status[-500:] == Status.PASS).all()
        assert abs(path[-1] - abs(target)) < 1e-6
    # What it is for: the nearest admissible value, every period, never settles.
    q, status = follow(guard("nearest"), np.full(3000, 1.0))
    assert (status[-500:] == Status.CLAMPED).all()
    assert (q * guard().quanta[0]).max() > 1.1


def test_it_joins_a_moving_command_and_stays_with_it() -> None:
    t = np.arange(2000) / 500
    ramp = 0.5 + 0.5 * t  # 0.5 rad ahead, moving at 0.5 of the 1.8 rad/s it may
    q, status = follow(guard(), ramp)
    assert (status[-1000:] == Status.PASS).all()
    assert np.abs(q[2:] * guard().quanta[0] - ramp)[-1000:].max() < 1e-6
    assert (q[2:] * guard().quanta[0] - ramp).max() < 2e-3


def test_the_verdict_names_it() -> None:
    one = guard()
    one.reset([0.0])
    rules = set()
    for _ in range(800):
        _, verdict = one.step([1.0])
        rules.update(verdict.rules)
    assert "approach" in rules
    assert rules <= {"approach", "acceleration", "velocity"}
