"""Mamba-2 against transformers' implementation of it, with the same weights."""

from __future__ import annotations

import pytest
import torch

from kizzasi_export.models.mamba2 import Mamba2, Mamba2Config

HIDDEN, STATE, LAYERS, HEAD = 32, 8, 2, 16


@pytest.mark.parametrize("steps", [1, 31, 150])
@torch.no_grad()
def test_equals_transformers(steps: int) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = Mamba2Config(3, 2, hidden_dim=HIDDEN, state_dim=STATE, num_layers=LAYERS, head_dim=HEAD)
    network = Mamba2(config).eval()
    for p in network.parameters():  # away from special initial values
        p.add_(0.1 * torch.randn_like(p) * (p.abs().mean() + 0.1))
    theirs = transformers.Mamba2Model(
        transformers.Mamba2Config(
            vocab_size=1,
            hidden_size=HIDDEN,
            state_size=STATE,
            num_hidden_layers=LAYERS,
            head_dim=HEAD,
            num_heads=config.inner // HEAD,
            n_groups=1,
            chunk_size=64,
            layer_norm_epsilon=1e-5,
        )
    ).eval()
    found = theirs.load_state_dict(network.backbone.state_dict(), strict=False)
    assert found.missing_keys == ["embeddings.weight"]
    assert found.unexpected_keys == []
    u = torch.randn(2, steps, HIDDEN)
    expected = theirs(inputs_embeds=u, use_cache=False).last_hidden_state
    assert expected.std() > 0.1
    for branch in network.branches():
        u = u + branch.mixer(branch.norm(u), {})
    assert float((network.backbone.norm_f(u) - expected).abs().max() / expected.std()) <= 1e-4
