"""The guard file (``*.guard.toml``): its schema. What follows from it: limits.py, coupled_spec.py."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StrictInt, StrictStr

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.toml_file import Number, Section, read_toml, validate

PerJoint = Number | list[Number]
ByName = dict[StrictStr, Number]
Finite = Annotated[Number, Field(allow_inf_nan=False)]
Positive = Annotated[Number, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[StrictInt, Field(ge=1, le=1_000_000)]
Kind = Literal[
    "range", "less", "greater", "rate", "velocity", "acceleration", "jerk", "torque",
    "linear", "quadratic", "power", "bones",
]  # fmt: skip

KEYS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "range": (("min", "max"), ("joint", "joints")),
    "less": (("max",), ("joint", "joints")),
    "greater": (("min",), ("joint", "joints")),
    **dict.fromkeys(("rate", "velocity", "acceleration", "jerk", "torque"), (("max",), ("joint", "joints"))),
    "linear": (("a",), ("min", "max", "equals", "tolerance", "on")),
    "quadratic": (("max",), ("matrix", "diagonal", "joints", "center", "linear", "on")),
    "power": (("max",), ("joint", "joints")),
    "bones": ((), ("from_bvh", "scale", "end_sites", "from_urdf", "tree", "cone", "root_speed", "turn_speed")),
}
"""Keys that each kind needs, and those it may have besides ``kind name priority hard``."""

SOFT_KINDS = ("linear", "quadratic", "power")
"""Kinds that become rows of the projection, which may be relaxed; the others are what the lattice promises."""


class GuardSection(Section):
    """``[guard]``: ``rate_hz`` command rate; ``miss_budget`` periods that may be coasted; ``nan_ticks`` consecutive
    non-finite commands that latch; ``on_clamp``: what to do about a command that the acceleration limit does not
    admit: the "nearest" admissible value, period after period, or "approach" it at a speed that can be braked away."""

    rate_hz: Annotated[Number, Field(gt=0, le=20_000)]
    command: Literal["position", "velocity", "torque"] = "position"
    miss_budget: Annotated[StrictInt, Field(ge=0, le=255)] = 3
    on_infeasible: Literal["brake"] = "brake"
    on_clamp: Literal["nearest", "approach"] = "nearest"
    nan_ticks: Count = 50


class JointsSection(Section):
    """``[joints]``: from a URDF, from an MJCF, or listed; ``joint_limits``: a joint_limits.yaml that tightens them.
    ``velocity``, ``acceleration``, ``jerk``, ``effort``, ``margin``, ``quantum``: one value for all joints or one per
    joint. ``position``: ``[[lo, hi], …]``. SI units (rad, rad/s, rad/s², rad/s³, N·m)."""

    from_urdf: StrictStr | None = None
    from_mjcf: StrictStr | None = None
    names: list[StrictStr] | None = None
    joint_limits: StrictStr | None = None
    position: list[Annotated[list[Number], Field(min_length=2, max_length=2)]] | None = None
    velocity: PerJoint | None = None
    acceleration: PerJoint | None = None
    jerk: PerJoint | None = None
    effort: PerJoint | None = None
    margin: PerJoint = 0.0
    velocity_scale: Annotated[Number, Field(gt=0, le=1)] = 0.9
    quantum: PerJoint | None = None


class BoneSection(Section):
    """A node of a ``tree``, by its name: ``parent``, ``length`` of the bone between them and its ``direction`` in the
    rest pose, a vector of any length above 0. The root has none of them."""

    parent: StrictStr | None = None
    length: Positive | None = None
    direction: Annotated[list[Finite], Field(min_length=3, max_length=3)] | None = None


class ConstraintSection(Section):
    """``[[constraint]]``. On one ``joint``, several ``joints`` or (neither given) all: ``range`` (min, max), ``less``
    (max), ``greater`` (min) on positions; ``rate`` and ``velocity`` (max, per second), ``acceleration`` (per second²),
    ``jerk`` (per second³) on how fast a command may change; ``torque`` (max).

    Coupling joints: ``linear``: min ≤ a·z ≤ max, or a·z within ``tolerance`` of ``equals``. ``quadratic``:
    (z−center)'Q(z−center) + linear·z ≤ max, Q the ``matrix`` (over ``joints``, or by names) or a ``diagonal``. z is
    ``on`` positions, velocities or accelerations. ``power`` [W]: the sum of torque times velocity. ``priority``:
    0 matters most; only rules that are not ``hard`` may ever be relaxed.

    ``bones``: the poses of a skeleton, instead of joints (docs/bones.md). ``from_bvh`` (``scale``: metres per unit of
    the file; without its ``end_sites`` if false), ``from_urdf`` or a ``tree`` of nodes; ``cone`` [rad] about each
    bone's parent's bone and ``turn_speed`` [rad/s] of its direction, one for all or by node; ``root_speed`` [m/s].
    """

    kind: Kind
    name: StrictStr
    joint: StrictStr | None = None
    joints: Annotated[list[StrictStr], Field(min_length=1)] | None = None
    min: Number | None = None
    max: Number | None = None
    a: ByName | None = None
    equals: Number | None = None
    tolerance: Positive | None = None
    on: Literal["position", "velocity", "acceleration"] = "position"
    matrix: list[list[Number]] | dict[StrictStr, ByName] | None = None
    diagonal: ByName | None = None
    center: ByName | None = None
    linear: ByName | None = None
    from_bvh: StrictStr | None = None
    scale: Positive | None = None
    end_sites: bool | None = None
    from_urdf: StrictStr | None = None
    tree: Annotated[dict[StrictStr, BoneSection], Field(min_length=1)] | None = None
    cone: dict[StrictStr, Finite] | Number | None = None
    root_speed: Positive | None = None
    turn_speed: dict[StrictStr, Finite] | Number | None = None
    priority: Annotated[StrictInt, Field(ge=0, le=255)] = 0
    hard: bool = True


class TemporalSection(Section):
    """``[[temporal]]``: a ``formula`` over named ``atoms``; ``mode``: enforce it, or only watch it. ``fallback``: what
    is done when a deadline is near; ``pose`` (by joint) for go-to-pose; ``time_to_go``: how long that takes at most,
    a bound [s] or computed; ``margin`` [s] kept in front of each deadline."""

    name: StrictStr
    formula: StrictStr
    atoms: dict[StrictStr, StrictStr] = {}
    mode: Literal["enforce", "monitor"] = "enforce"
    fallback: Literal["brake", "hold", "go-to-pose"] = "brake"
    pose: ByName | None = None
    time_to_go: Literal["ruckig"] | Number | None = None
    margin: Annotated[Finite, Field(ge=0)] = 0.0


class FaultsSection(Section):
    """``[faults]``: when an input or the loop counts as faulty; nothing is watched for a key that is left out.

    ``stale_ms`` age of an input; ``jump`` [rad or m] from one measured position to the next beyond what the joint can
    travel; ``range_tolerance`` [rad or m] by which a measured position may be outside the limits; ``tracking_error``,
    ``tracking_stop`` [rad or m] between sent and measured position: derate, stop; ``active_ms`` of the guard changing
    every command; ``clock_jump_ms`` between two steps; ``settle_ticks`` good periods that end a fault; latching after
    ``fault_ticks`` of a faulty sensor, ``hang_ticks`` without a model, ``infeasible_ticks`` without an admissible set.
    """

    stale_ms: Positive | None = None
    jump: Positive | None = None
    range_tolerance: Positive | None = None
    tracking_error: Positive | None = None
    tracking_stop: Positive | None = None
    active_ms: Positive | None = None
    clock_jump_ms: Positive | None = None
    settle_ticks: Count | None = None
    fault_ticks: Count | None = None
    hang_ticks: Count | None = None
    infeasible_ticks: Count | None = None


class DynamicsSection(Section):
    """``[dynamics]``: the inertias torque and power rules rest on: ``urdf`` (default: ``[joints] from_urdf``);
    ``mass_error`` the links' largest relative error; ``armature`` [kg·m²] of the rotors through the gears, one or one
    per joint; ``gravity`` [m/s²] in the base frame; ``fixed`` positions of moving joints that are not guarded;
    ``minimum_authority`` the least share of ``acceleration`` that must be left for braking; ``torque_rate`` [N·m/s] the
    largest change of a torque."""

    urdf: StrictStr | None = None
    mass_error: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    armature: PerJoint = 0.0
    gravity: Annotated[list[Finite], Field(min_length=3, max_length=3)] = [0.0, 0.0, -9.81]
    fixed: dict[StrictStr, Finite] = {}
    minimum_authority: Annotated[Number, Field(gt=0, le=1)] = 0.25
    torque_rate: PerJoint | None = None


class GuardFile(Section):
    """A whole ``*.guard.toml``."""

    schema_: Annotated[Literal[1], Field(alias="schema")]
    guard: GuardSection
    joints: JointsSection = JointsSection()
    constraint: list[ConstraintSection] = []
    temporal: list[TemporalSection] = []
    faults: FaultsSection = FaultsSection()
    dynamics: DynamicsSection | None = None


def load_spec(path: str | Path) -> GuardFile:
    """Read and validate a guard file. Raises :class:`GuardrailError` naming file, section, key, found, expected."""
    data = read_toml(path, GuardrailError)
    return parse_spec(data, path)


def parse_spec(data: dict[str, Any], where: str | Path) -> GuardFile:
    """Validate an already parsed guard file; ``where`` is named in errors."""
    spec = validate(data, GuardFile, where, GuardrailError)
    require_supported(spec, where)
    check_keys(spec, where)
    return spec


def require_supported(spec: GuardFile, where: str | Path) -> None:
    """Refuse what this combination of keys would not enforce."""
    command, kinds = spec.guard.command, {constraint.kind for constraint in spec.constraint}
    if "bones" not in kinds and spec.joints == JointsSection():
        raise GuardrailError(f"{where}: [joints]: missing; only a guard of poses (kind 'bones') has none")
    if command == "velocity" and spec.guard.on_clamp != "nearest":
        raise GuardrailError(f"{where}: [guard] on_clamp: found 'approach'; velocity commands take 'nearest' only")
    if command == "torque" and spec.dynamics is None:
        raise GuardrailError(f"{where}: [dynamics]: missing; torque commands are guarded through the robot's inertias")
    if command == "velocity" and spec.dynamics is not None:
        raise GuardrailError(f"{where}: [dynamics]: not used with velocity commands; remove it")
    if spec.dynamics is None:
        for kind in sorted(kinds & {"torque", "power"}):
            raise GuardrailError(
                f"{where}: [constraint] kind: found {kind!r}; expected a [dynamics] section beside it, and position or "
                "torque commands: what a motion costs follows from the robot's inertias"
            )
        if spec.joints.effort is not None:
            raise GuardrailError(
                f"{where}: [joints] effort: not enforced without a [dynamics] section; add that, or remove this"
            )


def check_keys(spec: GuardFile, where: str | Path) -> None:
    """What no single key shows: keys that belong together, and keys that do not belong to their kind."""
    for constraint in spec.constraint:
        _check_constraint(constraint, f"{where}: [constraint] {constraint.name!r}")
    for rule in spec.temporal:
        place = f"{where}: [temporal] {rule.name!r}"
        if (rule.fallback == "go-to-pose") != (rule.pose is not None):
            text = "missing for" if rule.pose is None else "not used with"
            raise GuardrailError(f"{place} pose: {text} fallback {rule.fallback!r}")
        if any(not math.isfinite(value) for value in (rule.pose or {}).values()):
            raise GuardrailError(f"{place} pose: found {rule.pose}; expected finite numbers")
        if isinstance(rule.time_to_go, float) and not 0 < rule.time_to_go < math.inf:
            raise GuardrailError(f"{place} time_to_go: found {rule.time_to_go:g}; expected a finite time above 0 [s]")
    warn, stop = spec.faults.tracking_error, spec.faults.tracking_stop
    if warn is not None and stop is not None and stop < warn:
        raise GuardrailError(
            f"{where}: [faults] tracking_stop: found {stop:g}; expected at least tracking_error {warn:g}"
        )


def _check_constraint(constraint: ConstraintSection, place: str) -> None:
    kind = constraint.kind
    needs, may = KEYS[kind]
    given = {key for key in constraint.model_fields_set if getattr(constraint, key) is not None}
    for key in type(constraint).model_fields:
        if key in needs and key not in given:
            raise GuardrailError(f"{place} {key}: missing for kind {kind!r}")
        if key in given and key not in (*needs, *may, "kind", "name", "priority", "hard"):
            raise GuardrailError(f"{place} {key}: not used for kind {kind!r}; it takes {', '.join((*needs, *may))}")
        value = getattr(constraint, key)
        if isinstance(value, float) and not math.isfinite(value):
            raise GuardrailError(f"{place} {key}: found {value}; expected a finite number")
    if not constraint.hard and kind not in SOFT_KINDS:
        raise GuardrailError(
            f"{place} hard: found False for kind {kind!r}; expected True: only {', '.join(SOFT_KINDS)} may be relaxed"
        )
    if (
        kind == "range"
        and constraint.min is not None
        and constraint.max is not None
        and constraint.min >= constraint.max
    ):
        raise GuardrailError(f"{place} min: found {constraint.min:g}, max {constraint.max:g}; expected min < max")
    if {"joint", "joints"} <= given:
        raise GuardrailError(f"{place} joints: found together with joint; give one of them, or neither for all joints")
    if kind == "linear":
        bounds, equality = given & {"min", "max"}, given & {"equals", "tolerance"}
        if bool(bounds) == bool(equality) or len(equality) == 1:
            raise GuardrailError(f"{place}: expected min or max or both, or else equals and tolerance")
    if kind == "quadratic":
        if ("matrix" in given) == ("diagonal" in given):
            raise GuardrailError(f"{place} matrix: expected either matrix or diagonal")
        if isinstance(constraint.matrix, list) != ("joints" in given):
            raise GuardrailError(f"{place} joints: expected exactly where matrix is a list of rows; it names them")
    if kind == "bones":
        if len(given & {"from_bvh", "from_urdf", "tree"}) != 1:
            raise GuardrailError(f"{place}: expected one of from_bvh, from_urdf and tree")
        if alone := sorted(given & {"scale", "end_sites"} if "from_bvh" not in given else ()):
            raise GuardrailError(f"{place} {alone[0]}: found without from_bvh, whose file it is about")
