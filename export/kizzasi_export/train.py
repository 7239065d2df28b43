"""Supervised training of a sequence model on windows or streams, on Lightning's trainer.

`fit` starts from the weights it is given and leaves the best ones in the model, so that rounds of data
aggregation can call it again on a larger dataset.
"""

from __future__ import annotations

import copy
import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import numpy as np
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, RichProgressBar
from lightning.pytorch.utilities import rank_zero_only

from kizzasi_edge.errors import ConfigError
from kizzasi_export.blocks import LEAST_WEIGHTS
from kizzasi_export.config import TrainingSection
from kizzasi_export.datasets import SequenceDataset, Streams
from kizzasi_export.losses import FromStart, Loss, OutputLoss, head_loss
from kizzasi_export.models import StepModel
from kizzasi_export.quantize import Int8Blocks, fake_quantized
from kizzasi_export.resume import require_same, saved_state
from kizzasi_export.trainee import StreamTrainee, Trainee, WindowTrainee


@dataclass(frozen=True)
class FitResult:
    """How a fit went. `history` has one entry per epoch: (train_loss, validation_loss)."""

    history: list[tuple[float, float]]
    best_epoch: int
    best_validation_loss: float
    steps: int
    seconds: float


def leads() -> bool:
    """Whether this process writes the results: it trains alone, or is the first of several."""
    return int(getattr(rank_zero_only, "rank", 0) or 0) == 0


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
    data: SequenceDataset | Streams,
    cfg: TrainingSection,
    *,
    folder: Path,
    validation: SequenceDataset | Streams | None = None,
    loss: Loss | None = None,
    output_loss: OutputLoss | None = None,
    resume: bool = False,
    progress: bool = True,
) -> FitResult:
    """Train `model` in place; at the end it holds the weights with the lowest validation loss.

    With several processes (`cfg.devices`, `cfg.num_nodes`) each one calls this, and each one's model ends up the same.

    Args:
        model: with its normaliser already set (`StepModel.set_normalizer`). Frozen parameters stay as they are.
        data: windows, or with `cfg.tbptt` whole recordings.
        folder: where the trainer keeps its state (``last.ckpt``, ``best.ckpt``). One folder per round.
        validation: data of the same form; None takes a seeded share of the windows.
        output_loss: replaces `head_loss`.
        loss: replaces `output_loss` where a task must run the model itself; for windows only.
        resume: continue from ``last.ckpt`` if there is one (a finished fit then returns at once).
        progress: show a progress bar.

    Raises:
        ConfigError: dimensions of model and data that differ, too few windows, a trainer that cannot be had here, a
            folder that cannot be written to, or a state to resume from that is damaged or another training's.
        ModelError: the loss became NaN or Inf.
    """
    for name, found, expected in (
        ("inputs", data.input_dim, model.input_dim),
        ("outputs", data.output_dim, model.output_dim),
    ):
        if found != expected:
            raise ConfigError(f"training data: found {found} {name}, expected {expected} as the model has")
    began = time.monotonic()
    last, best = folder / "last.ckpt", folder / "best.ckpt"
    if not resume:
        _forget(last, best)
    with _quiet(), nullcontext() if cfg.quantize is None else fake_quantized(model):
        if cfg.quantize is not None and not any(isinstance(module, Int8Blocks) for module in model.modules()):
            raise ConfigError(
                f"[training] quantize: found no weight matrix of at least {LEAST_WEIGHTS[cfg.quantize]} values, below "
                f"which {cfg.quantize} gains nothing; expected a larger model, or none"
            )
        trainer = _trainer(cfg, folder, progress)
        # A copy: strategies may take a module's parameters apart, and what failed leaves the model as it was.
        trainee = _trainee(copy.deepcopy(model), data, validation, cfg, loss, output_loss, trainer.world_size)
        saved = saved_state(last) if resume and last.exists() else None
        if saved is not None:
            require_same(saved, trainee, last)
            require_same(saved_state(best), trainee, best)
        if saved is None or not saved["finished"]:
            _run(trainer, trainee, None if saved is None else last)
            saved = saved_state(last)
        weights = saved_state(best)["state_dict"]
        ours = {name.removeprefix("model."): t for name, t in weights.items() if name.startswith("model.")}
        model.load_state_dict(ours)
    model.eval()
    history = [(float(train), float(validate)) for train, validate in saved["history"]]
    losses = [validation_loss for _, validation_loss in history]
    best_epoch = int(np.argmin(losses))
    return FitResult(
        history=history,
        best_epoch=best_epoch,
        best_validation_loss=losses[best_epoch],
        steps=int(saved["global_step"]),
        seconds=time.monotonic() - began,
    )


