"""S5 (Smith et al. 2023, arXiv 2208.04933): one diagonal state space per layer, shared by all channels, and a scan.

Names and shapes of ``layers.{i}.*`` are those of the reference (lindermanlab/S5, SequenceLayer with activation
"half_glu1", conj_sym, zoh and clip_eigs): ``seq.{Lambda_re, Lambda_im, B, C, D, log_step}`` and ``out2`` (in flax the
transpose of ``out2.weight``). Its flax GELU is the tanh approximation; ours is exact (they differ by ≤ 5e-4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kizzasi_export.graph import Graph, as_array
from kizzasi_export.models.base import State
from kizzasi_export.models.diagonal import (
    SSMConfig,
    complex_of,
    diagonal_scan,
    emit_rotation,
    pairs_of,
    zoh,
)
from kizzasi_export.models.hippo import legs_dplr
from kizzasi_export.models.norm import RMSNorm
from kizzasi_export.models.stack import Branch, Mixer, ResidualNetwork, Shared

SLOWEST = -1e-4
"""Largest real part of an eigenvalue (the reference's clip_eigs): without it a trained state could grow for ever."""


@dataclass(frozen=True)
class S5Config(SSMConfig):
    """Sizes of an S5 network.

    The state is shared, so `state_dim` is the size of one HiPPO block, and the layer's state has `blocks`·state_dim
    values; `blocks` None = as many as make that hidden_dim (at least one), the size that the paper's complexity
    argument and its experiments use.
    """

    blocks: int | None = None

    @property
    def block_count(self) -> int:
        return max(1, round(self.hidden_dim / self.state_dim)) if self.blocks is None else self.blocks


class S5SSM(nn.Module):
    """x' = Λ x + B u, y = 2 Re(C x) + D u with H inputs and outputs, discretised by zero-order hold.

    P conjugate pairs; each state has its own time step.
    """

    def __init__(self, cfg: S5Config) -> None:
        super().__init__()
        blocks, channels = cfg.block_count, cfg.hidden_dim
        start = legs_dplr(cfg.state_dim)
        self.P = blocks * cfg.state_dim // 2
        Lambda = torch.from_numpy(start.Lambda).repeat(blocks)  # [P]
        V = torch.kron(torch.eye(blocks), torch.from_numpy(start.V))  # [2P, P], block diagonal
        # B and C are drawn in HiPPO's basis (variance 1/2P, as the reference's lecun_normal) and brought into V's.
        spread = math.sqrt(1 / (2 * self.P))
        B = torch.randn(2 * self.P, channels, dtype=torch.float64) * spread
        C = torch.randn(channels, 2 * self.P, dtype=torch.complex128) * (math.sqrt(2) * spread)
        self.Lambda_re = nn.Parameter(Lambda.real.float())
        self.Lambda_im = nn.Parameter(Lambda.imag.float())
        self.B = nn.Parameter(pairs_of(V.mH @ B.to(V.dtype)).float())  # [P, H, 2]
        self.C = nn.Parameter(pairs_of(C @ V).float())  # [H, P, 2]
        self.D = nn.Parameter(torch.randn(channels))
        self.log_step = nn.Parameter(cfg.initial_log_dt(self.P, 1))

    def discretised(self) -> tuple[Tensor, Tensor, Tensor]:
        """x_t = z x_{t-1} + B̄ u_t, y_t = 2 Re(C x_t) + D u_t: z complex [P], B̄ [P, H], C [H, P]."""
        Lambda = torch.complex(self.Lambda_re.clamp(max=SLOWEST), self.Lambda_im)
        z, gain = zoh(Lambda, self.log_step[:, 0].exp())
        return z, gain[:, None] * complex_of(self.B), complex_of(self.C)


class S5Layer(Mixer):
    """y = gelu(SSM(u)), out = y · sigmoid(out2 y).  State ``ssm`` [B, P, 2]: real and imaginary parts.

    The layer's norm is a part of it in the reference's names only; `branches` applies it.
    """

    states = ("ssm",)

    def __init__(self, cfg: S5Config) -> None:
        super().__init__()
        self.norm = RMSNorm(cfg.hidden_dim)
        self.seq = S5SSM(cfg)
        self.out2 = nn.Linear(cfg.hidden_dim, cfg.hidden_dim)

    def initial_state(self, batch: int) -> State:
        return {"ssm": self.seq.D.new_zeros(batch, self.seq.P, 2)}

    def scan(self, u: Tensor, state: State, shared: Shared) -> tuple[Tensor, State]:
        """u [B, T, hidden] → ([B, T, hidden], state after it)."""
        z, B, C = self.seq.discretised()
        x = diagonal_scan(z, _apply(B, u), complex_of(state["ssm"]))  # [B, T, P]
        return self._output(x, C, u), {"ssm": pairs_of(x[:, -1])}

    def step(self, u: Tensor, state: State, shared: Shared) -> tuple[Tensor, State]:
        """u [B, hidden] → ([B, hidden], next state)."""
        z, B, C = self.seq.discretised()
        x = z * complex_of(state["ssm"]) + _apply(B, u)  # [B, P]
        return self._output(x, C, u), {"ssm": pairs_of(x)}

    def _output(self, x: Tensor, C: Tensor, u: Tensor) -> Tensor:
        y = F.gelu(F.linear(pairs_of(x).flatten(-2), _reader(C)) + self.seq.D * u)  # [..., hidden]
        return y * torch.sigmoid(self.out2(y))

    def emit(self, g: Graph, u: str, index: int, shared: Shared) -> str:
        """The step as eleven nodes. The graph's state ``ssm`` [B, 1, 2P] is [Re x | Im x]."""
        z, B, C = self.seq.discretised()
        name, width = f"ssm{index}", self.seq.P
        x = g.state(name, np.zeros((1, 1, 2 * width), np.float32))
        driven = g.matmul(u, "B", torch.cat([B.real, B.imag]))  # [B, 1, 2P]
        x = g.op("Add", [emit_rotation(g, "Lambda", x, z[None]), driven])
        g.set_state(name, x)
        read = g.matmul(x, "C", 2 * torch.cat([C.real, -C.imag], -1))  # [B, 1, H]
        y = g.gelu(g.op("Add", [read, g.op("Mul", [u, g.const("D", as_array(self.seq.D))])]))
        # onnxruntime wraps MatMul + Add into Reshapes and a Gemm, but not where the bias has three axes.
        shift = g.const("out2.bias", as_array(self.out2.bias)[None, None])
        gate = g.op("Add", [g.matmul(y, "out2.weight", self.out2.weight), shift])
        return g.op("Mul", [y, g.op("Sigmoid", [gate])])


def _apply(B: Tensor, u: Tensor) -> Tensor:
    """Complex B [P, H] times real u [..., H] → complex [..., P], as one real product."""
    return complex_of(F.linear(u, pairs_of(B).transpose(1, 2).flatten(0, 1)).reshape(*u.shape[:-1], -1, 2))


def _reader(C: Tensor) -> Tensor:
    """The real matrix [H, 2P] whose product with x's (re, im) pairs is 2 Re(C x)."""
    return 2 * pairs_of(C.conj()).flatten(-2)


class S5(ResidualNetwork):
    """input_projection → S5 layers → norm → output_projection, on normalised values."""

    def __init__(self, cfg: S5Config) -> None:
        super().__init__(cfg)
        self.cfg = cfg
        self.layers = nn.ModuleList(S5Layer(cfg) for _ in range(cfg.num_layers))
        self.norm = RMSNorm(cfg.hidden_dim)

    def branches(self) -> list[Branch]:
        layers = [layer for layer in self.layers if isinstance(layer, S5Layer)]
        return [Branch(i, layer.norm, layer) for i, layer in enumerate(layers)]

    def final_norm(self) -> RMSNorm:
        return self.norm
