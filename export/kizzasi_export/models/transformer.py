"""A sliding-window transformer whose step is O(1): Llama's layers (Touvron et al. 2023) over a ring KV cache.

Parameter names and shapes of ``layers.{i}.*`` and ``norm`` are those of transformers' Llama (Mistral with
``sliding_window = context_window`` computes the same function), so state_dicts exchange with it.

The cache is a ring: position p lives in slot p mod W, W = context_window, and a step at p writes its slot before it
reads. Slots that no position has reached hold zeros and are masked. Hence whatever an abandoned step left behind, NaN
included, lies in the slot that the next step writes first: that is why the exported graph may update rings in place.
Whoever sets a position back must set its rings back with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kizzasi_export.graph import Graph
from kizzasi_export.models.base import State
from kizzasi_export.models.feed_forward import Activation, FeedForward
from kizzasi_export.models.norm import RMSNorm
from kizzasi_export.models.rotary import angles, emit_angles, emit_rotate, frequencies, rotate
from kizzasi_export.models.stack import Branch, Mixer, NetworkConfig, ResidualNetwork, Shared

BLOCK = 128
"""Queries of one attention call of `scan`: bounds its scores to BLOCK × (W + BLOCK) however long the sequence is."""


@dataclass(frozen=True)
class TransformerConfig(NetworkConfig):
    """Sizes of a transformer. `state_dim` is not used: what it remembers is `context_window` steps.

    `head_dim` None = the largest power of two ≤ 64 that divides the width. `ffn_dim` None = 4·hidden_dim for "gelu",
    the multiple of 32 nearest to 8/3·hidden_dim for "swiglu" (as many parameters; Shazeer 2020, §3).
    """

    context_window: int = 128
    head_dim: int | None = None
    ffn: Activation = "swiglu"
    ffn_dim: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden_dim % 2:
            raise ValueError(f"hidden_dim = {self.hidden_dim}, expected an even number (positions turn channel pairs)")
        if self.hidden_dim % self.head or self.head % 2:
            raise ValueError(f"head_dim = {self.head}, expected an even divisor of hidden_dim = {self.hidden_dim}")
        if self.ffn not in ("swiglu", "gelu"):
            raise ValueError(f"ffn = {self.ffn!r}, expected 'swiglu' or 'gelu'")

    @property
    def head(self) -> int:
        return self.head_dim if self.head_dim is not None else math.gcd(self.hidden_dim, 64)

    @property
    def inner(self) -> int:
        if self.ffn_dim is not None:
            return self.ffn_dim
        return 4 * self.hidden_dim if self.ffn == "gelu" else 32 * max(1, round(self.hidden_dim / 12))


class SelfAttention(Mixer):
    """Causal attention to the last W positions, self included, with rotary positions (Llama's, without grouping).

    States: rings ``k`` (rotated keys) and ``v``, both [B, H, W, D].
    """

    states = ("k", "v")

    def __init__(self, cfg: TransformerConfig) -> None:
        super().__init__()
        self.W, self.D, self.H = cfg.context_window, cfg.head, cfg.hidden_dim // cfg.head
        self.q_proj = nn.Linear(cfg.hidden_dim, cfg.hidden_dim, bias=False)
        self.k_proj = nn.Linear(cfg.hidden_dim, cfg.hidden_dim, bias=False)
        self.v_proj = nn.Linear(cfg.hidden_dim, cfg.hidden_dim, bias=False)
        self.o_proj = nn.Linear(cfg.hidden_dim, cfg.hidden_dim, bias=False)

    def initial_state(self, batch: int) -> State:
        return {name: self.o_proj.weight.new_zeros(batch, self.H, self.W, self.D) for name in self.states}

    def scan(self, u: Tensor, state: State, shared: Shared) -> tuple[Tensor, State]:
        """u [B, T, hidden] → ([B, T, hidden], state after it)."""
        t, start, past = u.shape[1], shared["start"], shared["past"]  # T, [B, 1], ≤ W - 1
        q, k, v = self._project(u, shared)  # [B, H, T, D]
        slots = (start - past + torch.arange(past, device=u.device)) % self.W  # [B, past], oldest first
        index = slots[:, None, :, None].expand(-1, self.H, -1, self.D)  # [B, H, past, D]
        keys = torch.cat([state["k"].gather(2, index), k], 2)  # [B, H, past + T, D]
        values = torch.cat([state["v"].gather(2, index), v], 2)
        outs = []
        for i in range(0, t, BLOCK):
            rows = slice(i, min(i + BLOCK, t))
            reach = slice(max(0, past + i - self.W + 1), past + rows.stop)
            mask = self._mask(rows, reach, shared)  # [B | 1, 1, L, S]
            outs.append(F.scaled_dot_product_attention(q[:, :, rows], keys[:, :, reach], values[:, :, reach], mask))
        out = self.o_proj(self._join(torch.cat(outs, 2)))
        kept = min(t, self.W)
        last = start + t - kept + torch.arange(kept, device=u.device)  # [B, kept]
        return out, {name: self._write(state[name], last, new[:, :, t - kept :]) for name, new in (("k", k), ("v", v))}

    def step(self, u: Tensor, state: State, shared: Shared) -> tuple[Tensor, State]:
        """u [B, hidden] → ([B, hidden], next state)."""
        position = shared["start"]  # [B, 1]
        q, k, v = self._project(u[:, None], shared)  # [B, H, 1, D]
        k, v = self._write(state["k"], position, k), self._write(state["v"], position, v)  # [B, H, W, D]
        reached = torch.arange(self.W, device=u.device) <= position  # [B, W]; all of them once the ring is full
        scores = (q @ k.mT / math.sqrt(self.D)).masked_fill(~reached[:, None, None], float("-inf"))  # [B, H, 1, W]
        out: Tensor = self.o_proj(self._join(scores.softmax(-1) @ v)[:, 0])  # [B, hidden]
        return out, {"k": k, "v": v}

    def emit(self, g: Graph, u: str, index: int, shared: Shared) -> str:
        """The step as nodes, 9 in the fast variant (with the norm before it 10); rings as in `step`."""
        ring = np.zeros((1, self.H, self.W, self.D), np.float32)
        k_ring, v_ring = (g.state(f"{name}{index}", ring, in_place=g.fast) for name in self.states)
        together = g.matmul(u, "qkv_proj", self._stacked())  # [B, 1, 3·hidden]
        heads = g.op("Reshape", [together, g.indices(-1, self.H, 3, self.D)])
        turned = emit_rotate(g, heads, shared["cos"], shared["sin"])  # [B, H, 3, D]
        q, k, v = g.ops("Split", [turned, g.indices(1, 1, 1)], 3, axis=2)  # each [B, H, 1, D]
        k_ring, v_ring = (self._emit_write(g, *pair, shared) for pair in ((k_ring, k), (v_ring, v)))
        read = (self._emit_read_fast if g.fast else self._emit_read_portable)(g, q, k_ring, v_ring, shared)
        g.set_state(f"k{index}", k_ring)
        g.set_state(f"v{index}", v_ring)
        joined = g.op("Reshape", [read, g.indices(-1, 1, self.H * self.D)])  # [B, 1, hidden]
        return g.matmul(joined, "o_proj", self.o_proj.weight)

    def _stacked(self) -> Tensor:
        """q, k and v projections as one matrix [H·3·D, hidden], head by head; q's is divided by √D.

        With a scale of 1 onnxruntime's Attention multiplies by its fast kernel for single rows (1.5 times faster).
        """
        q = self.q_proj.weight / math.sqrt(self.D)
        parts = [w.reshape(self.H, self.D, -1) for w in (q, self.k_proj.weight, self.v_proj.weight)]
        return torch.stack(parts, 1).flatten(0, 2)  # [H, 3, D, hidden] → [H·3·D, hidden]

    def _emit_write(self, g: Graph, ring: str, new: str, shared: Shared) -> str:
        """A ring [B, H, W, D] with `new` [B, H, 1, D] in the step's slot."""
        if g.fast:
            return g.op("TensorScatter", [ring, new, shared["position"]], mode="circular")
        return g.op("Where", [shared["slot"], new, ring])

    def _emit_read_fast(self, g: Graph, q: str, k: str, v: str, shared: Shared) -> str:
        """Attention of q [B, H, 1, D] to the reached slots of the rings → [B, H, 1, D]."""
        return g.op("Attention", [q, k, v, "", "", "", shared["reached"]], scale=1.0)

    def _emit_read_portable(self, g: Graph, q: str, k: str, v: str, shared: Shared) -> str:
        """The same in standard operators; q stands as a column, so that no ring is transposed."""
        column = g.op("Reshape", [q, g.indices(-1, self.H, self.D, 1)])
        scores = g.op("Reshape", [g.op("MatMul", [k, column]), g.indices(-1, self.H, 1, self.W)])  # [B, H, 1, W]
        weights = g.op("Softmax", [g.op("Add", [scores, shared["mask"]])], axis=-1)
        return g.op("MatMul", [weights, v])

    def _project(self, u: Tensor, shared: Shared) -> tuple[Tensor, Tensor, Tensor]:
        """u [B, T, hidden] → q, k (rotated) and v, each [B, H, T, D]."""
        q, k, v = (
            proj(u).reshape(*u.shape[:2], self.H, self.D).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        return rotate(q, shared["cos"], shared["sin"]), rotate(k, shared["cos"], shared["sin"]), v

    def _join(self, heads: Tensor) -> Tensor:
        """[B, H, T, D] → [B, T, hidden]."""
        return heads.transpose(1, 2).flatten(2)

    def _write(self, ring: Tensor, positions: Tensor, new: Tensor) -> Tensor:
        """A ring [B, H, W, D] with `new` [B, H, n, D] at `positions` [B, n], n ≤ W."""
        index = (positions % self.W)[:, None, :, None].expand_as(new)
        return ring.scatter(2, index, new.to(ring.dtype))  # under autocast they differ

    def _mask(self, rows: slice, reach: slice, shared: Shared) -> Tensor:
        """Which of the keys `reach` the queries `rows` see, bool [B or 1, 1, L, S]. Key j is that of query j - past."""
        past, start = shared["past"], shared["start"]
        j = torch.arange(reach.start, reach.stop, device=start.device)  # [S]
        behind = past + torch.arange(rows.start, rows.stop, device=start.device)[:, None] - j  # [L, S]
        seen: Tensor = ((behind >= 0) & (behind < self.W))[None]  # [1, L, S]
        if shared["uneven"] and reach.start < past:
            seen = seen & (start[..., None] - past + j >= 0)  # [B, L, S]
        return seen[:, None]


class TransformerBlock(nn.Module):
    """Norms, attention and MLP under Llama's names."""

    def __init__(self, cfg: TransformerConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(cfg.hidden_dim)
        self.self_attn = SelfAttention(cfg)
        self.post_attention_layernorm = RMSNorm(cfg.hidden_dim)
        self.mlp = FeedForward(cfg.hidden_dim, cfg.inner, cfg.ffn)


class Transformer(ResidualNetwork):
    """input_projection → transformer layers → output_projection, on normalised values."""

    def __init__(self, cfg: TransformerConfig) -> None:
        super().__init__(cfg)
        self.cfg = cfg
        self.layers = nn.ModuleList(TransformerBlock(cfg) for _ in range(cfg.num_layers))
        self.norm = RMSNorm(cfg.hidden_dim)
        for block in self.blocks:  # keep the residual stream's scale as depth grows (Radford et al. 2019, §2.3)
            with torch.no_grad():
                block.self_attn.o_proj.weight /= math.sqrt(2 * cfg.num_layers)
                block.mlp.down_proj.weight /= math.sqrt(2 * cfg.num_layers)

    @property
    def blocks(self) -> list[TransformerBlock]:
        return [layer for layer in self.layers if isinstance(layer, TransformerBlock)]

    def branches(self) -> list[Branch]:
        pairs = [
            (Branch(i, b.input_layernorm, b.self_attn), Branch(i, b.post_attention_layernorm, b.mlp))
            for i, b in enumerate(self.blocks)
        ]
        return [branch for pair in pairs for branch in pair]

    def final_norm(self) -> RMSNorm:
        return self.norm

    def own_state(self, batch: int) -> State:
        """``position`` int64 [B, 1]: steps taken so far."""
        return {"position": torch.zeros(batch, 1, dtype=torch.int64, device=self.norm.weight.device)}

    def parity_states(self, batch: int) -> list[State]:
        """Eleven days at 1 kHz, where a float32 counter has long stopped and its angles are noise."""
        return [{"position": torch.full((batch, 1), 10**9)}]

    def advance(self, state: State, steps: int) -> tuple[Shared, State]:
        """What every layer needs to know about time: where the call starts, the angles, and how far back rings go."""
        start = state["position"]  # [B, 1]
        positions = start + torch.arange(steps, device=start.device)  # [B, T]
        cos, sin = angles(positions, self.cfg.head, self.norm.weight.dtype)  # [B, T, D/2]
        past = min(int(start.max()), self.cfg.context_window - 1)
        uneven = int(start.min()) < past  # some streams have less past than others
        return {"start": start, "cos": cos, "sin": sin, "past": past, "uneven": uneven}, {"position": start + steps}

    def emit_advance(self, g: Graph) -> Shared:
        """fast: ``position`` [B] and ``reached`` [B], the number of slots to read. portable: ``slot`` [B, 1, W, 1] and
        ``mask`` [B, 1, 1, W]. Both: ``cos`` and ``sin`` [B, 3, D/2] for (q, k, v), where v is turned by nothing.
        """
        g.scope("position")
        window, head = self.cfg.context_window, self.cfg.head
        rates = np.outer([1, 1, 0], frequencies(head))  # [3, D/2]
        position = g.state("position", np.zeros((1, 1), np.int64))  # [B, 1]
        after = g.op("Add", [position, g.indices(1)])  # [B, 1]
        g.set_state("position", after)
        if g.fast:
            g.require_opset(24)  # TensorScatter, and Attention with nonpad_kv_seqlen
            cos, sin = emit_angles(g, g.op("Unsqueeze", [position, g.indices(2)]), rates)  # each [B, 3, D/2]
            reached = g.op("Min", [after, g.indices(window)])  # [B, 1]
            rows = {"position": position, "reached": reached}
            return {"cos": cos, "sin": sin} | {k: g.op("Squeeze", [v, g.indices(1)]) for k, v in rows.items()}
        at = g.op("Reshape", [position, g.indices(-1, 1, 1, 1)])  # [B, 1, 1, 1]
        cos, sin = emit_angles(g, at, rates)  # each [B, 1, 3, D/2]
        slots = np.arange(window)
        own = g.op("Mod", [at, g.indices(window)])  # [B, 1, 1, 1]
        slot = g.op("Equal", [g.const("slots_column", slots[:, None]), own])  # [B, 1, W, 1]
        seen = g.op("LessOrEqual", [g.const("slots_row", slots), at])  # [B, 1, 1, W]
        zero, shut = (g.const(name, np.array([v], np.float32)) for name, v in (("zero", 0.0), ("shut", -1e38)))
        return {"cos": cos, "sin": sin, "slot": slot, "mask": g.op("Where", [seen, zero, shut])}
