"""Joint limits from a URDF (http://wiki.ros.org/urdf/XML/joint), by ElementTree: no XML library needed."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

from kizzasi_edge.errors import GuardrailError


@dataclass(frozen=True, slots=True)
class UrdfJoint:
    """One actuated joint: limits in rad, rad/s, N·m (m, m/s, N if prismatic); ``None`` where the URDF is silent.

    ``lower``/``upper`` already include ``<safety_controller>`` soft limits; a ``continuous`` joint has neither.
    """

    name: str
    kind: str
    lower: float | None
    upper: float | None
    velocity: float | None
    effort: float | None
    acceleration: float | None


def read_urdf(path: str | Path) -> tuple[UrdfJoint, ...]:
    """Actuated joints (revolute, continuous, prismatic; not mimic) in file order.

    Raises :class:`GuardrailError` naming the file, the joint and the attribute.
    """
    path = Path(path)
    try:
        root = ET.fromstring(path.read_bytes())
    except FileNotFoundError:
        raise GuardrailError(f"{path}: no such file") from None
    except OSError as exc:
        raise GuardrailError(f"{path}: cannot be read: {exc}") from exc
    except (ET.ParseError, ValueError, LookupError) as exc:  # the latter two: an encoding that expat cannot read
        raise GuardrailError(f"{path}: not well-formed XML: {exc}") from None
    if root.tag != "robot":
        raise GuardrailError(f"{path}: root element is <{root.tag}>; expected <robot>")
    joints = tuple(
        _joint(path, element)
        for element in root.findall("joint")
        if element.get("type") in ("revolute", "continuous", "prismatic") and element.find("mimic") is None
    )
    if not joints:
        raise GuardrailError(f"{path}: no revolute, continuous or prismatic joint found")
    return joints


def _joint(path: Path, element: ET.Element) -> UrdfJoint:
    name, kind = element.get("name"), element.get("type", "")
    if not name:
        raise GuardrailError(f"{path}: a {kind} joint has no name")
    limit, soft = element.find("limit"), element.find("safety_controller")
    where = f"{path}: joint {name!r}"
    if limit is None and kind != "continuous":
        raise GuardrailError(f"{where}: no <limit> element; a {kind} joint needs lower, upper and velocity")
    lower = upper = None
    if kind != "continuous":
        # The URDF specification gives lower and upper the default 0.
        lower, upper = _number(where, limit, "lower") or 0.0, _number(where, limit, "upper") or 0.0
        if soft is not None:
            lower = max(lower, _default(_number(where, soft, "soft_lower_limit"), lower))
            upper = min(upper, _default(_number(where, soft, "soft_upper_limit"), upper))
        if lower >= upper:
            raise GuardrailError(f"{where}: <limit> lower {lower:g} is not below upper {upper:g}")
    return UrdfJoint(
        name,
        kind,
        lower,
        upper,
        _number(where, limit, "velocity"),
        _number(where, limit, "effort"),
        _number(where, limit, "acceleration"),
    )


def _default(value: float | None, default: float) -> float:
    return default if value is None else value


def _number(where: str, element: ET.Element | None, attribute: str) -> float | None:
    text = None if element is None else element.get(attribute)
    if element is None or text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise GuardrailError(f"{where}: <{element.tag}> {attribute}: found {text!r}; expected a finite number")
    return value
