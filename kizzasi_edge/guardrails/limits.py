"""The limits of each joint that follow from a guard file and the files it names; the tightest wins."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.bounds import JointBounds
from kizzasi_edge.guardrails.joint_limits import read_joint_limits
from kizzasi_edge.guardrails.lattice import JointLimits
from kizzasi_edge.guardrails.mjcf import read_mjcf
from kizzasi_edge.guardrails.spec import ConstraintSection, GuardFile, JointsSection
from kizzasi_edge.guardrails.urdf import read_urdf

MOTION = ("velocity", "acceleration", "jerk", "effort")
ORIGIN = {kind: kind for kind in ("position", *MOTION)}
BOUNDED = {
    "rate": "velocity",
    "velocity": "velocity",
    "acceleration": "acceleration",
    "jerk": "jerk",
    "torque": "effort",
}
"""What each kind of constraint on motion bounds."""


def joint_limits(spec: GuardFile, where: str | Path) -> tuple[JointLimits, ...]:
    """Limits of every joint after margins and constraints, tightest wins. Raises :class:`GuardrailError`.

    Every joint needs a velocity, an acceleration and (unless velocities are commanded: then infinite) a range; a torque
    guard needs efforts too.
    """
    joints = spec.joints
    given = [key for key in ("from_urdf", "from_mjcf", "names") if getattr(joints, key) is not None]
    if len(given) != 1:
        found = "neither" if not given else "both" if len(given) == 2 else "all"
        raise GuardrailError(f"{where}: [joints]: give either from_urdf or names or from_mjcf, found {found}")
    base = Path(where).parent
    if joints.from_urdf is not None:
        source = str(base / joints.from_urdf)
        bounds = _from_file(joints, read_urdf(source), source, where)
    elif joints.from_mjcf is not None:
        source = str(base / joints.from_mjcf)
        bounds = _from_file(joints, read_mjcf(source), source, where)
    else:
        source = ""
        bounds = _from_names(joints, where, needed=spec.guard.command != "velocity" and joints.joint_limits is None)
    names = [bound.name for bound in bounds]
    if len(set(names)) != len(names):
        raise GuardrailError(f"{where}: [joints] names: a joint is named twice in {names}")
    if joints.joint_limits is not None:
        bounds = _tighten(bounds, base / joints.joint_limits, where)
    limits = _with_margins(joints, bounds, where)
    for constraint in spec.constraint:
        limits = _apply(limits, constraint, where)
    for limit in limits:
        _complete(limit, spec.guard.command, source, where)
    return tuple(limits)


def _from_file(
    joints: JointsSection, found: tuple[JointBounds, ...], source: str, where: str | Path
) -> list[JointBounds]:
    if joints.position is not None:
        raise GuardrailError(
            f"{where}: [joints] position: comes from {source}; use margin or a range constraint to tighten it"
        )
    return list(found)


def _from_names(joints: JointsSection, where: str | Path, *, needed: bool) -> list[JointBounds]:
    names = joints.names or []
    if joints.position is None and not needed:
        return [JointBounds(name) for name in names]
    if joints.position is None or len(joints.position) != len(names):
        found = "nothing" if joints.position is None else f"{len(joints.position)} pairs"
        raise GuardrailError(
            f"{where}: [joints] position: found {found}; expected {len(names)} pairs [lo, hi], one per name"
        )
    result = []
    for name, (lower, upper) in zip(names, joints.position, strict=True):
        place = f"{where}: [joints] position: found [{lower:g}, {upper:g}] for joint {name!r}"
        if not (math.isfinite(lower) and math.isfinite(upper)):
            raise GuardrailError(f"{place}; expected finite numbers")
        if lower >= upper:
            raise GuardrailError(f"{place}; expected lo < hi")
        result.append(JointBounds(name, lower, upper))
    return result


def _tighten(bounds: list[JointBounds], path: Path, where: str | Path) -> list[JointBounds]:
    found = {bound.name: bound for bound in read_joint_limits(path)}
    names = [bound.name for bound in bounds]
    for name in found:
        if name not in names:
            raise GuardrailError(f"{path}: joint {name!r}: not guarded by {where}; expected one of {names}")
    return [
        bound.tightened(found[bound.name]).checked(f"{path}: joint {bound.name!r}: with {where}")
        if bound.name in found
        else bound
        for bound in bounds
    ]


def _with_margins(joints: JointsSection, bounds: list[JointBounds], where: str | Path) -> list[JointLimits]:
    """Tightened by what ``[joints]`` says of each joint, then by the margins."""
    names = [bound.name for bound in bounds]
    motion = {key: per_joint(joints, key, names, where, default=math.inf) for key in MOTION}
    margins = per_joint(joints, "margin", names, where, default=0.0)
    quanta = per_joint(joints, "quantum", names, where, default=math.nan)
    result = []
    for i, bound in enumerate(bounds):
        tight = bound.tightened(JointBounds(bound.name, **{key: values[i] for key, values in motion.items()}))
        lower, upper = tight.lower + margins[i], tight.upper - margins[i]
        if lower >= upper:
            raise GuardrailError(
                f"{where}: [joints] margin: found {margins[i]:g} for joint {tight.name!r}; "
                f"nothing is left of [{tight.lower:g}, {tight.upper:g}]"
            )
        quantum = quanta[i] if math.isfinite(quanta[i]) else None
        velocity = tight.velocity * joints.velocity_scale
        result.append(
            JointLimits(
                tight.name, lower, upper, velocity, tight.acceleration, dict(ORIGIN), quantum, tight.jerk, tight.effort
            )
        )
    return result


def per_joint(joints: JointsSection, key: str, names: list[str], where: str | Path, *, default: float) -> list[float]:
    """``[joints] key`` for each joint: one value, or one per joint; finite, and above 0 (a margin may be 0)."""
    value: float | list[float] | None = getattr(joints, key)
    if value is None:
        return [default] * len(names)
    values = value if isinstance(value, list) else [value] * len(names)
    if len(values) != len(names):
        raise GuardrailError(
            f"{where}: [joints] {key}: found {len(values)} values; expected one, or {len(names)} (one per joint)"
        )
    for name, number in zip(names, values, strict=True):
        if not math.isfinite(number):
            raise GuardrailError(f"{where}: [joints] {key}: found {number} for joint {name!r}; expected finite numbers")
        if number < 0 or (number == 0 and key != "margin"):
            least = "of at least 0" if key == "margin" else "above 0"
            raise GuardrailError(
                f"{where}: [joints] {key}: found {number:g} for joint {name!r}; expected a value {least}"
            )
    return values


def _apply(limits: list[JointLimits], constraint: ConstraintSection, where: str | Path) -> list[JointLimits]:
    """Tightened by a constraint on single joints; those that couple joints are not for here."""
    if constraint.kind not in ("range", "less", "greater", *BOUNDED):
        return limits
    place = f"{where}: [constraint] {constraint.name!r}"
    names = [limit.name for limit in limits]
    chosen = [constraint.joint] if constraint.joint is not None else constraint.joints or names
    for name in chosen:
        if name not in names:
            raise GuardrailError(f"{place} joint: found {name!r}; expected one of {names}")
    return [_bounded(limit, constraint, place) if limit.name in chosen else limit for limit in limits]


def _bounded(old: JointLimits, constraint: ConstraintSection, place: str) -> JointLimits:
    if constraint.kind in BOUNDED:
        key, bound = BOUNDED[constraint.kind], float(constraint.max or 0.0)
        if bound <= 0:
            raise GuardrailError(f"{place} max: found {bound:g}; expected a value above 0")
        if bound >= getattr(old, key):
            return old
        changes: dict[str, Any] = {key: bound, "origin": {**old.origin, key: constraint.name}}
        return replace(old, **changes)
    lower = old.lower if constraint.min is None else max(old.lower, float(constraint.min))
    upper = old.upper if constraint.max is None else min(old.upper, float(constraint.max))
    if (lower, upper) == (old.lower, old.upper):
        return old
    if lower >= upper:
        raise GuardrailError(
            f"{place}: conflicts with other limits of {old.name!r}: nothing left between {lower:g} and {upper:g}"
        )
    return replace(old, lower=lower, upper=upper, origin={**old.origin, "position": constraint.name})


def _complete(limit: JointLimits, command: str, source: str, where: str | Path) -> None:
    """Refuse a joint that lacks a limit which guarding it rests on."""
    joint = f"joint {limit.name!r}"
    ends = math.isfinite(limit.lower) + math.isfinite(limit.upper)
    if ends == 1 or (ends == 0 and command != "velocity"):  # half a range would not be enforced at all
        raise GuardrailError(
            f"{source or where}: {joint}: continuous, so it has no position range; angles here do not wrap, so bound "
            f"its turns by a [[constraint]] of kind 'range' in {where}, or list the joints with names and position"
        )
    if math.isinf(limit.velocity):
        text = f"is missing, and {source} has none for {joint}" if source else f"missing; {joint} needs one"
        raise GuardrailError(f"{where}: [joints] velocity{' ' if source else ': '}{text}")
    if math.isinf(limit.acceleration):
        raise GuardrailError(
            f"{where}: [joints] acceleration: missing; a position limit without one has no stop ({joint})"
        )
    if command == "torque" and not 0 < limit.effort < math.inf:
        found = "missing" if math.isinf(limit.effort) else f"found {limit.effort:g}"
        raise GuardrailError(f"{where}: [joints] effort: {found}; a torque guard needs one above 0 ({joint})")
