"""``Guardrails.explain()``: what is enforced, how, and what is assumed — to be read before trusting it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kizzasi_edge.guardrails.stack import Guardrails

_SOURCES = ("position", "velocity", "acceleration")


def explain(guard: Guardrails) -> str:
    """One paragraph on the promise, one line per joint, one per assumption."""
    period_ms = 1e3 / guard.rate_hz
    lines = [
        f"Guard of {len(guard.joints)} joints from {guard.where}, one position command every {period_ms:g} ms.",
        "Enforced exactly on sent values, in integers: position range, step per period, change of step per period.",
        "Every admitted command can still brake inside the range (exact discrete viable set); "
        f"room for {guard.miss_budget} missed periods of coasting is kept in front of the brake.",
        "",
    ]
    for limit, cell in zip(guard.limits, guard.lattice, strict=True):
        q = cell.quantum
        declared = [f"{kind} from {limit.origin[kind]!r}" for kind in _SOURCES if limit.origin[kind] != kind]
        lines.append(
            f"  {cell.name}: [{cell.lo * q:+.4f}, {cell.hi * q:+.4f}] rad, {cell.w * q * guard.rate_hz:.4f} rad/s, "
            f"{cell.h * q * guard.rate_hz**2:.4f} rad/s² (lattice lo={cell.lo} hi={cell.hi} w={cell.w} h={cell.h}, "
            f"quantum {q:.3g} rad; {100 * cell.acceleration_lost:.2f}% of the acceleration lost to rounding)"
            + (f"; {', '.join(declared)}" if declared else "")
        )
    joints = guard.spec.joints
    lines += [
        "",
        f"Margins: position {joints.margin} rad, velocity scale {joints.velocity_scale} (already subtracted above).",
        "Assumed: the actuator follows sent positions within the margins; a measured position seeds the guard at rest.",
        f"A non-finite command coasts one period if viable, then brakes; {guard.spec.guard.nan_ticks} in a row latch.",
        "Outside the limits a joint may only move inwards, at an eighth of its speed.",
    ]
    return "\n".join(lines)
