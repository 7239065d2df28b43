"""Torque and power on position commands: what the C core sends, judged by MuJoCo's inverse dynamics."""

from __future__ import annotations

import tomllib
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kizzasi_bridge._kz_core import ffi, lib

from kizzasi_edge.demo.physics import ASSETS
from kizzasi_edge.demo.torque_physics import ARMATURE
from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.coupled import build_coupled
from kizzasi_edge.guardrails.dynamics import Authority, Dynamics
from kizzasi_edge.guardrails.effort_rows import (
    EffortRows,
    EffortRules,
    derated_limits,
    effort_authority,
    effort_rules,
)
from kizzasi_edge.guardrails.lattice import JointLimits, LatticeLimits, to_lattice
from kizzasi_edge.guardrails.limits import joint_limits
from kizzasi_edge.guardrails.rows import PowerRule, Row
from kizzasi_edge.guardrails.spec import parse_spec

pytest.importorskip("pinocchio")
mujoco: Any = pytest.importorskip("mujoco")

F64 = npt.NDArray[np.float64]
RATE, MISSES = 500.0, 3
PLANT = mujoco.MjModel.from_xml_path(str(ASSETS / "arm.xml"))
DATA = mujoco.MjData(PLANT)
JOINTS = tuple(PLANT.joint(i).name for i in range(PLANT.njnt))
N = len(JOINTS)
EFFORT = np.array([150.0, 150.0, 150.0, 28.0, 28.0, 28.0])
ORIGIN = {kind: kind for kind in ("position", "velocity", "acceleration", "jerk", "effort")}
PROPOSAL, CLAMPED, PROJECTED, BRAKE = (
    lib.KZ_TOOK_PROPOSAL,
    lib.KZ_TOOK_CLAMPED,
    lib.KZ_TOOK_PROJECTED,
    lib.KZ_TOOK_BRAKE,
)
WITHOUT = -1
"""Of a period without a command."""


def arm_limits(acceleration: float = 12.0, effort: F64 = EFFORT) -> tuple[JointLimits, ...]:
    return tuple(
        JointLimits(joint, -3.0, 3.0, 2.8, acceleration, dict(ORIGIN), effort=float(most))
        for joint, most in zip(JOINTS, effort, strict=True)
    )


def arm_dynamics(mass_error: float = 0.0) -> Dynamics:
    return Dynamics(ASSETS / "arm.urdf", JOINTS, armature=ARMATURE, mass_error=mass_error)


AUTHORITY: dict[float, Authority] = {
    error: effort_authority(arm_limits(), arm_dynamics(error)) for error in (0.0, 0.15)
}
"""Of the demo arm at 12 rad/s², for two mass errors."""


def torque(q: F64, v: F64, a: F64, errors: tuple[float, ...]) -> F64:
    """MuJoCo's, with links (1 + error) times as heavy: (k, n) for k errors."""
    DATA.qpos[:], DATA.qvel[:], DATA.qacc[:] = q, v, a
    mujoco.mj_fwdPosition(PLANT, DATA)
    mujoco.mj_fwdVelocity(PLANT, DATA)
    links = np.zeros(N)
    mujoco.mj_rne(PLANT, DATA, 1, links)  # without the rotors
    total: F64 = np.outer(1.0 + np.array(errors), links) + PLANT.dof_armature * a
    return total


@dataclass
class Step:
    """One period: where it started, the acceleration that was sent, how it was found."""

    q: F64
    v: F64
    a: F64
    took: int
    relaxed: bool
    shaped: tuple[str, ...]


