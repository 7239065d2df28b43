"""Data checks, configuration errors, fit (learning, resuming, failing), and the command line end to end."""

from __future__ import annotations

import csv
import errno
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import KeysView
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kizzasi_edge.bundle import Bundle
from kizzasi_edge.errors import BundleError, ConfigError, ModelError
from kizzasi_export import StepModel, build_model, cli
from kizzasi_export.checkpoint import Checkpoint
from kizzasi_export.config import TrainingSection, load_train_config
from kizzasi_export.datasets import SequenceDataset, load_npz
from kizzasi_export.losses import sequence_loss
from kizzasi_export.models import Normalizer
from kizzasi_export.tasks import load_task
from kizzasi_export.train import fit, split
from kizzasi_export.trainee import WindowTrainee

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


def _memory_data(sequences: int = 24, steps: int = 48) -> SequenceDataset:
    """y = a running mean of input 0 (time constant 5): impossible without memory."""
    x = np.random.default_rng(0).standard_normal((sequences, steps, 2)).astype(np.float32)
    y = np.zeros((sequences, steps, 1), np.float32)
    for t in range(steps):
        y[:, t, 0] = 0.8 * (y[:, t - 1, 0] if t else 0) + 0.2 * x[:, t, 0]
    return SequenceDataset(x, y)


def _model(data: SequenceDataset) -> StepModel:
    torch.manual_seed(0)
    model = build_model("mamba2", input_dim=2, output_dim=1, hidden_dim=16, state_dim=4, num_layers=1)
    model.set_normalizer(Normalizer.fit(data.x, data.y))
    return model


def _project(folder: Path, toml: str = TRAIN_TOML) -> Path:
    data = _memory_data(4, 100)
    np.savez(folder / "data.npz", x=data.x, y=data.y)
    (folder / "train.toml").write_text(toml)
    return folder / "train.toml"


def test_fit_learns_a_memory_task(tmp_path: Path) -> None:
    data = _memory_data()
    model = _model(data)
    cfg = TrainingSection(epochs=60, batch_size=8, learning_rate=1e-2, loss="mse", patience=60)
    result = fit(model, data, cfg, folder=tmp_path, progress=False)
    assert result.history[0][1] > 0.4  # an untrained model explains nothing (1 = the targets' variance)
    assert result.best_validation_loss < 0.05
    assert result.best_validation_loss == min(v for _, v in result.history)
    _, validation = split(data, cfg.validation_fraction, cfg.seed)
    with torch.no_grad():  # the best weights are in the model, not the last ones
        x, y, w = (torch.from_numpy(a) for a in (validation.x, validation.y, validation.weight))
        assert float(sequence_loss("mse")(model, x, y, w)) == pytest.approx(result.best_validation_loss, rel=1e-3)


def test_fit_is_repeatable_and_continues_on_a_grown_dataset(tmp_path: Path) -> None:
    data = _memory_data(12)
    cfg = TrainingSection(epochs=2, batch_size=8)
    first, second = _model(data), _model(data)
    a = fit(first, data, cfg, folder=tmp_path / "a", progress=False)
    b = fit(second, data, cfg, folder=tmp_path / "b", progress=False)
    assert a.history == b.history
    grown = data + _memory_data(12)
    assert len(grown) == 24
    still = cfg.model_copy(update={"learning_rate": 1e-12, "epochs": 1})
    _, validation = split(grown, cfg.validation_fraction, cfg.seed)
    with torch.no_grad():
        x, y, w = (torch.from_numpy(array) for array in (validation.x, validation.y, validation.weight))
        expected = float(sequence_loss("huber")(first, x, y, w))
    again = fit(first, grown, still, folder=tmp_path / "a2", progress=False)
    assert again.history[0][1] == pytest.approx(expected, rel=1e-4)  # starts from the trained weights


