"""Root-mean-square norms with the parameter names of state-spaces/mamba (``weight``)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) · weight over the last axis (Zhang & Sennrich 2019, eq. 4)."""

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """x [..., dim] → [..., dim]."""
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


class GatedRMSNorm(RMSNorm):
    """norm(x · silu(z)): the reference's RMSNormGated with norm_before_gate=False and one group."""

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        """x, z [..., dim] → [..., dim]."""
        return super().forward(x if z is None else x * F.silu(z))
