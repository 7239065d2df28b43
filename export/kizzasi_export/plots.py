"""The learning curve as a picture and as a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from kizzasi_edge.written import make_folder, write_file


def learning_curve(
    history: Sequence[tuple[float, float]], best_epoch: int, path: Path, *, measure: str = "loss"
) -> None:
    """Write a PNG of training and validation loss per epoch, the kept epoch marked, and a CSV of the same name.

    The axis is logarithmic where every loss is positive, as a likelihood's need not be. `measure` labels it.

    Raises:
        BundleError: the files cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    epochs = range(1, len(history) + 1)
    axes.plot(epochs, [t for t, _ in history], label="training")
    axes.plot(epochs, [v for _, v in history], label="validation")
    if min(min(entry) for entry in history) > 0:
        axes.set_yscale("log")
    axes.axvline(best_epoch + 1, color="0.6", linestyle="--", label=f"kept: epoch {best_epoch + 1}")
    axes.set(xlabel="epoch", ylabel=measure, title="Learning curve")
    axes.grid(alpha=0.3)
    axes.legend()
    picture, text = io.BytesIO(), io.StringIO()
    figure.savefig(picture, format="png", dpi=120)
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["epoch", "training_loss", "validation_loss"])
    table.writerows([epoch, *entry] for epoch, entry in zip(epochs, history, strict=True))
    make_folder(path.parent)
    write_file(path, picture.getvalue())
    write_file(path.with_suffix(".csv"), text.getvalue().encode())
