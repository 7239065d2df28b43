"""The guard's rules as differentiable functions of a command sequence: how far each is from being broken.

Every value is g(y) with g ≤ 0 where the rule holds, in units of the rule's own limit, so that radians, radians per
second and radians per second² can be weighed against each other. What training sees here are the SI limits of the
deployed guard file after margins; the promise itself is made by the guard, on integers (docs/guardrails.md).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails import Guardrails
from kizzasi_edge.joints import command_order

KINDS = ("position", "velocity", "acceleration")


HISTORY = 2
"""Steps at a sequence's start that the guard's recursion needs before the first one it can judge."""


def require_history(steps: int) -> None:
    """Raise GuardrailError where a sequence has no step that can be judged."""
    if steps <= HISTORY:
        raise GuardrailError(f"constraints: found sequences of {steps} steps, expected at least {HISTORY + 1}")


class GuardRules(nn.Module):
    """Signed violations of a guard's limits.

    Args:
        guard: the deployed guard; only its limits are used.
        output_names: the model's outputs, ``<joint>`` or ``<joint>/position``, just the guard's joints in any order.

    Attributes:
        names: the rules in order, as verdicts name them: "position", "velocity", "acceleration", or the name of the
            ``[[constraint]]`` that set the limit.
        columns: for each guarded joint its index in the model's output.

    Raises:
        GuardrailError: the guard's joints and the model's outputs differ.
    """

    lower: Tensor
    upper: Tensor
    speed: Tensor
    acceleration: Tensor
    columns: Tensor

    def __init__(self, guard: Guardrails, output_names: Sequence[str]) -> None:
        super().__init__()
        dt = 1.0 / guard.rate_hz
        limits = guard.limits
        for name, values in (
            ("lower", [limit.lower for limit in limits]),
            ("upper", [limit.upper for limit in limits]),
            ("speed", [limit.velocity * dt for limit in limits]),  # largest step [rad/sample]
            ("acceleration", [limit.acceleration * dt * dt for limit in limits]),  # and change of step [rad/sample²]
        ):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float64), persistent=False)
        columns = torch.as_tensor(command_order(tuple(output_names), guard.joints, guard.where))
        self.register_buffer("columns", columns, persistent=False)
        self._origin = {kind: [limit.origin.get(kind, kind) for limit in limits] for kind in KINDS}
        self.names = tuple(dict.fromkeys(name for kind in KINDS for name in self._origin[kind]))
        self.miss_budget = guard.miss_budget

    def forward(self, y: Tensor) -> dict[str, Tensor]:
        """y [B, T, out] commanded positions, T ≥ 3 → violations by rule, each [B, T-2, joints under it].

        position: beyond the range, or moving too fast to stop before its end (the viable set, docs/guardrails.md),
        in units of the range; velocity |Δy| and acceleration |Δ²y| in units of their limits, minus one.

        Raises:
            GuardrailError: fewer than three steps.
        """
        require_history(y.shape[1])
        q = y[..., self.columns]  # [B, T, n]
        step = q[:, 1:] - q[:, :-1]  # [B, T-1, n]
        found = {
            "position": self._position(q, step)[:, 1:],
            "velocity": (step.abs() / self.speed.to(q.dtype) - 1)[:, 1:],
            "acceleration": (step[:, 1:] - step[:, :-1]).abs() / self.acceleration.to(q.dtype) - 1,
        }
        by_name: dict[str, list[Tensor]] = defaultdict(list)
        for kind, values in found.items():  # [B, T-2, n]
            for i, name in enumerate(self._origin[kind]):
                by_name[name].append(values[..., i])
        return {name: torch.stack(by_name[name], -1) for name in self.names}

    def _position(self, q: Tensor, step: Tensor) -> Tensor:
        """The larger of "outside" and "cannot stop in time", both in units of the range: [B, T-1, n]."""
        lower, upper = self.lower.to(q.dtype), self.upper.to(q.dtype)
        room_up, room_down = upper - q[:, 1:], q[:, 1:] - lower  # [B, T-1, n]
        outside = torch.maximum(-room_up, -room_down)
        stop = self._stopping_distance(step.abs())  # [B, T-1, n]
        overrun = stop - torch.where(step > 0, room_up, room_down)
        return torch.where(step == 0, outside, torch.maximum(outside, overrun)) / (upper - lower)

    def _stopping_distance(self, speed: Tensor) -> Tensor:
        """Distance after this step: `miss_budget` periods at this speed, then braking by h a period (CONTRACT §2)."""
        h = self.acceleration.to(speed.dtype)
        m = torch.floor(speed / h).detach()  # braking periods before rest
        return self.miss_budget * speed + m * speed - h * m * (m + 1) / 2
