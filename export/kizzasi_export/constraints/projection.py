"""The deployed guard as a layer: forward by its C core, backward by the implicit derivative of its projection.

For one joint the guard sends the point of an interval that is nearest to the proposal; which bound is active says what
it depends on, so the derivative of q₂ = admit(u; q₁, q₀) is known in closed form (implicit function theorem on the
active row; Amos & Kolter 2017 for the general case). With v = q₁ − q₀, per period:

    inside                     q₂ = u                  ∂u = 1
    velocity                   q₂ = q₁ ± w             ∂q₁ = 1
    acceleration, or braking   q₂ = q₁ + v ± h         ∂q₁ = 2    ∂q₀ = −1
    viable set                 q₂ = q₁ ± vmax(d)       ∂q₁ = 1 − 1/(1 + coast + m),   m = ⌊vmax/h⌋
    braking to rest            q₂ = q₁                 ∂q₁ = 1

Through an active bound the proposal has no gradient: a loss on the projected command alone cannot move it back. Hence
`ProjectionLoss`, which always adds the distance between proposal and projection.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kizzasi_edge.errors import ConfigError
from kizzasi_edge.guardrails import Event, Guardrails
from kizzasi_edge.guardrails.core import CoreDrive
from kizzasi_edge.guardrails.verdict import HEADER
from kizzasi_edge.joints import command_order

_VELOCITY, _RECOVERY, _NON_FINITE = 2, 8, 16  # bits of a verdict (guardrails/verdict.py)


class GuardProjection(nn.Module):
    """Proposed commands → what the guard would send, period after period.

    A guard that pursues far commands (``on_clamp = "approach"``) is taken as its exact projection, "nearest": what
    training moves towards is the admissible set, which is the same. Joints are taken one by one: rules that couple
    them, temporal rules and jerk limits are left to the deployed guard.

    Args:
        guard: the deployed guard.
        output_names: the model's outputs (see `GuardRules`).

    Raises:
        ConfigError: the guard's commands are not positions.
    """

    columns: Tensor

    def __init__(self, guard: Guardrails, output_names: Sequence[str]) -> None:
        super().__init__()
        if guard.command != "position":
            raise ConfigError(
                f"{guard.where}: [guard] command: found {guard.command!r}; expected 'position' to train by"
            )
        self.guard = guard
        columns = torch.as_tensor(command_order(tuple(output_names), guard.joints, guard.where))
        self.register_buffer("columns", columns, persistent=False)

    def forward(self, y: Tensor, start: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """Project a batch of command sequences.

        Args:
            y: [B, T, out] proposals.
            start, before: [B, out] the position applied last, and the one before it: where each sequence begins
                (a state the guard could not be in is reduced to one it can). They get no gradient.

        Returns:
            (admitted [B, T, out], changed bool [B, T]: the guard moved some joint's command by more than rounding).
        """
        inverse = torch.argsort(self.columns)
        admitted, changed = _Admit.apply(  # type: ignore[no-untyped-call]
            y[..., self.columns], start[..., self.columns], before[..., self.columns], self.guard
        )
        return admitted[..., inverse], changed


class _Admit(torch.autograd.Function):
    """u [B, T, n] in the guard's joint order, start and before [B, n] → (q [B, T, n], changed [B, T])."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, start: Tensor, before: Tensor, guard: Guardrails) -> tuple[Tensor, Tensor]:
        core = CoreDrive(guard.lattice, guard.layout, rate_hz=guard.rate_hz, miss_budget=guard.miss_budget)
        out = np.empty(u.shape[-1], np.float32)
        proposals = u.detach().cpu().numpy()
        b, t, n = proposals.shape
        quantum = guard.quanta
        q = np.zeros((b, t + 2, n), np.int64)  # in quanta; two periods of history first
        bits = np.zeros((b, t, n), np.uint8)
        for i in range(b):
            at, was = (np.rint(x[i].detach().cpu().numpy() / quantum).astype(np.int32) for x in (start, before))
            core.rebase(at, at - was)
            applied, step = core.motion()  # as the guard could have got there
            q[i, 1], q[i, 0] = applied, applied - step
            for k in range(t):
                if core.follow(proposals[i, k], out) & Event.NON_FINITE:
                    core.coast(out, _NON_FINITE)
                q[i, k + 2] = core.motion()[0]
                bits[i, k] = np.frombuffer(core.record[HEADER.size :], np.uint8)
        ctx.slopes = _slopes(q, bits, guard)
        ctx.mark_non_differentiable(changed := torch.from_numpy(bits.any(-1)).to(u.device))
        return torch.from_numpy(q[:, 2:] * quantum).to(u), changed

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor, None, None, None]:
        to_u, to_q1, to_q0 = ctx.slopes  # each [B, T, n]
        total = grad.detach().cpu().double().numpy().copy()  # [B, T, n], becomes dL/dq
        for k in range(total.shape[1] - 2, -1, -1):  # back in time: q_k feeds q_{k+1} and q_{k+2}
            total[:, k] += to_q1[:, k + 1] * total[:, k + 1]
            if k + 2 < total.shape[1]:
                total[:, k] += to_q0[:, k + 2] * total[:, k + 2]
        return torch.from_numpy(to_u * total).to(grad), None, None, None


