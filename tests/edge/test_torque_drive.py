"""The drive of torques keeps what drive.py asks of drives, and what docs/torque.md promises, by the model alone."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pinocchio")

from kizzasi_edge import Guardrails
from kizzasi_edge.demo.physics import ASSETS
from kizzasi_edge.demo.torque_physics import ARMATURE, HOME
from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.acceleration_windows import AccelerationWindows
from kizzasi_edge.guardrails.dynamics import Dynamics
from kizzasi_edge.guardrails.faults import Event
from kizzasi_edge.guardrails.limits import joint_limits
from kizzasi_edge.guardrails.rows import PowerRule
from kizzasi_edge.guardrails.spec import GuardFile, load_spec
from kizzasi_edge.guardrails.torque import TorqueDrive, torque_drive
from kizzasi_edge.guardrails.verdict import HEADER, Status, Verdict

F64 = npt.NDArray[np.float64]
FILE = Path(__file__).parents[2] / "examples" / "torque_arm" / "arm.guard.toml"
N, DT = 6, 0.002
REST = np.zeros(N)
WATTS = 60.0
positions = st.lists(st.floats(-3, 3), min_size=N, max_size=N).map(np.array)
speeds = st.lists(st.floats(-2.8, 2.8), min_size=N, max_size=N).map(np.array)
seeds = st.integers(0, 2**32 - 1)


def built(spec: GuardFile) -> TorqueDrive:
    return torque_drive(spec, joint_limits(spec, FILE), FILE)


@pytest.fixture(scope="module")
def drive() -> TorqueDrive:
    return built(load_spec(FILE))


@pytest.fixture(scope="module")
def narrow(drive: TorqueDrive) -> TorqueDrive:
    """With a power rule over the first three joints, and a torque rate."""
    rule = PowerRule("drives", np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0]), WATTS, hard=False)
    return TorqueDrive(
        drive.limits, drive.dynamics, rate_hz=500, torque_rate=10_000.0, power=(rule,), minimum_authority=0.5
    )


@pytest.fixture(autouse=True)
def _fresh(drive: TorqueDrive) -> None:
    drive.seed(np.array(HOME))
    drive.derate(False)


def follow(drive: TorqueDrive, command: F64, q: npt.ArrayLike, v: npt.ArrayLike) -> tuple[F64, Verdict, int]:
    out = np.zeros(N, np.float32)
    drive.measure(np.array(q), np.array(v))
    events = drive.follow(command.astype(np.float32), out)
    return out.astype(np.float64), Verdict(drive.layout, bytes(drive.record)), events


def efforts(drive: TorqueDrive) -> F64:
    return np.array([limit.effort for limit in drive.limits])


def plant(drive: TorqueDrive, torque: F64, q: F64, v: F64, error: float = 0.0) -> F64:
    """Accelerations of a robot whose links are heavier by ``error``."""
    model = drive.dynamics
    mass = (1 + error) * model.link_inertia(q) + np.diag(model.armature)
    return np.asarray(np.linalg.solve(mass, torque - (1 + error) * model.bias(q, v)), np.float64)


@given(seeds, st.floats(0.5, 20.0), st.floats(0.2, 5.0))
@settings(max_examples=40, deadline=None)
def test_a_double_integrator_inside_its_windows_stays_inside_its_limits(seed: int, brake: float, speed: float) -> None:
    rng, dt = np.random.default_rng(seed), 0.01
    upper = rng.uniform(0.5, 3.0, 4)
    each = np.ones(4)
    windows = AccelerationWindows(-upper, upper, speed * each, brake * each, brake * each, dt)
    q, v, choice = rng.uniform(-0.5, 0.5, 4) * upper, np.zeros(4), rng.choice([-1.0, 1.0], 4)
    for _ in range(300):
        up, down = windows.at(q, v).copy()
        assert (up >= -down).all()
        a = np.where(choice > 0, up, -down)
        q, v = q + v * dt + a * dt * dt / 2, v + a * dt
        assert (np.abs(q) <= upper + 1e-9).all()
        assert (np.abs(v) <= speed + 1e-9).all()
        assert set(windows.rules().ravel().tolist()) <= {1, 2, 8}
        choice = np.where(rng.random(4) < 0.01, -choice, choice)


def test_admissible_torques_pass_unchanged(drive: TorqueDrive) -> None:
    """Gravity compensation with light damping at a slow speed is nobody's business."""
    q, v = np.array(HOME), np.full(N, 0.1)
    wanted = np.rint((drive.dynamics.bias(q, v) - 0.5 * v) / drive.quanta) * drive.quanta
    sent, verdict, events = follow(drive, wanted, q, v)
    assert (verdict.status, verdict.intervention, verdict.rules, events) == (Status.PASS, 0.0, (), 0)
    assert np.array_equal(sent, wanted)


