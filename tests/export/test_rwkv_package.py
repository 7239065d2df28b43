"""RWKV-4 and RWKV-6 against BlinkDL's own inference package, which loads our weights under its names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kizzasi_export.models import build_model
from kizzasi_export.models.rwkv_parts import RWKVNetwork

VOCAB, STEPS = 11, 40


def network(kind: str) -> RWKVNetwork:
    """A network on one-hot tokens, whose every parameter has been moved well away from its initial value."""
    torch.manual_seed(0)
    net = build_model(kind, input_dim=VOCAB, output_dim=VOCAB, hidden_dim=64, num_layers=3).network
    assert isinstance(net, RWKVNetwork)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.2 * torch.randn_like(p) * (p.abs().mean() + 0.2))
        for projection in (net.input_projection, net.output_projection):  # an embedding and a head have no bias
            projection.bias.zero_()
    return net.eval()


def reference_weights(net: RWKVNetwork) -> dict[str, Tensor]:
    """The state_dict of a language model: ours, with emb and head in place of the projections."""
    weights = {name: value.clone() for name, value in net.state_dict().items() if "projection" not in name}
    weights["emb.weight"] = net.input_projection.weight.detach().T.contiguous()
    weights["head.weight"] = net.output_projection.weight.detach().clone()
    return weights


@pytest.mark.parametrize("kind", ["rwkv4", "rwkv6"])
@torch.no_grad()
def test_the_reference_package_computes_the_same(kind: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("RWKV_JIT_ON", "0")  # read when the package is imported, like the next two
    monkeypatch.setenv("RWKV_CUDA_ON", "0")
    monkeypatch.delenv("RWKV_V7_ON", raising=False)
    package = pytest.importorskip("rwkv.model")
    net = network(kind)
    torch.save(reference_weights(net), tmp_path / "model.pth")
    reference = package.RWKV(model=os.fspath(tmp_path / "model"), strategy="cpu fp32", verbose=False)
    assert int(reference.version) == int(kind[-1])

    tokens = torch.randint(VOCAB, (STEPS,))
    x = torch.nn.functional.one_hot(tokens, VOCAB).float()[None]  # [1, T, VOCAB]
    half, middle = reference.forward(tokens[: STEPS // 2].tolist(), None, full_output=True)  # its parallel form
    rows, state = [half], middle
    for token in tokens[STEPS // 2 :].tolist():  # its step
        row, state = reference.forward([token], state)
        rows.append(row[None])
    expected = torch.cat(rows)[None]  # [1, T, VOCAB]

    assert float((net(x) - expected).abs().max() / expected.std()) <= 1e-4
    first, state = net.scan(x[:, : STEPS // 2], net.initial_state(1))
    assert float((first - expected[:, : STEPS // 2]).abs().max() / expected.std()) <= 1e-4
    for t in range(STEPS // 2, STEPS):
        y, state = net.step(x[:, t], state)
        assert float((y - expected[:, t]).abs().max() / expected.std()) <= 1e-4
