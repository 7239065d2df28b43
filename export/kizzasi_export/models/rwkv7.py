"""RWKV-7 "Goose" (Peng et al. 2025, arXiv 2503.14456), with BlinkDL's parameter names.

Parameters of ``blocks.{i}`` and ``ln_out`` exchange with a reference checkpoint; our input and output projections
stand where it has ``emb`` and ``head``. The equations are those of the paper's §4.1 (time mixing) and §4.2 (MLP).
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
from kizzasi_export.models.delta_rule import delta_chunked, delta_step
from kizzasi_export.models.rwkv_parts import (
    GROUP_NORM_EPS,
    ChannelMix,
    RWKVBlock,
    RWKVHeadsConfig,
    RWKVNetwork,
    emit_blends,
    emit_group_norm,
    emit_shift,
    ramp,
    shift,
)
from kizzasi_export.models.stack import Mixer, Shared

DECAY_RATE = math.exp(-0.5)
"""Bound of −log w: decay leaves at least 54.5 % of a state in each step."""


Rule = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""What `delta_chunked` and `delta_step` take before the state."""


@dataclass(frozen=True)
class RWKV7Config(RWKVHeadsConfig):
    """Sizes of an RWKV-7 network.

    `*_rank` are the ranks of the low-rank projections of decay w, in-context rate a, value residual and gate g. None =
    the reference's rule for the width, in steps of 8 where it takes 32 (its models are 768 and wider). `ffn_dim` None =
    4·hidden_dim.
    """

    decay_rank: int | None = None
    rate_rank: int | None = None
    value_rank: int | None = None
    gate_rank: int | None = None
    ffn_dim: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head < 2:
            raise ValueError(
                f"head_dim = {self.head} with hidden_dim = {self.hidden_dim}, expected ≥ 2: the norm within each head "
                "would leave nothing; an odd hidden_dim needs a head_dim that divides it"
            )

    @property
    def ranks(self) -> dict[str, int]:
        """Rank by the reference's letter: w, a, v, g."""
        root = math.sqrt(self.hidden_dim)
        rules = {
            "w": (self.decay_rank, 1.8 * root),
            "a": (self.rate_rank, 1.8 * root),
            "v": (self.value_rank, 1.3 * root),
            "g": (self.gate_rank, 0.6 * self.hidden_dim**0.8),
        }
        return {name: given or max(8, 8 * round(rule / 8)) for name, (given, rule) in rules.items()}

    @property
    def ffn(self) -> int:
        return 4 * self.hidden_dim if self.ffn_dim is None else self.ffn_dim


