"""``Guardrails.explain()``: what is enforced, how, and what is assumed — to be read before trusting it."""

from __future__ import annotations

from collections.abc import Sequence

from kizzasi_edge.guardrails.lattice import JointLimits, LatticeLimits
from kizzasi_edge.guardrails.rows import Quadratic, Row
from kizzasi_edge.guardrails.spec import GuardFile

_SOURCES = ("position", "velocity", "acceleration")
_PLURAL = {"position": "positions", "velocity": "velocities", "acceleration": "accelerations"}
_PURSUIT = {
    "nearest": "A command that is not admissible is replaced by the nearest admissible value of this period.",
    "approach": "A command that the acceleration limit does not admit is approached without overshooting it.",
}


def explain(
    spec: GuardFile,
    where: str,
    limits: Sequence[JointLimits],
    lattice: Sequence[LatticeLimits],
    rows: Sequence[Row],
    quadratics: Sequence[Quadratic],
) -> str:
    """One paragraph on the promise, one line per joint, one per assumption."""
    guard, joints, rate = spec.guard, spec.joints, float(spec.guard.rate_hz)
    lines = [
        f"Guard of {len(lattice)} joints from {where}, one position command every {1e3 / rate:g} ms.",
        "Enforced exactly on sent values, in integers: position range, step per period, change of step per period.",
        "Every admitted command can still brake inside the range (exact discrete viable set); "
        f"room for {guard.miss_budget} missed periods of coasting is kept in front of the brake.",
        _PURSUIT[guard.on_clamp],
        "",
    ]
    for limit, cell in zip(limits, lattice, strict=True):
        q = cell.quantum
        declared = [f"{kind} from {limit.origin[kind]!r}" for kind in _SOURCES if limit.origin[kind] != kind]
        lines.append(
            f"  {cell.name}: [{cell.lo * q:+.4f}, {cell.hi * q:+.4f}] rad, {cell.w * q * rate:.4f} rad/s, "
            f"{cell.h * q * rate**2:.4f} rad/s² (lattice lo={cell.lo} hi={cell.hi} w={cell.w} h={cell.h}, "
            f"quantum {q:.3g} rad; {100 * cell.acceleration_lost:.2f}% of the acceleration lost to rounding)"
            + (f"; {', '.join(declared)}" if declared else "")
        )
    lines += _coupled([limit.name for limit in limits], rows, quadratics)
    lines += [
        "",
        f"Margins: position {joints.margin} rad, velocity scale {joints.velocity_scale} (already subtracted above).",
        "Assumed: the actuator follows sent positions within the margins; a measured position seeds the guard at rest.",
        f"A non-finite command coasts one period if viable, then brakes; {guard.nan_ticks} in a row latch.",
        "Not limited: jerk, torque and power, whatever a robot description says of them.",
        "Outside the limits a joint may only move inwards, at an eighth of its speed.",
    ]
    return "\n".join(lines)


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
