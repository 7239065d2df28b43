"""Is this model file what it says it is? Structure, replay of the stored vector, and parity with torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx

from kizzasi_edge.bundle import Bundle, Manifest
from kizzasi_edge.errors import BundleError
from kizzasi_export import parity
from kizzasi_export.checkpoint import Checkpoint


@dataclass(frozen=True)
class Report:
    """`passed` = every check holds; errors are in the outputs' units, relative ones in each output's scale.

    mode: "replay" (the manifest's vector, scale = largest magnitude in it) or "parity" (torch beside
    onnxruntime, scale = standard deviation over the run).
    """

    max_abs_error: float
    relative_error: float
    steps: int
    variant: str
    bound: float
    passed: bool
    mode: str

    def as_dict(self) -> dict[str, float | int | str | bool]:
        return asdict(self)


def verify(path: Path, *, checkpoint: Path | None = None) -> Report:
    """Check the file at `path`; with `checkpoint`, run the torch model beside it.

    Raises:
        BundleError: the file cannot be opened, its graph breaks the rules of its variant, or the checkpoint
            is of other dimensions.
    """
    bundle = Bundle.open(path)  # checks sizes, digest and manifest
    _check_graph(bundle)
    manifest = bundle.manifest
    if checkpoint is None:
        return _replay(bundle)
    model = Checkpoint.load(checkpoint).model
    for side in ("input_dim", "output_dim"):
        if getattr(model, side) != getattr(manifest, side):
            raise BundleError(f"{checkpoint}: {side} is {getattr(model, side)}, {path} has {getattr(manifest, side)}")
    measured = parity.measure(model, bundle, seed=manifest.parity.vector.seed)
    return _report(
        manifest, parity.Deviation(measured.max_abs_error, measured.relative_error), measured.steps, "parity"
    )


def _replay(bundle: Bundle) -> Report:
    vector = bundle.manifest.parity.vector
    x = np.asarray(vector.x, np.float32)[:, None]  # [T, 1, in]
    expected = np.asarray(vector.y, np.float32)[:, None]  # [T, 1, out]
    error = np.abs(parity.run_bundle(bundle, x)["y"].astype(np.float64) - expected)
    scale = np.maximum(np.abs(expected).max((0, 1)), parity.SCALE_FLOOR)  # [out]
    found = parity.Deviation(float(error.max()), float((error / scale).max()))
    return _report(bundle.manifest, found, len(x), "replay")


def _report(manifest: Manifest, found: parity.Deviation, steps: int, mode: str) -> Report:
    bound = manifest.parity.bound
    return Report(
        max_abs_error=found.max_abs_error,
        relative_error=found.relative_error,
        steps=steps,
        variant=manifest.variant,
        bound=bound,
        passed=bool(found.relative_error <= bound and manifest.parity.relative_error <= bound),
        mode=mode,
    )


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
