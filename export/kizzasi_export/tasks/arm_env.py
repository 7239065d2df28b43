"""The arm's training environment: many arms at once, as the loop and the firmware make them behave.

One tick is one command period. The policy sees the measured positions of boundary k; its command becomes the
setpoint of boundary k+1, after the guard (the C core, with the demo's own limits); while it works, the servos follow
the straight line between the last two setpoints. Each servo is a second-order system; `OMEGA` and `ZETA` are fitted
to the MuJoCo arm at random poses (the fit is 1 mrad RMS off) and vary from episode to episode.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from kizzasi_bridge._kz_core import ffi, lib

from kizzasi_edge.guardrails import Guardrails

__all__ = ["OMEGA", "ZETA", "ArmEnv"]

F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

OMEGA = 37.0  # rad/s
ZETA = 1.05


class ArmEnv:
    """A batch of guarded arms; arrays are (batch, joints) float64.

    Args:
        guard: whose limits, period and miss budget hold; it is only read.
        noise: standard deviation of a measured position [rad].
        spread: relative half-width of the episode-to-episode variation of the servos.
        rng: source of noise and variation.

    Attributes:
        dt: the command period [s].  q, qvel: true joint positions [rad] and velocities [rad/s].
        applied, velocity: this period's setpoint [rad], and its change from the last one as a velocity [rad/s].
    """

    def __init__(self, guard: Guardrails, *, noise: float, spread: float, rng: np.random.Generator) -> None:
        self.dt = 1.0 / guard.rate_hz
        self._lattice, self._coast = guard.lattice, guard.miss_budget
        self._quantum = np.array([limit.quantum for limit in guard.lattice])
        self._noise, self._spread, self._rng = noise, spread, rng
        self._limits = ffi.new("kz_limit[]", [(limit.lo, limit.hi, limit.w, limit.h) for limit in guard.lattice])

    def reset(self, q: F64) -> None:
        """Start every arm at rest at q (batch, joints), with fresh servos and guards."""
        batch, n = q.shape
        self.q, self.qvel = q.copy(), np.zeros_like(q)
        low, high = 1.0 - self._spread, 1.0 + self._spread
        self._omega = OMEGA * self._rng.uniform(low, high, q.shape)
        self._zeta = ZETA * self._rng.uniform(low, high, q.shape)
        axes, rules = ffi.new("kz_axis[]", batch * n), ffi.new("uint8_t[]", batch * n)
        self._axes: npt.NDArray[np.int32] = np.frombuffer(ffi.buffer(axes), np.int32).reshape(batch, n, 2)
        self._rules: npt.NDArray[np.uint8] = np.frombuffer(ffi.buffer(rules), np.uint8).reshape(batch, n)
        # One C call a joint: the pointers are made once, not a thousand times a second.
        self._channels = [(self._limits + i % n, axes + i, rules + i) for i in range(batch * n)]
        self._missed_in_a_row = np.zeros(batch, np.int64)
        for (_, axis, _), raw in zip(self._channels, self._raw(q), strict=True):
            lib.kz_seed(axis, raw)

    @property
    def applied(self) -> F64:
        applied: F64 = self._axes[..., 0] * self._quantum
        return applied

    @property
    def velocity(self) -> F64:
        velocity: F64 = self._axes[..., 1] * (self._quantum / self.dt)
        return velocity

    def measure(self) -> F64:
        """What the encoders say now."""
        return self.q + self._rng.normal(0.0, self._noise, self.q.shape)

    def advance(self, command: F64, missed: Mask | None = None) -> Mask:
        """One period: the arms move, then the guarded command becomes the setpoint.

        missed: (batch,) arms whose command got lost; they coast and brake as the node does. Returns where the
        acceleration limit shaped a command, (batch, joints).
        """
        half, applied = 0.5 * self.dt, self.applied
        step = self.velocity * self.dt
        for part in (-0.5, 0.0):  # the firmware's two interpolation ticks
            pull = self._omega**2 * (applied + part * step - self.q) - 2.0 * self._zeta * self._omega * self.qvel
            self.qvel = self.qvel + pull * half
            self.q = self.q + self.qvel * half
        lost = np.zeros(len(self.q), np.bool_) if missed is None else missed
        self._missed_in_a_row = np.where(lost, self._missed_in_a_row + 1, 0)
        coasts = np.repeat(self._missed_in_a_row <= self._coast, self.q.shape[1]).tolist()
        lost_joints = np.repeat(lost, self.q.shape[1]).tolist()
        self._rules[:] = 0
        for (limit, axis, rule), raw, gone, may_coast in zip(
            self._channels, self._raw(command), lost_joints, coasts, strict=True
        ):
            if gone:
                lib.kz_miss(limit, axis, may_coast)
            else:
                lib.kz_admit(limit, axis, raw, self._coast, rule)
        clamped: Mask = (self._rules & lib.KZ_RULE_ACCELERATION) != 0
        return clamped

    def _raw(self, positions: F64) -> list[int]:
        """Positions in quanta, joint after joint."""
        raw: list[int] = np.rint(positions / self._quantum).astype(np.int64).clip(-(2**30), 2**30).ravel().tolist()
        return raw
