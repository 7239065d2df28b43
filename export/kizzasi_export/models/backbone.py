"""What Mamba and Mamba-2 share: sizes, initial step lengths, and the layers under the names of state-spaces/mamba."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from kizzasi_export.models.norm import RMSNorm
from kizzasi_export.models.stack import Branch, Mixer, NetworkConfig, ResidualNetwork, check_size


@dataclass(frozen=True)
class BackboneConfig(NetworkConfig):
    """Sizes that both have: `inner` = expand · hidden_dim channels, filtered over `conv_dim` steps."""

    expand: int = 2
    conv_dim: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size("conv_dim", self.conv_dim, 2)

    @property
    def inner(self) -> int:
        return self.expand * self.hidden_dim


class BackboneMixer(Mixer):
    """A mixer that ends in a projection back into the residual stream."""

    out_proj: nn.Linear


def step_bias(size: int) -> Tensor:
    """[size] random biases b with softplus(b), the step lengths, log-uniform in 1e-3 … 1e-1 (reference init)."""
    dt = torch.exp(torch.rand(size) * math.log(100.0) + math.log(1e-3))  # [size]
    return dt + torch.log(-torch.expm1(-dt))  # inverse of softplus


M = TypeVar("M", bound=BackboneMixer)


class Block(nn.Module, Generic[M]):
    """Norm and mixer under the reference's names."""

    def __init__(self, hidden_dim: int, mixer: M) -> None:
        super().__init__()
        self.norm = RMSNorm(hidden_dim)
        self.mixer = mixer


class Backbone(nn.Module, Generic[M]):
    """The layers and the final norm, under the reference's names."""

    def __init__(self, cfg: BackboneConfig, make_mixer: Callable[[], M]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(cfg.hidden_dim, make_mixer()) for _ in range(cfg.num_layers))
        self.norm_f = RMSNorm(cfg.hidden_dim)

    @property
    def blocks(self) -> list[Block[M]]:
        return [layer for layer in self.layers if isinstance(layer, Block)]


class BackboneNetwork(ResidualNetwork, Generic[M]):
    """input_projection → backbone → output_projection, on normalised values."""

    def __init__(self, cfg: BackboneConfig, make_mixer: Callable[[], M]) -> None:
        super().__init__(cfg)
        self.backbone = Backbone(cfg, make_mixer)
        for block in self.backbone.blocks:  # keep the residual stream's scale as depth grows (reference init)
            with torch.no_grad():
                block.mixer.out_proj.weight /= math.sqrt(cfg.num_layers)

    def branches(self) -> list[Branch]:
        return [Branch(i, block.norm, block.mixer) for i, block in enumerate(self.backbone.blocks)]

    def final_norm(self) -> RMSNorm:
        return self.backbone.norm_f
