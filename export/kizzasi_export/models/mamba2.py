"""Mamba-2 (Dao & Gu 2024): parameters as in state-spaces/mamba, plus our input and output projections.

Parameter names and shapes of ``backbone.layers.{i}.norm``, ``backbone.layers.{i}.mixer.*`` and
``backbone.norm_f`` are those of the reference (ngroups = 1), so state_dicts exchange with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from kizzasi_export.graph import CONTRIB, Graph, as_array
from kizzasi_export.models.backbone import BackboneConfig, BackboneMixer, BackboneNetwork, step_bias
from kizzasi_export.models.base import State
from kizzasi_export.models.conv import CausalConv1d
from kizzasi_export.models.norm import GatedRMSNorm
from kizzasi_export.models.ssd import ssd_chunked
from kizzasi_export.models.stack import Shared


@dataclass(frozen=True)
class Mamba2Config(BackboneConfig):
    """Sizes of a Mamba-2 network; `head_dim` None = the largest power of two ≤ 64 that divides the width."""

    head_dim: int | None = None
    chunk: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head < 1 or self.inner % self.head:
            raise ValueError(f"head_dim = {self.head} does not divide expand·hidden_dim = {self.inner}")

    @property
    def head(self) -> int:
        return self.head_dim if self.head_dim is not None else math.gcd(self.inner, 64)


class Mamba2Mixer(BackboneMixer):
    """One Mamba-2 block without its residual: projection, causal convolution, SSD, gated norm, projection.

    States of `scan` and `step`: ``conv`` [B, inner + 2N, K-1], the last inputs of the convolution, and ``ssm``
    [B, H, P, N], both as in the reference.
    """

    states = ("conv", "ssm")

    def __init__(self, cfg: Mamba2Config) -> None:
        super().__init__()
        self.inner, self.N, self.P = cfg.inner, cfg.state_dim, cfg.head
        self.H, self.chunk = cfg.inner // cfg.head, cfg.chunk
        self.channels = cfg.inner + 2 * cfg.state_dim  # x, B and C go through the convolution together
        self.in_proj = nn.Linear(cfg.hidden_dim, 2 * cfg.inner + 2 * self.N + self.H, bias=False)  # z x B C dt
        self.conv1d = CausalConv1d(self.channels, cfg.conv_dim)
        self.dt_bias = nn.Parameter(step_bias(self.H))
        self.A_log = nn.Parameter(torch.empty(self.H).uniform_(1, 16).log())
        self.D = nn.Parameter(torch.ones(self.H))
        self.norm = GatedRMSNorm(cfg.inner)
        self.out_proj = nn.Linear(cfg.inner, cfg.hidden_dim, bias=False)

    def initial_state(self, batch: int) -> State:
        return {"conv": self.conv1d.initial_state(batch), "ssm": self.D.new_zeros(batch, self.H, self.P, self.N)}

    def scan(self, u: Tensor, state: State, shared: Shared) -> tuple[Tensor, State]:
        """u [B, T, hidden] → ([B, T, hidden], state after it)."""
        b, t, _ = u.shape
        z, xBC, dt = self._split(self.in_proj(u))  # [B, T, inner] [B, T, channels] [B, T, H]
        conv, window = self.conv1d.scan(xBC, state["conv"])  # [B, T, channels]
        x, B, C = torch.split(F.silu(conv), [self.inner, self.N, self.N], -1)  # [B, T, inner] [B, T, N] [B, T, N]
        dt = F.softplus(dt + self.dt_bias)  # [B, T, H]
        x = x.reshape(b, t, self.H, self.P)  # [B, T, H, P]
        before = state["ssm"].transpose(2, 3)  # [B, H, N, P]
        y, ssm = ssd_chunked(x * dt[..., None], dt * -self.A_log.exp(), B, C, before, chunk=self.chunk)
        y = y + self.D[:, None] * x  # [B, T, H, P]
        out = self.out_proj(self.norm(y.reshape(b, t, self.inner), z))
        return out, {"conv": window, "ssm": ssm.transpose(2, 3)}

    def step(self, u: Tensor, state: State, shared: Shared) -> tuple[Tensor, State]:
        """u [B, hidden] → ([B, hidden], next state)."""
        z, xBC, dt = self._split(self.in_proj(u))  # [B, inner] [B, channels] [B, H]
        xBC, window = self.conv1d.step(xBC, state["conv"])  # [B, channels]
        x, B, C = torch.split(F.silu(xBC), [self.inner, self.N, self.N], -1)  # [B, inner] [B, N] [B, N]
        dt = F.softplus(dt + self.dt_bias)  # [B, H]
        decay = torch.exp(dt * -self.A_log.exp())  # [B, H]
        x = x.reshape(-1, self.H, self.P)  # [B, H, P]
        ssm = decay[..., None, None] * state["ssm"] + (dt[..., None] * x)[..., None] * B[:, None, None]  # [B, H, P, N]
        y = (ssm @ C[:, None, :, None])[..., 0] + self.D[:, None] * x  # [B, H, P]
        return self.out_proj(self.norm(y.reshape(-1, self.inner), z)), {"conv": window, "ssm": ssm}

    def emit(self, g: Graph, u: str, index: int, shared: Shared) -> str:
        """The step as nodes, 18 in the fast variant (with the norm before it 19).

        The graph keeps other states than `step`: ``conv`` as `CausalConv1d.emit` says, and ``ssm`` [B, H, N, P]
        transposed, which makes the long axis of every product the last one.
        """
        z, xBC, dt = g.ops(
            "Split", [g.matmul(u, "in_proj", self.in_proj.weight), g.indices(self.inner, self.channels, self.H)],
            3, axis=-1,
        )  # fmt: skip
        conv = self.conv1d.emit(g, xBC, f"conv{index}")
        x, B, C = g.ops("Split", [g.silu(conv), g.indices(self.inner, self.N, self.N)], 3, axis=-1)
        ssm = g.state(f"ssm{index}", np.zeros((1, self.H, self.N, self.P), np.float32))
        y, ssm = (self._emit_ssm_fast if g.fast else self._emit_ssm_portable)(g, x, B, C, dt, ssm)
        g.set_state(f"ssm{index}", ssm)
        skip = g.op("Mul", [x, g.const("D", as_array(self.D.repeat_interleave(self.P)))])  # [B, 1, inner]
        gated = g.op("Mul", [g.op("Add", [y, skip]), g.silu(z)])  # [B, 1, inner]
        return g.matmul(g.rms_norm(gated, "norm", self.norm.weight, self.norm.eps), "out_proj", self.out_proj.weight)

    def _emit_ssm_fast(self, g: Graph, x: str, B: str, C: str, dt: str, ssm: str) -> tuple[str, str]:
        """com.microsoft: the decays, then one fused gated recurrence."""
        if g.exact:
            dt, decay = self._emit_decay(g, dt)
            spread = self._spread
        else:
            # One node, A·log(1 + exp(dt + bias)): exact to 2⁻²⁴/dt, which small steps may notice. Divided by A again
            # where it is spread over the channels.
            A = -np.exp(as_array(self.A_log))
            inputs = [dt, g.const("dt_bias", as_array(self.dt_bias)), g.const("A", A)]
            dt = decay = g.op("LinearAttentionGate", inputs, domain=CONTRIB)  # [B, 1, H]
            spread = (self._spread / A[:, None]).astype(np.float32)
            g.rounds = True
        # dt·x for every head in two nodes: a small MatMul spreads dt over P.
        value = g.op("Mul", [x, g.op("MatMul", [dt, g.const("dt_spread", spread)])])  # [B, 1, inner]
        y, state = g.ops(
            "LinearAttention", [C, B, value, ssm, decay], 2, domain=CONTRIB,
            update_rule="gated", scale=1.0, q_num_heads=1, kv_num_heads=self.H,
        )  # fmt: skip
        return y, state

    def _emit_ssm_portable(self, g: Graph, x: str, B: str, C: str, dt: str, ssm: str) -> tuple[str, str]:
        """The same recurrence in standard operators."""
        dt, decay = self._emit_decay(g, dt)
        decay = g.op("Exp", [decay])  # [B, 1, H]
        value = g.op("Mul", [x, g.op("MatMul", [dt, g.const("dt_spread", self._spread)])])  # [B, 1, inner]
        kept = g.op("Mul", [ssm, g.op("Reshape", [decay, g.indices(-1, self.H, 1, 1)])])  # [B, H, N, P]
        added = g.op(
            "Mul",
            [
                g.op("Reshape", [B, g.indices(-1, 1, self.N, 1)]),
                g.op("Reshape", [value, g.indices(-1, self.H, 1, self.P)]),
            ],
        )  # [B, H, N, P]
        state = g.op("Add", [kept, added])
        read = g.op("MatMul", [g.op("Reshape", [C, g.indices(-1, 1, 1, self.N)]), state])  # [B, H, 1, P]
        return g.op("Reshape", [read, g.indices(-1, 1, self.inner)]), state

    def _emit_decay(self, g: Graph, dt: str) -> tuple[str, str]:
        """Projected dt [B, 1, H] → (dt, log decay), each [B, 1, H]."""
        dt = g.op("Softplus", [g.op("Add", [dt, g.const("dt_bias", as_array(self.dt_bias))])])
        return dt, g.op("Mul", [dt, g.const("A", -np.exp(as_array(self.A_log)))])

    @property
    def _spread(self) -> NDArray[np.float32]:
        """[H, inner]: 1 where a channel belongs to a head."""
        return np.repeat(np.eye(self.H, dtype=np.float32), self.P, axis=1)

    def _split(self, projected: Tensor) -> tuple[Tensor, ...]:
        return torch.split(projected, [self.inner, self.channels, self.H], -1)


class Mamba2(BackboneNetwork[Mamba2Mixer]):
    """input_projection → Mamba-2 backbone → output_projection, on normalised values."""

    def __init__(self, cfg: Mamba2Config) -> None:
        super().__init__(cfg, lambda: Mamba2Mixer(cfg))
        self.cfg = cfg
