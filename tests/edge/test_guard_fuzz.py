"""Fuzzing of everything a guard is built from: only GuardrailError comes out, it names the file, and nothing hangs.

Valid texts are mutated (cut, doubled, swapped, sprinkled with numbers and words that hurt), and random bytes are read.
"""

from __future__ import annotations

import string
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.bounds import JointBounds
from kizzasi_edge.guardrails.coupled_spec import coupled_rules, power_rules
from kizzasi_edge.guardrails.joint_limits import read_joint_limits
from kizzasi_edge.guardrails.lattice import to_lattice
from kizzasi_edge.guardrails.limits import joint_limits
from kizzasi_edge.guardrails.mjcf import read_mjcf
from kizzasi_edge.guardrails.spec import GuardFile, check_keys, load_spec
from kizzasi_edge.guardrails.urdf import read_urdf
from kizzasi_edge.toml_file import read_toml, validate

T = TypeVar("T")

URDF = """<?xml version="1.0"?>
<robot name="r">
  <joint name="a" type="revolute"><limit lower="-1.5" upper="1" velocity="3" effort="9" acceleration="20"/>
    <safety_controller k_velocity="10" soft_lower_limit="-1.4" soft_upper_limit="0.9"/></joint>
  <joint name="b" type="prismatic"><limit upper="0.4" velocity="1" effort="9" jerk="50"/></joint>
  <joint name="m" type="revolute"><limit lower="-9" upper="9"/><mimic joint="a" multiplier="-2" offset="0.1"/>
  </joint>
  <joint name="w" type="continuous"><limit velocity="1"/></joint>
  <ros2_control name="x" type="system"><joint name="w"><command_interface name="position">
    <param name="min">-3.0</param><param name="max">3.0</param></command_interface></joint></ros2_control>
</robot>"""

MJCF = """<mujoco><compiler angle="radian" autolimits="true"/><default><joint range="-2 2" limited="auto"/>
<default class="k"><joint type="slide" range="-1 1"/><motor forcerange="-3 3" gear="2"/></default></default>
<worldbody><body childclass="k"><joint name="a"/><frame><joint name="b" class="main" actuatorfrcrange="-4 4"/>
</frame>
<body><joint name="c" type="hinge"/></body></body></worldbody>
<actuator><motor joint="a" class="k" ctrlrange="-1 1"/>
<position joint="b" kp="2" ctrlrange="-1 1"/></actuator></mujoco>"""

YAML = """default_velocity_scaling_factor: 0.5
joint_limits:
  a: &limits
    has_position_limits: true
    min_position: !degrees -90
    max_position: 1.25
    has_velocity_limits: true
    max_velocity: 2
  b: *limits
"""

TOML = """schema = 1
[guard]
rate_hz = 500
command = "position"
[joints]
names = ["a", "b"]
position = [[-1, 1], [-2.0, 2]]
velocity = 2
acceleration = [10, 12.5]
jerk = 500
effort = [3, 4]
margin = 0.01
quantum = 0.0001
[[constraint]]
kind = "linear"
name = "l"
a = { a = 1.0, b = -0.5 }
min = -0.9
max = 0.9
[[constraint]]
kind = "linear"
name = "e"
a = { a = 1.0, b = 1.0 }
equals = 0.0
tolerance = 0.01
hard = false
priority = 2
[[constraint]]
kind = "quadratic"
name = "q"
matrix = { a = { a = 2.0, b = 1.0 }, b = { a = 1.0, b = 3.0 } }
center = { a = 0.1 }
max = 5
on = "velocity"
[[constraint]]
kind = "quadratic"
name = "d"
joints = ["a", "b"]
matrix = [[1, 0], [0, 1]]
linear = { b = 0.5 }
max = 4
[[constraint]]
kind = "power"
name = "p"
joints = ["a"]
max = 80
[[constraint]]
kind = "jerk"
name = "j"
joint = "b"
max = 400
[[temporal]]
name = "t"
formula = "always p"
atoms = { p = "a < 1" }
fallback = "go-to-pose"
pose = { a = 0.0 }
time_to_go = 0.5
[faults]
stale_ms = 10
tracking_error = 0.1
tracking_stop = 0.2
[dynamics]
mass_error = 0.2
gravity = [0, 0, -9.81]
"""

NASTY = st.sampled_from([
    "nan", "inf", "-inf", "1e400", "-0", "0", "1e308", "1e-320", "9" * 400, "9" * 5000, "0x10", "1_0", "true", "''",
    "[]", "{}", '"', "'", "<", ">", "&", "&a;", "\0", "\ufeff", "é", "\u202e", "]]>", "<!--", "<![CDATA[", "<?x?>",
    "<!DOCTYPE r>", "<a>" * 200, "[" * 2000, "{a: " * 500, "*a", "&a ", "!!python/name:os.system", "!degrees ", "---\n",
    "? ", "\t", "\r", '<include file="m.xml"/>', '<include file="/dev/null"/>', '<mimic joint="m"/>', 'class="k"',
    "[joints]", "[[constraint]]",
])  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn, text: str) -> str:
    """``text`` after one to five edits."""
    for _ in range(draw(st.integers(1, 5))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + draw(st.sampled_from([0, 1, 8, 60])))))
        edit = draw(st.sampled_from(["replace", "nasty", "double", "move"]))
        piece = text[start:end]
        if edit == "replace":
            text = text[:start] + draw(st.text(string.printable, max_size=6)) + text[end:]
        elif edit == "nasty":
            text = text[:start] + draw(NASTY) + text[end:]
        elif edit == "double":
            text = text[:end] + piece + text[end:]
        else:
            rest = text[:start] + text[end:]
            to = draw(st.integers(0, len(rest)))
            text = rest[:to] + piece + rest[to:]
    return text


