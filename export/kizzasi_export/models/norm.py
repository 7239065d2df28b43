"""Norms of the residual stream, with the parameter names of the reference implementations."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kizzasi_export.graph import Graph


class Norm(Protocol):
    """What stands before a branch."""

    def __call__(self, x: Tensor) -> Tensor:
        """x [..., dim] → [..., dim]."""
        ...

    def emit(self, g: Graph, name: str, residual: str, branch: str | None) -> tuple[str, str]:
        """Values → (norm(residual + branch), residual + branch); without a branch (norm(residual), residual)."""
        ...


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) · weight over the last axis (Zhang & Sennrich 2019, eq. 4)."""

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """x [..., dim] → [..., dim]."""
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight

    def emit(self, g: Graph, name: str, residual: str, branch: str | None) -> tuple[str, str]:
        return g.add_rms_norm(residual, branch, name, self.weight, self.eps)


class LayerNorm(nn.LayerNorm):
    """torch's LayerNorm (Ba et al. 2016) over the last axis, with bias, and its nodes."""

    def emit(self, g: Graph, name: str, residual: str, branch: str | None) -> tuple[str, str]:
        return g.add_layer_norm(residual, branch, name, self.weight, self.bias, self.eps)


class GatedRMSNorm(RMSNorm):
    """norm(x · silu(z)): the reference's RMSNormGated with norm_before_gate=False and one group."""

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        """x, z [..., dim] → [..., dim]."""
        return super().forward(x if z is None else x * F.silu(z))
