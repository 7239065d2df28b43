"""How long a fallback needs from here to its goal: an upper bound, computed from the guard's lattice state.

Positions and velocities are those the guard applied (CONTRACT §2), not measurements: position = q·Q and
velocity = (q − q_previous)·Q/dt, in rad and rad/s (m, m/s for prismatic joints), ``n`` floats each.

A deadline is kept if, at the last period in which somebody else may still choose the command, the fallback's time
from the worst state that command can lead to fits. Hence the three figures of :class:`TimeToGo`.

Source of the closed-form trajectories: Berscheid & Kröger, *Jerk-limited Real-time Trajectory Generation with
Arbitrary Target States*, RSS 2021 (ruckig), used here with unlimited jerk.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from kizzasi_edge.errors import GuardrailError, MissingExtra
from kizzasi_edge.guardrails.lattice import LatticeLimits

F64 = npt.NDArray[np.float64]
Values = Sequence[float] | F64
"""One number per joint; lists are fastest."""

ROUNDING = 2
"""Quanta per period² kept free: samples rounded by ½ quantum each change their second difference by ≤ ½ + 1 + ½."""

ROUND_OFF = 1e-9
"""Periods: sums of whole periods in floating point count as equal within this."""


class TimeToGo(Protocol):
    """An upper bound on a fallback's time to its goal, under the guard's own limits."""

    pose: F64 | None
    """Where it ends, at rest; ``None``: at rest anywhere."""
    missed_period: float
    """Seconds by which one period without a command (the joints coast or brake, one by one) postpones the goal."""
    worst: float
    """The largest :meth:`now` of all states inside the limits."""

    def now(self, position: Values, velocity: Values) -> float:
        """Seconds to the goal if every command from this one on is the fallback's; ``inf`` where no bound is known."""

    def after(self, position: Values, velocity: Values) -> float:
        """The largest :meth:`now` that one more period of any command which the guard admits can lead to."""


class Lattice:
    """Limits of ``n`` joints as float64 arrays ``(n,)`` in whole quanta per period (integers, held exactly)."""

    def __init__(self, limits: Sequence[LatticeLimits], dt: float) -> None:
        self.names = tuple(limit.name for limit in limits)
        self.dt = _checked(dt)
        self.quantum: F64 = np.array([limit.quantum for limit in limits])
        self.lo, self.hi, self.w, self.h = (
            np.array([getattr(limit, key) for limit in limits], np.float64) for key in ("lo", "hi", "w", "h")
        )

    def state(self, position: Values, velocity: Values) -> tuple[F64, F64]:
        """Position and last step in quanta: exactly the guard's integers."""
        return np.rint(np.asarray(position) / self.quantum), np.rint(np.asarray(velocity) * (self.dt / self.quantum))

    def slower(self, step: F64) -> F64:
        """The step after ``step`` of a joint that brakes: kz_guard's ``towards_rest``."""
        return np.asarray(np.copysign(np.maximum(np.abs(step) - self.h, 0.0), step))

    def brake_periods(self, step: F64) -> F64:
        """Commands until each joint's step is 0."""
        return np.asarray(np.ceil(np.abs(step) / self.h))

    def brake_distance(self, step: F64) -> F64:
        """Σ max(|step| − k·h, 0) over the periods k of the brake."""
        k = self.brake_periods(step) - 1
        return np.asarray(np.copysign(k * np.abs(step) - self.h * k * (k + 1) / 2, step))


def _checked(dt: float) -> float:
    if not (math.isfinite(dt) and dt > 0):
        raise GuardrailError(f"period dt: found {dt}; expected a positive number of seconds")
    return dt


