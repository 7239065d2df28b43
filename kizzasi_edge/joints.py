"""Which of a model's inputs and outputs belong to which guarded joint: ``<joint>/position``, as in ros2_control."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from kizzasi_edge.errors import GuardrailError

__all__ = ["command_order", "position_index"]

_POSITION = "/position"


def command_order(outputs: Sequence[str], joints: Sequence[str], where: str) -> npt.NDArray[np.intp]:
    """Index of the output that commands each joint.

    Raises GuardrailError, naming both lists, unless the outputs are just the joints (in any order): an output that
    nothing guards must not reach a motor.
    """
    commanded = [name.removesuffix(_POSITION) for name in outputs]
    if sorted(commanded) != sorted(joints):
        raise GuardrailError(
            f"{where}: guard joints {list(joints)} and model outputs {list(outputs)} differ; expected an output "
            f"<joint> or <joint>{_POSITION} for each joint, and no other"
        )
    return np.array([commanded.index(joint) for joint in joints], np.intp)


def position_index(inputs: Sequence[str], joints: Sequence[str]) -> npt.NDArray[np.intp] | None:
    """Index of each joint's measured position among the inputs; None unless they hold all of them."""
    names = [joint + _POSITION for joint in joints]
    return np.array([inputs.index(name) for name in names], np.intp) if set(names) <= set(inputs) else None
