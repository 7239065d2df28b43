"""Where limits come from, how they are merged, and files that are meant to hurt."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from limit_files import YAML, joint, limits

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.bounds import JointBounds, symmetric
from kizzasi_edge.guardrails.files import MAX_DEPTH
from kizzasi_edge.guardrails.mjcf import read_mjcf
from kizzasi_edge.guardrails.urdf import read_urdf

INF = math.inf

WHEEL = '<robot name="r"><joint name="w" type="continuous"><limit velocity="2" effort="1"/></joint></robot>'


def test_a_continuous_joint_needs_a_range_from_somewhere(tmp_path: Path) -> None:
    (tmp_path / "r.urdf").write_text(WHEEL)
    keys = 'from_urdf = "r.urdf"\nacceleration = 9'
    with pytest.raises(GuardrailError, match=r"r\.urdf: joint 'w': continuous.*'range'.*names and position"):
        limits(tmp_path, keys)
    rule = '[[constraint]]\nkind = "range"\nname = "turns"\njoint = "w"\nmin = -30\nmax = 30'
    (w,) = limits(tmp_path, keys, rule)
    assert (w.lower, w.upper, w.origin["position"]) == (-30, 30, "turns")
    (w,) = limits(tmp_path, keys, command="velocity")
    assert (w.lower, w.upper, w.velocity, w.effort) == (-INF, INF, 2, 1)


# ---- XML that is meant to hurt ---------------------------------------------------------------------------------------

LAUGHS = '<!DOCTYPE robot [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(12)
)  # fmt: skip


@pytest.mark.parametrize("reader", [read_urdf, read_mjcf])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        (LAUGHS + ']>\n<robot name="&m;"/>', "line 1: found a DOCTYPE"),
        ('<!DOCTYPE robot [<!ENTITY x SYSTEM "file:///etc/passwd">]><robot>&x;</robot>', "found a DOCTYPE"),
        ("<robot>\n" + "<a>" * 100_000, f"line 2: more than {MAX_DEPTH} nested elements"),
        (" " * (16 << 20) + "<robot/>", "larger than"),
    ],
    ids=["billion laughs", "external entity", "deep", "large"],
)
def test_hostile_xml_is_refused_at_once(tmp_path: Path, reader: Any, text: str, words: str) -> None:
    path = tmp_path / "r.xml"
    path.write_text(text)
    with pytest.raises(GuardrailError, match=words):
        reader(path)


# ---- merging ---------------------------------------------------------------------------------------------------------


def test_the_tightest_source_wins(tmp_path: Path) -> None:
    (tmp_path / "r.urdf").write_text(
        "<robot>" + joint("a", 'lower="-2" upper="1" velocity="1.5" effort="30"') + joint("b", 'upper="9" velocity="4"')
        + "</robot>"
    )  # fmt: skip
    (tmp_path / "l.yaml").write_text(YAML.replace("has_velocity_limits: false", "has_velocity_limits: true"))
    keys = 'from_urdf = "r.urdf"\njoint_limits = "l.yaml"\nacceleration = [7, 9]\njerk = [60, 70]\neffort = 25\n'
    rules = '[[constraint]]\nkind = "{}"\nname = "{}"\nmax = {}\n'
    rest = rules.format("jerk", "gentle", 40) + 'joints = ["a"]\n' + rules.format("torque", "weak", 10)
    a, b = limits(tmp_path, keys, rest)
    assert (a.lower, a.upper, a.velocity, a.acceleration) == (-math.pi / 2, 1, 1.5, 6.5)
    assert (a.jerk, a.effort, a.origin["jerk"], a.origin["effort"]) == (40, 10, "gentle", "weak")
    assert (b.lower, b.upper, b.velocity, b.acceleration) == (0, 0.5, 0.001, 9)
    assert (b.jerk, b.effort, b.origin["jerk"]) == (70, 10, "jerk")


def test_names_take_their_limits_from_a_yaml(tmp_path: Path) -> None:
    (tmp_path / "l.yaml").write_text(YAML)
    keys = 'joint_limits = "l.yaml"\nvelocity = 9\nacceleration = 9\n'
    (a, b) = limits(tmp_path, 'names = ["a", "b"]\n' + keys)
    assert (a.upper, a.velocity, b.upper, b.velocity) == (1.25, 2, 0.5, 9)
    with pytest.raises(GuardrailError, match=r"l\.yaml: joint 'b': not guarded by .*x\.guard\.toml; expected one of"):
        limits(tmp_path, 'names = ["a"]\nposition = [[-1, 1]]\n' + keys)
    with pytest.raises(GuardrailError, match=r"l\.yaml: joint 'a': with .*: lower 2 is not below upper 1\.25"):
        limits(tmp_path, 'names = ["a", "b"]\nposition = [[2, 3], [0, 1]]\n' + keys)


def test_a_torque_guard_needs_efforts(tmp_path: Path) -> None:
    keys = 'names = ["a"]\nposition = [[-1, 1]]\nvelocity = 1\nacceleration = 1\n'
    with pytest.raises(GuardrailError, match=r"\[joints\] effort: missing; a torque guard needs one above 0"):
        limits(tmp_path, keys, command="torque")
    assert limits(tmp_path, keys + "effort = 3", command="torque")[0].effort == 3
    assert limits(tmp_path, 'names = ["a"]\nvelocity = 1\nacceleration = 1', command="velocity")[0].upper == INF


@pytest.mark.parametrize("both", ['names = ["a"]\nfrom_mjcf = "m.xml"', 'from_urdf = "r.urdf"\nfrom_mjcf = "m.xml"'])
def test_one_source_of_joints(tmp_path: Path, both: str) -> None:
    with pytest.raises(GuardrailError, match=r"\[joints\]: give either from_urdf or names or from_mjcf, found both"):
        limits(tmp_path, both)


def test_an_effort_of_zero_is_said_and_a_negative_one_is_wrong() -> None:
    nothing = JointBounds("a", effort=0.0)
    assert nothing.checked("x: joint 'a'") is nothing
    for effort in (-0.5, -3.0):
        message = rf"^x: joint 'a' effort: found {effort:g}; expected a value of at least 0$"
        with pytest.raises(GuardrailError, match=message):
            JointBounds("a", effort=effort).checked("x: joint 'a'")


@pytest.mark.parametrize(("lower", "upper", "size"), [(-2.0, 3.0, 2.0), (-3.0, 2.0, 2.0), (1.0, 3.0, -1.0)])
def test_the_size_of_what_goes_from_lower_to_upper(lower: float, upper: float, size: float) -> None:
    assert symmetric(lower, upper) == size


# ---- refusals, word for word: they must name file, section, key, found and expected -------------------------------

ONE = 'names = ["a"]\nposition = [[-1, 1]]\nvelocity = 1\nacceleration = 1\n'
PROTECTED = '<robot name="r"><joint name="a" type="revolute"><limit upper="1" velocity="2" effort="0"/></joint></robot>'
FREE = '<mujoco><worldbody><body><joint name="a" range="-9 9"/><geom size="1"/></body></worldbody></mujoco>'
RULE = '[[constraint]]\nname = "c"\n'


@pytest.mark.parametrize(
    ("keys", "rest", "message"),
    [
        ("velocity = 1", "", "[joints]: give either from_urdf or names or from_mjcf, found neither"),
        (ONE + 'from_urdf = "r.urdf"', "", "[joints]: give either from_urdf or names or from_mjcf, found both"),
        (ONE + 'from_urdf = "r.urdf"\nfrom_mjcf = "m.xml"', "",
         "[joints]: give either from_urdf or names or from_mjcf, found all"),
        ('from_urdf = "r.urdf"\nposition = [[0, 1]]', "",
         "[joints] position: comes from {folder}/r.urdf; use margin or a range constraint to tighten it"),
        ('from_mjcf = "m.xml"\nposition = [[0, 1]]', "",
         "[joints] position: comes from {folder}/m.xml; use margin or a range constraint to tighten it"),
        ('names = ["a", "b"]', "", "[joints] position: found nothing; expected 2 pairs [lo, hi], one per name"),
        ('names = ["a"]\nposition = [[0, 1], [0, 1]]', "",
         "[joints] position: found 2 pairs; expected 1 pairs [lo, hi], one per name"),
        (ONE.replace("velocity = 1\n", ""), "", "[joints] velocity: missing; joint 'a' needs one"),
        ('from_mjcf = "m.xml"', "", "[joints] velocity is missing, and {folder}/m.xml has none for joint 'a'"),
        (ONE.replace("acceleration = 1\n", ""), "",
         "[joints] acceleration: missing; a position limit without one has no stop (joint 'a')"),
        (ONE + "margin = -0.5", "", "[joints] margin: found -0.5 for joint 'a'; expected a value of at least 0"),
        (ONE + "jerk = 0", "", "[joints] jerk: found 0 for joint 'a'; expected a value above 0"),
        (ONE, RULE + 'kind = "less"\nmax = -1',
         "[constraint] 'c': conflicts with other limits of 'a': nothing left between -1 and -1"),
        (ONE, RULE + 'kind = "less"\nmax = 0\njoints = ["b"]',
         "[constraint] 'c' joint: found 'b'; expected one of ['a']"),
    ],
)  # fmt: skip
def test_the_words_of_a_refusal(tmp_path: Path, keys: str, rest: str, message: str) -> None:
    (tmp_path / "r.urdf").write_text(PROTECTED)
    (tmp_path / "m.xml").write_text(FREE)
    with pytest.raises(GuardrailError) as error:
        limits(tmp_path, keys, rest)
    assert str(error.value) == f"{tmp_path / 'x.guard.toml'}: {message.format(folder=tmp_path)}"


def test_an_effort_of_zero_in_the_robot_file_stops_a_torque_guard(tmp_path: Path) -> None:
    (tmp_path / "r.urdf").write_text(PROTECTED)
    keys = 'from_urdf = "r.urdf"\nacceleration = 9\n'
    with pytest.raises(
        GuardrailError, match=r"\[joints\] effort: found 0; a torque guard needs one above 0 \(joint 'a'\)$"
    ):
        limits(tmp_path, keys, command="torque")
    assert limits(tmp_path, keys)[0].effort == 0
    (tmp_path / "r.urdf").write_text(PROTECTED.replace('effort="0"', 'effort="0.25"'))
    assert limits(tmp_path, keys, command="torque")[0].effort == 0.25


@pytest.mark.parametrize("command", ["position", "velocity", "torque"])
def test_half_a_range_is_none(tmp_path: Path, command: str) -> None:
    (tmp_path / "r.urdf").write_text(WHEEL)
    for rule in ('kind = "less"\nmax = 3', 'kind = "greater"\nmin = 3'):
        with pytest.raises(GuardrailError, match=r"r\.urdf: joint 'w': continuous"):
            limits(tmp_path, 'from_urdf = "r.urdf"\nacceleration = 9', RULE + rule, command)


def test_a_rule_that_changes_nothing_is_not_the_origin(tmp_path: Path) -> None:
    kinds = ('kind = "velocity"\nmax = 1', 'kind = "acceleration"\nmax = 1', 'kind = "range"\nmin = -1\nmax = 1')
    rules = "".join(f'[[constraint]]\nname = "c{i}"\n{kind}\n' for i, kind in enumerate(kinds))
    (a,) = limits(tmp_path, ONE, rules)
    assert a.origin == {kind: kind for kind in ("position", "velocity", "acceleration", "jerk", "effort")}


def test_a_yaml_may_be_silent_about_a_joint(tmp_path: Path) -> None:
    (tmp_path / "l.yaml").write_text(YAML[: YAML.index("  b:")])
    a, c = limits(tmp_path, 'names = ["a", "c"]\nposition = [[-1, 2], [-1, 2]]\njoint_limits = "l.yaml"\nvelocity = 9\n'
                  "acceleration = 9")  # fmt: skip
    assert (a.upper, a.velocity, c.upper, c.velocity) == (1.25, 2, 2, 9)
