"""Training losses, one for each head, on errors measured in each output's own scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from kizzasi_export.models import StepModel
from kizzasi_export.models.tokenizer import tokens

Outputs = Mapping[str, Tensor]
"""What `StepModel.outputs` gives: ``y`` and the head's other output."""

OutputLoss = Callable[[StepModel, Outputs, Tensor, Tensor], Tensor]
"""(model, outputs, y [B, T, out], weight [B, T]) → scalar. Works on windows and on carried streams alike."""

Loss = Callable[[StepModel, Tensor, Tensor, Tensor], Tensor]
"""(model, x [B, T, in], y [B, T, out], weight [B, T]) → scalar. Runs the model itself, from its initial state."""

MEASURE = {
    "continuous": "error in units of each output's std",
    "gaussian": "negative log-likelihood (nats per output, in units of its std)",
    "categorical": "cross-entropy (nats per token)",
}
"""Head → what its loss measures."""


def head_loss(kind: Literal["huber", "mse"] | None = None) -> OutputLoss:
    """Weighted mean over time and outputs of the loss that the model's head calls for.

    continuous: the error divided by the scale of y, squared (``mse``) or Huber's (1964, threshold 1: quadratic
    below one standard deviation, linear above; the default).  gaussian: −log N(y; mean, exp(logvar)).
    categorical: cross-entropy of the nearest level's token.  `kind` concerns the continuous head alone.
    """
    pointwise = F.mse_loss if kind == "mse" else F.smooth_l1_loss

    def loss(model: StepModel, outputs: Outputs, y: Tensor, weight: Tensor) -> Tensor:
        if model.head.kind == "gaussian":
            each = _gaussian(model, outputs, y)  # [B, T, out]
        elif model.head.kind == "categorical":
            each = _categorical(model, outputs, y)  # [B, T, out]
        else:
            scale = output_scale(model)
            each = pointwise(outputs["y"] / scale, y / scale, reduction="none")  # [B, T, out]
        return (each.mean(-1) * weight).sum() / weight.sum().clamp_min(1e-12)

    return loss


def sequence_loss(kind: Literal["huber", "mse"] | None = None) -> Loss:
    """`head_loss` of a model that is run from its initial state."""
    return FromStart(head_loss(kind))


class FromStart(nn.Module):
    """Run the model over the window from its initial state, then score its outputs: a `Loss`.

    A module, so that checkpoints hold what a score has learnt (multipliers).
    """

    def __init__(self, score: OutputLoss) -> None:
        super().__init__()
        self.score = score

    def forward(self, model: StepModel, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        return self.score(model, model.outputs(x), y, weight)


def output_scale(model: StepModel) -> Tensor:
    """The scale of y [out]: output_std, or with a reference model (whose network outputs velocities) output_std·τ."""
    return model.output_std if model.reference is None else model.output_std * model.reference.tau


def _gaussian(model: StepModel, outputs: Outputs, y: Tensor) -> Tensor:
    error = (y - outputs["y"]) / model.output_std  # [B, T, out]
    logvar = outputs["logvar"] - 2 * model.output_std.log()  # [B, T, out], of y / output_std
    return 0.5 * (logvar + error.square() * (-logvar).exp() + math.log(2 * math.pi))


def _categorical(model: StepModel, outputs: Outputs, y: Tensor) -> Tensor:
    codebook = model.head.get_buffer("codebook")  # [out, vocab]
    logits = outputs["logits"].movedim(-1, 1)  # [B, vocab, T, out]
    return F.cross_entropy(logits.float(), tokens(y, codebook), reduction="none")