class Guarded:
    """The C core with these rows, from rest at ``start``."""

    def __init__(
        self,
        limits: tuple[JointLimits, ...],
        dynamics: Dynamics,
        start: F64,
        *,
        powers: tuple[PowerRule, ...] = (),
        rows: tuple[Row, ...] = (),
        with_rows: bool = True,
    ) -> None:
        self.lattice: list[LatticeLimits] = [to_lattice(limit, RATE) for limit in limits]
        self.quanta = np.array([limit.quantum for limit in self.lattice])
        self.coupled = build_coupled(self.lattice, rows, (), rate_hz=RATE, miss_budget=MISSES)
        self.effort = None
        if with_rows:
            self.effort = EffortRows(self.coupled, EffortRules(limits, dynamics, AUTHORITY[0.0], powers))
        self.names = (*(row.name for row in rows), *(self.effort.names if self.effort else ()))
        self._axis, self._rules, self._steps = ffi.new("kz_axis[16]"), ffi.new("uint8_t[16]"), ffi.new("int32_t[16]")
        for i, q in enumerate(np.rint(start / self.quanta)):
            lib.kz_seed(ffi.addressof(self._axis, i), int(q))

    def move(self, v: F64) -> None:
        """As if the last steps had been ``v`` [rad/s]."""
        for i, step in enumerate(np.trunc(v / RATE / self.quanta)):
            self._axis[i].v = int(step)

    def _motion(self) -> npt.NDArray[np.int64]:
        return np.array([(self._axis[i].q, self._axis[i].v) for i in range(N)]).T

    def step(self, command: F64 | None) -> Step:
        """Follow a command, or coast where that is admissible, or brake."""
        before = self._motion()
        q, v = before[0] * self.quanta, before[1] * self.quanta * RATE
        if self.effort:
            self.effort.update(q, v)
        took = WITHOUT
        if command is not None:
            self._steps[0:N] = [int(x) for x in np.rint(command / self.quanta)]
            took = lib.kz_coupled_admit(self.coupled, self._axis, self._steps, self._rules)
        elif self._may_coast():
            for i in range(N):
                lib.kz_move(ffi.addressof(self._axis, i), self._axis[i].v)
        else:
            lib.kz_coupled_brake(self.coupled, self._axis)
        after = self._motion()
        for limit, (q0, v0), (q1, v1) in zip(self.lattice, before.T, after.T, strict=True):
            assert limit.lo <= q1 <= limit.hi
            assert q1 == q0 + v1
            assert abs(v1) <= limit.w
            assert abs(v1 - v0) <= limit.h
        shaped = tuple(name for i, name in enumerate(self.names) if self.coupled.active >> i & 1)
        return Step(q, v, (after[1] - before[1]) * self.quanta * RATE**2, took, bool(self.coupled.relaxed), shaped)

    def _may_coast(self) -> bool:
        self._steps[0:N] = [self._axis[i].v for i in range(N)]
        for i in range(N):
            nxt = ffi.new("kz_axis *", (self._axis[i].q + self._axis[i].v, self._axis[i].v))
            if not lib.kz_viable(ffi.addressof(self.coupled.limit, i), nxt):
                return False
        return bool(lib.kz_coupled_keeps(self.coupled, self._axis, self._steps, 0))


def derated(error: float, *, acceleration: float = 12.0) -> tuple[JointLimits, ...]:
    return derated_limits(arm_limits(acceleration), AUTHORITY[error])


def use(step: Step, error: float, effort: F64 = EFFORT) -> float:
    """The largest share of an effort that this step takes, over masses within the error."""
    return float(np.abs(torque(step.q, step.v, step.a, (-error, -error / 3, error / 2, error)) / effort).max())


