"""How well a run tracked: the joint against the expert's reference, and the same for the expert itself.

The expert drives the same physics with the same one-period delay and the same interpolation between setpoints, on the
same targets; what remains of its error is the servo's. A policy is judged against that.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kizzasi_edge.demo.expert import Expert, reference_trajectory
from kizzasi_edge.demo.physics import ASSETS, ArmPhysics

F64 = npt.NDArray[np.float64]


def rmse(joint: F64, reference: F64) -> float:
    """Root mean square over ticks and joints of (ticks, n) arrays [rad]."""
    return float(np.sqrt(np.mean((joint - reference) ** 2)))


def expert_run(initial_q: F64, targets: F64, *, rate_hz: float, tick_us: int = 1000) -> tuple[F64, F64]:
    """The expert on targets (ticks, n) [rad] from rest at initial_q, in the simulated arm.

    Returns (reference, joint), both (ticks, n) [rad]: the setpoint given at each tick and the joint at that tick.
    """
    reference = reference_trajectory(initial_q, targets, dt=1.0 / rate_hz, expert=Expert())
    arm = ArmPhysics(ASSETS / "arm.xml", noise=0.0, seed=0)
    arm.reset(initial_q)
    ticks_per_period = round(1e6 / rate_hz / tick_us)
    joint = np.empty_like(reference)
    last, goal = np.array(initial_q), np.array(initial_q)
    for k, setpoint in enumerate(reference):
        joint[k] = arm.q
        # What tick k-1 gave is applied now and reached, in equal parts, by the end of this period.
        for part in range(1, ticks_per_period + 1):
            arm.step(last + (goal - last) * (part / ticks_per_period), tick_us, True)
        last, goal = goal, setpoint
    return reference, joint


def targets_at(times_us: npt.NDArray[np.int64], seen_us: npt.NDArray[np.int64], seen: F64) -> F64:
    """Targets (len(times), n) that held at times_us, from what the gateway saw at seen_us (sorted)."""
    return seen[np.maximum(np.searchsorted(seen_us, times_us, side="right") - 1, 0)]


def unwrap_us(t_us: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
    """The u32 clock of the device as int64 without wrap-around."""
    steps = np.diff(t_us.astype(np.uint32), prepend=t_us[:1]).astype(np.uint32).astype(np.int64)
    return np.cumsum(steps) + int(t_us[0]) if len(t_us) else steps
