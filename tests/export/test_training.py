"""Fitting: learning, resuming, several processes, precision, losses, and how it fails."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trainings import memory_data, small_model

from kizzasi_edge.errors import ConfigError, ModelError
from kizzasi_export import StepModel, build_model
from kizzasi_export.config import TrainingSection
from kizzasi_export.datasets import SequenceDataset
from kizzasi_export.losses import sequence_loss
from kizzasi_export.models import Normalizer
from kizzasi_export.train import fit, split


def test_fit_learns_a_memory_task(tmp_path: Path) -> None:
    data = memory_data()
    model = small_model(data)
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
    data = memory_data(12)
    cfg = TrainingSection(epochs=2, batch_size=8)
    first, second = small_model(data), small_model(data)
    a = fit(first, data, cfg, folder=tmp_path / "a", progress=False)
    b = fit(second, data, cfg, folder=tmp_path / "b", progress=False)
    assert a.history == b.history
    grown = data + memory_data(12)
    assert len(grown) == 24
    still = cfg.model_copy(update={"learning_rate": 1e-12, "epochs": 1})
    _, validation = split(grown, cfg.validation_fraction, cfg.seed)
    with torch.no_grad():
        x, y, w = (torch.from_numpy(array) for array in (validation.x, validation.y, validation.weight))
        expected = float(sequence_loss("huber")(first, x, y, w))
    again = fit(first, grown, still, folder=tmp_path / "a2", progress=False)
    assert again.history[0][1] == pytest.approx(expected, rel=1e-4)  # starts from the trained weights


def test_resume_continues_where_it_stopped(tmp_path: Path) -> None:
    data = memory_data(12)
    cfg = TrainingSection(epochs=4, batch_size=8)
    whole = fit(small_model(data), data, cfg, folder=tmp_path / "whole", progress=False)
    calls = 0

    def interrupted_loss(*args: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls > 8:  # 2 training batches and 1 validation batch an epoch: stops in the third epoch
            raise RuntimeError("power cut")
        return sequence_loss("huber")(*args)

    folder = tmp_path / "cut"
    with pytest.raises(RuntimeError, match="power cut"):
        fit(small_model(data), data, cfg, folder=folder, loss=interrupted_loss, progress=False)
    resumed = fit(small_model(data), data, cfg, folder=folder, resume=True, progress=False)
    assert len(resumed.history) == 4
    assert resumed.history == whole.history  # batch order, schedule and moments continue too
    finished = fit(small_model(data), data, cfg, folder=folder, resume=True, progress=False)
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
    data = memory_data(16)
    cfg = TrainingSection(epochs=12, batch_size=4, learning_rate=1e-2, loss="mse", precision="bf16-mixed")
    model = small_model(data)
    result = fit(model, data, cfg, folder=tmp_path, progress=False)
    assert result.best_validation_loss < 0.5 * result.history[0][1]
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    with torch.no_grad():
        assert torch.isfinite(model(torch.from_numpy(data.x))).all()


def test_a_trainer_that_cannot_be_had_is_said(tmp_path: Path) -> None:
    data = memory_data(4)
    for changes in (
        {"strategy": "teleport"},
        {"accelerator": "gpu"} if not torch.cuda.is_available() else {"devices": 99},
    ):
        with pytest.raises(ConfigError, match=r"\[training\]: no trainer with .*strategy"):
            fit(small_model(data), data, TrainingSection(**changes), folder=tmp_path, progress=False)


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
    data = memory_data(4)
    model = build_model("mamba2", input_dim=2, output_dim=1, hidden_dim=8, num_layers=1, head="gaussian")
    with pytest.raises(ConfigError, match=r"\[training\] loss: found 'mse', expected none: a gaussian head"):
        fit(model, data, TrainingSection(loss="mse"), folder=tmp_path, progress=False)


def test_quantised_training_leaves_a_plain_model(tmp_path: Path) -> None:
    data = memory_data(8)
    torch.manual_seed(0)
    model = build_model("mamba2", input_dim=2, output_dim=1, hidden_dim=64, state_dim=8, num_layers=1)
    names = model.state_dict().keys()
    fit(model, data, TrainingSection(epochs=2, batch_size=4, quantize="int8"), folder=tmp_path, progress=False)
    assert model.state_dict().keys() == names
    stored = torch.load(tmp_path / "best.ckpt", weights_only=True)["state_dict"]
    assert any("parametrizations" in name for name in stored)  # it was trained through the rounding


def test_early_stopping(tmp_path: Path) -> None:
    data = memory_data(12)
    cfg = TrainingSection(epochs=60, batch_size=8, learning_rate=1e-12, patience=2)
    model = small_model(data)
    result = fit(model, data, cfg, folder=tmp_path, progress=False)
    assert len(result.history) < 60
    again = fit(small_model(data), data, cfg, folder=tmp_path, resume=True, progress=False)  # it was finished
    assert (again.history, again.steps) == (result.history, result.steps)


def _worsening(model: StepModel, x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Falls in training; in validation the first epoch is the best."""
    loss = sequence_loss("huber")(model, x, y, weight)
    return loss if model.training else 1 / loss


