"""Supervised training of a sequence model on windows, on Lightning's trainer.

`fit` starts from the weights it is given and leaves the best ones in the model, so that rounds of data
aggregation can call it again on a larger dataset.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, RichProgressBar
from torch import Tensor, nn
from torch.utils.data import DataLoader

from kizzasi_edge.errors import ConfigError, ModelError
from kizzasi_export.config import TrainingSection
from kizzasi_export.datasets import SequenceDataset
from kizzasi_export.losses import Loss, sequence_loss
from kizzasi_export.models import StepModel

Batch = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class FitResult:
    """How a fit went. `history` has one entry per epoch: (train_loss, validation_loss)."""

    history: list[tuple[float, float]]
    best_epoch: int
    best_validation_loss: float
    steps: int
    seconds: float


class _Trainee(L.LightningModule):  # type: ignore[misc]  # lightning is not followed (pyproject)
    """Binds model, loss and optimiser for the trainer."""

    def __init__(self, model: StepModel, loss: Loss, cfg: TrainingSection, total_steps: int) -> None:
        super().__init__()
        self.model, self.cfg, self.total_steps = model, cfg, total_steps
        self.loss = loss
        self.history: list[tuple[float, float]] = []

    def training_step(self, batch: Batch) -> Tensor:
        loss = self.loss(self.model, *batch)
        if not bool(torch.isfinite(loss)):
            raise ModelError(
                f"training: the loss became {float(loss.detach())} at step {self.global_step}; "
                "try a lower [training] learning_rate"
            )
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch[0]))
        return loss

    def validation_step(self, batch: Batch) -> None:
        loss = self.loss(self.model, *batch)
        self.log("validation_loss", loss, prog_bar=True, batch_size=len(batch[0]))

    def on_train_epoch_end(self) -> None:
        metrics = self.trainer.callback_metrics
        self.history.append((float(metrics["train_loss"]), float(metrics["validation_loss"])))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"] = self.history

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = [tuple(entry) for entry in checkpoint["history"]]

    def configure_optimizers(self) -> Any:
        matrices = [p for p in self.model.parameters() if p.ndim >= 2]
        vectors = [p for p in self.model.parameters() if p.ndim < 2]  # norms, biases, A_log, D, dt_bias
        optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": self.cfg.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
            lr=self.cfg.learning_rate,
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.cfg.learning_rate, total_steps=self.total_steps, pct_start=0.1
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def split(dataset: SequenceDataset, fraction: float, seed: int) -> tuple[SequenceDataset, SequenceDataset]:
    """(training, validation) by whole windows, at least one each.

    Raises:
        ConfigError: fewer than two windows.
    """
    if len(dataset) < 2:
        raise ConfigError(f"training data: found {len(dataset)} window, expected at least 2 (one validates)")
    order = np.random.default_rng(seed).permutation(len(dataset))
    held = min(max(1, round(fraction * len(dataset))), len(dataset) - 1)
    return dataset.subset(order[held:]), dataset.subset(order[:held])


def fit(
    model: StepModel,
    dataset: SequenceDataset,
    cfg: TrainingSection,
    *,
    folder: Path,
    loss: Loss | None = None,
    resume: bool = False,
    progress: bool = True,
) -> FitResult:
    """Train `model` in place; at the end it holds the weights with the lowest validation loss.

    Args:
        model: with its normaliser already set (`StepModel.set_normalizer`).
        dataset: windows; a seeded share validates.
        folder: where the trainer keeps its state (``last.ckpt``, ``best.ckpt``). One folder per round.
        loss: replaces the loss that `cfg` names.
        resume: continue from ``last.ckpt`` if there is one (a finished fit then returns at once).
        progress: show a progress bar.

    Raises:
        ConfigError: dimensions of model and data that differ, or too few windows.
        ModelError: the loss became NaN or Inf.
    """
    if (dataset.input_dim, dataset.output_dim) != (model.input_dim, model.output_dim):
        raise ConfigError(
            f"training data: {dataset.input_dim} inputs and {dataset.output_dim} outputs, "
            f"the model has {model.input_dim} and {model.output_dim}"
        )
    began = time.monotonic()
    training, validation = split(dataset, cfg.validation_fraction, cfg.seed)
    last = folder / "last.ckpt"
    if not resume:
        for stale in (last, folder / "best.ckpt"):
            stale.unlink(missing_ok=True)
    generator = torch.Generator().manual_seed(cfg.seed)
    with _quiet():
        batches = DataLoader(training, cfg.batch_size, shuffle=True, generator=generator)
        trainee = _Trainee(model, loss or sequence_loss(cfg.loss), cfg, cfg.epochs * len(batches))
        best = ModelCheckpoint(
            folder, filename="best", monitor="validation_loss", save_last=True, enable_version_counter=False
        )
        callbacks: list[Callback] = [EarlyStopping("validation_loss", patience=cfg.patience), best]
        if progress:
            callbacks.append(RichProgressBar())
        trainer = L.Trainer(
            accelerator=cfg.accelerator,
            devices=1,
            max_epochs=cfg.epochs,
            gradient_clip_val=cfg.gradient_clip,
            callbacks=callbacks,
            logger=False,
            enable_progress_bar=progress,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        resumed = str(last) if resume and last.exists() else None
        trainer.fit(trainee, batches, DataLoader(validation, cfg.batch_size), ckpt_path=resumed)
    if trainer.interrupted:  # older Lightning returns from Ctrl-C as if it had finished
        raise KeyboardInterrupt
    state = torch.load(folder / "best.ckpt", map_location="cpu", weights_only=True)["state_dict"]
    nn.Module.load_state_dict(trainee, state)
    model.cpu().eval()
    losses = [validation_loss for _, validation_loss in trainee.history]
    best_epoch = int(np.argmin(losses))
    return FitResult(
        history=trainee.history,
        best_epoch=best_epoch,
        best_validation_loss=losses[best_epoch],
        steps=int(trainer.global_step),
        seconds=time.monotonic() - began,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's hardware listing and its advice about worker processes, which small data don't need."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            warnings.filterwarnings("ignore", category=FutureWarning)
            yield
    finally:
        logger.setLevel(level)