class BrakeTime:
    """Time to rest by braking at the guard's own limit: exact, ⌈|step|/h⌉ periods of the slowest joint.

    Joints that a rule on velocities couples take no longer than that: they brake in proportion with the one of them
    that needs most periods; each step of another, s − ⌈s·h/S⌉, is at most its share s·(S − h)/S, so that one stays the
    slowest and the others rest with it (``kz_braked_with`` of kz_rules.c).

    A missed period leaves the speed or lowers it, so it postpones rest by itself and no more. ``velocities``: commands
    are velocities, and ``limits`` count them.
    """

    pose: F64 | None = None

    def __init__(self, limits: Sequence[LatticeLimits], dt: float, *, velocities: bool = False) -> None:
        self._dt = self.missed_period = _checked(dt)
        unit = 1.0 if velocities else dt
        self._joints = [(unit / limit.quantum, limit.w, limit.h) for limit in limits]
        self.worst = max(-(-w // h) for _, w, h in self._joints) * dt

    def now(self, position: Values, velocity: Values) -> float:
        periods = 0
        try:
            for v, (steps, _, h) in zip(velocity, self._joints, strict=True):
                periods = max(periods, -(-round(abs(v) * steps) // h))
        except (ValueError, OverflowError):  # not finite
            return math.inf
        return periods * self._dt

    def after(self, position: Values, velocity: Values) -> float:
        periods = 0
        try:
            for v, (steps, w, h) in zip(velocity, self._joints, strict=True):
                speed = round(abs(v) * steps)
                fastest = speed + h
                if fastest > w:
                    fastest = w if w > speed else speed
                needed = -(-fastest // h)
                if needed > periods:  # min() and max() would double the time of this loop, run in every pending period
                    periods = needed
        except (ValueError, OverflowError):
            return math.inf
        return periods * self._dt


class DeclaredTime:
    """A bound that the user vouches for: from any state, missed periods within the budget included."""

    missed_period = 0.0

    def __init__(self, seconds: float, pose: F64 | None) -> None:
        self.worst, self.pose = seconds, pose

    def now(self, position: Values, velocity: Values) -> float:
        return self.worst

    def after(self, position: Values, velocity: Values) -> float:
        return self.worst


class PoseTime:
    """Time to rest at a pose: ruckig's minimum time, each joint on its own, under limits that rounding cannot break.

    The limits are the guard's less the rounding of samples: h − 2 quanta/period², w − 1 quantum/period. Ruckig's time
    is rounded up to whole periods, plus two: one for the last step to become 0, one for a brake's own rounding up
    (:class:`~kizzasi_edge.guardrails.temporal.fallback.GoToPose` brakes a joint first where ruckig's path, which
    knows no position limits, would come too near to one; that takes at most one period more than the path itself).

    ``after``: the states that can be brought to rest at the pose within a given time form a convex set (linear
    dynamics, convex limits), so the largest time over the guard's window of next steps is at one of its two ends.

    ``missed_period``: whatever a missed period displaces a joint by, the old plan can be followed at that distance
    and the distance travelled from rest at the end; that, the period, and the time to regain the plan's velocity.

    ``pose`` (n,) [rad] is rounded to the lattice. The guard keeps room for ``miss_budget`` periods of coasting before
    a limit; a pose inside that room would only be crept up to, so it is refused.

    Raises :class:`GuardrailError` (shape, NaN, pose too near to a limit, limits too coarse), :class:`MissingExtra`.
    """

    def __init__(self, limits: Sequence[LatticeLimits], dt: float, pose: npt.ArrayLike, miss_budget: int) -> None:
        lattice = self.lattice = Lattice(limits, dt)
        n = len(lattice.names)
        target = np.asarray(pose, np.float64)
        if target.shape != (n,) or not np.isfinite(target).all():
            raise GuardrailError(f"pose: found {target.tolist()}; expected {n} finite numbers, one per joint")
        if (coarse := np.flatnonzero((lattice.h <= ROUNDING) | (lattice.w <= 1))).size:
            i = int(coarse[0])
            raise GuardrailError(
                f"joint {lattice.names[i]!r}: w={lattice.w[i]:g} quanta per period, h={lattice.h[i]:g} per period²; "
                f"a timed move to a pose needs w > 1 and h > {ROUNDING} (a finer quantum or a lower rate)"
            )
        room = (1 + miss_budget) * (lattice.w + 1)
        self.inner_lo, self.inner_hi = lattice.lo + room, lattice.hi - room
        self.target: F64 = np.rint(target / lattice.quantum)
        if (near := np.flatnonzero((self.target < self.inner_lo) | (self.target > self.inner_hi))).size:
            i = int(near[0])
            lo, hi = self.inner_lo[i] * lattice.quantum[i], self.inner_hi[i] * lattice.quantum[i]
            raise GuardrailError(
                f"pose of joint {lattice.names[i]!r}: found {target[i]:g}; expected within [{lo:g}, {hi:g}]: "
                f"{1 + miss_budget} periods at full speed are kept free in front of a position limit"
            )
        self.pose: F64 | None = self.target * lattice.quantum
        self.failures = 0
        """Requests that ruckig refused; each was answered with ``inf``, which engages the fallback."""
        self._open_ruckig(n)
        relative = lattice.h / (lattice.h - ROUNDING)
        regain = 1.5 * float(relative.max())  # periods to make up for one h and half a period's acceleration
        displaced = self.now_from(self.target + np.ceil((1 + 1.5 * relative) * lattice.w), np.zeros(n)) - 2 * dt
        self.missed_period = math.ceil(1 + regain) * dt + displaced
        # Full speed towards a limit, and back from it; a period more, as the planner's brake is not the guard's.
        stop = lattice.brake_distance(lattice.w)
        ends = self.now_from(lattice.hi - stop, lattice.w), self.now_from(lattice.lo + stop, -lattice.w)
        self.worst = max(ends) + dt

    def _open_ruckig(self, n: int) -> None:
        try:
            import ruckig
        except ImportError:
            raise MissingExtra(
                "a go-to-pose fallback needs ruckig for its time to go: pip install 'kizzasi-edge[temporal]'"
            ) from None
        lattice = self.lattice
        # Ruckig's tolerances are absolute, for numbers about 1: positions relative to the target, in a power of two of
        # quanta that covers the range.
        unit = np.exp2(np.ceil(np.log2(np.maximum(lattice.hi - lattice.lo, 1.0))))
        self._unit: F64 = unit
        self._error: type[Exception] = ruckig.RuckigError
        self._new_trajectory: Any = lambda: ruckig.Trajectory(n)
        self._ruckig: Any = ruckig.Ruckig(n)
        self._time: Any = ruckig.Trajectory(n)
        request: Any = ruckig.InputParameter(n)
        request.synchronization = ruckig.Synchronization.No
        request.max_velocity = ((lattice.w - 1) / unit / lattice.dt).tolist()
        request.max_acceleration = ((lattice.h - ROUNDING) / unit / lattice.dt**2).tolist()
        request.current_acceleration = request.target_acceleration = [0.0] * n
        request.target_position = request.target_velocity = [0.0] * n
        self._request: Any = request

    def now(self, position: Values, velocity: Values) -> float:
        q, step = self.lattice.state(position, velocity)
        return self.now_from(q, step) if self._inside(q) else math.inf

    def after(self, position: Values, velocity: Values) -> float:
        lattice = self.lattice
        q, step = lattice.state(position, velocity)
        if not self._inside(q):
            return math.inf
        up, down = np.minimum(step + lattice.h, lattice.w), np.maximum(step - lattice.h, -lattice.w)
        return max(self.now_from(q + up, up), self.now_from(q + down, down))

    def now_from(self, q: F64, step: F64) -> float:
        """:meth:`now` from a state in quanta, wherever it is."""
        if not self._solve(q, step, self._time):
            return math.inf
        dt = self.lattice.dt
        return (math.ceil(float(self._time.duration) / dt - ROUND_OFF) + 2) * dt

    def plan(self, q: F64, step: F64) -> Any | None:
        """The ruckig trajectory from a state in quanta, or ``None``; evaluate it by :meth:`sample`."""
        trajectory = self._new_trajectory()
        return trajectory if self._solve(q, step, trajectory) else None

    def sample(self, trajectory: Any, periods: float) -> F64:
        """Positions ``(n,)`` in whole quanta, so many periods after the start."""
        relative = np.asarray(trajectory.at_time(periods * self.lattice.dt)[0])
        return np.asarray(np.rint(self.target + relative * self._unit))

    def leaves(self, q: F64, step: F64) -> npt.NDArray[np.bool_]:
        """Joints whose path would, by its weaker brake, come nearer to a position limit than the guard admits."""
        stop = q + step * np.abs(step) / (2 * (self.lattice.h - ROUNDING))
        return np.asarray(((step > 0) & (stop > self.inner_hi)) | ((step < 0) & (stop < self.inner_lo)))

    def _inside(self, q: F64) -> bool:
        # Outside its range a joint moves at w/8 only: the bound does not hold there.
        return bool(((q >= self.lattice.lo) & (q <= self.lattice.hi)).all())

    def _solve(self, q: F64, step: F64, trajectory: Any) -> bool:
        request = self._request
        request.current_position = ((q - self.target) / self._unit).tolist()
        request.current_velocity = (step / self._unit / self.lattice.dt).tolist()
        try:
            solved = bool(self._ruckig.calculate(request, trajectory) >= 0)
        except self._error:
            solved = False
        self.failures += not solved
        return solved
