"""kizzasi-export: train, export and verify models on the workstation."""

from __future__ import annotations

import json
import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, cast

import onnxruntime
import torch
import typer
from rich.console import Console
from rich.table import Table

from kizzasi_edge.bundle import Bundle
from kizzasi_edge.errors import ConfigError, KizzasiError
from kizzasi_edge.written import make_folder, write_file
from kizzasi_export.blocks import Quantization
from kizzasi_export.card import write_card
from kizzasi_export.checkpoint import Checkpoint
from kizzasi_export.config import TrainConfig, load_train_config
from kizzasi_export.losses import MEASURE
from kizzasi_export.plots import learning_curve
from kizzasi_export.quantize import BOUND, FREE_RUN_FACTOR
from kizzasi_export.tasks import TaskResult, load_task
from kizzasi_export.train import leads
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
    _require_places(cfg)  # before hours of training, not after
    try:
        result = load_task(cfg)(cfg.data, cfg, resume=resume, progress=progress)
    except KeyboardInterrupt:
        if leads():
            Console(stderr=True).print("Interrupted; --resume continues after the last whole epoch.", highlight=False)
        raise typer.Exit(130) from None
    if not leads():  # another process of the same training writes the files
        return
    folder = cfg.base / cfg.output.folder
    checkpoint = Checkpoint(result.model, result.export, _provenance(cfg, result))
    checkpoint.save(folder / "model.safetensors")
    measure = MEASURE[result.model.head.kind]
    learning_curve(result.fit.history, result.fit.best_epoch, folder / "learning_curve.png", measure=measure)
    target = cfg.base / cfg.output.bundle
    make_folder(target.parent)
    bundle = checkpoint.export(
        target, variant=cfg.output.variant, batch=cfg.output.batch, quantize=cfg.output.quantize
    )  # fmt: skip
    parameters = sum(p.numel() for p in result.model.parameters())
    _show(
        f"Trained {cfg.task.name}",
        {
            "model": f"{bundle.manifest.kind}, {parameters} parameters",
            "training": f"{result.fit.steps} steps in {result.fit.seconds:.0f} s, best epoch "
            f"{result.fit.best_epoch + 1} of {len(result.fit.history)}",
            "validation loss": f"{result.fit.best_validation_loss:.4g} ({measure})",
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
    quantize: Annotated[str | None, typer.Option(help="int8 or f16: fewer bits for large weight matrices.")] = None,
    bound: Annotated[
        float | None,
        typer.Option(
            help="Largest error from float32 with --quantize, in units of each output's scale (default "
            f"{BOUND['int8']:g} for int8, {BOUND['f16']:g} for f16); {FREE_RUN_FACTOR:g} times that in a free run."
        ),
    ] = None,
) -> None:
    """Export a checkpoint as a bundle and verify it against torch; above a bound nothing is written."""
    bundle = Checkpoint.load(checkpoint).export(
        out,
        variant="portable" if portable else "fast",
        batch=batch,
        quantize=cast(Quantization | None, quantize),  # checked there
        bound=bound,
    )
    _show(f"Exported {out}", {"variant": bundle.manifest.variant, **_parity_rows(bundle)})


@app.command()
def verify(
    model: Annotated[Path, typer.Argument(help="the .onnx bundle")],
    checkpoint: Annotated[
        Path | None, typer.Option(help="Also run this checkpoint's torch model (float32) over the full parity run.")
    ] = None,
    bound: Annotated[
        float | None, typer.Option(help="Largest error from torch, instead of the bound that the file states.")
    ] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the result as JSON.")] = None,
) -> None:
    """Check a bundle's structure and replay its stored vector; exit code 1 if it fails."""
    report = verify_file(model, checkpoint=checkpoint, bound=bound)
    if json_path is not None:
        write_file(json_path, (json.dumps(report.as_dict(), indent=2) + "\n").encode())
    _show(f"{model}: {'passed' if report.passed else 'FAILED'}", {k: str(v) for k, v in report.as_dict().items()})
    if not report.passed:
        raise typer.Exit(1)


@app.command()
def card(
    model: Annotated[Path, typer.Argument(help="the .onnx bundle")],
    out: Annotated[Path | None, typer.Option(help="Where to write it; MODEL with the suffix .md by default.")] = None,
) -> None:
    """Write a bundle's model card, from its manifest."""
    console.print(f"Wrote {write_card(model, out)}", markup=False, highlight=False, soft_wrap=True)


def _require_places(cfg: TrainConfig) -> None:
    """Raise ConfigError where results of ``[output]`` can be seen not to be writable; nothing is made."""
    bundle, folder = cfg.base / cfg.output.bundle, cfg.base / cfg.output.folder
    if bundle.is_dir():
        raise ConfigError(f"{cfg.path}: [output] bundle: {bundle} is a folder, expected a file's name")
    for key, path in (("bundle", bundle.parent), ("folder", folder)):
        there = next(p for p in [path.absolute(), *path.absolute().parents] if p.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise ConfigError(f"{cfg.path}: [output] {key}: {there} is no folder that can be written to")


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
        **result.origin,
        **({} if cfg.training.quantize is None else {"quantize": cfg.training.quantize}),
        "versions": {
            "kizzasi_edge": ours,
            "torch": torch.__version__,
            "lightning": metadata.version("lightning"),
            "onnxruntime": onnxruntime.__version__,
            "python": sys.version.split()[0],
        },
    }


def _parity_rows(bundle: Bundle) -> dict[str, str]:
    found, quantization = bundle.manifest.parity, bundle.manifest.quantization
    rows = {
        "parity": f"{found.relative_error:.2g} of each output's scale over {found.steps} steps (bound {found.bound:g})"
    }
    if quantization is not None:
        q = quantization
        rows["from float32"] = (
            f"{bundle.manifest.precision}: {q.open_loop_error:.2g} over {q.steps} steps (bound {q.bound:g}), "
            f"{q.free_run_error:.2g} over {q.free_run_steps} of free run (bound {q.free_run_bound:g})"
        )
    return rows | {
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
    """Entry point: errors of ours, and files that cannot be used, are one screen, not a traceback."""
    try:
        app()
    except (KizzasiError, OSError) as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, highlight=False)
        sys.exit(2)
