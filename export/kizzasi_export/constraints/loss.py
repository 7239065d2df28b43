"""From ``[constraints]`` to a loss the trainer takes, and the figure that says whether it helped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from kizzasi_edge.errors import ConfigError
from kizzasi_edge.guardrails import Guardrails
from kizzasi_export.constraints.penalty import ConstraintAwareLoss, LagrangianRelaxation
from kizzasi_export.constraints.projection import GuardProjection, ProjectionLoss
from kizzasi_export.constraints.rules import GuardRules
from kizzasi_export.constraints.section import LagrangianSection, PenaltySection, ProjectionSection
from kizzasi_export.losses import OutputLoss, Outputs, output_scale
from kizzasi_export.models import StepModel

HISTORY = 2
"""Steps at a sequence's start that the guard's recursion needs before the first one it can judge."""


class PenalisedLoss(nn.Module):
    """base + penalty(rules of the predicted positions): an `OutputLoss`."""

    def __init__(self, base: OutputLoss, rules: GuardRules, penalty: nn.Module) -> None:
        super().__init__()
        self.base, self.rules, self.penalty = base, rules, penalty

    def forward(self, model: StepModel, outputs: Outputs, y: Tensor, weight: Tensor) -> Tensor:
        extra: Tensor = self.penalty(self.rules(outputs["y"]))
        return self.base(model, outputs, y, weight) + extra


class ProjectedLoss(nn.Module):
    """base on what the guard would send, plus the distance to it: an `OutputLoss`.

    The guard starts where the targets start: at their second step, moving as their first two say.
    """

    def __init__(self, base: OutputLoss, loss: ProjectionLoss) -> None:
        super().__init__()
        self.base, self.loss = base, loss

    def forward(self, model: StepModel, outputs: Outputs, y: Tensor, weight: Tensor) -> Tensor:
        rest = {name: value[:, HISTORY:] for name, value in outputs.items()}

        def task(admitted: Tensor) -> Tensor:
            return self.base(model, {**rest, "y": admitted}, y[:, HISTORY:], weight[:, HISTORY:])

        distance_loss: Tensor = self.loss(task, rest["y"], y[:, 1], y[:, 0], output_scale(model))
        return distance_loss


def constrained_loss(
    section: PenaltySection | LagrangianSection | ProjectionSection,
    base: OutputLoss,
    guard: Guardrails,
    output_names: Sequence[str],
) -> OutputLoss:
    """`base` with what `section` asks for.

    Raises:
        GuardrailError: the guard's joints and the model's outputs differ.
    """
    if isinstance(section, ProjectionSection):
        return ProjectedLoss(base, ProjectionLoss(GuardProjection(guard, output_names), distance=section.distance))
    rules = GuardRules(guard, output_names)
    if isinstance(section, LagrangianSection):
        penalty: nn.Module = LagrangianRelaxation(
            rules.names, rate=section.rate, tolerance=section.tolerance, largest=section.largest
        )
    else:
        penalty = ConstraintAwareLoss(
            section.penalty, weight=section.weight, weights=section.weights, sharpness=section.sharpness
        )
    return PenalisedLoss(base, rules, penalty)


def open_guard(path: Path, model: StepModel, sample_rate_hz: float) -> Guardrails:
    """The deployed guard, checked against the model that is to be trained under it.

    Raises:
        GuardrailError: the file cannot be used.
        ConfigError: another rate, or a head whose point estimate has no gradient.
    """
    guard = Guardrails.load(path)
    if abs(guard.rate_hz - sample_rate_hz) > 1e-9 * sample_rate_hz:
        raise ConfigError(f"{path}: [guard] rate_hz: found {guard.rate_hz:g}, expected the data's {sample_rate_hz:g}")
    if model.head.kind == "categorical":
        raise ConfigError("[constraints]: found a categorical head, whose levels have no gradient; expected another")
    return guard


@torch.no_grad()
def intervention_rate(
    model: StepModel, guard: Guardrails, output_names: Sequence[str], batches: Iterable[tuple[Tensor, Tensor]]
) -> float:
    """Share of the model's commands that the guard would change: batches of (x [B, T, in], y [B, T, out]).

    Each sequence is guarded from where its targets start, like `ProjectedLoss`.
    """
    project = GuardProjection(guard, output_names)
    changed, steps = 0, 0
    model.eval()
    for x, y in batches:
        _, moved = project(model(x)[:, HISTORY:], y[:, 1], y[:, 0])
        changed, steps = changed + int(moved.sum()), steps + moved.numel()
    return changed / max(steps, 1)