def test_nothing_nearer_is_admissible(drive: TorqueDrive) -> None:
    """The projection's optimality, by trial: among many admissible torques none is nearer than the sent one."""
    rng, tried = np.random.default_rng(3), 0
    for _ in range(30):
        q, v = rng.uniform(-3, 3, N), rng.uniform(-2.7, 2.7, N)
        wanted = rng.uniform(-1, 1, N) * efforts(drive)
        sent, verdict, _ = follow(drive, wanted, q, v)
        if verdict.status is not Status.PROJECTED:
            continue
        tried += 1
        others = rng.uniform(-1, 1, (1000, N)) * efforts(drive)
        others = sent + (others - sent) * rng.uniform(0, 1, (1000, 1)) ** 4
        feasible = [x for x in others if drive._rows.hold(x)]
        assert feasible
        nearest = min(np.linalg.norm(x - wanted) for x in feasible)
        assert np.linalg.norm(sent - wanted) <= nearest + 1e-3
    assert tried >= 3


@given(positions, speeds, seeds, st.floats(-0.2, 0.2), st.booleans())
@settings(max_examples=80, deadline=None)
def test_next_velocity_stays_in_the_window(
    drive: TorqueDrive, q: F64, v: F64, seed: int, error: float, slow: bool
) -> None:
    """For every mass within the error; between its ends by a tenth of the braking, which is RESERVE's to pay. Derated,
    the limit is half."""
    drive.derate(slow)
    wanted = np.random.default_rng(seed).uniform(-1, 1, N) * efforts(drive)
    sent, verdict, _ = follow(drive, wanted, q, v)
    if verdict.status is Status.BRAKE:
        return
    a = plant(drive, sent, q, v, error)
    speed = np.array([limit.velocity for limit in drive.limits]) / (2 if slow else 1)
    slack = 0.1 * drive.acceleration / 0.9 * DT
    braked = np.maximum(np.abs(v) - drive.acceleration * DT, speed)
    assert (np.abs(v + a * DT) <= braked + slack + 1e-9).all()


def test_a_model_without_error_is_taken_at_its_word(drive: TorqueDrive) -> None:
    """One pair of rows per joint, in another order of the joints; the speed limits hold to the last digit."""
    order = [3, 0, 5, 1, 4, 2]
    limits = [drive.limits[i] for i in order]
    model = Dynamics(ASSETS / "arm.urdf", [limit.name for limit in limits], armature=np.array(ARMATURE)[order])
    exact = TorqueDrive(limits, model, rate_hz=500)
    rng, speed, braked = np.random.default_rng(9), np.array([limit.velocity for limit in limits]), 0
    for _ in range(100):
        q, v = rng.uniform(-2, 2, N), rng.uniform(-2.8, 2.8, N)
        sent, verdict, _ = follow(exact, rng.uniform(-1, 1, N) * efforts(exact), q, v)
        braked += verdict.status is Status.BRAKE
        assert (np.abs(v + plant(exact, sent, q, v) * DT) <= speed + 1e-9).all()
    assert braked == 0


