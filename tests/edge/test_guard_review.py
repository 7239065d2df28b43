"""What an adversarial review of the wired guard found: one test for each way it could be fooled, stuck, or overrun."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kizzasi_edge.errors import GuardrailError, InputError
from kizzasi_edge.guardrails import Event, Guardrails, State, Status
from kizzasi_edge.guardrails.lattice import jerk_quanta

RATE = 500.0
F32 = npt.NDArray[np.float32]


def guard_of(n: int = 2, *, miss: int = 3, command: str = "position", **faults: Any) -> Guardrails:
    builder = Guardrails.builder(rate_hz=RATE, miss_budget=miss, velocity_scale=1.0, command=command)
    for i in range(n):
        builder.joint(f"j{i}", position=(-1.0, 1.0), velocity=2.0, acceleration=20.0)
    return (builder.faults(**faults) if faults else builder).build()


def here(guard: Guardrails) -> npt.NDArray[np.float64]:
    return np.asarray(guard.motion[0] * guard.quanta)


def at_full_speed(guard: Guardrails) -> None:
    """On the way to +1 at w."""
    guard.reset(np.full(len(guard.joints), -0.9))
    cells = guard.lattice
    while (guard.motion[1] < [cell.w for cell in cells]).any():
        guard.step(np.full(len(cells), 1.0), position=here(guard))


class Sent:
    """The values sent so far, judged in integers."""

    def __init__(self, guard: Guardrails) -> None:
        q, v = guard.motion
        self.guard = guard
        self.last, self.step = q.astype(np.int64), v.astype(np.int64)
        self.w, self.h = (np.array([getattr(cell, key) for cell in guard.lattice]) for key in ("w", "h"))

    def add(self, out: F32) -> None:
        raw = out.astype(np.float64) / self.guard.quanta
        q = raw.astype(np.int64)
        assert np.array_equal(raw, q)
        step = q - self.last
        assert (np.abs(step) <= self.w).all(), (step, self.w)
        assert (np.abs(step - self.step) <= self.h).all(), (step, self.step, self.h)
        self.last, self.step = q, step


# ---- values that are not admissible ----------------------------------------------------------------------------------


def test_a_derated_guard_that_stands_on_the_node_brakes_no_harder_than_it_may() -> None:
    """Derated, the last applied step may still be above the speed allowed: rebase must believe it."""
    guard = guard_of(tracking_error=0.05, tracking_stop=0.5)
    at_full_speed(guard)
    sent, out = Sent(guard), np.empty(2, np.float32)
    for _ in range(60):
        guard.rebase(*guard.motion)  # the node has applied just what was sent
        guard.step_into([1.0, 1.0], out, position=here(guard) - 0.06)
        sent.add(out)
        assert guard.state is State.DERATED
    assert guard.motion[1].tolist() == [cell.w // 2 for cell in guard.lattice]


@pytest.mark.parametrize("state", [State.DERATED, State.RECOVERY, State.REARM])
@pytest.mark.parametrize("huge", [1e300, -1e39])
@pytest.mark.filterwarnings("ignore:overflow")
def test_what_float32_cannot_hold_is_not_finite_in_any_state(state: State, huge: float) -> None:
    guard = guard_of(tracking_error=0.05)
    at_full_speed(guard)
    out = np.empty(2, np.float32)
    if state is State.DERATED:
        guard.step([1.0, 1.0], position=here(guard) - 0.06)
    elif state is State.RECOVERY:
        guard.reset([1.5, 1.5])
        for _ in range(5):
            guard.step([0.0, 0.0], position=[1.5, 1.5])
    else:
        guard.estop()
        while guard.state is not State.REARM:
            guard.step([0.0, 0.0], position=here(guard))
            guard.clear()
    assert guard.state is state
    sent = Sent(guard)
    for _ in range(5):
        verdict = guard.step_into(np.array([huge, 0.0]), out, position=here(guard))
        sent.add(out)
        assert verdict.state in (State.HOLD, State.BRAKE, State.REARM)
        assert np.isinf(verdict.intervention)


def test_joints_that_brake_together_do_so_when_derated() -> None:
    """Two joints of unlike acceleration, held together by a rule on their velocities, at full speed when derated."""
    guard = coupled_by_velocity()
    guard.reset([-0.9, -0.9])
    for _ in range(200):
        guard.step([2.0, 2.0], position=here(guard))
    steps = guard.motion[1] * guard.quanta * RATE
    assert steps.min() > 1.2
    while guard.motion[1].max() > guard.lattice[0].w // 2 + 1 or not guard.faults.events[Event.TRACKING_WARN]:
        _, verdict = guard.step([2.0, 2.0], position=here(guard) - 0.06)
        speed = guard.motion[1] * guard.quanta * RATE
        assert abs(speed[0] - speed[1]) <= 0.3
        assert verdict.state is State.DERATED


def coupled_by_velocity() -> Guardrails:
    builder = Guardrails.builder(rate_hz=RATE, velocity_scale=1.0)
    builder.joint("slow", position=(-1.0, 1.0), velocity=2.0, acceleration=5.0)
    builder.joint("fast", position=(-1.0, 1.0), velocity=2.0, acceleration=50.0)
    builder.constraint("linear", "together", a={"slow": 1.0, "fast": -1.0}, min=-0.3, max=0.3, on="velocity")
    return builder.faults(tracking_error=0.05, tracking_stop=9.0).build()


@pytest.mark.parametrize(
    "wrong", [{"stamp_ns": 0}, {"velocity": [0.0]}, {"signals": {"x": 1.0}}, {"position": [np.nan, 0.0]}]
)
def test_a_first_step_that_is_refused_has_not_begun(wrong: dict[str, Any]) -> None:
    """Else the guard would stand where the robot was when that failed, and send it back there."""
    guard = guard_of(stale_ms=10_000.0)
    good: dict[str, Any] = {"position": [0.5, 0.5], "stamp_ns": time.monotonic_ns()}
    with pytest.raises((InputError, GuardrailError)):
        guard.step([0.5, 0.5], **{**good, **wrong})
    u, _ = guard.step([0.0, 0.0], **{**good, "position": [0.0, 0.0], "stamp_ns": time.monotonic_ns()})
    assert u.tolist() == [0.0, 0.0]


# ---- ways to get stuck -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cause", ["estop", "active"])
def test_a_latched_guard_that_watches_its_own_activity_can_be_cleared(cause: str) -> None:
    """At rest in a latched state the guard is not "active": else the latch would feed itself for ever."""
    guard = guard_of(active_ms=20.0)
    guard.reset([0.0, 0.0])
    if cause == "estop":
        guard.estop()
        guard.step([0.0, 0.0])
    else:
        while guard.state is State.NOMINAL:
            guard.step([9.0, 9.0])
        assert guard.state is State.STOPPED
    for _ in range(50):
        guard.step(here(guard))
    guard.clear()
    states = [guard.step(here(guard))[1].state for _ in range(12)]
    assert states == [State.REARM] + [State.NOMINAL] * 11


def test_missed_periods_are_no_jump_of_the_sensor() -> None:
    """Without stamps a period is a sample; so is one without a proposal, and the joints moved on in it."""
    guard = guard_of(jump=0.001)
    at_full_speed(guard)
    out = np.empty(2, np.float32)
    for _ in range(3):
        guard.miss(out)
    verdict = guard.step(here(guard) + guard.motion[1] * guard.quanta, position=here(guard))[1]
    assert verdict.state is State.NOMINAL
    assert not guard.faults.events[Event.SENSOR_JUMP]


# ---- exceptions on the way -------------------------------------------------------------------------------------------


def test_an_exception_in_the_middle_of_a_reaction_leaves_the_latch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The drive itself breaks, in a guard that was calm: the next period must not follow as if nothing had been."""
    guard = guard_of()
    at_full_speed(guard)
    before = guard.motion[1]
    monkeypatch.setattr(guard.drive, "_out_p", None)  # no call into C returns any more
    with pytest.raises(TypeError):
        guard.step([1.0, 1.0])
    monkeypatch.undo()
    verdict = guard.step([1.0, 1.0])[1]
    assert (verdict.state, verdict.status, verdict.rules) == (State.STOPPED, Status.BRAKE, ("exception",))
    assert (guard.motion[1] < before).all()


