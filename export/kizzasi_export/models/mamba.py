"""Mamba (Gu & Dao 2023): parameters as in state-spaces/mamba, plus our input and output projections.

Parameter names and shapes of ``backbone.layers.{i}.norm``, ``backbone.layers.{i}.mixer.*`` and
``backbone.norm_f`` are those of the reference, so state_dicts exchange with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kizzasi_export.graph import CONTRIB, Graph, as_array
from kizzasi_export.models.backbone import BackboneConfig, BackboneMixer, BackboneNetwork, step_bias
from kizzasi_export.models.base import State
from kizzasi_export.models.conv import CausalConv1d
from kizzasi_export.models.selective_scan import selective_scan
from kizzasi_export.models.stack import Shared


@dataclass(frozen=True)
class MambaConfig(BackboneConfig):
    """Sizes of a Mamba network; `dt_rank` None = hidden_dim / 16, rounded up."""

    dt_rank: int | None = None

    @property
    def rank(self) -> int:
        return self.dt_rank if self.dt_rank is not None else math.ceil(self.hidden_dim / 16)


class MambaMixer(BackboneMixer):
    """One Mamba block without its residual: projection, causal convolution, selective scan, gate, projection.

    States of `scan` and `step`: ``conv`` [B, inner, K-1], the last inputs of the convolution, and ``ssm``
    [B, inner, N], both as in the reference.
    """

    states = ("conv", "ssm")

    def __init__(self, cfg: MambaConfig) -> None:
        super().__init__()
        self.inner, self.N, self.rank = cfg.inner, cfg.state_dim, cfg.rank
        self.in_proj = nn.Linear(cfg.hidden_dim, 2 * cfg.inner, bias=False)  # x z
        self.conv1d = CausalConv1d(cfg.inner, cfg.conv_dim)
        self.x_proj = nn.Linear(cfg.inner, cfg.rank + 2 * cfg.state_dim, bias=False)  # dt B C
        self.dt_proj = nn.Linear(cfg.rank, cfg.inner)
        with torch.no_grad():
            self.dt_proj.bias.copy_(step_bias(cfg.inner))
            self.dt_proj.weight.uniform_(-(cfg.rank**-0.5), cfg.rank**-0.5)
        self.A_log = nn.Parameter(torch.arange(1.0, cfg.state_dim + 1).log().repeat(cfg.inner, 1))  # S4D-Real
        self.D = nn.Parameter(torch.ones(cfg.inner))
        self.out_proj = nn.Linear(cfg.inner, cfg.hidden_dim, bias=False)

    def initial_state(self, batch: int) -> State:
        return {"conv": self.conv1d.initial_state(batch), "ssm": self.D.new_zeros(batch, self.inner, self.N)}

    def scan(self, u: Tensor, state: State, shared: Shared) -> tuple[Tensor, State]:
        """u [B, T, hidden] → ([B, T, hidden], state after it)."""
        x, z = self.in_proj(u).chunk(2, -1)  # [B, T, inner] [B, T, inner]
        x, window = self.conv1d.scan(x, state["conv"])  # [B, T, inner]
        x = F.silu(x)  # [B, T, inner]
        dt, B, C = self._selected(x)  # [B, T, inner] [B, T, N] [B, T, N]
        A = -self.A_log.exp().T.contiguous()  # [N, inner]
        with torch.autocast(u.device.type, enabled=False):  # the recurrence stays in float32
            x, dt, B, C = (v.to(u.dtype) for v in (x, dt, B, C))
            y, ssm = selective_scan(x, dt, A, B, C, state["ssm"].transpose(1, 2))  # [B, T, inner] [B, N, inner]
        return self.out_proj((y + self.D * x) * F.silu(z)), {"conv": window, "ssm": ssm.transpose(1, 2)}

    def step(self, u: Tensor, state: State, shared: Shared) -> tuple[Tensor, State]:
        """u [B, hidden] → ([B, hidden], next state)."""
        x, z = self.in_proj(u).chunk(2, -1)  # [B, inner] [B, inner]
        x, window = self.conv1d.step(x, state["conv"])  # [B, inner]
        x = F.silu(x)  # [B, inner]
        dt, B, C = self._selected(x)  # [B, inner] [B, N] [B, N]
        decay = torch.exp(dt[..., None] * -self.A_log.exp())  # [B, inner, N]
        ssm = decay * state["ssm"] + (dt * x)[..., None] * B[:, None]  # [B, inner, N]
        y = (ssm @ C[..., None])[..., 0] + self.D * x  # [B, inner]
        return self.out_proj(y * F.silu(z)), {"conv": window, "ssm": ssm}

    def emit(self, g: Graph, u: str, index: int, shared: Shared) -> str:
        """The step as nodes, 21 in the fast variant (with the norm before it 22).

        The graph keeps other states than `step`: ``conv`` as `CausalConv1d.emit` says, and ``ssm`` [B, 1, N, inner]
        transposed, which makes the long axis of every product the last one.
        """
        sizes = g.indices(self.inner, self.inner)
        x, z = g.ops("Split", [g.matmul(u, "in_proj", self.in_proj.weight), sizes], 2, axis=-1)  # [B, 1, inner] each
        x = g.silu(self.conv1d.emit(g, x, f"conv{index}"))  # [B, 1, inner]
        rank, B, C = g.ops(
            "Split", [g.matmul(x, "x_proj", self.x_proj.weight), g.indices(self.rank, self.N, self.N)], 3, axis=-1
        )  # [B, 1, rank] [B, 1, N] [B, 1, N]
        ssm = g.state(f"ssm{index}", np.zeros((1, 1, self.N, self.inner), np.float32))
        dt = self._emit_dt(g, rank)  # [B, 1, inner]
        update = self._emit_update_fast if g.fast else self._emit_update_portable
        y, ssm = update(g, self._emit_kept(g, dt, ssm), B, C, g.op("Mul", [dt, x]))
        g.set_state(f"ssm{index}", ssm)
        skipped = g.op("Add", [y, g.op("Mul", [x, g.const("D", as_array(self.D))])])  # [B, 1, inner]
        return g.matmul(g.op("Mul", [skipped, g.silu(z)]), "out_proj", self.out_proj.weight)

    def _emit_update_fast(self, g: Graph, kept: str, B: str, C: str, value: str) -> tuple[str, str]:
        """com.microsoft: the states have decayed on their own; one node adds B·value and reads with C."""
        y, ssm = g.ops(
            "LinearAttention", [C, B, value, kept], 2, domain=CONTRIB,
            update_rule="linear", scale=1.0, q_num_heads=1, kv_num_heads=1,
        )  # fmt: skip
        return y, ssm

    def _emit_update_portable(self, g: Graph, kept: str, B: str, C: str, value: str) -> tuple[str, str]:
        """The same in standard operators."""
        B = g.op("Reshape", [B, g.indices(-1, 1, self.N, 1)])
        if g.batch:
            value = g.op("Unsqueeze", [value, g.indices(1)])  # [B, 1, 1, inner]
        ssm = g.op("Add", [kept, g.op("Mul", [B, value])])  # [B, 1, N, inner]
        read = g.op("MatMul", [g.op("Reshape", [C, g.indices(-1, 1, 1, self.N)]), ssm])  # [B, 1, 1, inner]
        return g.op("Reshape", [read, g.indices(-1, 1, self.inner)]), ssm

    def _emit_dt(self, g: Graph, rank: str) -> str:
        """softplus(dt_proj(rank)) [B, 1, inner].

        Softplus is the slowest node after the products. LinearAttentionGate takes a third of its time, but rounds
        1 + exp: where dt is below 0.01, a long memory may add that up beyond the bound of parity (then `g.exact`).
        """
        raw = g.matmul(rank, "dt_proj.weight", self.dt_proj.weight)  # [B, 1, inner]
        bias = as_array(self.dt_proj.bias)
        if g.fast and not g.exact:
            g.rounds = True
            inputs = [raw, g.const("dt_proj.bias", bias), g.const("unit", np.ones_like(bias))]
            return g.op("LinearAttentionGate", inputs, domain=CONTRIB)
        # Subtracted, because onnxruntime fuses MatMul and Add into a Gemm between two Reshapes.
        return g.op("Softplus", [g.op("Sub", [raw, g.const("dt_proj.bias", -bias)])])

    def _emit_kept(self, g: Graph, dt: str, ssm: str) -> str:
        """exp(dt·A) ∘ h [B, 1, N, inner]."""
        if g.batch:  # otherwise broadcasting puts the axis in
            dt = g.op("Unsqueeze", [dt, g.indices(1)])  # [B, 1, 1, inner]
        exponent = g.op("Mul", [dt, g.const("A", -np.exp(as_array(self.A_log.T)))])
        return g.op("Mul", [ssm, g.op("Exp", [exponent])])

    def _selected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [..., inner] → what it selects (§3.2): step lengths dt [..., inner], B and C [..., N]."""
        dt, B, C = torch.split(self.x_proj(x), [self.rank, self.N, self.N], -1)
        return F.softplus(self.dt_proj(dt)), B, C


class Mamba(BackboneNetwork[MambaMixer]):
    """input_projection → Mamba backbone → output_projection, on normalised values."""

    def __init__(self, cfg: MambaConfig) -> None:
        super().__init__(cfg, lambda: MambaMixer(cfg))
        self.cfg = cfg