WANT = st.lists(st.floats(-3.5, 3.5), min_size=N, max_size=N).map(np.array)
SCRIPT = st.lists(st.tuples(WANT, st.integers(1, 60), st.integers(0, 5)), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(SCRIPT, WANT, st.sampled_from([0.0, 0.15]))
def test_whatever_is_asked_the_torque_of_what_is_sent_stays_within_the_effort(
    script: list[tuple[F64, int, int]], start: F64, error: float
) -> None:
    guard = Guarded(derated(error), arm_dynamics(error), np.clip(start, -2.9, 2.9))
    for want, times, missed in script:
        for command in (*[want] * times, *[None] * missed):
            step = guard.step(command)
            assert use(step, error) <= 1.0 + 1e-9
            assert step.shaped == ()  # on the derated lattice no row has to act
            assert not guard.coupled.braking_broke


@pytest.mark.parametrize("error", [0.0, 0.15])
def test_the_authority_is_what_the_heaviest_robot_has_in_its_worst_state(error: float) -> None:
    """There the worst signs of the derated accelerations take exactly the effort, and no lighter robot takes more."""
    found = AUTHORITY[error]
    worst, still = JOINTS.index(found.joint), np.zeros(N)
    h = torque(found.position, found.velocity, still, (error,))[0]
    columns = [torque(found.position, found.velocity, unit, (error,))[0] - h for unit in np.eye(N)]
    sign = np.sign([column[worst] for column in columns]) * np.sign(h[worst])
    errors = (error, error / 2, 0.0, -error)
    most = np.abs(torque(found.position, found.velocity, 12.0 * found.scale * sign, errors)[:, worst])
    assert most[0] == pytest.approx(EFFORT[worst], rel=1e-9)
    assert (most <= most[0]).all()


@pytest.mark.parametrize("error", [0.0, 0.15])
def test_derating_is_what_keeps_it_and_it_gives_away_little(error: float) -> None:
    """In the worst states found and braking from there all but all of the effort is used; with the accelerations that
    were asked for it is exceeded."""
    rng, found, model = np.random.default_rng(3), AUTHORITY[error], arm_dynamics(error)
    worst, used = JOINTS.index(found.joint), {True: 0.0, False: 0.0}
    for trial in range(60):
        pose = np.clip(found.position + (rng.uniform(-0.1, 0.1, N) if trial else 0.0), -2.45, 2.45)
        speed = 0.98 * found.velocity * (rng.choice([-1.0, 0.0, 1.0], N) if trial else 1.0)
        against = np.sign(model.mass_matrix(pose)[worst]) * np.sign(model.bias(pose, speed)[worst])
        for derate in used:
            guard = Guarded(derated(error) if derate else arm_limits(), model, pose, with_rows=derate)
            guard.move(speed)
            for command in (pose + 3.0 * against, pose - 3.0 * against, None, None, None, None, None):
                step = guard.step(command)
                used[derate] = max(used[derate], use(step, error))
                assert step.shaped == ()  # by the lattice alone
    assert 0.95 < used[True] <= 1.0 + 1e-9
    assert used[False] > 1.02


def test_the_rows_themselves_hold_where_the_search_would_have_missed_a_pose() -> None:
    """Efforts that no authority has granted: every step that was found by rule keeps them, the others are brakes."""
    tight, error = 0.3 * EFFORT, 0.15
    limits, model = derated(error), arm_dynamics(error)
    tighter = tuple(replace(limit, effort=float(most)) for limit, most in zip(limits, tight, strict=True))
    rng = np.random.default_rng(11)
    found, broken = Counter[int](), 0
    for _ in range(12):
        start = rng.uniform(-2.5, 2.5, N)
        guard, free = Guarded(tighter, model, start), Guarded(limits, model, start, with_rows=False)
        for k in range(120):
            if k % 30 == 0:
                want = rng.uniform(-3.2, 3.2, N)
            step = guard.step(want)
            found[step.took] += 1
            if step.took != BRAKE:
                assert use(step, error, tight) <= 1.0 + 1e-9
            else:
                assert guard.coupled.braking_broke  # and it says so
            if step.took == PROJECTED:
                assert step.shaped
                assert all(name.endswith(" effort") for name in step.shaped)
            broken += use(free.step(want), error, tight) > 1.0
    assert found[PROJECTED] > 100
    assert found[CLAMPED] > 100
    assert broken > 300


@settings(max_examples=200, deadline=None)
@given(WANT, st.lists(st.floats(-2.8, 2.8), min_size=N, max_size=N).map(np.array), WANT, st.sampled_from([0.0, 0.3]))
def test_the_rows_written_are_those_of_every_mass_within_the_error(q: F64, v: F64, way: F64, error: float) -> None:
    """Two rows a joint say of any |a| ≤ A what the four of both ends say; the power rows are those of both ends."""
    limits, model = arm_limits(8.0), arm_dynamics(error)
    coupled = build_coupled([to_lattice(x, RATE) for x in limits], (), (), rate_hz=RATE, miss_budget=0)
    power = PowerRule("all", np.ones(N), 150.0, 3, False)
    EffortRows(coupled, EffortRules(limits, model, AUTHORITY[0.0], (power,))).update(q, v)
    assert coupled.soft == (1 << coupled.rows) - (1 << 2 * N)  # the efforts are hard
    assert {coupled.row[j].priority for j in range(2 * N, coupled.rows)} == {3}
    written = [(np.array([coupled.row[j].a[i] for i in range(N)]), coupled.row[j].b) for j in range(coupled.rows)]
    for size in (0.3, 1.0, 8 / 3.5):
        a = way * size
        keeps = [bool(slope @ a <= bound) for slope, bound in written]
        need = torque(q, v, a, (-error, error))
        for i in range(N):
            assert (keeps[i] and keeps[N + i]) == bool((np.abs(need[:, i]) <= EFFORT[i]).all())
        assert all(keeps[2 * N :]) == bool((need @ v <= 150.0).all())


def test_power_is_kept_wherever_it_is_not_given_up() -> None:
    """Soft: where it is not relaxed and the guard does not brake, MuJoCo's Στ·v is within the bound, for every mass."""
    error, on = 0.15, np.array([0.0, 1.0, 1.0, 0.0, 0.0, 1.0])
    limits, model = derated(error), arm_dynamics(error)
    rng = np.random.default_rng(5)
    shaped, above, kept = 0, 0, 0
    for _ in range(8):
        start = rng.uniform(-2.5, 2.5, N)
        guard = Guarded(limits, model, start, powers=(PowerRule("drive", on, 120.0, 1, False),))
        free = Guarded(limits, model, start)
        for k in range(240):
            if k % 60 == 0:
                want = rng.uniform(-3.2, 3.2, N)
            step, other = guard.step(want), free.step(want)
            power = float((torque(step.q, step.v, step.a, (-error, 0.0, error)) @ (on * step.v)).max())
            if step.took in (PROPOSAL, CLAMPED, PROJECTED) and not step.relaxed:
                assert power <= 120.0 * (1 + 1e-9)
                kept += 1
            shaped += "drive" in step.shaped
            above += bool((torque(other.q, other.v, other.a, (0.0,)) @ (on * other.v)).max() > 120.0)
    assert above > 100
    assert shaped > 100
    assert kept > 1000


def test_admissible_motion_passes_unchanged() -> None:
    guard = Guarded(
        derated(0.15), arm_dynamics(0.15), np.zeros(N), powers=(PowerRule("all", np.ones(N), 400.0, 0, False),)
    )
    for k in range(600):
        t = min(1.0, k / 300)
        ramp = t**3 * (10 - 15 * t + 6 * t * t)
        want = ramp * 0.15 * np.sin(2 * np.pi * 0.7 * k / RATE + 0.4 * np.arange(N))
        step = guard.step(want)
        assert step.took == PROPOSAL
        assert step.shaped == ()
        assert np.array_equal(guard._motion()[0], np.rint(want / guard.quanta))


def test_declared_rows_stay_in_front_and_are_kept_too() -> None:
    wrist = Row("wrist", "position", np.eye(N)[4] - np.eye(N)[5], 0.8)
    guard = Guarded(derated(0.0), arm_dynamics(), np.zeros(N), rows=(wrist,))
    assert guard.names[0] == "wrist"
    seen: set[str] = set()
    for _ in range(600):
        step = guard.step(np.array([1.0, -1.0, 1.0, 0.0, 1.5, -1.5]))
        seen.update(step.shaped)
        assert use(step, 0.0) <= 1.0 + 1e-9
        assert wrist.a @ (guard._motion()[0] * guard.quanta) <= 0.8
    assert "wrist" in seen


def test_derated_limits_name_the_effort_that_set_them() -> None:
    lift = JOINTS[1]
    limits = tuple(
        replace(limit, origin={**limit.origin, "effort": "gearbox"}) if limit.name == lift else limit
        for limit in arm_limits()
    )
    found = AUTHORITY[0.15]
    assert found.joint == lift
    changed = derated_limits(limits, found)
    assert all(x.acceleration == 12.0 * found.scale < 12.0 for x in changed)
    assert all(x.origin["acceleration"] == "gearbox" for x in changed)
    assert all(x.origin["acceleration"] == f"{lift} effort" for x in derated_limits(arm_limits(), found))
    slow = arm_limits(3.0)
    assert derated_limits(slow, effort_authority(slow, arm_dynamics(0.15))) == slow


def test_only_joints_with_an_effort_have_rows() -> None:
    effort = np.where(np.arange(N) < 2, EFFORT, np.inf)
    limits, model = arm_limits(4.0, effort), arm_dynamics()
    found = effort_authority(limits, model)
    assert found.scale == 1.0
    coupled = build_coupled([to_lattice(x, RATE) for x in limits], (), (), rate_hz=RATE, miss_budget=0)
    rows = EffortRows(coupled, EffortRules(limits, model, found))
    assert rows.mask == 0b1111
    assert rows.names == tuple(f"{name} effort" for name in JOINTS[:2]) * 2
    q, v = np.linspace(-1, 1, N), np.linspace(2, -2, N)
    rows.update(q, v)
    a = np.linspace(-3, 2, N)
    need = torque(q, v, a, (0.0,))[0]
    for j, (sign, i) in enumerate([(1, 0), (1, 1), (-1, 0), (-1, 1)]):
        left = coupled.row[j].b - sum(coupled.row[j].a[k] * a[k] for k in range(N))
        assert left == pytest.approx(EFFORT[i] - sign * need[i], abs=1e-9)


def test_refusals() -> None:
    some = Row("some", "position", np.ones(N), 1.0)
    lattice = [to_lattice(limit, RATE) for limit in arm_limits()]
    power = PowerRule("drive", np.ones(N), 100.0, 0, False)
    for powers in ((), (power,)):
        rules = EffortRules(arm_limits(), arm_dynamics(), AUTHORITY[0.0], powers)
        coupled = build_coupled(lattice, [some] * 52, (), rate_hz=RATE, miss_budget=0)
        if not powers:
            assert EffortRows(coupled, rules).names[0] == f"{JOINTS[0]} effort"
        else:
            with pytest.raises(
                GuardrailError, match=r"65 rows: 52 of \[\[constraint\]\].* 12 of efforts.* 1 of powers"
            ):
                EffortRows(coupled, rules)
    with pytest.raises(GuardrailError, match="effort: found 0 for 'elbow_joint'"):
        effort_authority(arm_limits(effort=np.where(np.arange(N) == 2, 0.0, EFFORT)), arm_dynamics())
    with pytest.raises(GuardrailError, match="no range"):
        effort_authority([replace(limit, lower=-np.inf, upper=np.inf) for limit in arm_limits()], arm_dynamics())
    with pytest.raises(GuardrailError, match="expected"):
        effort_authority(arm_limits()[::-1], arm_dynamics())
    with pytest.raises(GuardrailError, match=r"shoulder_lift_joint.*can brake with only"):
        effort_authority(arm_limits(60.0), arm_dynamics())


def rules_of(text: str) -> EffortRules:
    """Of a guard file of the demo arm that ends with ``text``."""
    where = ASSETS / "some.guard.toml"  # beside the URDF; it is not read
    data: dict[str, Any] = {
        "schema": 1,
        "guard": {"rate_hz": 500},
        "joints": {"from_urdf": "arm.urdf", "acceleration": 12.0},
    }
    spec = parse_spec(data | tomllib.loads(text), where)
    return effort_rules(spec, joint_limits(spec, where), where)


DYNAMICS = "[dynamics]\nmass_error = 0.1\narmature = [0.4, 0.4, 0.4, 0.08, 0.08, 0.08]\n"
DRIVE = "[[constraint]]\nkind = 'power'\nname = 'drive'\nmax = 300.0\n"


def test_from_a_file() -> None:
    gearbox = "[[constraint]]\nkind = 'torque'\nname = 'gearbox'\njoint = 'elbow_joint'\nmax = 90.0\n"
    rules = rules_of(DYNAMICS + gearbox + DRIVE + "hard = false\npriority = 4\n")
    assert [limit.effort for limit in rules.limits] == [150.0, 150.0, 90.0, 28.0, 28.0, 28.0]
    assert rules.dynamics.mass_error == 0.1
    assert 0.5 < rules.authority.scale < 1.0
    assert {limit.acceleration for limit in rules.limits} == {12.0 * rules.authority.scale}
    assert [(rule.name, rule.watts, rule.priority) for rule in rules.powers] == [("drive", 300.0, 4)]
    text = "\n".join(rules.explain())
    assert "elbow_joint 90" in text
    assert "link masses within ±10%" in text
    assert "searched, not proved" in text
    assert "drive: Σ torque·velocity ≤ 300 W, soft, priority 4" in text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (DYNAMICS + DRIVE, r"some\.guard\.toml: \[constraint\] 'drive' hard: found true.*gravity"),
        (DYNAMICS + "torque_rate = 100.0\n", r"some\.guard\.toml: \[dynamics\] torque_rate: not enforced"),
        (DYNAMICS + "minimum_authority = 1.0\n", r"some\.guard\.toml: \[joints\] acceleration.*at least 1"),
        ("[dynamics]\narmature = [1.0, 2.0]\n", r"armature: found 2 values; expected one, or 6"),
    ],
)
def test_files_refused(text: str, words: str) -> None:
    with pytest.raises(GuardrailError, match=words):
        rules_of(text)


def test_a_file_that_bounds_nothing_is_refused() -> None:
    where = ASSETS / "some.guard.toml"
    joints = {"names": list(JOINTS), "position": [[-3, 3]] * N, "velocity": 2.0, "acceleration": 4.0}
    data: dict[str, Any] = {"schema": 1, "guard": {"rate_hz": 500}, "joints": joints}
    for dynamics, words in (({"urdf": "arm.urdf"}, "no joint has an effort"), ({}, "urdf: missing")):
        spec = parse_spec(data | {"dynamics": {"mass_error": 0.1} | dynamics}, where)
        with pytest.raises(GuardrailError, match=words):
            effort_rules(spec, joint_limits(spec, where), where)
