"""The dynamics are MuJoCo's, obey energy, and the braking authority holds wherever it is tried."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pinocchio")
pytest.importorskip("mujoco")

from kizzasi_edge.demo.physics import ASSETS
from kizzasi_edge.demo.torque_physics import ARMATURE, TorqueArm
from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.dynamics import Dynamics, braking_authority

F64 = npt.NDArray[np.float64]
URDF = ASSETS / "arm.urdf"
ARM = TorqueArm()
N = len(ARM.joints)
EFFORT = np.array([150.0, 150.0, 150.0, 28.0, 28.0, 28.0])
SPEED = np.full(N, 0.9 * np.pi)
RANGE = np.full(N, 2 * np.pi)
ACCELERATION = np.array([4.0, 3.0, 5.0, 6.0, 6.0, 8.0])
angles = st.lists(st.floats(-6.0, 6.0), min_size=N, max_size=N).map(np.array)
speeds = st.lists(st.floats(-2.8, 2.8), min_size=N, max_size=N).map(np.array)


def dynamics(mass_error: float = 0.0, **changes: object) -> Dynamics:
    arguments: dict[str, object] = {"armature": ARMATURE, "mass_error": mass_error} | changes
    return Dynamics(URDF, ARM.joints, **arguments)  # type: ignore[arg-type]


@given(angles, speeds)
@settings(max_examples=100, deadline=None)
def test_mass_and_bias_are_mujocos(q: F64, v: F64) -> None:
    model = dynamics()
    mass, bias = ARM.dynamics(q, v)
    assert np.abs(model.mass_matrix(q) - mass).max() <= 1e-9 * np.abs(mass).max()
    assert np.abs(model.bias(q, v) - bias).max() <= 1e-9 * max(1.0, np.abs(bias).max())


@given(angles, speeds)
@settings(max_examples=50, deadline=None)
def test_energy_is_conserved(q: F64, v: F64) -> None:
    """h(q, 0) is the gradient of the potential; the velocity terms do the work that a changing M takes."""
    model, step = dynamics(), 1e-5
    for i in range(N):
        there = np.eye(N)[i] * step
        slope = (ARM.potential(q + there) - ARM.potential(q - there)) / (2 * step)
        assert model.bias(q, np.zeros(N))[i] == pytest.approx(slope, abs=1e-5)
    rate = (model.mass_matrix(q + step * v) - model.mass_matrix(q - step * v)) / (2 * step)
    work = v @ (model.bias(q, v) - model.bias(q, np.zeros(N)))
    assert work == pytest.approx(0.5 * v @ rate @ v, abs=1e-6)


def test_other_orders_are_permutations_of_the_same_robot() -> None:
    order = np.array([3, 0, 5, 1, 4, 2])
    shuffled = Dynamics(URDF, [ARM.joints[i] for i in order], armature=np.array(ARMATURE)[order])
    q, v = np.linspace(-2, 2, N), np.linspace(1, -1, N)
    assert np.array_equal(shuffled.mass_matrix(q[order]), dynamics().mass_matrix(q)[np.ix_(order, order)])
    assert np.array_equal(shuffled.bias(q[order], v[order]), dynamics().bias(q, v)[order])


def test_a_fixed_joint_is_welded_and_a_loose_one_refused() -> None:
    inner = ARM.joints[:5]
    with pytest.raises(GuardrailError, match=r"wrist_3_joint.*guard them or fix them"):
        Dynamics(URDF, inner)
    q, v = np.linspace(-2, 2, N), np.linspace(1, -1, N)
    v[5] = 0.0
    welded = Dynamics(URDF, inner, armature=ARMATURE[:5], fixed={"wrist_3_joint": q[5]})
    assert np.allclose(welded.mass_matrix(q[:5]), dynamics().mass_matrix(q)[:5, :5], rtol=0, atol=1e-12)
    assert np.allclose(welded.bias(q[:5], v[:5]), dynamics().bias(q, v)[:5], rtol=0, atol=1e-12)


def test_a_continuous_joint_turns_without_end(tmp_path: Path) -> None:
    text = URDF.read_text().replace(
        '<joint name="elbow_joint" type="revolute">', '<joint name="elbow_joint" type="continuous">'
    )
    (tmp_path / "arm.urdf").write_text(text)
    model = Dynamics(tmp_path / "arm.urdf", ARM.joints, armature=ARMATURE)
    q, v = np.linspace(-2, 2, N), np.linspace(1, -1, N)
    turned = q + 2 * np.pi * np.eye(N)[2]
    assert np.allclose(model.mass_matrix(turned), dynamics().mass_matrix(q), rtol=0, atol=1e-12)
    assert np.allclose(model.bias(turned, v), dynamics().bias(q, v), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mass_error": 1.0}, "mass_error"),
        ({"armature": -1.0}, "armature"),
        ({"gravity": (0.0, np.nan, 0.0)}, "gravity"),
        ({"fixed": {"nothing": 0.0}}, "nothing"),
        ({"fixed": {"elbow_joint": 0.0}}, "both guarded and fixed"),
    ],
)
def test_refusals(changes: dict[str, object], words: str) -> None:
    with pytest.raises(GuardrailError, match=words):
        dynamics(**changes)  # type: ignore[arg-type]


@given(angles, speeds)
@settings(max_examples=100, deadline=None)
def test_the_inverse_is_that_of_both_ends_and_of_any_order(q: F64, v: F64) -> None:
    order = np.array([3, 0, 5, 1, 4, 2])
    shuffled = Dynamics(URDF, [ARM.joints[i] for i in order], armature=np.array(ARMATURE)[order], mass_error=0.2)
    model = dynamics(0.2)
    found = model.inverse_inertia(q)
    for inverse, error in zip(found, (-0.2, 0.2), strict=True):
        mass = (1 + error) * model.link_inertia(q) + np.diag(ARMATURE)
        assert np.abs(inverse @ mass - np.eye(N)).max() < 1e-9
    assert np.allclose(shuffled.inverse_inertia(q[order]), found[:, order[:, None], order], rtol=0, atol=1e-9)


def test_authority_holds_wherever_it_is_tried() -> None:
    """At 300 random (q, v), signs and masses there is a torque in the box that brakes all joints at s·A."""
    model = dynamics(0.2)
    found = braking_authority(
        model, lower=-RANGE, upper=RANGE, velocity=SPEED, acceleration=ACCELERATION, effort=EFFORT, samples=512
    )
    assert 0.5 < found.scale < 1.0
    rng = np.random.default_rng(5)
    for trial in range(300):
        q, v = rng.uniform(-RANGE, RANGE), SPEED * rng.choice([-1.0, 1.0], N)
        if trial == 0:
            q, v = found.position, found.velocity
        links, h, sign = model.link_inertia(q), model.bias(q, v), rng.choice([-1.0, 1.0], N)
        mass, want = links + np.diag(ARMATURE), found.scale * ACCELERATION
        ends = np.linalg.inv(mass + np.array([-0.2, 0.2])[:, None, None] * links)
        spread, drift = 0.2 * np.abs(ends @ links).max(0), 0.2 * np.abs(ends @ h).max(0)
        extra = np.linalg.solve(np.eye(N) - spread, spread @ want + drift)
        torque = mass @ (sign * (want + extra)) + h
        assert (np.abs(torque) <= EFFORT * (1 + 1e-9)).all()
        for error in np.linspace(-0.2, 0.2, 9):
            a = np.linalg.solve(mass + error * links, torque - (1 + error) * h)
            assert (sign * a >= want - 1e-9).all()


def test_too_little_authority_is_refused() -> None:
    with pytest.raises(GuardrailError, match=r"shoulder_lift_joint.*can brake with only"):
        braking_authority(
            dynamics(0.2),
            lower=-RANGE,
            upper=RANGE,
            velocity=SPEED,
            acceleration=10 * ACCELERATION,
            effort=EFFORT,
            samples=64,
        )
