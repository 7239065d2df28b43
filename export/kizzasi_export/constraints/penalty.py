"""Losses that make a model keep the guard's rules more often. None of them gives a guarantee: that is the guard's.

Each takes the signed violations of `GuardRules` (g ≤ 0 where a rule holds) and returns a scalar to add to a task loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from kizzasi_edge.errors import ConfigError

PenaltyKind = Literal["hinge", "squared", "log_barrier"]


class ConstraintAwareLoss(nn.Module):
    """Σ_rules weight · mean(penalty(g)).

    Args:
        kind: "hinge" max(g, 0); "squared" max(g, 0)²; "log_barrier" the extension of Kervadec et al. 2019 (eq. 5),
            which pushes away from a limit before it is reached and is finite beyond it.
        weight: factor of every rule that `weights` does not name (≥ 0).
        weights: rule name → factor.
        sharpness: t of the log-barrier (> 0): the larger, the closer to the limit it acts.

    Raises:
        ConfigError: an unknown kind, a negative weight, or a sharpness that is not positive.
    """

    def __init__(
        self,
        kind: PenaltyKind = "squared",
        *,
        weight: float = 1.0,
        weights: Mapping[str, float] | None = None,
        sharpness: float = 20.0,
    ) -> None:
        super().__init__()
        if kind not in ("hinge", "squared", "log_barrier"):
            raise ConfigError(f"constraints: penalty: found {kind!r}, expected hinge, squared or log_barrier")
        for name, value in {"weight": weight, **(weights or {})}.items():
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"constraints: weight {name}: found {value}, expected a finite number ≥ 0")
        if not (math.isfinite(sharpness) and sharpness > 0):
            raise ConfigError(f"constraints: sharpness: found {sharpness}, expected a finite number > 0")
        self.kind, self.weight, self.weights, self.sharpness = kind, weight, dict(weights or {}), sharpness

    def forward(self, violations: Mapping[str, Tensor]) -> Tensor:
        """violations by rule, each of any shape → scalar.

        Raises:
            ConfigError: a weight of a rule that is not there.
        """
        if unknown := sorted(self.weights.keys() - violations.keys()):
            raise ConfigError(
                f"constraints: weights: found {', '.join(unknown)}, expected rules among {', '.join(violations)}"
            )
        terms = [self.weights.get(name, self.weight) * self._penalty(g).mean() for name, g in violations.items()]
        return torch.stack(terms).sum()

    def _penalty(self, g: Tensor) -> Tensor:
        if self.kind == "hinge":
            return F.relu(g)
        if self.kind == "squared":
            return F.relu(g).square()
        t = self.sharpness
        edge = -1.0 / t**2  # from here on, continued by its tangent
        barrier = -torch.log(-torch.clamp(g, max=edge)) / t
        tangent = t * g - math.log(1.0 / t**2) / t + 1.0 / t
        return torch.where(g <= edge, barrier, tangent)


class LagrangianRelaxation(nn.Module):
    """Σ_rules λ · violation, the multipliers λ rising by dual ascent for as long as a rule is broken too often.

        violation = mean(max(g, 0))      λ ← clip(λ + rate · (violation − tolerance), 0, largest)

    (Bertsekas 1982, ch. 2: dual subgradient ascent). The multipliers are buffers: checkpoints hold them. They move once
    for each call in training mode with gradients enabled. In validation every rule weighs 1, so that epochs, whose
    multipliers differ, can be compared.

    Args:
        names: the rules.
        rate: step of the ascent (> 0).
        tolerance: mean violation that is accepted (> 0: at 0 a multiplier could never come down), in units of each
            rule's limit.
        largest: bound of every multiplier (> 0): a rule that cannot be met must not drown the task.

    Raises:
        ConfigError: a value out of range.
    """

    multipliers: Tensor

    def __init__(
        self, names: tuple[str, ...], *, rate: float = 0.1, tolerance: float = 1e-3, largest: float = 100.0
    ) -> None:
        super().__init__()
        for name, value in (("rate", rate), ("largest", largest), ("tolerance", tolerance)):
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"constraints: {name}: found {value}, expected a finite number above 0")
        self.names, self.rate, self.tolerance, self.largest = names, rate, tolerance, largest
        self.register_buffer("multipliers", torch.zeros(len(names)))

    def forward(self, violations: Mapping[str, Tensor]) -> Tensor:
        """violations by rule → scalar; in training, one step of dual ascent as well."""
        mean = torch.stack([F.relu(violations[name]).mean() for name in self.names])  # [rules]
        if self.training and torch.is_grad_enabled():
            rise = self.rate * (_over_processes(mean.detach()) - self.tolerance)
            self.multipliers.add_(rise).clamp_(0.0, self.largest)
        return (self.multipliers.to(mean.dtype) * mean).sum() if self.training else mean.sum()


def _over_processes(mean: Tensor) -> Tensor:
    """Its mean over the processes that train together, so that all have the same multipliers."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return mean
    total = mean.clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()