def test_resume_continues_where_it_stopped(tmp_path: Path) -> None:
    data = _memory_data(12)
    cfg = TrainingSection(epochs=4, batch_size=8)
    whole = fit(_model(data), data, cfg, folder=tmp_path / "whole", progress=False)
    calls = 0

    def interrupted_loss(*args: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls > 8:  # 2 training batches and 1 validation batch an epoch: stops in the third epoch
            raise RuntimeError("power cut")
        return sequence_loss("huber")(*args)

    folder = tmp_path / "cut"
    with pytest.raises(RuntimeError, match="power cut"):
        fit(_model(data), data, cfg, folder=folder, loss=interrupted_loss, progress=False)
    resumed = fit(_model(data), data, cfg, folder=folder, resume=True, progress=False)
    assert len(resumed.history) == 4
    assert resumed.history == whole.history  # batch order, schedule and moments continue too
    finished = fit(_model(data), data, cfg, folder=folder, resume=True, progress=False)
    assert finished.history == resumed.history


DDP_SCRIPT = """
import json, sys
import numpy as np, torch
torch.set_num_threads(1)
from pathlib import Path
from kizzasi_export import build_model
from kizzasi_export.config import TrainingSection
from kizzasi_export.datasets import Recording, SequenceDataset, Streams
from kizzasi_export.constraints import LagrangianRelaxation
from kizzasi_export.losses import head_loss
from kizzasi_export.train import fit, leads

class Limited(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.limit = LagrangianRelaxation(("size",), rate=5.0)

    def forward(self, model, outputs, y, weight):
        return head_loss("mse")(model, outputs, y, weight) + self.limit({"size": outputs["y"].abs() - 0.05})

processes, found = int(sys.argv[2]), []
x = np.random.default_rng(0).standard_normal((13, 48, 2)).astype(np.float32)
y = np.cumsum(x[..., :1], 1) * 0.1
shares = slice(0, 8), slice(8, 13)  # five windows validate: not a multiple of the processes
for name, tbptt in (("windows", None), ("streams", 16)):
    torch.manual_seed(0)
    model = build_model("mamba2", input_dim=2, output_dim=1, hidden_dim=8, state_dim=4, num_layers=1)
    strategy = "ddp" if processes > 1 else "auto"
    cfg = TrainingSection(epochs=3, batch_size=4 // processes, devices=processes, strategy=strategy, tbptt=tbptt)
    if tbptt is None:
        sets = [SequenceDataset(x[share], y[share]) for share in shares]
    else:
        sets = [Streams(tuple(Recording(a, b, None, "r") for a, b in zip(x[share], y[share]))) for share in shares]
    result = fit(model, sets[0], cfg, folder=Path(sys.argv[1]) / name, validation=sets[1],
                 output_loss=Limited() if tbptt is None else None, progress=False)
    found.append([result.history, result.best_epoch, sum(float(p.detach().abs().sum()) for p in model.parameters())])
rank = 0 if leads() else 1
(Path(sys.argv[1]) / f"rank{rank}.json").write_text(json.dumps(found))
"""


def test_two_processes_compute_what_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches, averaged gradients, multipliers, logged losses and the kept weights, for windows and for streams."""
    script, together = tmp_path / "script.py", tmp_path / "together"
    script.write_text(DDP_SCRIPT)
    together.mkdir()
    command = [str(script), str(together), "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, *command], stderr=subprocess.PIPE, text=True, env=environment) as pair:
        monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path), "1"])
        runpy.run_path(str(script))  # meanwhile
        assert pair.wait(200) == 0, pair.stderr and pair.stderr.read()
    alone = json.loads((tmp_path / "rank0.json").read_text())
    for rank in (json.loads((together / f"rank{number}.json").read_text()) for number in (0, 1)):
        for (history, best, weights), (history_alone, best_alone, weights_alone) in zip(rank, alone, strict=True):
            np.testing.assert_allclose(history, history_alone, rtol=1e-4)
            assert best == best_alone
            assert weights == pytest.approx(weights_alone, rel=1e-5)


def test_mixed_precision_learns(tmp_path: Path) -> None:
    data = _memory_data(16)
    cfg = TrainingSection(epochs=12, batch_size=4, learning_rate=1e-2, loss="mse", precision="bf16-mixed")
    model = _model(data)
    result = fit(model, data, cfg, folder=tmp_path, progress=False)
    assert result.best_validation_loss < 0.5 * result.history[0][1]
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    with torch.no_grad():
        assert torch.isfinite(model(torch.from_numpy(data.x))).all()


def test_a_trainer_that_cannot_be_had_is_said(tmp_path: Path) -> None:
    data = _memory_data(4)
    for changes in (
        {"strategy": "teleport"},
        {"accelerator": "gpu"} if not torch.cuda.is_available() else {"devices": 99},
    ):
        with pytest.raises(ConfigError, match=r"\[training\]: no trainer with .*strategy"):
            fit(_model(data), data, TrainingSection(**changes), folder=tmp_path, progress=False)


# --- losses ---


def test_gaussian_loss_is_the_likelihood_of_scaled_targets() -> None:
    torch.manual_seed(0)
    model = build_model("mamba2", input_dim=2, output_dim=3, hidden_dim=8, num_layers=1, head="gaussian")
    model.set_normalizer(Normalizer((0.0,) * 2, (1.0,) * 2, (1.0, 2.0, 3.0), (0.5, 2.0, 10.0)))
    x, y, weight = torch.randn(2, 7, 2), torch.randn(2, 7, 3), torch.rand(2, 7)
    with torch.no_grad():
        found = model.outputs(x)
        spread = (0.5 * found["logvar"]).exp() / model.output_std
        expected = -torch.distributions.Normal(found["y"] / model.output_std, spread).log_prob(y / model.output_std)
        expected = (expected.mean(-1) * weight).sum() / weight.sum()
        assert float(sequence_loss()(model, x, y, weight)) == pytest.approx(float(expected), rel=1e-5)


def test_a_gaussian_head_learns_how_much_it_does_not_know(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.choice([0.0, 1.0], (40, 24, 2))
    data = SequenceDataset(x, (0.05 + 0.95 * x[..., :1]) * rng.standard_normal((40, 24, 1)))  # input 0: the noise
    model = build_model("mamba2", input_dim=2, output_dim=1, hidden_dim=8, state_dim=4, num_layers=1, head="gaussian")
    fit(model, data, TrainingSection(epochs=15, batch_size=8, learning_rate=2e-2), folder=tmp_path, progress=False)
    with torch.no_grad():
        std = (0.5 * model.outputs(torch.from_numpy(data.x))["logvar"]).exp().numpy()
    assert np.median(std[data.x[..., :1] == 0]) < 0.15
    assert 0.7 < np.median(std[data.x[..., :1] == 1]) < 1.4


def test_categorical_loss_is_the_cross_entropy_of_the_nearest_level() -> None:
    torch.manual_seed(0)
    tokenizer = {"kind": "uniform", "vocab": 5, "low": [-1.0, 0.0], "high": [1.0, 4.0]}
    model = build_model(
        "mamba2", input_dim=2, output_dim=2, hidden_dim=8, num_layers=1, head="categorical", tokenizer=tokenizer
    )
    x, weight = torch.randn(1, 3, 2), torch.tensor([[1.0, 0.0, 2.0]])
    y = torch.tensor([[[-0.9, 4.3], [0.0, 0.0], [0.3, 1.1]]])  # levels: -1 -.5 0 .5 1 and 0 1 2 3 4
    with torch.no_grad():
        logp = model.outputs(x)["logits"].log_softmax(-1)[0]
        first, last = -(logp[0, 0, 0] + logp[0, 1, 4]) / 2, -(logp[2, 0, 3] + logp[2, 1, 1]) / 2
        found = float(sequence_loss()(model, x, y, weight))
    assert found == pytest.approx(float(first + 2 * last) / 3, rel=1e-5)


def test_a_loss_that_the_head_does_not_have(tmp_path: Path) -> None:
    data = _memory_data(4)
    model = build_model("mamba2", input_dim=2, output_dim=1, hidden_dim=8, num_layers=1, head="gaussian")
    with pytest.raises(ConfigError, match=r"\[training\] loss: found 'mse', expected none: a gaussian head"):
        fit(model, data, TrainingSection(loss="mse"), folder=tmp_path, progress=False)


def test_quantised_training_leaves_a_plain_model(tmp_path: Path) -> None:
    data = _memory_data(8)
    torch.manual_seed(0)
    model = build_model("mamba2", input_dim=2, output_dim=1, hidden_dim=64, state_dim=8, num_layers=1)
    names = model.state_dict().keys()
    fit(model, data, TrainingSection(epochs=2, batch_size=4, quantize="int8"), folder=tmp_path, progress=False)
    assert model.state_dict().keys() == names
    stored = torch.load(tmp_path / "best.ckpt", weights_only=True)["state_dict"]
    assert any("parametrizations" in name for name in stored)  # it was trained through the rounding


def test_early_stopping(tmp_path: Path) -> None:
    data = _memory_data(12)
    cfg = TrainingSection(epochs=60, batch_size=8, learning_rate=1e-12, patience=2)
    model = _model(data)
    result = fit(model, data, cfg, folder=tmp_path, progress=False)
    assert len(result.history) < 60
    again = fit(_model(data), data, cfg, folder=tmp_path, resume=True, progress=False)  # it was finished
    assert (again.history, again.steps) == (result.history, result.steps)


def _worsening(model: StepModel, x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Falls in training; in validation the first epoch is the best."""
    loss = sequence_loss("huber")(model, x, y, weight)
    return loss if model.training else 1 / loss


def test_the_last_epoch_is_resumed_and_not_the_best(tmp_path: Path) -> None:
    data = _memory_data(12)
    cfg = TrainingSection(epochs=4, batch_size=8, learning_rate=1e-2)
    whole = fit(_model(data), data, cfg, folder=tmp_path / "whole", loss=_worsening, progress=False)
    assert len(whole.history) == 4
    assert whole.best_epoch == 0
    calls = 0

    def interrupted(*args: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls > 10:
            raise RuntimeError("power cut")
        return _worsening(*args)

    with pytest.raises(RuntimeError, match="power cut"):
        fit(_model(data), data, cfg, folder=tmp_path / "cut", loss=interrupted, progress=False)
    saved = torch.load(tmp_path / "cut" / "last.ckpt", weights_only=True)
    assert len(saved["history"]) == 3
    resumed = fit(_model(data), data, cfg, folder=tmp_path / "cut", loss=_worsening, resume=True, progress=False)
    assert (resumed.history, resumed.best_epoch) == (whole.history, 0)


@pytest.mark.parametrize("sequences", [2, 3, 11])
def test_any_number_of_updates(sequences: int, tmp_path: Path) -> None:
    """One update, two, and ten: at ten the one-cycle schedule's own warm-up would divide by zero."""
    data = _memory_data(sequences, 8)
    result = fit(_model(data), data, TrainingSection(epochs=1, batch_size=1), folder=tmp_path, progress=False)
    assert result.steps == sequences - 1
    assert np.isfinite(result.history).all()


def test_a_state_that_cannot_be_resumed_is_said(tmp_path: Path) -> None:
    data, cfg = _memory_data(6), TrainingSection(epochs=1, batch_size=8)
    fit(_model(data), data, cfg, folder=tmp_path, progress=False)
    last = tmp_path / "last.ckpt"
    whole = last.read_bytes()

    def resume(data: SequenceDataset = data, hidden_dim: int = 16, **changes: Any) -> None:
        torch.manual_seed(0)
        model = build_model("mamba2", input_dim=2, output_dim=1, hidden_dim=hidden_dim, state_dim=4, num_layers=1)
        fit(model, data, cfg.model_copy(update=changes), folder=tmp_path, resume=True, progress=False)

    resume(precision="bf16-mixed")  # where and how it runs may change
    with pytest.raises(ConfigError, match=r"\[training\] epochs: found 3, expected 1 as in .*last\.ckpt"):
        resume(epochs=3)
    with pytest.raises(ConfigError, match=r"\[model\] network.*: found \[32, 2\], expected \[16, 2\] as in .*last"):
        resume(hidden_dim=32)
    with pytest.raises(ConfigError, match=r"training data: found .*expected .*as in .*last\.ckpt"):
        resume(data=_memory_data(8))
    for damaged in (b"", b"x" * 100, whole[: len(whole) // 2]):
        last.write_bytes(damaged)
        with pytest.raises(ConfigError, match=r"last\.ckpt: damaged.*leave --resume out"):
            resume()
    last.write_bytes(whole)
    (tmp_path / "best.ckpt").unlink()
    with pytest.raises(ConfigError, match=r"best\.ckpt: no such file"):
        resume()


def test_a_diverging_loss_is_an_error_with_advice(tmp_path: Path) -> None:
    data = _memory_data(12)

    def diverging(model: StepModel, x: torch.Tensor, y: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return model(x).mean() * float("nan")

    with pytest.raises(ModelError, match="learning_rate"):
        fit(_model(data), data, TrainingSection(), folder=tmp_path, loss=diverging, progress=False)


def test_a_validation_loss_that_is_no_number_is_an_error(tmp_path: Path) -> None:
    data = _memory_data(12)

    def loss(model: StepModel, x: torch.Tensor, y: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return model(x).square().mean() * (1.0 if model.training else float("nan"))

    with pytest.raises(ModelError, match="the validation loss became nan"):
        fit(_model(data), data, TrainingSection(), folder=tmp_path, loss=loss, progress=False)


def test_weights_take_steps_out_of_the_loss() -> None:
    data = _memory_data(2, 10)
    model = _model(data)
    x, y, w = torch.from_numpy(data.x), torch.from_numpy(data.y).clone(), torch.ones(2, 10)
    w[:, :4] = 0
    loss = sequence_loss("huber")
    before = loss(model, x, y, w)
    y[:, :4] += 100
    assert torch.equal(loss(model, x, y, w), before)
    y[:, 5] += 100
    assert loss(model, x, y, w) > before


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"x": (1, 3, 0)}, r"x holds 1 non-finite value\(s\).*sequence 1, row 3, column 0: nan"),
        ({"y": (0, 2, 0)}, "y holds 1 non-finite.*sequence 0, row 2, column 0"),
    ],
)
def test_nan_is_named(change: dict[str, tuple[int, ...]], match: str) -> None:
    arrays = {"x": np.zeros((2, 5, 3)), "y": np.zeros((2, 5, 1))}
    for name, where in change.items():
        arrays[name][where] = np.nan
    with pytest.raises(ConfigError, match=match):
        SequenceDataset(**arrays)


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"x": np.zeros((2, 5)), "y": np.zeros((2, 5, 1))}, r"x is \[2, 5\], expected \[N, T, channels\]"),
        ({"x": np.zeros((2, 5, 3)), "y": np.zeros((2, 4, 1))}, r"y is \[2, 4, 1\]"),
        ({"x": np.zeros((0, 5, 3)), "y": np.zeros((0, 5, 1))}, "no empty axis"),
        ({"x": np.array([[["a"]]]), "y": np.zeros((1, 1, 1))}, "expected numbers"),
        ({"x": np.full((1, 2, 1), 1e300), "y": np.zeros((1, 2, 1))}, "non-finite value.*1e"),
        ({"x": np.zeros((1, 2, 1)), "y": np.zeros((1, 2, 1)), "weight": np.zeros((1, 2))}, "weight must be"),
    ],
)
def test_bad_shapes_are_named(arrays: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        SequenceDataset(**arrays)


def test_npz_files(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    with pytest.raises(ConfigError, match="no such data file"):
        load_npz(path)
    path.write_bytes(b"not a zip")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_npz(path)
    np.savez(path, x=np.zeros((7, 2)))
    with pytest.raises(ConfigError, match="no array 'y'"):
        load_npz(path)
    np.savez(path, x=np.arange(14.0).reshape(7, 2), y=np.zeros((7, 1)))
    data = load_npz(path, window=3)
    assert data.x.shape == (2, 3, 2)
    assert data.x[1, 0, 0] == 6
    with pytest.raises(ConfigError, match="at least window = 8"):
        load_npz(path, window=8)


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("epochs = 3", "epoch = 3", r"\[training\] epoch: unknown key"),
        ("epochs = 3", "epochs = 0", r"\[training\] epochs: found 0"),
        ("epochs = 3", 'epochs = "3"', r"\[training\] epochs: found '3'"),
        ('"supervised"', '"juggling"', r"\[task\] name: found 'juggling', expected one of arm, supervised"),
        ("hidden_dim = 16", 'kind = "lstm"', "lstm"),
        ("window = 32", "windows = 32", "windows: unknown key"),
        ("window = 32", "window = 4000", "at least window = 4000"),
        ('output_names = ["a/position"]', 'output_names = ["a", "b"]', r"output_names: found 2, expected 1"),
        ('path = "data.npz"', 'path = "other.npz"', "other.npz: no such data file"),
        ("[task]", "[task", "not valid TOML"),
        ("epochs = 3", "gradient_clip = inf", r"\[training\] gradient_clip: found inf"),
        ("sample_rate_hz = 100", "sample_rate_hz = inf", r"\[export\] sample_rate_hz: found inf"),
        ("epochs = 3", 'quantize = "int8"', r"\[training\] quantize: found no weight matrix of at least"),
        ("hidden_dim = 16", "architecture = { input_dim = 3 }", "no input_dim: the data have it"),
        ('"a/position", "b/position"', '"a", "a"', r"\[export\] input_names: found \['a', 'a'\], expected different"),
        ('"a/position", "b/position"', '"", "a"', r"\[export\] input_names: found \['', 'a'\]"),
        ("[export]", '[output]\nvariant = "portable"\nquantize = "int8"\n[export]', "no standard operator reads int8"),
        (
            "[export]",
            '[constraints]\nguard = "g"\n[export]',
            r"\[constraints\]: method: found None, expected one of pen",
        ),
        ("[export]", '[constraints]\nmethod = "projection"\nweight = 1\n[export]', r"\[constraints\]: weight: unknown"),
    ],
)
def test_configuration_errors_name_section_and_key(old: str, new: str, match: str, tmp_path: Path) -> None:
    path = _project(tmp_path, TRAIN_TOML.replace(old, new))

    def train() -> None:
        config = load_train_config(path)
        load_task(config)(config.data, config, resume=False, progress=False)

    with pytest.raises(ConfigError, match=match) as caught:
        train()
    assert len(str(caught.value).splitlines()) <= 3
    assert not (tmp_path / "runs").exists()


