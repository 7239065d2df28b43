"""Limits from a URDF: its own, of mimics, of the safety controller and of ros2_control."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from limit_files import joint, urdf

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.bounds import JointBounds


def test_every_attribute_of_limit(tmp_path: Path) -> None:
    text = 'lower="-1" upper="2" velocity="3" effort="4" acceleration="6" deceleration="5" jerk="7"'
    assert urdf(tmp_path, joint("a", text)) == (JointBounds("a", -1, 2, 3, 5, 7, 4),)
    assert urdf(tmp_path, joint("a", 'upper="2"')) == (JointBounds("a", 0, 2),)
    assert urdf(tmp_path, '<joint name="w" type="continuous"/>') == (JointBounds("w"),)
    with pytest.raises(GuardrailError, match=r"r\.urdf: joint 'a': <limit> jerk: found 0; expected a value above 0"):
        urdf(tmp_path, joint("a", 'upper="2" jerk="0"'))
    with pytest.raises(GuardrailError, match="'a': declared twice"):
        urdf(tmp_path, joint("a", 'upper="2"') * 2)


def test_soft_limits_tighten_and_gains_are_only_checked(tmp_path: Path) -> None:
    soft = '<safety_controller k_velocity="{}" k_position="5" soft_lower_limit="-0.5" soft_upper_limit="9"/>'
    (a,) = urdf(tmp_path, joint("a", 'lower="-1" upper="1" velocity="3"', soft.format(20)))
    assert (a.lower, a.upper, a.velocity) == (-0.5, 1, 3)
    with pytest.raises(GuardrailError, match="<safety_controller>: found a gain below 0"):
        urdf(tmp_path, joint("a", 'lower="-1" upper="1"', soft.format(-20)))
    with pytest.raises(GuardrailError, match="<safety_controller> k_velocity: found 'fast'"):
        urdf(tmp_path, joint("a", 'lower="-1" upper="1"', soft.format("fast")))


FACTOR = st.floats(-4, 4).filter(lambda x: abs(x) > 0.1)


@settings(max_examples=100, deadline=None)
@given(FACTOR, st.floats(-0.2, 0.2), FACTOR, st.floats(-0.2, 0.2))
def test_whatever_a_mimicked_joint_does_its_mimics_stay_inside(
    tmp_path_factory: pytest.TempPathFactory, m1: float, o1: float, m2: float, o2: float
) -> None:
    """b = m1·a + o1, c = m2·b + o2: at both ends of what is left of a, and so between them."""
    text = (
        joint("c", 'lower="-0.7" upper="0.9" velocity="2" acceleration="5"',
              f'<mimic joint="b" multiplier="{m2!r}" offset="{o2!r}"/>')
        + joint("a", 'lower="-1" upper="1" velocity="3"')
        + joint("b", 'lower="-0.5" upper="0.6" velocity="1"', f'<mimic joint="a" multiplier="{m1!r}" offset="{o1!r}"/>')
    )  # fmt: skip
    (a,) = urdf(tmp_path_factory.getbasetemp(), text)
    assert a.name == "a"
    reached = {"lower": False, "upper": False}
    for side in ("lower", "upper"):
        q = getattr(a, side)
        b = m1 * q + o1
        c = m2 * b + o2
        slack = [q + 1, 1 - q, b + 0.5, 0.6 - b, c + 0.7, 0.9 - c]
        assert min(slack) > -1e-12
        reached[side] = min(slack) < 1e-12
    assert all(reached.values())  # no tighter than needed
    assert a.velocity == pytest.approx(min(3, 1 / abs(m1), 2 / abs(m1 * m2)))
    assert a.acceleration == pytest.approx(5 / abs(m1 * m2))


@pytest.mark.parametrize(
    ("mimic", "words"),
    [
        ('joint="z"', ["found joint 'z'", "movable joint"]),
        ('joint="b"', ["circle"]),
        ('joint="a" offset="5"', ["leaves joint 'a' no room"]),
        ('joint="a" multiplier="0" offset="5"', ["stands at 5", "[-1, 1]"]),
        ('joint="a" multiplier="two"', ["multiplier: found 'two'"]),
    ],
)
def test_mimics_that_cannot_be(tmp_path: Path, mimic: str, words: list[str]) -> None:
    body = joint("a", 'lower="-1" upper="1"') + joint("b", 'lower="-1" upper="1"', f"<mimic {mimic}/>")
    with pytest.raises(GuardrailError) as error:
        urdf(tmp_path, body)
    for word in ["r.urdf: joint 'b': <mimic>", *words]:
        assert word in str(error.value)


def test_a_mimic_at_a_fixed_value_limits_nothing(tmp_path: Path) -> None:
    body = joint("a", 'lower="-1" upper="1"') + joint(
        "b", 'lower="-9" upper="9"', '<mimic joint="a" multiplier="0" offset="5"/>'
    )
    assert urdf(tmp_path, body) == (JointBounds("a", -1, 1),)


CONTROL = (
    '<ros2_control name="r" type="system"><joint name="{}"><command_interface name="{}">'
    '<param name="min">{}</param><param name="max"> {} </param></command_interface>'
    '<state_interface name="position"/></joint></ros2_control>'
)


def test_ros2_control_tightens(tmp_path: Path) -> None:
    a = joint("a", 'lower="-1" upper="1" velocity="3" effort="9"')
    assert urdf(tmp_path, a + CONTROL.format("a", "position", -0.5, 7)) == (JointBounds("a", -0.5, 1, 3, effort=9),)
    assert urdf(tmp_path, a + CONTROL.format("a", "velocity", -2, 2.5)) == (JointBounds("a", -1, 1, 2, effort=9),)
    assert urdf(tmp_path, a + CONTROL.format("a", "effort", -8, 9)) == (JointBounds("a", -1, 1, 3, effort=8),)
    wheel = '<joint name="w" type="continuous"/>'
    assert urdf(tmp_path, wheel + CONTROL.format("w", "position", -50, 50)) == (JointBounds("w", -50, 50),)
    assert urdf(tmp_path, a + '<joint name="f" type="fixed"/>' + CONTROL.format("f", "position", 0, 0))
    # On a mimic: its own limit, and so what is left of the joint it follows.
    mirror = joint("m", 'lower="-9" upper="9"', '<mimic joint="a" multiplier="-2"/>')
    assert urdf(tmp_path, a + mirror + CONTROL.format("m", "position", -1, 1))[0].upper == 0.5


@pytest.mark.parametrize(
    ("control", "words"),
    [
        (("z", "position", -1, 1), ["<ros2_control> joint 'z'", "no such joint"]),
        (("a", "position", 2, 3), ["joint 'a'", "<ros2_control>", "lower 2 is not below upper 1"]),
        (("a", "position", "${lo}", 3), ["joint 'a': position command_interface: min", "${lo}", "finite number"]),
        (("a", "velocity", 1, 3), ["joint 'a': velocity command_interface velocity: found -1", "above 0"]),
    ],
)
def test_ros2_control_refusals(tmp_path: Path, control: tuple[Any, ...], words: list[str]) -> None:
    with pytest.raises(GuardrailError) as error:
        urdf(tmp_path, joint("a", 'lower="-1" upper="1"') + CONTROL.format(*control))
    for word in ["r.urdf", *words]:
        assert word in str(error.value)


# ---- refusals, word for word -----------------------------------------------------------------------------------------

A = joint("a", 'lower="-1" upper="1"')
B = joint("b", 'lower="-1" upper="1"', "<mimic {}/>")
SOFT = joint("a", 'lower="-1" upper="1"', '<safety_controller {}="x"/>')
NUMBER = "found 'x'; expected a finite number"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('<joint type="revolute"/>', "a revolute joint has no name"),
        ('<joint name="a" type="revolute"/>',
         "joint 'a': no <limit> element; a revolute joint needs lower, upper and velocity"),
        ('<joint name="a" type="fixed"/>', "no revolute, continuous or prismatic joint found"),
        *((joint("a", f'{key}="x"'), f"joint 'a': <limit> {key}: {NUMBER}") for key in (
            "lower", "upper", "velocity", "effort", "jerk", "acceleration", "deceleration")),
        *((SOFT.format(key), f"joint 'a': <safety_controller> {key}: {NUMBER}") for key in (
            "soft_lower_limit", "soft_upper_limit", "k_position", "k_velocity")),
        (joint("a", 'upper="1"', '<safety_controller k_position="-1"/>'),
         "joint 'a': <safety_controller>: found a gain below 0"),
        (A + B.format('joint="a" offset="x"'), f"joint 'b': <mimic>: <mimic> offset: {NUMBER}"),
        (A + B.format('joint="a" offset="2"'),
         "joint 'b': <mimic>: leaves joint 'a' no room: lower -1 is not below upper -1"),
        (A + B.format('joint="a" multiplier="1e200"')
         + joint("c", 'upper="1"', '<mimic joint="b" multiplier="1e200"/>'),
         "joint 'c': <mimic>: found multiplier inf and offset 0; expected finite numbers"),
        (A + B.format(""), "joint 'b': <mimic>: found joint ''; expected another movable joint of this file"),
        (joint("a", 'upper="1"', '<mimic joint="b"/>') + B.format('joint="a"'),
         "joint 'a': <mimic>: a circle of joints that mimic each other; expected another movable joint of this file"),
        (joint("c", 'upper="1"', '<mimic joint="a"/>') + joint("a", 'upper="1"', '<mimic joint="b"/>')
         + B.format('joint="a"'),
         "joint 'c': <mimic>: a circle of joints that mimic each other; expected another movable joint of this file"),
        (A + "<ros2_control><joint/></ros2_control>", "<ros2_control> joint '': no such joint in this file"),
        (A + CONTROL.format("a", "position", "", 1),
         "<ros2_control> joint 'a': position command_interface: min: found ''; expected a finite number"),
        (A + CONTROL.format("a", "acceleration", -1, 0),
         "<ros2_control> joint 'a': acceleration command_interface acceleration: found 0; expected a value above 0"),
    ],
)  # fmt: skip
def test_the_words_of_a_refusal(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(GuardrailError) as error:
        urdf(tmp_path, body)
    assert str(error.value) == f"{tmp_path / 'r.urdf'}: {message}"


def test_what_is_left_out_takes_its_default(tmp_path: Path) -> None:
    soft = joint("a", 'lower="-1" upper="1"', "<safety_controller {}/>")
    assert urdf(tmp_path, soft.format('soft_lower_limit="-0.5"')) == (JointBounds("a", -0.5, 1),)
    assert urdf(tmp_path, soft.format('soft_upper_limit="0.5"')) == (JointBounds("a", -1, 0.5),)
    half = joint("b", 'lower="-0.25" upper="0.5" jerk="6"', '<mimic joint="a"/>')
    assert urdf(tmp_path, A + half) == (JointBounds("a", -0.25, 0.5, jerk=6),)
    twice = joint("b", 'lower="-1" upper="1" jerk="6"', '<mimic joint="a" multiplier="-2"/>')
    assert urdf(tmp_path, A + twice) == (JointBounds("a", -0.5, 0.5, jerk=3),)
    free = '<joint name="b" type="revolute"><mimic joint="a"/></joint>'  # its limits are those of a
    assert urdf(tmp_path, A + free) == (JointBounds("a", -1, 1),)


def test_a_mimic_may_stand_at_its_limit(tmp_path: Path) -> None:
    for offset in (-1, 1):
        assert urdf(tmp_path, A + B.format(f'joint="a" multiplier="0" offset="{offset}"')) == (JointBounds("a", -1, 1),)


def test_one_end_of_a_command_interface(tmp_path: Path) -> None:
    control = CONTROL.replace('<param name="min">{}</param>', "")
    assert urdf(tmp_path, A + control.format("a", "position", 0.5)) == (JointBounds("a", -1, 0.5),)
    assert urdf(tmp_path, A + control.format("a", "velocity", 2)) == (JointBounds("a", -1, 1, 2),)
    assert urdf(tmp_path, A + CONTROL.format("a", "acceleration", -3, 4)) == (JointBounds("a", -1, 1, acceleration=3),)
    other = (
        '<ros2_control><joint name="a"><command_interface><param>x</param></command_interface></joint></ros2_control>'
    )
    assert urdf(tmp_path, A + other) == (JointBounds("a", -1, 1),)