def refused(work: Callable[[], T]) -> tuple[T | None, str]:
    """What ``work`` returns, or else the words of its refusal. Whatever else it raises fails the test."""
    try:
        return work(), ""
    except GuardrailError as error:
        return None, str(error)


def survives(read: Callable[[Path], tuple[JointBounds, ...]], path: Path, data: bytes) -> None:
    """``data`` either reads as joints that a guard could stand on, or is refused in words that name the file."""
    path.write_bytes(data)
    joints, message = refused(lambda: read(path))
    if joints is None:
        assert path.name in message
        assert len(message) < 2000
        return
    assert joints
    for joint in joints:
        assert joint.name
        assert joint.lower < joint.upper
        assert min(joint.velocity, joint.acceleration, joint.jerk) > 0
        assert joint.effort >= 0


SOURCES = [
    pytest.param(read_urdf, "r.urdf", URDF, id="urdf"),
    pytest.param(read_mjcf, "m.xml", MJCF, id="mjcf"),
    pytest.param(read_joint_limits, "l.yaml", YAML, id="yaml"),
]


@pytest.mark.parametrize(("read", "name", "text"), SOURCES)
def test_the_seeds_are_valid(tmp_path: Path, read: Any, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert len(read(tmp_path / name)) == {"r.urdf": 3, "m.xml": 2, "l.yaml": 2}[name]


@pytest.mark.parametrize(("read", "name", "text"), SOURCES)
@settings(max_examples=200, deadline=5000)
@given(data=st.data())
def test_mutated_limit_sources(
    tmp_path_factory: pytest.TempPathFactory, read: Any, name: str, text: str, data: st.DataObject
) -> None:
    survives(read, tmp_path_factory.getbasetemp() / name, data.draw(mutated(text)).encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize(("read", "name", "text"), SOURCES)
@settings(max_examples=80, deadline=5000)
@given(data=st.binary(max_size=200))
def test_random_bytes(tmp_path_factory: pytest.TempPathFactory, read: Any, name: str, text: str, data: bytes) -> None:
    survives(read, tmp_path_factory.getbasetemp() / name, data)
    survives(read, tmp_path_factory.getbasetemp() / name, text.encode()[: len(data)] + data)


def build(data: dict[str, Any], where: str | Path) -> bool:
    """All that follows from a guard file; what is left must be finite and not empty."""
    spec = validate(data, GuardFile, where, GuardrailError)
    check_keys(spec, where)
    limits = joint_limits(spec, where)
    rows, quadratics = coupled_rules(spec, limits, where)
    power_rules(spec, [limit.name for limit in limits], where)
    for row in rows:
        assert row.a.any()
        assert abs(row.b) < 1e60
    for quadratic in quadratics:
        assert (quadratic.q == quadratic.q.T).all()
    if spec.guard.command == "position":
        for limit in limits:
            cell, message = refused(lambda limit=limit: to_lattice(limit, spec.guard.rate_hz))  # type: ignore[misc]
            assert limit.name in message if cell is None else cell.lo <= cell.hi  # the stack names the file
    return True


def test_the_seed_is_valid() -> None:
    assert build(tomllib.loads(TOML), "x")


@settings(max_examples=200, deadline=5000)
@given(data=st.data())
def test_mutated_guard_files(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.guard.toml"
    path.write_bytes(data.draw(mutated(TOML)).encode("utf-8", "surrogatepass"))
    built, message = refused(lambda: build(read_toml(path, GuardrailError), path))
    if not built:
        assert "fuzz.guard.toml" in message
        assert len(message.splitlines()) <= 13


SCALAR = st.one_of(
    st.floats(), st.integers(-(10**320), 10**320), st.integers(-3, 3), st.booleans(), st.floats(-2, 2),
    st.sampled_from(["a", "b", "z", "linear", "quadratic", "power", "torque", "position", "velocity", ""]),
)  # fmt: skip
VALUE = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abz"), inner, max_size=2)
)


@settings(max_examples=200, deadline=5000)
@given(data=st.data())
def test_guard_files_with_other_values(data: st.DataObject) -> None:
    content: dict[str, Any] = tomllib.loads(TOML)
    places: list[tuple[Any, Any]] = [
        (content[section], key) for section in ("guard", "joints") for key in content[section]
    ]
    sections = [content[name] for name in ("guard", "joints", "faults", "dynamics")]
    for rule in (*sections, *content["constraint"], *content["temporal"]):
        places += [(rule, key) for key in rule]
        places += [(value, key) for value in rule.values() if isinstance(value, dict) for key in value]
        places += [(value, i) for value in rule.values() if isinstance(value, list) for i in range(len(value))]
    for _ in range(data.draw(st.integers(1, 3))):
        place, key = data.draw(st.sampled_from(places))
        if isinstance(place, dict) and data.draw(st.integers(0, 3)) == 0:
            place.pop(key, None)
        else:
            place[key] = data.draw(VALUE)
    built, message = refused(lambda: build(content, "fuzz"))
    assert built or "fuzz" in message


def test_a_file_that_does_not_end(tmp_path: Path) -> None:
    for reader in (read_urdf, read_mjcf, read_joint_limits):
        with pytest.raises(GuardrailError, match="/dev/zero: larger than"):
            reader("/dev/zero")
    with pytest.raises(GuardrailError, match="no such file"):
        load_spec(tmp_path / "gone.toml")
