"""Torque commands on the simulated arm: its raw limits hold, whoever proposes and whatever the links weigh."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pinocchio")
pytest.importorskip("mujoco")

from kizzasi_edge.demo.physics import ASSETS
from kizzasi_edge.demo.torque_physics import ADVERSARIES, HOME, TorqueArm, adversary
from kizzasi_edge.errors import GuardrailError, InputError
from kizzasi_edge.guardrails.torque import TorqueGuard
from kizzasi_edge.guardrails.verdict import Status

EXAMPLE = Path(__file__).parents[2] / "examples" / "torque_arm"
N = 6
DT = 0.002


@pytest.fixture(scope="module")
def guard() -> TorqueGuard:
    return TorqueGuard.load(EXAMPLE / "arm.guard.toml")


@pytest.fixture(autouse=True)
def _fresh(guard: TorqueGuard) -> None:
    guard.reset()
    guard.interventions = guard.relaxed = guard.infeasible = 0


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("torque_arm_run", EXAMPLE / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def drive(guard: TorqueGuard, kind: str, mass_scale: float, seconds: float, seed: int) -> TorqueArm:
    """A guarded run; checks the box of every sent torque, and its lattice."""
    arm = TorqueArm(mass_scale=mass_scale)
    arm.reset(HOME)
    propose, sent = adversary(kind, guard.effort, seed), np.zeros(N, np.float32)
    for _ in range(round(seconds / DT)):
        guard.step_into(propose(arm.q, arm.v), sent, position=arm.q, velocity=arm.v)
        assert (np.abs(sent) <= guard.effort).all()
        assert ((sent.astype(np.float64) / guard.quanta) % 1.0 == 0.0).all()
        arm.step(sent, DT)
    return arm


@pytest.mark.parametrize("kind", list(ADVERSARIES))
@pytest.mark.parametrize("mass_scale", [0.8, 1.2])
def test_raw_limits_hold(guard: TorqueGuard, kind: str, mass_scale: float) -> None:
    arm = drive(guard, kind, mass_scale, seconds=1.0, seed=2)
    assert arm.witness.steps == 2000
    assert arm.witness.position.sum() == arm.witness.velocity.sum() == 0
    assert guard.interventions > 0
    assert guard.infeasible == 0


def test_limits_are_reached(guard: TorqueGuard) -> None:
    """The guard is not safe by standing still: stuck torques reach the guarded range and speed."""
    arm = drive(guard, "stuck", 1.0, seconds=5.0, seed=1)
    low, high, fast = arm.witness.extremes
    lower, upper = (np.array([getattr(limit, key) for limit in guard.limits]) for key in ("lower", "upper"))
    assert (np.minimum(low - lower, upper - high) < 1e-3).sum() >= 4
    assert (fast > 0.99 * np.array([limit.velocity for limit in guard.limits])).sum() >= 4


def test_the_policy_needs_the_guard(example: ModuleType, guard: TorqueGuard, tmp_path: Path) -> None:
    """The robotics preset through Predictor: with the guard nothing, without it both limits broken."""
    pytest.importorskip("torch")
    model = example.export_policy(tmp_path / "torque.onnx", guard)
    guarded = example.run("policy", model, guard, 1.2, 1.0, guarded=True)
    assert guarded["violations"] == {"position": 0, "velocity": 0}
    assert guarded["interventions"] > 0
    bare = example.run("policy", model, guard, 1.0, 1.0, guarded=False)
    assert bare["violations"]["position"] > 0
    assert bare["violations"]["velocity"] > 0


def test_admissible_torques_pass_unchanged(guard: TorqueGuard) -> None:
    """Gravity compensation with light damping at a slow speed is nobody's business."""
    q, v = np.array(HOME), np.full(N, 0.1)
    wanted = np.rint((guard.dynamics.bias(q, v) - 0.5 * v) / guard.quanta) * guard.quanta
    sent, verdict = guard.step(wanted, position=q, velocity=v)
    assert verdict.status is Status.PASS
    assert verdict.intervention == 0.0
    assert verdict.rules == ()
    assert np.array_equal(sent, wanted.astype(np.float32))


def test_nothing_nearer_is_admissible(guard: TorqueGuard) -> None:
    """The projection's optimality, by trial: among many admissible torques none is nearer than the sent one."""
    rng = np.random.default_rng(3)
    for _ in range(30):
        q, v = rng.uniform(-3, 3, N), rng.uniform(-2.7, 2.7, N)
        wanted = rng.uniform(-1, 1, N) * guard.effort
        sent, verdict = guard.step(wanted, position=q, velocity=v)
        if verdict.status is not Status.PROJECTED:
            continue
        rows, others = guard._last, rng.uniform(-1, 1, (2000, N)) * guard.effort
        others = sent + (others - sent) * rng.uniform(0, 1, (2000, 1)) ** 4
        feasible = [x for x in others if rows.hold(x)]
        assert feasible
        nearest = min(np.linalg.norm(x - wanted) for x in feasible)
        assert np.linalg.norm(sent - wanted) <= nearest + 1e-3