def _slopes(q: NDArray[np.int64], bits: NDArray[np.uint8], guard: Guardrails) -> tuple[NDArray[np.float64], ...]:
    """(∂q₂/∂u, ∂q₂/∂q₁, ∂q₂/∂q₀), each [B, T, n], from q [B, T+2, n] in quanta and the C core's rule bits [B, T, n]."""
    w, h = (np.array([getattr(limit, key) for limit in guard.lattice], np.int64) for key in ("w", "h"))
    v1, v2 = q[:, 1:-1] - q[:, :-2], q[:, 2:] - q[:, 1:-1]  # [B, T, n]
    m = np.abs(v2) // h  # braking periods after this step
    inside = bits == 0
    at_rest = v2 == 0
    braked = np.abs(v2 - v1) == h  # acceleration bound, or braking at full h
    limited = ((bits & _VELOCITY) != 0) | (((bits & _RECOVERY) != 0) & (np.abs(v2) == np.maximum(w // 8, 1)))
    to_q1 = np.select([inside, limited | at_rest, braked], [0.0, 1.0, 2.0], 1.0 - 1.0 / (1.0 + guard.miss_budget + m))
    to_q0 = np.where(~inside & ~limited & ~at_rest & braked, -1.0, 0.0)
    return inside.astype(np.float64), to_q1, to_q0


class ProjectionLoss(nn.Module):
    """task(projected) + distance · mean((proposal − projected)²) / scale², the mean over the steps that weigh.

    Args:
        projection: the guard as a layer.
        distance: weight of the distance term; must be above 0, because through an active bound nothing else has a
            gradient.

    Raises:
        ConfigError: a distance weight that is not above 0.
    """

    def __init__(self, projection: GuardProjection, *, distance: float = 1.0) -> None:
        super().__init__()
        if not (math.isfinite(distance) and distance > 0):
            raise ConfigError(
                f"constraints: distance: found {distance}, expected a finite number > 0: through an active bound the "
                "projection has no gradient, the distance term is all that moves a proposal back"
            )
        self.projection, self.distance = projection, distance

    def forward(
        self,
        task: Callable[[Tensor], Tensor],
        y: Tensor,
        start: Tensor,
        before: Tensor,
        scale: Tensor,
        weight: Tensor | None = None,
    ) -> Tensor:
        """task: admitted [B, T, out] → scalar; y [B, T, out] proposals; scale [out] SI units → scalar.

        weight [B, T]: steps of weight 0 have no distance term; None: all have.
        """
        admitted, _ = self.projection(y, start, before)
        gap = ((y - admitted) / scale).square().mean(-1)  # [B, T]
        counted = torch.ones_like(gap) if weight is None else (weight > 0).to(gap.dtype)  # [B, T]
        far: Tensor = (gap * counted).sum() / counted.sum().clamp_min(1)
        return task(admitted) + self.distance * far
