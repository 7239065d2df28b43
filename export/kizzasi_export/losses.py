"""Training losses, on errors measured in each output's own scale."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from kizzasi_export.models import StepModel

Loss = Callable[[StepModel, Tensor, Tensor, Tensor], Tensor]
"""(model, x [B, T, in], y [B, T, out], weight [B, T]) → scalar."""


def sequence_loss(kind: Literal["huber", "mse"]) -> Loss:
    """Weighted mean over time and outputs of the error divided by the scale of y.

    That is the model's output_std, or with a reference model (whose network outputs velocities) output_std·τ.

    ``huber`` (Huber 1964, threshold 1) is quadratic for errors below one standard deviation and linear above.
    """
    pointwise = F.smooth_l1_loss if kind == "huber" else F.mse_loss

    def loss(model: StepModel, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        scale = model.output_std if model.reference is None else model.output_std * model.reference.tau
        error = pointwise(model(x) / scale, y / scale, reduction="none")  # [B, T, out]
        return (error.mean(-1) * weight).sum() / weight.sum().clamp_min(1e-12)

    return loss