def test_the_last_epoch_is_resumed_and_not_the_best(tmp_path: Path) -> None:
    data = memory_data(12)
    cfg = TrainingSection(epochs=4, batch_size=8, learning_rate=1e-2)
    whole = fit(small_model(data), data, cfg, folder=tmp_path / "whole", loss=_worsening, progress=False)
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
        fit(small_model(data), data, cfg, folder=tmp_path / "cut", loss=interrupted, progress=False)
    saved = torch.load(tmp_path / "cut" / "last.ckpt", weights_only=True)
    assert len(saved["history"]) == 3
    resumed = fit(small_model(data), data, cfg, folder=tmp_path / "cut", loss=_worsening, resume=True, progress=False)
    assert (resumed.history, resumed.best_epoch) == (whole.history, 0)


@pytest.mark.parametrize("sequences", [2, 3, 11])
def test_any_number_of_updates(sequences: int, tmp_path: Path) -> None:
    """One update, two, and ten: at ten the one-cycle schedule's own warm-up would divide by zero."""
    data = memory_data(sequences, 8)
    result = fit(small_model(data), data, TrainingSection(epochs=1, batch_size=1), folder=tmp_path, progress=False)
    assert result.steps == sequences - 1
    assert np.isfinite(result.history).all()


def test_a_state_that_cannot_be_resumed_is_said(tmp_path: Path) -> None:
    data, cfg = memory_data(6), TrainingSection(epochs=1, batch_size=8)
    fit(small_model(data), data, cfg, folder=tmp_path, progress=False)
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
        resume(data=memory_data(8))
    for damaged in (b"", b"x" * 100, whole[: len(whole) // 2]):
        last.write_bytes(damaged)
        with pytest.raises(ConfigError, match=r"last\.ckpt: damaged.*leave --resume out"):
            resume()
    last.write_bytes(whole)
    (tmp_path / "best.ckpt").unlink()
    with pytest.raises(ConfigError, match=r"best\.ckpt: no such file"):
        resume()


def test_a_diverging_loss_is_an_error_with_advice(tmp_path: Path) -> None:
    data = memory_data(12)

    def diverging(model: StepModel, x: torch.Tensor, y: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return model(x).mean() * float("nan")

    with pytest.raises(ModelError, match="learning_rate"):
        fit(small_model(data), data, TrainingSection(), folder=tmp_path, loss=diverging, progress=False)


def test_a_validation_loss_that_is_no_number_is_an_error(tmp_path: Path) -> None:
    data = memory_data(12)

    def loss(model: StepModel, x: torch.Tensor, y: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return model(x).square().mean() * (1.0 if model.training else float("nan"))

    with pytest.raises(ModelError, match="the validation loss became nan"):
        fit(small_model(data), data, TrainingSection(), folder=tmp_path, loss=loss, progress=False)


def test_weights_take_steps_out_of_the_loss() -> None:
    data = memory_data(2, 10)
    model = small_model(data)
    x, y, w = torch.from_numpy(data.x), torch.from_numpy(data.y).clone(), torch.ones(2, 10)
    w[:, :4] = 0
    loss = sequence_loss("huber")
    before = loss(model, x, y, w)
    y[:, :4] += 100
    assert torch.equal(loss(model, x, y, w), before)
    y[:, 5] += 100
    assert loss(model, x, y, w) > before
