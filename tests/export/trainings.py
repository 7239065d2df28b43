"""A small training task, its train.toml, and the command line in this process."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from kizzasi_export import StepModel, build_model, cli
from kizzasi_export.datasets import SequenceDataset
from kizzasi_export.models import Normalizer

TRAIN_TOML = """
[task]
name = "supervised"
[model]
hidden_dim = 16
state_dim = 4
num_layers = 1
[training]
epochs = 3
batch_size = 8
[data]
path = "data.npz"
window = 32
[export]
sample_rate_hz = 100
input_names = ["a/position", "b/position"]
output_names = ["a/position"]
"""


def memory_data(sequences: int = 24, steps: int = 48) -> SequenceDataset:
    """y = a running mean of input 0 (time constant 5): impossible without memory."""
    x = np.random.default_rng(0).standard_normal((sequences, steps, 2)).astype(np.float32)
    y = np.zeros((sequences, steps, 1), np.float32)
    for t in range(steps):
        y[:, t, 0] = 0.8 * (y[:, t - 1, 0] if t else 0) + 0.2 * x[:, t, 0]
    return SequenceDataset(x, y)


def small_model(data: SequenceDataset) -> StepModel:
    torch.manual_seed(0)
    model = build_model("mamba2", input_dim=2, output_dim=1, hidden_dim=16, state_dim=4, num_layers=1)
    model.set_normalizer(Normalizer.fit(data.x, data.y))
    return model


def project(folder: Path, toml: str = TRAIN_TOML) -> Path:
    data = memory_data(4, 100)
    np.savez(folder / "data.npz", x=data.x, y=data.y)
    (folder / "train.toml").write_text(toml)
    return folder / "train.toml"


def run_cli(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["kizzasi-export", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)
