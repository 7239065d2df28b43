"""Which numbers a message offers, and what they are called (docs/ros2-messages.md)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from types import SimpleNamespace
from typing import Any

from kizzasi_edge.errors import ConfigError, WireError
from kizzasi_edge.ros2.cdr import Run, Span
from kizzasi_edge.ros2.channels import Channel, Way, elements, names_in
from kizzasi_edge.ros2.structure import Many, Node, Number, Struct

MOST_ELEMENTS = 4096
"""A longer sequence (an image, a point cloud) offers no elements by itself; a channel can still name one."""

MOST_NUMBERS = 65_536
"""A message that offers more is refused: it takes channels to say which are meant."""

INTERFACES = ("position", "velocity", "effort")
_UNOFFERED = ("header", "layout")
_NAMED = ("interface_values",)
"""Lists of messages that are named by the names beside them; others (a trajectory's points) only count."""


def offers(type_name: str, topic: str, shape: Any) -> dict[str, Span]:
    """Name → place of the numbers of a message: ``<joint>/<interface>`` of the types that name joints, of any other
    all as channels, ``/topic:field``.

    Raises :class:`WireError` where two joints have one name, not every joint has its number, or there are too many.
    """
    named = ((str(Channel(topic, way)), span) for way, span in _numbers(shape, (), []))
    found = dict(islice(_JOINTS[type_name](shape) if type_name in _JOINTS else named, MOST_NUMBERS + 1))
    if len(found) > MOST_NUMBERS:
        raise WireError(f"{topic}: found more than {MOST_NUMBERS} numbers in a message; expected channels that choose")
    return found


def require_joints(type_name: str, shape: Any) -> None:
    """Raises what :func:`offers` raises for a message that names joints."""
    if type_name in _JOINTS:
        for _ in _JOINTS[type_name](shape):
            pass


def require_number(node: Struct, channel: Channel, where: str) -> None:
    """Raises :class:`ConfigError` unless a message of this type can hold a number there."""
    inside: Node = node
    for name, element in channel.path:
        fields = dict(inside.fields) if isinstance(inside, Struct) else {}
        if name not in fields:
            expected = f"one of {', '.join(fields)}" if fields else "nothing further, it has no fields"
            raise ConfigError(f"{where} '{channel}': found {name!r} in {node.name}; expected {expected}")
        inside = fields[name]
        if element is not None:
            if not isinstance(inside, Many):
                raise ConfigError(f"{where} '{channel}': found an element of {name!r}, which is no sequence")
            inside = inside.item
    if not isinstance(inside, Number):
        what = "an element, such as [0] or [elbow]" if isinstance(inside, Many) else "a number"
        raise ConfigError(f"{where} '{channel}': is no number; expected {what}")


def _joint_state(shape: Any) -> Iterator[tuple[str, Span]]:
    names: list[str] = shape.name
    _require_unique(names)
    for interface in INTERFACES:
        run: Run = getattr(shape, interface)
        if len(run) not in (0, len(names)):
            raise WireError(f"JointState: found {len(run)} of {interface} for {len(names)} names")
        for i in range(len(run)):
            yield f"{names[i]}/{interface}", run[i]


def _dynamic_joint_state(shape: Any) -> Iterator[tuple[str, Span]]:
    joints: list[str] = shape.joint_names
    _require_unique(joints)
    if len(shape.interface_values) != len(joints):
        raise WireError(
            f"DynamicJointState: found {len(shape.interface_values)} interface_values of {len(joints)} joints"
        )
    for joint, given in zip(joints, shape.interface_values, strict=True):
        interfaces: list[str] = given.interface_names
        _require_unique(interfaces)
        if len(given.values) != len(interfaces):
            raise WireError(
                f"DynamicJointState: found {len(given.values)} values for {len(interfaces)} interface_names"
            )
        for i, interface in enumerate(interfaces):
            yield f"{joint}/{interface}", given.values[i]


_JOINTS: dict[str, Callable[[Any], Iterator[tuple[str, Span]]]] = {
    "sensor_msgs/msg/JointState": _joint_state,
    "control_msgs/msg/DynamicJointState": _dynamic_joint_state,
}


def _require_unique(names: list[str]) -> None:
    if len(set(names)) < len(names):
        twice, _ = Counter(names).most_common(1)[0]
        raise WireError(f"found the name {twice[:60]!r} twice in one message; expected each once")


def _numbers(value: Any, way: Way, names: list[str]) -> Iterator[tuple[Way, Span]]:
    """Every number below ``value``, with the way there, in the order of the message."""
    match value:
        case Span():
            yield way, value
        case SimpleNamespace():
            names = names_in(value) or names
            for name, inner in vars(value).items():
                if way or name not in _UNOFFERED:
                    yield from _numbers(inner, (*way, (name, None)), names)
        case Run() | list() if len(value) <= MOST_ELEMENTS:
            *before, (last, _) = way
            named = isinstance(value, Run) or last in _NAMED
            for i, element in enumerate(elements(value, names if named else [])):
                yield from _numbers(value[i], (*before, (last, element)), names)
