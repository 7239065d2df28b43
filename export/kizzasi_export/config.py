"""train.toml as validated objects; every error names file, section, key, what was found and expected."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from kizzasi_edge.errors import ConfigError
from kizzasi_edge.toml_file import Section, read_toml, validate
from kizzasi_export.constraints.section import ConstraintsSection, constraints_section
from kizzasi_export.models import KINDS, StepModel, build_model
from kizzasi_export.presets import PRESETS

TargetRange = tuple[list[float], list[float]]
"""Lowest and highest training target of each output, SI units."""


class TaskSection(Section):
    """``[task]``: what to learn; `name` is a key of `kizzasi_export.tasks.TASKS`."""

    name: str


class TokenizerSection(Section):
    """``[model.tokenizer]``: the levels of a categorical head (see `Tokenizer`).

    low, high: SI units, one for all outputs or one each; without them, the range of the training targets.
    """

    kind: Literal["uniform", "mulaw"] = "uniform"
    vocab: int = Field(default=256, ge=2)
    low: float | list[float] | None = None
    high: float | list[float] | None = None

    def arguments(self, target_range: TargetRange | None) -> dict[str, Any]:
        """The arguments of `Tokenizer`.

        Raises:
            ConfigError: no range here, and none that the data give.
        """
        fitted = dict(zip(("low", "high"), target_range, strict=True)) if target_range is not None else {}
        given = self.model_dump(exclude_none=True)
        for key in ("low", "high"):
            if key not in given and key not in fitted:
                raise ConfigError(f"[model.tokenizer] {key}: missing; expected a value in SI units")
        return {**fitted, **given}


class ModelSection(Section):
    """``[model]``: arguments of `build_model` other than the dimensions, which the data give.

    `preset` names a row of `PRESETS`; keys that are given override it.
    """

    preset: str | None = None
    kind: str = "mamba2"
    hidden_dim: int = Field(default=64, ge=1)
    state_dim: int = Field(default=16, ge=1)
    num_layers: int = Field(default=2, ge=1)
    context_window: int | None = Field(default=None, ge=1)
    head: Literal["continuous", "gaussian", "categorical"] = "continuous"
    tokenizer: TokenizerSection | None = None
    reference_tau: float | None = Field(default=None, gt=0)
    anchor: list[int] | None = None
    architecture: dict[str, bool | int | float | str] = {}

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, data: Any) -> Any:
        name = data.get("preset") if isinstance(data, dict) else None
        return {**PRESETS.get(name, {}), **data} if isinstance(name, str) else data

    @field_validator("preset")
    @classmethod
    def _known_preset(cls, name: str | None) -> str | None:
        if name is not None and name not in PRESETS:
            raise ValueError(f"one of {', '.join(PRESETS)}")
        return name

    @field_validator("kind")
    @classmethod
    def _known_kind(cls, kind: str) -> str:
        if kind not in KINDS:
            raise ValueError(f"one of {', '.join(KINDS)}")
        return kind

    @field_validator("architecture")
    @classmethod
    def _own_keys(cls, architecture: dict[str, Any]) -> dict[str, Any]:
        if clash := sorted(architecture.keys() & cls.model_fields.keys()):
            raise ValueError(f"{', '.join(clash)} in [model] itself")
        if given := sorted(architecture.keys() & {"input_dim", "output_dim"}):
            raise ValueError(f"no {', '.join(given)}: the data have it")
        return architecture

    @model_validator(mode="after")
    def _tokenizer_for_its_head(self) -> ModelSection:
        if self.tokenizer is not None and self.head != "categorical":
            raise ValueError(f"no tokenizer with head = {self.head!r}, only with 'categorical'")
        return self

    def build(self, input_dim: int, output_dim: int, target_range: TargetRange | None = None) -> StepModel:
        """A model with fresh weights; `target_range` stands in for a tokenizer's missing low and high.

        Raises:
            ConfigError: sizes, an anchor or a tokenizer that do not fit.
        """
        sizes: dict[str, Any] = {**self.model_dump(exclude={"architecture", "kind", "preset"}), **self.architecture}
        if self.head == "categorical":
            sizes["tokenizer"] = (self.tokenizer or TokenizerSection()).arguments(target_range)
        try:
            return build_model(self.kind, input_dim=input_dim, output_dim=output_dim, **sizes)
        except ValueError as error:
            raise ConfigError(f"[model] {error}") from None


class TrainingSection(Section, allow_inf_nan=False):
    """``[training]``: optimisation by AdamW with a one-cycle learning rate, on Lightning's trainer.

    batch_size: windows, or with `tbptt` parallel streams, of one update and process.  learning_rate: the cycle's
    peak.  gradient_clip: a norm.  patience: epochs without a better validation loss before stopping.
    validation_fraction: share of the sequences.  loss: for a continuous head, huber (default) or mse; the other heads
    have one of their own.  tbptt: steps between updates when whole recordings are streamed with their state carried;
    None = independent windows.  quantize: fine-tune through the rounding of these weights.
    accelerator, devices, num_nodes, strategy, precision: Lightning's; batch_size is then a process's.
    """

    epochs: int = Field(default=50, ge=1)
    batch_size: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=3e-3, gt=0)
    weight_decay: float = Field(default=1e-2, ge=0)
    gradient_clip: float = Field(default=1.0, gt=0)
    patience: int = Field(default=10, ge=1)
    validation_fraction: float = Field(default=0.1, gt=0, lt=1)
    loss: Literal["huber", "mse"] | None = None
    tbptt: int | None = Field(default=None, ge=1)
    quantize: Literal["int8"] | None = None
    seed: int = Field(default=0, ge=0)
    accelerator: Literal["cpu", "gpu", "auto"] = "cpu"
    devices: int | Literal["auto"] = 1
    num_nodes: int = Field(default=1, ge=1)
    strategy: str = "auto"
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"


class LoraSection(Section, allow_inf_nan=False):
    """``[finetune.lora]``: W + (alpha/rank)·B·A with W frozen (see `kizzasi_export.lora`).

    targets: glob patterns over the names of Linear layers.  output_projection: train that layer as a whole besides.
    """

    rank: int = Field(default=8, ge=1)
    alpha: float = Field(default=16.0, gt=0)
    targets: list[str] = Field(default=["*"], min_length=1)
    output_projection: bool = False


class FinetuneSection(Section):
    """``[finetune]``: start from a checkpoint (relative to the config) instead of fresh weights.

    Architecture, head and normaliser are the checkpoint's. Without ``lora`` every weight is trained.
    """

    checkpoint: str
    lora: LoraSection | None = None


class ExportSection(Section, allow_inf_nan=False):
    """``[export]``: rate, names and units of the channels, for tasks that leave them open (``supervised``).

    What is missing comes from the data, where they know it; a rate that is given is required of them.
    """

    sample_rate_hz: float | None = Field(default=None, gt=0)
    input_names: list[str] | None = None
    output_names: list[str] | None = None
    input_units: list[str] | None = None
    output_units: list[str] | None = None


class OutputSection(Section):
    """``[output]``: where results go, relative to the config file, and how the bundle is made (see `export_step`)."""

    bundle: str = "model.onnx"
    folder: str = "runs"
    variant: Literal["fast", "portable"] = "fast"
    batch: bool = False
    quantize: Literal["int8", "f16"] | None = None

    @model_validator(mode="after")
    def _operators_for_it(self) -> OutputSection:
        if self.quantize == "int8" and self.variant == "portable":
            raise ValueError("quantize = 'f16', or variant = 'fast': no standard operator reads int8 weights")
        return self


class TrainConfig(Section):
    """A whole train.toml. `data` belongs to the task, which validates it."""

    task: TaskSection
    model: ModelSection = ModelSection()
    training: TrainingSection = TrainingSection()
    finetune: FinetuneSection | None = None
    constraints: ConstraintsSection | None = None
    data: dict[str, Any] = {}
    export: ExportSection = ExportSection()
    output: OutputSection = OutputSection()
    path: Path = Field(Path(), exclude=True)
    digest: str = Field("", exclude=True)

    @model_validator(mode="after")
    def _one_parametrization(self) -> TrainConfig:
        if self.training.quantize is not None and self.finetune is not None and self.finetune.lora is not None:
            raise ValueError("[training] quantize or [finetune.lora], not both: merge the low-rank terms first")
        return self

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
    if "constraints" in data:
        data["constraints"] = constraints_section(data["constraints"], f"{path}: [constraints]")
    return validate({**data, "path": path, "digest": digest}, TrainConfig, path, ConfigError)