@given(positions, speeds, seeds)
@settings(max_examples=80, deadline=None)
def test_what_is_sent_is_on_the_lattice(drive: TorqueDrive, q: F64, v: F64, seed: int) -> None:
    wanted = np.random.default_rng(seed).uniform(-3, 3, N) * efforts(drive)
    sent, verdict, _ = follow(drive, wanted, q, v)
    for torque, limit, joint in zip(sent, drive.lattice, drive.limits, strict=True):
        assert (torque / limit.quantum).is_integer()
        assert limit.lo <= torque / limit.quantum <= limit.hi
        assert limit.hi * limit.quantum <= joint.effort < (limit.hi + 1) * limit.quantum
    assert (
        verdict.status is not Status.PASS or (np.abs(sent - wanted) <= [cell.quantum for cell in drive.lattice]).all()
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_command_that_is_not_finite_moves_nothing(drive: TorqueDrive, bad: float) -> None:
    drive.measure(np.array(HOME), np.full(N, 0.5))
    out, command = np.full(N, 7.0, np.float32), np.zeros(N, np.float32)
    before = bytes(drive.record), drive.applied()
    command[3] = bad
    assert drive.follow(command, out) == Event.NON_FINITE
    assert (bytes(drive.record), drive.applied()) == before
    assert (out == 7.0).all()


def test_the_record_leaves_state_and_cause_to_the_stack(drive: TorqueDrive) -> None:
    HEADER.pack_into(drive.record, 0, 0, 3, 5, 0, 0.0, 0, 0)
    out = np.zeros(N, np.float32)
    drive.brake(out, 32)
    status, state, cause, _, length, _, _ = HEADER.unpack_from(drive.record)
    assert (status, state, cause, length) == (Status.BRAKE, 3, 5, np.inf)
    assert bytes(drive.record[HEADER.size :]) == bytes([32] * N)
    verdict = Verdict(drive.layout, bytes(drive.record))
    assert verdict.by_joint["elbow_joint"] == ("miss",)


@given(positions, speeds)
@settings(max_examples=50, deadline=None)
def test_brake_and_coast_slow_every_joint_down(drive: TorqueDrive, q: F64, v: F64) -> None:
    for end in (drive.brake, drive.coast):
        drive.measure(q, v)
        out = np.zeros(N, np.float32)
        end(out, 16)
        for error in (-0.2, 0.0, 0.2):
            after = v + plant(drive, out.astype(np.float64), q, v, error) * DT
            slowed = np.maximum(np.abs(v) - drive.acceleration * DT, 0.02)
            assert (np.abs(after) <= slowed + 1e-6).all()


def test_without_a_measurement_the_model_stands_in(drive: TorqueDrive) -> None:
    rng = np.random.default_rng(6)
    q, v = np.array(HOME), np.full(N, 0.3)
    sent, _, _ = follow(drive, rng.uniform(-0.2, 0.2, N) * efforts(drive), q, v)
    for _ in range(5):
        a = plant(drive, sent, q, v)
        q, v = q + v * DT + a * DT**2 / 2, v + a * DT
        out = np.zeros(N, np.float32)
        drive.follow((rng.uniform(-0.2, 0.2, N) * efforts(drive)).astype(np.float32), out)
        assert np.allclose(drive.applied(), (q, v), rtol=0, atol=1e-9)
        sent = out.astype(np.float64)


def test_seeding_is_rest_without_torque(drive: TorqueDrive) -> None:
    follow(drive, efforts(drive), HOME, np.ones(N))
    drive.seed(np.array(HOME))
    assert drive.applied() == (list(HOME), [0.0] * N)


@given(positions, st.floats(-0.2, 0.2))
@settings(max_examples=50, deadline=None)
def test_holding_is_no_motion_whatever_the_links_weigh(drive: TorqueDrive, q: F64, error: float) -> None:
    drive.measure(q, REST)
    holding = (1 + error) * drive.dynamics.bias(q, REST)
    assert drive.asks_no_motion(holding.astype(np.float32))
    moving = holding + drive.dynamics.mass_matrix(q) @ (6.0 * drive.acceleration)
    assert not drive.asks_no_motion(moving.astype(np.float32))
    drive.measure(q, np.full(N, 0.1))
    assert not drive.asks_no_motion(holding.astype(np.float32))


def test_rest_is_reached_by_braking_and_left_by_moving(drive: TorqueDrive) -> None:
    q, v, out = np.array(HOME), np.full(N, 0.5), np.zeros(N, np.float32)
    drive.measure(q, v)
    periods = 0
    while not drive.at_rest:
        periods += 1
        assert periods < 300
        drive.brake(out, 0)
        a = plant(drive, out.astype(np.float64), q, v, 0.2)
        q, v = q + v * DT + a * DT**2 / 2, v + a * DT
        drive.measure(q, v)
    assert periods > 10
    for _ in range(20):
        out64, _, _ = follow(drive, np.array([150.0, 0, 0, 0, 0, 0]), q, v)
        v = v + plant(drive, out64, q, v) * DT
    drive.measure(q, v)
    assert not drive.at_rest


@given(positions, speeds, seeds)
@settings(max_examples=100, deadline=None)
def test_power_is_kept_or_named(narrow: TorqueDrive, q: F64, v: F64, seed: int) -> None:
    wanted = np.random.default_rng(seed).uniform(-1, 1, N) * efforts(narrow)
    sent, verdict, _ = follow(narrow, wanted, q, v)
    assert (float((v * sent)[:3].sum()) > WATTS) == ("drives" in verdict.given_up)


def test_power_shapes_commands_and_gives_way_to_coming_back(drive: TorqueDrive) -> None:
    rule = PowerRule("drives", np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0]), 5.0, hard=False)
    limited = TorqueDrive(drive.limits, drive.dynamics, rate_hz=500, power=(rule,), minimum_authority=0.5)
    q, v = np.array(HOME), np.array([1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    sent, verdict, _ = follow(limited, np.array([100.0, -20, -18, 0, 0, 0]), q, v)
    assert (verdict.status, verdict.rules, verdict.given_up) == (Status.PROJECTED, ("drives",), ())
    assert 4.9 < v @ sent <= 5.0
    # A joint outside its range comes back in, uphill if need be.
    rng, given_up = np.random.default_rng(8), 0
    for _ in range(100):
        q, v = rng.uniform(-3, 3, N), np.zeros(N)
        q[1], v[1] = drive.limits[1].upper + 0.1, -0.35
        sent, verdict, events = follow(limited, rng.uniform(-1, 1, N) * efforts(drive), q, v)
        assert events == Event.OUTSIDE
        assert v[1] + plant(drive, sent, q, v)[1] * DT <= -0.35
        given_up += verdict.given_up == ("drives",)
    assert 0 < given_up < 100
    with pytest.raises(GuardrailError, match=r"'drives' hard: found True; expected False"):
        TorqueDrive(drive.limits, drive.dynamics, rate_hz=500, power=(replace(rule, hard=True),))
    with pytest.raises(GuardrailError, match="found 65"):
        TorqueDrive(drive.limits, drive.dynamics, rate_hz=500, power=(rule,) * 41)


def test_the_torque_rate_holds_until_braking_needs_more(narrow: TorqueDrive) -> None:
    rng, q, v, last = np.random.default_rng(4), np.array(HOME), np.zeros(N), np.zeros(N)
    narrow.seed(q)
    kept = 0
    for _ in range(300):
        sent, verdict, events = follow(narrow, rng.uniform(-1, 1, N) * efforts(narrow), q, v)
        steps = np.abs(sent - last) / narrow.quanta
        if "torque_rate" not in verdict.given_up:
            assert all(step <= limit.w for step, limit in zip(steps, narrow.lattice, strict=True))
            kept += 1
        assert not events & Event.INFEASIBLE
        a = plant(narrow, sent, q, v)
        q, v, last = q + v * DT + a * DT**2 / 2, v + a * DT, sent
    assert kept > 150


def test_refusals(tmp_path: Path) -> None:
    text = FILE.read_text().replace("../../kizzasi_edge/demo/assets", str(ASSETS))
    power = '[[constraint]]\nkind = "power"\nname = "p"\nmax = 50.0\n'
    for old, new, words in (
        ('command = "torque"', 'command = "torque"\non_clamp = "approach"', "on_clamp"),
        ("minimum_authority = 0.5", "minimum_authority = 1.0", "can brake with only"),
        ("mass_error = 0.2", "mass_error = 1.2", "mass_error"),
        ("armature = [", "armature = [0.1, ", "found 7 values"),
        ("[dynamics]", power + "[dynamics]", "'p' hard: found True"),
        ("[dynamics]", "torque_limit = 1\n[dynamics]", "unknown key"),
        ("margin = 0.02", "margin = 0.02\njerk = 5.0", "jerk"),
        ("margin = 0.02", "margin = 0.02\nquantum = 1e-5", "quantum"),
        ("[dynamics]", "[dynamics]\ntorque_rate = 1e-6", "torque_rate"),
    ):
        assert old in text
        path = tmp_path / "bad.guard.toml"
        path.write_text(text.replace(old, new))
        with pytest.raises(GuardrailError, match=words):
            built(load_spec(path))


def test_the_documented_file_is_a_guard(tmp_path: Path) -> None:
    page = (FILE.parents[2] / "docs" / "torque.md").read_text()
    text = re.findall(r"^```toml\n(.*?)^```", page, re.S | re.M)[0]
    path = tmp_path / "arm.guard.toml"
    path.write_text(text.replace("arm.urdf", str(ASSETS / "arm.urdf")))
    guard = Guardrails.load(path)
    assert (guard.command, guard.measures) == ("torque", ("position", "velocity"))
    assert guard.layout.coupled == ("supply", "torque_rate")
    q, v = np.array(HOME), np.full(N, 1.0)
    sent, verdict = guard.step(np.array([limit.effort for limit in guard.limits]), position=q, velocity=v)
    assert verdict.rules[-1] == "supply"
    assert 299.9 < v @ sent <= 300.0


def test_explain_states_the_assumptions(drive: TorqueDrive, narrow: TorqueDrive) -> None:
    text = "\n".join(drive.explain())
    assert "±20%" in text
    assert "not proved" in text
    assert all(joint in text for joint in drive.layout.channels)
    assert "Power 'drives'" in "\n".join(narrow.explain())
