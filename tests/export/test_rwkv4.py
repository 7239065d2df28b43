"""RWKV4: names, sizes, start, transformers' implementation, and graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from kizzasi_export import build_model, export_step, parity
from kizzasi_export.models.rwkv4 import RWKV4, RWKV4Config, RWKV4TimeMix
from kizzasi_export.models.rwkv_parts import RWKVBlock

SIZES: dict[str, Any] = {"input_dim": 3, "output_dim": 2, "hidden_dim": 32, "num_layers": 3}


def fresh(**changes: Any) -> RWKV4:
    torch.manual_seed(0)
    return RWKV4(RWKV4Config(**{**SIZES, **changes}))


def test_names_and_shapes_are_the_references() -> None:
    shapes = {name: tuple(p.shape) for name, p in fresh().state_dict().items()}
    expected: dict[str, tuple[int, ...]] = {"ln_out.weight": (32,), "ln_out.bias": (32,)}
    expected |= {"input_projection.weight": (32, 3), "input_projection.bias": (32,)}
    expected |= {"output_projection.weight": (2, 32), "output_projection.bias": (2,)}
    for i in range(3):
        norms = ("ln0", "ln1", "ln2") if i == 0 else ("ln1", "ln2")
        expected |= {f"blocks.{i}.{norm}.{part}": (32,) for norm in norms for part in ("weight", "bias")}
        att: dict[str, tuple[int, ...]] = {"time_decay": (32,), "time_first": (32,)}
        att |= {f"time_mix_{name}": (1, 1, 32) for name in "kvr"}
        att |= {f"{name}.weight": (32, 32) for name in ("key", "value", "receptance", "output")}
        ffn: dict[str, tuple[int, ...]] = {"time_mix_k": (1, 1, 32), "time_mix_r": (1, 1, 32)}
        ffn |= {"key.weight": (128, 32), "value.weight": (32, 128), "receptance.weight": (32, 32)}
        expected |= {f"blocks.{i}.att.{name}": shape for name, shape in att.items()}
        expected |= {f"blocks.{i}.ffn.{name}": shape for name, shape in ffn.items()}
    assert shapes == expected


@torch.no_grad()
def test_transformers_computes_the_same() -> None:
    """From our weights under its names, on one-hot tokens: an embedding is our input projection without bias."""
    transformers = pytest.importorskip("transformers")
    net = fresh(input_dim=7, output_dim=7)
    for p in net.parameters():
        p.add_(0.2 * torch.randn_like(p) * (p.abs().mean() + 0.2))
    for projection in (net.input_projection, net.output_projection):
        projection.bias.zero_()
    config = transformers.RwkvConfig(
        vocab_size=7, hidden_size=32, num_hidden_layers=3, context_length=64, rescale_every=0, tie_word_embeddings=False
    )
    reference = transformers.RwkvForCausalLM(config).eval()
    weights = {"rwkv.embeddings.weight": net.input_projection.weight.T, "head.weight": net.output_projection.weight}
    renamed = {".att.": ".attention.", ".ffn.": ".feed_forward.", "blocks.0.ln0": "blocks.0.pre_ln"}
    renamed |= {"mix_k": "mix_key", "mix_v": "mix_value", "mix_r": "mix_receptance"}
    for name, value in net.state_dict().items():
        if "projection" not in name:
            for ours, theirs in renamed.items():
                name = name.replace(ours, theirs)
            weights[f"rwkv.{name}"] = value
    reference.load_state_dict(weights)
    tokens = torch.randint(7, (2, 50))
    found = net(torch.nn.functional.one_hot(tokens, 7).float())
    expected = reference(tokens, use_cache=False).logits
    assert float((found - expected).abs().max() / expected.std()) <= 1e-4


def test_fresh_decays_reach_from_one_step_to_many() -> None:
    for block in fresh().blocks:
        assert isinstance(block, RWKVBlock)
        assert isinstance(block.att, RWKV4TimeMix)
        memory = block.att.time_decay.detach().neg().exp()  # steps until e^-1
        assert memory.max() > 100
        assert memory.min() < 0.1


def test_size_is_checked() -> None:
    with pytest.raises(ValueError, match="rwkv4: hidden_dim = 0"):
        build_model("rwkv4", input_dim=3, output_dim=2, hidden_dim=0)


@pytest.mark.parametrize("variant", ["fast", "portable"])
def test_the_graph_is_right_for_keys_beyond_the_range_of_exp(variant: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """Keys of hundreds, which e^k could not hold in float32: the weight's logarithm can.

    Its rounding (and the keys' own) is then that of hundreds, hence the wider bound.
    """
    monkeypatch.setattr(parity, "BOUND", 3e-4)
    torch.manual_seed(1)
    model = build_model("rwkv4", **SIZES).eval()
    keys: list[torch.Tensor] = []
    assert isinstance(model.network, RWKV4)
    with torch.no_grad():
        for branch in model.network.branches():
            if isinstance(branch.mixer, RWKV4TimeMix):
                branch.mixer.key.weight *= 1000
                branch.mixer.key.register_forward_hook(lambda _module, _inputs, k: keys.append(k))
    names: dict[str, Any] = {"input_names": list("abc"), "output_names": list("de")}
    bundle = export_step(model, tmp_path / "m.onnx", sample_rate_hz=100.0, variant=variant, **names)
    model(torch.randn(1, 20, 3))
    assert min(k.max() for k in keys) > 200
    assert max(k.min() for k in keys) < -200
    assert bundle.manifest.parity.relative_error <= 3e-4


def test_a_fresh_model_has_no_dead_branch() -> None:
    net = fresh()
    net(torch.randn(2, 50, 3)).square().mean().backward()
    for name, p in net.named_parameters():
        assert p.grad is not None, name
        assert p.grad.abs().max() > 0, name
