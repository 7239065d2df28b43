"""Mamba-2 (Dao & Gu 2024): parameters as in state-spaces/mamba, plus our input and output projections.

Parameter names and shapes of ``backbone.layers.{i}.norm``, ``backbone.layers.{i}.mixer.*`` and
``backbone.norm_f`` are those of the reference (ngroups = 1), so state_dicts exchange with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kizzasi_export.graph import CONTRIB, Graph, as_array
from kizzasi_export.models.base import State
from kizzasi_export.models.norm import GatedRMSNorm, RMSNorm
from kizzasi_export.models.ssd import ssd_chunked


@dataclass(frozen=True)
class Mamba2Config:
    """Sizes of a Mamba-2 network; `head_dim` None = the largest power of two ≤ 64 that divides the width."""

    input_dim: int
    output_dim: int
    hidden_dim: int = 64
    state_dim: int = 16
    num_layers: int = 2
    expand: int = 2
    conv_dim: int = 4
    head_dim: int | None = None
    chunk: int = 64

    def __post_init__(self) -> None:
        for name in ("input_dim", "output_dim", "hidden_dim", "state_dim", "num_layers", "expand", "chunk"):
            if getattr(self, name) < 1:
                raise ValueError(f"mamba2: {name} = {getattr(self, name)}, expected ≥ 1")
        if self.conv_dim < 2:
            raise ValueError(f"mamba2: conv_dim = {self.conv_dim}, expected ≥ 2")
        if self.inner % self.head:
            raise ValueError(f"mamba2: head_dim = {self.head} does not divide expand·hidden_dim = {self.inner}")

    @property
    def inner(self) -> int:
        return self.expand * self.hidden_dim

    @property
    def head(self) -> int:
        return self.head_dim if self.head_dim is not None else math.gcd(self.inner, 64)


class Mamba2Mixer(nn.Module):
    """One Mamba-2 block without its residual: projection, causal convolution, SSD, gated norm, projection.

    State of `step`: ``conv`` [B, inner + 2N, K-1], the last inputs of the convolution, and ``ssm``
    [B, H, P, N], both as in the reference.
    """

    def __init__(self, cfg: Mamba2Config) -> None:
        super().__init__()
        self.inner, self.N, self.P, self.K = cfg.inner, cfg.state_dim, cfg.head, cfg.conv_dim
        self.H, self.chunk = cfg.inner // cfg.head, cfg.chunk
        self.channels = cfg.inner + 2 * cfg.state_dim  # x, B and C go through the convolution together
        self.in_proj = nn.Linear(cfg.hidden_dim, 2 * cfg.inner + 2 * self.N + self.H, bias=False)  # z x B C dt
        self.conv1d = nn.Conv1d(
            self.channels, self.channels, self.K, groups=self.channels, padding=self.K - 1, bias=True
        )
        dt = torch.exp(torch.rand(self.H) * math.log(100.0) + math.log(1e-3))  # steps of 1e-3 … 1e-1
        self.dt_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))  # inverse of softplus
        self.A_log = nn.Parameter(torch.empty(self.H).uniform_(1, 16).log())
        self.D = nn.Parameter(torch.ones(self.H))
        self.norm = GatedRMSNorm(cfg.inner)
        self.out_proj = nn.Linear(cfg.inner, cfg.hidden_dim, bias=False)

    def forward(self, u: Tensor) -> Tensor:
        """u [B, T, hidden] → [B, T, hidden]."""
        b, t, _ = u.shape
        z, xBC, dt = self._split(self.in_proj(u))  # [B, T, inner] [B, T, channels] [B, T, H]
        conv = self.conv1d(xBC.transpose(1, 2))[..., :t].transpose(1, 2)  # [B, T, channels]
        x, B, C = torch.split(F.silu(conv), [self.inner, self.N, self.N], -1)  # [B, T, inner] [B, T, N] [B, T, N]
        dt = F.softplus(dt + self.dt_bias)  # [B, T, H]
        x = x.reshape(b, t, self.H, self.P)  # [B, T, H, P]
        y = ssd_chunked(x * dt[..., None], dt * -self.A_log.exp(), B, C, chunk=self.chunk)  # [B, T, H, P]
        y = y + self.D[:, None] * x  # [B, T, H, P]
        return self.out_proj(self.norm(y.reshape(b, t, self.inner), z))  # type: ignore[no-any-return]

    def step(self, u: Tensor, conv: Tensor, ssm: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """u [B, hidden], conv [B, channels, K-1], ssm [B, H, P, N] → (out [B, hidden], conv, ssm)."""
        z, xBC, dt = self._split(self.in_proj(u))  # [B, inner] [B, channels] [B, H]
        window = torch.cat([conv, xBC[..., None]], -1)  # [B, channels, K]
        xBC = (window * self.conv1d.weight[:, 0]).sum(-1) + self._conv_bias  # [B, channels]
        x, B, C = torch.split(F.silu(xBC), [self.inner, self.N, self.N], -1)  # [B, inner] [B, N] [B, N]
        dt = F.softplus(dt + self.dt_bias)  # [B, H]
        decay = torch.exp(dt * -self.A_log.exp())  # [B, H]
        x = x.reshape(-1, self.H, self.P)  # [B, H, P]
        ssm = decay[..., None, None] * ssm + (dt[..., None] * x)[..., None] * B[:, None, None]  # [B, H, P, N]
        y = (ssm @ C[:, None, :, None])[..., 0] + self.D[:, None] * x  # [B, H, P]
        return self.out_proj(self.norm(y.reshape(-1, self.inner), z)), window[..., 1:], ssm

    def initial_state(self, batch: int) -> tuple[Tensor, Tensor]:
        """(conv [B, channels, K-1], ssm [B, H, P, N]), both zero."""
        conv = self.D.new_zeros(batch, self.channels, self.K - 1)
        return conv, conv.new_zeros(batch, self.H, self.P, self.N)

    def emit(self, g: Graph, u: str, index: int) -> str:
        """The step as nodes: value `u` [B, 1, hidden] → value [B, 1, hidden].

        The graph keeps other states than `step`. ``conv`` [B, K-1, channels] holds the partial sums of the
        convolution's next outputs (a transposed FIR filter; without history each is the bias), and ``ssm``
        [B, H, N, P] is transposed, which makes the long axis of every product the last one.
        """
        partial_sums = np.repeat(as_array(self._conv_bias)[None, None], self.K - 1, axis=1)
        conv = g.state(f"conv{index}", partial_sums)
        ssm = g.state(f"ssm{index}", np.zeros((1, self.H, self.N, self.P), np.float32))
        z, xBC, dt = g.ops(
            "Split", [g.matmul(u, "in_proj", self.in_proj.weight), g.indices(self.inner, self.channels, self.H)],
            3, axis=-1,
        )  # fmt: skip
        first, rest = self._emit_convolution(g, xBC, conv)
        g.set_state(f"conv{index}", rest)
        x, B, C = g.ops("Split", [g.silu(first), g.indices(self.inner, self.N, self.N)], 3, axis=-1)
        y, ssm = (self._emit_ssm_fast if g.fast else self._emit_ssm_portable)(g, x, B, C, dt, ssm)
        g.set_state(f"ssm{index}", ssm)
        skip = g.op("Mul", [x, g.const("D", as_array(self.D.repeat_interleave(self.P)))])  # [B, 1, inner]
        gated = g.op("Mul", [g.op("Add", [y, skip]), g.silu(z)])  # [B, 1, inner]
        return g.matmul(g.rms_norm(gated, "norm", self.norm.weight, self.norm.eps), "out_proj", self.out_proj.weight)

    def _emit_convolution(self, g: Graph, xBC: str, conv: str) -> tuple[str, str]:
        """Transposed FIR: (output of this step [B, 1, channels], partial sums [B, K-1, channels])."""
        bias = as_array(self._conv_bias)
        products = g.op("Mul", [xBC, g.const("conv1d.weight", as_array(self.conv1d.weight[:, 0].T.flip(0))[None])])
        if g.batch:  # a constant row cannot be concatenated to a symbolic batch
            last = np.zeros((1, self.K, self.channels), np.float32)
            last[0, -1] = bias
            carried = g.op("Pad", [conv, g.indices(0, 0, 0, 0, 1, 0)])
            products = g.op("Add", [products, g.const("conv1d.bias", last)])
        else:
            carried = g.op("Concat", [conv, g.const("conv1d.bias", bias[None, None])], axis=1)
        sums = g.op("Add", [products, carried])  # [B, K, channels]
        first, rest = g.ops("Split", [sums, g.indices(1, self.K - 1)], 2, axis=1)
        return first, rest

    def _emit_ssm_fast(self, g: Graph, x: str, B: str, C: str, dt: str, ssm: str) -> tuple[str, str]:
        """com.microsoft: decay = A·softplus(dt + bias), then one fused gated recurrence."""
        A = -np.exp(as_array(self.A_log))
        decay = g.op(
            "LinearAttentionGate",
            [dt, g.const("dt_bias", as_array(self.dt_bias)), g.const("A", A)],
            domain=CONTRIB,
        )  # [B, 1, H]
        # dt·x for every head in two nodes: a small MatMul divides the decay by A and spreads it over P.
        spread = np.repeat(np.diag(1.0 / A), self.P, axis=1).astype(np.float32)  # [H, inner]
        value = g.op("Mul", [x, g.op("MatMul", [decay, g.const("dt_spread", spread)])])  # [B, 1, inner]
        y, state = g.ops(
            "LinearAttention", [C, B, value, ssm, decay], 2, domain=CONTRIB,
            update_rule="gated", scale=1.0, q_num_heads=1, kv_num_heads=self.H,
        )  # fmt: skip
        return y, state

    def _emit_ssm_portable(self, g: Graph, x: str, B: str, C: str, dt: str, ssm: str) -> tuple[str, str]:
        """The same recurrence in standard operators."""
        dt = g.op("Softplus", [g.op("Add", [dt, g.const("dt_bias", as_array(self.dt_bias))])])  # [B, 1, H]
        decay = g.op("Exp", [g.op("Mul", [dt, g.const("A", -np.exp(as_array(self.A_log)))])])  # [B, 1, H]
        spread = np.repeat(np.eye(self.H, dtype=np.float32), self.P, axis=1)  # [H, inner]
        value = g.op("Mul", [x, g.op("MatMul", [dt, g.const("dt_spread", spread)])])  # [B, 1, inner]
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

    @property
    def _conv_bias(self) -> Tensor:
        assert self.conv1d.bias is not None
        return self.conv1d.bias

    def _split(self, projected: Tensor) -> tuple[Tensor, ...]:
        return torch.split(projected, [self.inner, self.channels, self.H], -1)


class Mamba2Block(nn.Module):
    """Pre-norm residual block: u + mixer(norm(u))."""

    def __init__(self, cfg: Mamba2Config) -> None:
        super().__init__()
        self.norm = RMSNorm(cfg.hidden_dim)
        self.mixer = Mamba2Mixer(cfg)


class Mamba2Backbone(nn.Module):
    """The layers and the final norm, under the reference's names."""

    def __init__(self, cfg: Mamba2Config) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Mamba2Block(cfg) for _ in range(cfg.num_layers))
        self.norm_f = RMSNorm(cfg.hidden_dim)

    @property
    def blocks(self) -> list[Mamba2Block]:
        return [layer for layer in self.layers if isinstance(layer, Mamba2Block)]


