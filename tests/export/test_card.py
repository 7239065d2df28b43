"""The card says what the manifest says: every figure, to the last digit, and a snippet that runs."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from kizzasi_edge.bundle import Bundle
from kizzasi_edge.errors import BundleError
from kizzasi_export import build_model, export_step
from kizzasi_export.card import card, write_card
from kizzasi_export.cli import app

HEADS: dict[str, dict[str, Any]] = {
    "continuous": {"quantize": "int8"},
    "gaussian": {"variant": "portable", "batch": True},
    "categorical": {"tokenizer": {"kind": "mulaw", "vocab": 16, "low": [-1.0, -2.0], "high": [1.0, 3.0]}},
}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    made = {}
    for head, options in HEADS.items():
        torch.manual_seed(0)
        options = dict(options)
        model = build_model(
            "mamba2", input_dim=4, output_dim=2, hidden_dim=96, state_dim=8, num_layers=1, head=head,
            tokenizer=options.pop("tokenizer", None),
        )  # fmt: skip
        made[head] = export_step(
            model,
            tmp_path_factory.mktemp("cards") / f"{head}.onnx",
            sample_rate_hz=123.456,
            input_names=["a/position", "b|c", "d", "e"],
            input_units=["rad", "m", "N", ""],
            output_names=["a/position", "f"],
            output_units=["rad", "m/s"],
            training={"seed": 3, "data": {"files": 7}, "validation_loss": 0.012345678901234567},
            limits_trained_under={"acceleration": 12.25} if head == "continuous" else None,
            **options,
        )
    return made


def figures(value: Any, key: str = "") -> list[tuple[str, str]]:
    """(where, as printed) of every number in the manifest that a card owes its reader."""
    if isinstance(value, dict):
        hidden = {"schema_version", "vector", "codebook", "input_dim", "output_dim", "in_place"}
        return [f for k, v in value.items() if k not in hidden for f in figures(v, f"{key}.{k}")]
    if isinstance(value, list):
        return [f for item in value for f in figures(item, key)]
    return [] if isinstance(value, bool) or not isinstance(value, int | float) else [(key, repr(value))]


@pytest.mark.parametrize("head", HEADS)
def test_every_figure_is_the_manifests(head: str, bundles: dict[str, Bundle]) -> None:
    bundle = bundles[head]
    text = card(bundle)
    numbers = set(re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?", text))
    wanted = figures(bundle.manifest.model_dump(mode="json"))
    assert len(wanted) >= 20
    missing = [(where, number) for where, number in wanted if number not in numbers]
    assert missing == []
    # and none that is made up: what is not the manifest's own is the file's size, a sum, an index or a version
    manifest = bundle.manifest
    states = sum(torch.Size(state.shape).numel() for state in manifest.states)
    vocab = (
        []
        if manifest.tokenizer is None
        else [manifest.tokenizer.vocab, *(v for r in manifest.tokenizer.codebook for v in (r[0], r[-1]))]
    )
    others = [
        bundle.path.stat().st_size,
        states,
        len(manifest.states),
        *range(4),
        4,
        2,
        8,
        32,
        *vocab,
        *manifest.opset.values(),
    ]
    allowed = {number for _, number in wanted} | {repr(v) for v in others}
    prose = re.sub(r"```.*?```|^.*(made with|sha256|onnxruntime ≥).*$", "", text, flags=re.S | re.M)
    found = set(re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w.]*\d)", prose))
    assert found <= allowed


@pytest.mark.parametrize("head", HEADS)
def test_names_units_and_the_rest(head: str, bundles: dict[str, Bundle]) -> None:
    bundle = bundles[head]
    text = card(bundle)
    assert text.startswith("---\nlibrary_name: kizzasi-edge\ntags:\n- ")
    for row in ("| 0 | `a/position` | rad |", "| 1 | `b\\|c` | m |", "| 1 | `f` | m/s |", bundle.digest, head):
        assert row in text
    for state in bundle.manifest.states:
        assert f"`{state.name}`" in text
    assert ("None are recorded." in text) == (head != "continuous")
    assert ("int8" in text) == (head == "continuous")
    assert ("mulaw, 16 levels" in text) == (head == "categorical")
    for table in re.findall(r"(?:^\|.*\n)+", text, re.M):
        cells = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(cells) == 1, table


@pytest.mark.parametrize("head", HEADS)
def test_its_snippet_runs(head: str, bundles: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bundles[head].path.parent)
    (code,) = re.findall(r"^```python\n(.*?)^```", card(bundles[head]), re.S | re.M)
    scope: dict[str, Any] = {}
    exec(code, scope)
    assert scope["y"].shape == (2,)


def test_command(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    path = bundles["gaussian"].path
    assert CliRunner().invoke(app, ["card", str(path)]).exit_code == 0
    assert path.with_suffix(".md").read_text() == card(bundles["gaussian"])
    assert CliRunner().invoke(app, ["card", str(path), "--out", str(tmp_path / "README.md")]).exit_code == 0
    assert (tmp_path / "README.md").read_text() == card(bundles["gaussian"])


def test_failures_leave_nothing(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such model file"):
        write_card(tmp_path / "none.onnx")
    with pytest.raises(BundleError, match="cannot be written"):
        write_card(bundles["gaussian"].path, tmp_path / "no" / "such" / "folder.md")
    (tmp_path / "folder.md").mkdir()
    with pytest.raises(BundleError, match="cannot be written"):
        write_card(bundles["gaussian"].path, tmp_path / "folder.md")
    assert os.listdir(tmp_path) == ["folder.md"]
