"""kizzasi-export: train, export and verify models on the workstation."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import onnxruntime
import torch
import typer
from rich.console import Console
from rich.table import Table

from kizzasi_edge.bundle import Bundle
from kizzasi_edge.errors import KizzasiError
from kizzasi_export.checkpoint import Checkpoint
from kizzasi_export.config import TrainConfig, load_train_config
from kizzasi_export.plots import learning_curve
from kizzasi_export.tasks import TaskResult, load_task
from kizzasi_export.verify import verify as verify_file

app = typer.Typer(
    help="Train sequence models and export them as single-step ONNX bundles.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
console = Console()


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="train.toml")],
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted training.")] = False,
    progress: Annotated[bool, typer.Option(help="Show a progress bar.")] = True,
) -> None:
    """Train the task of CONFIG, then write checkpoint, learning curve and bundle."""
    cfg = load_train_config(config)
    result = load_task(cfg)(cfg.data, cfg, resume=resume, progress=progress)
    folder = cfg.base / cfg.output.folder
    checkpoint = Checkpoint(result.model, result.export, _provenance(cfg, result))
    checkpoint.save(folder / "model.safetensors")
    learning_curve(result.fit.history, result.fit.best_epoch, folder / "learning_curve.png")
    target = cfg.base / cfg.output.bundle
    target.parent.mkdir(parents=True, exist_ok=True)
    bundle = checkpoint.export(target, variant=cfg.output.variant, batch=cfg.output.batch)
    parameters = sum(p.numel() for p in result.model.parameters())
    _show(
        f"Trained {cfg.task.name}",
        {
            "model": f"{bundle.manifest.kind}, {parameters} parameters",
            "training": f"{result.fit.steps} steps in {result.fit.seconds:.0f} s, best epoch "
            f"{result.fit.best_epoch + 1} of {len(result.fit.history)}",
            "validation loss": f"{result.fit.best_validation_loss:.4g}",
            **result.summary,
            **_parity_rows(bundle),
            "checkpoint": str(folder / "model.safetensors"),
            "learning curve": str(folder / "learning_curve.png"),
            "bundle": str(target),
        },
    )


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="model.safetensors written by train")],
    out: Annotated[Path, typer.Argument(help="the .onnx file to write")],
    portable: Annotated[bool, typer.Option("--portable", help="Standard operators only (opset 17).")] = False,
    batch: Annotated[bool, typer.Option("--batch", help="Symbolic batch dimension.")] = False,
) -> None:
    """Export a checkpoint as a bundle and verify it against torch."""
    bundle = Checkpoint.load(checkpoint).export(out, variant="portable" if portable else "fast", batch=batch)
    _show(f"Exported {out}", {"variant": bundle.manifest.variant, **_parity_rows(bundle)})


@app.command()
def verify(
    model: Annotated[Path, typer.Argument(help="the .onnx bundle")],
    checkpoint: Annotated[
        Path | None, typer.Option(help="Also run this checkpoint's torch model over the full parity run.")
    ] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the result as JSON.")] = None,
) -> None:
    """Check a bundle's structure and replay its stored vector; exit code 1 if it fails."""
    report = verify_file(model, checkpoint=checkpoint)
    if json_path is not None:
        json_path.write_text(json.dumps(report.as_dict(), indent=2) + "\n")
    _show(f"{model}: {'passed' if report.passed else 'FAILED'}", {k: str(v) for k, v in report.as_dict().items()})
    if not report.passed:
        raise typer.Exit(1)


def _provenance(cfg: TrainConfig, result: TaskResult) -> dict[str, Any]:
    try:
        ours = metadata.version("kizzasi-edge")
    except metadata.PackageNotFoundError:
        ours = "source"
    return {
        "task": cfg.task.name,
        "config_sha256": cfg.digest,
        "seed": cfg.training.seed,
        "steps": result.fit.steps,
        "best_epoch": result.fit.best_epoch + 1,
        "validation_loss": result.fit.best_validation_loss,
        "data": result.data,
        "versions": {
            "kizzasi_edge": ours,
            "torch": torch.__version__,
            "lightning": metadata.version("lightning"),
            "onnxruntime": onnxruntime.__version__,
            "python": sys.version.split()[0],
        },
    }


def _parity_rows(bundle: Bundle) -> dict[str, str]:
    found = bundle.manifest.parity
    return {
        "parity": f"{found.relative_error:.2g} of each output's scale over {found.steps} steps (bound {found.bound:g})",
        "size": f"{bundle.path.stat().st_size / 1024:.0f} KiB",
    }


def _show(title: str, rows: dict[str, str]) -> None:
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for label, text in rows.items():
        table.add_row(label, text)
    console.print(table)


def main() -> None:
    """Entry point: errors of ours are one screen, not a traceback."""
    try:
        app()
    except KizzasiError as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, highlight=False)
        sys.exit(2)
