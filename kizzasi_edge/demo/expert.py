"""The expert the arm's policy imitates: smooth, nearly time-optimal moves to changing targets.

A feedback law on the true commanded state (setpoint and its velocity), so it can say what to do from any
state the policy gets itself into: DAgger relabelling and the reference trajectory of the tracking figure need it.
Velocity follows a square-root controller with a linear end zone (ArduPilot, libraries/AP_Math/control.cpp,
``sqrt_controller``), saturated in speed and limited in acceleration.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = [
    "HOME",
    "JOINTS",
    "RATE_HZ",
    "TASK_RANGE",
    "Expert",
    "random_pose",
    "random_targets",
    "reference_trajectory",
]

F64 = npt.NDArray[np.float64]

JOINTS = (
    "shoulder_pan_joint",
    "shoulder_lift_joint",
    "elbow_joint",
    "wrist_1_joint",
    "wrist_2_joint",
    "wrist_3_joint",
)
HOME: F64 = np.array([0.0, -1.57, 1.57, -1.57, -1.57, 0.0])  # rad; elbow up, tool down
TASK_RANGE = 1.2  # rad about HOME, every joint: inside all position limits
RATE_HZ = 500.0


@dataclass(frozen=True)
class Expert:
    """The law's constants: well inside the guard's limits, so that the guard is idle while it drives.

    Attributes:
        speed: greatest joint speed [rad/s].  acceleration: greatest joint acceleration [rad/s²].
        gain: slope of the linear end zone [1/s]; the zone is braking/gain² wide.
        braking: deceleration planned with [rad/s²]; below `acceleration`, so that the plan can be kept.
        lag: time constant [s] with which the speed follows the plan; gain·lag ≤ 0.3 damps the end (ζ ≥ 0.91).
    """

    speed: float = 1.3
    acceleration: float = 11.0
    gain: float = 2.5
    braking: float = 2.5
    lag: float = 0.12

    def reference_velocity(self, error: F64) -> F64:
        """Speed [rad/s] to have at a distance `error` [rad] from the target; any shape, float64."""
        zone = self.braking / self.gain**2
        far = np.sqrt(2.0 * self.braking * np.maximum(np.abs(error) - 0.5 * zone, 0.0))
        wanted = np.where(np.abs(error) <= zone, self.gain * error, np.sign(error) * far)
        clipped: F64 = np.clip(wanted, -self.speed, self.speed)
        return clipped

    def step(self, q: F64, velocity: F64, target: F64, dt: float) -> tuple[F64, F64]:
        """One period of `dt` [s] from setpoint q [rad] moving at `velocity` [rad/s] towards target [rad].

        All arrays float64 of one shape, e.g. (batch, joints). Returns the next setpoint and its velocity.
        """
        change = (self.reference_velocity(target - q) - velocity) * -np.expm1(-dt / self.lag)
        velocity = velocity + np.clip(change, -self.acceleration * dt, self.acceleration * dt)
        return q + velocity * dt, velocity


def random_pose(rng: np.random.Generator, batch: int) -> F64:
    """Poses uniformly in the task range, (batch, 6) rad."""
    return HOME + rng.uniform(-TASK_RANGE, TASK_RANGE, (batch, len(JOINTS)))


def random_targets(
    rng: np.random.Generator,
    batch: int,
    ticks: int,
    *,
    dt: float = 1.0 / RATE_HZ,
    dwell: tuple[float, float] = (1.5, 3.5),
) -> F64:
    """Piecewise-constant target poses, (batch, ticks, 6) rad: each held for a uniform time [s] in `dwell`."""
    targets = np.empty((batch, ticks, len(JOINTS)))
    for row in targets:
        start = 0
        while start < ticks:
            end = start + max(1, round(rng.uniform(*dwell) / dt))
            row[start:end] = random_pose(rng, 1)
            start = end
    return targets


def reference_trajectory(
    initial_q: F64, targets: F64, *, dt: float = 1.0 / RATE_HZ, expert: Expert | None = None
) -> F64:
    """Setpoints the expert gives from rest at initial_q (…, joints) for targets (…, ticks, joints) [rad].

    Returns (…, ticks, joints): entry k is the setpoint it gives at tick k, on seeing targets[k].
    """
    law = expert or Expert()
    out = np.empty_like(targets)
    q = np.array(initial_q, dtype=np.float64)
    velocity = np.zeros_like(q)
    for k in range(targets.shape[-2]):
        q, velocity = law.step(q, velocity, targets[..., k, :], dt)
        out[..., k, :] = q
    return out
