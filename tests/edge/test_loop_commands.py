"""The loop with commands other than positions: a robot that takes velocities, and one that takes torques."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from kizzasi_edge.align import Align, Input
from kizzasi_edge.frames import Command, Observation
from kizzasi_edge.guardrails import Guardrails
from kizzasi_edge.guardrails.faults import Event, State
from kizzasi_edge.joints import measured_names
from kizzasi_edge.loop import Loop
from kizzasi_edge.recorder import Recorder

EXAMPLE = Path(__file__).parents[2] / "examples" / "torque_arm"
F64 = npt.NDArray[np.float64]
FloatArray = npt.NDArray[np.float32]


class Plant:
    """A driven robot in this process: source of positions and velocities, actuator, and pace.

    ``move(command)`` advances the physics by one period; None: no command came.
    """

    overruns = 0

    def __init__(self, joints: tuple[str, ...], move: Callable[[F64 | None], tuple[F64, F64]]) -> None:
        self.names = (*measured_names(joints, "position"), *measured_names(joints, "velocity"))
        self.session = 0
        self.fresh = True
        self.commands: list[F64] = []
        self._move = move
        self._next: F64 | None = None
        self._valid = np.ones(len(self.names), np.bool_)

    def open(self) -> None: ...

    def close(self) -> None: ...

    def prepare(self, guard: Guardrails, rate_hz: float) -> None: ...

    def wait(self, timeout_s: float = 1.0) -> int:
        q, v = self._move(self._next if self.session else None)
        self._next = None
        if self.fresh:
            values = np.concatenate([q, v]).astype(np.float32)
            self.seen = Observation(time.monotonic_ns(), 0, self.names, values, self._valid)
        else:
            self.seen = Observation(1, 0, self.names, self.seen.values, self._valid)
        return 1

    def read(self) -> Observation | None:
        return self.seen

    @property
    def counters(self) -> Mapping[str, int]:
        return {}

    def findings(self, rate_hz: float, joints: int) -> list[tuple[bool, str]]:
        return []

    def place(self, position: np.ndarray) -> None: ...

    def motion(self) -> None:
        """It does not say what it applied."""

    @property
    def state(self) -> str:
        return "ARMED" if self.session else "READY"

    def write(self, command: Command) -> None:
        self.commands.append(command.values.astype(np.float64))
        self._next = self.commands[-1]

    def idle(self) -> None: ...

    def arm(self) -> None:
        self.session = 1

    def disarm(self) -> None:
        self.session = 0

    def estop(self) -> None:
        self.session = 0

    def clear(self) -> None: ...

    @property
    def status(self) -> Mapping[str, object]:
        return {}


class Proposer:
    """A policy made of a function of all inputs."""

    def __init__(self, outputs: tuple[str, ...], propose: Callable[[FloatArray], npt.ArrayLike]) -> None:
        self.output_names = outputs
        self._propose = propose

    def propose(self, x: FloatArray) -> FloatArray:
        return np.asarray(self._propose(x), np.float32)

    def reset(self) -> None: ...


def loop_of(guard: Guardrails, plant: Plant, policy: Proposer) -> Loop:
    n, stale_ns = len(guard.joints), 10**12
    align = Align(plant.names, [Input("robot", plant, {}, stale_ns)])
    return Loop(policy, guard, align, plant, plant, Recorder(2000, 2 * n, n, n))


@pytest.mark.parametrize("seed", range(3))
def test_velocities_stop_before_the_ends_of_the_range(seed: int) -> None:
    rate, reach, speed, brake = 200.0, (0.8, 0.5), 1.5, 8.0
    builder = Guardrails.builder(rate_hz=rate, velocity_scale=1.0, command="velocity")
    for name, most in zip("ab", reach, strict=True):
        builder.joint(name, position=(-most, most), velocity=speed, acceleration=brake)
    guard = builder.build()
    assert guard.measures == ("position",)
    q, v, missed = np.zeros(2), np.zeros(2), 0

    def move(command: F64 | None) -> tuple[F64, F64]:
        """Drives that follow at once; without a command they coast while the guard has left room, then brake."""
        nonlocal q, v, missed
        missed = 0 if command is not None else missed + 1
        if command is not None:
            v = command
        elif missed > guard.miss_budget:
            v = np.sign(v) * np.maximum(np.abs(v) - brake / rate, 0)
        q = q + v / rate
        return q, v

    rng = np.random.default_rng(seed)
    plant = Plant(("a", "b"), move)
    held = np.zeros(2)

    def bang(_: FloatArray) -> F64:
        nonlocal held
        if rng.random() < 0.02:
            held = rng.choice([-9.0, 0.7, 9.0], 2)
        return held

    loop = loop_of(guard, plant, Proposer(("b/velocity", "a"), bang))
    for _ in range(3):
        loop.tick()
    plant.arm()
    where = []
    for k in range(1200):
        if k % 100 == 60:
            plant.fresh = False
        elif k % 100 == 60 + 2:
            plant.fresh = True
        loop.tick()
        where.append(q.copy())
    reached = np.abs(where).max(axis=0)
    assert (reached <= reach).all()
    assert (reached > 0.9 * np.array(reach)).all(), "the limits were never tried"
    sent = np.array(plant.commands)
    assert np.abs(sent).max() <= speed
    assert guard.faults.events[Event.STALE] == 24
    assert guard.state is State.NOMINAL
    assert loop.stats.interventions["position"] > 0


def test_torques_keep_the_arm_inside_its_limits() -> None:
    pytest.importorskip("pinocchio")
    pytest.importorskip("mujoco")
    from kizzasi_edge.demo.torque_physics import HOME, TorqueArm, adversary

    guard = Guardrails.load(EXAMPLE / "arm.guard.toml")
    assert guard.measures == ("position", "velocity")
    arm = TorqueArm()
    arm.reset(HOME)
    n, dt, effort = (
        len(guard.joints),
        1 / guard.rate_hz,
        np.array([limit.hi * limit.quantum for limit in guard.lattice]),
    )

    def move(command: F64 | None) -> tuple[F64, F64]:
        if command is not None:
            arm.step(command, dt)
        return arm.q.copy(), arm.v.copy()  # not armed: its brakes hold it

    plant = Plant(guard.joints, move)
    push = adversary("random", effort, 1)
    loop = loop_of(
        guard,
        plant,
        Proposer(
            tuple(f"{joint}/effort" for joint in guard.joints), lambda x: push(x[:n].astype(float), x[n:].astype(float))
        ),
    )
    for _ in range(3):
        loop.tick()
    plant.arm()
    for _ in range(400):
        loop.tick()
    assert len(plant.commands) == 400
    assert (np.abs(plant.commands) <= effort).all()
    assert not arm.overloads.any()
    assert min(arm.margins.values()) >= 0
    assert np.abs(arm.q - HOME).max() > 0.1, "it did not move"
