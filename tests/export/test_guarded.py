"""Training under a guard, through the command line: the examples in small, the report, and what is refused."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch

from kizzasi_edge.bundle import Bundle
from kizzasi_export import cli
from kizzasi_export.checkpoint import Checkpoint

EXAMPLES = Path(__file__).parents[2] / "examples" / "train"
HINGE = 'method = "penalty"                   # or lagrangian, projection\npenalty = "hinge"\nweight = 0.5'


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["kizzasi-export", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


def smaller(name: str, folder: Path, **settings: int) -> Path:
    """A copy of an example with other numbers."""
    text = (EXAMPLES / name).read_text()
    for key, value in settings.items():
        text = re.sub(rf"^{key} = \d+", f"{key} = {value}", text, flags=re.M)
    (folder / name).write_text(text)
    return folder / name


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a policy trained without the guard, and the guard file."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "teleoperation.guard.toml").write_text((EXAMPLES / "teleoperation.guard.toml").read_text())
    with pytest.MonkeyPatch.context() as patch:
        config = smaller("teleoperation.toml", folder, epochs=8, recordings=48)
        assert run(patch, "train", str(config), "--no-progress") == 0
    return folder


def test_the_guard_has_less_to_do(
    plain: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = smaller("teleoperation_guarded.toml", plain, epochs=8, recordings=48)
    assert run(monkeypatch, "train", str(config), "--no-progress") == 0
    record = Bundle.open(plain / "teleoperation_guarded.onnx").manifest.training["constraints"]
    assert record["method"] == "penalty"
    found = record["guard_changes"]
    assert found["after"]["share"] < 0.9 * found["before"]["share"]
    assert found["after"]["rms"] < 0.9 * found["before"]["rms"]
    assert 0 < found["targets"]["share"] < 1
    assert "the guarantee is the guard's" in re.sub(r"[\s│]+", " ", capsys.readouterr().out)


@pytest.mark.parametrize(
    "method",
    [
        'method = "lagrangian"\nrate = 0.1\ntolerance = 0.003',
        'method = "projection"\ndistance = 1.0',
        'method = "penalty"\npenalty = "log_barrier"\nweights = { acceleration = 0.1 }\nweight = 0.0',
    ],
)
def test_every_method_trains(method: str, plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = smaller("teleoperation_guarded.toml", plain, epochs=2, recordings=8)
    text = config.read_text()
    assert HINGE in text
    config.write_text(text.replace(HINGE, method))
    before = Checkpoint.load(plain / "runs/teleoperation/model.safetensors").model.state_dict()
    assert run(monkeypatch, "train", str(config), "--no-progress") == 0
    after = Checkpoint.load(plain / "runs/teleoperation_guarded/model.safetensors").model.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    if "lagrangian" in method:  # the multipliers have risen, and a resumed training would find them
        kept = torch.load(plain / "runs/teleoperation_guarded/last.ckpt", weights_only=True)["state_dict"]
        (name,) = (name for name in kept if name.endswith("multipliers"))
        assert float(kept[name].max()) > 0


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ('guard = "teleoperation.guard.toml"', 'guard = "no.guard.toml"', r"no\.guard\.toml.*no such file"),
        ('method = "penalty" ', 'method = "prayer" ', r"method.*prayer"),
        ("weight = 0.5", "weight = -1.0", r"weight: found -1"),
        ("weight = 0.5", "weights = { torque = 1.0 }", r"weights: found torque, expected rules among position"),
        ("weight = 0.5", "distance = 1.0", r"distance: unknown key"),
        ("noise = 0.0005", "noise = 0.0005\n[export]\nsample_rate_hz = 50", r"rate_hz: found 100, expected 50"),
        ("noise = 0.0005", 'noise = 0.0005\n[export]\noutput_names = ["a", "b"]', "differ; expected an output"),
    ],
)
def test_refusals(
    old: str, new: str, match: str, plain: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = smaller("teleoperation_guarded.toml", plain, epochs=1, recordings=6)
    config.write_text(config.read_text().replace(old, new))
    assert run(monkeypatch, "train", str(config), "--no-progress") == 2
    assert re.search(match, " ".join(capsys.readouterr().err.split())), match
