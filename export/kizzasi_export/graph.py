"""A small ONNX emitter for single-step graphs: constants, ops, states and outputs, in two variants.

Exists because node count is what a step costs in onnxruntime (about 0.25 µs a node on one thread): models
write the few nodes they need instead of what a tracer finds. Inputs and outputs are [B, C]; inside layers
activations are [B, 1, C], because the fused recurrences of com.microsoft want a sequence axis.

* ``fast``: IR 10, ai.onnx opset 23 and com.microsoft contrib operators; a model may ask for opset 24 (IR 11).
* ``portable``: IR 8, ai.onnx opset 17 and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
import onnx
import torch
from numpy.typing import DTypeLike, NDArray
from onnx import TensorProto, helper, numpy_helper

from kizzasi_edge.errors import BundleError
from kizzasi_export import blocks

Variant = Literal["fast", "portable"]
CONTRIB = "com.microsoft"
_OPSETS: dict[Variant, dict[str, int]] = {"fast": {"": 23, CONTRIB: 1}, "portable": {"": 17}}
_IR_VERSION = {17: 8, 23: 10, 24: 11}  # the least IR version that knows the opset
_DTYPES = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int64): TensorProto.INT64}


@dataclass(frozen=True)
class GraphState:
    """A declared state: shape without the leading dimension, and whether a step may overwrite its input buffer."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    in_place: bool


@dataclass(frozen=True)
class BuiltGraph:
    """A finished step graph, serialised, and what a manifest says of it."""

    core: bytes
    variant: Variant
    opsets: dict[str, int]
    states: dict[str, GraphState]
    quantized: dict[str, torch.Tensor] = field(default_factory=dict)  # see Graph.quantized
    rounds: bool = False  # see Graph.rounds


def as_array(tensor: torch.Tensor) -> NDArray[np.float32]:
    """A contiguous float32 copy of a parameter."""
    return np.ascontiguousarray(tensor.detach().cpu().to(torch.float32).numpy()).copy()


