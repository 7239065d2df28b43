"""The learning curve as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def learning_curve(history: Sequence[tuple[float, float]], best_epoch: int, path: Path) -> None:
    """Write a PNG of training and validation loss per epoch (log scale), the kept epoch marked."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    epochs = range(1, len(history) + 1)
    axes.semilogy(epochs, [t for t, _ in history], label="training")
    axes.semilogy(epochs, [v for _, v in history], label="validation")
    axes.axvline(best_epoch + 1, color="0.6", linestyle="--", label=f"kept: epoch {best_epoch + 1}")
    axes.set(xlabel="epoch", ylabel="loss (errors in units of each output's std)", title="Learning curve")
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
