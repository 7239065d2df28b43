"""train.toml and the command line end to end: examples, errors, interruptions, full disks."""

from __future__ import annotations

import csv
import errno
import json
import os
import re
import shutil
from collections.abc import KeysView
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trainings import TRAIN_TOML, project, run_cli

from kizzasi_edge.bundle import Bundle
from kizzasi_edge.errors import BundleError, ConfigError
from kizzasi_export import StepModel
from kizzasi_export.checkpoint import Checkpoint
from kizzasi_export.config import load_train_config
from kizzasi_export.tasks import load_task
from kizzasi_export.trainee import WindowTrainee


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
    path = project(tmp_path, TRAIN_TOML.replace(old, new))

    def train() -> None:
        config = load_train_config(path)
        load_task(config)(config.data, config, resume=False, progress=False)

    with pytest.raises(ConfigError, match=match) as caught:
        train()
    assert len(str(caught.value).splitlines()) <= 3
    assert not (tmp_path / "runs").exists()


def test_presets_are_sizes_to_start_from(tmp_path: Path) -> None:
    path = project(tmp_path, TRAIN_TOML.replace("hidden_dim = 16", 'preset = "control"'))
    section = load_train_config(path).model
    assert (section.kind, section.hidden_dim, section.context_window) == ("mamba2", 64, 256)
    assert (section.state_dim, section.num_layers) == (4, 1)  # given, so not the preset's 8 and 2
    path.write_text(TRAIN_TOML.replace("hidden_dim = 16", 'preset = "kitchen"'))
    with pytest.raises(ConfigError, match=r"\[model\] preset: found 'kitchen'; expected one of robotics"):
        load_train_config(path)


def test_a_tokenizer_takes_its_range_from_the_training_targets(tmp_path: Path) -> None:
    toml = TRAIN_TOML.replace("[training]", 'head = "categorical"\ntokenizer = { vocab = 16 }\n[training]')
    config = load_train_config(project(tmp_path, toml))
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
        load_train_config(project(tmp_path, toml)).model.build(2, 1)


def test_rate_and_names_come_from_data_that_know_them(tmp_path: Path) -> None:
    section = '[data]\nformat = "generated"\nsystem = "pendulum"\nrecordings = 3\nsteps = 40\n'
    toml = TRAIN_TOML[: TRAIN_TOML.index("[data]")].replace("epochs = 3", "epochs = 1") + section
    config = load_train_config(project(tmp_path, toml))
    export = load_task(config)(config.data, config, resume=False, progress=False).export
    assert export.output_names == ["pendulum/position", "pendulum/velocity"]
    assert export.sample_rate_hz == 100.0
    toml = toml.replace('"pendulum"', '"lorenz"')
    config = load_train_config(project(tmp_path, toml))
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
    config = project(tmp_path, toml + '[output]\nquantize = "int8"\n')
    assert run_cli(monkeypatch, "train", str(config), "--no-progress") == 0
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
    assert run_cli(monkeypatch, "train", str(tmp_path / example.name), "--no-progress") == 0
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


def test_train_export_verify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = project(tmp_path)
    assert run_cli(monkeypatch, "train", str(config), "--no-progress") == 0
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
    assert run_cli(monkeypatch, "export", str(checkpoint), str(portable), "--portable", "--batch") == 0
    assert Bundle.open(portable).manifest.batch == "B"
    arguments = ("verify", str(portable), "--checkpoint", str(checkpoint), "--json", str(report))
    assert run_cli(monkeypatch, *arguments) == 0
    found = json.loads(report.read_text())
    assert found["passed"] is True
    assert found["steps"] >= 1000
    assert (found["variant"], found["bound"], found["mode"]) == ("portable", 1e-5, "parity")

    trained = Checkpoint.load(checkpoint)
    with torch.no_grad():
        trained.model.network.output_projection.bias += 0.1
    trained.save(tmp_path / "other.safetensors")
    arguments = ("verify", str(portable), "--checkpoint", str(tmp_path / "other.safetensors"))
    assert run_cli(monkeypatch, *arguments) == 1


def test_command_line_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(monkeypatch, "train", str(tmp_path / "none.toml")) == 2
    assert "none.toml: no such file" in capsys.readouterr().err.replace("\n", "")
    (tmp_path / "x.onnx").write_bytes(b"nothing")
    assert run_cli(monkeypatch, "verify", str(tmp_path / "x.onnx")) == 2
    assert run_cli(monkeypatch, "export", str(tmp_path / "x.onnx"), str(tmp_path / "y.onnx")) == 2
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
        config = project(tmp_path, TRAIN_TOML + f"[output]\n{output}\n")
        before = sorted(tmp_path.rglob("*"))
        assert run_cli(monkeypatch, "train", str(config), "--no-progress") == 2
        assert match in capsys.readouterr().err.replace("\n", "")
        assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("moment", range(5))
def test_a_full_disk_leaves_no_half_file(
    moment: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both states of the trainer, checkpoint, picture, table: the first write that fails ends it, in one line."""
    config = project(tmp_path, TRAIN_TOML.replace("epochs = 3", "epochs = 1"))
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
    assert run_cli(monkeypatch, "train", str(config), "--no-progress") == 2
    error = capsys.readouterr().err.replace("\n", "")
    assert names[moment] in error
    assert "No space left" in error
    assert {path.name for path in tmp_path.rglob("*.*")} == {"data.npz", "train.toml", *names[:moment]}


def test_ctrl_c_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config, step, calls = project(tmp_path), WindowTrainee.training_step, 0

    def pressed(self: WindowTrainee, batch: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return step(self, batch)

    monkeypatch.setattr(WindowTrainee, "training_step", pressed)
    assert run_cli(monkeypatch, "train", str(config), "--no-progress") == 130
    assert "--resume continues" in capsys.readouterr().err
    assert not (tmp_path / "model.onnx").exists()
    assert run_cli(monkeypatch, "train", str(config), "--no-progress", "--resume") == 0


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
