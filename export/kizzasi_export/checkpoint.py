"""Trained models on disk: safetensors weights, and in their metadata all that rebuilds and exports them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize

from kizzasi_edge.bundle import Bundle
from kizzasi_edge.errors import BundleError
from kizzasi_edge.written import make_folder, write_file
from kizzasi_export.blocks import Quantization
from kizzasi_export.export import export_step
from kizzasi_export.graph import Variant
from kizzasi_export.models import StepModel, build_model

_KEY = "kizzasi.checkpoint"
_SCHEMA = 1


@dataclass(frozen=True)
class ExportSpec:
    """What `export_step` needs to know beside the model (see there)."""

    sample_rate_hz: float
    input_names: list[str]
    output_names: list[str]
    input_units: list[str] | None = None
    output_units: list[str] | None = None
    limits_trained_under: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A model with its export names and its training provenance (JSON values)."""

    model: StepModel
    spec: ExportSpec
    training: dict[str, Any]

    def export(
        self,
        path: Path,
        *,
        variant: Variant = "fast",
        batch: bool = False,
        quantize: Quantization | None = None,
        bound: float | None = None,
    ) -> Bundle:
        """`export_step` with this checkpoint's names and provenance."""
        return export_step(
            self.model,
            path,
            variant=variant,
            batch=batch,
            quantize=quantize,
            bound=bound,
            training=self.training,
            **asdict(self.spec),
        )

    def save(self, path: Path) -> None:
        """Write a temporary file, then rename.

        Raises:
            BundleError: the file cannot be written.
        """
        header = {
            "schema": _SCHEMA,
            "config": self.model.config,
            "spec": asdict(self.spec),
            "training": self.training,
        }
        make_folder(path.parent)
        tensors = {name: t.detach().cpu().contiguous() for name, t in self.model.state_dict().items()}
        write_file(path, serialize(tensors, metadata={_KEY: json.dumps(header)}))

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Rebuild the model and load its weights.

        Raises:
            BundleError: no such file, not a checkpoint of ours, weights that do not fit its config, or NaN or Inf.
        """
        try:
            with safe_open(path, framework="pt") as file:
                text = (file.metadata() or {}).get(_KEY)
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except FileNotFoundError:
            raise BundleError(f"{path}: no such checkpoint") from None
        except (SafetensorError, OSError) as error:
            raise BundleError(f"{path}: not a safetensors file: {error}") from None
        if text is None:
            raise BundleError(f"{path}: no {_KEY!r} in the metadata, expected a checkpoint of kizzasi-export")
        try:
            header = json.loads(text)
            if header["schema"] != _SCHEMA:
                raise ValueError(f"schema {header['schema']}, expected {_SCHEMA}")
            model, spec = build_model(**header["config"]), ExportSpec(**header["spec"])
            model.load_state_dict(tensors)
            training = dict(header["training"])
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise BundleError(f"{path}: cannot rebuild the model: {error}") from None
        if broken := [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]:
            raise BundleError(f"{path}: {broken[0]} holds NaN or Inf, expected finite weights")
        return cls(model, spec, training)
