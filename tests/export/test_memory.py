"""Every architecture learns to hold a value for 256 steps, picked out of distractors: no memoryless fake can."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from kizzasi_export import KINDS, StepModel, build_model

LAG, EARLY = 256, 8
STEPS = LAG + EARLY


def recall(batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs (value, flag) [B, T, 2]: values all along, one of the first `EARLY` flagged; target [B, T, 1] the flagged
    value from then on; mask [B, T] of those steps."""
    value = torch.rand(batch, STEPS, generator=generator) * 2 - 1
    at = torch.randint(EARLY, (batch,), generator=generator)
    flag = torch.zeros(batch, STEPS)
    flag[torch.arange(batch), at] = 1
    target = (value * flag).sum(1, keepdim=True)[..., None].expand(batch, STEPS, 1)
    return torch.stack([value, flag], -1), target, flag.cumsum(1)


def train(model: StepModel, seconds_worth: int, rate: float) -> None:
    generator = torch.Generator().manual_seed(1)
    optimiser = torch.optim.Adam(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=seconds_worth, pct_start=0.2)
    for _ in range(seconds_worth):
        x, target, mask = recall(16, generator)
        error = (model(x) - target).square()[..., 0]
        optimiser.zero_grad()
        ((error * mask).sum() / mask.sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()


@torch.no_grad()
def unexplained(model: StepModel) -> float:
    """Share of the variance that is wrong at least `LAG` steps after the flag, by repeated step."""
    x, target, _ = recall(64, torch.Generator().manual_seed(99))
    state, y = model.initial_state(64), torch.empty(0)
    for t in range(STEPS):
        y, state = model.step(x[:, t], state)
    return float((y - target[:, -1]).square().mean() / target.var())


@pytest.mark.parametrize("kind", KINDS)
def test_it_remembers_what_was_flagged(kind: str) -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_dim": 32, "state_dim": 16, "num_layers": 2, "context_window": STEPS}
    model = build_model(kind, input_dim=2, output_dim=1, **sizes)
    assert unexplained(model.eval()) > 0.5
    train(model.train(), 150, 1e-2)
    assert unexplained(model.eval()) < 0.1