def test_presets_are_sizes_to_start_from(tmp_path: Path) -> None:
    path = _project(tmp_path, TRAIN_TOML.replace("hidden_dim = 16", 'preset = "control"'))
    section = load_train_config(path).model
    assert (section.kind, section.hidden_dim, section.context_window) == ("mamba2", 64, 256)
    assert (section.state_dim, section.num_layers) == (4, 1)  # given, so not the preset's 8 and 2
    path.write_text(TRAIN_TOML.replace("hidden_dim = 16", 'preset = "kitchen"'))
    with pytest.raises(ConfigError, match=r"\[model\] preset: found 'kitchen'; expected one of robotics"):
        load_train_config(path)


def test_a_tokenizer_takes_its_range_from_the_training_targets(tmp_path: Path) -> None:
    toml = TRAIN_TOML.replace("[training]", 'head = "categorical"\ntokenizer = { vocab = 16 }\n[training]')
    config = load_train_config(_project(tmp_path, toml))
    result = load_task(config)(config.data, config, resume=False, progress=False)
    found = result.model.config["tokenizer"]
    with np.load(tmp_path / "data.npz") as data:
        # one of the four recordings validates, and is not looked at
        ranges = [(np.delete(data["y"], i, 0).min(), np.delete(data["y"], i, 0).max()) for i in range(4)]
    assert any(np.allclose([found["low"][0], found["high"][0]], pair) for pair in ranges)
    assert result.fit.best_validation_loss < np.log(16)  # better than guessing
    given = toml.replace("vocab = 16", "vocab = 16, low = -1.0, high = 2.0")
    (tmp_path / "train.toml").write_text(given)
    config = load_train_config(tmp_path / "train.toml")
    assert config.model.build(2, 1).config["tokenizer"]["high"] == 2.0
    with pytest.raises(ConfigError, match=r"\[model.tokenizer\] low: missing"):
        load_train_config(_project(tmp_path, toml)).model.build(2, 1)


