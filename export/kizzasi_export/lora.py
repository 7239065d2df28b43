"""Low-rank adaptation (Hu et al. 2021): the network's Linear layers learn W + (α/r)·B·A (eq. 3) with W frozen.

Attached as parametrisations of ``weight``, so that forward, scan, step and emit need not know; `merge` leaves plain
weights behind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from kizzasi_edge.errors import ConfigError
from kizzasi_export.models import StepModel

_OUTPUT = "network.output_projection"


class LowRank(nn.Module):
    """W [out, in] → W + (alpha/rank)·B A. A [r, in] is random and B [out, r] zero: it starts as W.

    r is `rank`, or where W has fewer rows or columns their number: no term of W's size has a higher rank.
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        self.scale = alpha / rank
        rows, columns = weight.shape
        r = min(rank, rows, columns)
        self.A = nn.Parameter(weight.new_empty(r, columns))
        self.B = nn.Parameter(weight.new_zeros(rows, r))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.scale * (self.B @ self.A)


def attach(
    model: StepModel, *, rank: int, alpha: float, targets: Sequence[str] = ("*",), output_projection: bool = False
) -> dict[str, Any]:
    """Freeze `model` and give the Linear layers that `targets` name a trainable low-rank term.

    Args:
        targets: glob patterns over the layers' names ("network.backbone.layers.0.mixer.in_proj"); ``*`` crosses dots.
        output_projection: train that layer whole, weight and bias, instead of adapting it.

    Returns:
        JSON values for provenance: rank, alpha, the adapted layers, trained parameters and their share.

    Raises:
        ConfigError: a pattern that matches no Linear layer.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    for pattern in targets:
        if not any(fnmatchcase(name, pattern) for name in layers):
            raise ConfigError(
                f"[finetune.lora] targets: {pattern!r} matches no Linear layer; expected a pattern over "
                f"{', '.join(layers)}"
            )
    chosen = {name: layer for name, layer in layers.items() if any(fnmatchcase(name, p) for p in targets)}
    if output_projection:
        chosen.pop(_OUTPUT, None)
    total = sum(p.numel() for p in model.parameters())
    model.requires_grad_(False)
    if output_projection:
        layers[_OUTPUT].requires_grad_(True)
    for layer in chosen.values():
        parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, rank, alpha))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {
        "rank": rank, "alpha": alpha, "layers": sorted(chosen), "trained_parameters": trained, "share": trained / total
    }  # fmt: skip


@torch.no_grad()
def merge(model: StepModel) -> None:
    """Write each low-rank term into its weight; the model is plain, and wholly trainable, again."""
    for module in list(model.modules()):
        if parametrize.is_parametrized(module, "weight") and any(
            isinstance(term, LowRank)
            for term in module.parametrizations["weight"]  # type: ignore[index]
        ):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    model.requires_grad_(True)
