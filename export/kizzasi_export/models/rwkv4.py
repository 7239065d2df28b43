"""RWKV-4 "Dove" (Peng et al. 2023): parameters as in BlinkDL's RWKV-LM, plus our input and output projections.

Names and shapes of ``blocks.{i}.*`` and ``ln_out`` are the reference's; ``input_projection`` and
``output_projection`` stand in place of ``emb`` and ``head``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
import torch
from torch import Tensor, nn

from kizzasi_export.graph import Graph, as_array
from kizzasi_export.models.base import State
from kizzasi_export.models.rwkv_parts import (
    ChannelMix,
    RWKVBlock,
    RWKVNetwork,
    calm,
    depth,
    emit_blends,
    emit_shift,
    ramp,
    shift,
    span,
    zigzag,
)
from kizzasi_export.models.stack import Mixer, NetworkConfig, Shared
from kizzasi_export.models.wkv4 import NEVER, WKV4State, wkv4_parallel, wkv4_step

EXP_RANGE = 80.0
"""Exponents in the graph stay within ±80, where float32's exp neither overflows nor vanishes."""


@dataclass(frozen=True)
class RWKV4Config(NetworkConfig):
    """Sizes of an RWKV-4 network. `state_dim` plays no part: the state is five vectors of the width."""


class RWKV4TimeMix(Mixer):
    """Token shift, the wkv recurrence, and a sigmoid gate (eqs. 11-13, 16, 17).

    States of `scan` and `step`, each [B, C]: ``att_shift``, and the recurrence's ``aa``, ``bb``, ``pp``.
    """

    states = ("att_shift", "aa", "bb", "pp")
    _wkv_of = itemgetter("aa", "bb", "pp")

    def __init__(self, cfg: RWKV4Config, layer: int) -> None:
        super().__init__()
        d = cfg.hidden_dim
        deeper, shallower = depth(layer, cfg.num_layers)
        place = ramp(d)
        self.time_decay = nn.Parameter(-5 + 8 * span(d) ** (0.7 + 1.3 * deeper))  # log(-w)
        self.time_first = nn.Parameter(math.log(0.3) + 0.5 * zigzag(d))
        self.time_mix_k = nn.Parameter((place**shallower)[None, None])
        self.time_mix_v = nn.Parameter((place**shallower + 0.3 * deeper)[None, None])
        self.time_mix_r = nn.Parameter((place ** (0.5 * shallower))[None, None])
        self.key = nn.Linear(d, d, bias=False)
        self.value = nn.Linear(d, d, bias=False)
        self.receptance = nn.Linear(d, d, bias=False)
        self.output = calm(nn.Linear(d, d, bias=False), cfg.num_layers)

    def initial_state(self, batch: int) -> State:
        zero = self.time_decay.new_zeros(batch, len(self.time_decay))
        return {"att_shift": zero, "aa": zero.clone(), "bb": zero.clone(), "pp": torch.full_like(zero, NEVER)}

    def scan(self, u: Tensor, state: State, shared: Shared) -> tuple[Tensor, State]:
        """u [B, T, C] → ([B, T, C], state after it)."""
        k, v, r = self._project(u, shift(u, state["att_shift"]))  # each [B, T, C]
        y, wkv = wkv4_parallel(k, v, -self.time_decay.exp(), self.time_first, self._wkv_of(state))
        return self.output(r * y), self._state(u[:, -1], wkv)

    def step(self, u: Tensor, state: State, shared: Shared) -> tuple[Tensor, State]:
        """u [B, C] → ([B, C], next state)."""
        k, v, r = self._project(u, state["att_shift"])  # each [B, C]
        y, wkv = wkv4_step(k, v, -self.time_decay.exp(), self.time_first, self._wkv_of(state))
        return self.output(r * y), self._state(u, wkv)

    def _project(self, u: Tensor, previous: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """u, previous [..., C] → key, value and gate, each [..., C]."""
        change = previous - u  # [..., C]
        k, v, r = (u + change * share for share in self._shares())  # each [..., C]
        k, v = (x.to(change.dtype) for x in (self.key(k), self.value(v)))  # the state's type, under autocast too
        return k, v, torch.sigmoid(self.receptance(r))

    def _shares(self) -> Tensor:
        """How much of the previous input goes into key, value and receptance: [3, C]."""
        return 1 - torch.cat([self.time_mix_k, self.time_mix_v, self.time_mix_r], 1)[0]

    @staticmethod
    def _state(last: Tensor, wkv: WKV4State) -> State:
        return {"att_shift": last, "aa": wkv[0], "bb": wkv[1], "pp": wkv[2]}

    def emit(self, g: Graph, u: str, index: int, shared: Shared) -> str:
        """The step as nodes, 23 in both variants.

        The graph keeps the past as `wkv4_parallel` does: ``mean`` [B, 1, C] of the values (aa / bb) and ``weight``
        [B, 1, C], the log of their total weight (pp + log bb). That is one state fewer, and a joined stretch is

            mean + (v - mean) / (1 + e^x),  k + log(1 + e^x)      x = weight + w - k

        with x = weight - u - k for the output; both are computed as the rows of one [B, 2, C].
        """
        d = len(self.time_decay)
        change = g.op("Sub", [emit_shift(g, u, f"att_shift{index}", d), u])
        x = emit_blends(g, u, change, g.const("att.shares", as_array(self._shares())[None]), 3)
        k = g.matmul(x[0], "att.key", self.key.weight)  # [B, 1, C]
        v = g.matmul(x[1], "att.value", self.value.weight)
        gate = g.op("Sigmoid", [g.matmul(x[2], "att.receptance", self.receptance.weight)])
        mean = g.state(f"mean{index}", np.zeros((1, 1, d), np.float32))
        weight = g.state(f"weight{index}", np.full((1, 1, d), NEVER, np.float32))

        offsets = torch.stack([-self.time_decay.exp(), -self.time_first])[None]  # [1, 2, C]
        ratio = g.op("Add", [g.op("Sub", [weight, k]), g.const("att.offsets", as_array(offsets))])  # [B, 2, C]
        low, high = (g.const(name, np.array(v, np.float32)) for name, v in (("low", -EXP_RANGE), ("high", EXP_RANGE)))
        one = g.const("one", np.ones(1, np.float32))
        total = g.op("Add", [g.op("Exp", [g.op("Clip", [ratio, low, high])]), one])  # [B, 2, C]
        gain = g.op("Div", [g.op("Sub", [v, mean]), total])  # [B, 2, C]
        mean, y = g.ops("Split", [g.op("Add", [mean, gain]), g.indices(1, 1)], 2, axis=1)
        # Beyond the clipped range log(1 + e^x) is x to float32's precision.
        grown = g.op("Max", [ratio, g.op("Log", [total])])  # [B, 2, C]
        kept = g.op("Slice", [grown, g.indices(0), g.indices(1), g.indices(1)])  # [B, 1, C]
        g.set_state(f"mean{index}", mean)
        g.set_state(f"weight{index}", g.op("Add", [k, kept]))
        return g.matmul(g.op("Mul", [gate, y]), "att.output", self.output.weight)


class RWKV4ChannelMix(ChannelMix):
    """The feed-forward branch, four times as wide as the stream."""

    def __init__(self, cfg: RWKV4Config, layer: int) -> None:
        super().__init__(cfg.hidden_dim, 4 * cfg.hidden_dim, gated=True)
        calm(self.value, cfg.num_layers)
        mix = (ramp(cfg.hidden_dim) ** depth(layer, cfg.num_layers)[1])[None, None]
        self.time_mix_k, self.time_mix_r = nn.Parameter(mix), nn.Parameter(mix.clone())

    def shares(self) -> list[Tensor]:
        return [1 - self.time_mix_k, 1 - self.time_mix_r]


class RWKV4(RWKVNetwork):
    """input_projection → RWKV-4 blocks → output_projection, on normalised values."""

    def __init__(self, cfg: RWKV4Config) -> None:
        blocks = [
            RWKVBlock(cfg.hidden_dim, RWKV4TimeMix(cfg, i), RWKV4ChannelMix(cfg, i), first=i == 0)
            for i in range(cfg.num_layers)
        ]
        super().__init__(cfg, blocks)
