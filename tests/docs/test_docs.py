"""Every command, config and snippet in the documents, run; a documented command missing from the table fails."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from encoders import Encoder, EncoderPlant, Technician, by_hand

from kizzasi_bridge.board import PosixBoard
from kizzasi_bridge.board_file import load_board, parse_board
from kizzasi_edge.config import RobotFile, load_config
from kizzasi_edge.demo.physics import ASSETS
from kizzasi_edge.errors import ConfigError
from kizzasi_edge.guardrails import Guardrails
from kizzasi_edge.guardrails.spec import GuardFile, parse_spec
from kizzasi_edge.toml_file import validate

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BIN = Path(sys.executable).parent


def blocks(language: str) -> list[tuple[str, str]]:
    """(page, text) of every fenced block in that language."""
    fence = re.compile(rf"^```{language}\n(.*?)^```", re.S | re.M)
    return [(page.name, text) for page in PAGES for text in fence.findall(page.read_text())]


def commands() -> list[str]:
    lines = [line.split("#")[0].strip() for _, text in blocks("sh") for line in text.splitlines()]
    inline = [code for page in PAGES for code in re.findall(r"`((?:make|kizzasi-\w+) [^`…]+)`", page.read_text())]
    return sorted({line.removeprefix(".venv/bin/") for line in [*lines, *inline] if line})


def sh(*command: str, cwd: Path = ROOT, ok: bool = True) -> str:
    program = BIN / command[0]
    done = subprocess.run(
        [str(program) if program.exists() else command[0], *command[1:]],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert (done.returncode == 0) == ok, done.stdout + done.stderr
    return done.stdout + done.stderr


def target(name: str) -> Callable[[Path], None]:
    """A make target: that it exists and what it would run; running it is the gate's business, or this very suite's."""
    return lambda _: [sh("make", "-n", name), None][1]


def shown(*command: str) -> Callable[[Path], None]:
    """A command for hardware that is not here: that it exists, and that its arguments are the documented ones."""
    return lambda _: [sh(*command, "--help"), None][1]


def demo(tmp_path: Path) -> None:
    text = sh(
        "kizzasi-edge", "demo", "arm", "--seconds", "3", "--adversary", "random", "--headless", "--out", str(tmp_path)
    )
    assert "0 limit violations" in text


def check(tmp_path: Path) -> None:
    text = sh("kizzasi-edge", "check", str(ROOT / "examples/arm/robot.toml"), ok=False)
    assert "no such device" in text  # the example's board is not plugged in; everything before that is fine
    assert "shoulder_pan_joint: [-6.2632, +6.2632] rad" in text


def check_guard(tmp_path: Path) -> None:
    assert "ok" in sh("kizzasi-edge", "check", str(ASSETS / "arm.guard.toml"))


def check_full_guard(tmp_path: Path) -> None:
    text = sh("kizzasi-edge", "check", "examples/guards/arm_full.guard.toml")
    assert "stop_when_near" in text
    assert "spare_the_gear" in text
    assert "ok" in text


def explore(tmp_path: Path) -> None:
    page = tmp_path / "explore.html"
    sh("python", "-m", "kizzasi_edge.guardrails.explore", "examples/guards/conservation.guard.toml", "--out", str(page))
    assert "valve_a" in page.read_text()


def skeleton(tmp_path: Path) -> None:
    page = tmp_path / "skeleton.html"
    sh("python", str(ROOT / "examples/skeleton/show.py"), "--out", str(page), cwd=tmp_path)
    assert "every one is the skeleton" in page.read_text()


def torque_arm(tmp_path: Path) -> None:
    """The documented run, shorter; the program fails where a limit was broken under the guard."""
    sh(sys.executable, "examples/torque_arm/run.py", "--seconds", "0.1", "--json", str(tmp_path / "report.json"))
    reports = json.loads((tmp_path / "report.json").read_text())
    assert sum(report["guarded"] for report in reports) == 18


def train(tmp_path: Path) -> None:
    """The documented training is minutes long and is run for the release; here its file is checked."""
    from kizzasi_export.config import load_train_config

    assert load_train_config(ROOT / "examples/arm/train.toml") is not None


def example(name: str) -> Callable[[Path], None]:
    """tests/export/test_train_cli.py trains every example through the command line; here its file is checked."""
    from kizzasi_export.config import load_train_config

    return lambda _: [load_train_config(ROOT / "examples/train" / name), None][1]


EXPORT_PAGE = (
    "export model.safetensors arm.onnx",
    "export model.safetensors arm.onnx --quantize int8",
    "verify arm.onnx --checkpoint model.safetensors",
    "card arm.onnx",
)


@functools.cache  # one run serves all of the page's commands
def export_page() -> None:
    """docs/export.md's commands one after the other, on a fresh model."""
    import torch
    from typer.testing import CliRunner

    from kizzasi_export import build_model
    from kizzasi_export.checkpoint import Checkpoint, ExportSpec
    from kizzasi_export.cli import app

    torch.manual_seed(0)
    names = [f"j{i}/position" for i in range(6)]
    model = build_model("mamba2", input_dim=6, output_dim=6, hidden_dim=96, num_layers=1)
    with tempfile.TemporaryDirectory() as folder:
        Checkpoint(model, ExportSpec(100.0, names, names), {}).save(Path(folder) / "model.safetensors")
        for arguments in EXPORT_PAGE:
            paths = [str(Path(folder) / word) if "." in word else word for word in arguments.split()]
            done = CliRunner().invoke(app, paths)
            assert done.exit_code == 0, done.output
        assert {p.name for p in Path(folder).iterdir()} == {"model.safetensors", "arm.onnx", "arm.md"}


