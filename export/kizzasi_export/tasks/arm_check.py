"""The judgement that counts: the policy in closed loop on the simulated arm, on unseen targets, against the expert."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from kizzasi_edge.demo.expert import JOINTS, random_pose, random_targets
from kizzasi_edge.demo.physics import ASSETS
from kizzasi_edge.demo.tracking import Driver, drive, expert_run, rmse
from kizzasi_edge.guardrails import Guardrails
from kizzasi_export.models import StepModel

__all__ = ["Tracking", "judge", "tracking"]

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Tracking:
    """Joint against the expert's reference trajectory, over ticks and joints.

    policy, expert: RMS error [rad] when each drives.  by_joint: the policy's, a joint.  intervened: share of ticks
    on which the guard changed the policy's command.  seconds: how long each drove.
    """

    policy: float
    expert: float
    by_joint: list[float]
    intervened: float
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
            "guard_intervened": self.intervened,
            "seconds": self.seconds,
        }

    def describe(self) -> str:
        return (
            f"{1e3 * self.policy:.1f} mrad RMS over {self.seconds:g} s on unseen targets, {self.ratio:.2f} × the "
            f"expert's {1e3 * self.expert:.1f}; guard intervened on {100 * self.intervened:.1f} % of ticks"
        )


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
    start = random_pose(rng, 1)[0]
    targets = random_targets(rng, 1, round(seconds * guard.rate_hz), dt=1.0 / guard.rate_hz)[0]
    reference, expert_joint = expert_run(start, targets, guard)
    joint, changed = drive(policy, start, targets, guard, noise=noise, seed=seed)
    return Tracking(
        policy=rmse(joint, reference),
        expert=rmse(expert_joint, reference),
        by_joint=[rmse(*columns) for columns in zip(joint.T, reference.T, strict=True)],
        intervened=changed,
        seconds=seconds,
    )
