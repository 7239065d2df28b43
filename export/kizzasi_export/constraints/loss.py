"""From ``[constraints]`` to a loss that the trainer takes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kizzasi_edge.guardrails import Guardrails
from kizzasi_export.constraints.penalty import ConstraintAwareLoss, LagrangianRelaxation
from kizzasi_export.constraints.projection import GuardProjection, ProjectionLoss
from kizzasi_export.constraints.rules import HISTORY, GuardRules, require_history
from kizzasi_export.constraints.section import LagrangianSection, PenaltySection, ProjectionSection
from kizzasi_export.losses import OutputLoss, Outputs, output_scale
from kizzasi_export.models import StepModel


class PenalisedLoss(nn.Module):
    """base + penalty(rules of the predicted positions, at the steps that weigh): an `OutputLoss`."""

    def __init__(self, base: OutputLoss, rules: GuardRules, penalty: nn.Module) -> None:
        super().__init__()
        self.base, self.rules, self.penalty = base, rules, penalty

    def forward(self, model: StepModel, outputs: Outputs, y: Tensor, weight: Tensor) -> Tensor:
        extra: Tensor = self.penalty(_counted(self.rules(outputs["y"]), weight[:, HISTORY:] > 0))
        return self.base(model, outputs, y, weight) + extra


class ProjectedLoss(nn.Module):
    """base on what the guard would send, plus the distance to it: an `OutputLoss`.

    The guard starts where the targets start: at their second step, moving as their first two say.
    """

    def __init__(self, base: OutputLoss, loss: ProjectionLoss) -> None:
        super().__init__()
        self.base, self.loss = base, loss

    def forward(self, model: StepModel, outputs: Outputs, y: Tensor, weight: Tensor) -> Tensor:
        require_history(y.shape[1])
        rest = {name: value[:, HISTORY:] for name, value in outputs.items()}
        later = weight[:, HISTORY:]  # [B, T-2]

        def task(admitted: Tensor) -> Tensor:
            return self.base(model, {**rest, "y": admitted}, y[:, HISTORY:], later)

        distance_loss: Tensor = self.loss(task, rest["y"], y[:, 1], y[:, 0], output_scale(model), later)
        return distance_loss


def _counted(violations: dict[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
    """Each rule's violations [n, joints] where `mask` [B, T-2]; where there are none, rules that are kept."""
    if not bool(mask.any()):
        return {name: torch.full_like(g, -1.0) for name, g in violations.items()}
    return {name: g[mask] for name, g in violations.items()}


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
