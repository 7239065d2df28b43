"""Limits from a joint_limits.yaml of MoveIt or ros2_control."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
from limit_files import YAML, yaml

from kizzasi_edge.errors import GuardrailError, MissingExtra
from kizzasi_edge.guardrails.bounds import JointBounds
from kizzasi_edge.guardrails.joint_limits import read_joint_limits


def test_moveit_and_ros2_control_files(tmp_path: Path) -> None:
    expected = {
        "a": JointBounds("a", -math.pi / 2, 1.25, 2, 6.5, 50, 20),
        "b": JointBounds("b", -0.5, 0.5),
    }
    assert yaml(tmp_path, YAML) == expected
    indented = YAML.replace("\n", "\n  ")
    assert yaml(tmp_path, "robot_description_planning:\n  " + indented) == expected
    parameters = "node:\n  ros__parameters:\n    update_rate: 100\n    " + YAML[YAML.index("joint_limits") :].replace(
        "\n", "\n    "
    )
    assert yaml(tmp_path, parameters) == expected
    one, two = parameters.split("      b:")
    assert yaml(tmp_path, one.rstrip(" ") + "other:\n  ros__parameters:\n    joint_limits:\n      b:" + two) == expected


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("max_jerk", "max_jerkiness", ["line 16: joint 'a': max_jerkiness: unknown key", "max_jerk"]),
        ("default_velocity", "default_speed", ["line 2: default_speed_scaling_factor: unknown key"]),
        ("scaling_factor: 0.1", "scaling_factor: 1.5", ["line 2: default_velocity", "found 1.5", "at most 1"]),
        ("max_jerk: 50", "max_jerk: fast", ["line 16: joint 'a': max_jerk: found 'fast'", "finite number"]),
        ("max_jerk: 50", "max_jerk: .inf", ["line 16", "'.inf'", "finite number"]),
        ("max_jerk: 50", 'max_jerk: "50"', ["line 16", "'50'", "finite number"]),
        ("max_jerk: 50", "max_jerk: [50]", ["line 16", "a sequence", "finite number"]),
        ("max_jerk: 50", "max_jerk: -50", ["line 6: joint 'a' jerk: found -50", "above 0"]),
        ("max_jerk: 50", "max_jerk: !turns 50", ["line 16", "'50', !turns", "!degrees"]),
        ("max_jerk: 50", "max_jerk: !!python/object:os.system 50", ["line 16", "'50'"]),
        ("    max_jerk: 50\n", "", ["joint 'a': max_jerk: missing; has_jerk_limits is true"]),
        ("    has_jerk_limits: true\n", "", ["line 15: joint 'a': max_jerk: found without has_jerk_limits"]),
        ("has_jerk_limits: true", "has_jerk_limits: 1", ["line 15", "found '1'", "true or false"]),
        ("max_jerk: 50", "max_jerk: 50\n    max_jerk: 60", ["line 17", "'max_jerk': found twice"]),
        ("  b:", "  a:", ["line 19", "'a': found twice"]),
        ("max_position: 1.25", "max_position: -3", ["joint 'a'", "lower -1.5708 is not below upper -3"]),
        ("joint_limits:", "joints:", ["line 2: default_velocity_scaling_factor: found '0.1'", "keys and values"]),
        ("joint_limits:", "joint_limits: {a: {", ["not valid YAML", "line"]),
        (YAML, "", ["the file: found nothing"]),
        (YAML, "[1, 2]", ["line 1: the file: found a sequence"]),
        (YAML, "joint_limits: {}", ["no joint under joint_limits"]),
        (YAML, "n: {ros__parameters: {rate: 1}}", ["no joint under joint_limits"]),
        (YAML, "n: {parameters: {rate: 1}}", ["line 1: n: expected joint_limits, or a node with ros__parameters"]),
        (YAML, "joint_limits: {[a]: 1}", ["line 1", "expected a name"]),
        (YAML, "[" * 5000, ["not valid YAML"]),
        (YAML, "a: &a [" + "*a, " * 9 + "]", ["line 1: a: found a sequence"]),
        (YAML, "a: &a {joint_limits: *a}", ["line 1"]),
    ],
)  # fmt: skip
def test_yaml_refusals_name_line_joint_and_key(tmp_path: Path, old: str, new: str, words: list[str]) -> None:
    assert old in YAML
    with pytest.raises(GuardrailError) as error:
        yaml(tmp_path, YAML.replace(old, new, 1))
    for word in [str(tmp_path / "joint_limits.yaml"), *words]:
        assert word in str(error.value)


def test_a_yaml_of_aliases_is_not_expanded(tmp_path: Path) -> None:
    lines = ["a0: &a0 {ros__parameters: {joint_limits: {}}}"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30)]
    with pytest.raises(GuardrailError, match="line 2: a1: found a sequence"):
        yaml(tmp_path, "\n".join(lines))


ONLY_A = "joint_limits: {{a: {{{}}}}}"
KNOWN = ("angle_wraparound, has_acceleration_limits, has_deceleration_limits, has_effort_limits, has_jerk_limits, "
         "has_position_limits, has_soft_limits, has_velocity_limits, k_position, k_velocity, max_acceleration, "
         "max_deceleration, max_effort, max_jerk, max_position, max_velocity, min_position, soft_lower_limit, "
         "soft_upper_limit")  # fmt: skip
SCALING = "joint_limits, default_velocity_scaling_factor, default_acceleration_scaling_factor"
TWICE = "n: {ros__parameters: {joint_limits: {a: {}}}}\nm: {ros__parameters: {joint_limits: {a: {}}}}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not valid YAML: while parsing a flow node expected the node content, but found '<stream end>' in "
         '"<byte string>", line 1, column 5: a: [ ^'),
        (TWICE, "line 2: joint 'a': limited twice in this file"),
        ("robot_description_planning: 3",
         "line 1: robot_description_planning: found '3'; expected keys and values"),
        ("joint_limits: 3", "line 1: joint_limits: found '3'; expected keys and values"),
        ("n: {ros__parameters: 3}", "line 1: ros__parameters: found '3'; expected keys and values"),
        ("n: {ros__parameters: {joint_limits: 3}}", "line 1: joint_limits: found '3'; expected keys and values"),
        ("joint_limits: {a: 3}", "line 1: joint 'a': found '3'; expected keys and values"),
        ("joint_limits: {[a]: 3}", "line 1: joint_limits: key a sequence: expected a name"),
        ("joint_limits: {a: {}}\nspeed: 1", f"line 2: speed: unknown key; expected one of {SCALING}"),
        (ONLY_A.format("speed: 1"), f"line 1: joint 'a': speed: unknown key; expected one of {KNOWN}"),
        ("joint_limits: {a: {}}\ndefault_velocity_scaling_factor: 0",
         "line 2: default_velocity_scaling_factor: found 0; expected above 0 and at most 1"),
        ("joint_limits: {a: {}}\ndefault_velocity_scaling_factor: x",
         "line 2: default_velocity_scaling_factor: found 'x'; expected a finite number"),
        (ONLY_A.format("has_jerk_limits: 3"), "line 1: joint 'a': has_jerk_limits: found '3'; expected true or false"),
        (ONLY_A.format("max_position: 3"), "line 1: joint 'a': max_position: found without has_position_limits, so it "
         "would be ignored; set has_position_limits to true or false"),
        (ONLY_A.format("angle_wraparound: 3"),
         "line 1: joint 'a': angle_wraparound: found '3'; expected true or false"),
        (ONLY_A.format("k_velocity: x"), "line 1: joint 'a': k_velocity: found 'x'; expected a finite number"),
        (ONLY_A.format("k_velocity: '" + "x" * 58 + "'"),
         f"line 1: joint 'a': k_velocity: found '{'x' * 58}'; expected a finite number"),
        (ONLY_A.format("k_velocity: '" + "x" * 59 + "'"),
         f"line 1: joint 'a': k_velocity: found '{'x' * 56}…; expected a finite number"),
    ],
)  # fmt: skip
def test_the_words_of_a_refusal(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(GuardrailError) as error:
        yaml(tmp_path, text)
    assert str(error.value) == f"{tmp_path / 'joint_limits.yaml'}: {message}"


def test_what_else_a_yaml_may_say(tmp_path: Path) -> None:
    """Scaling by 1; accelerating and braking apart; yes and on; !radians."""
    most = "default_velocity_scaling_factor: 1\n" + ONLY_A.format("has_acceleration_limits: yes, max_acceleration: 3")
    assert yaml(tmp_path, most) == {"a": JointBounds("a", acceleration=3)}
    least = ONLY_A.format(
        "has_deceleration_limits: on, max_deceleration: !radians 2, has_jerk_limits: off, max_jerk: 1"
    )
    assert yaml(tmp_path, least) == {"a": JointBounds("a", acceleration=2)}


def test_a_yaml_is_bounded(tmp_path: Path) -> None:
    most = ONLY_A.format("").ljust((1 << 20) - 1) + "\n"
    assert set(yaml(tmp_path, most)) == {"a"}
    with pytest.raises(GuardrailError, match=r"joint_limits\.yaml: larger than 1048576 bytes$"):
        yaml(tmp_path, most + "\n")


def test_without_pyyaml_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(MissingExtra) as error:
        yaml(tmp_path, YAML)
    assert str(error.value) == "joint_limits.yaml needs PyYAML: pip install 'kizzasi-edge[yaml]'"


def test_an_endless_word_does_not_fill_the_screen(tmp_path: Path) -> None:
    (tmp_path / "l.yaml").write_text("joint_limits: *" + "9" * 5000)
    with pytest.raises(GuardrailError, match="not valid YAML: found undefined alias") as refused:
        read_joint_limits(tmp_path / "l.yaml")
    assert len(str(refused.value)) < 500
