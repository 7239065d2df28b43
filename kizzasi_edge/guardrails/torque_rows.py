"""What one period asks of a torque: rows on τ, the nearest lattice torque that keeps them, and the one that brakes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from kizzasi_edge.guardrails.acceleration_windows import AccelerationWindows
from kizzasi_edge.guardrails.dynamics import Dynamics
from kizzasi_edge.guardrails.project import BAD_INPUT, INFEASIBLE, Projection
from kizzasi_edge.guardrails.rows import PowerRule, Row

__all__ = ["TorqueRows"]

F64 = npt.NDArray[np.float64]


class TorqueRows:
    """The rows at one (q, v): a torque τ accelerates joint i by aᵢ(τ) = (M⁻¹(τ − h))ᵢ, affine in τ, so a window on aᵢ
    is two rows on τ; one pair for each end of the mass error. Power rules are rows v·τ ≤ watts; they are soft.

    Args:
        dynamics: M, h and their error.
        windows: of acceleration.
        brake: (n,) deceleration that braking_authority found all joints capable of [rad/s²].
        quanta: (n,) torque lattice [N·m].
        most: (n,) largest torque in quanta.
        power: rules on Σ v·τ.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        windows: AccelerationWindows,
        brake: F64,
        quanta: F64,
        most: F64,
        power: Sequence[PowerRule] = (),
        *,
        dt: float,
    ) -> None:
        n, k = dynamics.n, len(dynamics.errors)
        self._dynamics, self._windows, self._brake, self._quanta, self._dt = dynamics, windows, brake, quanta, dt
        self._pairs, self._shape = k * n, (2, k, n)
        self._heavier = dynamics.heavier[:, None]
        self._on = np.array([rule.on for rule in power]).reshape(-1, n)
        self._rounds = quanta / 2 + 1e-9 * most * quanta  # on each torque: to the lattice, and in the products
        some = [Row("window", "acceleration", np.ones(n), 0.0)] * (2 * self._pairs)
        self._solver = Projection(
            n, [*some, *(Row(rule.name, "velocity", rule.on, rule.watts, rule.priority, rule.hard) for rule in power)]
        )
        rows = len(self._solver.b)
        self._a, self._b = np.zeros((rows, n)), np.zeros(rows)
        self._b[2 * self._pairs :] = [rule.watts for rule in power]
        self._bounds = self._b[: 2 * self._pairs].reshape(self._shape)
        self._up, self._down = self._a[: self._pairs].reshape(k, n, n), self._a[self._pairs : 2 * self._pairs]
        self._drift, self._room = np.zeros((k, n)), np.zeros(rows)
        self._q, self._v, self._h = np.zeros(n), np.zeros(n), np.zeros(n)

    def at(self, q: F64, v: F64) -> None:
        """Move to the rows at (q, v), both (n,) [rad, rad/s]."""
        self._q[:], self._v[:] = q, v
        self._h = self._dynamics.bias(self._q, self._v)
        self._up[:] = self._dynamics.inverse_inertia(self._q)
        np.negative(self._a[: self._pairs], out=self._down)
        np.matmul(self._up, self._h, out=self._drift)
        self._drift *= self._heavier
        up, down = self._windows.at(self._q, self._v)
        np.add(up, self._drift, out=self._bounds[0])
        np.subtract(down, self._drift, out=self._bounds[1])
        if len(self._on):
            np.multiply(self._on, self._v, out=self._a[2 * self._pairs :])

    def hold(self, torque: F64) -> bool:
        """Whether ``torque`` (n,) [N·m] keeps every row; no tolerance."""
        room = self._left(torque)
        return bool(room.min() >= 0.0)

    def nearest(self, want: F64, lowest: F64, highest: F64) -> F64 | None:
        """The lattice torque [quanta] nearest to ``want`` [N·m] in rows and box, up to rounding; None if there is none.

        Power rules give way, the least important first, where they leave nothing.
        """
        solver, quanta, both = self._solver, self._quanta, self._pairs
        np.subtract(self._b, self._slack(), out=solver.b)
        if (solver.b[:both] + solver.b[both : 2 * both] < 0.0).any():
            return None
        solver.a[:] = self._a
        np.multiply(lowest, quanta, out=solver.lo)
        np.multiply(highest, quanta, out=solver.hi)
        solver.u[:] = want
        solver.prepare()
        if solver.run() in (INFEASIBLE, BAD_INPUT):
            return None
        raw: F64 = np.minimum(np.maximum(np.rint(solver.x / quanta), lowest), highest)
        return raw if (self._left(raw * quanta)[: 2 * both] >= 0.0).all() else None

    def touched(self, torque: F64) -> tuple[npt.NDArray[np.uint8], int, int]:
        """For each joint the rules whose rows ``torque`` stands at, (n,); a bit for each power rule that it stands at,
        and for each that it breaks."""
        room = self._left(torque)
        near = room <= 4.0 * self._slack()
        at = near[: 2 * self._pairs].reshape(self._shape).any(1)
        up, down = np.where(at, self._windows.rules(), 0)
        shaped = relaxed = 0
        for j in range(len(self._on)):
            shaped |= int(near[2 * self._pairs + j]) << j
            relaxed |= int(room[2 * self._pairs + j] < 0.0) << j
        return (up | down).astype(np.uint8), shaped, relaxed

    def braking(self) -> F64:
        """The torque [N·m] that stops every joint as fast as the windows and the authority allow.

        By the nominal model, at no more than the authority and what the mass error may take of it
        (:func:`~kizzasi_edge.guardrails.dynamics.braking_authority` counts the same).
        """
        delta, most = self._dynamics.mass_error, self._brake
        links = self._dynamics.link_inertia(self._q)
        mass = links + np.diag(self._dynamics.armature)
        spread, drift = (delta * np.abs(self._up @ x).max(0) for x in (links, self._h))
        most = most + np.linalg.solve(np.eye(len(most)) - spread, spread @ most + drift)
        up, down = self._windows.at(self._q, self._v)
        wish = np.clip(np.clip(-self._v / self._dt, -most, most), -down, up)
        torque: F64 = mass @ wish + self._h
        return torque

    def acceleration(self, torque: F64, error: float = 0.0) -> F64:
        """What ``torque`` does with links heavier by ``error``, (n,) [rad/s²]."""
        mass = (1.0 + error) * self._dynamics.link_inertia(self._q) + np.diag(self._dynamics.armature)
        a: F64 = np.asarray(np.linalg.solve(mass, torque - (1.0 + error) * self._h), np.float64)
        return a

    def nearest_hold(self, torque: F64) -> F64:
        """What ``torque`` does if the links weigh, within the error, what it holds best, (n,) [rad/s²]."""
        weight = float(self._h @ self._h)
        error = float(torque @ self._h) / weight - 1.0 if weight > 0.0 else 0.0
        most = self._dynamics.mass_error
        return self.acceleration(torque, min(max(error, -most), most))

    def _left(self, torque: F64) -> F64:
        np.matmul(self._a, torque, out=self._room)
        return np.subtract(self._b, self._room, out=self._room)

    def _slack(self) -> F64:
        slack: F64 = np.abs(self._a) @ self._rounds + 1e-9
        return slack
