"""The guard as a user calls it, one case for each kind of file: what it costs, what it does, what memory it takes."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from qp_peers import JOINTS, Problem, quadratics_problem, rows_problem
from racing import Call, feed

from kizzasi_edge.demo.expert import HOME
from kizzasi_edge.errors import MissingExtra
from kizzasi_edge.guardrails import Guardrails, State, Status
from kizzasi_edge.guardrails.bones import PoseDrive
from kizzasi_edge.guardrails.builder import Builder
from kizzasi_edge.guardrails.torque import TorqueDrive

RATE_HZ, PERIOD = 500, 512
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SIGNALS = {"distance": 1.0}
NEVER = "distance < 0.3"
"""A trigger that never holds."""


@dataclass(frozen=True)
class Given:
    """How a step, or step_into, is called with one period's inputs: the command, and what is measured."""

    step: Callable[[Any, Any], Any]
    into: Callable[[Any, Any, Any], Any]


COMMAND = Given(lambda f, x: f(x[0]), lambda f, x, out: f(x[0], out))
WITH_SIGNALS = Given(lambda f, x: f(x[0], signals=SIGNALS), lambda f, x, out: f(x[0], out, signals=SIGNALS))
WITH_POSITION = Given(lambda f, x: f(x[0], position=x[1]), lambda f, x, out: f(x[0], out, position=x[1]))
WITH_MOTION = Given(
    lambda f, x: f(x[0], position=x[1], velocity=x[2]), lambda f, x, out: f(x[0], out, position=x[1], velocity=x[2])
)


@dataclass(frozen=True, eq=False)
class GuardCase:
    """``make``: a new guard that has been reset. ``inputs``: one of each period; the last leads on to the first."""

    make: Callable[[], Guardrails]
    inputs: Sequence[tuple[np.ndarray, ...]]
    given: Given = COMMAND


def stream(scale: float, seed: int, width: int = JOINTS, harmonics: int = 3) -> np.ndarray:
    """One second of smooth commands (PERIOD, width) around 0, a closed curve, of about ``scale`` in each joint."""
    rng = np.random.default_rng(seed)
    phase = 2 * np.pi * np.arange(PERIOD) / PERIOD
    waves = [
        rng.normal(size=width) * np.sin(k * phase[:, None] + rng.uniform(0, 7, width)) for k in range(1, harmonics + 1)
    ]
    curve = np.sum(waves, axis=0)
    return np.ascontiguousarray(curve * scale / curve.std())


def joints(
    command: str = "position", half: float = 2.9, velocity: float = 20.0, acceleration: float = 300.0
) -> Builder:
    builder = Guardrails.builder(rate_hz=RATE_HZ, velocity_scale=1.0, command=command)
    for i in range(JOINTS):
        builder.joint(f"j{i}", position=(-half, half), velocity=velocity, acceleration=acceleration)
    return builder


def built(builder: Builder, start: np.ndarray | None = None) -> Guardrails:
    guard = builder.build()
    guard.reset(np.zeros(JOINTS) if start is None else start)
    return guard


def plain_guard(start: np.ndarray) -> Guardrails:
    return built(joints(), start)


def coupled(p: Problem) -> Guardrails:
    """The rules of a projection, and joints so fast that nothing else stands in the way."""
    builder = joints(half=float(p.half[0]), velocity=200.0, acceleration=50_000.0)
    names = [f"j{i}" for i in range(JOINTS)]
    for k, (a, b) in enumerate(zip(p.a, p.b, strict=True)):
        builder.constraint("linear", f"row {k}", a=dict(zip(names, a.tolist(), strict=True)), max=float(b))
    for k, q in enumerate(p.q):
        builder.constraint("quadratic", f"quadratic {k}", joints=names, matrix=((q + q.T) / 2).tolist(), max=1.0)
    return built(builder)


def with_deadline(start: np.ndarray, trigger: str, seconds: int) -> Guardrails:
    atoms = {"near": trigger, "stopped": "max(abs(velocity)) <= 0"}
    return built(joints().temporal("stop", f"always(near -> eventually[0,{seconds}] stopped)", atoms=atoms), start)


def with_three_rules(start: np.ndarray) -> Guardrails:
    """A deadline, a row in every period, and a rule that is only watched."""
    builder = joints().temporal("fast", "always fast", atoms={"fast": "norm(velocity) < 50"}, mode="monitor")
    builder.temporal("apart", "always apart", atoms={"apart": "position.j0 - position.j1 <= 2"})
    atoms = {"near": NEVER, "stopped": "max(abs(velocity)) <= 0"}
    return built(builder.temporal("stop", "always(near -> eventually[0,1] stopped)", atoms=atoms), start)


def watching(start: np.ndarray) -> Guardrails:
    return built(joints().faults(jump=0.05, range_tolerance=0.1, tracking_error=0.5, tracking_stop=1.0), start)