CALIBRATION_PAGE = (
    "schema board.toml",
    "schema board.toml -o schema.h",
    "schema board.toml --check PORT",
    "calibrate PORT board.toml",
    "calibrate PORT board.toml --joint shoulder --at 0 --at 90deg --dry-run",
    "calibrate PORT board.toml --joint shoulder --at 0 --at 90deg",
)


@functools.cache  # one board serves all of the page's commands
def calibration_page() -> None:
    """docs/calibration.md's commands on the board of its file, but for every zero, which is elsewhere."""
    poses = ((0, 0.0, ""), (0, np.pi / 2, ""))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "board.toml"
        file.write_text(next(text for page, text in blocks("toml") if page == "calibration.md"))
        schema = load_board(file).schema
        joints = [Encoder(1 / sensor.scale, offset=sensor.zero + 1000) for sensor in schema.sensors]
        with (
            EncoderPlant(Path(folder) / "plant", joints, len(schema.channels)) as plant,
            PosixBoard(schema, plant=Path(folder) / "plant", directory=folder, fast=True) as board,
        ):
            for arguments in CALIBRATION_PAGE:
                places = {"PORT": str(board.port), "board.toml": str(file), "schema.h": str(Path(folder) / "schema.h")}
                said = poses if "--at" in arguments else ("", "", "")
                by_hand([places.get(word, word) for word in arguments.split()], Technician(plant, *said))
        assert load_board(file).schema.channels[0].zero == schema.channels[0].zero + 1000
        assert (Path(folder) / "schema.h").exists()