@given(
    st.lists(st.floats(-3, 3), min_size=N, max_size=N).map(np.array),
    st.lists(st.floats(-2.8, 2.8), min_size=N, max_size=N).map(np.array),
    st.integers(0, 2**32 - 1),
    st.floats(-0.2, 0.2),
)
@settings(max_examples=60, deadline=None)
def test_next_velocity_stays_in_the_window(
    guard: TorqueGuard, q: npt.NDArray[np.float64], v: npt.NDArray[np.float64], seed: int, error: float
) -> None:
    """For every mass within the error; between its ends by a tenth of the braking, which is RESERVE's to pay."""
    wanted = np.random.default_rng(seed).uniform(-1, 1, N) * guard.effort
    sent, verdict = guard.step(wanted, position=q, velocity=v)
    if verdict.status is Status.BRAKE:
        return
    model = guard.dynamics
    links = model.link_inertia(q)
    a = np.linalg.solve(
        links * (1 + error) + np.diag(model.armature), sent.astype(np.float64) - (1 + error) * model.bias(q, v)
    )
    speed = np.array([limit.velocity for limit in guard.limits])
    slack = 0.1 * guard.authority.scale * np.array([limit.acceleration for limit in guard.limits]) * DT
    braked = np.maximum(np.abs(v) - guard.acceleration * DT, speed)
    assert (np.abs(v + a * DT) <= braked + slack + 1e-9).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["command", "position", "velocity"])
def test_not_finite_brakes(guard: TorqueGuard, bad: float, where: str) -> None:
    arm = TorqueArm()
    arm.reset(HOME)
    arm.v[:] = [1.0, -0.5, 0.5, 1.0, -1.0, 1.0]
    values = {"command": np.zeros(N), "position": arm.q.copy(), "velocity": arm.v.copy()}
    guard.step(values["command"], position=values["position"], velocity=values["velocity"])
    values[where][2] = bad
    before = np.abs(arm.v).copy()
    sent, verdict = guard.step(values["command"], position=values["position"], velocity=values["velocity"])
    assert verdict.status is Status.BRAKE
    assert "non_finite" in verdict.rules if where == "command" else "unmeasured" in verdict.rules
    assert np.isfinite(sent).all()
    arm.step(sent, DT)
    assert (np.abs(arm.v) < before).all()


def test_a_dead_policy_leaves_the_arm_at_rest(guard: TorqueGuard) -> None:
    arm = TorqueArm(mass_scale=1.2)
    arm.reset(HOME)
    arm.v[:] = 1.5
    nothing = np.full(N, np.nan)
    for _ in range(600):
        sent, _ = guard.step(nothing, position=arm.q, velocity=arm.v)
        arm.step(sent, DT)
    assert np.abs(arm.v).max() < 0.05
    assert arm.witness.velocity.sum() == 0


def test_torque_rate_holds_until_braking_needs_more(guard: TorqueGuard) -> None:
    limited = TorqueGuard(guard.limits, guard.dynamics, rate_hz=500, torque_rate=5000.0, minimum_authority=0.5)
    arm, rng = TorqueArm(), np.random.default_rng(4)
    arm.reset(HOME)
    last = np.zeros(N, np.float32)
    kept = 0
    for _ in range(300):
        relaxed = limited.relaxed
        sent, _ = limited.step(rng.uniform(-1, 1, N) * limited.effort, position=arm.q, velocity=arm.v)
        if limited.relaxed == relaxed:
            assert (np.abs(sent - last) <= 5000.0 * DT + 1e-4).all()
            kept += 1
        last = sent
        arm.step(sent, DT)
    assert kept > 150
    assert limited.infeasible == 0
    assert arm.witness.position.sum() == arm.witness.velocity.sum() == 0


def test_outside_the_limits_it_only_comes_in(guard: TorqueGuard) -> None:
    arm = TorqueArm()
    arm.reset([0.0, -1.5, guard.limits[2].upper + 0.1, 0.0, 0.0, 0.0])
    for _ in range(1500):
        sent, _ = guard.step(guard.effort, position=arm.q, velocity=arm.v)
        arm.step(sent, DT)
        assert arm.v[2] <= 0.01
        if arm.q[2] <= guard.limits[2].upper:
            return
    pytest.fail("it stayed outside")


def test_refusals(guard: TorqueGuard, tmp_path: Path) -> None:
    with pytest.raises(GuardrailError, match="first step needs position= and velocity="):
        guard.step(np.zeros(N), position=HOME)
    with pytest.raises(InputError, match="command"):
        guard.step(np.zeros(5), position=HOME, velocity=np.zeros(N))
    with pytest.raises(InputError, match="velocity"):
        guard.step(np.zeros(N), position=HOME, velocity=np.zeros(2))
    text = (EXAMPLE / "arm.guard.toml").read_text().replace("../../kizzasi_edge/demo/assets", str(ASSETS))
    for old, new, words in (
        ('command = "torque"', 'command = "position"', "expected 'torque'"),
        ("minimum_authority = 0.5", "minimum_authority = 1.0", "can brake with only"),
        ("mass_error = 0.2", "mass_error = 1.2", "mass_error"),
        ("mass_error", "mas_error", "unknown key"),
        ("armature = [", "armature = [0.1, ", "found 7 values"),
    ):
        assert old in text
        path = tmp_path / "bad.guard.toml"
        path.write_text(text.replace(old, new))
        with pytest.raises(GuardrailError, match=words):
            TorqueGuard.load(path)


def test_explain_states_the_assumptions(guard: TorqueGuard) -> None:
    text = guard.explain()
    assert "±20%" in text
    assert "not proved" in text
    assert all(joint in text for joint in guard.joints)
