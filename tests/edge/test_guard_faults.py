"""The fault machine inside the guard: each fault is reacted to in its own period, and the lattice holds through all."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kizzasi_edge.errors import GuardrailError, InputError
from kizzasi_edge.guardrails import Event, Guardrails, State, Status

RATE = 500.0
MS = 1_000_000


def guard_of(*, miss: int = 3, jerk: float | None = None, **faults: Any) -> Guardrails:
    builder = Guardrails.builder(rate_hz=RATE, miss_budget=miss, velocity_scale=1.0)
    for name in ("a", "b"):
        builder.joint(name, position=(-1.0, 1.0), velocity=2.0, acceleration=20.0, jerk=jerk)
    if faults:
        builder.faults(**faults)
    return builder.build()


def here(guard: Guardrails) -> np.ndarray:
    return np.asarray(guard.motion[0] * guard.quanta)


def moving(guard: Guardrails, **given: Any) -> None:
    """At half speed towards +1."""
    guard.reset([-0.9, -0.9])
    for _ in range(30):
        target = here(guard) + 0.002
        step(guard, target, **given)
    assert guard.motion[1].min() > 0


def step(guard: Guardrails, command: Any, **given: Any) -> Any:
    """A step whose measurements, where the guard wants any, are what was last applied."""
    if "position" in guard.measures:
        given.setdefault("position", here(guard))
    return guard.step(command, **given)[1]


def settle(guard: Guardrails, **given: Any) -> None:
    while guard.motion[1].any():
        step(guard, here(guard), **given)


# ---- one fault each --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "faults", "state", "rule"),
    [
        ({"position": [np.nan, 0.0]}, {"range_tolerance": 0.1}, State.BRAKE, "sensor_non_finite"),
        ({"velocity": [np.inf, 0.0]}, {"range_tolerance": 0.1}, State.BRAKE, "sensor_non_finite"),
        ({"position": [1.2, 0.0]}, {"range_tolerance": 0.1}, State.BRAKE, "sensor_range"),
        ({"position": [0.9, 0.0]}, {"jump": 0.01}, State.BRAKE, "sensor_jump"),
        ({"position": [-0.5, -0.5]}, {"tracking_error": 0.1, "tracking_stop": 9.0}, State.DERATED, "tracking_warn"),
        ({"position": [0.9, 0.9]}, {"tracking_stop": 0.1}, State.STOPPED, "tracking_stop"),
    ],
)
def test_a_measurement_that_cannot_be_is_reacted_to_in_its_period(
    given: dict[str, Any], faults: dict[str, Any], state: State, rule: str
) -> None:
    guard = guard_of(**faults)
    moving(guard)
    before = guard.motion[1].copy()
    verdict = step(guard, here(guard) + 0.002, **given)
    assert verdict.state is state
    assert rule in verdict.rules
    if state is not State.DERATED:
        assert verdict.status is Status.BRAKE
        assert (np.abs(guard.motion[1]) < np.abs(before)).all()
    assert guard.faults.events


def test_a_single_bad_sample_does_not_latch_and_lasting_ones_do() -> None:
    guard = guard_of(range_tolerance=0.1, tracking_stop=0.5, fault_ticks=20, settle_ticks=4)
    moving(guard)
    step(guard, here(guard), position=[np.nan, np.nan])
    for _ in range(4):
        assert guard.state is State.BRAKE
        verdict = step(guard, here(guard))
    assert verdict.state is State.NOMINAL
    for _ in range(20):
        verdict = step(guard, here(guard), position=[np.nan, np.nan])
    assert verdict.state is State.STOPPED


def test_hardware_that_measures_no_velocity_says_nan_and_that_is_no_fault_where_none_is_used() -> None:
    """As ros2_control's joint_state_broadcaster does; also after a miss, when the guard looks at every measurement."""
    nothing = [math.nan, math.nan]
    guard = guard_of()
    moving(guard, velocity=nothing)
    for _ in range(3):
        guard.miss(np.empty(2, np.float32), Event.LATE)
    for _ in range(100):
        verdict = step(guard, here(guard), position=here(guard), velocity=nothing)
    assert guard.state is State.NOMINAL
    assert verdict.cause == 0
    assert guard.faults.events == {Event.LATE: 3}


