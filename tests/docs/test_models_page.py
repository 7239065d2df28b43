"""docs/models.md: its tables are those of the committed measurements and of the code, and its names exist."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch

from kizzasi_export import KINDS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "models.md").read_text()


def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_made_from_the_committed_results() -> None:
    module = tables()
    assert module.rewrite(PAGE) == PAGE, "run: python benchmarks/tables.py"
    results = json.loads(module.RESULTS.read_text())
    assert set(results["sizes"]) == {"64/2", "128/2", "256/4", "512/4"}
    for size, rows in results["sizes"].items():
        for kind in KINDS:
            assert rows[f"{kind} f32"]["p50_us"] > 0, (size, kind)


def test_every_kind_is_in_every_table() -> None:
    for section in ("## Which one", "## What a step costs", "## Where they come from"):
        text = PAGE[PAGE.index(section) :].split("\n## ", 1)[0]
        assert len(re.findall(r"^\| `(\w+)` \|", text, re.M)) == len(KINDS), section


def test_the_first_snippet_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    code = re.findall(r"^```python\n(.*?)^```", PAGE, re.S | re.M)[0]
    scope = {
        "x": torch.randn(1, 20, 12),
        "inputs": [f"i{k}" for k in range(12)],
        "outputs": [f"o{k}" for k in range(6)],
    }
    monkeypatch.chdir(tmp_path)
    exec(code, scope)
    assert scope["bundle"].manifest.kind == "mamba2"  # type: ignore[attr-defined]
