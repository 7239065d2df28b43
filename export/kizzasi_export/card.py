"""A model card in Markdown, from nothing but the file it describes.

Front matter as the Hugging Face hub reads it (https://huggingface.co/docs/hub/model-cards); figures are printed with
the digits that give the manifest's own float back.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kizzasi_edge.bundle import Bundle, Manifest, Signal
from kizzasi_edge.written import write_file

_PRECISION = {
    "f32": "float32",
    "f16": "float16 weights, float32 arithmetic",
    "int8": "int8 weights and products, float32 elsewhere",
}
_HEAD = {
    "continuous": "y is the prediction",
    "gaussian": "y is the mean; `logvar` is the logarithm of the variance, per output",
    "categorical": "y is the most likely level; `logits` are over the levels of each output",
}


def card(bundle: Bundle) -> str:
    """The card of a model file, Markdown."""
    manifest, name = bundle.manifest, bundle.path.name
    parts = [
        _front_matter(manifest),
        f"# {bundle.path.stem}",
        f"One step of a {manifest.kind} sequence model, as an ONNX graph with its manifest: {manifest.input_dim} "
        f"inputs to {manifest.output_dim} outputs in SI units, {manifest.sample_rate_hz!r} steps a second.",
        _table(("", ""), _overview(bundle)),
        "## Inputs and outputs",
        _table(("`x`", "name", "unit"), _signals(manifest.inputs)),
        _table(("`y`", "name", "unit"), _signals(manifest.outputs)),
        _head(manifest),
        "## State",
        _table(
            ("tensor", "shape", "type"), ((f"`{s.name}`", _shape(s.shape), s.dtype) for s in manifest.states)
        ) if manifest.states else "None: every step stands alone.",
        "## How exact it is",
        _exactness(manifest),
        "## Training",
        _mapping(manifest.training, "The file says nothing about its training."),
        "## Limits it was trained under",
        _mapping(manifest.limits_trained_under, "None are recorded.")
        + "\n\nThey describe the data. What guards a robot is in the robot's configuration, never in the model.",
        "## Use",
        _usage(manifest, name),
        f"## Verify\n\n```sh\nkizzasi-edge inspect {name}     # the manifest, and a replay of the stored run on this "
        f"machine\nkizzasi-export verify {name}    # the same with the structure of the graph; --checkpoint runs torch "
        "beside it\n```",
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def write_card(model: Path, out: Path | None = None) -> Path:
    """Write the card of `model` to `out`, by default beside it with the suffix .md. Returns where.

    Raises:
        BundleError: the model cannot be opened, or the card not be written; the old card is then as it was.
    """
    text = card(Bundle.open(model))
    out = model.with_suffix(".md") if out is None else out
    write_file(out, text.encode())
    return out


def _front_matter(manifest: Manifest) -> str:
    tags = ["onnx", "robotics", "sequence-model", manifest.kind, manifest.variant, manifest.precision]
    return "\n".join(["---", "library_name: kizzasi-edge", "tags:", *(f"- {json.dumps(tag)}" for tag in tags), "---"])


def _overview(bundle: Bundle) -> Iterable[tuple[str, str]]:
    manifest = bundle.manifest
    yield "kind", manifest.kind
    yield "sample rate", f"{manifest.sample_rate_hz!r} Hz"
    yield "variant", f"{manifest.variant} (onnxruntime ≥ {manifest.onnxruntime_min}; {_opsets(manifest)})"
    yield "weights", f"{manifest.precision}: {_PRECISION[manifest.precision]}"
    yield "head", manifest.head.kind
    values = sum(math.prod(state.shape) for state in manifest.states)
    yield "state", f"{len(manifest.states)} tensors, {values} values a stream"
    yield "streams", "any number at once" if manifest.batch == "B" else "one"
    yield "file", f"{bundle.path.stat().st_size} bytes, graph {manifest.core_bytes}"
    yield "sha256 of the graph", f"`{bundle.digest}`"
    yield from ((f"config: {key}", f"`{_json(value)}`") for key, value in manifest.config.items())
    yield from ((f"made with: {key}", value) for key, value in manifest.created_with.items())


def _opsets(manifest: Manifest) -> str:
    return ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in manifest.opset.items())


def _signals(signals: list[Signal]) -> Iterable[tuple[str, ...]]:
    return ((str(i), f"`{signal.name}`", signal.unit) for i, signal in enumerate(signals))


def _shape(shape: list[int]) -> str:
    return " × ".join(map(str, shape))


def _head(manifest: Manifest) -> str:
    text = f"Head: {manifest.head.kind}. {_HEAD[manifest.head.kind][0].upper()}{_HEAD[manifest.head.kind][1:]}."
    if manifest.tokenizer is not None:
        ranges = (f"{row[0]!r} … {row[-1]!r}" for row in manifest.tokenizer.codebook)
        text += (
            f" Tokenizer: {manifest.tokenizer.kind}, {manifest.tokenizer.vocab} levels, per output {', '.join(ranges)}."
        )
    return text


def _exactness(manifest: Manifest) -> str:
    parity, found = manifest.parity, manifest.quantization
    when = ", before its weights were rounded" if found else ""
    text = (
        f"Against torch in float32, over {parity.steps} steps{when}: "
        f"largest error {parity.relative_error!r} of an output's scale (bound {parity.bound!r}), "
        f"{parity.max_abs_error!r} in the outputs' units."
    )
    if found is None:
        return text
    scales = ", ".join(
        f"`{signal.name}` {s!r} {signal.unit}" for signal, s in zip(manifest.outputs, found.scale, strict=True)
    )
    blocks = "" if found.block is None else f", {found.block} to a scale"
    return text + (
        f"\n\n{found.weights} weights in {found.matrices} matrices are stored as {manifest.precision}{blocks}. Errors "
        "from float32, in units of each output's scale:\n\n"
        + _table(
            ("", "steps", "largest error", "bound"),
            [
                ("same inputs", str(found.steps), repr(found.open_loop_error), repr(found.bound)),
                ("outputs fed back", str(found.free_run_steps), repr(found.free_run_error), repr(found.free_run_bound)),
            ],
        )
        + f"\n\nScales: {scales}."
    )


def _usage(manifest: Manifest, name: str) -> str:
    zeros = f"[0.0] * {manifest.input_dim}"
    return (
        f"```python\nfrom kizzasi_edge import Predictor\n\nmodel = Predictor({name!r})\n"
        f"x = {zeros}  # {', '.join(manifest.input_names[:3])}{', …' if manifest.input_dim > 3 else ''}\n"
        f"y = model.step(x)  # float32 ({manifest.output_dim},): one step of 1/{manifest.sample_rate_hz!r} s\n```\n\n"
        "A robot's commands need a guard as well: `Predictor(…, guardrails=…)`."
    )  # fmt: skip


def _mapping(values: Mapping[str, Any], otherwise: str) -> str:
    return _table(("", ""), ((key, f"`{_json(value)}`") for key, value in values.items())) if values else otherwise


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _table(heading: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [heading, ("---",) * len(heading), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
