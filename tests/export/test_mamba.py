"""Mamba against two other implementations of it, with the same weights, and what only its config can get wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kizzasi_export import build_model, export_step, parity
from kizzasi_export.models.mamba import Mamba, MambaConfig

HIDDEN, STATE, LAYERS = 32, 8, 2
STEPS = 130


def _ours(**changes: Any) -> Mamba:
    torch.manual_seed(0)
    sizes = {"input_dim": 3, "output_dim": 2, "hidden_dim": HIDDEN, "state_dim": STATE, "num_layers": LAYERS}
    network = Mamba(MambaConfig(**{**sizes, **changes})).eval()
    with torch.no_grad():  # away from special initial values
        for p in network.parameters():
            p.add_(0.1 * torch.randn_like(p) * (p.abs().mean() + 0.1))
    return network


def _backbone(network: Mamba, u: Tensor) -> Tensor:
    for branch in network.branches():
        u = u + branch.mixer(branch.norm(u), {})
    return u


def _assert_relative(found: Tensor, expected: Tensor) -> None:
    assert expected.std() > 0.1
    assert float((found - expected).abs().max() / expected.std()) <= 1e-4


@torch.no_grad()
def test_equals_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    network = _ours()
    theirs = transformers.MambaModel(
        transformers.MambaConfig(
            vocab_size=1,
            hidden_size=HIDDEN,
            state_size=STATE,
            num_hidden_layers=LAYERS,
            layer_norm_epsilon=1e-5,
            use_mambapy=False,
        )
    ).eval()
    found = theirs.load_state_dict(network.backbone.state_dict(), strict=False)
    assert found.missing_keys == ["embeddings.weight"]
    assert found.unexpected_keys == []
    u = torch.randn(2, STEPS, HIDDEN)
    expected = theirs(inputs_embeds=u, use_cache=False).last_hidden_state
    _assert_relative(network.backbone.norm_f(_backbone(network, u)), expected)


@pytest.mark.parametrize("pscan", [True, False])
def test_equals_mambapy_and_its_gradients(pscan: bool) -> None:
    mambapy = pytest.importorskip("mambapy.mamba")
    network = _ours()
    config = mambapy.MambaConfig(d_model=HIDDEN, n_layers=LAYERS, d_state=STATE, rms_norm_eps=1e-5, pscan=pscan)
    theirs: nn.Module = mambapy.Mamba(config)
    weights = {name: v for name, v in network.backbone.state_dict().items() if not name.startswith("norm_f")}
    theirs.load_state_dict(weights)
    u = torch.randn(2, STEPS, HIDDEN)
    expected, found = theirs(u), _backbone(network, u)
    _assert_relative(found.detach(), expected.detach())
    expected.square().mean().backward()
    found.square().mean().backward()
    ours = dict(network.backbone.named_parameters())
    for name, p in theirs.named_parameters():
        assert p.grad is not None
        torch.testing.assert_close(ours[name].grad, p.grad, rtol=1e-3, atol=1e-4 * float(p.grad.abs().max()))


def test_sizes() -> None:
    assert MambaConfig(1, 1, hidden_dim=33).rank == 3  # ⌈33 / 16⌉
    assert MambaConfig(1, 1, hidden_dim=64, dt_rank=7).rank == 7
    shapes = {name: tuple(p.shape) for name, p in _ours(dt_rank=5, conv_dim=3).backbone.layers[0].named_parameters()}
    assert shapes == {
        "norm.weight": (32,),
        "mixer.A_log": (64, 8),
        "mixer.D": (64,),
        "mixer.in_proj.weight": (128, 32),
        "mixer.conv1d.weight": (64, 1, 3),
        "mixer.conv1d.bias": (64,),
        "mixer.x_proj.weight": (21, 64),
        "mixer.dt_proj.weight": (64, 5),
        "mixer.dt_proj.bias": (64,),
        "mixer.out_proj.weight": (32, 64),
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"dt_rank": 0}, "rank = 0, expected ≥ 1"), ({"conv_dim": 1}, "conv_dim = 1"), ({"expand": 0}, "expand = 0")],
)
def test_sizes_that_cannot_be(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MambaConfig(1, 1, **changes)


@torch.no_grad()
def test_fresh_steps_are_a_thousandth_to_a_tenth() -> None:
    torch.manual_seed(0)
    mixer = Mamba(MambaConfig(1, 1, hidden_dim=128)).backbone.blocks[0].mixer
    dt = nn.functional.softplus(mixer.dt_proj.bias)
    assert 1e-3 * 0.999 <= float(dt.min()) < 2e-3
    assert 0.05 < float(dt.max()) <= 0.1 * 1.001


@pytest.mark.parametrize("variant", ["fast", "portable"])
@pytest.mark.parametrize(("bias", "decay"), [(-10.0, 0.05), (-7.0, 0.05), (0.0, 1.0), (15.0, 1.0), (60.0, 5.0)])
def test_steps_from_tiny_to_saturated_keep_parity(bias: float, decay: float, variant: Any, tmp_path: Path) -> None:
    """softplus far below 1 (a long memory that adds up its rounding errors) and far above (linear)."""
    torch.manual_seed(0)
    model = build_model("mamba", input_dim=3, output_dim=2, hidden_dim=32, state_dim=8, num_layers=2).eval()
    with torch.no_grad():
        for block in model.network.backbone.blocks:  # type: ignore[union-attr]
            block.mixer.dt_proj.bias.add_(bias - block.mixer.dt_proj.bias.mean())
            block.mixer.A_log.sub_(block.mixer.A_log.mean()).add_(torch.tensor(decay).log())
            block.mixer.D.zero_()  # nothing but the state speaks
            block.mixer.x_proj.weight[-16:] *= 3 / max(nn.functional.softplus(torch.tensor(bias)), 1e-2) ** 0.5
    names = {"input_names": ["a", "b", "c"], "output_names": ["u", "v"]}
    bundle = export_step(model, tmp_path / "m.onnx", sample_rate_hz=100.0, variant=variant, **names)
    assert bundle.manifest.parity.relative_error <= parity.BOUND
