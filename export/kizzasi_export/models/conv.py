"""The depthwise causal convolution of Mamba and Mamba-2 (Gu & Dao 2023, fig. 3)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from kizzasi_export.graph import Graph, as_array


class CausalConv1d(nn.Conv1d):
    """Each channel is filtered by its own `taps` weights over its latest inputs; parameters as torch's Conv1d.

    State of `scan` and `step`: the last inputs [B, channels, taps - 1], as in the reference.
    """

    bias: nn.Parameter

    def __init__(self, channels: int, taps: int) -> None:
        super().__init__(channels, channels, taps, groups=channels)
        self.channels, self.taps = channels, taps

    def initial_state(self, batch: int) -> Tensor:
        return self.weight.new_zeros(batch, self.channels, self.taps - 1)

    def scan(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, T, channels], state → ([B, T, channels], state after it)."""
        steps = x.shape[1]
        window = torch.cat([state.transpose(1, 2), x], 1)  # [B, taps-1+T, channels]
        y: Tensor = self.bias
        for tap, weight in enumerate(self.weight[:, 0].T.contiguous()):  # [channels]; twice as fast as F.conv1d
            y = torch.addcmul(y, window[:, tap : tap + steps], weight)  # [B, T, channels]
        return y, window[:, steps:].transpose(1, 2)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, channels], state → ([B, channels], next state)."""
        window = torch.cat([state, x[..., None]], -1)  # [B, channels, taps]
        return (window * self.weight[:, 0]).sum(-1) + self.bias, window[..., 1:]

    def emit(self, g: Graph, x: str, state: str) -> str:
        """Value x [B, 1, channels] → value [B, 1, channels], with a state called `state` [B, taps-1, channels].

        A transposed FIR filter: the state holds the partial sums of the next outputs (without history each is the
        bias), which makes the long axis of every product the last one.
        """
        bias = as_array(self.bias)
        carried = g.state(state, np.repeat(bias[None, None], self.taps - 1, axis=1))
        products = g.op("Mul", [x, g.const("conv1d.weight", as_array(self.weight[:, 0].T.flip(0))[None])])
        if g.batch:  # a constant row cannot be concatenated to a symbolic batch
            last = np.zeros((1, self.taps, self.channels), np.float32)
            last[0, -1] = bias
            carried = g.op("Pad", [carried, g.indices(0, 0, 0, 0, 1, 0)])
            products = g.op("Add", [products, g.const("conv1d.bias", last)])
        else:
            carried = g.op("Concat", [carried, g.const("conv1d.bias", bias[None, None])], axis=1)
        sums = g.op("Add", [products, carried])  # [B, taps, channels]
        first, rest = g.ops("Split", [sums, g.indices(1, self.taps - 1)], 2, axis=1)
        g.set_state(state, rest)
        return first
