"""``[faults]`` of a guard file: what is watched, and after how long it latches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.faults import FaultLimits
from kizzasi_edge.guardrails.lattice import JointLimits
from kizzasi_edge.guardrails.limits import per_joint
from kizzasi_edge.guardrails.sensors import JointWatch, SensorWatch, TimeWatch
from kizzasi_edge.guardrails.spec import GuardFile

UNWATCHED = 1e300
"""A bound that no finite number exceeds."""
NEVER_NS = 1 << 62
_TIMES, _JOINTS = ("stale_ms", "clock_jump_ms", "active_ms"), ("jump", "range_tolerance")
_TRACKING = ("tracking_error", "tracking_stop")
WATCHABLE: dict[str, tuple[str, ...]] = {
    "position": (*_TIMES, *_JOINTS, *_TRACKING),
    "velocity": (*_TIMES, *_JOINTS),
    "torque": (*_TIMES, *_JOINTS),
    "pose": _TIMES,
}
"""Keys of ``[faults]`` with a threshold, by what a guard commands: only sent positions can be compared with measured
ones, and poses have no joints."""


def fault_limits(spec: GuardFile) -> FaultLimits:
    """The thresholds of the fault machine, in periods."""
    counts = {
        key: value
        for key in ("settle_ticks", "fault_ticks", "hang_ticks", "infeasible_ticks")
        if (value := getattr(spec.faults, key)) is not None
    }
    return FaultLimits(miss_budget=spec.guard.miss_budget, nan_ticks=spec.guard.nan_ticks, **counts)


def watches_time(spec: GuardFile) -> bool:
    """Whether a step needs the stamp of its inputs."""
    return spec.faults.stale_ms is not None or spec.faults.clock_jump_ms is not None


def watches_joints(spec: GuardFile) -> bool:
    """Whether a step needs measured positions because of ``[faults]``."""
    return any(getattr(spec.faults, key) is not None for key in (*_JOINTS, *_TRACKING))


def require_watchable(spec: GuardFile, command: str, where: str | Path) -> None:
    """Refuse a key of ``[faults]`` that a guard of such commands would never look at."""
    for key in (*_JOINTS, *_TRACKING):
        if getattr(spec.faults, key) is not None and key not in WATCHABLE[command]:
            raise GuardrailError(
                f"{where}: [faults] {key}: not watched on {command} commands; expected only "
                f"{', '.join(WATCHABLE[command])}"
            )


def sensor_watch(spec: GuardFile, limits: Sequence[JointLimits], where: str | Path) -> SensorWatch | None:
    """The detector of sensor and clock faults; None if nothing is watched.

    Raises :class:`GuardrailError` for a joint without a range where one is needed.
    """
    faults, rate = spec.faults, float(spec.guard.rate_hz)
    if not (watches_time(spec) or watches_joints(spec) or faults.active_ms is not None):
        return None
    margins = per_joint(spec.joints, "margin", [limit.name for limit in limits], where, default=0.0)
    joints = []
    for limit, margin in zip(limits, margins, strict=True):
        lo, hi = -UNWATCHED, UNWATCHED
        if faults.range_tolerance is not None:
            lo, hi = limit.lower - margin - faults.range_tolerance, limit.upper + margin + faults.range_tolerance
            if not (math.isfinite(lo) and math.isfinite(hi)):
                raise GuardrailError(f"{where}: [faults] range_tolerance: joint {limit.name!r} has no range to watch")
        warn = math.inf if faults.tracking_error is None else faults.tracking_error
        stop = math.inf if faults.tracking_stop is None else faults.tracking_stop
        speed, allowance = (
            (UNWATCHED, UNWATCHED)
            if faults.jump is None
            else (limit.velocity / spec.joints.velocity_scale, faults.jump)
        )
        joints.append(JointWatch(lo, hi, speed, allowance, min(warn, stop), stop))
    period_ns = round(1e9 / rate)
    times = TimeWatch(
        period_ns,
        NEVER_NS if faults.stale_ms is None else round(faults.stale_ms * 1e6),
        NEVER_NS if faults.clock_jump_ms is None else max(round(faults.clock_jump_ms * 1e6), period_ns),
        0 if faults.active_ms is None else max(round(faults.active_ms * 1e-3 * rate), 1),
    )
    return SensorWatch(joints, times)