def fallback_drives() -> Guardrails:
    """A deadline is near: joints go to a pose, whatever the model wants."""
    pytest.importorskip("ruckig")
    builder = Guardrails.builder(rate_hz=RATE, velocity_scale=1.0)
    for name in ("a", "b"):
        builder.joint(name, position=(-1.0, 1.0), velocity=2.0, acceleration=20.0)
    builder.constraint("linear", "sum", a={"a": 1.0, "b": 1.0}, max=1.0, on="velocity")
    atoms = {"near": "distance < 0.3", "home": "max(abs(position)) < 0.01"}
    keys = {"fallback": "go-to-pose", "pose": {"a": 0.0, "b": 0.0}, "time_to_go": 2.9}
    guard = builder.temporal("home", "always(near -> eventually[0,3] home)", atoms=atoms, **keys).build()
    guard.reset([0.2, 0.2])
    for _ in range(100):
        guard.step([0.2, 0.2], signals={"distance": 0.1})
    assert guard.state is State.FALLBACK
    return guard


def test_a_fallback_that_cannot_be_followed_is_heard_of() -> None:
    """From a state that this guard did not lead to, not even braking keeps the rule: that counts while it lasts."""
    guard = fallback_drives()
    q = guard.motion[0]
    step = np.array([cell.w for cell in guard.lattice], np.int32)
    for _ in range(guard.faults.limits.infeasible_ticks):
        guard.rebase(q, step)
        guard.step([0.2, 0.2], signals={"distance": 0.1})
    assert guard.faults.events[Event.INFEASIBLE] == guard.faults.limits.infeasible_ticks
    assert guard.state is State.STOPPED


