"""From a guard file to the drive: what the core is given, what each rule is called, and where an error is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails import Guardrails
from kizzasi_edge.guardrails.builder import Builder
from kizzasi_edge.guardrails.coupled import MAX_ROWS
from kizzasi_edge.guardrails.lattice import LatticeLimits

RATE = 100.0
FILE = """schema = 1
[guard]
rate_hz = 100
command = "{command}"
{guard}
[joints]
names = ["a", "b"]
position = [[-1, 1], [-2, 3]]
velocity = [2, 4]
acceleration = [16, 32]
quantum = {quantum}
velocity_scale = 1.0
{joints}
{rules}
"""


def load(
    folder: Path,
    *,
    command: str = "position",
    guard: str = "",
    quantum: float = 2.0**-12,
    joints: str = "",
    rules: str = "",
) -> Guardrails:
    text = FILE.format(command=command, guard=guard, quantum=quantum, joints=joints, rules=rules)
    (folder / "x.guard.toml").write_text(text)
    return Guardrails.load(folder / "x.guard.toml")


def rule(kind: str, name: str, keys: str) -> str:
    return f'[[constraint]]\nkind = "{kind}"\nname = "{name}"\n{keys}\n'


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"quantum": 0.5}, "[joints] velocity: joint 'a': found 2 (after velocity_scale), below one quantum of 0.5 per "
         "period; at least 50"),
        ({"quantum": 4.0, "command": "velocity"},
         "[joints] velocity: joint 'a': found 2; expected 1 to 2^24 quanta of 4"),
        ({"joints": "jerk = 1"},
         "[joints] jerk: joint 'a': found 1, below one quantum of 0.000244141; at least 244.141"),
        ({"joints": "jerk = 1", "command": "velocity"},
         "[joints] jerk: joint 'a': found 1, below one quantum of 0.000244141; at least 2.44141"),
    ],
)  # fmt: skip
def test_refusals_name_the_file(tmp_path: Path, given: dict[str, str], message: str) -> None:
    with pytest.raises(GuardrailError) as error:
        load(tmp_path, **given)  # type: ignore[arg-type]
    assert str(error.value) == f"{tmp_path / 'x.guard.toml'}: {message}"


def test_too_many_rows_name_the_file_too(tmp_path: Path) -> None:
    rules = "".join(rule("linear", f"r{i}", f"a = {{ a = 1.0, b = {i + 1}.0 }}\nmax = 9") for i in range(MAX_ROWS + 1))
    with pytest.raises(GuardrailError, match="^" + re.escape(f"{tmp_path / 'x.guard.toml'}: ")):
        load(tmp_path, rules=rules)


ORIGINS = rule("velocity", "slow", 'joint = "a"\nmax = 1') + rule("less", "wall", "max = 0.5") + rule(
    "jerk", "gentle", 'joint = "b"\nmax = 20000'
)  # fmt: skip
PLAIN = {1: "wall", 2: "velocity", 4: "acceleration", 8: "recovery", 16: "non_finite", 32: "miss", 64: "approach",
         128: "coupled"}  # fmt: skip


@pytest.mark.parametrize(("clamp", "shaped"), [("nearest", "{}"), ("approach", "approach or {}")])
def test_each_bit_has_the_name_of_its_rule(tmp_path: Path, clamp: str, shaped: str) -> None:
    on_clamp = f'on_clamp = "{clamp}"'
    layout = load(tmp_path, guard=on_clamp, joints="jerk = 30000", rules=ORIGINS).layout
    assert layout.channels == ("a", "b")
    assert layout.names == (
        {**PLAIN, 2: "slow", 64: shaped.format("jerk")},
        {**PLAIN, 64: shaped.format("gentle")},
    )
    only_b = load(tmp_path, guard=on_clamp, rules=ORIGINS).layout
    assert only_b.names == ({**PLAIN, 2: "slow"}, {**PLAIN, 64: shaped.format("gentle")})


def test_rows_then_quadratics(tmp_path: Path) -> None:
    rules = rule("quadratic", "disc", "diagonal = { a = 1.0, b = 1.0 }\nmax = 4") + rule(
        "linear", "sum", "a = { a = 1.0, b = 1.0 }\nmin = -2\nmax = 2"
    )
    guard = load(tmp_path, rules=rules)
    assert guard.layout.coupled == (*(row.name for row in guard.rows), *(f.name for f in guard.quadratics))
    assert [row.name for row in guard.rows] == ["sum", "sum"]
    assert [f.name for f in guard.quadratics] == ["disc"]


def test_the_lattice_of_what_is_sent(tmp_path: Path) -> None:
    """Of positions: range, step, change. Of velocities: ± the fastest, their change, and the change of that."""
    a, b = load(tmp_path, quantum=2.0**-12).lattice
    assert a == LatticeLimits("a", 2.0**-12, -4096, 4096, 81, 6, a.acceleration_lost)
    assert b == LatticeLimits("b", 2.0**-12, -8192, 12288, 163, 13, b.acceleration_lost)
    a, b = load(tmp_path, command="velocity").lattice
    assert a == LatticeLimits("a", 2.0**-12, -8192, 8192, 655, 1310, a.acceleration_lost)
    assert b == LatticeLimits("b", 2.0**-12, -16384, 16384, 1310, 2620, b.acceleration_lost)
    assert 0 < a.acceleration_lost == 1 - 655 / 655.36
    a, b = load(tmp_path, command="velocity", joints="jerk = [200, 1e9]").lattice
    assert (a.h, b.h) == (81, 2620)
    (a, b) = load(tmp_path, command="velocity", joints="jerk = [3198, 3199]").lattice
    assert (a.h, b.h) == (1309, 1310)


@pytest.mark.parametrize("command", ["position", "velocity"])
@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("linear", "a = { a = 1.0 }\nmax = 0.5"),
        ("linear", 'a = { a = 1.0 }\nmax = 0.5\non = "velocity"'),
        ("linear", 'a = { a = 1.0 }\nmax = 8\non = "acceleration"\nhard = false'),
        ("quadratic", "diagonal = { a = 1.0 }\nmax = 0.25"),
        ("quadratic", "diagonal = { a = 1.0 }\ncenter = { a = 0.25 }\nmax = 0.0625"),
        ("quadratic", 'diagonal = { a = 1.0 }\nmax = 0.25\non = "velocity"'),
    ],
)
def test_a_coupled_rule_means_the_same_whatever_is_commanded(
    tmp_path: Path, command: str, kind: str, keys: str
) -> None:
    """Asked for all there is, joint a comes to the rule's edge and not beyond: 0.5 rad, 0.5 rad/s, 8 rad/s²."""
    guard = load(tmp_path, command=command, quantum=2.0**-20, rules=rule(kind, "edge", keys))
    on = "velocity" if '"velocity"' in keys else "acceleration" if '"acceleration"' in keys else "position"
    most, edge = 0.0, 8.0 if on == "acceleration" else 0.5
    at, before = np.zeros(2), np.zeros(2)
    guard.reset(at)
    for _ in range(20 if on == "acceleration" else 150):  # and then it has to brake, at 16
        ask = np.array([2.0, 0.0]) if command == "velocity" else np.array([1.0, 0.0])
        out, _ = guard.step(ask, position=at)
        speed = out.astype(np.float64) if command == "velocity" else (out - at) * RATE
        seen = {"position": at + speed / RATE, "velocity": speed, "acceleration": (speed - before) * RATE}[on]
        most = max(most, float(seen[0]))
        at, before = at + speed / RATE, speed
    assert most <= edge * (1 + 1e-9)
    assert most > 0.98 * edge