def test_rate_and_names_come_from_data_that_know_them(tmp_path: Path) -> None:
    section = '[data]\nformat = "generated"\nsystem = "pendulum"\nrecordings = 3\nsteps = 40\n'
    toml = TRAIN_TOML[: TRAIN_TOML.index("[data]")].replace("epochs = 3", "epochs = 1") + section
    config = load_train_config(_project(tmp_path, toml))
    export = load_task(config)(config.data, config, resume=False, progress=False).export
    assert export.output_names == ["pendulum/position", "pendulum/velocity"]
    assert export.sample_rate_hz == 100.0
    toml = toml.replace('"pendulum"', '"lorenz"')
    config = load_train_config(_project(tmp_path, toml))
    with pytest.raises(ConfigError, match=r"\[export\] sample_rate_hz: missing"):
        load_task(config)(config.data, config, resume=False, progress=False)


def test_a_rate_that_the_data_do_not_have(tmp_path: Path) -> None:
    rows = "\n".join(f"{i / 100},{i % 7},{i % 5}" for i in range(200))
    (tmp_path / "log.csv").write_text(f"t,a,b\n{rows}\n")
    section = '[data]\npath = "log.csv"\ntime = "t"\ninputs = ["a"]\noutputs = ["b"]\nwindow = 20\n'
    toml = TRAIN_TOML[: TRAIN_TOML.index("[data]")] + section + "[export]\nsample_rate_hz = "
    (tmp_path / "train.toml").write_text(toml + "50\n")
    config = load_train_config(tmp_path / "train.toml")
    with pytest.raises(ConfigError, match=r"log\.csv.*100.*50"):
        load_task(config)(config.data, config, resume=False, progress=False)


