"""Joint limits from a URDF (http://wiki.ros.org/urdf/XML/joint), by ElementTree: no XML library needed.

Read: ``<limit>`` (also ``acceleration``, ``deceleration``, ``jerk``), the soft limits of ``<safety_controller>`` (its
gains ``k_position`` and ``k_velocity`` belong to the robot's own controller and are only checked), ``<mimic>``, and
``min``/``max`` of ``<command_interface>`` in ``<ros2_control>``, which apply even where ``<limits enable="false"/>``.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.bounds import JointBounds, symmetric
from kizzasi_edge.guardrails.files import finite, read_xml

MOVABLE = ("revolute", "continuous", "prismatic")


def read_urdf(path: str | Path) -> tuple[JointBounds, ...]:
    """Actuated joints (revolute, continuous, prismatic; not mimic) in file order; a continuous joint has no range.

    A joint that others mimic is limited so that they stay inside their own limits too.
    Raises :class:`GuardrailError` naming the file, the joint and the attribute.
    """
    path = Path(path)
    root = read_xml(path)
    if root.tag != "robot":
        raise GuardrailError(f"{path}: root element is <{root.tag}>; expected <robot>")
    elements: dict[str, ET.Element] = {}
    for element in root.findall("joint"):
        name = element.get("name")
        if not name:
            raise GuardrailError(f"{path}: a {element.get('type')} joint has no name")
        if name in elements:
            raise GuardrailError(f"{path}: joint {name!r}: declared twice")
        elements[name] = element
    movable = {name: element for name, element in elements.items() if element.get("type") in MOVABLE}
    bounds = {name: _limit(f"{path}: joint {name!r}", name, element) for name, element in movable.items()}
    for name, tighter in _ros2_control(path, root, elements):
        if name in bounds:
            bounds[name] = bounds[name].tightened(tighter).checked(f"{path}: joint {name!r}: <ros2_control>")
    mimics = [name for name, element in movable.items() if element.find("mimic") is not None]
    for name in mimics:
        _tighten_mimicked(path, name, movable, bounds)
    joints = tuple(bounds[name] for name in movable if name not in mimics)
    if not joints:
        raise GuardrailError(f"{path}: no revolute, continuous or prismatic joint found")
    return joints


def _limit(where: str, name: str, element: ET.Element) -> JointBounds:
    kind, limit, soft = element.get("type", ""), element.find("limit"), element.find("safety_controller")
    if limit is None:
        if kind == "continuous" or element.find("mimic") is not None:
            return JointBounds(name)
        raise GuardrailError(f"{where}: no <limit> element; a {kind} joint needs lower, upper and velocity")
    lower, upper = -math.inf, math.inf
    if kind != "continuous":
        # The URDF specification gives lower and upper the default 0.
        lower, upper = _number(where, limit, "lower", 0.0), _number(where, limit, "upper", 0.0)
        if soft is not None:
            lower = max(lower, _number(where, soft, "soft_lower_limit", lower))
            upper = min(upper, _number(where, soft, "soft_upper_limit", upper))
    if soft is not None and min(_number(where, soft, gain, 0.0) for gain in ("k_position", "k_velocity")) < 0:
        raise GuardrailError(f"{where}: <safety_controller>: found a gain below 0")
    velocity, effort, jerk = (_number(where, limit, key, math.inf) for key in ("velocity", "effort", "jerk"))
    acceleration = min(_number(where, limit, key, math.inf) for key in ("acceleration", "deceleration"))
    return JointBounds(name, lower, upper, velocity, acceleration, jerk, effort).checked(f"{where}: <limit>")


def _ros2_control(path: Path, root: ET.Element, known: dict[str, ET.Element]) -> list[tuple[str, JointBounds]]:
    found = []
    for element in root.iterfind("ros2_control/joint"):
        name = element.get("name", "")
        if name not in known:
            raise GuardrailError(f"{path}: <ros2_control> joint {name!r}: no such joint in this file")
        for interface in element.iterfind("command_interface"):
            kind = interface.get("name", "")
            where = f"{path}: <ros2_control> joint {name!r}: {kind} command_interface"
            values = {"min": -math.inf, "max": math.inf}
            for param in interface.iterfind("param"):
                if (key := param.get("name", "")) in values:
                    values[key] = finite(f"{where}: {key}", (param.text or "").strip())
            lower, upper = values["min"], values["max"]
            if kind == "position":
                found.append((name, JointBounds(name, lower, upper)))
            elif kind in ("velocity", "acceleration", "effort"):
                most: dict[str, Any] = {kind: symmetric(lower, upper)}
                found.append((name, JointBounds(name, **most).checked(where)))
    return found


def _tighten_mimicked(path: Path, name: str, movable: dict[str, ET.Element], bounds: dict[str, JointBounds]) -> None:
    """Whatever ``name`` mimics moves only where multiplier·q + offset is within the limits of ``name``."""
    where = f"{path}: joint {name!r}: <mimic>"
    factor, offset, followed, seen = 1.0, 0.0, name, {name}
    while (mimic := movable[followed].find("mimic")) is not None:
        # name = factor·followed + offset, and followed = multiplier·next + its offset.
        offset += factor * _number(where, mimic, "offset", 0.0)
        factor *= _number(where, mimic, "multiplier", 1.0)
        followed = mimic.get("joint", "")
        if followed in seen or followed not in movable:
            text = "a circle of joints that mimic each other" if followed in seen else f"found joint {followed!r}"
            raise GuardrailError(f"{where}: {text}; expected another movable joint of this file")
        seen.add(followed)
    own, master = bounds[name], bounds[followed]
    if not (math.isfinite(factor) and math.isfinite(offset)):
        raise GuardrailError(f"{where}: found multiplier {factor:g} and offset {offset:g}; expected finite numbers")
    if factor == 0.0:
        if not own.lower <= offset <= own.upper:
            raise GuardrailError(f"{where}: stands at {offset:g}, outside [{own.lower:g}, {own.upper:g}]")
        return
    lower, upper = sorted(((own.lower - offset) / factor, (own.upper - offset) / factor))
    size = abs(factor)
    implied = JointBounds(name, lower, upper, own.velocity / size, own.acceleration / size, own.jerk / size)
    bounds[followed] = master.tightened(implied).checked(f"{where}: leaves joint {followed!r} no room")


def _number(where: str, element: ET.Element, attribute: str, default: float) -> float:
    text = element.get(attribute)
    return default if text is None else finite(f"{where}: <{element.tag}> {attribute}", text)