def test_derating_halves_the_speed_and_ends() -> None:
    guard = guard_of(tracking_error=0.05, settle_ticks=5)
    moving(guard)
    for _ in range(100):
        verdict = step(guard, [1.0, 1.0], position=here(guard) - 0.06)
    assert verdict.state is State.DERATED
    half = [cell.w // 2 for cell in guard.lattice]
    assert guard.motion[1].tolist() == half
    for _ in range(60):
        verdict = step(guard, [1.0, 1.0])
    assert verdict.state is State.NOMINAL
    assert guard.motion[1].min() > max(half)


def test_clocks() -> None:
    guard = guard_of(stale_ms=10_000.0, clock_jump_ms=100_000.0)  # more than a busy machine takes between two lines
    with pytest.raises(InputError, match="stamp_ns: missing"):
        step(guard, [0.0, 0.0], position=[0.0, 0.0])
    stamp = time.monotonic_ns()
    moving(guard, stamp_ns=stamp)
    assert step(guard, here(guard), stamp_ns=time.monotonic_ns() - 11_000 * MS).rules == ("stale", "clock_backward")
    assert step(guard, here(guard), stamp_ns=time.monotonic_ns()).state is State.NOMINAL
    assert "clock_backward" in step(guard, here(guard), stamp_ns=stamp).rules
    assert step(guard, here(guard), stamp_ns=time.monotonic_ns()).state is State.NOMINAL
    assert "clock_jump" in step(guard, here(guard), stamp_ns=time.monotonic_ns() + 600_000 * MS).rules


def test_a_guard_that_is_active_for_too_long_stops() -> None:
    guard = guard_of(active_ms=20.0)
    guard.reset([0.0, 0.0])
    states = [step(guard, [9.0, 9.0]).state for _ in range(14)]
    assert states[9] is State.NOMINAL
    assert states[-1] is State.STOPPED


def test_a_hanging_model_latches_after_hang_ticks() -> None:
    guard = guard_of(hang_ticks=8)
    moving(guard)
    out = np.empty(2, np.float32)
    seen = [(verdict.status, verdict.state) for verdict in (guard.miss(out) for _ in range(8))]
    assert seen[:4] == [(Status.HOLD, State.HOLD)] * 3 + [(Status.BRAKE, State.BRAKE)]
    assert seen[-1][1] is State.STOPPED
    assert guard.hang_s == 8 / RATE


@pytest.mark.parametrize("event", [Event.HEARTBEAT_LOSS, Event.EXCEPTION])
def test_what_the_loop_reports_latches_at_once(event: Event) -> None:
    guard = guard_of()
    moving(guard)
    verdict = guard.miss(np.empty(2, np.float32), event)
    assert (verdict.status, verdict.state) == (Status.BRAKE, State.STOPPED)
    assert step(guard, here(guard)).state is State.STOPPED


def test_a_guard_that_raises_brakes_and_stays(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    guard = guard_of()
    moving(guard)
    before = guard.motion[1].copy()

    def broken(*_: object) -> int:
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr(guard, "_follow", broken)
    verdict = step(guard, here(guard) + 0.002)
    assert (verdict.state, verdict.rules) == (State.STOPPED, ("exception",))
    assert (guard.motion[1] < before).all()
    assert "a bug of ours" in caplog.text


def test_wrong_use_raises_and_nothing_has_moved() -> None:
    guard = guard_of()
    moving(guard)
    before = [part.copy() for part in guard.motion]
    for bad in ([0.0], np.zeros((2, 1)), 3.0):
        with pytest.raises(InputError, match="shape"):
            guard.step(bad)
    with pytest.raises(GuardrailError, match="no rule reads a signal"):
        guard.step([0.0, 0.0], signals={"x": 1.0})
    with pytest.raises(InputError, match="velocity"):
        guard.step([0.0, 0.0], velocity=[1.0])
    with pytest.raises(InputError, match=r"position: .* expected numbers"):
        guard.reset(["x", "y"])
    assert all((a == b).all() for a, b in zip(before, guard.motion, strict=True))


# ---- latches ---------------------------------------------------------------------------------------------------------


def test_estop_clear_and_zero_command_in_that_order() -> None:
    guard = guard_of()
    moving(guard)
    guard.estop()
    assert step(guard, here(guard) + 0.002).status is Status.ESTOP
    guard.clear()  # still moving: refused
    assert step(guard, here(guard) + 0.002).state is State.ESTOP
    settle(guard)
    assert step(guard, here(guard) + 0.5).state is State.ESTOP
    guard.clear()
    assert step(guard, here(guard)).state is State.REARM
    verdict = step(guard, here(guard) + 0.5)
    assert (verdict.state, verdict.status) == (State.REARM, Status.HOLD)
    assert not guard.motion[1].any()
    verdict = step(guard, here(guard) + 0.001)
    assert (verdict.state, verdict.rules) == (State.NOMINAL, ("acceleration",))


def test_no_estop_is_lost_to_a_race() -> None:
    """estop() comes from another thread, at any moment of a step; it must be seen by the next."""
    guard = guard_of()
    for _ in range(300):
        guard.reset([0.0, 0.0])
        thread = threading.Thread(target=guard.estop)
        thread.start()
        while thread.is_alive():
            guard.step([0.0, 0.0])
        thread.join()
        guard.step([0.0, 0.0])
        assert guard.state is State.ESTOP


def test_a_reset_forgets_everything() -> None:
    guard = guard_of(tracking_error=0.05)
    moving(guard)
    guard.estop()
    step(guard, here(guard))
    guard.reset([0.5, 0.5])
    verdict = step(guard, [0.5, 0.5])
    assert (verdict.status, verdict.state) == (Status.PASS, State.NOMINAL)


# ---- everything at once ----------------------------------------------------------------------------------------------


def script(rng: np.random.Generator, length: int) -> Iterator[tuple[str, Any]]:
    while length > 0:
        kind = rng.choice(["far", "smooth", "nan", "miss", "sensor", "estop", "clear", "hold"], p=[.2, .3, .1, .1, .1, .02, .1, .08])  # fmt: skip  # noqa: E501
        for _ in range(int(rng.integers(1, 12))):
            yield str(kind), rng.normal(size=2)
            length -= 1


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 5), st.sampled_from([None, 500.0]))
def test_whatever_happens_what_is_sent_is_admissible(seed: int, miss: int, jerk: float | None) -> None:
    rng = np.random.default_rng(seed)
    guard = guard_of(
        miss=miss, jerk=jerk, range_tolerance=0.2, jump=0.05, tracking_error=0.05, tracking_stop=0.4, settle_ticks=3,
        fault_ticks=6, hang_ticks=9, active_ms=400.0,
    )  # fmt: skip
    guard.reset([0.0, 0.0])
    lo, hi, w, h = (np.array([getattr(cell, key) for cell in guard.lattice]) for key in ("lo", "hi", "w", "h"))
    sent = [guard.motion[0].astype(np.int64)] * 2
    out = np.empty(2, np.float32)
    for kind, noise in script(rng, 500):
        if kind == "estop":
            guard.estop()
        elif kind == "clear":
            guard.clear()
        command = here(guard) + 0.003 * noise
        if kind == "far":
            command = 3.0 * noise
        elif kind == "nan":
            command[rng.integers(2)] = rng.choice([np.nan, np.inf, -np.inf])
        elif kind == "hold":
            command = here(guard)
        measured = here(guard) + (noise if kind == "sensor" else 0.0)
        verdict = guard.miss(out) if kind == "miss" else guard.step_into(command, out, position=measured)
        raw = out.astype(np.float64) / guard.quanta
        sent.append(raw.astype(np.int64))
        assert np.array_equal(raw, sent[-1])
        assert ((lo <= sent[-1]) & (sent[-1] <= hi)).all()
        assert (np.abs(sent[-1] - sent[-2]) <= w).all()
        assert (np.abs(sent[-1] - 2 * sent[-2] + sent[-3]) <= h).all()
        assert (verdict.status is Status.ESTOP) == (guard.state is State.ESTOP)
        if guard.state >= State.BRAKE:
            assert verdict.status in (Status.BRAKE, Status.HOLD, Status.ESTOP)
            assert verdict.rules
        assert verdict.state is guard.state
        assert math.isfinite(verdict.intervention) or verdict.status >= Status.BRAKE