class Mamba2(nn.Module):
    """input_projection → Mamba-2 backbone → output_projection, on normalised values."""

    def __init__(self, cfg: Mamba2Config) -> None:
        super().__init__()
        self.cfg = cfg
        self.input_projection = nn.Linear(cfg.input_dim, cfg.hidden_dim)
        self.backbone = Mamba2Backbone(cfg)
        self.output_projection = nn.Linear(cfg.hidden_dim, cfg.output_dim)
        for block in self.backbone.blocks:  # keep the residual stream's scale as depth grows (reference init)
            with torch.no_grad():
                block.mixer.out_proj.weight /= math.sqrt(cfg.num_layers)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, input_dim] → [B, T, output_dim]."""
        u = self.input_projection(x)  # [B, T, hidden]
        for block in self.backbone.blocks:
            u = u + block.mixer(block.norm(u))  # [B, T, hidden]
        return self.output_projection(self.backbone.norm_f(u))  # type: ignore[no-any-return]

    def initial_state(self, batch: int) -> State:
        """conv{i} [B, channels, K-1] and ssm{i} [B, H, P, N] of every layer."""
        state: State = {}
        for i, block in enumerate(self.backbone.blocks):
            state[f"conv{i}"], state[f"ssm{i}"] = block.mixer.initial_state(batch)
        return state

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """x [B, input_dim] → (y [B, output_dim], next state)."""
        u = self.input_projection(x)  # [B, hidden]
        nxt: State = {}
        for i, block in enumerate(self.backbone.blocks):
            out, nxt[f"conv{i}"], nxt[f"ssm{i}"] = block.mixer.step(block.norm(u), state[f"conv{i}"], state[f"ssm{i}"])
            u = u + out  # [B, hidden]
        return self.output_projection(self.backbone.norm_f(u)), nxt

    def emit(self, graph: Graph, x: str) -> str:
        """19 nodes a layer in the fast variant; scopes ``layers.{i}``."""
        graph.scope("input_projection")
        u = graph.linear(x, "linear", self.input_projection.weight, self.input_projection.bias)  # [B, hidden]
        residual = graph.op("Unsqueeze", [u, graph.indices(1)])  # [B, 1, hidden]
        branch: str | None = None
        for i, block in enumerate(self.backbone.blocks):
            graph.scope(f"layers.{i}")
            normed, residual = graph.add_rms_norm(residual, branch, "pre_norm", block.norm.weight, block.norm.eps)
            branch = block.mixer.emit(graph, normed, i)
        graph.scope("output_projection")
        norm_f = self.backbone.norm_f
        normed, _ = graph.add_rms_norm(residual, branch, "norm_f", norm_f.weight, norm_f.eps)
        normed = graph.op("Squeeze", [normed, graph.indices(1)])  # [B, hidden]
        return graph.linear(normed, "linear", self.output_projection.weight, self.output_projection.bias)