def test_an_exception_while_a_fallback_drives_brakes_and_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    guard = fallback_drives()
    before = guard.motion[1]
    assert before.any()
    monkeypatch.setattr(guard.drive, "_command", None)  # nothing can be followed any more
    verdict = guard.step([0.2, 0.2], signals={"distance": 0.1})[1]
    assert (verdict.state, verdict.status) == (State.STOPPED, Status.BRAKE)
    assert (np.abs(guard.motion[1]) < np.abs(before)).all()


def test_where_a_velocity_guard_stands_stays_countable() -> None:
    """A joint measured absurdly far away, then not at all, while the guard brakes: its place must not run over."""
    guard = guard_of(command="velocity")
    for _ in range(200):
        guard.step([2.0, 2.0], position=[0.0, 0.0])
    guard.step([2.0, 2.0], position=[1e300, 1e300])
    while guard.motion[1].any():
        guard.step([2.0, 2.0], position=[np.nan, np.nan])
        assert (guard.motion[0] <= 0x3FFFFFFF).all()


@pytest.mark.parametrize("call", ["step_into", "miss"])
@pytest.mark.parametrize(
    "out", [np.empty(3, np.float32), np.empty((2, 1), np.float32), np.empty(2), np.frombuffer(bytes(8), np.float32)]
)
def test_an_answer_that_has_no_place_is_refused_before_anything_moves(call: str, out: Any) -> None:
    guard = guard_of()
    at_full_speed(guard)
    before = guard.motion
    with pytest.raises(InputError, match="out: "):
        guard.miss(out) if call == "miss" else guard.step_into([1.0, 1.0], out)
    assert all(np.array_equal(a, b) for a, b in zip(before, guard.motion, strict=True))
    assert guard.state is State.NOMINAL


