"""What the RWKV generations share: token shift, channel mixing, heads, blocks, under BlinkDL's names.

A token shift blends each input with the one before it, per channel (Peng et al. 2023, eqs. 11-15):

    x'_t = x_t + (x_{t-1} - x_t) · share        share ∈ R^C

Its state is the branch's last (normed) input.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kizzasi_export.graph import Graph, as_array
from kizzasi_export.models.base import State
from kizzasi_export.models.norm import LayerNorm
from kizzasi_export.models.stack import Branch, Mixer, NetworkConfig, ResidualNetwork, Shared

GROUP_NORM_EPS = 64e-5
"""eps of the per-head norm ``ln_x`` in RWKV-6 and RWKV-7, whatever the head's size."""


@dataclass(frozen=True)
class RWKVHeadsConfig(NetworkConfig):
    """Sizes of an RWKV with heads; `head_dim` None = the largest power of two ≤ 64 that divides the width.

    Where that is below 4 there is one head instead: a norm over two channels is nearly their sign. `state_dim` plays
    no part: a head's state is head_dim × head_dim.
    """

    head_dim: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden_dim % self.head:
            raise ValueError(f"head_dim = {self.head} does not divide hidden_dim = {self.hidden_dim}")

    @property
    def head(self) -> int:
        largest = math.gcd(self.hidden_dim, 64)
        return self.head_dim or (largest if largest >= 4 else self.hidden_dim)


def depth(layer: int, layers: int) -> tuple[float, float]:
    """The layer as 0 in the first … 1 in the last, and as 1 … nearly 0: initial values of the reference need both."""
    return layer / max(layers - 1, 1), 1 - layer / layers


def ramp(width: int) -> Tensor:
    """Channel positions 0 … 1 - 1/width [width], which the reference's initial token shifts depend on."""
    return torch.arange(width) / width


def span(width: int) -> Tensor:
    """Channel positions 0 … 1 [width], which initial decays depend on."""
    return torch.arange(width) / max(width - 1, 1)


def zigzag(width: int) -> Tensor:
    """0, 1, -1, 0, 1, -1, … [width]: makes neighbouring channels differ in the reference's initial bonus."""
    return ((torch.arange(width) + 1) % 3 - 1).float()


@torch.no_grad()
def calm(linear: nn.Linear, layers: int) -> nn.Linear:
    """`linear`, which ends a branch, with smaller initial weights: the residual stream keeps its scale at any depth.

    The reference starts these weights at zero, which leaves the rest of the branch without gradient in the first step.
    """
    linear.weight /= math.sqrt(2 * layers)
    return linear


def shift(u: Tensor, last: Tensor) -> Tensor:
    """u [B, T, C] one step later, after `last` [B, C] → [B, T, C]."""
    return torch.cat([last[:, None], u[:, :-1]], 1)


def emit_shift(g: Graph, u: str, name: str, width: int) -> str:
    """Value u [B, 1, width] → u of the previous step, kept in a state called `name`."""
    last = g.state(name, np.zeros((1, 1, width), np.float32))
    g.set_state(name, u)
    return last


def emit_blends(g: Graph, u: str, change: str, share: str, count: int, *, axis: int = 1) -> list[str]:
    """u [B, 1, C] + change [B, 1, C] · share [1 or B, count, C] → `count` values [B, 1, C].

    With axis 0, which a static batch allows, share is [count, 1, C].
    """
    blended = g.op("Add", [u, g.op("Mul", [change, share])])  # [B, count, C]
    return g.ops("Split", [blended, g.indices(*[1] * count)], count, axis=axis) if count > 1 else [blended]