class RWKV7TimeMix(Mixer):
    """The branch with the matrix state: a generalised delta rule with decay, in-context rate and value residual.

    States of `scan` and `step`: ``att_shift`` [B, C], the last input, and ``wkv`` [B, H, N, N] (value, key), as in the
    reference. Layer 0 hands its values to the later layers as ``shared["v_first"]``.
    """

    states = ("att_shift", "wkv")

    def __init__(self, cfg: RWKV7Config, layer: int) -> None:
        super().__init__()
        C, self.N, self.layer = cfg.hidden_dim, cfg.head, layer
        self.C, self.H = C, C // cfg.head
        ranks, x = cfg.ranks, ramp(C)
        depth, fade = layer / max(1, cfg.num_layers - 1), 1 - layer / cfg.num_layers
        # Initial values as in the reference: channels differ in memory, from an instant to hundreds of steps.
        across = torch.linspace(0, 1, C)  # over all channels
        within = torch.linspace(-1, 1, self.N).repeat(self.H)  # over each head's
        bent = within * within.abs()
        self.x_r, self.x_g = _row(1 - x ** (0.2 * fade)), _row(1 - x ** (0.2 * fade))
        self.x_w, self.x_a = _row(1 - x ** (0.9 * fade)), _row(1 - x ** (0.9 * fade))
        self.x_k, self.x_v = _row(1 - x ** (0.7 * fade)), _row(1 - x ** (0.7 * fade))
        self.w0 = _row(-5.5 + 6 * across ** (1 + depth**0.3) + 2.5 * bent)
        self.w1, self.w2 = _low_rank(C, ranks["w"], 0.1)
        self.a0 = _row(-0.19 + 0.3 * bent + 0.4 * (across - 0.5))
        self.a1, self.a2 = _low_rank(C, ranks["a"], 0.1)
        if layer > 0:
            self.v0 = _row(0.73 - 0.4 * (across - 0.5))
            self.v1, self.v2 = _low_rank(C, ranks["v"], 0.1)
        self.g1, self.g2 = _low_rank(C, ranks["g"], 1.0)
        self.k_k = _row(0.71 - 0.1 * (across - 0.5))
        self.k_a = _row(torch.full((C,), 1.02))
        self.r_k = nn.Parameter(torch.full((self.H, self.N), -0.04))
        self.receptance, self.key, self.value, self.output = (nn.Linear(C, C, bias=False) for _ in range(4))
        self.ln_x = nn.GroupNorm(self.H, C, eps=GROUP_NORM_EPS)
        with torch.no_grad():
            self.output.weight /= math.sqrt(2 * cfg.num_layers)  # the reference starts it at 0, a dead branch
            self.ln_x.weight.fill_(((1 + layer) / cfg.num_layers) ** 0.7)

    def initial_state(self, batch: int) -> State:
        zeros = self.r_k.new_zeros
        return {"att_shift": zeros(batch, self.C), "wkv": zeros(batch, self.H, self.N, self.N)}

    def scan(self, u: Tensor, state: State, shared: Shared) -> tuple[Tensor, State]:
        """u [B, T, C] → ([B, T, C], state after it)."""
        rule, gate = self._rule(u, shift(u, state["att_shift"]), shared)
        with torch.autocast(u.device.type, enabled=False):  # in few bits the triangular systems would not solve
            r, log_w, k, v, a, b = (x.to(u.dtype) for x in rule)
            y, wkv = delta_chunked(r, log_w, k, v, a, b, state["wkv"])  # [B, T, H, N] [B, H, N, N]
        return self._read(y, rule, gate), {"att_shift": u[:, -1], "wkv": wkv}

    def step(self, u: Tensor, state: State, shared: Shared) -> tuple[Tensor, State]:
        """u [B, C] → ([B, C], next state)."""
        rule, gate = self._rule(u, state["att_shift"], shared)
        y, wkv = delta_step(*rule, state["wkv"])  # [B, H, N] [B, H, N, N]
        return self._read(y, rule, gate), {"att_shift": u, "wkv": wkv}

    def _rule(self, u: Tensor, previous: Tensor, shared: Shared) -> tuple[Rule, Tensor]:
        """u, previous [..., C] → the delta rule's r, log w, k, v, a, b, each [..., H, N], and the gate [..., C]."""
        change = previous - u  # [..., C]
        shares = (self.x_r, self.x_w, self.x_k, self.x_v, self.x_a, self.x_g)
        xr, xw, xk, xv, xa, xg = (u + change * share.flatten() for share in shares)  # [..., C] each
        r, k, v = self.receptance(xr), self.key(xk), self.value(xv)  # [..., C] each
        log_w = -DECAY_RATE * torch.sigmoid(self.w0.flatten() + torch.tanh(xw @ self.w1) @ self.w2)  # [..., C]
        rate = torch.sigmoid(self.a0.flatten() + xa @ self.a1 @ self.a2)  # [..., C]
        gate = torch.sigmoid(xg @ self.g1) @ self.g2  # [..., C]
        removal = F.normalize(self._heads(k * self.k_k.flatten()), dim=-1)  # [..., H, N]
        k = k * (1 + (rate - 1) * self.k_a.flatten())  # [..., C]
        if self.layer == 0:
            shared["v_first"] = v
        else:
            v = v + (shared["v_first"] - v) * torch.sigmoid(self.v0.flatten() + xv @ self.v1 @ self.v2)  # [..., C]
        r, log_w, k, v, rate = (self._heads(x) for x in (r, log_w, k, v, rate))  # [..., H, N] each
        return (r, log_w, k, v, -removal, removal * rate), gate

    def _read(self, y: Tensor, rule: Rule, gate: Tensor) -> Tensor:
        """The rule's result y [..., H, N] → [..., C]: norm per head, bonus for the present, gate, projection."""
        r, _, k, v, _, _ = rule
        bonus = (r * k * self.r_k).sum(-1, keepdim=True) * v  # [..., H, N]
        normed = self.ln_x(y.reshape(-1, self.C)).reshape(gate.shape)  # [..., C]
        return self.output((normed + bonus.reshape(gate.shape)) * gate)  # type: ignore[no-any-return]

    def _heads(self, x: Tensor) -> Tensor:
        """[..., C] → [..., H, N]."""
        return x.reshape(*x.shape[:-1], self.H, self.N)

    def emit(self, g: Graph, u: str, index: int, shared: Shared) -> str:
        """The step as nodes. The graph keeps ``wkv`` transposed, [B, H, N, N] (key, value)."""
        last = emit_shift(g, u, f"att_shift{index}", self.C)
        names = ("x_r", "x_w", "x_k", "x_v", "x_a", "x_g")
        shares = np.concatenate([as_array(getattr(self, name)) for name in names], 1)  # [1, 6, C]
        blends = emit_blends(g, u, g.op("Sub", [last, u]), g.const("att.shares", shares), 6)
        xr, xw, xk, xv, xa, xg = blends  # [B, 1, C] each
        r = g.matmul(xr, "att.receptance", self.receptance.weight)
        k = g.matmul(xk, "att.key", self.key.weight)
        v = g.matmul(xv, "att.value", self.value.weight)
        gate = g.matmul(g.op("Sigmoid", [g.matmul(xg, "att.g1", self.g1.T)]), "att.g2", self.g2.T)
        log_w, rate, scale, residual = self._emit_sigmoids(g, xw, xa, xv)
        if self.layer == 0:
            shared["v_first"] = v
        else:
            v = g.op("Add", [v, g.op("Mul", [g.op("Sub", [shared["v_first"], v]), residual])])
        raw = g.op("Mul", [k, g.const("att.k_k", as_array(self.k_k))])
        removal = g.op("LpNormalization", [self._emit_rows(g, raw)], axis=-1, p=2)  # [B, H, 1, N]
        k = g.op("Mul", [k, scale])  # [B, 1, C]
        emit_state = self._emit_state_fast if g.fast else self._emit_state_portable
        y = emit_state(g, f"wkv{index}", r, log_w, k, v, removal, rate)  # C channels
        normed = emit_group_norm(g, y, "att.ln_x", self.ln_x)
        # Two small constant products sum r·k·r_k over each head and spread the sum over it again.
        member = np.repeat(np.eye(self.H, dtype=np.float32), self.N, axis=0)  # [C, H]
        weights = as_array(self.r_k).reshape(-1, 1) * member  # [C, H]
        summed = g.op("MatMul", [g.op("Mul", [r, k]), g.const("att.r_k", weights)])  # [B, 1, H]
        bonus = g.op("Mul", [g.op("MatMul", [summed, g.const("att.heads", member.T)]), v])  # [B, 1, C]
        gated = g.op("Mul", [g.op("Add", [normed, bonus]), gate])  # [B, 1, C]
        return g.matmul(gated, "att.output", self.output.weight)

    def _emit_sigmoids(self, g: Graph, xw: str, xa: str, xv: str) -> list[str]:
        """log w, in-context rate, 1 + (rate − 1)·k_a and, past layer 0, the value residual's share: [B, 1, C] each.

        All are affine in a sigmoid, so they are computed as rows of one value.
        """
        hidden = g.op("Tanh", [g.matmul(xw, "att.w1", self.w1.T)])
        w = g.matmul(hidden, "att.w2", self.w2.T)
        a = g.matmul(g.matmul(xa, "att.a1", self.a1.T), "att.a2", self.a2.T)
        one, zero = torch.ones_like(self.k_a), torch.zeros_like(self.k_a)
        rows: list[str] = [w, a, a]
        bias: list[Tensor] = [self.w0, self.a0, self.a0]
        slope, offset = [-DECAY_RATE * one, one, self.k_a], [zero, zero, 1 - self.k_a]
        if self.layer > 0:
            rows.append(g.matmul(g.matmul(xv, "att.v1", self.v1.T), "att.v2", self.v2.T))
            bias, slope, offset = [*bias, self.v0], [*slope, one], [*offset, zero]
        biases, slopes, offsets = (as_array(torch.cat(parts, 1)) for parts in (bias, slope, offset))  # [1, rows, C]
        stacked = g.op("Add", [g.op("Concat", rows, axis=1), g.const("att.bias", biases)])  # [B, rows, C]
        scaled = g.op("Mul", [g.op("Sigmoid", [stacked]), g.const("att.slope", slopes)])
        shifted = g.op("Add", [scaled, g.const("att.offset", offsets)])
        split = g.ops("Split", [shifted, g.indices(*[1] * len(rows))], len(rows), axis=1)
        return [*split, ""] if self.layer == 0 else split

    def _emit_state_fast(self, g: Graph, name: str, r: str, log_w: str, k: str, v: str, removal: str, rate: str) -> str:
        """Removal in standard operators, then com.microsoft's gated recurrence: S ← diag(w) (S − …) + k v^T.

        Its own delta rules remove along the key that they add, which RWKV-7 does not. The removal happens before the
        decay here, so its left factor is divided by w (≥ 0.545).
        """
        S = g.state(name, np.zeros((1, self.H, self.N, self.N), np.float32))
        undecayed = g.op("Div", [rate, g.op("Exp", [log_w])])  # [B, 1, C]
        left = g.op("Mul", [removal, self._emit_rows(g, undecayed)])  # [B, H, 1, N]
        removed = g.op("MatMul", [self._emit_columns(g, left), g.op("MatMul", [removal, S])])  # [B, H, N, N]
        y, S = g.ops(
            "LinearAttention", [r, k, v, g.op("Sub", [S, removed]), log_w], 2, domain=CONTRIB,
            update_rule="gated", scale=1.0, q_num_heads=self.H, kv_num_heads=self.H,
        )  # fmt: skip
        g.set_state(name, S)
        return y

    def _emit_state_portable(
        self, g: Graph, name: str, r: str, log_w: str, k: str, v: str, removal: str, rate: str
    ) -> str:
        """S ← diag(w) S + [−b, k] [κ̂^T S; v^T]: removal and addition are one product of rank 2."""
        S = g.state(name, np.zeros((1, self.H, self.N, self.N), np.float32))
        minus = g.op("Neg", [g.op("Mul", [removal, self._emit_rows(g, rate)])])  # [B, H, 1, N]
        left = g.op("Concat", [self._emit_columns(g, minus), self._emit_columns(g, k)], axis=-1)  # [B, H, N, 2]
        right = g.op("Concat", [g.op("MatMul", [removal, S]), self._emit_rows(g, v)], axis=-2)  # [B, H, 2, N]
        kept = g.op("Mul", [S, self._emit_columns(g, g.op("Exp", [log_w]))])  # [B, H, N, N]
        S = g.op("Add", [kept, g.op("MatMul", [left, right])])
        g.set_state(name, S)
        return g.op("MatMul", [self._emit_rows(g, r), S])  # [B, H, 1, N]

    def _emit_rows(self, g: Graph, x: str) -> str:
        """Value of C channels → [B, H, 1, N]."""
        return g.op("Reshape", [x, g.indices(-1, self.H, 1, self.N)])

    def _emit_columns(self, g: Graph, x: str) -> str:
        """Value of C channels → [B, H, N, 1]."""
        return g.op("Reshape", [x, g.indices(-1, self.H, self.N, 1)])


