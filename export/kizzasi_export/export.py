"""From a torch model to the one-file bundle that robots load, with its parity measured and stored."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from os import PathLike
from pathlib import Path
from typing import Any

import onnx
import torch
from pydantic import ValidationError
from torch import nn

from kizzasi_edge.bundle import (
    Bundle,
    Head,
    Manifest,
    Parity,
    ParityVector,
    Signal,
    StateSpec,
    Tokenizer,
    describe,
    write_bundle,
)
from kizzasi_edge.errors import BundleError, ModelError
from kizzasi_export import blocks, parity
from kizzasi_export import quantize as quantization
from kizzasi_export.graph import BuiltGraph, Graph, Variant
from kizzasi_export.models import Normalizer, StepModel
from kizzasi_export.models.head import CategoricalHead
from kizzasi_export.own_module import OwnModule, trace

# Least onnxruntime that loads each variant, found by loading them in releases 1.19 to 1.32
# (1.29 knows LinearAttentionGate's schema but has no CPU kernel for it).
ONNXRUNTIME_MIN: dict[Variant, str] = {"fast": "1.30", "portable": "1.19"}


def export_step(
    model: nn.Module,
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
    quantize: blocks.Quantization | None = None,
    bound: float | None = None,
    kind: str | None = None,
    training: Mapping[str, Any] | None = None,
    limits_trained_under: Mapping[str, Any] | None = None,
) -> Bundle:
    """Write `model`'s step as `path` (temporary file, then rename) and verify it against torch.

    Args:
        model: the trained model; it is not changed. One of `build_model`, or any nn.Module with
            ``step(x [B, in], state) -> (y [B, out], state)`` and ``initial_state(batch) -> dict``, which goes through
            torch.onnx (docs/export.md).
        sample_rate_hz: the rate at which the model must be stepped.
        input_names, output_names: one name per channel, as in ros2_control: ``joint/interface``.
        normalizer: replaces the model's own normalisation.
        input_units, output_units: one unit per channel; "rad" by default.
        variant: "fast" (contrib operators) or "portable" (opset 17, IR 8). A module of your own becomes portable
            wherever it can be.
        batch: a symbolic leading dimension instead of 1.
        quantize: "int8" (weights in blocks, fast variant only) or "f16" (half floats); large matrices only.
        bound: open-loop error from float32 that a quantised file may have, relative to each output's scale; by
            default `quantize.BOUND`. A free run may have `quantize.FREE_RUN_FACTOR` times that.
        kind: the manifest's kind for a module of your own; its class's name by default.
        training, limits_trained_under: provenance, stored as given (JSON values).

    Returns:
        The opened bundle; ``bundle.manifest.parity`` and ``.quantization`` hold the measured errors.

    Raises:
        BundleError: names or units that do not fit the model, a module that breaks its promises or cannot be
            exported, options that exclude each other, errors above their bounds, or a path that cannot be written.
            Nothing is written then.
    """
    _check_options(model, variant, quantize, bound, kind)
    ready = _ready(model, kind, normalizer, len(input_names), len(output_names))
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / "trial.onnx"

        def measured(exact: bool) -> tuple[BuiltGraph, Manifest]:
            built = _build(ready, variant, batch, None, exact=exact)
            try:
                draft = Manifest(
                    kind=str(ready.config["kind"]),
                    variant=built.variant,
                    input_dim=ready.input_dim,
                    output_dim=ready.output_dim,
                    sample_rate_hz=sample_rate_hz,
                    inputs=_signals("input", input_names, input_units, ready.input_dim),
                    outputs=_signals("output", output_names, output_units, ready.output_dim),
                    states=_state_specs(built),
                    head=Head.model_validate({"kind": ready.head.kind}),
                    tokenizer=_tokenizer(ready),
                    config={k: v for k, v in ready.config.items() if k not in ("kind", "input_dim", "output_dim")},
                    limits_trained_under=dict(limits_trained_under or {}),
                    training=dict(training or {}),
                    parity=_unmeasured(ready),
                    onnxruntime_min=ONNXRUNTIME_MIN[built.variant],
                    opset=built.opsets,
                    created_with=_versions(),
                    batch="B" if batch else 1,
                )
            except ValidationError as error:
                raise BundleError(f"{path}: manifest: {describe(error)}") from None
            return built, draft.model_copy(
                update={"parity": parity.measure(ready, write_bundle(trial, built.core, draft))}
            )

        try:
            built, draft = measured(exact=False)
            exact = built.rounds and draft.parity.relative_error > parity.BOUND
            if exact:  # the operators with fewest nodes were not good enough for these weights
                built, draft = measured(exact=True)
            _require_parity(path, draft.parity)
            if quantize is not None:
                assert isinstance(ready, StepModel)  # _check_options
                built = _build(ready, variant, batch, quantize, exact=exact)
                # The trial is labelled float32: its section of errors is what is being measured.
                found = quantization.distance(ready, write_bundle(trial, built.core, draft), draft.parity.vector.seed)
                draft = _quantized(path, draft, built, quantize, found, bound)
        except ModelError as error:
            raise BundleError(f"{path}: the exported graph does not run: {error}") from None
    return write_bundle(path, built.core, draft)


def _check_options(
    model: nn.Module, variant: Variant, quantize: str | None, bound: float | None, kind: str | None
) -> None:
    own = not isinstance(model, StepModel)
    if quantize not in (None, *quantization.BOUND):
        raise BundleError(f"quantize: found {quantize!r}, expected {' or '.join(quantization.BOUND)}")
    if quantize == "int8" and variant == "portable":
        raise BundleError(
            "quantize: found 'int8' with the portable variant, expected 'f16' or the fast variant: int8 weights are "
            "read by MatMulNBits, which is no standard operator"
        )
    if quantize is not None and own:
        raise BundleError(f"quantize: found {quantize!r} with {type(model).__name__}, expected a model of build_model")
    if bound is not None and quantize is None:
        raise BundleError(f"bound: found {bound:g} without quantize, expected both or none")
    if bound is not None and not (math.isfinite(bound) and bound > 0):
        raise BundleError(f"bound: found {bound}, expected a finite number > 0")
    if kind is not None and not own:
        raise BundleError(f"kind: found {kind!r}, expected none: the model says its own")


def _ready(
    model: nn.Module, kind: str | None, normalizer: Normalizer | None, input_dim: int, output_dim: int
) -> StepModel | OwnModule:
    """A float32 copy on the CPU, in eval mode and with its normaliser."""
    model = copy.deepcopy(model).cpu().float().eval()
    _require_finite(model)
    if not isinstance(model, StepModel):
        normalizer = normalizer or Normalizer.identity(input_dim, output_dim)
        for side, found, expected in (
            ("input", len(normalizer.input_mean), input_dim),
            ("output", len(normalizer.output_mean), output_dim),
        ):
            if found != expected:
                raise BundleError(f"normalizer: {side}_mean has {found} values, {side}_names has {expected}")
        return OwnModule(model, kind or type(model).__name__, normalizer).eval()
    if normalizer is not None:
        try:
            model.set_normalizer(normalizer)
        except ValueError as error:
            raise BundleError(str(error)) from None
    return model


def _build(
    model: StepModel | OwnModule, variant: Variant, batch: bool, quantize: blocks.Quantization | None, *, exact: bool
) -> BuiltGraph:
    if isinstance(model, OwnModule):
        return trace(model, variant, batch=batch)
    graph = Graph(variant, batch=batch, quantize=quantize, exact=exact)
    model.emit(graph)
    if quantize is not None and not graph.quantized:
        raise BundleError(
            f"quantize: found no weight matrix of at least {blocks.LEAST_WEIGHTS[quantize]} values, below which "
            f"{quantize} gains nothing; expected a larger model, or none"
        )
    return BuiltGraph(graph.build(), variant, graph.opsets, graph.states, graph.quantized, graph.rounds)


def _require_parity(path: str | PathLike[str], measured: Parity) -> None:
    if measured.relative_error > measured.bound:
        raise BundleError(
            f"{path}: parity: onnxruntime differs from torch by {measured.relative_error:.3g} of an output's "
            f"scale over {measured.steps} steps, expected at most {measured.bound:g}"
        )


def _quantized(
    path: str | PathLike[str],
    draft: Manifest,
    built: BuiltGraph,
    precision: blocks.Quantization,
    found: quantization.Distance,
    bound: float | None,
) -> Manifest:
    """`draft` with its quantisation section and the file's own replay vector, or a refusal."""
    section = quantization.section(built, precision, found, bound)
    for what, error, limit in (
        ("with the same inputs", section.open_loop_error, section.bound),
        ("running free", section.free_run_error, section.free_run_bound),
    ):
        if error > limit:
            raise BundleError(
                f"{path}: quantization: {precision} differs from float32 by {error:.3g} of an output's scale {what}, "
                f"expected at most {limit:g}; train with [training] quantize, or give a wider bound"
            )
    x = draft.parity.vector.x
    vector = draft.parity.vector.model_copy(update={"y": found.y[: len(x), 0].tolist()})
    own = draft.parity.model_copy(update={"vector": vector})
    return draft.model_copy(update={"precision": precision, "quantization": section, "parity": own})


