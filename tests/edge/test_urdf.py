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
