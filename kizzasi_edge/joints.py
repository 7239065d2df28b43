"""Which of a model's inputs and outputs belong to which guarded joint: ``<joint>/<interface>``, as in ros2_control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from kizzasi_edge.errors import GuardrailError

if TYPE_CHECKING:
    from kizzasi_edge.guardrails import Guardrails

__all__ = ["Measured", "command_order", "guard_order", "measured_index", "measured_names"]

SUFFIX = {"position": "/position", "velocity": "/velocity", "torque": "/effort"}
"""Of the outputs that command a joint, by the guard's command."""

Kind = Literal["position", "velocity"]


def command_order(
    outputs: Sequence[str], joints: Sequence[str], where: str, command: str = "position"
) -> npt.NDArray[np.intp]:
    """Index of the output that commands each joint: ``<joint>``, or ``<joint>`` with the command's suffix.

    Raises GuardrailError, naming both lists, unless the outputs are just the joints (in any order): an output that
    nothing guards must not reach a motor.
    """
    suffix = SUFFIX.get(command, "")
    commanded = [name.removesuffix(suffix) for name in outputs]
    if sorted(commanded) != sorted(joints):
        either = f"<joint> or <joint>{suffix} for each joint" if suffix else "for each of the guard's names"
        raise GuardrailError(
            f"{where}: guard {'joints' if suffix else 'names'} {list(joints)} and model outputs {list(outputs)} "
            f"differ; expected an output {either}, and no other"
        )
    return np.array([commanded.index(joint) for joint in joints], np.intp)


def guard_order(outputs: Sequence[str], guard: Guardrails, where: str) -> npt.NDArray[np.intp]:
    """:func:`command_order` for a guard's commands."""
    return command_order(outputs, guard.output_names, where, guard.command)


def measured_names(joints: Sequence[str], kind: Kind) -> tuple[str, ...]:
    """The inputs that hold each joint's measured position or velocity."""
    return tuple(f"{joint}/{kind}" for joint in joints)


def measured_index(inputs: Sequence[str], joints: Sequence[str], kind: Kind) -> npt.NDArray[np.intp] | None:
    """Index of each joint's measured position or velocity among the inputs; None unless they hold all of them."""
    names = measured_names(joints, kind)
    return np.array([inputs.index(name) for name in names], np.intp) if set(names) <= set(inputs) else None


class Measured:
    """What a guard wants to know each period, found by name in a vector of inputs.

    The arrays returned are float32 ``(joints,)`` in the guard's order, SI units, and are overwritten by the next call.
    """

    def __init__(self, inputs: Sequence[str], guard: Guardrails) -> None:
        n = len(guard.joints)
        self._position = measured_index(inputs, guard.joints, "position")
        self._velocity = measured_index(inputs, guard.joints, "velocity")
        self._q, self._v = np.empty(n, np.float32), np.empty(n, np.float32)
        self._signals = tuple((name, inputs.index(name)) for name in guard.signals if name in inputs)

    def position(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32] | None:
        """Measured positions; None if the inputs do not hold every joint's."""
        return None if self._position is None else values.take(self._position, out=self._q, mode="clip")

    def velocity(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32] | None:
        """Measured velocities; None if the inputs do not hold every joint's."""
        return None if self._velocity is None else values.take(self._velocity, out=self._v, mode="clip")

    def signals(
        self, values: npt.NDArray[np.float32], given: Mapping[str, float] | None = None
    ) -> Mapping[str, float] | None:
        """The guard's signals among the inputs, and those ``given``, which win."""
        if not self._signals:
            return given
        found = {name: float(values[i]) for name, i in self._signals}
        return {**found, **given} if given else found
