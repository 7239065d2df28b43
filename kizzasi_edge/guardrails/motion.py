"""From a guard file to the drive of position or velocity commands, with the rules that couple joints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.core import CoreDrive
from kizzasi_edge.guardrails.coupled import build_coupled
from kizzasi_edge.guardrails.coupled_spec import check_feasible, coupled_rules
from kizzasi_edge.guardrails.effort_rows import EffortRows, EffortRules
from kizzasi_edge.guardrails.lattice import (
    RAW_MAX,
    JointLimits,
    LatticeLimits,
    jerk_quanta,
    to_lattice,
    to_velocity_lattice,
)
from kizzasi_edge.guardrails.rows import Quadratic, Row
from kizzasi_edge.guardrails.verdict import RULE_BITS, Layout

if TYPE_CHECKING:
    from kizzasi_edge.guardrails.spec import GuardFile
    from kizzasi_edge.guardrails.temporal.rules import TemporalRules


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """A drive, and what it was built from.

    ``lattice``: what a node enforces on the values sent. ``rows``: those of ``[[constraint]]``, then those of
    ``[[temporal]]``. ``jerk``: per joint in quanta, 0 for none.
    """

    drive: CoreDrive
    jerk: tuple[int, ...]
    lattice: tuple[LatticeLimits, ...]
    rows: tuple[Row, ...]
    quadratics: tuple[Quadratic, ...]


def motion_lattice(spec: GuardFile, limits: Sequence[JointLimits], where: str | Path) -> tuple[LatticeLimits, ...]:
    """The integers that the C core works on. Raises :class:`GuardrailError`."""
    make = to_velocity_lattice if spec.guard.command == "velocity" else to_lattice
    try:
        return tuple(make(limit, spec.guard.rate_hz) for limit in limits)
    except GuardrailError as exc:
        raise GuardrailError(f"{where}: {exc}") from None


def jerk_lattice(spec: GuardFile, limits: Sequence[JointLimits], cells: Sequence[LatticeLimits]) -> tuple[int, ...]:
    """Each joint's jerk limit in quanta of ``cells``, 0 for none. Raises :class:`GuardrailError`."""
    periods = 2 if spec.guard.command == "velocity" else 3
    return tuple(
        jerk_quanta(limit, cell.quantum, float(spec.guard.rate_hz), periods)
        for limit, cell in zip(limits, cells, strict=True)
    )


def build_motion(
    spec: GuardFile,
    limits: Sequence[JointLimits],
    cells: Sequence[LatticeLimits],
    temporal: TemporalRules | None,
    efforts: EffortRules | None,
    where: str | Path,
) -> Motion:
    """``cells`` of :func:`motion_lattice`. Raises :class:`GuardrailError` naming file, rule, key, found, expected."""
    rate, velocity = float(spec.guard.rate_hz), spec.guard.command == "velocity"
    rows, quadratics = coupled_rules(spec, limits, where)
    if temporal is not None and temporal.rows:
        rows = (*rows, *temporal.rows)
        check_feasible(limits, rows, quadratics, where)
    try:
        if spec.guard.on_clamp == "approach":
            _require_approachable(cells)
        jerk = jerk_lattice(spec, limits, cells)
        coupled = effort = None
        if rows or quadratics or efforts is not None:
            # Velocity commands: the core counts time in periods, so that velocities are exact (lattice.py).
            every = [_in_periods(row, rate) for row in rows] if velocity else rows
            curved = [_curved_in_periods(f, rate) for f in quadratics] if velocity else quadratics
            coupled = build_coupled(
                cells, every, curved, rate_hz=1.0 if velocity else rate, miss_budget=spec.guard.miss_budget
            )
        if efforts is not None:
            effort = EffortRows(coupled, efforts)
        moving = () if effort is None else effort.names
        drive = CoreDrive(
            cells,
            _layout(spec, limits, (*(row.name for row in rows), *moving, *(f.name for f in quadratics)), jerk),
            rate_hz=rate,
            miss_budget=spec.guard.miss_budget,
            velocity=velocity,
            approach=spec.guard.on_clamp == "approach",
            jerk=jerk,
            coupled=coupled,
            effort=effort,
        )
    except GuardrailError as exc:
        raise GuardrailError(f"{where}: {exc}") from None
    sent = tuple(_sent(cell, x) for cell, x in zip(cells, jerk, strict=True)) if velocity else tuple(cells)
    return Motion(drive, jerk, sent, tuple(rows), tuple(quadratics))


def _require_approachable(cells: Sequence[LatticeLimits]) -> None:
    """Half of h is left for the command's own motion: with one quantum there is no half, and the joint would circle."""
    for cell in cells:
        if cell.h < 2:
            raise GuardrailError(
                f"[guard] on_clamp: found 'approach'; joint {cell.name!r} accelerates by one quantum of "
                f"{cell.quantum:g} per period², expected at least two: a finer quantum, more acceleration, or 'nearest'"
            )


def _in_periods(row: Row, rate: float) -> Row:
    per = {"position": 1.0 / rate, "velocity": 1.0, "acceleration": rate}[row.on]
    return Row(row.name, row.on, row.a * per, row.b, row.priority, row.hard)


def _curved_in_periods(f: Quadratic, rate: float) -> Quadratic:
    per = 1.0 / rate if f.on == "position" else 1.0
    return Quadratic(f.name, f.on, f.q * per**2, f.c * per, f.r, f.priority, f.hard)


def _sent(cell: LatticeLimits, jerk: int) -> LatticeLimits:
    """What holds of velocities sent: range, change, and change of that."""
    change = 2 * cell.h if not jerk else min(jerk, 2 * cell.h)
    return LatticeLimits(cell.name, cell.quantum, -cell.w, cell.w, cell.h, min(change, RAW_MAX), cell.acceleration_lost)


def _layout(
    spec: GuardFile,
    limits: Sequence[JointLimits],
    coupled: tuple[str, ...],
    jerk: Sequence[int],
) -> Layout:
    names = []
    for limit, limited in zip(limits, jerk, strict=True):
        found = {bit: limit.origin.get(kind, kind) for bit, kind in RULE_BITS.items()}
        if limited:
            shaped = limit.origin.get("jerk", "jerk")
            found[64] = shaped if spec.guard.on_clamp == "nearest" else f"approach or {shaped}"
        names.append(found)
    return Layout(tuple(limit.name for limit in limits), tuple(names), coupled)
