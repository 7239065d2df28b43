"""What is in a model file, and does it still compute here what it computed where it was made?

`kizzasi-edge inspect` prints the manifest and replays the stored parity vector, so that a file can be judged on
the robot itself, with the onnxruntime that will run it.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kizzasi_edge.bundle import Bundle
from kizzasi_edge.predictor import Predictor

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Replay", "inspect", "replay_parity", "run_inspect"]


@dataclass(frozen=True, slots=True)
class Replay:
    """The stored run repeated here. `relative_error`: largest |error| over the output's scale (`replay_parity`)."""

    steps: int
    max_abs_error: float
    relative_error: float
    bound: float
    passed: bool


def replay_parity(bundle: Bundle, engine: str = "auto") -> Replay:
    """Steps the parity vector from the initial state and compares with the y that is stored.

    The scale is the rms over the vector (floor 1e-6), not the manifest's std over ≥ 1000 steps: over a few
    steps an output may hardly move. An int8 model is held to its quantisation's scale and bound instead: its
    kernel rounds activations to 8 bits, where the last float bit of another processor can flip a whole step.
    Raises BundleError or ModelError when the model cannot be stepped.
    """
    parity, quantization = bundle.manifest.parity, bundle.manifest.quantization
    predictor = Predictor(bundle, engine=engine)
    expected = np.array(parity.vector.y, np.float64)
    found = np.array([predictor.propose(x).copy() for x in np.array(parity.vector.x, np.float32)], np.float64)
    error = np.abs(found - expected).max(axis=0)
    if bundle.manifest.precision == "int8" and quantization is not None:
        scale, bound = np.array(quantization.scale), quantization.bound
    else:
        scale, bound = np.maximum(np.sqrt((expected**2).mean(axis=0)), 1e-6), parity.bound
    relative = float((error / scale).max())
    return Replay(len(expected), float(error.max()), relative, bound, relative <= bound)


def inspect(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Everything about a model file, ready for JSON.

    Returns path, bytes, digest, engine, state_values (float32 values of state a stream), manifest (without the
    parity vector) and replay (steps, max_abs_error, relative_error, bound, passed).

    Raises BundleError as Bundle.open does, or when the engine cannot run the file.
    """
    bundle = Bundle.open(path)
    manifest = bundle.manifest.model_dump(mode="json", exclude={"parity": {"vector"}})
    return {
        "path": str(bundle.path),
        "bytes": bundle.path.stat().st_size,
        "digest": bundle.digest,
        "engine": "ort",
        "state_values": sum(math.prod(state.shape) for state in bundle.manifest.states),
        "manifest": manifest,
        "replay": asdict(replay_parity(bundle, "ort")),
    }


def run_inspect(
    path: str | os.PathLike[str], json_path: str | os.PathLike[str] | None = None, console: Console | None = None
) -> bool:
    """inspect() printed, and written to `json_path` where given. Returns whether the replay passed."""
    from rich.console import Console

    report = inspect(path)
    if json_path is not None:
        Path(json_path).write_text(json.dumps(report, indent=2) + "\n")
    _show(report, console or Console())
    return bool(report["replay"]["passed"])


def _show(report: dict[str, Any], console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    manifest, replay = report["manifest"], report["replay"]
    table = Table(title=Text(report["path"]), show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    plain = ("kind", "variant", "precision", "sample_rate_hz", "batch", "onnxruntime_min")
    rows = [(key, manifest[key]) for key in plain]
    rows += [(key, _signals(manifest[key])) for key in ("inputs", "outputs")]
    rows.append(("states", f"{len(manifest['states'])} tensors, {report['state_values']} values"))
    rows += [("", f"{state['name']} {state['shape']}") for state in manifest["states"]]
    for key in ("config", "head", "opset", "limits_trained_under", "training", "created_with"):
        rows.append((key, _pairs(manifest[key])))
    parity = manifest["parity"]
    rows.append(
        ("parity", f"{parity['relative_error']:.2g} of scale over {parity['steps']} steps (bound {parity['bound']:g})")
    )
    if (found := manifest["quantization"]) is not None:
        rows.append(
            (
                "quantization",
                f"{found['weights']} weights in {manifest['precision']}; {found['open_loop_error']:.2g} of scale from "
                f"float32 over {found['steps']} steps (bound {found['bound']:g}), {found['free_run_error']:.2g} over "
                f"{found['free_run_steps']} steps of free run (bound {found['free_run_bound']:g})",
            )
        )
    rows += [("file", f"{report['bytes']} bytes"), ("sha256", report["digest"])]
    for key, value in rows:
        table.add_row(key, Text(str(value)))
    console.print(table)
    console.print(
        f"replay of {replay['steps']} steps on {report['engine']}: {'ok' if replay['passed'] else 'FAILED'} "
        f"({replay['relative_error']:.2g} of scale, bound {replay['bound']:g})",
        style="green" if replay["passed"] else "bold red",
        highlight=False,
    )


def _signals(signals: list[dict[str, str]]) -> str:
    return f"{len(signals)}: " + ", ".join(f"{item['name']} [{item['unit']}]" for item in signals)


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{key or 'ai.onnx'}={value}" for key, value in values.items()) or "–"
