"""Torque commands on the simulated arm: its raw limits hold, whoever proposes and whatever the links weigh."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("pinocchio")
pytest.importorskip("mujoco")

from kizzasi_edge import Guardrails
from kizzasi_edge.demo.torque_physics import ADVERSARIES, HOME, TorqueArm, adversary
from kizzasi_edge.errors import GuardrailError, InputError
from kizzasi_edge.guardrails.faults import State
from kizzasi_edge.guardrails.verdict import Status

EXAMPLE = Path(__file__).parents[2] / "examples" / "torque_arm"
N = 6
DT = 0.002


@pytest.fixture(scope="module")
def guard() -> Guardrails:
    return Guardrails.load(EXAMPLE / "arm.guard.toml")


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("torque_arm_run", EXAMPLE / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def standing(guard: Guardrails, q: npt.ArrayLike = HOME, mass_scale: float = 1.0) -> TorqueArm:
    arm = TorqueArm(mass_scale=mass_scale)
    arm.reset(q)
    guard.reset(q)
    return arm


def efforts(guard: Guardrails) -> npt.NDArray[np.float64]:
    return np.array([limit.effort for limit in guard.limits])


def violations(arm: TorqueArm) -> int:
    return int(arm.witness.position.sum() + arm.witness.velocity.sum() + arm.overloads.sum())


@pytest.mark.parametrize("noise", [False, True])
@pytest.mark.parametrize("kind", list(ADVERSARIES))
def test_raw_limits_hold(example: ModuleType, guard: Guardrails, kind: str, noise: bool) -> None:
    """Saboteurs, on the lightest robot with true and on the heaviest with noisy sensors."""
    report = example.run(kind, Path(), guard, 1.2 if noise else 0.8, 0.8, guarded=True, noise=noise)
    assert report["violations"] == {"position": 0, "velocity": 0, "effort": 0}
    assert min(report["least_margin"].values()) > 0
    assert report["interventions"] > 0


def test_the_policy_needs_the_guard(example: ModuleType, guard: Guardrails, tmp_path: Path) -> None:
    """The robotics preset through onnxruntime: with the guard nothing, without it both limits broken."""
    pytest.importorskip("torch")
    model = example.export_policy(tmp_path / "torque.onnx", guard)
    guarded = example.run("policy", model, guard, 1.2, 1.0, guarded=True)
    assert set(guarded["violations"].values()) == {0}
    assert guarded["interventions"] > 0
    bare = example.run("policy", model, guard, 1.0, 1.0, guarded=False)
    assert bare["violations"]["position"] > 0
    assert bare["violations"]["velocity"] > 0


def test_limits_are_reached(guard: Guardrails) -> None:
    """The guard is not safe by standing still: stuck torques reach the guarded range and speed."""
    arm = standing(guard)
    propose, sent = adversary("stuck", efforts(guard), 1), np.zeros(N, np.float32)
    for _ in range(2500):
        guard.step_into(propose(arm.q, arm.v), sent, position=arm.q, velocity=arm.v)
        arm.step(sent, DT)
    low, high, fast = arm.witness.extremes
    lower, upper = (np.array([getattr(limit, key) for limit in guard.limits]) for key in ("lower", "upper"))
    assert (np.minimum(low - lower, upper - high) < 1e-3).sum() >= 4
    assert (fast > 0.99 * np.array([limit.velocity for limit in guard.limits])).sum() >= 4
    assert violations(arm) == 0


@pytest.mark.parametrize("where", ["command", "position", "velocity", "nothing measured"])
def test_what_is_not_there_brakes(guard: Guardrails, where: str) -> None:
    arm = standing(guard)
    arm.v[:] = [1.0, -0.5, 0.5, 1.0, -1.0, 1.0]
    values = {"command": np.zeros(N), "position": arm.q.copy(), "velocity": arm.v.copy()}
    guard.step(values["command"], position=values["position"], velocity=values["velocity"])
    before, out = np.abs(arm.v).copy(), np.zeros(N, np.float32)
    if where == "nothing measured":
        verdict = guard.miss(out)
    else:
        values[where][2] = np.nan
        command = values.pop("command")
        verdict = guard.step_into(command, out, position=values["position"], velocity=values["velocity"])
    assert verdict.status is Status.BRAKE
    assert guard.state is not State.NOMINAL
    assert np.isfinite(out).all()
    arm.step(out, DT)
    assert (np.abs(arm.v) < before).all()


def test_a_dead_policy_latches_and_leaves_the_arm_at_rest(guard: Guardrails) -> None:
    """Then clear, and the torque that holds it, heavier than the model, lets the policy back in."""
    arm = standing(guard, mass_scale=1.2)
    arm.v[:] = 1.5
    for _ in range(600):
        sent, _ = guard.step(np.full(N, np.nan), position=arm.q, velocity=arm.v)
        arm.step(sent, DT)
    assert np.abs(arm.v).max() < 0.05
    assert violations(arm) == 0
    states = [guard.state]
    for period in range(20):
        holding = arm.dynamics(arm.q, arm.v)[1]
        if period == 2:
            guard.clear()
        sent, _ = guard.step(holding, position=arm.q, velocity=arm.v)
        states.append(guard.state)
        arm.step(sent, DT)
    assert states[0] is State.ESTOP
    assert states[-1] is State.NOMINAL


def test_outside_the_limits_it_only_comes_in(guard: Guardrails) -> None:
    arm = standing(guard, [0.0, -1.5, guard.limits[2].upper + 0.1, 0.0, 0.0, 0.0])
    for _ in range(1500):
        sent, verdict = guard.step(efforts(guard), position=arm.q, velocity=arm.v)
        arm.step(sent, DT)
        assert arm.v[2] <= 0.01
        if arm.q[2] <= guard.limits[2].upper:
            return
        assert verdict.state is State.RECOVERY
    pytest.fail("it stayed outside")


def test_the_plant_sees_an_overload(guard: Guardrails) -> None:
    arm = standing(guard)
    arm.step(1.5 * efforts(guard), DT)
    assert arm.overloads.tolist() == [1] * N
    assert arm.margins["velocity"] < np.pi


def test_refusals(guard: Guardrails) -> None:
    guard.reset(HOME)
    with pytest.raises(GuardrailError, match="velocity"):
        guard.step(np.zeros(N), position=HOME)
    with pytest.raises(InputError, match="command"):
        guard.step(np.zeros(5), position=HOME, velocity=np.zeros(N))
