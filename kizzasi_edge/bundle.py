"""The one-file model: an ONNX graph with its manifest appended (DESIGN §3, "The model file").

Owns reading, checking and writing, so that the exporter and the runtime cannot disagree::

    file = core || manifest_message          core: the serialised graph; the message: one metadata_props entry
    manifest.core_bytes = len(core)          manifest.core_sha256 = sha256(core)

Concatenated protobuf messages merge, so any ONNX reader still loads the file.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kizzasi_edge.errors import BundleError
from kizzasi_edge.onnx_wire import (
    MODEL_GRAPH,
    MODEL_METADATA,
    WireFormatError,
    fields,
    metadata_message,
    string_entry,
)
from kizzasi_edge.written import write_file

__all__ = [
    "SCHEMA_VERSION",
    "Bundle",
    "Head",
    "Manifest",
    "Parity",
    "ParityVector",
    "Quantization",
    "Signal",
    "StateSpec",
    "Tokenizer",
    "write_bundle",
]

SCHEMA_VERSION = 1
MANIFEST_KEY = "kizzasi.manifest"

Positive = Annotated[int, Field(ge=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Signal(_Section):
    """One input or output channel: `name` as in ros2_control (`<joint>/<interface>`), `unit` SI ("rad")."""

    name: str = Field(min_length=1)
    unit: str


class StateSpec(_Section):
    """One state tensor, as one stream sees it: `shape` starts with the batch dimension, written 1.

    in_place: the engine may let a step write the next state over this one (a ring cache: what a step that is not
    committed writes there, no later step reads).
    """

    name: str = Field(min_length=1)
    shape: list[Positive] = Field(min_length=1)
    dtype: Literal["float32", "int64"] = "float32"
    in_place: bool = False


class Head(_Section):
    """What the model predicts; `y` is the SI point estimate of each.

    "continuous": y itself.  "gaussian": y is the mean, output ``logvar`` (output_dim) the log-variance.
    "categorical": y is the most likely level, output ``logits`` (output_dim, vocab) is over the tokenizer's levels.
    """

    kind: Literal["continuous", "gaussian", "categorical"] = "continuous"


class Tokenizer(_Section):
    """A categorical head's vocabulary: `codebook` (output_dim, vocab), ascending SI values, made as `kind` says."""

    kind: Literal["uniform", "mulaw"]
    codebook: list[list[Finite]] = Field(min_length=1)

    @property
    def vocab(self) -> int:
        """Levels per output."""
        return len(self.codebook[0])


class ParityVector(_Section):
    """A replayable run from the initial state: `x` (steps, input_dim) and `y` (steps, output_dim).

    y is torch's; with quantised weights it is the file's own, from onnxruntime where it was exported.
    """

    seed: int
    x: list[list[Finite]] = Field(min_length=1, max_length=64)
    y: list[list[Finite]]


class Parity(_Section):
    """torch against onnxruntime over `steps` steps, both with float32 weights.

    relative_error = max |error_i| / max(std(y_i), floor), over y and the head's other output (of a categorical head
    the logits only: y jumps between levels), less the last bit of y_i. The floor is 1e-6, for a logvar 1. `bound` is
    1e-5, or more where torch in float32 is itself further from float64.
    """

    steps: Positive
    max_abs_error: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    relative_error: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    bound: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-5
    vector: ParityVector


class Quantization(_Section):
    """How far the file's weights of fewer bits lead from the float32 model.

    `matrices` of `weights` values in all are stored so, everything else is float32; `block` weights share a scale.
    Open loop: both models get the same inputs for `steps` steps, each keeps its own state. Free run: from there on
    the outputs that bear an input's name are fed back, the other inputs are held (`Predictor.predict_n`). Errors are
    relative to each output's scale, as in Parity; `scale` are y's, in the outputs' units.
    """

    matrices: Positive
    weights: Positive
    block: Positive | None = None
    steps: Positive
    open_loop_error: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    bound: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    free_run_steps: Positive
    free_run_error: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    free_run_bound: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    scale: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]]