# ---- what the temporal rules and the inertias add --------------------------------------------------------------------


def joints_of(command: str = "position", **guard: Any) -> Builder:
    builder = Guardrails.builder(rate_hz=RATE, velocity_scale=1.0, command=command, **guard)
    for name in ("a", "b"):
        builder.joint(name, position=(-1, 1), velocity=2.0, acceleration=16.0)
    return builder


def test_rows_of_temporal_rules_come_last_and_leave_room() -> None:
    def build(least: float) -> Guardrails:
        builder = joints_of().constraint("quadratic", "disc", diagonal={"a": 1.0, "b": 1.0}, max=0.25)
        builder.constraint("linear", "sum", a={"a": 1.0, "b": 1.0}, max=0.9)
        return builder.temporal("far", "always far", atoms={"far": f"position.a >= {least}"}).build()

    guard = build(0.25)
    assert [row.name for row in guard.rows] == ["sum", "far"]
    assert guard.layout.coupled == ("sum", "far", "disc")
    guard.reset([0.3, 0.0])
    for _ in range(100):
        out, verdict = guard.step([-1.0, 0.0])
        assert out[0] >= 0.25
    assert "far" in verdict.rules
    with pytest.raises(GuardrailError) as error:
        build(0.75)  # outside the disc
    text = "no position on the lattice within the joints' limits is left"
    assert str(error.value) == f"builder: [constraint] 'far' conflicts with 'disc': {text}"


