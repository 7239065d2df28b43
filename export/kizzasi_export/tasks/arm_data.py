"""Training data for the arm: the expert's and the policy's own episodes, labelled by the expert, cut into windows.

DART (Laskey et al. 2017): the expert's episodes are disturbed, so that they hold recoveries. DAgger (Ross et al.
2011): later episodes are driven by the policy, in part, and every tick is labelled with what the expert would do in
the state that was really applied.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from kizzasi_edge.demo.expert import HOME, Expert, random_pose, random_targets
from kizzasi_export.datasets import SequenceDataset
from kizzasi_export.models import StepModel
from kizzasi_export.tasks.arm_env import ArmEnv

__all__ = ["Episodes", "drive", "labels", "windows"]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

DWELL = (0.3, 3.0)  # s; targets change more often than in the task, so that an episode holds more transients
DISTURBANCE = 3.0  # rad/s², standard deviation of the greatest disturbance of the expert
DISTURBANCE_TIME = 0.15  # s, its correlation time
OUTAGES_PER_S = 0.25  # lost commands come in bursts …
OUTAGE_TICKS = (5, 60)  # … this long
TURN_TICKS = 125  # how long expert or policy drives before the draw is repeated


@dataclass(frozen=True)
class Episodes:
    """Recorded episodes: inputs x (E, T, 12) [rad], goal labels (E, T, 6) [rad/sample], both float32."""

    x: F32
    goal: F32

    def __add__(self, other: Episodes) -> Episodes:
        return Episodes(np.concatenate([self.x, other.x]), np.concatenate([self.goal, other.goal]))


def labels(expert: Expert, env: ArmEnv, target: F64, alpha: float) -> tuple[F64, F64, F64]:
    """What the expert would do now: (setpoint [rad], its velocity [rad/s], goal [rad/sample]).

    The goal makes the model's reference stage (v += alpha·(goal - v), y += v) take exactly that step from the
    applied state.
    """
    velocity = env.velocity
    setpoint, wanted = expert.step(env.applied, velocity, target, env.dt)
    return setpoint, wanted, (velocity + (wanted - velocity) / alpha) * env.dt


def drive(
    env: ArmEnv,
    model: StepModel,
    *,
    episodes: int,
    ticks: int,
    expert_share: float,
    rng: np.random.Generator,
    expert: Expert,
    on_tick: Callable[[], None],
) -> Episodes:
    """Drive `episodes` arms for `ticks` periods, the expert holding the stick for `expert_share` of the time.

    With expert_share 1 the model is not run. While the expert drives, the model's reference stage follows what is
    executed, as it would had the model given these commands.
    """
    assert model.reference is not None
    alpha = model.reference.alpha
    targets = random_targets(rng, episodes, ticks, dt=env.dt, dwell=DWELL)
    env.reset(random_pose(rng, episodes))
    state = model.initial_state(episodes)
    x, goals = np.zeros((episodes, ticks, 12), np.float32), np.zeros((episodes, ticks, 6), np.float32)
    shape = env.q.shape
    disturbance, decay = np.zeros(shape), env.dt / DISTURBANCE_TIME
    strength = DISTURBANCE * rng.uniform(0.0, 1.0, (episodes, 1))
    outage = np.zeros(episodes, np.int64)
    by_expert = rng.random(episodes) < expert_share
    for k in range(ticks):
        x[:, k] = np.concatenate([env.measure(), targets[:, k]], axis=1)
        setpoint, velocity, goals[:, k] = labels(expert, env, targets[:, k], alpha)
        disturbance += -disturbance * decay + rng.normal(0.0, np.sqrt(2.0 * decay), shape)
        command = setpoint + disturbance * strength * env.dt**2
        if expert_share < 1.0:
            with torch.no_grad():
                y, state = model.step(torch.from_numpy(x[:, k]), state)
            command = np.where(by_expert[:, None], command, y.double().numpy())
            taken = torch.from_numpy(by_expert)[:, None]
            for name, value in (("reference_p", setpoint), ("reference_v", velocity * env.dt)):
                state[name] = torch.where(taken, torch.from_numpy(value).float(), state[name])
            if k % TURN_TICKS == TURN_TICKS - 1:
                by_expert = rng.random(episodes) < expert_share
        begins = rng.random(episodes) < OUTAGES_PER_S * env.dt
        outage = np.where(begins, rng.integers(*OUTAGE_TICKS, episodes), np.maximum(outage - 1, 0))
        env.advance(command, outage > 0)
        on_tick()
    return Episodes(x, goals)


def windows(data: Episodes, count: int, length: int, burn_in: int, rng: np.random.Generator) -> SequenceDataset:
    """`count` windows of `length` ticks, put together from the episodes by the task's symmetries.

    Servo and law are the same for every joint and odd about HOME, so any joint's history may stand in for any
    other's, mirrored or not. Half of the windows permute and mirror the joints of one episode, half draw every joint
    from another one: without this a few hundred episodes are learnt by heart. One in eight begins where an episode
    begins; in the others the first `burn_in` ticks, where the model has not yet seen enough, weigh nothing.
    """
    episodes, ticks, _ = data.x.shape
    n = len(HOME)
    first, together = rng.random(count) < 0.125, rng.random(count) < 0.5
    episode, start = rng.integers(0, episodes, (count, n)), rng.integers(0, ticks - length + 1, (count, n))
    joint = rng.integers(0, n, (count, n))
    episode[together], start[together] = episode[together, :1], start[together, :1]
    joint[together] = rng.permuted(np.tile(np.arange(n), (int(together.sum()), 1)), axis=1)
    start[first] = 0
    sign = rng.choice([-1.0, 1.0], (count, 1, n))
    tick = start[:, None] + np.arange(length)[None, :, None]
    rows, source = episode[:, None], joint[:, None]
    measured = (data.x[rows, tick, source] - HOME[source]) * sign + HOME
    target = (data.x[rows, tick, source + n] - HOME[source]) * sign + HOME
    weight = first[:, None] | (np.arange(length) >= burn_in)[None]
    return SequenceDataset(
        np.concatenate([measured, target], axis=2), data.goal[rows, tick, source] * sign, weight.astype(np.float32)
    )
