"""``Guardrails.explain()``: what is enforced, how, and what is assumed — to be read before trusting it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from kizzasi_edge.guardrails.effort_rows import EffortRules
from kizzasi_edge.guardrails.faults import FaultLimits
from kizzasi_edge.guardrails.lattice import JointLimits, LatticeLimits
from kizzasi_edge.guardrails.rows import Quadratic, Row
from kizzasi_edge.guardrails.spec import FaultsSection, GuardFile

_SOURCES = ("position", "velocity", "acceleration")
_PLURAL = {"position": "positions", "velocity": "velocities", "acceleration": "accelerations"}
_PURSUIT = {
    "nearest": "A command that is not admissible is replaced by the nearest admissible value of this period.",
    "approach": "A command that the acceleration limit does not admit is approached without overshooting it.",
}
_FOLLOWS = {
    "position": "Assumed: the actuator follows sent positions within the margins; a measured position seeds the guard "
    "at rest.",
    "velocity": "Assumed for the range: joints are measured every period, and while one stops it travels no further "
    "than the velocities sent add up to, within the margin. What is promised of velocities themselves needs no "
    "assumption.",
}


def explain_motion(
    spec: GuardFile,
    where: str | Path,
    limits: Sequence[JointLimits],
    cells: Sequence[LatticeLimits],
    jerks: Sequence[int],
    rows: Sequence[Row],
    quadratics: Sequence[Quadratic],
    efforts: EffortRules | None,
) -> list[str]:
    """Positions and velocities: the promise, a line per joint and per rule that couples them, the assumptions."""
    rate, command = float(spec.guard.rate_hz), spec.guard.command
    velocity = command == "velocity"
    exactly = (
        "velocity, its change per period" if velocity else "position range, step per period, change of step per period"
    )
    lines = [
        f"Guard of {len(cells)} joints from {where}, one {command} command every {1e3 / rate:g} ms.",
        f"Enforced exactly on sent values, in integers: {exactly}.",
        "Every admitted command can still brake inside the range (exact discrete viable set); "
        f"room for {spec.guard.miss_budget} missed periods of coasting is kept in front of the brake.",
        _PURSUIT[spec.guard.on_clamp],
        "",
    ]
    for limit, cell, jerk in zip(limits, cells, jerks, strict=True):
        q = cell.quantum / rate if velocity else cell.quantum
        declared = [f"{kind} from {limit.origin[kind]!r}" for kind in _SOURCES if limit.origin[kind] != kind]
        bounded = math.isfinite(limit.lower)
        lines.append(
            f"  {cell.name}: {f'[{cell.lo * q:+.4f}, {cell.hi * q:+.4f}] rad' if bounded else 'no range'}, "
            f"{cell.w * q * rate:.4f} rad/s, {cell.h * q * rate**2:.4f} rad/s²"
            f"{f', {jerk * q * rate**3:.4f} rad/s³' if jerk else ''} "
            f"(lattice lo={cell.lo} hi={cell.hi} w={cell.w} h={cell.h}, "
            f"quantum {cell.quantum:.3g} rad{'/s' * velocity}; "
            f"{100 * cell.acceleration_lost:.2f}% of the acceleration lost to rounding)"
            + (f"; {', '.join(declared)}" if declared else "")
        )
    joints = spec.joints
    lines += [
        *_coupled([limit.name for limit in limits], rows, quadratics),
        "",
        f"Margins: position {joints.margin} rad, velocity scale {joints.velocity_scale} (already subtracted above).",
        _FOLLOWS[command],
        "Outside the limits a joint may only move inwards, at an eighth of its speed.",
    ]
    if any(jerks):
        lines.append("Jerk is kept outside BRAKE; where only braking is left it gives way, and is counted.")
    if efforts is not None:
        lines += ["", "Torque and power:", *(f"  {line}" for line in efforts.explain())]
    else:
        lines.append("Not limited: torque and power, whatever a robot description says of them.")
    return lines


def explain_faults(faults: FaultsSection, limits: FaultLimits) -> list[str]:
    """How it reacts; docs/faults.md has the table."""
    watched = [f"{key} {value:g}" for key, value in faults.model_dump(exclude_none=True).items() if "ticks" not in key]
    return [
        f"A non-finite command coasts one period if viable, then brakes; {limits.nan_ticks} in a row latch ESTOP.",
        f"A missing one coasts {limits.miss_budget} periods, then brakes; {limits.hang_ticks} in a row latch STOPPED.",
        f"Watched besides: {', '.join(watched) or 'nothing ([faults] is empty)'}.",
    ]


def _coupled(joints: Sequence[str], rows: Sequence[Row], quadratics: Sequence[Quadratic]) -> list[str]:
    """One line for each rule that couples joints, and what is meant by keeping it."""
    if not rows and not quadratics:
        return []
    lines = ["", "Rules that couple joints, kept by every value that is sent:"]
    everything: list[Row | Quadratic] = [*rows, *quadratics]
    for row in rows:
        terms = " ".join(f"{a:+g}·{joint}" for a, joint in zip(row.a, joints, strict=True) if a)
        lines.append(f"  {row.name}: {terms} ≤ {row.b:g} on {_PLURAL[row.on]}, {_rank(row)}")
    for f in quadratics:
        used = [joint for joint, line, c in zip(joints, f.q, f.c, strict=True) if line.any() or c]
        lines.append(f"  {f.name}: quadratic in {', '.join(used)} ≤ {f.r:g} on {_PLURAL[f.on]}, {_rank(f)}")
    if any(rule.on == "position" for rule in everything):
        lines.append(
            "  Rules on positions hold on all that the joints can reach by coasting and braking, together or each by "
            "itself: also while the microcontroller stops them alone."
        )
    if any(rule.on == "velocity" for rule in everything):
        lines.append(
            "  Rules on velocities hold while this guard sends: its joints brake in proportion. A microcontroller that "
            "stops them alone brakes each at its own limit, and knows nothing of these rules."
        )
    return lines


def _rank(rule: Row | Quadratic) -> str:
    return "hard" if rule.hard else f"soft, priority {rule.priority}: given up when more important rules leave no room"
