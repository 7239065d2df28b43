"""The node's parameters: one table, declared with description and range, and checked when someone sets them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter


@dataclass(frozen=True)
class Row:
    """A parameter. ``least`` and ``most``: of a number. ``live``: it may be set at any time; another one only before
    `configure`, which reads it."""

    name: str
    default: Any
    description: str
    least: float | None = None
    most: float | None = None
    live: bool = False

    @property
    def descriptor(self) -> ParameterDescriptor:
        when = "any time" if self.live else "before configure"
        found = ParameterDescriptor(name=self.name, description=self.description, additional_constraints=f"set: {when}")
        if self.least is not None and self.most is not None:
            span = FloatingPointRange(from_value=self.least, to_value=self.most, step=0.0)
            found.floating_point_range = [span]
        return found


PARAMETERS = (
    Row("config", "", "Path of the robot.toml."),
    Row("joint_remap", [""], 'Joints whose names in ROS differ, as "ours:=theirs", for all connectors of kind ros2.'),
    Row("start_s", 15.0, "How long activate waits for the first messages and the first step [s].", 0.1, 3600.0),
    Row("arm_on_activate", False, "Arm at activation. Otherwise nothing but ~/arm arms.", live=True),
    Row("verdict_rate_hz", 10.0, "How often ~/verdict is published [Hz].", 0.1, 100.0, live=True),
    Row("diagnostics_rate_hz", 1.0, "How often /diagnostics is published [Hz].", 0.1, 50.0, live=True),
)


def declare(node: Node) -> None:
    for row in PARAMETERS:
        node.declare_parameter(row.name, row.default, row.descriptor)


def refusal(parameters: list[Parameter], *, configured: bool) -> str:
    """Why these must not be set now; "" if they may. Types and ranges are rclpy's affair."""
    live = {row.name: row.live for row in PARAMETERS}
    for parameter in parameters:
        if configured and not live.get(parameter.name, True):
            return f"{parameter.name}: found the node configured; expected it unconfigured (cleanup first)"
        if parameter.name == "joint_remap":
            try:
                remap(parameter.value)
            except ValueError as exc:
                return str(exc)
    return ""


def remap(rules: list[str]) -> Mapping[str, str]:
    """Our name → ROS's, of ``ours:=theirs``; empty rules are none. Raises ValueError."""
    found: dict[str, str] = {}
    for rule in filter(None, rules):
        ours, separator, theirs = rule.partition(":=")
        if not (separator and ours and theirs):
            raise ValueError(f"joint_remap: found {rule!r}; expected ours:=theirs")
        if ours in found:
            raise ValueError(f"joint_remap: found {ours!r} twice")
        found[ours] = theirs
    if len(set(found.values())) < len(found):
        raise ValueError(f"joint_remap: found {list(rules)}; expected another joint of theirs for each of ours")
    return found
