"""From a torch model to the one-file bundle that robots load, with its parity measured and stored."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from os import PathLike
from pathlib import Path
from typing import Any

import onnx
import torch

from kizzasi_edge.bundle import (
    Bundle,
    Head,
    Manifest,
    Parity,
    ParityVector,
    Signal,
    StateSpec,
    Tokenizer,
    write_bundle,
)
from kizzasi_edge.errors import BundleError
from kizzasi_export import parity
from kizzasi_export.graph import Graph, Variant
from kizzasi_export.models import Normalizer, StepModel
from kizzasi_export.models.head import CategoricalHead

# Least onnxruntime that loads each variant, found by loading them in releases 1.19 to 1.32
# (1.29 knows LinearAttentionGate's schema but has no CPU kernel for it).
ONNXRUNTIME_MIN: dict[Variant, str] = {"fast": "1.30", "portable": "1.19"}


def export_step(
    model: StepModel,
    path: str | PathLike[str],
    *,
    sample_rate_hz: float,
    input_names: Sequence[str],
    output_names: Sequence[str],
    normalizer: Normalizer | None = None,
    input_units: Sequence[str] | None = None,
    output_units: Sequence[str] | None = None,
    variant: Variant = "fast",
    batch: bool = False,
    training: Mapping[str, Any] | None = None,
    limits_trained_under: Mapping[str, Any] | None = None,
) -> Bundle:
    """Write `model`'s step as `path` (temporary file, then rename) and verify it against torch.

    Args:
        model: the trained model; it is not changed.
        sample_rate_hz: the rate at which the model must be stepped.
        input_names, output_names: one name per channel, as in ros2_control: ``joint/interface``.
        normalizer: replaces the model's own normalisation.
        input_units, output_units: one unit per channel; "rad" by default.
        variant: "fast" (contrib operators) or "portable" (opset 17, IR 8).
        batch: a symbolic leading dimension instead of 1.
        training, limits_trained_under: provenance, stored as given (JSON values).

    Returns:
        The opened bundle; ``bundle.manifest.parity`` holds the measured error.

    Raises:
        BundleError: names or units that do not fit the model, parity above its bound, or a path that cannot
            be written. Nothing is written then.
    """
    model = copy.deepcopy(model).cpu().float().eval()
    if normalizer is not None:
        model.set_normalizer(normalizer)
    _require_finite(model)
    graph = Graph(variant, batch=batch)
    model.emit(graph)
    core = graph.build()
    draft = Manifest(
        kind=str(model.config["kind"]),
        variant=variant,
        input_dim=model.input_dim,
        output_dim=model.output_dim,
        sample_rate_hz=sample_rate_hz,
        inputs=_signals("input", input_names, input_units, model.input_dim),
        outputs=_signals("output", output_names, output_units, model.output_dim),
        states=[
            StateSpec.model_validate(
                {"name": name, "shape": [1, *state.shape], "dtype": state.dtype.name, "in_place": state.in_place}
            )
            for name, state in graph.states.items()
        ],
        head=Head.model_validate({"kind": model.head.kind}),
        tokenizer=_tokenizer(model),
        config={k: v for k, v in model.config.items() if k not in ("kind", "input_dim", "output_dim")},
        limits_trained_under=dict(limits_trained_under or {}),
        training=dict(training or {}),
        parity=_unmeasured(model),
        onnxruntime_min=ONNXRUNTIME_MIN[variant],
        opset=graph.opsets,
        created_with={
            "kizzasi_edge": _package_version(),
            "torch": torch.__version__,
            "onnx": onnx.__version__,
        },
        batch="B" if batch else 1,
    )
    with tempfile.TemporaryDirectory() as folder:
        trial = write_bundle(Path(folder) / "trial.onnx", core, draft)
        measured = parity.measure(model, trial)
    if measured.relative_error > measured.bound:
        raise BundleError(
            f"{path}: parity: onnxruntime differs from torch by {measured.relative_error:.3g} of an output's "
            f"scale over {measured.steps} steps, expected at most {measured.bound:g}"
        )
    return write_bundle(path, core, draft.model_copy(update={"parity": measured}))


def _signals(side: str, names: Sequence[str], units: Sequence[str] | None, dim: int) -> list[Signal]:
    units = ["rad"] * dim if units is None else list(units)
    for what, values in (("names", names), ("units", units)):
        if len(values) != dim:
            raise BundleError(f"{side}_{what}: found {len(values)}, the model has {dim} {side}s")
    if len(set(names)) != dim:
        raise BundleError(f"{side}_names: found duplicates in {list(names)}, expected {dim} different names")
    return [Signal(name=name, unit=unit) for name, unit in zip(names, units, strict=True)]


def _tokenizer(model: StepModel) -> Tokenizer | None:
    if not isinstance(model.head, CategoricalHead):
        return None
    return Tokenizer.model_validate({"kind": model.head.tokenizer.kind, "codebook": model.head.codebook.tolist()})


def _require_finite(model: StepModel) -> None:
    for name, tensor in model.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise BundleError(f"model: {name} holds NaN or Inf; nothing was written")


def _unmeasured(model: StepModel) -> Parity:
    vector = ParityVector(seed=0, x=[[0.0] * model.input_dim], y=[[0.0] * model.output_dim])
    return Parity(steps=1, max_abs_error=0.0, relative_error=0.0, bound=parity.BOUND, vector=vector)


def _package_version() -> str:
    try:
        return metadata.version("kizzasi-edge")
    except metadata.PackageNotFoundError:  # run from a source tree that is not installed
        return "source"
