"""The judgement that counts: the policy in closed loop on the simulated arm, on unseen targets, against the expert."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from kizzasi_edge.demo.expert import JOINTS, Expert, random_pose, random_targets, reference_trajectory
from kizzasi_edge.demo.physics import ASSETS, QUANTUM, ArmPhysics
from kizzasi_edge.guardrails import Guardrails
from kizzasi_export.models import StepModel

__all__ = ["Driver", "Tracking", "judge", "tracking"]

F64 = npt.NDArray[np.float64]
_TICK_US = 1000


@dataclass(frozen=True)
class Tracking:
    """Joint against the expert's reference trajectory, over ticks and joints.

    policy, expert: RMS error [rad] when each drives.  by_joint: the policy's, a joint.  clamped: share of ticks on
    which the acceleration limit shaped at least one joint.  seconds: how long each drove.
    """

    policy: float
    expert: float
    by_joint: list[float]
    clamped: float
    seconds: float

    @property
    def ratio(self) -> float:
        return self.policy / self.expert

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "rmse_policy": self.policy,
            "rmse_expert": self.expert,
            "ratio": self.ratio,
            "rmse_by_joint": dict(zip(JOINTS, self.by_joint, strict=True)),
            "acceleration_clamped": self.clamped,
            "seconds": self.seconds,
        }

    def describe(self) -> str:
        return (
            f"{1e3 * self.policy:.1f} mrad RMS over {self.seconds:g} s on unseen targets, {self.ratio:.2f} × the "
            f"expert's {1e3 * self.expert:.1f}; acceleration limited on {100 * self.clamped:.1f} % of ticks"
        )


Driver = Callable[[F64, F64], npt.ArrayLike]
"""What gives the commands: measured and target positions (6,) [rad] → setpoints (6,) [rad]."""


def tracking(model: StepModel, *, seconds: float, noise: float, seed: int) -> Tracking:
    """Drive MuJoCo's arm behind the demo's guard for `seconds`, the model and the expert in turn."""
    state = model.initial_state(1)

    def policy(measured: F64, target: F64) -> npt.ArrayLike:
        nonlocal state
        with torch.no_grad():
            y, state = model.step(torch.from_numpy(np.concatenate([measured, target])[None]).float(), state)
        return y[0].numpy()

    return judge(policy, seconds=seconds, noise=noise, seed=seed)


def judge(policy: Driver, *, seconds: float, noise: float, seed: int) -> Tracking:
    """`tracking` for any driver."""
    rng = np.random.default_rng(seed)
    guard = Guardrails.load(ASSETS / "arm.guard.toml")
    dt = 1.0 / guard.rate_hz
    start = random_pose(rng, 1)[0]
    targets = random_targets(rng, 1, round(seconds / dt), dt=dt)[0]
    reference = reference_trajectory(start, targets, dt=dt)
    law, q, velocity = Expert(), start, np.zeros_like(start)

    def expert(_measured: F64, target: F64) -> npt.ArrayLike:
        nonlocal q, velocity
        q, velocity = law.step(q, velocity, target, dt)
        return q

    joint, clamped = _drive(policy, start, targets, guard, noise, seed)
    joint_expert, _ = _drive(expert, start, targets, guard, noise, seed)
    return Tracking(
        policy=_rms(joint - reference),
        expert=_rms(joint_expert - reference),
        by_joint=[_rms(column) for column in (joint - reference).T],
        clamped=clamped,
        seconds=seconds,
    )


def _drive(driver: Driver, start: F64, targets: F64, guard: Guardrails, noise: float, seed: int) -> tuple[F64, float]:
    """(true joint positions at each tick (ticks, 6), share of acceleration-limited ticks)."""
    arm = ArmPhysics(ASSETS / "arm.xml", noise=noise, seed=seed)
    arm.reset(start)
    guard.reset(start)
    parts = round(1e6 / guard.rate_hz / _TICK_US)
    joint = np.empty_like(targets)
    before, applied = start, start
    clamped = 0
    for k, target in enumerate(targets):
        joint[k] = arm.q
        command = np.asarray(driver(arm.measure().astype(np.float64) * QUANTUM, target), np.float32)
        # The setpoint of this period is reached, in equal parts, by its end; the new one begins with the next.
        for part in range(1, parts + 1):
            arm.step(before + (applied - before) * (part / parts), _TICK_US, True)
        sent, verdict = guard.step(command, position=joint[k])
        clamped += "acceleration" in verdict.rules
        before, applied = applied, sent.astype(np.float64)
    return joint, clamped / len(targets)


def _rms(error: F64) -> float:
    return float(np.sqrt(np.mean(error**2)))
