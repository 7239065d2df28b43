"""Low-rank adaptation and fine-tuning from a checkpoint: only B·A learns, and merging changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kizzasi_edge.bundle import Bundle
from kizzasi_edge.errors import BundleError, ConfigError
from kizzasi_export import KINDS, StepModel, build_model, export_step, lora
from kizzasi_export.checkpoint import Checkpoint, ExportSpec
from kizzasi_export.config import load_train_config
from kizzasi_export.models import Normalizer
from kizzasi_export.tasks import TaskResult, load_task

every_kind = pytest.mark.parametrize("kind", KINDS)
OUTPUT = "network.output_projection."

FINETUNE_TOML = """
[task]
name = "supervised"
[finetune]
checkpoint = "base.safetensors"
[finetune.lora]
rank = 2
alpha = 4.0
targets = ["*.in_proj", "*.out_proj"]
[training]
epochs = 8
batch_size = 4
learning_rate = 2e-2
[data]
path = "data.npz"
window = 24
[export]
sample_rate_hz = 50
input_names = ["u", "v"]
output_names = ["w"]
"""


def _model(kind: str = "mamba2", **changes: Any) -> StepModel:
    torch.manual_seed(0)
    sizes = {"input_dim": 2, "output_dim": 1, "hidden_dim": 16, "state_dim": 4, "num_layers": 2, **changes}
    model = build_model(kind, **sizes)
    model.set_normalizer(Normalizer((0.1, -0.2), (1.1, 0.9), (0.3,), (0.7,)))
    return model


def _trained_a_little(model: StepModel, steps: int = 3) -> None:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    for seed in range(steps):
        x = torch.randn(4, 20, 2, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        (model(x) - x.cumsum(1)[..., :1]).square().mean().backward()
        optimizer.step()


@every_kind
def test_only_the_low_rank_terms_learn_and_merging_keeps_the_function(kind: str, tmp_path: Path) -> None:
    model, base = _model(kind), _model(kind).state_dict()
    x = torch.randn(2, 30, 2)
    before = model(x).detach()
    facts = lora.attach(model, rank=2, alpha=4.0)
    assert torch.equal(model(x), before)  # B = 0
    assert all(".A" in name or ".B" in name for name, p in model.named_parameters() if p.requires_grad)
    assert facts["trained_parameters"] == sum(p.numel() for p in model.parameters() if p.requires_grad)
    _trained_a_little(model)
    after = model(x).detach()
    assert (after - before).abs().max() > 1e-3
    lora.merge(model)
    plain = model.state_dict()
    assert plain.keys() == base.keys()
    assert (model(x) - after).abs().max() <= 1e-6 * after.abs().max()
    changed = {name for name in base if not torch.equal(plain[name], base[name])}
    assert changed == {f"{name}.weight" for name in facts["layers"]}
    for name in changed:  # by a term of rank 2 (B·A), up to rounding
        assert torch.linalg.matrix_rank(plain[name] - base[name], rtol=1e-3) <= 2, name
    assert all(p.requires_grad for p in model.parameters())
    Checkpoint(model, ExportSpec(50.0, ["u", "v"], ["w"]), {}).save(tmp_path / "m.safetensors")
    loaded = Checkpoint.load(tmp_path / "m.safetensors").model
    assert torch.equal(loaded(x), model(x))


def test_an_attached_model_exports_what_it_computes(tmp_path: Path) -> None:
    model = _model()
    lora.attach(model, rank=2, alpha=4.0)
    _trained_a_little(model)
    bundle = export_step(model.eval(), tmp_path / "m.onnx", **ExportSpec(50.0, ["u", "v"], ["w"]).__dict__)
    assert bundle.manifest.parity.relative_error <= 1e-5


def test_targets_and_the_output_projection_are_chosen() -> None:
    model = _model()
    facts = lora.attach(model, rank=1, alpha=1.0, targets=["*layers.0*in_proj"], output_projection=True)
    assert facts["layers"] == ["network.backbone.layers.0.mixer.in_proj"]
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name in trained if name.startswith(OUTPUT)} == {f"{OUTPUT}weight", f"{OUTPUT}bias"}
    assert len(trained) == 4
    assert facts["share"] == pytest.approx(sum(p.numel() for p in model.parameters() if p.requires_grad) /
                                           sum(p.numel() for p in _model().parameters()))  # fmt: skip


def test_a_pattern_without_a_layer_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"targets: '\*\.query' matches no Linear layer; expected.*in_proj"):
        lora.attach(_model(), rank=2, alpha=1.0, targets=["*.in_proj", "*.query"])


def test_small_layers_take_the_rank_they_can() -> None:
    model = _model()
    lora.attach(model, rank=8, alpha=1.0)
    ranks = {name: p.shape[0] for name, p in model.named_parameters() if name.endswith(".A")}
    assert ranks["network.output_projection.parametrizations.weight.0.A"] == 1
    assert ranks["network.backbone.layers.0.mixer.in_proj.parametrizations.weight.0.A"] == 8


# --- [finetune] ---


def _project(folder: Path, toml: str = FINETUNE_TOML, **changes: Any) -> Path:
    """A base checkpoint, and data that it does not know: another gain."""
    Checkpoint(_model(**changes), ExportSpec(50.0, ["u", "v"], ["w"]), {}).save(folder / "base.safetensors")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 96, 2))
    np.savez(folder / "data.npz", x=x, y=np.cumsum(x[..., :1], axis=1) * 0.3)
    (folder / "train.toml").write_text(toml)
    return folder / "train.toml"


def _run(path: Path) -> TaskResult:
    config = load_train_config(path)
    return load_task(config)(config.data, config, resume=False, progress=False)


def test_finetuning_with_lora_learns_and_leaves_a_plain_model(tmp_path: Path) -> None:
    path = _project(tmp_path)
    result = _run(path)
    base = Checkpoint.load(tmp_path / "base.safetensors").model
    assert result.fit.best_validation_loss < 0.9 * result.fit.history[0][0]
    assert result.model.state_dict().keys() == base.state_dict().keys()
    changed = {n for n, t in result.model.state_dict().items() if not torch.equal(t, base.state_dict()[n])}
    facts = result.origin["finetune"]
    assert changed == {f"{name}.weight" for name in facts["lora"]["layers"]}
    assert 0.02 < facts["lora"]["share"] < 0.3
    assert facts["checkpoint"] == "base.safetensors"
    assert torch.equal(result.model.input_std, base.input_std)  # the units that its weights know


def test_full_finetuning_starts_from_the_checkpoint(tmp_path: Path) -> None:
    toml = FINETUNE_TOML[: FINETUNE_TOML.index("[finetune.lora]")] + FINETUNE_TOML[FINETUNE_TOML.index("[training]") :]
    path = _project(tmp_path, toml.replace("2e-2", "1e-12").replace("epochs = 8", "epochs = 1"))
    result = _run(path)
    base = Checkpoint.load(tmp_path / "base.safetensors").model
    for name, tensor in result.model.state_dict().items():
        torch.testing.assert_close(tensor, base.state_dict()[name], rtol=0, atol=1e-8)
    assert "lora" not in result.origin["finetune"]


@pytest.mark.parametrize(
    ("old", "new", "error", "match"),
    [
        ("base.safetensors", "none.safetensors", BundleError, "none.safetensors: no such checkpoint"),
        ("[training]", "[model]\nhidden_dim = 32\n[training]", ConfigError, r"hidden_dim: found 32, expected 16 as in"),
        ("[training]", '[model]\nkind = "s4d"\n[training]', ConfigError, "kind: found 's4d', expected 'mamba2'"),
        ("[training]", '[training]\nquantize = "int8"', ConfigError, "quantize or .finetune.lora., not both"),
        ("rank = 2", "ranks = 2", ConfigError, r"\[finetune\] \[lora\] ranks: unknown key"),
        ("*.out_proj", "*.o_proj", ConfigError, r"matches no Linear layer"),
    ],
)
def test_what_does_not_fit_the_checkpoint_is_named(
    old: str, new: str, error: type[Exception], match: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=match):
        _run(_project(tmp_path, FINETUNE_TOML.replace(old, new)))


def test_data_of_another_width_name_size_and_tensor(tmp_path: Path) -> None:
    path = _project(tmp_path, input_dim=2)
    np.savez(tmp_path / "data.npz", x=np.zeros((4, 48, 3)), y=np.zeros((4, 48, 1)))
    path.write_text(FINETUNE_TOML.replace('["u", "v"]', '["u", "v", "t"]'))
    expected = r"input_dim: found 3 channels, expected 2 as in .*base.safetensors.*input_projection.weight is \[16, 2\]"
    with pytest.raises(ConfigError, match=expected):
        _run(path)


def test_a_matching_model_section_is_accepted(tmp_path: Path) -> None:
    section = "[model]\nhidden_dim = 16\nnum_layers = 2\n[training]"
    toml = FINETUNE_TOML.replace("[training]", section).replace("epochs = 8", "epochs = 1")
    result = _run(_project(tmp_path, toml))
    bundle = Checkpoint(result.model, result.export, {"x": result.origin}).export(tmp_path / "m.onnx")
    assert Bundle.open(tmp_path / "m.onnx").manifest.core_sha256 == bundle.manifest.core_sha256
