"""What Lightning's trainer drives: model, loss, optimiser and data, for windows and for streams."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torch.utils.data.distributed import DistributedSampler

from kizzasi_edge.errors import ModelError
from kizzasi_export.chunks import Chunk, Chunks, Schedule, carried
from kizzasi_export.config import TrainingSection
from kizzasi_export.datasets import SequenceDataset, Streams
from kizzasi_export.losses import Loss, OutputLoss
from kizzasi_export.models import State, StepModel

Window = tuple[Tensor, Tensor, Tensor]
"""x [B, T, in], y [B, T, out], weight [B, T]."""


class Trainee(L.LightningModule):  # type: ignore[misc]  # lightning is not followed (pyproject)
    """Logging, history and optimiser; what a batch is, and its loss, are the subclasses' business.

    Figures are means over the weighted steps of all processes; each process's batches are its own share of the data.
    """

    training_data: SequenceDataset | Streams
    validation_data: SequenceDataset | Streams

    def __init__(self, model: StepModel, cfg: TrainingSection) -> None:
        super().__init__()
        self.model, self.cfg = model, cfg
        self.history: list[tuple[float, float]] = []
        self.settings: dict[str, Any] = cfg.model_dump(mode="json")

    @property
    def data_sizes(self) -> list[int]:
        """Sequences and steps to train on, and to validate: what a saved state must agree with."""
        return [size for data in (self.training_data, self.validation_data) for size in (len(data), _steps(data))]

    def loss_of(self, batch: Any) -> tuple[Tensor, Tensor]:
        """(loss, weight [B, T])."""
        raise NotImplementedError

    def training_step(self, batch: Any) -> Tensor:
        loss, weight = self.loss_of(batch)
        self._require_finite("loss", loss)
        self._log("train_loss", loss, weight)
        return loss

    def validation_step(self, batch: Any) -> None:
        loss, weight = self.loss_of(batch)
        self._require_finite("validation loss", loss)
        self._log("validation_loss", loss, weight)

    def on_train_epoch_end(self) -> None:
        metrics = self.trainer.callback_metrics
        self.history.append((float(metrics["train_loss"]), float(metrics["validation_loss"])))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"] = self.history
        checkpoint["settings"], checkpoint["data"] = self.settings, self.data_sizes
        checkpoint["finished"] = bool(self.trainer.should_stop) or len(self.history) >= self.cfg.epochs

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = [tuple(entry) for entry in checkpoint["history"]]

    def configure_optimizers(self) -> Any:
        trained = [p for p in self.model.parameters() if p.requires_grad]
        matrices = [p for p in trained if p.ndim >= 2]
        vectors = [p for p in trained if p.ndim < 2]  # norms, biases, A_log, D, dt_bias
        optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": self.cfg.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
            lr=self.cfg.learning_rate,
        )
        updates = max(int(self.trainer.estimated_stepping_batches), 11)  # a warm-up of 0.1 · 10 - 1 divides by zero
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.cfg.learning_rate, total_steps=updates, pct_start=0.1
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _require_finite(self, name: str, loss: Tensor) -> None:
        if not bool(torch.isfinite(loss)):
            raise ModelError(
                f"training: the {name} became {float(loss.detach())} at step {self.global_step}; "
                "try a lower [training] learning_rate"
            )

    def _log(self, name: str, loss: Tensor, weight: Tensor) -> None:
        steps = int((weight > 0).sum())
        self.log(name, loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=steps, sync_dist=True)


def _steps(data: SequenceDataset | Streams) -> int:
    return data.steps if isinstance(data, Streams) else len(data) * int(data.x.shape[1])


class WindowTrainee(Trainee):
    """Independent windows, each from the initial state."""

    training_data: SequenceDataset
    validation_data: SequenceDataset

    def __init__(
        self, model: StepModel, cfg: TrainingSection, loss: Loss, training: SequenceDataset, validation: SequenceDataset
    ) -> None:
        super().__init__(model, cfg)
        self.loss, self.training_data, self.validation_data = loss, training, validation

    def loss_of(self, batch: Window) -> tuple[Tensor, Tensor]:
        return self.loss(self.model, *batch), batch[2]

    def train_dataloader(self) -> DataLoader[Window]:
        ours: DistributedSampler[Window] = DistributedSampler(
            self.training_data, self.trainer.world_size, self.trainer.global_rank, shuffle=True, seed=self.cfg.seed
        )
        return DataLoader(self.training_data, self.cfg.batch_size, sampler=ours)

    def val_dataloader(self) -> DataLoader[Window]:
        """Every window once: unlike `DistributedSampler`, which repeats some to give each process as many."""
        ours = range(self.trainer.global_rank, len(self.validation_data), self.trainer.world_size)
        return DataLoader(Subset(self.validation_data, ours), self.cfg.batch_size)


class StreamTrainee(Trainee):
    """Truncated back-propagation through time (Williams & Peng 1990) over streams that carry their state.

    Each chunk of `cfg.tbptt` steps starts from the state that the last one left, and gradients end at its first step:
    memory holds one chunk's graph, however long a recording is.
    """

    training_data: Streams
    validation_data: Streams

    def __init__(
        self, model: StepModel, cfg: TrainingSection, loss: OutputLoss, training: Streams, validation: Streams
    ) -> None:
        super().__init__(model, cfg)
        self.loss, self.training_data, self.validation_data = loss, training, validation
        self.state: State | None = None

    def loss_of(self, batch: Chunk) -> tuple[Tensor, Tensor]:
        x, y, weight, start = batch
        outputs, after = self.model.scan(x, carried(start, self.model.initial_state(len(x)), self.state))
        self.state = {name: value.detach() for name, value in after.items()}
        return self.loss(self.model, outputs, y, weight), weight

    def on_train_epoch_start(self) -> None:
        self.state = None

    def on_validation_epoch_start(self) -> None:
        self.state = None

    def train_dataloader(self) -> DataLoader[Chunk]:
        return self._loader(self.training_data, self.cfg.seed)

    def val_dataloader(self) -> DataLoader[Chunk]:
        return self._loader(self.validation_data, None)

    def _loader(self, data: Streams, seed: int | None) -> DataLoader[Chunk]:
        assert self.cfg.tbptt is not None
        chunks = Chunks(data.recordings, self.cfg.tbptt)
        lengths = [len(recording) for recording in data]
        processes, rank = self.trainer.world_size, self.trainer.global_rank
        schedule = Schedule(lengths, chunks.length, self.cfg.batch_size, rank, processes, seed)
        return DataLoader(chunks, batch_size=None, sampler=schedule)
