"""The position-wise half of a transformer layer, with the parameter names of transformers' Llama."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from kizzasi_export.graph import Graph
from kizzasi_export.models.base import State
from kizzasi_export.models.stack import Mixer, Shared

Activation = Literal["swiglu", "gelu"]


class FeedForward(Mixer):
    """SwiGLU: down(silu(gate u) · up u) (Shazeer 2020, eq. 6), or GELU: down(gelu(up u)). Has no state."""

    def __init__(self, hidden: int, inner: int, activation: Activation) -> None:
        super().__init__()
        self.gated = activation == "swiglu"
        if self.gated:
            self.gate_proj = nn.Linear(hidden, inner, bias=False)
        self.up_proj = nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)

    def initial_state(self, batch: int) -> State:
        return {}

    def scan(self, u: Tensor, state: State, shared: Shared) -> tuple[Tensor, State]:
        return self.step(u, state, shared)

    def step(self, u: Tensor, state: State, shared: Shared) -> tuple[Tensor, State]:
        """u [..., hidden] → ([..., hidden], no state)."""
        up = self.up_proj(u)  # [..., inner]
        out: Tensor = self.down_proj(F.silu(self.gate_proj(u)) * up if self.gated else F.gelu(up))
        return out, {}

    def emit(self, g: Graph, u: str, index: int, shared: Shared) -> str:
        """The step as nodes, 5 in the fast variant (with the norm before it 6)."""
        up = g.matmul(u, "up_proj", self.up_proj.weight)  # [B, 1, inner]
        if self.gated:
            # gate and up as one matrix would need a Split: as many nodes, and not faster (measured, float32 and int8).
            hidden = g.op("Mul", [g.silu(g.matmul(u, "gate_proj", self.gate_proj.weight)), up])
        else:
            hidden = g.gelu(up)
        return g.matmul(hidden, "down_proj", self.down_proj.weight)
