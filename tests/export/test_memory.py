"""Every architecture learns to hold a value for 256 steps and more: no memoryless fake can.

Those whose memory depends on the data must pick the value out of distractors (selective recall). The time-invariant
ones (S4, S4D, S5) keep a bit of everything they see; for them there is nothing else to see.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from kizzasi_export import KINDS, StepModel, build_model

LAG, EARLY = 256, 8
TIME_INVARIANT = ("s4", "s4d", "s5")
SELECTIVE = ((16, 150), (64, 80), (LAG + EARLY, 40))
"""(steps of a sequence, updates): what to keep is learnt on short sequences, to keep it on long ones."""
PLAIN = ((LAG + EARLY, 300),)


def recall(batch: int, steps: int, generator: torch.Generator, distracted: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs (value, flag) [B, T, 2]: values all along (or only one), one of the first `EARLY` flagged.

    Target [B, T, 1] the flagged value from then on; mask [B, T] of those steps.
    """
    value = torch.rand(batch, steps, generator=generator) * 2 - 1
    at = torch.randint(EARLY, (batch,), generator=generator)
    flag = torch.zeros(batch, steps)
    flag[torch.arange(batch), at] = 1
    value = value if distracted else value * flag
    target = (value * flag).sum(1, keepdim=True)[..., None].expand(batch, steps, 1)
    return torch.stack([value, flag], -1), target, flag.cumsum(1)


def train(model: StepModel, distracted: bool) -> Iterator[None]:
    """Pauses now and then, once sequences are long, for whoever has seen enough to leave."""
    curriculum, rate = SELECTIVE if distracted else PLAIN, 1e-2
    generator = torch.Generator().manual_seed(1)
    optimiser = torch.optim.Adam(model.parameters(), rate)
    updates = sum(count for _, count in curriculum)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=updates, pct_start=0.1)
    for steps, count in curriculum:
        for update in range(count):
            if update % 20 == 0 and steps > SELECTIVE[0][0]:
                yield
            x, target, mask = recall(32 if distracted else 16, steps, generator, distracted)
            error = (model(x) - target).square()[..., 0]  # [B, T]
            optimiser.zero_grad()
            ((error * mask).sum() / mask.sum()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()


@torch.no_grad()
def unexplained(model: StepModel, distracted: bool) -> float:
    """Share of the variance that is wrong at least `LAG` steps after the flag, by repeated step."""
    x, target, _ = recall(64, LAG + EARLY, torch.Generator().manual_seed(99), distracted)
    state, y = model.initial_state(64), torch.empty(0)
    for row in x.unbind(1):
        y, state = model.step(row, state)
    return float((y - target[:, -1]).square().mean() / target.var())


@pytest.mark.parametrize("kind", KINDS)
def test_it_remembers_what_was_flagged(kind: str) -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_dim": 32, "state_dim": 16, "num_layers": 2, "context_window": LAG + EARLY}
    model = build_model(kind, input_dim=2, output_dim=1, **sizes)
    distracted = kind not in TIME_INVARIANT
    assert unexplained(model.eval(), distracted) > 0.5
    for _ in train(model.train(), distracted):
        if unexplained(model.eval(), distracted) < 0.05:
            break
        model.train()
    assert unexplained(model.eval(), distracted) < 0.1
