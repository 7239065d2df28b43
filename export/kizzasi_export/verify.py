"""Is this model file what it says it is? Structure, replay of the stored vector, and the torch model beside it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx

from kizzasi_edge.bundle import Bundle
from kizzasi_edge.errors import BundleError
from kizzasi_edge.inspect import replay_parity
from kizzasi_export import parity
from kizzasi_export.checkpoint import Checkpoint
from kizzasi_export.models import StepModel
from kizzasi_export.quantize import FREE_RUN_FACTOR, distance


@dataclass(frozen=True)
class FreeRun:
    """The quantised model fed with its own outputs, beside float32; error relative to each output's scale."""

    steps: int
    error: float
    bound: float


@dataclass(frozen=True)
class Report:
    """`passed` = every check holds; errors are in the outputs' units, relative ones in each output's scale.

    mode: "replay" (the manifest's vector; the errors from torch are the stored ones) or "parity" (torch beside
    onnxruntime here). error_from_torch, measured now or stored, is what `bound` bounds; torch is float32.
    """

    max_abs_error: float
    relative_error: float
    steps: int
    variant: str
    precision: str
    bound: float
    error_from_torch: float
    free_run: FreeRun | None
    passed: bool
    mode: str

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def verify(path: Path, *, checkpoint: Path | None = None, bound: float | None = None) -> Report:
    """Check the file at `path`; with `checkpoint`, run the torch model beside it, in float32.

    A quantised file is compared twice: both models get the same inputs, then each its own outputs (free run). Without
    a checkpoint the vector is replayed and the stored errors are judged.

    Args:
        bound: replaces the file's own bound of the error from float32 (times `FREE_RUN_FACTOR` for the free run).

    Raises:
        BundleError: the file cannot be opened, its graph breaks the rules of its variant, or the checkpoint
            is of another kind or of other dimensions.
    """
    bundle = Bundle.open(path)  # checks sizes, digest and manifest
    _check_graph(bundle)
    return _replay(bundle, bound) if checkpoint is None else _beside(bundle, _model(bundle, checkpoint), bound)


def _replay(bundle: Bundle, bound: float | None) -> Report:
    manifest, replay = bundle.manifest, replay_parity(bundle, "ort")
    stored = manifest.quantization
    limit, free_limit = _bounds(bundle, bound)
    error = manifest.parity.relative_error if stored is None else stored.open_loop_error
    free = None if stored is None else FreeRun(stored.free_run_steps, stored.free_run_error, free_limit)
    return Report(
        max_abs_error=replay.max_abs_error,
        relative_error=replay.relative_error,
        steps=replay.steps,
        variant=manifest.variant,
        precision=manifest.precision,
        bound=limit,
        error_from_torch=error,
        free_run=free,
        passed=replay.passed and _within(error, limit, free) and _emitted_right(bundle),
        mode="replay",
    )


def _beside(bundle: Bundle, model: StepModel, bound: float | None) -> Report:
    manifest, seed = bundle.manifest, bundle.manifest.parity.vector.seed
    limit, free_limit = _bounds(bundle, bound)
    free: FreeRun | None = None
    if manifest.quantization is None:
        measured = parity.measure(model, bundle, seed=seed)
        found = parity.Deviation(measured.max_abs_error, measured.relative_error)
    else:
        apart = distance(model, bundle, seed)
        found = apart.open_loop
        free = FreeRun(manifest.quantization.free_run_steps, parity.finite(apart.free_run.relative_error), free_limit)
    error = parity.finite(found.relative_error)
    return Report(
        max_abs_error=parity.finite(found.max_abs_error),
        relative_error=error,
        steps=parity.STEPS,
        variant=manifest.variant,
        precision=manifest.precision,
        bound=limit,
        error_from_torch=error,
        free_run=free,
        passed=_within(error, limit, free) and _emitted_right(bundle),
        mode="parity",
    )


def _bounds(bundle: Bundle, bound: float | None) -> tuple[float, float]:
    """Of the error from float32 with the same inputs, and in a free run."""
    stored = bundle.manifest.quantization
    if bound is not None:
        return bound, FREE_RUN_FACTOR * bound
    return (bundle.manifest.parity.bound, 0.0) if stored is None else (stored.bound, stored.free_run_bound)


def _within(error: float, bound: float, free: FreeRun | None) -> bool:
    return error <= bound and (free is None or free.error <= free.bound)


def _emitted_right(bundle: Bundle) -> bool:
    """The stored parity, which of a quantised file is that of the same graph in float32."""
    return bundle.manifest.parity.relative_error <= bundle.manifest.parity.bound


def _model(bundle: Bundle, checkpoint: Path) -> StepModel:
    model = Checkpoint.load(checkpoint).model.float().eval()
    for side in ("kind", "input_dim", "output_dim"):
        found, expected = model.config[side], getattr(bundle.manifest, side)
        if found != expected:
            raise BundleError(f"{checkpoint}: {side} is {found}, {bundle.path} has {expected}")
    return model


def _check_graph(bundle: Bundle) -> None:
    model = onnx.load_model_from_string(bundle.bytes)
    path, manifest = bundle.path, bundle.manifest
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise BundleError(f"{path}: not a valid ONNX graph: {error}") from None
    found = {entry.domain: entry.version for entry in model.opset_import}
    if found != manifest.opset:
        raise BundleError(f"{path}: the graph imports opsets {found}, the manifest says {manifest.opset}")
    if manifest.variant == "portable":
        foreign = sorted({f"{n.domain}.{n.op_type}" for n in model.graph.node if n.domain not in ("", "ai.onnx")})
        if foreign or found[""] > 17 or model.ir_version > 8:
            raise BundleError(
                f"{path}: not portable: IR {model.ir_version}, opset {found['']}, operators outside ONNX: "
                f"{foreign}; expected IR ≤ 8, opset ≤ 17 and none"
            )
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise BundleError(f"{path}: tensor {tensor.name} holds NaN or Inf")
