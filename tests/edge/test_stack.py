"""The guard as a user holds it: what it says of itself, what it refuses in which words, and what it counts."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kizzasi_edge.errors import GuardrailError, InputError
from kizzasi_edge.guardrails import Event, Guardrails, State, Status

RATE = 250.0
OUT = np.empty(2, np.float32)
HOUR = 3600 * 1_000_000_000


def guard_of(n: int = 2, *, command: str = "position", ranged: bool = True, **faults: Any) -> Guardrails:
    builder = Guardrails.builder(rate_hz=RATE, velocity_scale=1.0, command=command)
    for i in range(n):
        builder.joint(f"j{i}", position=(-1.0, 1.0) if ranged else None, velocity=2.0, acceleration=20.0)
    return (builder.faults(**faults) if faults else builder).build()


def with_rule(mode: str = "monitor", **keys: Any) -> Guardrails:
    builder = Guardrails.builder(rate_hz=RATE, velocity_scale=1.0)
    for name in ("a", "b"):
        builder.joint(name, position=(-1.0, 1.0), velocity=2.0, acceleration=20.0)
    builder.constraint("linear", "sum", a={"a": 1.0, "b": 1.0}, max=1.5)
    builder.temporal("far", "always far", atoms={"far": "distance > 0.5"}, mode=mode, **keys)
    return builder.build()


def pose_guard(n: int = 2) -> Guardrails:
    """Of a chain of so many nodes."""
    builder = Guardrails.builder(rate_hz=RATE)
    bones = {f"n{i}": {"parent": f"n{i - 1}", "length": 0.5, "direction": [0, 0, 1]} for i in range(1, n)}
    builder.constraint("bones", "body", tree={"n0": {}, **bones}, root_speed=1.0, turn_speed=3.0)
    return builder.build()


# ---- what it says of itself ------------------------------------------------------------------------------------------


def test_what_a_guard_is() -> None:
    guard = guard_of(3, hang_ticks=5)
    assert (guard.joints, guard.output_names, guard.shape) == (("j0", "j1", "j2"), ("j0", "j1", "j2"), (3,))
    assert (guard.rate_hz, guard.command, guard.where, guard.hang_s) == (RATE, "position", "builder", 5 / RATE)
    assert (guard.measures, guard.signals, guard.miss_budget, guard.state) == ((), (), 3, State.NOMINAL)
    assert guard.quanta.tolist() == [cell.quantum for cell in guard.lattice]
    assert isinstance(guard.rate_hz, float)
    assert Guardrails(guard.spec).where == "guard"
    assert (
        Guardrails.builder(rate_hz=RATE, miss_budget=7)
        .joint("a", velocity=2, acceleration=9, position=(0, 1))
        .build()
        .miss_budget
        == 7
    )
    scaled = Guardrails.builder(rate_hz=RATE).joint("a", velocity=2, acceleration=9, position=(0, 1)).build()
    assert (scaled.limits[0].velocity, scaled.miss_budget) == (1.8, 3)


@pytest.mark.parametrize(
    ("command", "faults", "measures"),
    [
        ("position", {}, ()),
        ("position", {"stale_ms": 9}, ()),
        ("position", {"jump": 0.1}, ("position",)),
        ("velocity", {}, ("position",)),
        ("velocity", {"jump": 0.1}, ("position",)),
    ],
)
def test_what_it_needs_every_period(command: str, faults: dict[str, Any], measures: tuple[str, ...]) -> None:
    assert guard_of(command=command, **faults).measures == measures


def test_explained_in_paragraphs() -> None:
    text = with_rule().explain()
    heads = [part.split("\n")[0] for part in text.split("\n\n")]
    assert heads[0].startswith("Guard of 2 joints from builder")
    rule = next(i for i, head in enumerate(heads) if "temporal rule" in head)
    faults = next(i for i, head in enumerate(heads) if head.startswith("When something is wrong"))
    assert 0 < rule < faults == len(heads) - 1
    assert "temporal rule" not in guard_of().explain()
    assert "Every step needs the receive time of the oldest input." in guard_of(stale_ms=9).explain()
    first = "The first step needs measured positions."
    assert first in guard_of().explain()
    assert first not in guard_of(jump=0.1).explain()
    assert first not in guard_of(command="velocity", ranged=False).explain()


# ---- refused, in these words -----------------------------------------------------------------------------------------

SHORT = [f"n{i}/{axis}" for i in range(17) for axis in "xyz"][:16]


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (InputError, "command: found shape (1,); expected (2,), for ['j0', 'j1']", lambda g: g.step([0.0])),
        (InputError, "command: could not convert string to float: 'x'; expected numbers", lambda g: g.step(["x", "y"])),
        (InputError, "velocity: found shape (1,); expected (2,), for ['j0', 'j1']",
         lambda g: g.step([0.0, 0.0], velocity=[0.0])),
        (GuardrailError, "builder: signals ['x', 'y'] are given, but no rule reads a signal",
         lambda g: g.step([0.0, 0.0], signals={"y": 1.0, "x": 1.0})),
        (InputError, "out: found float32 (3,); expected float32 (2,)",
         lambda g: g.step_into([0.0, 0.0], np.empty(3, np.float32))),
        (InputError, "out: found float64 (2,); expected float32 (2,)", lambda g: g.step_into([0.0, 0.0], np.empty(2))),
        (InputError, "out: found read-only float32 (2,); expected float32 (2,)",
         lambda g: g.miss(np.frombuffer(bytes(8), np.float32))),
        (InputError, "position: found shape (3,); expected (2,), for ['j0', 'j1']", lambda g: g.reset([0.0] * 3)),
        (InputError, "position[1] (j1): found nan; expected a finite number", lambda g: g.reset([0.0, np.nan])),
        (InputError, "position[0] (j0): found nan; expected a finite number", lambda g: g.reset([None, 0.0])),
    ],
)  # fmt: skip
def test_the_words_of_a_refusal(error: type[Exception], message: str, call: Callable[[Guardrails], Any]) -> None:
    guard = guard_of()
    guard.reset([0.25, 0.25])
    before = guard.motion
    with pytest.raises(error) as refused:
        call(guard)
    assert str(refused.value) == message
    assert all(np.array_equal(a, b) for a, b in zip(before, guard.motion, strict=True))
    assert guard.step([0.25, 0.25])[1].status is Status.PASS


@pytest.mark.parametrize(
    ("make", "error", "message", "call"),
    [
        (guard_of, GuardrailError, "builder: the first step needs position=, the measured positions of ['j0', 'j1']",
         lambda g: g.step([0.0, 0.0])),
        (guard_of, GuardrailError, "builder: a guard that has no position yet cannot coast or brake",
         lambda g: g.miss(OUT)),
        (lambda: guard_of(jump=0.1), GuardrailError, "builder: position=: missing; this guard needs it every period",
         lambda g: (g.reset([0, 0]), g.step([0.0, 0.0]))),
        (lambda: guard_of(stale_ms=9), InputError,
         "stamp_ns: missing; [faults] stale_ms and clock_jump_ms need the inputs' receive time",
         lambda g: (g.reset([0, 0]), g.step([0.0, 0.0]))),
        (with_rule, GuardrailError, "builder: signals ['x'] are given; the rules read ['distance']",
         lambda g: (g.reset([0, 0]), g.step([0.0, 0.0], signals={"x": 1.0, "distance": 1.0}))),
        (lambda: pose_guard(17), InputError, f"position: found shape (1,); expected (51,), for {SHORT}",
         lambda g: g.reset([0.0])),
        (pose_guard, GuardrailError, "builder: [constraint] 'body': no node applies poses",
         lambda g: g.rebase(np.zeros(6, np.int32), np.zeros(6, np.int32))),
        (pose_guard, GuardrailError, "builder: pose commands have no motion in quanta", lambda g: g.motion),
    ],
)  # fmt: skip
def test_the_words_of_a_refusal_by_guard(
    make: Callable[[], Guardrails], error: type[Exception], message: str, call: Callable[[Guardrails], Any]
) -> None:
    guard = make()
    with pytest.raises(error) as refused:
        call(guard)
    assert str(refused.value) == message


# ---- one period ------------------------------------------------------------------------------------------------------


def test_a_velocity_guard_without_ranges_starts_anywhere() -> None:
    out, verdict = guard_of(command="velocity", ranged=False).step([0.05, 0.0])
    assert (out.tolist(), verdict.status) == ([pytest.approx(0.05), 0.0], Status.PASS)


def test_a_pose_needs_no_measurement_to_start() -> None:
    guard = pose_guard()
    out, verdict = guard.step(np.zeros(6))
    assert np.isfinite(out).all()
    assert verdict.state is State.NOMINAL
    assert pose_guard().miss(np.empty(6, np.float32)).cause == Event.LATE


def test_a_rebase_is_a_place_to_start_from() -> None:
    guard = guard_of()
    guard.rebase(np.array([1 << 20, 0], np.int32), np.zeros(2, np.int32))
    assert guard.miss(OUT).status is Status.HOLD
    assert guard.motion[0].tolist() == [1 << 20, 0]


def test_stamps_come_back() -> None:
    guard = guard_of()
    guard.reset([0.0, 0.0])
    assert guard.step([0.0, 0.0], stamp_ns=5)[1].stamp_ns == 5
    assert guard.step([0.0, 0.0])[1].stamp_ns == 0
    assert guard.step_into([0.0, 0.0], OUT, stamp_ns=6).stamp_ns == 6
    assert guard.step_into([0.0, 0.0], OUT).stamp_ns == 0
    assert guard.miss(OUT, stamp_ns=7).stamp_ns == 7
    assert guard.miss(OUT).stamp_ns == 0
    ruled = with_rule()
    ruled.reset([0.0, 0.0])
    assert ruled.step([0.0, 0.0], signals={"distance": 1.0}, stamp_ns=8)[1].stamp_ns == 8


def test_stamps_are_looked_at_by_either_call() -> None:
    guard = guard_of(stale_ms=600_000)
    guard.reset([0.0, 0.0])
    assert guard.step_into([0.0, 0.0], OUT, stamp_ns=time.monotonic_ns()).state is State.NOMINAL
    assert guard.step_into([0.0, 0.0], OUT, stamp_ns=time.monotonic_ns() - HOUR).cause & Event.STALE


def cleared(**faults: Any) -> Guardrails:
    """After an emergency stop, waiting for a proposal that asks for no motion."""
    guard = guard_of(**faults)
    guard.reset([0.0, 0.0])
    given: dict[str, Any] = {"position": [0.0, 0.0]}
    guard.estop()
    guard.step([0.5, 0.5], **given)
    guard.clear()
    assert guard.step([0.5, 0.5], **given)[1].state is State.REARM
    return guard


def test_waiting_to_be_rearmed_is_not_activity() -> None:
    guard = cleared(active_ms=40)
    assert {guard.step([0.5, 0.5])[1].state for _ in range(50)} == {State.REARM}


def test_a_fault_in_the_period_that_would_rearm_is_not_lost() -> None:
    guard = cleared(jump=0.01)
    verdict = guard.step([0.0, 0.0], position=[0.9, 0.0])[1]
    assert guard.faults.events[Event.SENSOR_JUMP] == 1
    assert verdict.state is not State.NOMINAL


def test_a_live_verdict_knows_the_rules_too() -> None:
    guard = with_rule()
    guard.reset([0.0, 0.0])
    assert guard.step_into([0.0, 0.0], OUT, signals={"distance": 1.0}).violated == ()
    assert guard.miss(OUT).violated == ()  # the last signals hold on
    assert guard.step_into([0.0, 0.0], OUT, signals={"distance": 0.1}).violated == ("far",)
    guard.reset([0.0, 0.0])
    assert guard.step_into([0.0, 0.0], OUT, signals={"distance": 1.0}).violated == ()
    assert guard.miss(OUT, Event.HEARTBEAT_LOSS).violated == ("far",)  # who has gone tells us nothing any more


def test_what_a_reset_forgets() -> None:
    guard = guard_of(active_ms=40, jump=0.01)
    for _ in range(3):
        guard.reset([0.0, 0.0])
        for _ in range(8):
            guard.step([9.0, 9.0], position=[0.0, 0.0])
        assert guard.state is State.NOMINAL
    guard.reset([0.9, 0.9])
    guard.estop()
    guard.reset([0.9, 0.9])
    assert guard.step([0.9, 0.9], position=[0.9, 0.9])[1].state is State.NOMINAL  # no jump, and no wish from before
    assert guard.faults.events[Event.SENSOR_JUMP] == 0


def test_derated_only_until_reset() -> None:
    guard = guard_of(tracking_error=0.05)
    guard.reset([-0.5, -0.5])
    guard.step([1.0, 1.0], position=[0.5, 0.5])
    assert guard.state is State.DERATED
    guard.reset([-0.9, -0.9])
    for _ in range(60):
        at = guard.motion[0] * guard.quanta
        guard.step([1.0, 1.0], position=at)
    assert guard.motion[1].tolist() == [cell.w for cell in guard.lattice]


@pytest.mark.parametrize(
    ("given", "now", "event"),
    [
        ({"position": [math.nan, 0.0]}, 0, Event.SENSOR_NON_FINITE),
        ({"position": [0.0, 0.0], "velocity": [0.0, math.inf]}, 0, Event.SENSOR_NON_FINITE),
        ({"position": [0.0, 0.0]}, -HOUR, Event.STALE),
        ({"position": [0.0, 0.0]}, +HOUR, Event.CLOCK_JUMP),
    ],
)
@pytest.mark.parametrize("command", ["position", "velocity"])
def test_each_fault_is_counted_in_its_period(command: str, given: dict[str, Any], now: int, event: Event) -> None:
    guard = guard_of(command=command, stale_ms=600_000, jump=0.5)
    guard.reset([0.0, 0.0])
    guard.step([0.0, 0.0], position=[0.0, 0.0], stamp_ns=time.monotonic_ns())
    guard.step([0.0, 0.0], **given, stamp_ns=time.monotonic_ns() + now)
    assert {found for found in Event if guard.faults.events[found]} >= {event}
    assert guard.faults.events[event] == 1
    assert guard.state is not State.NOMINAL


def test_without_stamps_a_clock_is_not_watched() -> None:
    guard = guard_of(jump=0.5)
    guard.reset([0.0, 0.0])
    for stamp in (1 << 40, 1 << 50, 1 << 30):
        assert guard.step([0.0, 0.0], position=[0.0, 0.0], stamp_ns=stamp)[1].state is State.NOMINAL


def test_unmeasured_where_nothing_is_watched() -> None:
    """A velocity guard lives on positions: one that is not finite is a fault, whatever [faults] says."""
    guard = guard_of(command="velocity")
    guard.reset([0.0, 0.0])
    verdict = guard.step([0.1, 0.1], position=[math.nan, 0.0])[1]
    assert (verdict.state, verdict.cause) == (State.BRAKE, Event.SENSOR_NON_FINITE)


def test_what_float32_cannot_hold_is_infinite_without_a_warning() -> None:
    guard = guard_of()
    guard.reset([0.0, 0.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert guard.step([1e300, 0.0])[1].cause == Event.NON_FINITE


@pytest.mark.parametrize(("command", "rule"), [([math.nan, 0.0], "non_finite"), (None, "miss")])
def test_why_it_coasts_or_brakes_is_in_every_joint(command: list[float] | None, rule: str) -> None:
    guard = guard_of()
    guard.reset([0.0, 0.0])
    for _ in range(10):
        verdict = guard.miss(OUT) if command is None else guard.step(command)[1]
        assert verdict.by_joint == {"j0": (rule,), "j1": (rule,)}
    both = guard.miss(OUT, Event.NON_FINITE | Event.LATE)
    assert both.by_joint == {}


def test_an_estop_shows_at_once_and_while_it_lasts() -> None:
    guard = guard_of()
    guard.reset([0.0, 0.0])
    guard.estop()
    for _ in range(3):
        verdict = guard.step([0.5, 0.5])[1]
        assert (verdict.status, verdict.state, verdict.cause) == (Status.ESTOP, State.ESTOP, Event.ESTOP)
    guard.clear()
    verdict = guard.step([0.5, 0.5])[1]
    assert (verdict.status, verdict.state) == (Status.HOLD, State.REARM)
    verdict = guard.step([0.0, 0.0])[1]
    assert (verdict.status, verdict.state, verdict.cause) == (Status.PASS, State.NOMINAL, Event(0))


@pytest.mark.parametrize("call", ["miss", "step", "derate"])
def test_what_an_exception_says(call: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    guard = guard_of(tracking_error=0.05) if call == "derate" else with_rule()
    guard.reset([0.0, 0.0])

    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug of ours")

    if call == "derate":
        monkeypatch.setattr(type(guard.drive), "derate", broken)
    else:
        monkeypatch.setattr(guard.temporal, "update", broken)
    measured = [0.1, 0.1] if call == "derate" else None
    verdict = guard.miss(OUT) if call == "miss" else guard.step([0.0, 0.0], position=measured)[1]
    assert (verdict.state, verdict.cause & Event.EXCEPTION) == (State.STOPPED, Event.EXCEPTION)
    assert guard.faults.events[Event.LATE] == (call == "miss")
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == ("ERROR", "builder: the guard raised; it brakes and stays")
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)
