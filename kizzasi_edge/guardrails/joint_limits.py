"""Joint limits from a ``joint_limits.yaml``: MoveIt's file, or the parameters of a ros2_control node.

MoveIt (``joint_limits`` at the top, perhaps under ``robot_description_planning``; its default scaling factors shape
plans and limit nothing, they are only checked) or ros2_control (``node: ros__parameters: joint_limits``). In both a
value counts only where its ``has_…_limits`` is true. The tags ``!degrees`` and ``!radians`` are understood.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kizzasi_edge.errors import GuardrailError, MissingExtra
from kizzasi_edge.guardrails.bounds import JointBounds
from kizzasi_edge.guardrails.files import finite, read_bytes, shortened

MAX_BYTES = 1 << 20

FLAGS = {
    "has_position_limits": ("min_position", "max_position"),
    "has_velocity_limits": ("max_velocity",),
    "has_acceleration_limits": ("max_acceleration",),
    "has_deceleration_limits": ("max_deceleration",),
    "has_jerk_limits": ("max_jerk",),
    "has_effort_limits": ("max_effort",),
    "has_soft_limits": ("soft_lower_limit", "soft_upper_limit"),
}
"""Each flag and the values that count where it is true."""

GAINS = ("k_position", "k_velocity")
"""Gains of the robot's own controller at its soft limits: no limits."""

SCALING = ("default_velocity_scaling_factor", "default_acceleration_scaling_factor")


def read_joint_limits(path: str | Path) -> tuple[JointBounds, ...]:
    """The limits of each joint in the file's order.

    Raises :class:`GuardrailError` naming file, line, joint, key, found and expected: unknown and doubled keys, values
    without their flag and flags without their values; :class:`MissingExtra` if PyYAML is not installed.
    """
    try:
        yaml = importlib.import_module("yaml")
    except ImportError:
        raise MissingExtra("joint_limits.yaml needs PyYAML: pip install 'kizzasi-edge[yaml]'") from None
    path = Path(path)
    data = read_bytes(path, MAX_BYTES)
    try:
        # Nodes only: nothing is constructed, aliases are not expanded, and every node knows its line.
        root = yaml.compose(data, Loader=yaml.SafeLoader)
    except RecursionError:
        raise GuardrailError(f"{path}: not valid YAML: nested too deeply") from None
    except (yaml.YAMLError, ValueError) as exc:  # ValueError: an encoding it cannot read
        raise GuardrailError(f"{path}: not valid YAML: {' '.join(map(shortened, str(exc).split()))}") from None
    joints = {}
    for name, node in _limits_of(path, root):
        if name in joints:
            raise GuardrailError(f"{_line(path, node)}: joint {name!r}: limited twice in this file")
        joints[name] = _joint(path, name, node)
    if not joints:
        raise GuardrailError(f"{path}: found no joint under joint_limits")
    return tuple(joints.values())


def _limits_of(path: Path, root: Any) -> list[tuple[str, Any]]:
    """Name and node of each joint, wherever ``joint_limits`` stands."""
    top = _mapping(path, root, "the file")
    if set(top) == {"robot_description_planning"}:
        top = _mapping(path, top["robot_description_planning"], "robot_description_planning")
    if "joint_limits" in top:
        for key, node in top.items():
            if key in SCALING:
                if not 0 < (value := _number(path, node, key)) <= 1:
                    raise GuardrailError(f"{_line(path, node)}: {key}: found {value:g}; expected above 0 and at most 1")
            elif key != "joint_limits":
                raise _unknown(path, node, key, ("joint_limits", *SCALING))
        return list(_mapping(path, top["joint_limits"], "joint_limits").items())
    found = []
    for name, node in top.items():
        inner = _mapping(path, node, name)
        if set(inner) != {"ros__parameters"}:
            raise GuardrailError(f"{_line(path, node)}: {name}: expected joint_limits, or a node with ros__parameters")
        parameters = _mapping(path, inner["ros__parameters"], "ros__parameters")  # others than ours are not our concern
        if "joint_limits" in parameters:
            found += list(_mapping(path, parameters["joint_limits"], "joint_limits").items())
    return found


