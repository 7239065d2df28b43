"""``[[temporal]]`` read and judged: each section as a formula with its atoms and class, or refused with the reason.

What an enforced rule becomes: rows of the projection, a deadline with its fallback, or both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.coupled import MAX_ROWS
from kizzasi_edge.guardrails.coupled_spec import LARGEST
from kizzasi_edge.guardrails.lattice import LatticeLimits
from kizzasi_edge.guardrails.limits import joint_limits
from kizzasi_edge.guardrails.rows import On, Row
from kizzasi_edge.guardrails.spec import GuardFile, TemporalSection
from kizzasi_edge.guardrails.temporal.atoms import VECTORS, Comparison, parse_atom, reads
from kizzasi_edge.guardrails.temporal.classes import Class, CommandRows, Deadline, StateRows, UntilRows, classify
from kizzasi_edge.guardrails.temporal.fallback import Brake, Fallback, GoToPose
from kizzasi_edge.guardrails.temporal.linear import LinearBound
from kizzasi_edge.guardrails.temporal.monitors import check
from kizzasi_edge.guardrails.temporal.syntax import RESERVED, Formula, atoms_of, parse
from kizzasi_edge.guardrails.temporal.time_to_go import BrakeTime, DeclaredTime, PoseTime, TimeToGo

ROUND_OFF = 1e-13
"""Of the largest value that a row's terms add up to: rows are so much tighter than their atoms that an atom,
evaluated in another order of sums, cannot find them broken."""
DEADLINE_KEYS = ("fallback", "pose", "time_to_go", "margin")


@dataclass(frozen=True, slots=True)
class Declared:
    """One section. ``place`` names it in errors; ``atoms``: those that ``formula`` names."""

    section: TemporalSection
    place: str
    formula: Formula
    atoms: dict[str, Comparison]
    kind: Class

    @property
    def enforced(self) -> bool:
        return self.section.mode == "enforce"

    @property
    def signals(self) -> frozenset[str]:
        return self.reads(self.formula) - set(VECTORS)

    def reads(self, formula: Formula) -> frozenset[str]:
        """What the atoms of a part of the formula read."""
        return frozenset().union(*(reads(self.atoms[name]) for name in atoms_of(formula)))


def declared(spec: GuardFile, joints: Sequence[str], where: str | Path) -> list[Declared]:
    """All ``[[temporal]]`` sections. Raises :class:`GuardrailError` naming ``where``, rule and key."""
    rules: list[Declared] = []
    for section in spec.temporal:
        place = f"{where}: [temporal] {section.name!r}"
        if any(section.name == rule.section.name for rule in rules):
            raise GuardrailError(f"{place} name: found twice; expected a name of its own for each rule")
        rules.append(_read(section, spec, joints, place))
    return rules


def _read(section: TemporalSection, spec: GuardFile, joints: Sequence[str], place: str) -> Declared:
    rate_hz = float(spec.guard.rate_hz)
    for name in section.atoms:
        if not (name.isascii() and name.isidentifier()) or name in RESERVED:
            raise GuardrailError(f"{place} atoms: found the name {name!r}; expected a word that no operator has")
    every = {name: parse_atom(name, text, joints, None, f"{place} atom") for name, text in section.atoms.items()}
    formula = parse(section.formula, rate_hz, f"{place} formula")
    try:
        check(formula)
    except GuardrailError as exc:
        raise GuardrailError(f"{place} {exc}") from None
    kind = classify(formula, every, len(joints), rate_hz, section.mode, f"{place} formula")
    rule = Declared(section, place, formula, {name: every[name] for name in atoms_of(formula)}, kind)
    if rule.enforced:
        _require_enforceable(rule, spec.guard.command)
    return rule


def _require_enforceable(rule: Declared, command: str) -> None:
    if command == "torque":
        raise GuardrailError(
            f'{rule.place} mode: found "enforce" with torque commands; expected "monitor": no row on torques keeps a '
            "formula, and what a torque makes of a velocity is the plant's"
        )
    if not isinstance(rule.kind, Deadline | UntilRows) and (
        unused := [key for key in DEADLINE_KEYS if key in rule.section.model_fields_set]
    ):
        raise GuardrailError(f"{rule.place} {unused[0]}: not used by this formula, which has no deadline; remove it")


# ---- rows ------------------------------------------------------------------------------------------------------------


def rows_of(rule: Declared, command: str, limits: Sequence[LatticeLimits], rate_hz: float) -> list[Row]:
    """The rows of an enforced rule, named after it."""
    if not isinstance(rule.kind, CommandRows | StateRows | UntilRows):
        return []
    if len(rule.kind.rows) > MAX_ROWS:
        raise GuardrailError(
            f"{rule.place} formula: expands into {len(rule.kind.rows)} rows; expected at most {MAX_ROWS}"
        )
    return [_row(rule, bound, command, limits, rate_hz) for bound in rule.kind.rows]


def _row(rule: Declared, bound: LinearBound, command: str, limits: Sequence[LatticeLimits], rate_hz: float) -> Row:
    place = f"{rule.place} atom {bound.name!r}"
    velocities = command == "velocity"
    on: On = "velocity" if "velocity" in (bound.on, command) and bound.on != "position" else "position"
    if on == "position" and velocities:
        raise GuardrailError(
            f'{place}: a rule on positions with velocity commands; expected mode "monitor", or a [[constraint]]: '
            "positions are measured there, so no command keeps the formula exactly"
        )
    if max(float(np.abs(bound.a).max()), abs(bound.b)) > LARGEST:
        raise GuardrailError(f"{place}: numbers above {LARGEST:g} found; expected smaller ones")
    quanta = np.array([limit.quantum for limit in limits])
    if on == "position":
        lo, hi = (np.array([getattr(limit, key) for limit in limits]) * quanta for key in ("lo", "hi"))
        least = float(np.minimum(bound.a * lo, bound.a * hi).sum())
        if least > bound.b:
            raise GuardrailError(
                f"{place}: no position within the joints' limits keeps it: found at least {least:g}, expected at most "
                f"{bound.b:g}"
            )
    else:
        hi = np.array([limit.w for limit in limits]) * quanta * (1.0 if velocities else rate_hz)
        lo = -hi
        if bound.b < 0:
            raise GuardrailError(f"{place}: does not admit velocity 0, so the robot could not stand still")
    size = float(np.abs(bound.a) @ np.maximum(np.abs(lo), np.abs(hi))) + abs(bound.b)
    return Row(rule.section.name, on, bound.a, bound.b - ROUND_OFF * size)


# ---- deadlines -------------------------------------------------------------------------------------------------------


class Fallbacks:
    """The fallback and its time to go for each enforced deadline; rules that go to the same pose share one plan."""

    def __init__(
        self, spec: GuardFile, limits: Sequence[LatticeLimits], rows: Sequence[Row], where: str | Path
    ) -> None:
        self._spec, self._limits, self._rows, self._where = spec, limits, rows, where
        self._poses: dict[tuple[float, ...], tuple[GoToPose, PoseTime]] = {}

    def of(self, rule: Declared) -> tuple[Fallback, TimeToGo]:
        section, guard = rule.section, self._spec.guard
        declared_s = section.time_to_go if isinstance(section.time_to_go, float) else None
        dt = 1.0 / float(guard.rate_hz)
        if section.fallback != "go-to-pose":
            brake = BrakeTime(self._limits, dt, velocities=guard.command == "velocity")
            if declared_s is None:
                return Brake(), brake
            if declared_s < brake.worst:
                raise GuardrailError(
                    f"{rule.place} time_to_go: found {declared_s:g}; expected at least {brake.worst:.4g}, what braking "
                    "takes from full speed"
                )
            return Brake(), DeclaredTime(declared_s, None)
        if guard.command == "velocity":
            raise GuardrailError(
                f"{rule.place} fallback: found 'go-to-pose' with velocity commands; expected 'brake' or 'hold'"
            )
        self._refuse_blocked(rule, computed=declared_s is None)
        pose = self._pose(rule)
        if pose not in self._poses:
            computed = PoseTime(self._limits, dt, pose, guard.miss_budget)
            self._poses[pose] = GoToPose(computed), computed
        fallback, computed = self._poses[pose]
        return fallback, computed if declared_s is None else DeclaredTime(declared_s, fallback.pose)

    def _pose(self, rule: Declared) -> tuple[float, ...]:
        given = rule.section.pose or {}
        names = [limit.name for limit in self._limits]
        for name in (*given, *names):
            if (name in given) != (name in names):
                found = f"found joint {name!r}" if name in given else f"{name!r} is missing"
                raise GuardrailError(f"{rule.place} pose: {found}; expected a position for each of {names}")
        return tuple(given[name] for name in names)

    def _refuse_blocked(self, rule: Declared, *, computed: bool) -> None:
        """A path to a pose must be free: rules besides the joints' own limits may block it, or slow it down."""
        spec = self._spec
        coupling = [c for c in spec.constraint if c.kind in ("linear", "quadratic")]
        blocking = [c.name for c in coupling if c.on == "position"] + [r.name for r in self._rows if r.on == "position"]
        if blocking:
            raise GuardrailError(
                f"{rule.place} fallback: found 'go-to-pose' beside {blocking[0]!r}, a rule on positions, which may "
                "block the way to the pose; expected 'brake' or 'hold', or no such rule"
            )
        slowing = [c.name for c in coupling] + [row.name for row in self._rows]
        slowing += [limit.origin["jerk"] for limit in joint_limits(spec, self._where) if math.isfinite(limit.jerk)]
        slowing += ["[dynamics]"] if spec.dynamics is not None else []
        if computed and slowing:
            raise GuardrailError(
                f"{rule.place} time_to_go: computed from the joints' velocity and acceleration alone, but "
                f"{slowing[0]!r} may slow them down; expected a time in seconds that you vouch for"
            )
