"""Output reference model: the network commands a velocity, the graph integrates it to a smooth position.

A position setpoint under an acceleration limit tolerates only a tiny second difference per tick; a network head
passes sensor noise and target jumps straight through. So here the network's output is a velocity goal g per sample,
followed by a first-order velocity servo and an integrator, the transformation system of a dynamic movement primitive
(Ijspeert et al. 2013, eq. 2.1) driven in velocity:

    v ← v + α (g − v)      p ← p + v      y = p      α = 1 − exp(−1/τ)

p starts at the measured quantity (`anchor`) and v at rest, so the first command is where the robot is. The network
sees measurement and target, so the loop through the robot corrects p; nothing is left to drift but what it wants to
be there.
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
    """Velocity goal → smooth position, one of each per output, in raw units.

    Args:
        tau: time constant in samples (> 0) of the velocity servo.
        anchor: index into the model's inputs, one per output: where p starts.

    State: ``reference_v``, ``reference_p`` [B, out] and ``started`` [B, 1] (0 before the first step).
    """

    anchor: Tensor

    def __init__(self, tau: float, anchor: Sequence[int]) -> None:
        super().__init__()
        if not (isinstance(tau, (int, float)) and math.isfinite(tau) and tau > 0):
            raise ValueError(f"reference_tau = {tau!r}, expected a positive number of samples, or None")
        self.tau = tau
        self.alpha = -math.expm1(-1.0 / tau)
        self.register_buffer("anchor", torch.tensor(list(anchor), dtype=torch.int64), persistent=False)

    def forward(self, goal: Tensor, x: Tensor) -> Tensor:
        """goal [B, T, out], x [B, T, in] → y [B, T, out].

        p is start plus the convolution of g with the step response 1 − (1−α)^(k+1), in float64 by FFT (zero-padded: no
        wrap-around).
        """
        length = goal.shape[1]
        start = x[:, :1, self.anchor].double()  # [B, 1, out]
        k = torch.arange(length, dtype=torch.float64, device=goal.device)  # [T]
        response = 1 - (1 - self.alpha) ** (k + 1)  # [T]
        spectrum = torch.fft.rfft(response, 2 * length)[:, None]  # [T+1, 1]
        goals = torch.fft.rfft(goal.double(), 2 * length, dim=1)  # [B, T+1, out]
        y: Tensor = start + torch.fft.irfft(spectrum * goals, 2 * length, dim=1)[:, :length]  # [B, T, out]
        return y.to(goal.dtype)

    def scan(self, goal: Tensor, x: Tensor, state: State) -> tuple[Tensor, State]:
        """`forward` from any state, and the state after it.

        The velocity that was there decays on its own: it moves p by v·(β + β² + …), β = 1 − α.
        """
        length, beta = goal.shape[1], 1 - self.alpha
        start = torch.where(state["started"] > 0, state["reference_p"], x[:, 0, self.anchor])  # [B, out]
        k = torch.arange(1, length + 1, dtype=torch.float64, device=goal.device)  # [T]
        decayed = beta**k  # [T]
        v0 = state["reference_v"].double()[:, None]  # [B, 1, out]
        coasted = v0 * (beta * (1 - decayed) / self.alpha)[:, None]  # [B, T, out]
        driven = self.forward(goal, x).double() - x[:, :1, self.anchor]  # [B, T, out], from rest
        p = (start[:, None] + coasted + driven).to(goal.dtype)  # [B, T, out]
        kept = self.alpha * beta ** (length - k)  # [T]
        v = v0[:, 0] * decayed[-1] + torch.einsum("t,bto->bo", kept, goal.double())  # [B, out]
        return p, {
            "reference_v": v.to(goal.dtype), "reference_p": p[:, -1], "started": torch.ones_like(state["started"])
        }  # fmt: skip

    def initial_state(self, batch: int, dtype: torch.dtype = torch.float32) -> State:
        zeros = torch.zeros(batch, len(self.anchor), dtype=dtype, device=self.anchor.device)
        return {"reference_v": zeros, "reference_p": zeros.clone(), "started": zeros.new_zeros(batch, 1)}

    def step(self, goal: Tensor, x: Tensor, state: State) -> tuple[Tensor, State]:
        """goal [B, out], x [B, in] → (y [B, out], next state)."""
        v = state["reference_v"] + self.alpha * (goal - state["reference_v"])  # [B, out]
        p = torch.where(state["started"] > 0, state["reference_p"], x[:, self.anchor]) + v  # [B, out]
        return p, {"reference_v": v, "reference_p": p, "started": torch.ones_like(state["started"])}

    def emit(self, g: Graph, goal: str, x: str) -> str:
        """Values goal [B, out] and x [B, in] → the name of y [B, out]."""
        g.scope("reference")
        zero = np.zeros((1, len(self.anchor)), np.float32)
        v, p = g.state("reference_v", zero), g.state("reference_p", zero)
        started = g.state("started", np.zeros((1, 1), np.float32))
        alpha = g.const("alpha", np.array([[self.alpha]], np.float32))
        start = g.op("Gather", [x, g.const("anchor", self.anchor.cpu().numpy())], axis=1)  # [B, out]
        v = g.op("Add", [v, g.op("Mul", [alpha, g.op("Sub", [goal, v])])])
        p = g.op("Add", [g.op("Where", [g.op("Cast", [started], to=9), p, start]), v])  # 9 = bool
        g.set_state("reference_v", v)
        g.set_state("reference_p", p)
        g.set_state("started", g.op("Max", [started, g.const("one", np.ones((1, 1), np.float32))]))
        return g.op("Identity", [p])
