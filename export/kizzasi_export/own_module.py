"""A user's own nn.Module as a step graph, through torch.onnx.

The module has ``step(x [B, in], state) -> (y [B, out], state)`` and ``initial_state(batch) -> dict``; how many channels
it has is said by the names given to the export. Everything that can be wrong with it is found here and said in one
line, before a file is written.
"""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from kizzasi_edge.errors import BundleError
from kizzasi_export.graph import BuiltGraph, GraphState, Variant
from kizzasi_export.models.base import State
from kizzasi_export.models.head import Head
from kizzasi_export.models.normalizer import Normalizer

_TYPES = {torch.float32: TensorProto.FLOAT, torch.int64: TensorProto.INT64}
_OPSET = 18  # the least that torch.onnx writes
_PORTABLE_OPSET, _PORTABLE_IR = 17, 8


class OwnModule(nn.Module):
    """The module between a normaliser and the de-normalised outputs, its promises checked at every step.

    Raises:
        BundleError: no `step` or `initial_state`.
    """

    input_mean: Tensor
    input_std: Tensor
    output_mean: Tensor
    output_std: Tensor

    def __init__(self, module: nn.Module, kind: str, normalizer: Normalizer) -> None:
        super().__init__()
        for name in ("step", "initial_state"):
            if not callable(getattr(module, name, None)):
                raise BundleError(
                    f"{kind}: found no method {name}, expected step(x [B, in], state) -> (y [B, out], state) and "
                    "initial_state(batch) -> dict of tensors"
                )
        self.module, self.kind = module, kind
        self.config: dict[str, Any] = {
            "kind": kind, "class": f"{type(module).__module__}.{type(module).__qualname__}"
        }  # fmt: skip
        self.input_dim, self.output_dim = len(normalizer.input_mean), len(normalizer.output_mean)
        self.head = Head(self.output_dim)
        self.plain = normalizer == Normalizer.identity(self.input_dim, self.output_dim)
        for name, values in vars(normalizer).items():
            self.register_buffer(name, torch.tensor(values))

    def initial_state(self, batch: int) -> State:
        """The module's, checked: a dict of finite tensors [batch, ...], float32 or int64."""
        state = self._call("initial_state", batch)
        if not isinstance(state, dict):
            raise BundleError(f"{self.kind}.initial_state: found {type(state).__name__}, expected a dict of tensors")
        for name, value in state.items():
            where = f"{self.kind}.initial_state: state {name!r}"
            if not isinstance(value, Tensor) or value.dtype not in _TYPES:
                found = value.dtype if isinstance(value, Tensor) else type(value).__name__
                raise BundleError(f"{where}: found {found}, expected a tensor of float32 or int64")
            if value.ndim == 0 or value.shape[0] != batch:
                raise BundleError(f"{where}: found shape {list(value.shape)}, expected {batch} (the batch) first")
            if not bool(torch.isfinite(value).all()):
                raise BundleError(f"{where}: found NaN or Inf, expected finite values")
        return state

    def parity_states(self, batch: int) -> list[State]:
        """None: parity is measured from the initial state."""
        return []

    def step_outputs(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        """x [B, in] → ({"y": [B, out]}, next state), checked against the state before it."""
        y, after = self._call("forward", x, *state.values(), names=list(state))
        if tuple(y.shape) != (len(x), self.output_dim) or y.dtype != torch.float32:
            raise BundleError(
                f"{self.kind}.step: y: found {y.dtype} {list(y.shape)}, expected torch.float32 "
                f"{[len(x), self.output_dim]} (output_names has {self.output_dim})"
            )
        if not bool(torch.isfinite(y).all()):
            raise BundleError(f"{self.kind}.step: y: found NaN or Inf, expected finite values")
        if after.keys() != state.keys():
            raise BundleError(f"{self.kind}.step: states: found {sorted(after)}, expected {sorted(state)}")
        for name, before in state.items():
            if after[name].shape != before.shape or after[name].dtype != before.dtype:
                raise BundleError(
                    f"{self.kind}.step: state {name!r}: found {after[name].dtype} {list(after[name].shape)}, "
                    f"expected {before.dtype} {list(before.shape)} as before the step"
                )
        return {"y": y}, after

    def forward(self, x: Tensor, *states: Tensor, names: list[str]) -> tuple[Tensor, State]:
        """The step on raw SI values, unchecked: x [B, in] → (y [B, out], next state)."""
        state = dict(zip(names, states, strict=True))
        if self.plain:  # no nodes for nothing
            return self.module.step(x, state)  # type: ignore[operator, no-any-return]
        y, after = self.module.step((x - self.input_mean) / self.input_std, state)  # type: ignore[operator]
        return y * self.output_std + self.output_mean, after

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """The user's code; whatever it raises is said in one line."""
        target = self.module.initial_state if method == "initial_state" else self.forward
        try:
            return target(*args, **kwargs)  # type: ignore[operator]
        except Exception as error:
            name = method.replace("forward", "step")
            raise BundleError(f"{self.kind}.{name} failed: {type(error).__name__}: {_first_line(error)}") from error


class _Flat(nn.Module):
    """The step with its states as positional tensors, as torch.onnx wants them."""

    def __init__(self, model: OwnModule, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        y, after = self.model(x, *states, names=self.names)
        return y, *(after[name] for name in self.names)


def trace(model: OwnModule, variant: Variant, *, batch: bool) -> BuiltGraph:
    """The step as an ONNX graph: "portable" wherever opset 17 can say it, unless it needs more.

    Raises:
        BundleError: the step cannot be exported (data-dependent control flow, an operator without ONNX form or
            without kernel in onnxruntime), or not as a portable graph where `variant` is "portable".
    """
    init = model.initial_state(1)
    x = torch.zeros(1, model.input_dim)
    with torch.no_grad():
        model.step_outputs(x, init)
        if batch:
            _require_equal_rows(model, init)
    proto = _to_onnx(model, _to_program(model, list(init), batch), list(init))
    _declare(proto, model, init, "B" if batch else 1)
    reason = _no_kernel(proto)
    if reason is not None:
        raise BundleError(f"{model.kind}.step: {reason}")
    lowered, reason = _lowered(proto)
    if lowered is None and variant == "portable":
        raise BundleError(
            f"{model.kind}.step: no portable graph (opset {_PORTABLE_OPSET}): {reason}; export it as variant='fast'"
        )
    final = proto if lowered is None else lowered
    return BuiltGraph(
        core=final.SerializeToString(),
        variant="fast" if lowered is None else "portable",
        opsets={entry.domain: entry.version for entry in final.opset_import},
        states={
            name: GraphState(tuple(value.shape[1:]), value.numpy().dtype, in_place=False)
            for name, value in init.items()
        },
    )


def _require_equal_rows(model: OwnModule, init: State) -> None:
    """A bundle holds one initial row for all streams."""
    for name, value in model.initial_state(2).items():
        if name not in init or not torch.equal(value, init[name].expand(value.shape)):
            raise BundleError(
                f"{model.kind}.initial_state: state {name!r} of a batch of 2 is not that of a batch of 1 repeated, as "
                "a symbolic batch needs"
            )


def _to_program(model: OwnModule, names: list[str], batch: bool) -> ExportedProgram:
    rows = 2 if batch else 1  # torch.export would take a 1 for a constant
    args = (torch.zeros(rows, model.input_dim), *(value.clone() for value in model.initial_state(rows).values()))
    lead = {0: Dim("B")}
    try:
        with _quiet():
            return torch.export.export(
                _Flat(model, names),
                args,
                dynamic_shapes=(lead, tuple(lead for _ in names)) if batch else None,
                strict=False,
            )
    except Exception as error:  # torch.export raises whatever the traced code does
        text = str(error)
        if "data-dependent" in text:
            at = re.search(r"Caused by: \((.*?)\)", text)
            raise BundleError(
                f"{model.kind}.step cannot be exported: its control flow or a shape depends on values "
                f"({_first_line(error)}{f', {at[1]}' if at else ''}); use torch.where instead of if, fixed sizes "
                "instead of item()"
            ) from None
        hint = " with a symbolic batch; try it without batch=True" if batch else ""
        raise BundleError(
            f"{model.kind}.step cannot be exported{hint}: {type(error).__name__}: {_first_line(error)}"
        ) from None


def _to_onnx(model: OwnModule, program: ExportedProgram, names: list[str]) -> onnx.ModelProto:
    try:
        with _quiet():
            exported = torch.onnx.export(
                program, dynamo=True, verbose=False, opset_version=_OPSET,
                input_names=["x", *names], output_names=["y", *(f"{name}_out" for name in names)],
            )  # fmt: skip
    except Exception as error:  # an internal class of torch.onnx
        root: BaseException = error
        while root.__cause__ is not None:
            root = root.__cause__
        missing = re.search(r"OpOverload\(op='([^']+)'", str(root))
        what = f"operator {missing[1]} has no ONNX form" if missing else _first_line(root)
        raise BundleError(f"{model.kind}.step cannot be exported: {what}") from None
    if exported is None:
        raise BundleError(f"{model.kind}.step cannot be exported: torch.onnx returned nothing")
    return onnx.ModelProto.FromString(exported.model_proto.SerializeToString())


def _declare(proto: onnx.ModelProto, model: OwnModule, init: State, lead: str | int) -> None:
    """Our inputs, outputs and initial states; no source locations and machine paths of the exporter's."""
    graph = proto.graph
    for message in (proto, graph, *graph.node, *graph.initializer):
        del message.metadata_props[:]
        message.ClearField("doc_string")
    del graph.value_info[:], graph.input[:], graph.output[:]

    def declare(name: str, dtype: torch.dtype, shape: tuple[int | str, ...]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, _TYPES[dtype], list(shape))

    graph.input.append(declare("x", torch.float32, (lead, model.input_dim)))
    graph.output.append(declare("y", torch.float32, (lead, model.output_dim)))
    for name, value in init.items():
        shape = tuple(value.shape[1:])
        graph.input.append(declare(name, value.dtype, (lead, *shape)))
        graph.output.append(declare(f"{name}_out", value.dtype, (lead, *shape)))
        graph.output.append(declare(f"{name}_init", value.dtype, (1, *shape)))
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value.numpy()), f"{name}_init"))
    proto.producer_name = "kizzasi_export"


