"""The arm's training environment: many arms at once, in numpy, as the loop and the firmware make them behave.

One tick is one command period. The policy sees the measured positions of boundary k; its command becomes the setpoint
of boundary k+1, after the guard; while it works the servos follow the straight line between the last two setpoints
(docs/life-of-a-frame). Each servo is a second-order system; `OMEGA` and `ZETA` are fitted to the MuJoCo arm at
random poses (position error of the fit about 1 mrad) and vary from episode to episode.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

__all__ = ["OMEGA", "ZETA", "ArmEnv", "GuardLimits"]

F64 = npt.NDArray[np.float64]

OMEGA = 37.0  # rad/s
ZETA = 1.05
_JOINTS = 6


@dataclass(frozen=True)
class GuardLimits:
    """The limits the executed setpoints obey: those of the demo's guard (raw limits minus margins).

    Attributes: lower, upper [rad] (6,); velocity [rad/s]; acceleration [rad/s²].
    """

    lower: F64
    upper: F64
    velocity: float = 0.9 * np.pi
    acceleration: float = 12.0

    @classmethod
    def ur5e(cls, margin: float = 0.05) -> GuardLimits:
        """±2π, the elbow ±π, less `margin` [rad]."""
        reach = np.full(_JOINTS, 2.0 * np.pi) - margin
        reach[2] = np.pi - margin
        return cls(-reach, reach)

    def admit(self, q: F64, step: F64, wanted: F64, dt: float) -> tuple[F64, npt.NDArray[np.bool_]]:
        """The setpoint nearest to `wanted` that keeps all limits, and where the acceleration bound shaped it.

        q, step, wanted: (batch, 6), step = the last applied change [rad/period]. The same rule as the C core's, in
        real numbers: a step is admissible if braking at the limit from there stops inside the range.
        """
        h, w = self.acceleration * dt * dt, self.velocity * dt
        brake = np.sign(step) * np.maximum(np.abs(step) - h, 0.0)

        def reach(distance: F64) -> F64:
            d = np.maximum(distance, 0.0)
            m = np.floor((np.sqrt(1.0 + 8.0 * d / h) - 1.0) / 2.0)
            return (d + h * m * (m + 1.0) / 2.0) / (m + 1.0)

        up = np.minimum(np.minimum(w, step + h), np.maximum(reach(self.upper - q), brake))
        down = np.maximum(np.maximum(-w, step - h), np.minimum(-reach(q - self.lower), brake))
        asked = wanted - q
        clamped = (asked > step + h + 1e-12) | (asked < step - h - 1e-12)
        return q + np.clip(asked, down, up), clamped

    def brake(self, q: F64, step: F64, dt: float) -> F64:
        """The setpoint of a period without a command: brake to rest at the acceleration limit."""
        h = self.acceleration * dt * dt
        return q + np.sign(step) * np.maximum(np.abs(step) - h, 0.0)


@dataclass
class ArmEnv:
    """A batch of arms. Arrays are (batch, 6) float64 in rad and rad per period.

    Attributes:
        q, qvel: true joint positions [rad] and velocities [rad/s].  applied, step: the setpoint of this period and
            its change from the last one.  noise: standard deviation of a measurement [rad].
        spread: relative half-width of the episode-to-episode variation of the servos.
    """

    limits: GuardLimits
    dt: float
    noise: float
    spread: float
    rng: np.random.Generator
    q: F64 = field(init=False)
    qvel: F64 = field(init=False)
    applied: F64 = field(init=False)
    step: F64 = field(init=False)

    def reset(self, q: F64) -> None:
        """Start every arm at rest at q (batch, 6), with fresh servos."""
        self.q, self.applied = q.copy(), q.copy()
        self.qvel, self.step = np.zeros_like(q), np.zeros_like(q)
        low, high = 1.0 - self.spread, 1.0 + self.spread
        self._omega = OMEGA * self.rng.uniform(low, high, q.shape)
        self._zeta = ZETA * self.rng.uniform(low, high, q.shape)

    def measure(self) -> F64:
        """What the encoders say now."""
        return self.q + self.rng.normal(0.0, self.noise, self.q.shape)

    def advance(self, command: F64, missed: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.bool_]:
        """One period: the arms move, then the guarded command becomes the setpoint.

        missed: (batch,), arms whose command got lost and that brake instead. Returns where the acceleration bound
        shaped a command, (batch, 6) bool.
        """
        half = 0.5 * self.dt
        previous = self.applied - self.step
        for part in (0.5, 1.0):  # the firmware's two interpolation ticks
            pull = self._omega**2 * (previous + part * self.step - self.q) - 2.0 * self._zeta * self._omega * self.qvel
            self.qvel = self.qvel + pull * half
            self.q = self.q + self.qvel * half
        setpoint, clamped = self.limits.admit(self.applied, self.step, command, self.dt)
        if missed is not None and missed.any():
            setpoint = np.where(missed[:, None], self.limits.brake(self.applied, self.step, self.dt), setpoint)
            clamped &= ~missed[:, None]
        self.step = setpoint - self.applied
        self.applied = setpoint
        return clamped