class ChannelMix(Mixer):
    """RWKV's feed-forward branch: value(relu(key(x'))²), in RWKV-4 … 6 times sigmoid(receptance(x'')).

    Peng et al. 2023, eq. 18. State: ``ffn_shift`` [B, C]. Subclasses own the token shift's parameters.
    """

    states = ("ffn_shift",)

    def __init__(self, hidden: int, inner: int, *, gated: bool) -> None:
        super().__init__()
        self.key = nn.Linear(hidden, inner, bias=False)
        self.value = nn.Linear(inner, hidden, bias=False)
        self.receptance = nn.Linear(hidden, hidden, bias=False) if gated else None

    def shares(self) -> list[Tensor]:
        """How much of the previous input goes into x' and, if gated, x'': each [C] or [1, 1, C]."""
        raise NotImplementedError

    def initial_state(self, batch: int) -> State:
        return {"ffn_shift": self.key.weight.new_zeros(batch, self.key.in_features)}

    def scan(self, u: Tensor, state: State, shared: Shared) -> tuple[Tensor, State]:
        """u [B, T, C] → ([B, T, C], state after it)."""
        return self._mix(u, shift(u, state["ffn_shift"])), {"ffn_shift": u[:, -1]}

    def step(self, u: Tensor, state: State, shared: Shared) -> tuple[Tensor, State]:
        """u [B, C] → ([B, C], next state)."""
        return self._mix(u, state["ffn_shift"]), {"ffn_shift": u}

    def _mix(self, u: Tensor, previous: Tensor) -> Tensor:
        """u, previous [..., C] → [..., C]."""
        change = previous - u  # [..., C]
        x = [u + change * share.flatten() for share in self.shares()]  # each [..., C]
        out: Tensor = self.value(F.relu(self.key(x[0])).square())  # [..., C]
        return out if self.receptance is None else torch.sigmoid(self.receptance(x[1])) * out

    def emit(self, g: Graph, u: str, index: int, shared: Shared) -> str:
        """The step as nodes: 11 if gated, else 7."""
        shares = as_array(torch.stack([share.flatten() for share in self.shares()]))  # [1 or 2, C]
        change = g.op("Sub", [emit_shift(g, u, f"ffn_shift{index}", shares.shape[1]), u])
        x = emit_blends(g, u, change, g.const("ffn.shares", shares[None]), len(shares))
        inner = g.op("Relu", [g.matmul(x[0], "ffn.key", self.key.weight)])  # [B, 1, inner]
        out = g.matmul(g.op("Mul", [inner, inner]), "ffn.value", self.value.weight)  # [B, 1, C]
        if self.receptance is None:
            return out
        gate = g.op("Sigmoid", [g.matmul(x[1], "ffn.receptance", self.receptance.weight)])  # [B, 1, C]
        return g.op("Mul", [gate, out])


def emit_group_norm(g: Graph, y: str, name: str, norm: nn.GroupNorm) -> str:
    """Value y [B, 1, C] normed within each head (torch's GroupNorm on [B, C]) → [B, 1, C]."""
    heads, width = norm.num_groups, norm.num_channels
    by_head = g.op("Reshape", [y, g.indices(-1, heads, width // heads)])  # [B, H, P]
    weight, bias = (p.detach().reshape(1, heads, -1) for p in (norm.weight, norm.bias))  # [1, H, P]
    normed = g.layer_norm(by_head, name, weight, bias, norm.eps)
    return g.op("Reshape", [normed, g.indices(-1, 1, width)])


class RWKVBlock(nn.Module):
    """Two pre-normed branches under the reference's names; the first block also holds the norm after the embedding."""

    def __init__(self, hidden: int, att: Mixer, ffn: Mixer, *, first: bool) -> None:
        super().__init__()
        self.ln0 = LayerNorm(hidden) if first else None
        self.ln1, self.ln2 = LayerNorm(hidden), LayerNorm(hidden)
        self.att, self.ffn = att, ffn


class RWKVNetwork(ResidualNetwork):
    """input_projection → ln0 → blocks → ln_out → output_projection, on normalised values."""

    def __init__(self, cfg: NetworkConfig, blocks: Sequence[RWKVBlock]) -> None:
        super().__init__(cfg)
        self.cfg = cfg
        self.blocks = nn.ModuleList(blocks)
        self.ln_out = LayerNorm(cfg.hidden_dim)

    def entry_norm(self) -> LayerNorm | None:
        return self._blocks[0].ln0

    def branches(self) -> list[Branch]:
        return [
            branch
            for i, block in enumerate(self._blocks)
            for branch in (Branch(i, block.ln1, block.att), Branch(i, block.ln2, block.ffn))
        ]

    def final_norm(self) -> LayerNorm:
        return self.ln_out

    @property
    def _blocks(self) -> list[RWKVBlock]:
        return [block for block in self.blocks if isinstance(block, RWKVBlock)]