def _lowered(proto: onnx.ModelProto) -> tuple[onnx.ModelProto | None, str]:
    """The graph in opset 17 and IR 8, or why there is none."""
    foreign = sorted({f"{node.domain}.{node.op_type}" for node in proto.graph.node if node.domain})
    if foreign:
        return None, f"operators outside ONNX: {', '.join(foreign)}"
    lowered = onnx.ModelProto.FromString(proto.SerializeToString())
    lowered.ir_version = _PORTABLE_IR
    del lowered.opset_import[:]
    lowered.opset_import.append(helper.make_opsetid("", _PORTABLE_OPSET))
    _respell(lowered.graph)
    try:
        onnx.checker.check_model(lowered, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return None, _first_line(error)
    reason = _no_kernel(lowered)
    return (lowered, "") if reason is None else (None, reason)


def _respell(graph: onnx.GraphProto) -> None:
    """What opset 18 only spells differently, as opset 17 does; onnx's own converter has no way back from 18 for it.

    Split: no num_outputs, which equal parts don't need. Reduce*: constant axes are an attribute.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Split" and len(node.input) == 1:
            kept = [attribute for attribute in node.attribute if attribute.name != "num_outputs"]
        elif node.op_type.startswith("Reduce") and node.op_type != "ReduceSum" and len(node.input) == 2:
            if node.input[1] not in constants:
                continue
            axes = numpy_helper.to_array(constants[node.input.pop()]).tolist()
            kept = [attribute for attribute in node.attribute if attribute.name != "noop_with_empty_axes"]
            kept.append(helper.make_attribute("axes", axes))
        else:
            continue
        del node.attribute[:]
        node.attribute.extend(kept)


def _no_kernel(proto: onnx.ModelProto) -> str | None:
    """What onnxruntime cannot run, None where it can."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes share no base but Exception
        missing = re.search(r"implementation for (\S+?)\((\d+)\)", str(error))
        if missing:
            return f"onnxruntime {ort.__version__} has no kernel for {missing[1]} (opset {missing[2]}) on these types"
        return f"onnxruntime {ort.__version__} cannot load it: {_first_line(error)}"
    return None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's advice to its own developers."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