def _joint(path: Path, name: str, node: Any) -> JointBounds:
    keys = _mapping(path, node, f"joint {name!r}")
    known = {key for flag, values in FLAGS.items() for key in (flag, *values)} | {"angle_wraparound", *GAINS}
    for key, value in keys.items():
        if key not in known:
            raise _unknown(path, value, f"joint {name!r}: {key}", sorted(known))
    values: dict[str, float] = {}
    for flag, names in FLAGS.items():
        on = flag in keys and _flag(path, keys[flag], f"joint {name!r}: {flag}")
        for key in names:
            if key not in keys:
                if on:
                    raise GuardrailError(f"{_line(path, node)}: joint {name!r}: {key}: missing; {flag} is true")
                continue
            value = _number(path, keys[key], f"joint {name!r}: {key}")
            if flag not in keys:
                raise GuardrailError(
                    f"{_line(path, keys[key])}: joint {name!r}: {key}: found without {flag}, so it would be ignored; "
                    f"set {flag} to true or false"
                )
            if on:
                values[key] = value
    for key, check in (("angle_wraparound", _flag), *((gain, _number) for gain in GAINS)):
        if key in keys:
            check(path, keys[key], f"joint {name!r}: {key}")
    get: Callable[[str], float] = lambda key: values.get(key, math.inf)  # noqa: E731
    return JointBounds(
        name,
        max(values.get("min_position", -math.inf), values.get("soft_lower_limit", -math.inf)),
        min(get("max_position"), get("soft_upper_limit")),
        get("max_velocity"),
        min(get("max_acceleration"), get("max_deceleration")),
        get("max_jerk"),
        get("max_effort"),
    ).checked(f"{_line(path, node)}: joint {name!r}")


def _mapping(path: Path, node: Any, what: str) -> Mapping[str, Any]:
    if node is None or node.id != "mapping":
        place = str(path) if node is None else _line(path, node)
        raise GuardrailError(f"{place}: {what}: found {_shown(node)}; expected keys and values")
    result: dict[str, Any] = {}
    for key, value in node.value:
        if key.id != "scalar" or key.value in result:
            problem = "found twice" if key.id == "scalar" else "expected a name"
            raise GuardrailError(f"{_line(path, key)}: {what}: key {_shown(key)}: {problem}")
        result[key.value] = value
    return result


def _number(path: Path, node: Any, what: str) -> float:
    where = f"{_line(path, node)}: {what}"
    if node.id != "scalar" or node.style is not None:
        raise GuardrailError(f"{where}: found {_shown(node)}; expected a finite number")
    if node.tag not in (*_PLAIN, "!degrees", "!radians"):
        raise GuardrailError(
            f"{where}: found {_shown(node)}, {shortened(node.tag)}; "
            "expected a finite number, perhaps !degrees or !radians"
        )
    value = finite(where, node.value)
    return math.radians(value) if node.tag == "!degrees" else value


_PLAIN = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "str"))  # 1e3 is a "str" to PyYAML


def _flag(path: Path, node: Any, what: str) -> bool:
    if node.id != "scalar" or node.tag != "tag:yaml.org,2002:bool":
        raise GuardrailError(f"{_line(path, node)}: {what}: found {_shown(node)}; expected true or false")
    return str(node.value).lower() in ("true", "yes", "on")


def _unknown(path: Path, node: Any, what: str, known: Any) -> GuardrailError:
    return GuardrailError(f"{_line(path, node)}: {what}: unknown key; expected one of {', '.join(known)}")


def _line(path: Path, node: Any) -> str:
    return f"{path}: line {node.start_mark.line + 1}"


def _shown(node: Any) -> str:
    return "nothing" if node is None else shortened(repr(node.value)) if node.id == "scalar" else f"a {node.id}"
