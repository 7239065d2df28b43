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
from kizzasi_edge.guardrails.watch import WATCHABLE

_SOURCES = ("position", "velocity", "acceleration")
_PLURAL = {"position": "positions", "velocity": "velocities", "acceleration": "accelerations"}
_PURSUIT = {
    "nearest": "A command that is not admissible is replaced by the nearest admissible value of this period.",
    "approach": "A command that the acceleration limit does not admit is approached no faster than the gap can be "
    "braked away.",
}
_PROMISE = {
    "position": "Enforced exactly on sent values, in integers, with nothing assumed: position range, velocity (step "
    "per period), acceleration (change of step per period).",
    "velocity": "Enforced exactly on sent values, in integers, with nothing assumed: velocity, acceleration (change "
    "of velocity per period).",
}
_BRAKES = {
    "position": "Every admitted command can still brake inside the range (exact discrete viable set)",
    "velocity": "From every admitted velocity a joint can still brake inside its range, as measured (exact discrete "
    "viable set)",
}
_ASSUMED = {
    "position": "Assumed, for the robot itself to stay inside its limits: its actuators follow the sent positions "
    "within these margins. Measured positions seed the guard, at rest, and shape no command.",
    "velocity": "Assumed, for the robot to stay inside its range: positions are measured every period, and a joint "
    "that is stopped travels no further than the velocities sent add up to, within the margin.",
}
_FAULTS = {
    "stale_ms": ("inputs older than {:g} ms", "{coasts}", "stale inputs"),
    "clock_jump_ms": ("a clock that runs back, or steps more than {:g} ms apart", "{coasts}", "clocks that jump"),
    "jump": (
        "a measured position that leaps by {:g} more than its joint can travel",
        "brakes; {0.fault_ticks} periods of it latch STOPPED",
        "sensors that leap",
    ),
    "range_tolerance": (
        "a measured position more than {:g} outside its limits",
        "brakes; {0.fault_ticks} periods of it latch STOPPED",
        "sensors that read what cannot be",
    ),
    "tracking_error": (
        "more than {:g} between sent and measured position",
        "half speed, until {0.settle_ticks} good periods",
        "a joint that lags",
    ),
    "tracking_stop": ("more than {:g} between sent and measured position", "latches STOPPED", "a joint that is stuck"),
    "active_ms": (
        "the guard changing every command for {:g} ms",
        "latches STOPPED",
        "a model that is always corrected",
    ),
}
"""For each key of ``[faults]`` that has a threshold: what is watched, the reaction, and what goes unseen without it."""


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
    lines = [
        f"Guard of {len(cells)} joints from {where}, one {command} command every {1e3 / rate:g} ms.",
        _PROMISE[command],
        f"{_BRAKES[command]}; room for {spec.guard.miss_budget} missed periods of coasting is kept in front of the "
        "brake.",
        _PURSUIT[spec.guard.on_clamp],
        "",
    ]
    lines += [_joint(*of, rate, command) for of in zip(limits, cells, jerks, strict=True)]
    joints = spec.joints
    lines += [
        *_coupled([limit.name for limit in limits], rows, quadratics),
        "",
        f"Margins: position {joints.margin} rad, velocity scale {joints.velocity_scale} (already subtracted above).",
        _ASSUMED[command],
        "Outside its range a joint may only move inwards, at an eighth of its speed.",
    ]
    if any(jerks):
        lines.append("Jerk is kept outside BRAKE; where only braking is left it gives way, and is counted.")
    if efforts is not None:
        lines += ["", "Torque and power:", *(f"  {line}" for line in efforts.explain())]
    else:
        lines.append("Not limited: torque and power, whatever a robot description says of them.")
    return lines