PENDULUM = """<robot name="r"><link name="base"/><link name="arm"><inertial><origin xyz="1 0 0"/><mass value="1"/>
<inertia ixx="0.01" iyy="0.01" izz="0.01" ixy="0" ixz="0" iyz="0"/></inertial></link>
<joint name="a" type="revolute"><parent link="base"/><child link="arm"/><axis xyz="0 -1 0"/>
<limit lower="-1" upper="1" velocity="2" effort="16"/></joint></robot>"""


def test_efforts_follow_the_joints(tmp_path: Path) -> None:
    """1 kg at 1 m: raising it at 2 W is 0.2 rad/s where it is level."""
    pytest.importorskip("pinocchio")
    (tmp_path / "r.urdf").write_text(PENDULUM)
    builder = Guardrails.builder(rate_hz=RATE, velocity_scale=1.0)
    builder.joint("a", position=(-1, 1), velocity=2.0, acceleration=16.0, effort=16.0)
    builder.dynamics(urdf=str(tmp_path / "r.urdf"))
    plain = builder.build()
    assert plain.layout.coupled == ("a effort", "a effort")
    assert plain.limits[0].acceleration == pytest.approx(6.13, abs=0.01)  # what gravity leaves of 16 N·m
    guard = builder.constraint("power", "watts", max=2.0, hard=False).build()
    assert guard.layout.coupled == ("a effort", "a effort", "watts")
    guard.reset([-0.1])
    for _ in range(60):
        out, verdict = guard.step([1.0])
    assert "watts" in verdict.rules
    speed = float(guard.motion[1][0] * guard.quanta[0]) * RATE
    assert 0.15 < speed < 0.21
    assert abs(out[0]) < 0.1


# ---- how it follows --------------------------------------------------------------------------------------------------


def test_approach_runs_past_its_target_less_than_nearest(tmp_path: Path) -> None:
    beyond = {}
    for clamp in ("approach", "nearest"):
        guard = load(tmp_path, guard=f'on_clamp = "{clamp}"')
        guard.reset([-0.5, 0.0])
        beyond[clamp] = max(float(guard.step([0.3, 0.0])[0][0]) for _ in range(200)) - 0.3
    assert beyond["approach"] < 0.01 < 0.1 < beyond["nearest"]


@pytest.mark.parametrize("kind", ["linear", "quadratic"])
def test_a_rule_that_cannot_be_is_refused_by_its_name(tmp_path: Path, kind: str) -> None:
    keys = {"linear": "a = { a = 1.0 }", "quadratic": "diagonal = { a = 1.0 }"}[kind]
    for command in ("position", "velocity"):
        with pytest.raises(GuardrailError, match=r"x\.guard\.toml: \[constraint\] 'edge' on: found 'acceleration'"):
            load(tmp_path, command=command, rules=rule(kind, "edge", f'{keys}\nmax = 1\non = "acceleration"'))


@pytest.mark.parametrize("command", ["position", "velocity"])
@pytest.mark.parametrize(("first", "second", "given_up"), [(1, 2, "disc"), (2, 1, "keep")])
def test_the_priority_of_soft_rules(command: str, first: int, second: int, given_up: str) -> None:
    builder = joints_of(command).constraint("linear", "keep", a={"a": 1.0}, min=0.5, hard=False, priority=first)
    builder.constraint("quadratic", "disc", diagonal={"a": 1.0}, max=0.09, hard=False, priority=second)
    guard = builder.build()
    at = np.array([0.4, 0.0])
    guard.reset(at)
    given: set[str] = set()
    for _ in range(50):
        out, verdict = guard.step(np.array([0.0, 0.0]) if command == "velocity" else at, position=at)
        at = at + out / RATE if command == "velocity" else out.astype(np.float64)
        given.update(verdict.given_up)
    assert given_up in given
    assert at[0] <= 0.3 + 1e-6 if given_up == "keep" else at[0] >= 0.5 - 1e-6