def test_a_quantised_bundle_from_a_training_that_knew_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml = TRAIN_TOML.replace("hidden_dim = 16", "hidden_dim = 64").replace(
        "[training]", '[training]\nquantize = "int8"'
    )
    config = _project(tmp_path, toml + '[output]\nquantize = "int8"\n')
    assert _main(monkeypatch, "train", str(config), "--no-progress") == 0
    manifest = Bundle.open(tmp_path / "model.onnx").manifest
    assert manifest.training["quantize"] == "int8"
    assert manifest.precision == "int8"
    assert Checkpoint.load(tmp_path / "runs" / "model.safetensors").model.state_dict().keys() == _names(config)


def _names(path: Path) -> KeysView[str]:
    return load_train_config(path).model.build(2, 1).state_dict().keys()


FOLDER = Path(__file__).parents[2] / "examples" / "train"
EXAMPLES = sorted(path for path in FOLDER.glob("*.toml") if "guard" not in path.name)  # those: test_guarded.py


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_train(example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every example as it is, for one epoch on fewer recordings."""
    text = re.sub(r"^epochs = \d+", "epochs = 1", example.read_text(), flags=re.M)
    text = re.sub(r"^recordings = \d+", "recordings = 6", text, flags=re.M)
    (tmp_path / example.name).write_text(text)
    config = load_train_config(tmp_path / example.name)
    assert config.training.epochs == 1
    assert _main(monkeypatch, "train", str(tmp_path / example.name), "--no-progress") == 0
    bundle = Bundle.open(config.base / config.output.bundle)
    assert bundle.manifest.kind == config.model.kind
    assert bundle.manifest.parity.relative_error <= bundle.manifest.parity.bound


def test_the_documented_configurations_are_valid(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    blocks = re.findall(r"^```toml\n(.*?)^```", page, re.S | re.M)
    assert len(blocks) >= 3
    for number, text in enumerate(blocks):
        (tmp_path / f"{number}.toml").write_text(text)
        assert load_train_config(tmp_path / f"{number}.toml").task.name == "supervised"


def _main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["kizzasi-export", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


def test_train_export_verify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = _project(tmp_path)
    assert _main(monkeypatch, "train", str(config), "--no-progress") == 0
    bundle = Bundle.open(tmp_path / "model.onnx")
    assert bundle.manifest.input_names == ("a/position", "b/position")
    assert bundle.manifest.training["seed"] == 0
    assert bundle.manifest.training["config_sha256"] == load_train_config(config).digest
    checkpoint = tmp_path / "runs" / "model.safetensors"
    assert (tmp_path / "runs" / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "runs" / "learning_curve.csv").open() as file:
        curve = list(csv.DictReader(file))
    assert [row["epoch"] for row in curve] == ["1", "2", "3"]
    best = curve[bundle.manifest.training["best_epoch"] - 1]
    assert float(best["validation_loss"]) == bundle.manifest.training["validation_loss"]

    portable, report = tmp_path / "p.onnx", tmp_path / "report.json"
    assert _main(monkeypatch, "export", str(checkpoint), str(portable), "--portable", "--batch") == 0
    assert Bundle.open(portable).manifest.batch == "B"
    arguments = ("verify", str(portable), "--checkpoint", str(checkpoint), "--json", str(report))
    assert _main(monkeypatch, *arguments) == 0
    found = json.loads(report.read_text())
    assert found["passed"] is True
    assert found["steps"] >= 1000
    assert (found["variant"], found["bound"], found["mode"]) == ("portable", 1e-5, "parity")

    trained = Checkpoint.load(checkpoint)
    with torch.no_grad():
        trained.model.network.output_projection.bias += 0.1
    trained.save(tmp_path / "other.safetensors")
    arguments = ("verify", str(portable), "--checkpoint", str(tmp_path / "other.safetensors"))
    assert _main(monkeypatch, *arguments) == 1


def test_command_line_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main(monkeypatch, "train", str(tmp_path / "none.toml")) == 2
    assert "none.toml: no such file" in capsys.readouterr().err.replace("\n", "")
    (tmp_path / "x.onnx").write_bytes(b"nothing")
    assert _main(monkeypatch, "verify", str(tmp_path / "x.onnx")) == 2
    assert _main(monkeypatch, "export", str(tmp_path / "x.onnx"), str(tmp_path / "y.onnx")) == 2
    assert not (tmp_path / "y.onnx").exists()


def test_places_that_cannot_be_written_are_said_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    for output, match in (
        ('bundle = "data.npz/m.onnx"', "[output] bundle: "),
        ('bundle = "folder"', "[output] bundle: "),
        ('folder = "data.npz"', "[output] folder: "),
    ):
        config = _project(tmp_path, TRAIN_TOML + f"[output]\n{output}\n")
        before = sorted(tmp_path.rglob("*"))
        assert _main(monkeypatch, "train", str(config), "--no-progress") == 2
        assert match in capsys.readouterr().err.replace("\n", "")
        assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("moment", range(5))
def test_a_full_disk_leaves_no_half_file(
    moment: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both states of the trainer, checkpoint, picture, table: the first write that fails ends it, in one line."""
    config = _project(tmp_path, TRAIN_TOML.replace("epochs = 3", "epochs = 1"))
    names = ("best.ckpt", "last.ckpt", "model.safetensors", "learning_curve.png", "learning_curve.csv")
    rename, move = Path.replace, shutil.move

    def full(target: object) -> None:
        if Path(str(target)).name == names[moment]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    def replace(self: Path, target: Path) -> Path:
        full(target)
        return rename(self, target)

    def moved(source: str, target: str, *args: Any) -> object:
        full(target)
        return move(source, target, *args)

    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(shutil, "move", moved)
    assert _main(monkeypatch, "train", str(config), "--no-progress") == 2
    error = capsys.readouterr().err.replace("\n", "")
    assert names[moment] in error
    assert "No space left" in error
    assert {path.name for path in tmp_path.rglob("*.*")} == {"data.npz", "train.toml", *names[:moment]}


def test_ctrl_c_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config, step, calls = _project(tmp_path), WindowTrainee.training_step, 0

    def pressed(self: WindowTrainee, batch: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return step(self, batch)

    monkeypatch.setattr(WindowTrainee, "training_step", pressed)
    assert _main(monkeypatch, "train", str(config), "--no-progress") == 130
    assert "--resume continues" in capsys.readouterr().err
    assert not (tmp_path / "model.onnx").exists()
    assert _main(monkeypatch, "train", str(config), "--no-progress", "--resume") == 0


@pytest.mark.parametrize("section", ["[constraints]\nmethod = 'penalty'\nguard = 'g'", "[export]\nsample_rate_hz = 1"])
def test_the_arm_refuses_what_it_would_not_heed(section: str, tmp_path: Path) -> None:
    (tmp_path / "train.toml").write_text(f'[task]\nname = "arm"\n{section}\n')
    config = load_train_config(tmp_path / "train.toml")
    with pytest.raises(ConfigError, match=re.escape(section.splitlines()[0])):
        load_task(config)(config.data, config, resume=False, progress=False)


def test_checkpoints_rebuild_the_model(smooth: StepModel, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from kizzasi_export.checkpoint import ExportSpec

    spec = ExportSpec(500.0, list("abcd"), list("ef"))
    Checkpoint(smooth, spec, {"seed": 1}).save(tmp_path / "m.safetensors")
    loaded = Checkpoint.load(tmp_path / "m.safetensors")
    x = torch.randn(2, 30, 4)
    assert torch.equal(loaded.model.eval()(x), smooth(x))
    assert loaded.spec == spec
    assert loaded.training == {"seed": 1}
    mode = (tmp_path / "m.safetensors").stat().st_mode & 0o777
    (tmp_path / "plain").write_bytes(b"")
    assert mode == (tmp_path / "plain").stat().st_mode & 0o777  # as readable as any other file
    smooth.input_mean[0] = float("nan")
    Checkpoint(smooth, spec, {}).save(tmp_path / "nan.safetensors")
    with pytest.raises(BundleError, match="input_mean holds NaN or Inf"):
        Checkpoint.load(tmp_path / "nan.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(BundleError, match="expected a checkpoint of kizzasi-export"):
        Checkpoint.load(tmp_path / "foreign.safetensors")
