"""The guard file (``*.guard.toml``): its schema, and the limits of each joint that follow from it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StrictInt, StrictStr

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.lattice import JointLimits
from kizzasi_edge.guardrails.urdf import read_urdf
from kizzasi_edge.toml_file import Number, Section, read_toml, validate

PerJoint = Number | list[Number]

LATER_KINDS = ("linear", "quadratic", "jerk", "torque", "power", "bones", "temporal")
"""Kinds that the design names and this version does not enforce: refused, never ignored."""


class GuardSection(Section):
    """``[guard]``: ``rate_hz`` command rate; ``miss_budget`` periods that may be coasted; ``nan_ticks`` consecutive
    non-finite commands that latch; ``on_clamp``: what to do about a command that the acceleration limit does not
    admit: the "nearest" admissible value, period after period, or "approach" it without overshooting it."""

    rate_hz: Annotated[Number, Field(gt=0, le=20_000)]
    command: Literal["position", "velocity", "torque"] = "position"
    miss_budget: Annotated[StrictInt, Field(ge=0, le=255)] = 3
    on_infeasible: Literal["brake"] = "brake"
    on_clamp: Literal["nearest", "approach"] = "nearest"
    nan_ticks: Annotated[StrictInt, Field(ge=1, le=1_000_000)] = 50


class JointsSection(Section):
    """``[joints]``: from a URDF, or listed. ``velocity``, ``acceleration``, ``margin``, ``quantum``: one value for
    all joints or one per joint. ``position``: ``[[lo, hi], …]``. SI units (rad, rad/s, rad/s²)."""

    from_urdf: StrictStr | None = None
    names: list[StrictStr] | None = None
    position: list[Annotated[list[Number], Field(min_length=2, max_length=2)]] | None = None
    velocity: PerJoint | None = None
    acceleration: PerJoint | None = None
    margin: PerJoint = 0.0
    velocity_scale: Annotated[Number, Field(gt=0, le=1)] = 0.9
    quantum: PerJoint | None = None


class ConstraintSection(Section):
    """``[[constraint]]``: ``range`` (min, max), ``less`` (max), ``greater`` (min) on positions; ``rate`` and
    ``velocity`` (max, per second) and ``acceleration`` (max, per second²) on how fast a joint's command may change."""

    kind: Literal["range", "less", "greater", "rate", "velocity", "acceleration"]
    name: StrictStr
    joint: StrictStr
    min: Number | None = None
    max: Number | None = None
    priority: StrictInt = 0
    hard: Literal[True] = True


class GuardFile(Section):
    """A whole ``*.guard.toml``."""

    schema_: Annotated[Literal[1], Field(alias="schema")]
    guard: GuardSection
    joints: JointsSection
    constraint: list[ConstraintSection] = []


def load_spec(path: str | Path) -> GuardFile:
    """Read and validate a guard file. Raises :class:`GuardrailError` naming file, section, key, found, expected."""
    data = read_toml(path, GuardrailError)
    return parse_spec(data, path)


def parse_spec(data: dict[str, Any], where: str | Path) -> GuardFile:
    """Validate an already parsed guard file; ``where`` is named in errors."""
    for section in data.get("constraint", []) if isinstance(data.get("constraint"), list) else []:
        kind = section.get("kind") if isinstance(section, dict) else None
        if kind in LATER_KINDS:
            raise GuardrailError(
                f"{where}: [constraint] kind: found {kind!r}, which this version does not enforce; remove it"
            )
    if "temporal" in data:
        raise GuardrailError(
            f"{where}: [temporal]: temporal rules are not enforced by this version; remove them rather than trust them"
        )
    spec = validate(data, GuardFile, where, GuardrailError)
    if spec.guard.command != "position":
        raise GuardrailError(
            f"{where}: [guard] command: found {spec.guard.command!r}; this version guards 'position' commands only"
        )
    return spec


def joint_limits(spec: GuardFile, where: str | Path) -> tuple[JointLimits, ...]:
    """Limits of every joint after margins and constraints, tightest wins. Raises :class:`GuardrailError`."""
    joints = spec.joints
    base = Path(where).parent
    if (joints.from_urdf is None) == (joints.names is None):
        raise GuardrailError(
            f"{where}: [joints]: give either from_urdf or names, found {'neither' if joints.names is None else 'both'}"
        )
    if joints.from_urdf is not None:
        limits = _from_urdf(joints, base / joints.from_urdf, where)
    else:
        limits = _from_names(joints, where)
    if len({limit.name for limit in limits}) != len(limits):
        raise GuardrailError(f"{where}: [joints] names: a joint is named twice in {[limit.name for limit in limits]}")
    for constraint in spec.constraint:
        limits = _apply(limits, constraint, where)
    return tuple(limits)


def _from_urdf(joints: JointsSection, urdf: Path, where: str | Path) -> list[JointLimits]:
    if joints.position is not None:
        raise GuardrailError(
            f"{where}: [joints] position: comes from {joints.from_urdf}; use margin or a range constraint to tighten it"
        )
    found = read_urdf(urdf)
    n = len(found)
    velocity = _per_joint(joints.velocity, n, where, "velocity")
    acceleration = _per_joint(joints.acceleration, n, where, "acceleration")
    result = []
    for i, joint in enumerate(found):
        if joint.lower is None or joint.upper is None:
            raise GuardrailError(
                f"{urdf}: joint {joint.name!r}: continuous, so it has no position range; "
                "list the joints with names and position instead"
            )
        for attribute, value in (("velocity", joint.velocity), ("acceleration", joint.acceleration)):
            if value is not None and value <= 0:
                raise GuardrailError(
                    f"{urdf}: joint {joint.name!r}: <limit> {attribute}: found {value:g}; expected a value above 0"
                )
        v = _tightest(velocity[i], joint.velocity)
        a = _tightest(acceleration[i], joint.acceleration)
        if v is None:
            raise GuardrailError(
                f"{urdf}: joint {joint.name!r}: <limit> has no velocity, and {where}: [joints] velocity is missing"
            )
        result.append(_limits(joints, i, n, joint.name, joint.lower, joint.upper, v, a, where))
    return result