class Graph:
    """One step graph under construction. Values are referred to by name (str).

    Args:
        variant: which operators may be used.
        batch: True for a symbolic leading dimension "B", False for a static 1.
        exact: no operators that lose digits for some arguments, though they cost fewer nodes (`rounds` tells whether
            one was used).
        quantize: how the weights of `matmul` and `linear` are stored; None = float32. "int8" needs the fast variant.
    """

    def __init__(
        self,
        variant: Variant = "fast",
        *,
        batch: bool = False,
        quantize: blocks.Quantization | None = None,
        exact: bool = False,
    ) -> None:
        self.variant: Variant = variant
        self.batch = batch
        self.quantize = quantize
        self.quantized: dict[str, torch.Tensor] = {}  # constant → the weight matrix [N, K] that it stores in fewer bits
        self.exact = exact
        self.rounds = False  # whether an operator was used that loses digits for some arguments
        self.lead: str | int = "B" if batch else 1
        self.nodes: list[onnx.NodeProto] = []
        self.scopes: list[str] = []  # the scope each node was emitted in, for node counts per layer
        self.states: dict[str, GraphState] = {}
        self.extra_outputs: list[str] = []  # outputs beside y and the states
        self.opsets = dict(_OPSETS[variant])
        self._scope = ""
        self._constants: dict[str, NDArray[Any]] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._results: list[tuple[str, str, tuple[int | str, ...], int]] = []  # (final name, value, shape, type)
        self._renames: dict[str, str] = {}
        self._counter = 0

    @property
    def fast(self) -> bool:
        return self.variant == "fast"

    def scope(self, name: str) -> None:
        """Name the part of the model that the following constants and nodes belong to."""
        self._scope = name

    def const(self, name: str, array: NDArray[Any]) -> str:
        """Add a constant. The same name in the same scope may be given again with the same values.

        Raises:
            ValueError: it was given with other values.
        """
        full = f"{self._scope}.{name}" if self._scope else name
        array = np.asarray(array, order="C")  # unlike ascontiguousarray, keeps a scalar a scalar
        known = self._constants.setdefault(full, array)
        if known.shape != array.shape or known.tobytes() != array.tobytes():
            raise ValueError(f"constant {full!r} is given twice with different values")
        return full

    def indices(self, *values: int) -> str:
        """An int64 constant (axes, sizes, shapes), shared across the graph."""
        name = "i64_" + "_".join(str(v).replace("-", "m") for v in values)
        self._constants.setdefault(name, np.array(values, np.int64))
        return name

    def require_opset(self, version: int) -> None:
        """Raise the ai.onnx opset of a fast graph to at least `version`."""
        if not self.fast:
            raise ValueError(f"opset {version} was asked for in a portable graph (opset {self.opsets['']})")
        self.opsets[""] = max(self.opsets[""], version)

    def input(self, name: str, shape: Sequence[int], dtype: DTypeLike = np.float32) -> str:
        """Declare a graph input of shape [B, *shape], float32 or int64."""
        self._inputs.append(helper.make_tensor_value_info(name, _DTYPES[np.dtype(dtype)], [self.lead, *shape]))
        return name

    def state(self, name: str, init: NDArray[Any], *, in_place: bool = False) -> str:
        """Declare a state; `init` is [1, ...] (float32 or int64) and becomes the constant output ``<name>_init``.

        `in_place` promises that a step whose result is thrown away may have written to the state's buffer without
        changing what any later step computes (a ring cache's next slot).
        """
        init = np.ascontiguousarray(init)
        self.states[name] = GraphState(tuple(int(d) for d in init.shape[1:]), init.dtype, in_place)
        self._constants[f"{name}_init"] = init
        return self.input(name, init.shape[1:], init.dtype)

    def set_state(self, name: str, value: str) -> None:
        """Say which value is the next ``<name>``."""
        state = self.states[name]
        self._finish(f"{name}_out", value, (self.lead, *state.shape), _DTYPES[state.dtype])

    def output(self, name: str, value: str, shape: Sequence[int]) -> None:
        """Declare `value` [B, *shape] float32 as graph output `name`."""
        if name != "y":
            self.extra_outputs.append(name)
        self._finish(name, value, (self.lead, *shape), TensorProto.FLOAT)

    def op(self, op_type: str, inputs: Sequence[str], *, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output; returns its name."""
        return self.ops(op_type, inputs, 1, domain=domain, **attributes)[0]

    def ops(
        self, op_type: str, inputs: Sequence[str], outputs: int, *, domain: str = "", **attributes: Any
    ) -> list[str]:
        """Add a node with several outputs; returns their names."""
        names = [f"%{self._counter + i}" for i in range(outputs)]  # no state is called so
        self._counter += outputs
        node = helper.make_node(op_type, list(inputs), names, domain=domain, **attributes)
        node.name = f"{self._scope}/{op_type}_{len(self.nodes)}"
        self.nodes.append(node)
        self.scopes.append(self._scope)
        return names

    def matmul(self, x: str, name: str, weight: torch.Tensor) -> str:
        """x [B, 1, K] times a torch weight [N, K] → [B, 1, N]."""
        if self._in_blocks(weight):
            return self._matmul_in_blocks(x, name, weight)
        return self.op("MatMul", [x, self._weights(name, weight, transpose=True)])

    def linear(self, x: str, name: str, weight: torch.Tensor, bias: torch.Tensor) -> str:
        """x [B, K] through torch's Linear(K, N) → [B, N].

        Two-dimensional on purpose: onnxruntime fuses a three-dimensional MatMul + Add into a Gemm between
        two Reshapes.
        """
        shift = self.const(f"{name}.bias", as_array(bias))
        if self._in_blocks(weight):
            return self._matmul_in_blocks(x, f"{name}.weight", weight, shift)
        return self.op("Gemm", [x, self._weights(f"{name}.weight", weight), shift], transB=1)

    def silu(self, x: str) -> str:
        """x·sigmoid(x), any shape."""
        if self.fast:
            return self.op("QuickGelu", [x], domain=CONTRIB, alpha=1.0)
        return self.op("Mul", [x, self.op("Sigmoid", [x])])

    def gelu(self, x: str) -> str:
        """x·Φ(x), exactly (Hendrycks & Gimpel 2016), any shape."""
        if self.fast:
            return self.op("Gelu", [x])
        scaled = self.op("Mul", [x, self.const("gelu.scale", np.array([0.5**0.5], np.float32))])
        cumulative = self.op("Add", [self.op("Erf", [scaled]), self.const("gelu.one", np.array([1], np.float32))])
        return self.op("Mul", [self.op("Mul", [x, cumulative]), self.const("gelu.half", np.array([0.5], np.float32))])

    def rms_norm(self, x: str, name: str, weight: torch.Tensor, eps: float) -> str:
        """x / sqrt(mean(x², last axis) + eps) · weight (Zhang & Sennrich 2019, eq. 4); weight [C]."""
        gain = self.const(name, as_array(weight))
        if self.fast:
            return self.op("RMSNormalization", [x, gain], epsilon=eps)
        mean_square = self.op("ReduceMean", [self.op("Mul", [x, x])], axes=[-1], keepdims=1)
        root = self.op("Sqrt", [self.op("Add", [mean_square, self.const(f"eps_{eps:g}", np.array([eps], np.float32))])])
        return self.op("Mul", [self.op("Div", [x, root]), gain])

    def add_rms_norm(
        self, residual: str, branch: str | None, name: str, weight: torch.Tensor, eps: float
    ) -> tuple[str, str]:
        """(norm(residual + branch), residual + branch); without a branch (norm(residual), residual)."""
        if branch is None:
            return self.rms_norm(residual, name, weight, eps), residual
        if self.fast:
            gain = self.const(name, as_array(weight))
            return self._skip_norm("SkipSimplifiedLayerNormalization", [residual, branch, gain], eps)
        total = self.op("Add", [residual, branch])
        return self.rms_norm(total, name, weight, eps), total

    def layer_norm(self, x: str, name: str, weight: torch.Tensor, bias: torch.Tensor, eps: float) -> str:
        """(x − mean) / sqrt(var + eps) · weight + bias over the last axis (Ba et al. 2016)."""
        gain, shift = self.const(f"{name}.weight", as_array(weight)), self.const(f"{name}.bias", as_array(bias))
        if self.fast:
            return self.op("LayerNormalization", [x, gain, shift], axis=-1, epsilon=eps)
        centred = self.op("Sub", [x, self.op("ReduceMean", [x], axes=[-1], keepdims=1)])
        variance = self.op("ReduceMean", [self.op("Mul", [centred, centred])], axes=[-1], keepdims=1)
        root = self.op("Sqrt", [self.op("Add", [variance, self.const(f"eps_{eps:g}", np.array([eps], np.float32))])])
        return self.op("Add", [self.op("Mul", [self.op("Div", [centred, root]), gain]), shift])

    def add_layer_norm(
        self, residual: str, branch: str | None, name: str, weight: torch.Tensor, bias: torch.Tensor, eps: float
    ) -> tuple[str, str]:
        """(norm(residual + branch), residual + branch); without a branch (norm(residual), residual)."""
        if branch is None:
            return self.layer_norm(residual, name, weight, bias, eps), residual
        if self.fast:
            gain, shift = self.const(f"{name}.weight", as_array(weight)), self.const(f"{name}.bias", as_array(bias))
            return self._skip_norm("SkipLayerNormalization", [residual, branch, gain, shift], eps)
        total = self.op("Add", [residual, branch])
        return self.layer_norm(total, name, weight, bias, eps), total

    def _in_blocks(self, weight: torch.Tensor) -> bool:
        return self.quantize == "int8" and blocks.applies(weight, "int8")

    def _matmul_in_blocks(self, x: str, name: str, weight: torch.Tensor, bias: str = "") -> str:
        """x [..., K] times int8 blocks of a weight [N, K] (+ bias) → [..., N].

        accuracy_level 4 rounds x to 8 bits too, block by block; without it the kernel is 20–110 times slower.
        """
        q, scales = blocks.to_blocks(weight)
        stored = self.const(name, q.numpy())
        self.quantized[stored] = weight
        inputs = [x, stored, self.const(f"{name}.scale", scales.numpy()), "", "", bias]
        return self.op(
            "MatMulNBits", inputs if bias else inputs[:3], domain=CONTRIB,
            N=weight.shape[0], K=weight.shape[1], bits=8, block_size=blocks.BLOCK, accuracy_level=4,
        )  # fmt: skip

    def _weights(self, name: str, weight: torch.Tensor, *, transpose: bool = False) -> str:
        """The constant of a weight matrix; half floats are cast back, which onnxruntime does once, at load."""
        array = as_array(weight).T if transpose else as_array(weight)
        if not blocks.applies(weight, self.quantize):
            return self.const(name, array)
        largest = float(np.abs(array).max())
        if largest > float(np.finfo(np.float16).max):
            raise BundleError(f"quantize: {self._scope}.{name} holds {largest:g}, a half float reaches 65504")
        stored = self.const(name, array.astype(np.float16))
        self.quantized[stored] = weight
        return self.op("Cast", [stored], to=TensorProto.FLOAT)

    def _skip_norm(self, op_type: str, inputs: list[str], eps: float) -> tuple[str, str]:
        normed, mean, inverse, total = self.ops(op_type, inputs, 4, domain=CONTRIB, epsilon=eps)
        # An empty name tells onnxruntime not to compute an optional output.
        self._renames |= {mean: "", inverse: ""}
        return normed, total

    def count(self, scope: str) -> int:
        """Number of nodes emitted in `scope`."""
        return self.scopes.count(scope)

    def build(self) -> bytes:
        """The checked, serialised ModelProto."""
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in self.nodes]
        for node in nodes:
            node.input[:] = [self._renames.get(v, v) for v in node.input]
            node.output[:] = [self._renames.get(v, v) for v in node.output]
        results = [helper.make_tensor_value_info(n, dtype, list(s)) for n, _, s, dtype in self._results]
        # Constant outputs cost nothing in a step: they are initializers, fetched once at load.
        results += [
            helper.make_tensor_value_info(f"{name}_init", _DTYPES[state.dtype], [1, *state.shape])
            for name, state in self.states.items()
        ]
        initializers = [numpy_helper.from_array(array, name) for name, array in self._constants.items()]
        graph = helper.make_graph(nodes, "step", self._inputs, results, initializers)
        opsets = [helper.make_opsetid(domain, version) for domain, version in self.opsets.items()]
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=_IR_VERSION[self.opsets[""]], producer_name="kizzasi_export"
        )
        onnx.checker.check_model(model)
        return cast(bytes, model.SerializeToString())

    def _finish(self, name: str, value: str, shape: tuple[int | str, ...], dtype: int) -> None:
        taken = {v for _, v, _, _ in self._results}
        computed = {v for node in self.nodes for v in node.output}
        if value in taken or value not in computed:
            value = self.op("Identity", [value])
        self._renames[value] = name
        self._results.append((name, value, shape, dtype))