TABLE: dict[str, Callable[[Path], None]] = {
    "make demo": target("demo"),
    "make test": target("test"),
    "make lint": target("lint"),
    "make bench": target("bench"),
    "make prove": target("prove"),
    "make docs": target("docs"),
    "make mutate": target("mutate"),
    "make test-firmware": target("test-firmware"),
    "kizzasi-edge demo arm --seconds 10 --adversary random": demo,
    "kizzasi-export train examples/arm/train.toml": train,
    "kizzasi-export train examples/train/lorenz.toml": example("lorenz.toml"),
    "kizzasi-export train examples/train/pendulum.toml": example("pendulum.toml"),
    "kizzasi-export train examples/train/recall.toml": example("recall.toml"),
    "kizzasi-export train examples/train/teleoperation.toml": example("teleoperation.toml"),
    "kizzasi-export train examples/train/teleoperation_guarded.toml": example("teleoperation_guarded.toml"),
    **{f"kizzasi-export {arguments}": lambda _: export_page() for arguments in EXPORT_PAGE},
    "python examples/skeleton/show.py --out skeleton.html": skeleton,
    "kizzasi-edge check robot.toml": check,
    "kizzasi-edge check FILE": check_guard,
    "kizzasi-edge check examples/guards/arm_full.guard.toml": check_full_guard,
    "python -m kizzasi_edge.guardrails.explore examples/guards/conservation.guard.toml --out explore.html": explore,
    "kizzasi-edge run robot.toml --dry-run": shown("kizzasi-edge", "run"),
    "kizzasi-edge run robot.toml": shown("kizzasi-edge", "run"),
    "kizzasi-edge status | arm | disarm | estop | clear | reset-state": shown("kizzasi-edge", "status"),
    "python examples/torque_arm/run.py --seconds 60 --json report.json": torque_arm,
    "python examples/torque_arm/run.py --seconds 60 --noise": shown(sys.executable, "examples/torque_arm/run.py"),
    "kizzasi-edge bench MODEL": shown("kizzasi-edge", "bench"),
    **{f"kizzasi-bridge {arguments}": lambda _: calibration_page() for arguments in CALIBRATION_PAGE},
    "kizzasi-bridge calibrate": shown("kizzasi-bridge", "calibrate"),
    "kizzasi-bridge send estop PORT": shown("kizzasi-bridge", "send"),
    "kizzasi-bridge monitor PORT": shown("kizzasi-bridge", "monitor"),
}


@pytest.mark.parametrize("command", commands())
def test_documented_command(command: str, tmp_path: Path) -> None:
    assert command in TABLE, f"documented, but not tested: {command!r}"
    TABLE[command](tmp_path)


@pytest.mark.parametrize(("page", "text"), blocks("toml"))
def test_documented_config(page: str, text: str, tmp_path: Path) -> None:
    data = tomllib.loads(text)
    if set(data) <= set(GuardFile.model_fields):  # a section of a guard file, in the demo's
        data = {**tomllib.loads((ASSETS / "arm.guard.toml").read_text()), **data}
    if "board" in data:
        assert parse_board(data, page).schema.channels
        return
    if "guard" in data and "robot" not in data:
        where = tmp_path / page
        for asset in (ASSETS / "arm.urdf", ROOT / "examples/skeleton/walker.bvh"):
            (tmp_path / asset.name).write_bytes(asset.read_bytes())
        assert Guardrails(parse_spec(data, where), where).explain()
        return
    if "data" in data:  # of a train.toml
        from kizzasi_export.datasets import DataSection

        validate(data["data"], DataSection, page, ConfigError)
        return
    validate(data, RobotFile, page, ConfigError)


def test_example_robot() -> None:
    config = load_config(ROOT / "examples/arm/robot.toml")
    assert config.file.loop.rate_hz == 500


def test_readme_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README's two snippets, one after the other, as written."""
    import torch

    torch.manual_seed(0)
    first, second = (text for page, text in blocks("python") if page == "README.md")
    joints = [f"j{i}" for i in range(6)]
    names = {"inputs": [f"{j}/{what}" for what in ("position", "target_position") for j in joints], "outputs": joints}
    (tmp_path / "arm.guard.toml").write_text(
        f"schema = 1\n[guard]\nrate_hz = 500\n[joints]\nnames = {joints}\nposition = {[[-1, 1]] * 6}\n"
        "velocity = 2.0\nacceleration = 8.0\n"
    )
    monkeypatch.chdir(tmp_path)
    exec(first, names)
    scope = {"x": np.zeros(12, np.float32)}
    exec(second, scope)
    assert scope["command"].shape == (6,)


def test_links() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"