@pytest.mark.parametrize(
    "command",
    [np.array(["a", "b"]), np.array([{}, 1.0], object), ["x", 1.0], [None, [1.0]]],
)
@pytest.mark.parametrize("estop", [True, False])
def test_commands_that_are_no_numbers_are_refused_and_no_wish_is_lost(command: Any, estop: bool) -> None:
    guard = guard_of()
    at_full_speed(guard)
    before = guard.motion
    if estop:
        guard.estop()
    with pytest.raises(InputError, match="command: "):
        guard.step(command)
    assert all(np.array_equal(a, b) for a, b in zip(before, guard.motion, strict=True))
    assert guard.step([1.0, 1.0])[1].state is (State.ESTOP if estop else State.NOMINAL)


@pytest.mark.parametrize("command", [np.array([0.5, None], object), [None, 0.5]])
def test_none_is_not_a_number(command: Any) -> None:
    guard = guard_of()
    at_full_speed(guard)
    assert guard.step(command)[1].rules == ("non_finite",)


@pytest.mark.parametrize(
    "command",
    [
        np.array([1, 0]),
        np.array([0.25, -0.25], np.float16),
        np.array([0.25, 9.0, -0.25, 9.0], np.float32)[::2],
        np.array([0.25, -0.25], ">f4"),
        np.array([0.25, -0.25], ">f8"),
        np.array([True, False]),
        np.array([1e38, -1e38], np.float32),
        np.array([1e-45, -1e-45], np.float32),
        [0.25, -0.25],
        (np.float64(0.25), 0),
    ],
)
def test_commands_of_any_number_type_mean_the_same(command: Any) -> None:
    guard, plain = guard_of(), guard_of()
    same = np.array([float(x) for x in command], np.float32)
    for each in (guard, plain):
        each.reset([0.1, -0.1])
    for _ in range(50):
        u, verdict = guard.step(command)
        expected, other = plain.step(same)
        assert np.array_equal(u, expected)
        assert bytes(verdict.record) == bytes(other.record)
        assert verdict.state is State.NOMINAL


# ---- everything at once, with rules that couple joints ---------------------------------------------------------------


def random_guard(rng: np.random.Generator, n: int, velocity: bool, miss: int) -> Guardrails:
    """Small numbers times powers of two, so that every rule can be judged in exact arithmetic."""
    kind = "velocity" if velocity else "position"
    builder = Guardrails.builder(rate_hz=512.0, miss_budget=miss, velocity_scale=1.0, command=kind)
    jerk = rng.integers(2)
    for i in range(n):
        most = float(rng.integers(4, 64))
        builder.joint(f"j{i}", position=(-1.0, 1.0), velocity=2.0, acceleration=most, jerk=40 * most if jerk else None)
    for k in range(int(rng.integers(1, 6))):
        on = "velocity" if velocity or rng.integers(3) == 0 else "position"
        a = {f"j{i}": float(rng.integers(-4, 5)) / 4 for i in range(n)}
        a[f"j{rng.integers(n)}"] = 1.0
        size = sum(abs(x) for x in a.values())
        builder.constraint("linear", f"row{k}", a=a, max=size * int(rng.integers(2, 12)) / 16, on=on)
    if not velocity:
        builder.faults(tracking_error=0.25, tracking_stop=64.0, jump=64.0, settle_ticks=3, fault_ticks=6, hang_ticks=9)
    return builder.build()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.booleans(), st.integers(0, 4), st.booleans())
