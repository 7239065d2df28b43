"""Small models for the export tests; one torch thread, so that the tests share a machine well."""

from __future__ import annotations

import pytest
import torch

from kizzasi_export import StepModel, build_model
from kizzasi_export.models import Normalizer


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def small() -> StepModel:
    """4 inputs, 2 outputs, two layers, a normaliser that is not the identity, no reference model."""
    torch.manual_seed(1)
    model = build_model("mamba2", input_dim=4, output_dim=2, hidden_dim=16, state_dim=4, num_layers=2).eval()
    model.set_normalizer(Normalizer((0.5, -1.0, 0.0, 2.0), (2.0, 0.1, 1.0, 3.0), (0.2, -0.4), (1.5, 0.7)))
    return model


@pytest.fixture
def smooth() -> StepModel:
    """As `small`, with a reference model of 6 samples anchored at inputs 2 and 0; goals are per sample."""
    torch.manual_seed(2)
    model = build_model(
        "mamba2",
        input_dim=4,
        output_dim=2,
        hidden_dim=16,
        state_dim=4,
        num_layers=2,
        reference_tau=6.0,
        anchor=[2, 0],
    ).eval()
    model.set_normalizer(Normalizer((0.5, -1.0, 0.0, 2.0), (2.0, 0.1, 1.0, 3.0), (0.0, 0.0), (0.015, 0.007)))
    return model
