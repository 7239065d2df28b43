"""The tables of docs/models.md, from what they are about: measured steps, presets, state sizes.

python benchmarks/tables.py [docs/models.md]     rewrites the marked tables in place
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from kizzasi_export import KINDS, build_model
from kizzasi_export.presets import PRESETS

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "step_graph.json"
WHEEL = {"mamba": "mamba", "mamba2": "mamba2", "rwkv4": "rwkv", "rwkv6": "rwkv", "rwkv7": "rwkv"}
WHEEL |= {"s4": "s4", "s4d": "s4", "s5": "s4"}
"""Kind → the wheel's model of that name (its s4 is diagonal, its rwkv has no version)."""


def step_table(results: dict[str, Any]) -> str:
    """p50 µs of each kind at each size; at the size with most contenders also what it is compared with."""
    sizes = list(results["sizes"])
    lines = [
        f"p50 µs on {results['machine']['cpu']}, onnxruntime {results['machine']['onnxruntime']}, one thread; "
        "the last five columns are all at 256/4.",
        "",
        "| kind | " + " | ".join(f"{size} f32" for size in sizes) + " | int8 | dynamo | floor | wheel | state, KiB |",
        "|---|" + "---:|" * (len(sizes) + 5),
    ]
    beside = results["sizes"]["256/4"]
    for kind in KINDS:
        cells = [_figure(results["sizes"][size], f"{kind} f32") for size in sizes]
        cells += [_figure(beside, f"{kind} {name}") for name in ("int8", "dynamo", "floor")]
        cells += [_figure(beside, f"wheel {WHEEL.get(kind)}"), f"{state_bytes(kind) / 1024:.0f}"]
        lines.append(f"| `{kind}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def state_bytes(kind: str) -> int:
    """Bytes of state of one stream at 256/4, state 16, window 128."""
    sizes = {"hidden_dim": 256, "state_dim": 16, "num_layers": 4, "context_window": 128}
    state = build_model(kind, input_dim=12, output_dim=6, **sizes).initial_state(1)
    return sum(value.numel() * value.element_size() for value in state.values())


def preset_table() -> str:
    lines = ["| preset | kind | hidden | state | layers | context window |", "|---|---|---:|---:|---:|---:|"]
    keys = ("hidden_dim", "state_dim", "num_layers", "context_window")
    for name, row in PRESETS.items():
        lines.append(f"| `{name}` | `{row['kind']}` | " + " | ".join(str(row[key]) for key in keys) + " |")
    return "\n".join(lines)


def rewrite(text: str) -> str:
    """The page with every marked table made anew."""
    tables = {"step table": step_table(json.loads(RESULTS.read_text())), "presets": preset_table()}
    for mark, table in tables.items():
        block = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- end -->)", re.S)
        text = block.sub(lambda found, table=table: f"{found[1]}{table}\n{found[2]}", text)  # type: ignore[misc]
    return text


def _figure(rows: dict[str, dict[str, float]], name: str) -> str:
    if name not in rows:
        return "–"
    value = rows[name]["p50_us"]
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


if __name__ == "__main__":
    page = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "models.md"
    page.write_text(rewrite(page.read_text()))
