"""Output reference model: makes a command twice smooth inside the graph.

A position setpoint under an acceleration limit tolerates only a tiny second difference per tick; a network
head passes noise and target jumps straight through. Here the network's output is a goal g, followed by a
critically damped second-order system, as in dynamic movement primitives (Ijspeert et al. 2013, eq. 2.1 with
β = α/4), discretised as two cascaded exponential moving averages:

    p1 ← p1 + α (g − p1)      p2 ← p2 + α (p1 − p2)      y = p2      α = 1 − exp(−dt/τ)

p1 and p2 start at the measured quantity (`anchor`), so the first command is where the robot is.
The recursion contracts towards g, so float32 rounding does not accumulate over long runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from kizzasi_export.graph import Graph
from kizzasi_export.models.base import State


class ReferenceModel(nn.Module):
    """Two cascaded averages from `goal` to `y`, one pair per output, in raw units.

    Args:
        tau: time constant in samples (> 0) of each average.
        anchor: index into the model's inputs, one per output: where p1 and p2 start.

    State: ``reference1``, ``reference2`` [B, out] and ``started`` [B, 1] (0 before the first step).
    """

    anchor: Tensor

    def __init__(self, tau: float, anchor: Sequence[int]) -> None:
        super().__init__()
        if not (math.isfinite(tau) and tau > 0):
            raise ValueError(f"reference_tau = {tau}, expected a positive number of samples, or None")
        self.tau = tau
        self.alpha = -math.expm1(-1.0 / tau)
        self.register_buffer("anchor", torch.tensor(list(anchor), dtype=torch.int64), persistent=False)

    def forward(self, goal: Tensor, x: Tensor) -> Tensor:
        """goal [B, T, out], x [B, T, in] → y [B, T, out], by convolution with the impulse response.

        h_k = α² (k+1) (1−α)^k, applied to goal − anchor in float64 by FFT (zero-padded: no wrap-around).
        """
        length = goal.shape[1]
        start = x[:, :1, self.anchor].double()  # [B, 1, out]
        k = torch.arange(length, dtype=torch.float64, device=goal.device)  # [T]
        impulse = self.alpha**2 * (k + 1) * (1 - self.alpha) ** k  # [T]
        spectrum = torch.fft.rfft(impulse, 2 * length)[:, None]  # [T+1, 1]
        moved = torch.fft.rfft(goal.double() - start, 2 * length, dim=1)  # [B, T+1, out]
        y: Tensor = start + torch.fft.irfft(spectrum * moved, 2 * length, dim=1)[:, :length]  # [B, T, out]
        return y.to(goal.dtype)

    def initial_state(self, batch: int) -> State:
        zeros = torch.zeros(batch, len(self.anchor), device=self.anchor.device)
        return {"reference1": zeros, "reference2": zeros.clone(), "started": zeros.new_zeros(batch, 1)}

    def step(self, goal: Tensor, x: Tensor, state: State) -> tuple[Tensor, State]:
        """goal [B, out], x [B, in] → (y [B, out], next state)."""
        started = state["started"] > 0  # [B, 1]
        start = x[:, self.anchor]  # [B, out]
        p1 = torch.where(started, state["reference1"], start)  # [B, out]
        p2 = torch.where(started, state["reference2"], start)  # [B, out]
        p1 = p1 + self.alpha * (goal - p1)  # [B, out]
        p2 = p2 + self.alpha * (p1 - p2)  # [B, out]
        return p2, {"reference1": p1, "reference2": p2, "started": torch.ones_like(state["started"])}

    def emit(self, g: Graph, goal: str, x: str) -> str:
        """Values goal [B, out] and x [B, in] → the name of y [B, out]."""
        g.scope("reference")
        out = len(self.anchor)
        zero = np.zeros((1, out), np.float32)
        p1, p2 = g.state("reference1", zero), g.state("reference2", zero)
        started = g.state("started", np.zeros((1, 1), np.float32))
        alpha = g.const("alpha", np.array([[self.alpha]], np.float32))
        start = g.op("Gather", [x, g.const("anchor", self.anchor.cpu().numpy())], axis=1)  # [B, out]
        running = g.op("Cast", [started], to=9)  # 9 = bool
        p1 = g.op("Where", [running, p1, start])
        p2 = g.op("Where", [running, p2, start])
        p1 = g.op("Add", [p1, g.op("Mul", [alpha, g.op("Sub", [goal, p1])])])
        p2 = g.op("Add", [p2, g.op("Mul", [alpha, g.op("Sub", [p1, p2])])])
        g.set_state("reference1", p1)
        g.set_state("reference2", p2)
        g.set_state("started", g.op("Max", [started, g.const("one", np.ones((1, 1), np.float32))]))
        return g.op("Identity", [p2])
