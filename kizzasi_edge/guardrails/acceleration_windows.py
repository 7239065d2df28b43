"""How hard each joint may be accelerated for one period, so that it stays in its range and below its speed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["POSITION", "RECOVERY", "VELOCITY", "AccelerationWindows"]

F64 = npt.NDArray[np.float64]

POSITION, VELOCITY, RECOVERY = 1, 2, 8
"""What a window's end comes from: bits of verdict.RULE_BITS."""


class AccelerationWindows:
    """Windows of acceleration that keep every joint in the viable set of a double integrator.

    A joint at v, ``room`` away from a limit, may reach u by the end of the period if that and braking from u by h a
    period, the last one shorter, fits: (v+u)/2·dt + D(u) ≤ room. The largest such u is DESIGN §4's formula for the
    distance left at the middle of the period. A joint that has slipped out (model error, a start outside) brakes with
    all there is, then comes back at an eighth of its speed.

    Args:
        lower, upper: (n,) range [rad].
        velocity: (n,) largest speed [rad/s].
        planned: (n,) what the viable set brakes with [rad/s²].
        brake: (n,) what there is, ≥ ``planned``.
        dt: period [s].
    """

    def __init__(self, lower: F64, upper: F64, velocity: F64, planned: F64, brake: F64, dt: float) -> None:
        self._lower, self._upper = lower, upper
        self._full = self._speed = velocity
        self._return = -velocity / 8.0
        self._per_second = 1.0 / dt
        self._h, self._brake = planned * dt, brake * dt
        self._by_room, self._by_speed = 1.0 / (dt * self._h), 0.5 / self._h  # distances in quanta of h·dt
        shape = (2, len(lower))  # toward the upper limit, toward the lower
        self._v, self._d, self._m, self._t, self._out, self._most = (np.zeros(shape) for _ in range(6))

    def derate(self, slow: bool) -> None:
        """Half the speed from now on, or all of it."""
        self._speed = self._full / 2.0 if slow else self._full

    def at(self, q: F64, v: F64) -> F64:
        """Largest acceleration at (q, v) toward each limit, (2, n): up, and down as a positive number; [rad/s²].

        One array, rewritten by the next call. Negative where only braking is left.
        """
        speed, d, m, t, out, most = self._v, self._d, self._m, self._t, self._out, self._most
        speed[0] = v
        np.negative(v, out=speed[1])
        np.subtract(self._upper, q, out=d[0])
        np.subtract(q, self._lower, out=d[1])
        d *= self._by_room
        np.multiply(speed, self._by_speed, out=t)
        d -= t
        # m = ⌊(√(1 + 8d) − 1)/2⌋ whole periods of braking; reach = h·(d + m(m + 1)/2)/(m + 1)
        np.maximum(d, 0.0, out=m)
        m *= 8.0
        m += 1.0
        np.sqrt(m, out=m)
        m -= 1.0
        m *= 0.5
        np.floor(m, out=m)
        np.add(m, 1.0, out=t)
        m *= t
        m *= 0.5
        d += m
        d /= t
        d *= self._h
        np.minimum(d, self._speed, out=most)
        np.subtract(speed, self._brake, out=out)
        np.maximum(out, self._return, out=out)
        np.maximum(most, out, out=most)
        most -= speed
        most *= self._per_second
        return most

    def rules(self) -> npt.NDArray[np.uint8]:
        """(2, n): which rule each end of :meth:`at` comes from."""
        reach, out = self._d, self._out
        near = reach < self._speed
        rules = VELOCITY - near.view(np.uint8) * np.uint8(VELOCITY - POSITION)
        rules[np.minimum(reach, self._speed) < out] = RECOVERY
        return rules
