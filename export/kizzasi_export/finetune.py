"""Where a training's weights start: fresh, or from a checkpoint that fits configuration and data."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from kizzasi_edge.errors import ConfigError
from kizzasi_export import lora
from kizzasi_export.checkpoint import Checkpoint
from kizzasi_export.config import ModelSection, TrainConfig
from kizzasi_export.models import Normalizer, StepModel


def start_model(
    config: TrainConfig, normalizer: Normalizer, target_range: tuple[list[float], list[float]]
) -> tuple[StepModel, dict[str, Any]]:
    """The model to train, and how it came about (JSON values).

    Args:
        normalizer: of the training data; a checkpoint keeps the one that its weights were trained with.
        target_range: lowest and highest training target of each output [SI], for a tokenizer without a range.

    Raises:
        ConfigError: a checkpoint that differs in size from the data or from a key of ``[model]``; bad lora targets.
        BundleError: a checkpoint that cannot be read.
    """
    inputs, outputs = len(normalizer.input_mean), len(normalizer.output_mean)
    torch.manual_seed(config.training.seed)
    section = config.finetune
    if section is None:
        model = config.model.build(inputs, outputs, target_range)
        model.set_normalizer(normalizer)
        return model, {} if config.model.preset is None else {"preset": config.model.preset}
    path = config.base / section.checkpoint
    model = Checkpoint.load(path).model
    _must_fit(model, path, config, inputs, outputs)
    origin: dict[str, Any] = {"checkpoint": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    if section.lora is not None:
        origin["lora"] = lora.attach(model, **section.lora.model_dump())
    return model, {"finetune": origin}


def _must_fit(model: StepModel, path: Path, config: TrainConfig, inputs: int, outputs: int) -> None:
    tensors = model.network.state_dict()
    for size, tensor, found, expected in (
        ("input_dim", "input_projection.weight", inputs, model.input_dim),
        ("output_dim", "output_projection.weight", outputs, model.output_dim),
    ):
        if found != expected:
            raise ConfigError(
                f"{config.path}: [data] {size}: found {found} channels, expected {expected} as in {path}, "
                f"whose network.{tensor} is {list(tensors[tensor].shape)}"
            )
    given = config.model.model_dump(include=config.model.model_fields_set - {"preset", "architecture"})
    for key, found in {**given, **config.model.architecture}.items():
        expected = model.config.get(key, _default(key))
        if isinstance(found, dict):  # a tokenizer: only what is given must agree
            agrees = isinstance(expected, dict) and all(v is None or expected.get(k) == v for k, v in found.items())
        else:
            agrees = found == expected
        if not agrees:
            raise ConfigError(f"{config.path}: [model] {key}: found {found!r}, expected {expected!r} as in {path}")


def _default(key: str) -> Any:
    field = ModelSection.model_fields.get(key)
    return None if field is None else field.default