class RWKV7ChannelMix(ChannelMix):
    """value(relu(key(x'))²) with a learnt token shift and no gate."""

    def __init__(self, cfg: RWKV7Config, layer: int) -> None:
        super().__init__(cfg.hidden_dim, cfg.ffn, gated=False)
        self.x_k = _row(1 - ramp(cfg.hidden_dim) ** (1 - layer / cfg.num_layers) ** 4)
        with torch.no_grad():
            self.value.weight /= math.sqrt(2 * cfg.num_layers)

    def shares(self) -> list[Tensor]:
        return [self.x_k]


class RWKV7(RWKVNetwork):
    """input_projection → ln0 → RWKV-7 blocks → ln_out → output_projection, on normalised values."""

    def __init__(self, cfg: RWKV7Config) -> None:
        layers = range(cfg.num_layers)
        super().__init__(
            cfg,
            [RWKVBlock(cfg.hidden_dim, RWKV7TimeMix(cfg, i), RWKV7ChannelMix(cfg, i), first=i == 0) for i in layers],
        )


def _row(values: Tensor) -> nn.Parameter:
    """[C] → a parameter [1, 1, C], the reference's shape."""
    return nn.Parameter(values.reshape(1, 1, -1).clone())


def _low_rank(width: int, rank: int, gain: float) -> tuple[nn.Parameter, nn.Parameter]:
    """Factors [width, rank] and [rank, width] that start small but not at 0."""
    down, up = torch.empty(width, rank), torch.empty(rank, width)
    return nn.Parameter(nn.init.orthogonal_(down, 0.1)), nn.Parameter(nn.init.orthogonal_(up, gain))