def _from_names(joints: JointsSection, where: str | Path) -> list[JointLimits]:
    names = joints.names or []
    n = len(names)
    if joints.position is None or len(joints.position) != n:
        found = "nothing" if joints.position is None else f"{len(joints.position)} pairs"
        raise GuardrailError(f"{where}: [joints] position: found {found}; expected {n} pairs [lo, hi], one per name")
    velocity = _per_joint(joints.velocity, n, where, "velocity")
    acceleration = _per_joint(joints.acceleration, n, where, "acceleration")
    result = []
    for i, (name, (lower, upper)) in enumerate(zip(names, joints.position, strict=True)):
        v = velocity[i]
        if v is None:
            raise GuardrailError(f"{where}: [joints] velocity: missing; joint {name!r} needs one")
        result.append(_limits(joints, i, n, name, float(lower), float(upper), v, acceleration[i], where))
    return result


def _limits(
    joints: JointsSection,
    i: int,
    n: int,
    name: str,
    lower: float,
    upper: float,
    velocity: float,
    acceleration: float | None,
    where: str | Path,
) -> JointLimits:
    if acceleration is None:
        raise GuardrailError(
            f"{where}: [joints] acceleration: missing; a position limit without one has no stop (joint {name!r})"
        )
    margin = _per_joint(joints.margin, n, where, "margin")[i] or 0.0
    quantum = _per_joint(joints.quantum, n, where, "quantum")[i]
    limits = {
        "position": (lower, upper),
        "velocity": (velocity,),
        "acceleration": (acceleration,),
        "margin": (margin,),
    }
    for key, values in limits.items():
        if not all(math.isfinite(value) for value in values):
            raise GuardrailError(
                f"{where}: [joints] {key}: found {list(values)} for joint {name!r}; expected finite numbers"
            )
    if lower >= upper:
        raise GuardrailError(
            f"{where}: [joints] position: found [{lower:g}, {upper:g}] for joint {name!r}; expected lo < hi"
        )
    for key, value in (("velocity", velocity), ("acceleration", acceleration)):
        if value <= 0:
            raise GuardrailError(
                f"{where}: [joints] {key}: found {value:g} for joint {name!r}; expected a value above 0"
            )
    if margin < 0 or lower + margin >= upper - margin:
        raise GuardrailError(
            f"{where}: [joints] margin: found {margin:g} for joint {name!r}; nothing is left of [{lower:g}, {upper:g}]"
        )
    if quantum is not None and not 0 < quantum < math.inf:
        raise GuardrailError(
            f"{where}: [joints] quantum: found {quantum:g} for joint {name!r}; expected a finite value above 0"
        )
    origin = {"position": "position", "velocity": "velocity", "acceleration": "acceleration"}
    return JointLimits(
        name, lower + margin, upper - margin, velocity * joints.velocity_scale, acceleration, origin, quantum
    )


def _apply(limits: list[JointLimits], constraint: ConstraintSection, where: str | Path) -> list[JointLimits]:
    place = f"{where}: [constraint] {constraint.name!r}"
    index = next((i for i, limit in enumerate(limits) if limit.name == constraint.joint), None)
    if index is None:
        raise GuardrailError(
            f"{place} joint: found {constraint.joint!r}; expected one of {[limit.name for limit in limits]}"
        )
    needs = {"range": ("min", "max"), "less": ("max",), "greater": ("min",)}.get(constraint.kind, ("max",))
    for key in ("min", "max"):
        value = getattr(constraint, key)
        if (value is None) == (key in needs):
            raise GuardrailError(
                f"{place} {key}: {'missing' if value is None else 'not used'} for kind {constraint.kind!r}"
            )
        if value is not None and not math.isfinite(value):
            raise GuardrailError(f"{place} {key}: found {value}; expected a finite number")
    old = limits[index]
    lower, upper, velocity, acceleration, origin = (
        old.lower,
        old.upper,
        old.velocity,
        old.acceleration,
        dict(old.origin),
    )
    if constraint.kind in ("rate", "velocity", "acceleration"):
        bound = float(constraint.max or 0.0)
        if bound <= 0:
            raise GuardrailError(f"{place} max: found {bound:g}; expected a value above 0")
        if constraint.kind == "acceleration":
            if bound < acceleration:
                acceleration, origin["acceleration"] = bound, constraint.name
        elif bound < velocity:
            velocity, origin["velocity"] = bound, constraint.name
    else:
        if constraint.min is not None and constraint.min > lower:
            lower, origin["position"] = float(constraint.min), constraint.name
        if constraint.max is not None and constraint.max < upper:
            upper, origin["position"] = float(constraint.max), constraint.name
        if lower >= upper:
            raise GuardrailError(
                f"{place}: conflicts with other limits of {old.name!r}: nothing left between {lower:g} and {upper:g}"
            )
    new = JointLimits(old.name, lower, upper, velocity, acceleration, origin, old.quantum)
    return [*limits[:index], new, *limits[index + 1 :]]


def _per_joint(value: PerJoint | None, n: int, where: str | Path, key: str) -> list[float | None]:
    if isinstance(value, list):
        if len(value) != n:
            raise GuardrailError(
                f"{where}: [joints] {key}: found {len(value)} values; expected one, or {n} (one per joint)"
            )
        return list(value)
    return [value] * n


def _tightest(*values: float | None) -> float | None:
    return min((value for value in values if value is not None), default=None)