def _forget(*paths: Path) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(f"{path}: an earlier training's state cannot be removed: {error.strerror}") from error


def _run(trainer: L.Trainer, trainee: Trainee, start: Path | None) -> None:
    try:
        trainer.fit(trainee, ckpt_path=None if start is None else str(start))
    except OSError as error:  # nothing else is read or written while it runs
        where = f"{error.filename}: " if error.filename else ""
        raise ConfigError(f"{where}the training's state cannot be kept: {error.strerror or error}") from error
    except SystemExit:
        if not trainer.interrupted:
            raise
    if trainer.interrupted:  # Lightning exits after Ctrl-C, older ones return as if they had finished
        raise KeyboardInterrupt


def _trainee(
    model: StepModel,
    data: SequenceDataset | Streams,
    validation: SequenceDataset | Streams | None,
    cfg: TrainingSection,
    loss: Loss | None,
    output_loss: OutputLoss | None,
    processes: int,
) -> Trainee:
    score = output_loss or head_loss(cfg.loss)
    if cfg.loss is not None and model.head.kind != "continuous":
        raise ConfigError(f"[training] loss: found {cfg.loss!r}, expected none: a {model.head.kind} head has its own")
    if isinstance(data, Streams):
        if loss is not None or cfg.tbptt is None or not isinstance(validation, Streams):
            raise TypeError("streams are trained with tbptt, by an output_loss, and validated on streams")
        return StreamTrainee(model, cfg, score, data, validation)
    if cfg.tbptt is not None:
        raise ConfigError(f"[training] tbptt: found {cfg.tbptt}, expected none: this task trains on windows")
    if validation is None:
        data, validation = split(data, cfg.validation_fraction, cfg.seed)
    assert isinstance(validation, SequenceDataset)
    if len(validation) < processes:
        raise ConfigError(
            f"validation data: found {len(validation)} windows for {processes} processes, expected one each; "
            "raise [training] validation_fraction"
        )
    return WindowTrainee(model, cfg, loss or FromStart(score), data, validation)


def _trainer(cfg: TrainingSection, folder: Path, progress: bool) -> L.Trainer:
    callbacks: list[Callback] = [
        EarlyStopping("validation_loss", patience=cfg.patience),
        ModelCheckpoint(folder, filename="best", monitor="validation_loss", enable_version_counter=False),
        ModelCheckpoint(folder, filename="last", enable_version_counter=False),  # every epoch: save_last keeps the best
    ]
    if progress:
        callbacks.append(RichProgressBar())
    try:
        return L.Trainer(
            accelerator=cfg.accelerator,
            devices=cfg.devices,
            num_nodes=cfg.num_nodes,
            strategy=cfg.strategy,
            precision=cfg.precision,
            max_epochs=cfg.epochs,
            gradient_clip_val=cfg.gradient_clip,
            callbacks=callbacks,
            logger=False,
            use_distributed_sampler=False,  # the trainee's loaders know their process
            enable_progress_bar=progress,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
    except (MisconfigurationException, TypeError, ValueError, RuntimeError) as error:
        settings = {key: getattr(cfg, key) for key in ("accelerator", "devices", "strategy", "precision")}
        raise ConfigError(f"[training]: no trainer with {settings}: {error}") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's hardware listing and its advice about worker processes, which small data don't need."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            warnings.filterwarnings("ignore", category=FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
