"""How well a run tracked: the joint against the expert's reference, and the same for the expert itself.

The expert drives the same physics behind the same guard, with the same one-period delay and the same interpolation
between setpoints, on the same targets; what remains of its error is the servo's. A policy is judged against that.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from kizzasi_edge.demo.expert import reference_trajectory
from kizzasi_edge.demo.physics import ASSETS, QUANTUM, ArmPhysics
from kizzasi_edge.guardrails import Guardrails

__all__ = ["Driver", "drive", "expert_run", "rmse", "targets_at", "unwrap_us"]

F64 = npt.NDArray[np.float64]
TICK_US = 1000

Driver = Callable[[F64, F64], npt.ArrayLike]
"""What gives the commands: measured and target positions (n,) [rad] → setpoints (n,) [rad]."""


def rmse(joint: F64, reference: F64) -> float:
    """Root mean square over ticks and joints of (ticks, n) arrays [rad]."""
    return float(np.sqrt(np.mean((joint - reference) ** 2)))


def drive(
    driver: Driver, start: F64, targets: F64, guard: Guardrails, *, noise: float = 0.0, seed: int = 0
) -> tuple[F64, float]:
    """Drive the simulated arm from rest at start (n,) on targets (ticks, n) [rad], as loop and firmware would.

    Returns the true joint positions at each tick (ticks, n) [rad], and the share of ticks on which the guard changed
    the command.
    """
    arm = ArmPhysics(ASSETS / "arm.xml", noise=noise, seed=seed)
    arm.reset(start)
    guard.reset(start)
    parts = round(1e6 / guard.rate_hz / TICK_US)
    joint = np.empty_like(targets)
    before, applied = start, start
    changed = 0
    for k, target in enumerate(targets):
        joint[k] = arm.q
        command = np.asarray(driver(arm.measure().astype(np.float64) * QUANTUM, target), np.float32)
        # The setpoint of this period is reached, in equal parts, by its end; the new one begins with the next.
        for part in range(1, parts + 1):
            arm.step(before + (applied - before) * (part / parts), TICK_US, True)
        sent, verdict = guard.step(command)
        changed += bool(verdict.status)
        before, applied = applied, sent.astype(np.float64)
    return joint, changed / len(targets)


def expert_run(start: F64, targets: F64, guard: Guardrails) -> tuple[F64, F64]:
    """The expert on targets (ticks, n) [rad] from rest at start (n,).

    Returns (reference, joint), both (ticks, n) [rad]: the setpoint it gives at each tick and the joint at that tick.
    """
    reference = reference_trajectory(start, targets, dt=1.0 / guard.rate_hz)
    setpoints = iter(reference)
    joint, _ = drive(lambda _measured, _target: next(setpoints), start, targets, guard)
    return reference, joint


def targets_at(times_us: npt.NDArray[np.int64], seen_us: npt.NDArray[np.int64], seen: F64) -> F64:
    """Targets (len(times), n) that held at times_us, from what the gateway saw at seen_us (sorted)."""
    return seen[np.maximum(np.searchsorted(seen_us, times_us, side="right") - 1, 0)]


def unwrap_us(t_us: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
    """The u32 clock of the device as int64 without wrap-around."""
    steps = np.diff(t_us.astype(np.uint32), prepend=t_us[:1]).astype(np.uint32).astype(np.int64)
    return np.cumsum(steps) + int(t_us[0]) if len(t_us) else steps
