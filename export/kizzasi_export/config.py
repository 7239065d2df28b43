"""train.toml as validated objects; every error names file, section, key, what was found and expected."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from kizzasi_edge.errors import ConfigError
from kizzasi_edge.toml_file import Section, read_toml, validate
from kizzasi_export.models import KINDS, StepModel, build_model


class TaskSection(Section):
    """``[task]``: what to learn; `name` is a key of `kizzasi_export.tasks.TASKS`."""

    name: str


class ModelSection(Section):
    """``[model]``: arguments of `build_model` other than the dimensions, which the data give."""

    kind: str = "mamba2"
    hidden_dim: int = Field(default=64, ge=1)
    state_dim: int = Field(default=16, ge=1)
    num_layers: int = Field(default=2, ge=1)
    reference_tau: float | None = Field(default=None, gt=0)
    anchor: list[int] | None = None
    architecture: dict[str, int] = {}

    @model_validator(mode="after")
    def _known_kind(self) -> ModelSection:
        if self.kind not in KINDS:
            raise ValueError(f"kind: one of {', '.join(KINDS)}, not {self.kind!r}")
        if clash := sorted(self.architecture.keys() & type(self).model_fields.keys()):
            raise ValueError(f"architecture: {', '.join(clash)} belong(s) in [model]")
        return self

    def build(self, input_dim: int, output_dim: int) -> StepModel:
        """A model with fresh weights.

        Raises:
            ConfigError: sizes or an anchor that do not fit.
        """
        sizes: dict[str, Any] = {**self.model_dump(exclude={"architecture", "kind"}), **self.architecture}
        try:
            return build_model(self.kind, input_dim=input_dim, output_dim=output_dim, **sizes)
        except ValueError as error:
            raise ConfigError(f"[model] {error}") from None


class TrainingSection(Section):
    """``[training]``: optimisation by AdamW with a one-cycle learning rate.

    learning_rate is the cycle's peak; gradient_clip a norm; patience the epochs without a better validation
    loss before stopping; validation_fraction a share of the sequences.
    """

    epochs: int = Field(default=50, ge=1)
    batch_size: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=3e-3, gt=0)
    weight_decay: float = Field(default=1e-2, ge=0)
    gradient_clip: float = Field(default=1.0, gt=0)
    patience: int = Field(default=10, ge=1)
    validation_fraction: float = Field(default=0.1, gt=0, lt=1)
    loss: Literal["huber", "mse"] = "huber"
    seed: int = Field(default=0, ge=0)
    accelerator: Literal["cpu", "gpu"] = "cpu"


class ExportSection(Section):
    """``[export]``: names and units of the channels, for tasks that cannot know them (``supervised``)."""

    sample_rate_hz: float = Field(gt=0)
    input_names: list[str]
    output_names: list[str]
    input_units: list[str] | None = None
    output_units: list[str] | None = None


class OutputSection(Section):
    """``[output]``: where results go, relative to the config file."""

    bundle: str = "model.onnx"
    folder: str = "runs"
    variant: Literal["fast", "portable"] = "fast"
    batch: bool = False


class TrainConfig(Section):
    """A whole train.toml. `data` belongs to the task, which validates it."""

    task: TaskSection
    model: ModelSection = ModelSection()
    training: TrainingSection = TrainingSection()
    data: dict[str, Any] = {}
    export: ExportSection | None = None
    output: OutputSection = OutputSection()
    path: Path = Field(Path(), exclude=True)
    digest: str = Field("", exclude=True)

    @property
    def base(self) -> Path:
        """The folder that relative paths start from."""
        return self.path.parent


def load_train_config(path: str | Path) -> TrainConfig:
    """Read a train.toml.

    Raises:
        ConfigError: no such file, not TOML, an unknown key, or a value out of range.
    """
    path = Path(path)
    data = read_toml(path, ConfigError)
    for key in ("path", "digest"):
        if key in data:
            raise ConfigError(f"{path}: {key}: unknown key (found {data[key]!r})")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return validate({**data, "path": path, "digest": digest}, TrainConfig, path, ConfigError)
