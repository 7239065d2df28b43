"""The arm's policy: imitate the expert from noisy positions and targets alone, with the closed loop in the data.

Inputs are 6 measured and 6 target positions, outputs 6 position setpoints. No velocity is given, so the policy needs
memory. It is trained on the goal of its reference stage, by the parallel forward, in rounds: the expert's disturbed
episodes first, then episodes in which it drives itself more and more. A lower loss is not a better driver (a policy
that copies the motion it measures has a low loss and starts late): the round that tracks best is kept.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import numpy as np
import torch
from pydantic import Field
from rich.progress import Progress
from torch import Tensor

from kizzasi_edge.demo.expert import HOME, JOINTS, Expert
from kizzasi_edge.demo.physics import ASSETS
from kizzasi_edge.errors import ConfigError
from kizzasi_edge.guardrails import Guardrails
from kizzasi_edge.toml_file import Section, validate
from kizzasi_export.config import ExportSection, TrainConfig
from kizzasi_export.models import Normalizer, StepModel
from kizzasi_export.models.mamba2 import Mamba2
from kizzasi_export.tasks import ExportSpec, TaskResult
from kizzasi_export.tasks.arm_check import Tracking, tracking
from kizzasi_export.tasks.arm_data import Episodes, drive, windows
from kizzasi_export.tasks.arm_env import ArmEnv
from kizzasi_export.train import FitResult, fit

__all__ = ["INPUTS", "OUTPUTS", "ArmData", "make_model", "run"]

INPUTS = [f"{joint}/{what}" for what in ("position", "target_position") for joint in JOINTS]
OUTPUTS = [f"{joint}/position" for joint in JOINTS]
VALIDATION_SEED = 500  # targets that choose the best round
TEST_SEED = 1000  # targets that nothing was chosen by


class ArmData(Section):
    """``[data]``: how episodes are made, and cut into windows for each round.

    expert_share: one round an entry: the share of the time that the expert drives; the first must be 1.
    episodes: episodes of each later round (the first, where no model has to run, has six times as many).
    episode_s: their length [s].  windows, window, burn_in: windows a round, their length, and ticks without weight.
    noise: standard deviation of the measured positions [rad].
    check_s: length of the closed-loop check after each round [s]; the last one is three times as long.
    servo_spread: relative variation of the servos.  round_decay: factor on the learning rate from round to round.
    """

    expert_share: list[float] = [1.0, 0.5, 0.25, 0.0]
    episodes: int = Field(default=48, ge=1)
    episode_s: float = Field(default=2.0, gt=0)
    windows: int = Field(default=6400, ge=10)
    window: int = Field(default=128, ge=2)
    burn_in: int = Field(default=32, ge=0)
    noise: float = Field(default=1e-3, ge=0)
    servo_spread: float = Field(default=0.25, ge=0, lt=1)
    round_decay: float = Field(default=0.7, gt=0, le=1)
    check_s: float = Field(default=20.0, gt=0)


def run(data: dict[str, Any], config: TrainConfig, *, resume: bool, progress: bool) -> TaskResult:
    """Train in rounds; the result's summary holds the closed-loop tracking on unseen targets.

    Raises:
        ConfigError: bad keys or values in ``[data]`` or ``[model]``.
    """
    place = f"{config.path}: [data]"
    section = validate(data, ArmData, place, ConfigError)
    _require_own(config)
    guard = Guardrails.load(ASSETS / "arm.guard.toml")
    ticks = round(section.episode_s * guard.rate_hz)
    if not section.expert_share or section.expert_share[0] != 1.0:
        raise ConfigError(f"{place} expert_share: found {section.expert_share}, expected a first round of 1.0")
    if not section.burn_in < section.window <= ticks:
        raise ConfigError(f"{place} window: found {section.window}, expected burn_in < window <= {ticks} ticks")
    model = make_model(config, 1.0 / guard.rate_hz)
    torch.manual_seed(config.training.seed)
    rng = np.random.default_rng(config.training.seed)
    env = ArmEnv(guard, noise=section.noise, spread=section.servo_spread, rng=rng)
    pool: Episodes | None = None
    best: Tracking | None = None
    fits: list[FitResult] = []
    for number, share in enumerate(section.expert_share):
        count = section.episodes if number else 6 * section.episodes
        with Progress(disable=not progress, transient=True) as bar:
            task = bar.add_task(f"round {number + 1} of {len(section.expert_share)}: driving {count} arms", total=ticks)
            new = drive(
                env,
                model,
                episodes=count,
                ticks=ticks,
                expert_share=share,
                rng=rng,
                expert=Expert(),
                on_tick=lambda bar=bar, task=task: bar.advance(task),  # type: ignore[misc]
            )
        pool = new if pool is None else pool + new
        dataset = windows(pool, section.windows, section.window, section.burn_in, rng)
        rate = config.training.learning_rate * section.round_decay**number
        training = config.training.model_copy(update={"learning_rate": rate, "seed": config.training.seed + number})
        folder = config.base / config.output.folder / f"round{number + 1}"
        fits.append(fit(model, dataset, training, folder=folder, loss=goal_loss, resume=resume, progress=progress))
        check = tracking(model, seconds=section.check_s, noise=section.noise, seed=VALIDATION_SEED)
        if best is None or check.ratio < best.ratio:
            best, kept = check, number
            weights = copy.deepcopy(model.state_dict())
    model.load_state_dict(weights)
    found = tracking(model, seconds=3 * section.check_s, noise=section.noise, seed=TEST_SEED)
    return TaskResult(
        model=model,
        export=ExportSpec(
            sample_rate_hz=guard.rate_hz,
            input_names=INPUTS,
            output_names=OUTPUTS,
            input_units=["rad"] * len(INPUTS),
            output_units=["rad"] * len(OUTPUTS),
            limits_trained_under={"guard": "arm.guard.toml", "expert": dataclasses.asdict(Expert())},
        ),
        fit=_joined(fits, kept),
        data={**section.model_dump(), "tracking": found.as_dict()},
        summary={"tracking": found.describe()},
    )


def _require_own(config: TrainConfig) -> None:
    """Raise ConfigError for settings that other tasks have and this one would pass over."""
    for name, given, why in (
        ("[finetune]", config.finetune is not None, "the arm's rounds start from fresh weights"),
        ("[constraints]", config.constraints is not None, "the arm's expert drives under its guard's limits"),
        ("[export]", config.export != ExportSection(), "the arm's rate and names are its own"),
        ("[training] loss", config.training.loss is not None, "the arm's loss is on goals"),
        ("[training] tbptt", config.training.tbptt is not None, "the arm trains on windows"),
    ):
        if given:
            raise ConfigError(f"{config.path}: {name}: {why}; found it, expected none")


def make_model(config: TrainConfig, dt: float) -> StepModel:
    """The configured network with fresh weights, normaliser and a first layer that senses motion.

    Raises:
        ConfigError: a model that this task cannot train.
    """
    torch.manual_seed(config.training.seed)
    model = config.model.build(len(INPUTS), len(OUTPUTS))
    if model.reference is None or model.config["anchor"] != list(range(len(JOINTS))):
        raise ConfigError(f"{config.path}: [model]: expected reference_tau and anchor = [0, 1, 2, 3, 4, 5]")
    both = tuple(float(v) for v in np.concatenate([HOME, HOME]))
    model.set_normalizer(Normalizer(both, (0.7,) * 12, (0.0,) * 6, (dt,) * 6))  # network output 1 = 1 rad/s
    if isinstance(model.network, Mamba2):
        _sense_motion(model.network)
    return model


@torch.no_grad()
def _sense_motion(network: Mamba2) -> None:
    """Start from features that matter: distance to the target, and position differences at several time scales.

    From random weights, the network finds the errors of some mrad that the task is about very late: the positions
    they are differences of are a thousand times larger. Channels start as ±(target - position), ±position and a
    constant (which keeps the norms from dividing the amplitude away); half of the first convolution's channels start
    as differences over its taps; the decays of the heads are spread over 4 to 120 samples.
    """
    weight, bias = network.input_projection.weight, network.input_projection.bias
    hidden, joints = weight.shape[0], len(JOINTS)
    constants = max(1, hidden // 16)
    weight.zero_()
    bias.copy_(0.5 * torch.randn(hidden))
    bias[hidden - constants :] = 3.0
    for i in range(hidden - constants):
        joint, kind = i % joints, i // joints
        sign = 1.0 if kind % 2 else -1.0
        if kind < 6:
            weight[i, joints + joint] = sign * (1 + kind // 2)
            weight[i, joint] = -sign * (1 + kind // 2)
        else:
            weight[i, joint] = sign
    for index, block in enumerate(network.backbone.blocks):
        mixer = block.mixer
        step = 1.0 / torch.logspace(math.log10(4.0), math.log10(120.0), mixer.H)  # softplus(dt_bias), A = -1
        mixer.A_log.zero_()
        mixer.dt_bias.copy_(step + torch.log(-torch.expm1(-step)))
        if index == 0:
            taps, bias0 = mixer.conv1d.weight, mixer.conv1d.bias
            assert bias0 is not None
            half = (torch.arange(mixer.inner) % mixer.P) < mixer.P // 2  # of each head
            chosen = half.nonzero()[:, 0]
            taps[chosen] = 0.0
            taps[chosen, 0, 0], taps[chosen, 0, -1] = -15.0, 15.0
            bias0[chosen] = 0.0


def goal_loss(model: StepModel, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean square error of the reference stage's goal; y [B, T, 6] goals [rad/sample], weight [B, T]."""
    error = ((model.goal(x) - y) / model.output_std).square().mean(-1)  # [B, T]
    return (error * weight).sum() / weight.sum().clamp_min(1e-12)


def _joined(fits: list[FitResult], kept: int) -> FitResult:
    """The rounds as one history; the weights are those of the kept round's best epoch."""
    history = [entry for one in fits for entry in one.history]
    return FitResult(
        history=history,
        best_epoch=sum(len(one.history) for one in fits[:kept]) + fits[kept].best_epoch,
        best_validation_loss=fits[kept].best_validation_loss,
        steps=sum(one.steps for one in fits),
        seconds=sum(one.seconds for one in fits),
    )
