"""RWKV-6 "Finch" (Peng et al. 2024): parameters as in BlinkDL's RWKV-LM, plus our input and output projections.

Names and shapes of ``blocks.{i}.*`` and ``ln_out`` are the reference's; ``input_projection`` and
``output_projection`` stand in place of ``emb`` and ``head``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kizzasi_export.graph import CONTRIB, Graph, as_array
from kizzasi_export.models.base import State
from kizzasi_export.models.rwkv_parts import (
    GROUP_NORM_EPS,
    ChannelMix,
    RWKVBlock,
    RWKVHeadsConfig,
    RWKVNetwork,
    calm,
    depth,
    emit_blends,
    emit_group_norm,
    emit_shift,
    ramp,
    shift,
    span,
    zigzag,
)
from kizzasi_export.models.stack import Mixer, Shared
from kizzasi_export.models.wkv6 import wkv6_chunked, wkv6_step

BLENDS = 5
"""Token-shifted inputs of time mixing: for decay, key, value, receptance and gate."""


@dataclass(frozen=True)
class RWKV6Config(RWKVHeadsConfig):
    """Sizes of an RWKV-6 network; `mix_rank` and `decay_rank` are those of the data-dependent shift and decay."""

    mix_rank: int = 32
    decay_rank: int = 64

    @property
    def inner(self) -> int:
        """Width of the feed-forward branch: 3.5 times the stream's, rounded down to a multiple of 32."""
        return max(32, int(3.5 * self.hidden_dim) // 32 * 32)


class RWKV6TimeMix(Mixer):
    """Data-dependent token shift and decay, the wkv recurrence, a norm per head, and a SiLU gate (§4.2).

    States of `scan` and `step`: ``att_shift`` [B, C] and ``wkv`` [B, H, P, P] (key, value), as in the reference.
    """

    states = ("att_shift", "wkv")

    def __init__(self, cfg: RWKV6Config, layer: int) -> None:
        super().__init__()
        d, self.P = cfg.hidden_dim, cfg.head
        self.H = d // self.P
        deeper, shallower = depth(layer, cfg.num_layers)
        place = ramp(d)[None, None]  # [1, 1, C]
        self.time_maa_x = nn.Parameter(1 - place**shallower)
        self.time_maa_w = nn.Parameter(1 - place**shallower)
        self.time_maa_k = nn.Parameter(1 - place**shallower)
        self.time_maa_v = nn.Parameter(1 - (place**shallower + 0.3 * deeper))
        self.time_maa_r = nn.Parameter(1 - place ** (0.5 * shallower))
        self.time_maa_g = nn.Parameter(1 - place ** (0.5 * shallower))
        self.time_maa_w1 = nn.Parameter(torch.empty(d, BLENDS * cfg.mix_rank).uniform_(-1e-4, 1e-4))
        self.time_maa_w2 = nn.Parameter(torch.empty(BLENDS, cfg.mix_rank, d).uniform_(-1e-2, 1e-2))
        self.time_decay = nn.Parameter((-6 + 5 * span(d) ** (0.7 + 1.3 * deeper))[None, None])
        self.time_decay_w1 = nn.Parameter(torch.empty(d, cfg.decay_rank).uniform_(-1e-4, 1e-4))
        self.time_decay_w2 = nn.Parameter(torch.empty(cfg.decay_rank, d).uniform_(-1e-2, 1e-2))
        bonus = deeper * (1 - span(d)) + 0.1 * zigzag(d)  # [C]
        self.time_faaaa = nn.Parameter(bonus.reshape(self.H, self.P))
        self.receptance = nn.Linear(d, d, bias=False)
        self.key = nn.Linear(d, d, bias=False)
        self.value = nn.Linear(d, d, bias=False)
        self.gate = nn.Linear(d, d, bias=False)
        self.output = calm(nn.Linear(d, d, bias=False), cfg.num_layers)
        self.ln_x = nn.GroupNorm(self.H, d, eps=GROUP_NORM_EPS)

    def initial_state(self, batch: int) -> State:
        zeros = self.time_decay.new_zeros
        return {"att_shift": zeros(batch, self.H * self.P), "wkv": zeros(batch, self.H, self.P, self.P)}

    def scan(self, u: Tensor, state: State, shared: Shared) -> tuple[Tensor, State]:
        """u [B, T, C] → ([B, T, C], state after it)."""
        (r, k, v, w), gate = self._project(u, shift(u, state["att_shift"]))
        y, wkv = wkv6_chunked(r, k, v, w, self.time_faaaa, state["wkv"])  # [B, T, H, P]
        return self._leave(y, gate), {"att_shift": u[:, -1], "wkv": wkv}

    def step(self, u: Tensor, state: State, shared: Shared) -> tuple[Tensor, State]:
        """u [B, C] → ([B, C], next state)."""
        (r, k, v, w), gate = self._project(u, state["att_shift"])
        y, wkv = wkv6_step(r, k, v, w, self.time_faaaa, state["wkv"])  # [B, H, P]
        return self._leave(y, gate), {"att_shift": u, "wkv": wkv}

    def _project(self, u: Tensor, previous: Tensor) -> tuple[list[Tensor], Tensor]:
        """u, previous [..., C] → receptance, key, value and log-decay, each [..., H, P], and gate [..., C]."""
        change = previous - u  # [..., C]
        low = torch.tanh((u + change * self.time_maa_x[0, 0]) @ self.time_maa_w1)  # [..., 5·rank]
        shares = self._shares() + torch.einsum(
            "...nr,nrc->...nc", low.reshape(*low.shape[:-1], BLENDS, -1), self.time_maa_w2
        )
        blends = u[..., None, :] + change[..., None, :] * shares  # [..., 5, C]
        w, k, v, r, g = blends.unbind(-2)  # each [..., C]
        decay = self.time_decay[0, 0] + torch.tanh(w @ self.time_decay_w1) @ self.time_decay_w2  # [..., C]
        heads = (self.receptance(r), self.key(k), self.value(v), -decay.exp())
        return [x.reshape(*x.shape[:-1], self.H, self.P) for x in heads], F.silu(self.gate(g))

    def _leave(self, y: Tensor, gate: Tensor) -> Tensor:
        """y [..., H, P], gate [..., C] → [..., C]."""
        normed = self.ln_x(y.reshape(-1, self.H * self.P)).reshape(gate.shape)  # [..., C]
        return self.output(normed * gate)  # type: ignore[no-any-return]

    def _shares(self) -> Tensor:
        """The constant part of how much of the previous input goes into each blend: [5, C]."""
        return torch.cat([self.time_maa_w, self.time_maa_k, self.time_maa_v, self.time_maa_r, self.time_maa_g], 1)[0]

    def emit(self, g: Graph, u: str, index: int, shared: Shared) -> str:
        """The step as nodes, 33 in the fast variant (with the norm before it 34)."""
        blends = self._emit_blends(g, u, index)
        matrices = {"key": self.key, "value": self.value, "receptance": self.receptance, "gate": self.gate}
        k, v, r, gate = (
            g.matmul(x, f"att.{name}", linear.weight)
            for x, (name, linear) in zip(blends[1:], matrices.items(), strict=True)
        )  # each [B, 1, C]
        decay = self._emit_decay(g, blends[0])
        y = (self._emit_wkv_fast if g.fast else self._emit_wkv_portable)(g, r, k, v, decay, index)
        # The bonus r·(u k v^T) is v times one number per head: Σ r u k, by two small MatMuls spread over the head.
        heads = np.kron(np.eye(self.H, dtype=np.float32), np.ones((1, self.P), np.float32))  # [H, C]
        bonus = heads.T * as_array(self.time_faaaa).reshape(-1, 1)  # [C, H]
        weight = g.op("MatMul", [g.op("Mul", [r, k]), g.const("att.time_faaaa", bonus)])  # [B, 1, H]
        weight = g.op("MatMul", [weight, g.const("att.heads", heads)])  # [B, 1, C]
        y = g.op("Add", [y, g.op("Mul", [weight, v])])
        out = g.op("Mul", [emit_group_norm(g, y, "att.ln_x", self.ln_x), g.silu(gate)])
        return g.matmul(out, "att.output", self.output.weight)

    def _emit_blends(self, g: Graph, u: str, index: int) -> list[str]:
        """The five blends, each [B, 1, C]."""
        change = g.op("Sub", [emit_shift(g, u, f"att_shift{index}", self.H * self.P), u])
        (entry,) = emit_blends(g, u, change, g.const("att.time_maa_x", as_array(self.time_maa_x)), 1)
        low = g.op("Tanh", [g.matmul(entry, "att.time_maa_w1", self.time_maa_w1.T)])  # [B, 1, 5·rank]
        lead, axis = ([-1], 1) if g.batch else ([], 0)  # a static batch of 1 needs no axis
        low = g.op("Reshape", [low, g.indices(*lead, BLENDS, 1, self.time_maa_w2.shape[1])])
        shares = g.op("MatMul", [low, g.const("att.time_maa_w2", as_array(self.time_maa_w2))])  # [(B,) 5, 1, C]
        if g.batch:
            shares = g.op("Reshape", [shares, g.indices(-1, BLENDS, self.H * self.P)])  # [B, 5, C]
        constant = as_array(self._shares())  # [5, C]
        shares = g.op("Add", [shares, g.const("att.time_maa", np.expand_dims(constant, 1 - axis))])
        return emit_blends(g, u, change, shares, BLENDS, axis=axis)

    def _emit_decay(self, g: Graph, blend: str) -> str:
        """Log-decay [B, 1, C]."""
        low = g.op("Tanh", [g.matmul(blend, "att.time_decay_w1", self.time_decay_w1.T)])  # [B, 1, rank]
        decay = g.matmul(low, "att.time_decay_w2", self.time_decay_w2.T)  # [B, 1, C]
        return g.op("Neg", [g.op("Exp", [g.op("Add", [decay, g.const("att.time_decay", as_array(self.time_decay))])])])

    def _emit_wkv_fast(self, g: Graph, r: str, k: str, v: str, decay: str, index: int) -> str:
        """com.microsoft: r^T S_{t-1} [B, 1, C].

        LinearAttention reads the state after updating it, so each step makes the update of the step before it, whose
        ``key``, ``value`` and ``decay`` are further states.
        """
        before = [
            g.state(f"{name}{index}", np.zeros((1, 1, self.H * self.P), np.float32))
            for name in ("key", "value", "decay")
        ]
        wkv = g.state(f"wkv{index}", np.zeros((1, self.H, self.P, self.P), np.float32))
        y, after = g.ops(
            "LinearAttention", [r, before[0], before[1], wkv, before[2]], 2, domain=CONTRIB,
            update_rule="gated", scale=1.0, q_num_heads=self.H, kv_num_heads=self.H,
        )  # fmt: skip
        for name, value in (("key", k), ("value", v), ("decay", decay), ("wkv", after)):
            g.set_state(f"{name}{index}", value)
        return y

    def _emit_wkv_portable(self, g: Graph, r: str, k: str, v: str, decay: str, index: int) -> str:
        """The same in standard operators, with ``wkv`` alone: it reads the state before updating it."""
        wkv = g.state(f"wkv{index}", np.zeros((1, self.H, self.P, self.P), np.float32))
        column, row = g.indices(-1, self.H, self.P, 1), g.indices(-1, self.H, 1, self.P)
        kept = g.op("Mul", [wkv, g.op("Reshape", [g.op("Exp", [decay]), column])])  # [B, H, P, P]
        added = g.op("Mul", [g.op("Reshape", [k, column]), g.op("Reshape", [v, row])])  # [B, H, P, P]
        g.set_state(f"wkv{index}", g.op("Add", [kept, added]))
        read = g.op("MatMul", [g.op("Reshape", [r, row]), wkv])  # [B, H, 1, P]
        return g.op("Reshape", [read, g.indices(-1, 1, self.H * self.P)])


class RWKV6ChannelMix(ChannelMix):
    """The feed-forward branch."""

    def __init__(self, cfg: RWKV6Config, layer: int) -> None:
        super().__init__(cfg.hidden_dim, cfg.inner, gated=True)
        calm(self.value, cfg.num_layers)
        share = (1 - ramp(cfg.hidden_dim) ** depth(layer, cfg.num_layers)[1])[None, None]
        self.time_maa_k, self.time_maa_r = nn.Parameter(share), nn.Parameter(share.clone())

    def shares(self) -> list[Tensor]:
        return [self.time_maa_k, self.time_maa_r]


class RWKV6(RWKVNetwork):
    """input_projection → RWKV-6 blocks → output_projection, on normalised values."""

    def __init__(self, cfg: RWKV6Config) -> None:
        blocks = [
            RWKVBlock(cfg.hidden_dim, RWKV6TimeMix(cfg, i), RWKV6ChannelMix(cfg, i), first=i == 0)
            for i in range(cfg.num_layers)
        ]
        super().__init__(cfg, blocks)
