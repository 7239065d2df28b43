"""RWKV6: names, sizes, start, and graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from kizzasi_export import build_model, export_step
from kizzasi_export.models.rwkv6 import RWKV6, RWKV6Config, RWKV6TimeMix
from kizzasi_export.models.rwkv_parts import RWKVBlock

SIZES: dict[str, Any] = {"input_dim": 3, "output_dim": 2, "hidden_dim": 32, "num_layers": 3}


def fresh(**changes: Any) -> RWKV6:
    torch.manual_seed(0)
    return RWKV6(RWKV6Config(**{**SIZES, **changes}))


def test_names_and_shapes_are_the_references() -> None:
    shapes = {name: tuple(p.shape) for name, p in fresh(head_dim=16).state_dict().items()}
    expected: dict[str, tuple[int, ...]] = {"ln_out.weight": (32,), "ln_out.bias": (32,)}
    expected |= {"input_projection.weight": (32, 3), "input_projection.bias": (32,)}
    expected |= {"output_projection.weight": (2, 32), "output_projection.bias": (2,)}
    for i in range(3):
        norms = ("ln0", "ln1", "ln2") if i == 0 else ("ln1", "ln2")
        expected |= {f"blocks.{i}.{norm}.{part}": (32,) for norm in norms for part in ("weight", "bias")}
        att: dict[str, tuple[int, ...]] = {f"time_maa_{name}": (1, 1, 32) for name in "xwkvrg"}
        att |= {"time_maa_w1": (32, 160), "time_maa_w2": (5, 32, 32), "time_faaaa": (2, 16)}
        att |= {"time_decay": (1, 1, 32), "time_decay_w1": (32, 64), "time_decay_w2": (64, 32)}
        att |= {f"{name}.weight": (32, 32) for name in ("receptance", "key", "value", "gate", "output")}
        att |= {"ln_x.weight": (32,), "ln_x.bias": (32,)}
        ffn: dict[str, tuple[int, ...]] = {"time_maa_k": (1, 1, 32), "time_maa_r": (1, 1, 32)}
        ffn |= {"key.weight": (96, 32), "value.weight": (32, 96), "receptance.weight": (32, 32)}
        expected |= {f"blocks.{i}.att.{name}": shape for name, shape in att.items()}
        expected |= {f"blocks.{i}.ffn.{name}": shape for name, shape in ffn.items()}
    assert shapes == expected


@pytest.mark.parametrize(("hidden", "head", "inner"), [(8, 8, 32), (48, 16, 160), (64, 64, 224), (256, 64, 896)])
def test_default_sizes(hidden: int, head: int, inner: int) -> None:
    cfg = RWKV6Config(input_dim=1, output_dim=1, hidden_dim=hidden)
    assert (cfg.head, cfg.inner) == (head, inner)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"head_dim": 5}, "rwkv6: head_dim = 5 does not divide hidden_dim = 64"),
        ({"head_dim": 0}, "rwkv6: head_dim = 0, expected ≥ 1"),
        ({"mix_rank": 0}, "rwkv6: mix_rank = 0, expected ≥ 1"),
        ({"hidden_dim": 0}, "rwkv6: hidden_dim = 0, expected ≥ 1"),
    ],
)
def test_sizes_are_checked(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model("rwkv6", input_dim=3, output_dim=2, **sizes)  # type: ignore[arg-type]


def test_fresh_decays_reach_from_few_steps_to_many() -> None:
    for block in fresh().blocks:
        assert isinstance(block, RWKVBlock)
        assert isinstance(block.att, RWKV6TimeMix)
        memory = block.att.time_decay.detach().neg().exp()  # steps until e^-1
        assert memory.max() > 300
        assert memory.min() < 4


@torch.no_grad()
def test_decay_and_token_shift_depend_on_the_data() -> None:
    """Without their low-rank parts both are constants of the channel; each part alone changes the output."""
    x, outputs = torch.randn(1, 30, 3), []
    for name in ("", "time_maa_w2", "time_decay_w2"):
        net = fresh()
        for i, p in enumerate(net.parameters()):  # away from the tiny initial values
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
        for key, p in net.named_parameters():
            if name and key.endswith(name):
                p.zero_()
        outputs.append(net(x))
    for other in outputs[1:]:
        assert (other - outputs[0]).abs().max() > 1e-2 * outputs[0].std()


@pytest.mark.parametrize("variant", ["fast", "portable"])
def test_parity_with_several_heads(variant: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_model("rwkv6", **SIZES, head_dim=8)
    with torch.no_grad():
        for p in model.network.parameters():
            p.add_(0.1 * torch.randn_like(p))
    names: dict[str, Any] = {"input_names": list("abc"), "output_names": list("de")}
    bundle = export_step(model, tmp_path / "m.onnx", sample_rate_hz=100.0, variant=variant, batch=True, **names)
    assert bundle.manifest.parity.relative_error <= 1e-5


def test_a_fresh_model_has_no_dead_branch() -> None:
    net = fresh()
    net(torch.randn(2, 50, 3)).square().mean().backward()
    for name, p in net.named_parameters():
        assert p.grad is not None, name
        assert p.grad.abs().max() > 0, name
