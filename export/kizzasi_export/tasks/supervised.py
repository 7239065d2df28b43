"""Train on your own sequences: ``[data] path = "recording.npz"`` with arrays x and y."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pydantic import Field

from kizzasi_edge.errors import ConfigError
from kizzasi_edge.toml_file import Section, validate
from kizzasi_export.config import TrainConfig
from kizzasi_export.datasets import load_npz
from kizzasi_export.models import Normalizer
from kizzasi_export.tasks import ExportSpec, TaskResult
from kizzasi_export.train import fit


class SupervisedData(Section):
    """``[data]``: an .npz file (relative to the config) and the window length in steps."""

    path: str
    window: int | None = Field(default=None, ge=1)


def run(data: dict[str, Any], config: TrainConfig, *, resume: bool, progress: bool) -> TaskResult:
    """Fit the configured model to the file's x → y.

    Raises:
        ConfigError: bad keys, bad data, or an ``[export]`` section that does not fit the data.
    """
    section = validate(data, SupervisedData, f"{config.path}: [data]", ConfigError)
    if config.export is None:
        raise ConfigError(f"{config.path}: [export]: missing; expected sample_rate_hz, input_names, output_names")
    path = config.base / section.path
    dataset = load_npz(path, window=section.window)
    for side, dim in (("input", dataset.input_dim), ("output", dataset.output_dim)):
        for what in ("names", "units"):
            values = getattr(config.export, f"{side}_{what}")
            if values is not None and len(values) != dim:
                raise ConfigError(
                    f"{config.path}: [export] {side}_{what}: found {len(values)}, expected {dim} as in {path}"
                )
    torch.manual_seed(config.training.seed)
    model = config.model.build(dataset.input_dim, dataset.output_dim)
    # With a reference model the network commands the velocity of y, so that is what its outputs are scaled by.
    commanded = dataset.y if model.reference is None else np.diff(dataset.y, axis=1)
    model.set_normalizer(Normalizer.fit(dataset.x, commanded))
    folder = config.base / config.output.folder
    result = fit(model, dataset, config.training, folder=folder, resume=resume, progress=progress)
    return TaskResult(
        model=model,
        export=ExportSpec(**config.export.model_dump()),
        fit=result,
        data={"file": path.name, "sha256": dataset.digest, "windows": len(dataset)},
        summary={"data": f"{path.name}: {len(dataset)} windows of {dataset.x.shape[1]} steps"},
    )