def _signals(side: str, names: Sequence[str], units: Sequence[str] | None, dim: int) -> list[Signal]:
    units = ["rad"] * dim if units is None else list(units)
    for what, values in (("names", names), ("units", units)):
        if len(values) != dim:
            raise BundleError(f"{side}_{what}: found {len(values)}, the model has {dim} {side}s")
    if len(set(names)) != dim:
        raise BundleError(f"{side}_names: found duplicates in {list(names)}, expected {dim} different names")
    return [Signal(name=name, unit=unit) for name, unit in zip(names, units, strict=True)]


def _state_specs(built: BuiltGraph) -> list[StateSpec]:
    return [
        StateSpec.model_validate(
            {"name": name, "shape": [1, *state.shape], "dtype": state.dtype.name, "in_place": state.in_place}
        )
        for name, state in built.states.items()
    ]


def _versions() -> dict[str, str]:
    return {"kizzasi_edge": _package_version(), "torch": torch.__version__, "onnx": onnx.__version__}


def _tokenizer(model: StepModel | OwnModule) -> Tokenizer | None:
    if not isinstance(model.head, CategoricalHead):
        return None
    return Tokenizer.model_validate({"kind": model.head.tokenizer.kind, "codebook": model.head.codebook.tolist()})


def _require_finite(model: nn.Module) -> None:
    for name, tensor in model.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise BundleError(f"model: {name} holds NaN or Inf; nothing was written")


def _unmeasured(model: StepModel | OwnModule) -> Parity:
    vector = ParityVector(seed=0, x=[[0.0] * model.input_dim], y=[[0.0] * model.output_dim])
    return Parity(steps=1, max_abs_error=0.0, relative_error=0.0, bound=parity.BOUND, vector=vector)


def _package_version() -> str:
    try:
        return metadata.version("kizzasi-edge")
    except metadata.PackageNotFoundError:  # run from a source tree that is not installed
        return "source"
