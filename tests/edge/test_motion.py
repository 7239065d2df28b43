"""From a guard file to the drive: what the core is given, what each rule is called, and where an error is."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails import Guardrails
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
