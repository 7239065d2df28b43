"""Names of inputs and outputs, by joint and interface."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails import Guardrails
from kizzasi_edge.joints import Measured, command_order, measured_index

SUFFIXES = [("position", "/position"), ("velocity", "/velocity"), ("torque", "/effort")]


@pytest.mark.parametrize(("command", "suffix"), SUFFIXES)
@given(order=st.permutations(["a", "b", "c"]), bare=st.sets(st.sampled_from("abc")))
def test_an_output_is_found_by_its_joint_with_or_without_the_commands_suffix(
    command: str, suffix: str, order: list[str], bare: set[str]
) -> None:
    outputs = [joint if joint in bare else joint + suffix for joint in order]
    found = command_order(outputs, ["a", "b", "c"], "g", command)
    assert [order[i] for i in found] == ["a", "b", "c"]


@pytest.mark.parametrize(("command", "suffix"), SUFFIXES)
def test_another_commands_output_is_refused_with_both_lists(command: str, suffix: str) -> None:
    for _, other in SUFFIXES:
        if other == suffix:
            continue
        with pytest.raises(GuardrailError) as error:
            command_order(["a", f"b{other}"], ["a", "b"], "g.toml", command)
        for word in ("g.toml", "['a', 'b']", f"['a', 'b{other}']", f"<joint>{suffix}"):
            assert word in str(error.value)


@pytest.mark.parametrize("outputs", [["a"], ["a", "b", "c"], ["a", "a"], ["a", "a/position"]])
def test_too_few_too_many_or_twice(outputs: list[str]) -> None:
    with pytest.raises(GuardrailError, match="differ"):
        command_order(outputs, ["a", "b"], "g")


def test_a_poses_names_are_taken_as_they_are() -> None:
    assert command_order(["n/y", "n/x"], ["n/x", "n/y"], "g", "pose").tolist() == [1, 0]
    with pytest.raises(GuardrailError, match=r"names \['n/x'\] and model outputs \['n'\]"):
        command_order(["n"], ["n/x"], "g", "pose")


def test_all_joints_are_measured_or_none() -> None:
    inputs = ["b/velocity", "a/position", "b/position", "target"]
    found = measured_index(inputs, ["a", "b"], "position")
    assert found is not None
    assert found.tolist() == [1, 2]
    assert measured_index(inputs, ["a", "b"], "velocity") is None


def test_measured_values_come_by_name_in_the_guards_order() -> None:
    guard = Guardrails.builder(rate_hz=100)
    for joint in ("a", "b"):
        guard.joint(joint, position=(-1, 1), velocity=1, acceleration=9)
    measured = Measured(["b/velocity", "a/position", "b/position", "a/velocity"], guard.build())
    values = np.array([1, 2, 3, 4], np.float32)
    position, velocity = measured.position(values), measured.velocity(values)
    assert position is not None
    assert velocity is not None
    assert (position.tolist(), velocity.tolist()) == ([2, 3], [4, 1])
    assert measured.signals(values) is None
    assert measured.position(values) is position  # the same memory each time
