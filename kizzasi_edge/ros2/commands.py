"""What is sent for one command of the loop: the message's form, and where each output goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kizzasi_edge.errors import ConfigError
from kizzasi_edge.ros2.channels import Channel, Way
from kizzasi_edge.ros2.codec import Encoder
from kizzasi_edge.ros2.offers import INTERFACES
from kizzasi_edge.ros2.transport import MessageType

Form = tuple[dict[str, Any], list[Way]]

_MEANT = {
    "position": "position",
    "positions": "position",
    "velocity": "velocity",
    "velocities": "velocity",
    "effort": "effort",
}
_MEANT_BY = {"geometry_msgs/msg/Twist": "velocity", "geometry_msgs/msg/TwistStamped": "velocity"}
"""What a number is, by the name that it goes by in a message, or by the message's type."""


def interfaces(
    kind: MessageType, topic: str, channels: Mapping[str, Channel], taken: str | None = None
) -> tuple[str, ...]:
    """Of "position", "velocity" and "effort", what messages of this type with these ``channels`` can command, as far as
    they say; ``taken``: what the robot's side is said to take.

    Raises :class:`ConfigError` where that contradicts the message, or the message itself.
    """
    told = {_MEANT[part] for channel in channels.values() for part in channel.path[-1] if part in _MEANT}
    if kind.name in _MEANT_BY:
        told = {_MEANT_BY[kind.name]}
    if len(told) > 1:
        raise ConfigError(f"channels of {topic}: found {' and '.join(sorted(told))}; expected commands of one kind")
    if taken is None:
        return tuple(told) or INTERFACES
    if told and taken not in told:
        raise ConfigError(f"command_interface of {topic}: found {taken!r}; {kind.name} takes {', '.join(told)} there")
    return (taken,)


def command_encoder(
    kind: MessageType,
    topic: str,
    names: Sequence[str],
    *,
    interface: str = "position",
    channels: Mapping[str, Channel] | None = None,
    reach_s: float = 0.0,
    frame_id: str = "",
) -> Encoder:
    """An encoder of messages of this type for values in the order of ``names``.

    Types with a place for joints take one value for each: JointState, JointTrajectory (one point, to be reached after
    ``reach_s``) and DynamicJointState by name, Float32MultiArray and Float64MultiArray (as forward_command_controller
    reads them) in that order. ``interface``: what the values are, "position", "velocity" or "effort". Any other type
    needs ``channels``: name → place.

    Raises :class:`ConfigError` where names, channels and type do not go together.
    """
    if interface not in INTERFACES:
        raise ConfigError(f"interface of {topic}: found {interface!r}; expected one of {list(INTERFACES)}")
    joints = [name.removesuffix(f"/{interface}") for name in names]
    if channels:
        if set(channels) != set(names):
            raise ConfigError(f"channels of {topic}: found {sorted(channels)}; expected one for each of {list(names)}")
        return Encoder(kind, {"header": {"frame_id": frame_id}}, [channels[name] for name in names])
    if kind.name not in _FORMS:
        raise ConfigError(f"channels of {topic}: missing; expected where in {kind.name} each of {list(names)} goes")
    skeleton, ways = _FORMS[kind.name](joints, interface)
    for point in skeleton.get("points", ()):
        point["time_from_start"] = dict(zip(("sec", "nanosec"), divmod(round(reach_s * 1e9), 10**9), strict=True))
    skeleton |= {"header": {"frame_id": frame_id}}
    return Encoder(kind, skeleton, [Channel(topic, way) for way in ways])


def _array(joints: Sequence[str], _interface: str) -> Form:
    return {"data": [0.0] * len(joints)}, [(("data", str(i)),) for i in range(len(joints))]


def _joint_state(joints: Sequence[str], interface: str) -> Form:
    return {"name": joints, interface: [0.0] * len(joints)}, [((interface, joint),) for joint in joints]


def _trajectory(joints: Sequence[str], interface: str) -> Form:
    field = {"position": "positions", "velocity": "velocities", "effort": "effort"}[interface]
    ways: list[Way] = [(("points", "0"), (field, joint)) for joint in joints]
    return {"joint_names": joints, "points": [{field: [0.0] * len(joints)}]}, ways


def _dynamic(joints: Sequence[str], interface: str) -> Form:
    one = {"interface_names": [interface], "values": [0.0]}
    ways: list[Way] = [(("interface_values", joint), ("values", interface)) for joint in joints]
    return {"joint_names": joints, "interface_values": [one] * len(joints)}, ways


_FORMS: dict[str, Callable[[Sequence[str], str], Form]] = {
    "std_msgs/msg/Float32MultiArray": _array,
    "std_msgs/msg/Float64MultiArray": _array,
    "sensor_msgs/msg/JointState": _joint_state,
    "trajectory_msgs/msg/JointTrajectory": _trajectory,
    "control_msgs/msg/DynamicJointState": _dynamic,
}