def torques(speed: float, push: float) -> GuardCase:
    """The torque example's arm at home, moving at ``speed`` of its limits, held by torques that are wrong by about
    1 N·m and pushed by ``push`` of its efforts. Raises MissingExtra without pinocchio."""

    def make() -> Guardrails:
        guard = Guardrails.load(EXAMPLES / "torque_arm" / "arm.guard.toml")
        guard.reset(HOME)
        return guard

    drive = make().drive
    assert isinstance(drive, TorqueDrive)
    moving = np.array([speed * limit.velocity for limit in drive.limits])
    held = drive.dynamics.bias(HOME, moving) + push * drive.effort
    commands = (held + stream(1.0, 5, len(HOME))).astype(np.float32)
    return GuardCase(make, [(command, HOME, moving) for command in commands], WITH_MOTION)


def poses() -> GuardCase:
    """The skeleton example's rest pose, every coordinate off by about 2 cm."""
    file = EXAMPLES / "skeleton" / "skeleton.guard.toml"
    drive = Guardrails.load(file).drive
    assert isinstance(drive, PoseDrive)
    rest = drive.pose.ravel()
    commands = (rest + stream(0.02, 6, len(rest), harmonics=1)).astype(np.float32)
    return GuardCase(lambda: Guardrails.load(file), [(command,) for command in commands])


def guard_cases() -> dict[str, GuardCase]:
    """By title. What is measured is where the last command led."""
    calm = stream(0.1, 0)
    plain = [(command,) for command in calm.astype(np.float32)]
    measured = list(zip(calm.astype(np.float32), np.roll(calm, 1, axis=0), strict=True))
    speeds = ((np.roll(calm, -1, axis=0) - calm) * RATE_HZ).astype(np.float32)
    outside = [(command,) for command in stream(1.5, 3).astype(np.float32)]
    cases = {
        "nothing active": GuardCase(lambda: plain_guard(calm[0]), plain),
        "24 rows active": GuardCase(lambda: coupled(rows_problem()), outside),
        "two quadratics active": GuardCase(lambda: coupled(quadratics_problem()), outside),
        "a deadline rule": GuardCase(lambda: with_deadline(calm[0], NEVER, 1), plain, WITH_SIGNALS),
        "a deadline running": GuardCase(lambda: with_deadline(calm[0], "distance < 2", 1800), plain, WITH_SIGNALS),
        "three temporal rules": GuardCase(lambda: with_three_rules(calm[0]), plain, WITH_SIGNALS),
        "[faults] on joints": GuardCase(lambda: watching(calm[0]), measured, WITH_POSITION),
        "velocities": GuardCase(
            lambda: built(joints("velocity"), calm[0]), list(zip(speeds, calm, strict=True)), WITH_POSITION
        ),
        "poses": poses(),
    }
    try:
        cases["torques"] = torques(0.0, 0.0)
        cases["torques, projected"] = torques(0.98, 0.3)
    except MissingExtra as missing:
        print(f"left out: torques: {missing}")
    return cases


def contenders(case: GuardCase) -> tuple[dict[str, Call], float]:
    """What races, and the share of commands that the guard changed. AssertionError where it left NOMINAL."""
    guard = case.make()
    verdicts = [case.given.step(guard.step, x)[1] for x in case.inputs * 2][
        PERIOD:
    ]  # in the first round it starts from rest
    assert {verdict.state for verdict in verdicts} == {State.NOMINAL}
    changed = np.mean([verdict.status != Status.PASS for verdict in verdicts])
    low, high = np.full(guard.shape, -3.0, np.float32), np.full(guard.shape, 3.0, np.float32)
    calls = {
        "guard.step": feed(case.inputs, lambda x: case.given.step(guard.step, x)),
        "np.clip": feed(case.inputs, lambda x: np.clip(x[0], low, high)),
    }
    return calls, float(changed)


def memory(case: GuardCase) -> dict[str, dict[str, int]]:
    """Bytes that one step_into, and one miss, leaves behind, and the most it takes meanwhile; by tracemalloc, less what
    an empty function called in the same way takes."""
    guard = case.make()
    out = np.empty(guard.shape, np.float32)
    stepping, nothing = (
        traced(feed(case.inputs, lambda x, each=each: case.given.into(each.step_into, x, out)))
        for each in (guard, Nothing())
    )
    return {"step_into": less(stepping, nothing), "miss": less(traced(lambda: guard.miss(out)), traced(lambda: None))}


class Nothing:
    def step_into(
        self, command: Any, out: Any, *, position: Any = None, velocity: Any = None, signals: Any = None
    ) -> None:
        pass


def traced(call: Call) -> dict[str, int]:
    for _ in range(2 * PERIOD):
        call()
    tracemalloc.start()
    try:
        # Python keeps freed objects for later ones: a window of calls may grow by some, but not every window.
        kept = min(growth(call) for _ in range(4))
        return {"kept": kept, "transient": int(np.median([transient(call) for _ in range(PERIOD)]))}
    finally:
        tracemalloc.stop()


def growth(call: Call) -> int:
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(PERIOD):
        call()
    return tracemalloc.get_traced_memory()[0] - before


def transient(call: Call) -> int:
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    call()
    return tracemalloc.get_traced_memory()[1] - before


def less(found: dict[str, int], empty: dict[str, int]) -> dict[str, int]:
    return {key: value - empty[key] for key, value in found.items()}