class Manifest(_Section):
    """Everything the runtime must know about a model; unknown keys are refused.

    `core_bytes` and `core_sha256` are filled in by write_bundle.
    """

    schema_version: Literal[1] = 1
    kind: str = Field(min_length=1)
    variant: Literal["fast", "portable"]
    precision: Literal["f32", "f16", "int8"] = "f32"
    input_dim: Positive
    output_dim: Positive
    sample_rate_hz: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    inputs: list[Signal]
    outputs: list[Signal]
    states: list[StateSpec]
    config: dict[str, Any]
    head: Head = Head()
    tokenizer: Tokenizer | None = None
    limits_trained_under: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    parity: Parity
    quantization: Quantization | None = None
    onnxruntime_min: str = Field(pattern=r"^\d+(\.\d+)+$")
    opset: dict[str, int]
    created_with: dict[str, str] = Field(default_factory=dict)
    batch: Literal[1, "B"] = 1
    core_bytes: Annotated[int, Field(ge=0)] = 0
    core_sha256: str = ""

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Manifest:
        _expect(
            "inputs",
            f"{len(self.inputs)} names",
            f"input_dim = {self.input_dim}",
            len(self.inputs) == self.input_dim,
        )
        _expect(
            "outputs",
            f"{len(self.outputs)} names",
            f"output_dim = {self.output_dim}",
            len(self.outputs) == self.output_dim,
        )
        for key in ("inputs", "outputs"):
            names = [signal.name for signal in getattr(self, key)]
            _expect(key, f"repeated names in {names}", "distinct names", len(set(names)) == len(names))
        _expect(
            "tokenizer",
            "one" if self.tokenizer else "none",
            "one exactly with a categorical head",
            (self.tokenizer is not None) == (self.head.kind == "categorical"),
        )
        if self.tokenizer is not None:
            sizes = [len(row) for row in self.tokenizer.codebook]
            fits = len(sizes) == self.output_dim and len(set(sizes)) == 1 and sizes[0] >= 2
            _expect("tokenizer.codebook", f"rows of {sizes}", f"{self.output_dim} equal rows of at least 2", fits)
        _expect(
            "quantization",
            "one" if self.quantization else "none",
            f"one exactly with a precision other than f32 (found {self.precision})",
            (self.quantization is not None) == (self.precision != "f32"),
        )
        if self.quantization is not None:
            found = len(self.quantization.scale)
            _expect("quantization.scale", f"{found} values", f"{self.output_dim}", found == self.output_dim)
        tensors = ["x", "y", *self.head_outputs]
        for state in self.states:
            tensors += [state.name, f"{state.name}_out", f"{state.name}_init"]
            _expect(f"states.{state.name}.shape", state.shape, "1 (the batch) first", state.shape[0] == 1)
        _expect(
            "states",
            f"clashing tensor names in {tensors}",
            "distinct names",
            len(set(tensors)) == len(tensors),
        )
        vector = self.parity.vector
        _expect(
            "parity.vector.y",
            f"{len(vector.y)} rows",
            f"{len(vector.x)} as x",
            len(vector.x) == len(vector.y),
        )
        for key, rows, width in (("x", vector.x, self.input_dim), ("y", vector.y, self.output_dim)):
            widths = {len(row) for row in rows}
            _expect(f"parity.vector.{key}", f"rows of {sorted(widths)}", f"rows of {width}", widths == {width})
        return self

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of x's elements, in order."""
        return tuple(signal.name for signal in self.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of y's elements, in order."""
        return tuple(signal.name for signal in self.outputs)

    @property
    def head_outputs(self) -> dict[str, tuple[int, ...]]:
        """The head's output beside y: name → shape without the batch; empty for a continuous head."""
        if self.head.kind == "gaussian":
            return {"logvar": (self.output_dim,)}
        if self.tokenizer is not None:
            return {"logits": (self.output_dim, self.tokenizer.vocab)}
        return {}


def _expect(key: str, found: object, expected: object, holds: bool) -> None:
    if not holds:
        raise ValueError(f"{key}: found {found}, expected {expected}")


class Bundle:
    """A checked model file. `path`, `manifest` and `digest` (sha256 of the graph, hex) are fixed at open."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Bundle:
        """Reads and checks a model file.

        Raises:
            BundleError: the file is missing, is no ONNX file, has no manifest, the graph does not match the
                manifest's core_bytes and core_sha256, the schema version is another one, or a key is unknown,
                missing or wrong. The message names file, key, found and expected.
        """
        path = Path(path)
        return cls(path, _check(path, _read(path)))

    @property
    def digest(self) -> str:
        """sha256 of the graph without the manifest, hex."""
        return self.manifest.core_sha256

    @property
    def bytes(self) -> bytes:
        """The whole file (graph and manifest), read again and checked to be the one that was opened.

        Raises BundleError when the file was replaced or damaged since.
        """
        data = _read(self.path)
        if _check(self.path, data) != self.manifest:
            raise BundleError(f"{self.path}: replaced since it was opened (expected core_sha256 {self.digest})")
        return data

    def __repr__(self) -> str:
        return f"Bundle({str(self.path)!r}, kind={self.manifest.kind!r}, digest={self.digest[:12]}…)"


def write_bundle(path: str | os.PathLike[str], core: bytes, manifest: Manifest) -> Bundle:
    """Writes graph and manifest as one file, by `write_file`.

    Args:
        core: a serialised ModelProto without a manifest.
        manifest: its core_bytes and core_sha256 are replaced by those of `core`.

    Raises BundleError when `core` is no ONNX model, holds a manifest already, or the file cannot be written.
    """
    path = Path(path)
    if _find_manifest(path, memoryview(core)) is not None:
        raise BundleError(f"{path}: the graph to write already holds {MANIFEST_KEY}; expected a bare ONNX model")
    text = json.dumps(
        manifest.model_dump(mode="json") | {"core_bytes": len(core), "core_sha256": hashlib.sha256(core).hexdigest()}
    )
    data = core + metadata_message(MANIFEST_KEY, text)
    checked = _check(path, data)
    write_file(path, data)
    return Bundle(path, checked)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise BundleError(f"{path}: no such model file") from None
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror or error}") from error


def _find_manifest(path: Path, data: memoryview) -> tuple[str, int, int] | None:
    """The manifest's text and the span of the field that holds it; None where the model has none."""
    found: tuple[str, int, int] | None = None
    has_graph = False
    try:
        for field in fields(data):
            if not isinstance(field.value, memoryview):
                continue
            if field.number == MODEL_GRAPH:
                has_graph = True
            elif field.number == MODEL_METADATA:
                key, value = string_entry(field.value)
                if key == MANIFEST_KEY:
                    if found is not None:
                        raise BundleError(f"{path}: {MANIFEST_KEY}: found twice, expected once")
                    found = (value, field.start, field.end)
    except WireFormatError as error:
        raise BundleError(f"{path}: not an ONNX file ({error})") from None
    if not has_graph:
        raise BundleError(f"{path}: not an ONNX file (it holds no graph)")
    return found


def _check(path: Path, data: bytes) -> Manifest:
    view = memoryview(data)
    found = _find_manifest(path, view)
    if found is None:
        raise BundleError(
            f"{path}: no {MANIFEST_KEY} in metadata_props; expected a file written by `kizzasi-export export`"
        )
    text, start, end = found
    manifest = _parse(path, text)
    if (manifest.core_bytes, len(data)) != (start, end):
        raise BundleError(
            f"{path}: core_bytes: found {manifest.core_bytes}, expected {start} (where the manifest starts; "
            f"it ends at {end} of {len(data)} bytes and must come last)"
        )
    digest = hashlib.sha256(view[:start]).hexdigest()
    if digest != manifest.core_sha256:
        raise BundleError(
            f"{path}: core_sha256: found {digest}, expected {manifest.core_sha256} (the graph was changed)"
        )
    return manifest


def _parse(path: Path, text: str) -> Manifest:
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise BundleError(f"{path}: {MANIFEST_KEY} is not JSON: {error}") from None
    if not isinstance(raw, dict):
        raise BundleError(f"{path}: {MANIFEST_KEY}: found {type(raw).__name__}, expected an object")
    # The version first: a newer schema's unknown keys would only hide the real reason.
    version = raw.get("schema_version", "nothing")
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise BundleError(f"{path}: schema_version: found {version}, expected {SCHEMA_VERSION}")
    try:
        return Manifest.model_validate(raw)
    except ValidationError as error:
        raise BundleError(f"{path}: manifest: {describe(error)}") from None


def describe(error: ValidationError) -> str:
    """A refused manifest in one line: key, found, expected."""
    lines = []
    for item in error.errors(include_url=False, include_context=False):
        key = ".".join(map(str, item["loc"]))
        if item["type"] == "value_error":
            lines.append(str(item["msg"]).removeprefix("Value error, "))
        elif item["type"] == "extra_forbidden":
            lines.append(f"{key}: found an unknown key, expected one of the keys of schema {SCHEMA_VERSION}")
        elif item["type"] == "missing":
            lines.append(f"{key}: found nothing, expected a value")
        else:
            lines.append(f"{key}: found {item['input']!r:.80}, expected: {item['msg']}")
    return "; ".join(lines)