def explain_faults(faults: FaultsSection, limits: FaultLimits, command: str) -> list[str]:
    """How it reacts; docs/faults.md has the table."""
    stops = "holds the last pose" if command == "pose" else "brakes"
    coasting = limits.miss_budget and command in ("position", "velocity")
    coasts = f"coasts up to {limits.miss_budget} periods, then brakes" if coasting else stops
    once = "coasts one period if viable, then brakes" if coasting else stops
    lines = [
        "When something is wrong (docs/faults.md):",
        f"  a command that is not finite: {once}; {limits.nan_ticks} in a row latch ESTOP.",
        f"  no command: {coasts}; {limits.hang_ticks} in a row latch STOPPED.",
    ]
    unseen = []
    for key, (what, reaction, without) in _FAULTS.items():
        if key not in WATCHABLE[command]:
            continue
        if (threshold := getattr(faults, key)) is None:
            unseen.append(f"{without} ({key})")
        else:
            lines.append(f"  {what.format(threshold)}: {reaction.format(limits, coasts=coasts)}.")
    if unseen:
        lines.append(f"  Not watched, for want of a key in [faults]: {', '.join(unseen)}.")
    return lines


def explain_needs(measures: Sequence[str], signals: Sequence[str], command: str, *, stamped: bool) -> list[str]:
    """What a step must be given besides its command."""
    needs = [f"measured {' and '.join(kind + 's' if kind == 'position' else 'velocities' for kind in measures)}"]
    needs = [*(needs if measures else []), *(f"signal {name!r}" for name in signals)]
    if stamped:
        needs.append("the receive time of the oldest input")
    lines = [f"Every step needs {', '.join(needs)}."] if needs else []
    if command == "position" and "position" not in measures:
        lines.append("The first step needs measured positions.")
    return lines


def _joint(limit: JointLimits, cell: LatticeLimits, jerk: int, rate: float, command: str) -> str:
    velocity = command == "velocity"
    q = cell.quantum / rate if velocity else cell.quantum
    declared = [f"{kind} from {limit.origin[kind]!r}" for kind in _SOURCES if limit.origin[kind] != kind]
    bounded = math.isfinite(limit.lower)
    return (
        f"  {cell.name}: {f'[{cell.lo * q:+.4f}, {cell.hi * q:+.4f}] rad' if bounded else 'no range'}, "
        f"{cell.w * q * rate:.4f} rad/s, {cell.h * q * rate**2:.4f} rad/s²"
        f"{f', {jerk * q * rate**3:.4f} rad/s³' if jerk else ''} "
        f"(lattice lo={cell.lo} hi={cell.hi} w={cell.w} h={cell.h}, "
        f"quantum {cell.quantum:.3g} rad{'/s' * velocity}; "
        f"{100 * cell.acceleration_lost:.2f}% of the acceleration lost to rounding)"
        + (f"; {', '.join(declared)}" if declared else "")
    )


def _coupled(joints: Sequence[str], rows: Sequence[Row], quadratics: Sequence[Quadratic]) -> list[str]:
    """One line for each rule that couples joints, and what is meant by keeping it."""
    if not rows and not quadratics:
        return []
    lines = ["", "Rules that couple joints; hard ones are kept by every value that is sent:"]
    everything: list[Row | Quadratic] = [*rows, *quadratics]
    for row in rows:
        terms = " ".join(f"{a:+g}·{joint}" for a, joint in zip(row.a, joints, strict=True) if a)
        lines.append(f"  {row.name}: {terms} ≤ {row.b:g} on {_PLURAL[row.on]}, {_rank(row)}")
    for f in quadratics:
        used = [joint for joint, line, c in zip(joints, f.q, f.c, strict=True) if line.any() or c]
        lines.append(f"  {f.name}: quadratic in {', '.join(used)} ≤ {f.r:g} on {_PLURAL[f.on]}, {_rank(f)}")
    if any(rule.on == "position" for rule in everything):
        lines.append(
            "  Rules on positions hold on all that the joints can reach by coasting through missed periods "
            "and braking, together or each by itself: also while the microcontroller stops them alone. A command that "
            "arrives a period late is taken joint by joint: there, such a rule may be exceeded."
        )
    if any(rule.on == "velocity" for rule in everything):
        lines.append(
            "  Rules on velocities hold while this guard sends: its joints brake in proportion. A microcontroller that "
            "stops them alone brakes each at its own limit, and knows nothing of these rules."
        )
    return lines


def _rank(rule: Row | Quadratic) -> str:
    return "hard" if rule.hard else f"soft, priority {rule.priority}: given up when more important rules leave no room"