def test_rules_hold_through_faults_misses_derating_and_rebase(
    seed: int, n: int, velocity: bool, miss: int, node: bool
) -> None:
    """On what is sent: each joint's limits, and rows on positions, always; rows on velocities from where they held."""
    rng = np.random.default_rng(seed)
    guard = random_guard(rng, n, velocity, miss)
    guard.reset(np.zeros(n))
    w, h = (np.array([getattr(cell, key) for cell in guard.lattice]) for key in ("w", "h"))
    if velocity:  # the lattice of what is sent: values are velocities
        w, h = np.array([cell.hi for cell in guard.lattice]), w
    lo, hi = (np.array([getattr(cell, key) for cell in guard.lattice]) for key in ("lo", "hi"))
    q, v = (part.astype(np.int64) for part in guard.motion)
    jerk = np.array(
        [
            jerk_quanta(limit, quantum, 512.0, 2 if velocity else 3) or 1 << 40
            for limit, quantum in zip(guard.limits, guard.quanta, strict=True)
        ]
    )
    change = np.zeros(n, np.int64)
    real = np.zeros(n)
    out = np.empty(n, np.float32)
    kinds = ["far", "near", "nan", "miss", "lost", "track", "estop", "clear", "hold"]
    for _ in range(60):
        kind = str(rng.choice(kinds, p=[0.3, 0.2, 0.1, 0.1, 0.08, 0.1, 0.02, 0.05, 0.05]))
        target = rng.uniform(-2.0, 2.0, n) * (4.0 if velocity else 1.0)
        for _ in range(int(rng.integers(1, 25))):
            if kind in ("estop", "clear"):
                getattr(guard, kind)()
            if velocity:
                command = np.zeros(n) if kind == "hold" else target
                measured = real + rng.normal(0.0, 1e-3, n) * (kind == "track")
            else:
                command = {"hold": real, "near": real + 0.002 * rng.normal(size=n)}.get(kind, target)
                measured = real + 0.3 * (kind == "track")
                if node:
                    guard.rebase(*guard.motion)
            if kind == "nan":
                command = np.where(np.arange(n) == rng.integers(n), np.nan, target)
            if kind == "lost":
                measured = np.full(n, np.nan)
            if kind == "miss":
                verdict = guard.miss(out)
            else:
                verdict = guard.step_into(command.astype(np.float32), out, position=measured)
            raw = out.astype(np.float64) / guard.quanta
            sent = raw.astype(np.int64)
            assert np.array_equal(raw, sent)
            step = sent if velocity else sent - q
            assert (np.abs(step) <= w).all()
            assert (np.abs(step - v) <= h).all(), (step - v, h)
            assert velocity or ((lo <= sent) & (sent <= hi)).all()
            kept = bool((np.abs(step - v - change) <= jerk).all())
            assert kept != ("jerk" in verdict.given_up)
            assert kept or verdict.status >= Status.BRAKE
            change = step - v
            for row in guard.rows:
                before, now, unit = (v, step, 1.0 if velocity else 512.0) if row.on == "velocity" else (q, sent, 1.0)
                value = float(row.a @ (now * guard.quanta)) * unit
                held = float(row.a @ (before * guard.quanta)) * unit <= row.b
                assert value <= row.b or not held, (row, value, verdict)
            assert verdict.state is guard.state
            q, v = sent, step
            real = real + out / 512.0 if velocity else out.astype(np.float64)


@pytest.mark.parametrize("n", [1, 16])
@pytest.mark.parametrize("miss", [0, 255])
def test_the_fewest_and_the_most_joints_and_missed_periods(n: int, miss: int) -> None:
    guard = guard_of(n, miss=miss, hang_ticks=1000)
    at_full_speed(guard)
    sent, out = Sent(guard), np.empty(n, np.float32)
    top = guard.motion[1].copy()
    for k in range(miss + 200):
        verdict = guard.miss(out)
        sent.add(out)
        coasting = k < miss
        assert verdict.state is (State.HOLD if coasting else State.BRAKE)
        assert not coasting or np.array_equal(guard.motion[1], top)
    assert not guard.motion[1].any()
    assert (np.abs(here(guard)) <= 1.0).all()
