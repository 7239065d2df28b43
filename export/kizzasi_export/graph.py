"""A small ONNX emitter for single-step graphs: constants, ops, states and outputs, in two variants.

Exists because node count is what a step costs in onnxruntime (about 0.25 µs a node on one thread): models
write the few nodes they need instead of what a tracer finds. Inputs and outputs are [B, C]; inside layers
activations are [B, 1, C], because the fused recurrences of com.microsoft want a sequence axis.

* ``fast``: IR 10, ai.onnx opset 23 and com.microsoft contrib operators.
* ``portable``: IR 8, ai.onnx opset 17 and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Variant = Literal["fast", "portable"]
CONTRIB = "com.microsoft"
OPSETS: dict[Variant, dict[str, int]] = {"fast": {"": 23, CONTRIB: 1}, "portable": {"": 17}}
IR_VERSION: dict[Variant, int] = {"fast": 10, "portable": 8}


def as_array(tensor: torch.Tensor) -> NDArray[np.float32]:
    """A contiguous float32 copy of a parameter."""
    return np.ascontiguousarray(tensor.detach().cpu().to(torch.float32).numpy()).copy()


class Graph:
    """One step graph under construction. Values are referred to by name (str).

    Args:
        variant: which operators may be used.
        batch: True for a symbolic leading dimension "B", False for a static 1.
    """

    def __init__(self, variant: Variant = "fast", *, batch: bool = False) -> None:
        self.variant: Variant = variant
        self.batch = batch
        self.lead: str | int = "B" if batch else 1
        self.nodes: list[onnx.NodeProto] = []
        self.scopes: list[str] = []  # the scope each node was emitted in, for node counts per layer
        self.states: dict[str, tuple[int, ...]] = {}  # name -> shape without the leading dimension
        self._scope = ""
        self._constants: dict[str, NDArray[Any]] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._results: list[tuple[str, str, tuple[int | str, ...]]] = []  # (final name, value, shape)
        self._renames: dict[str, str] = {}
        self._counter = 0

    @property
    def fast(self) -> bool:
        return self.variant == "fast"

    def scope(self, name: str) -> None:
        """Name the part of the model that the following constants and nodes belong to."""
        self._scope = name

    def const(self, name: str, array: NDArray[Any]) -> str:
        """Add a constant; the same full name may be given again with the same shape and is then shared."""
        full = f"{self._scope}.{name}" if self._scope else name
        if full not in self._constants:
            self._constants[full] = np.ascontiguousarray(array)
        return full

    def indices(self, *values: int) -> str:
        """An int64 constant (axes, sizes, shapes), shared across the graph."""
        name = "i64_" + "_".join(str(v).replace("-", "m") for v in values)
        self._constants.setdefault(name, np.array(values, np.int64))
        return name

    def input(self, name: str, shape: Sequence[int]) -> str:
        """Declare a float32 graph input of shape [B, *shape]."""
        info = helper.make_tensor_value_info(name, TensorProto.FLOAT, [self.lead, *shape])
        self._inputs.append(info)
        return name

    def state(self, name: str, init: NDArray[np.float32]) -> str:
        """Declare a state; `init` is [1, ...] and becomes the constant output ``<name>_init``."""
        init = np.ascontiguousarray(init, np.float32)
        shape = tuple(int(d) for d in init.shape[1:])
        self.states[name] = shape
        self._constants[f"{name}_init"] = init
        return self.input(name, shape)

    def set_state(self, name: str, value: str) -> None:
        """Say which value is the next ``<name>``."""
        self._finish(f"{name}_out", value, (self.lead, *self.states[name]))

    def output(self, name: str, value: str, shape: Sequence[int]) -> None:
        """Declare `value` [B, *shape] as graph output `name`."""
        self._finish(name, value, (self.lead, *shape))

    def op(self, op_type: str, inputs: Sequence[str], *, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output; returns its name."""
        return self.ops(op_type, inputs, 1, domain=domain, **attributes)[0]

    def ops(
        self, op_type: str, inputs: Sequence[str], outputs: int, *, domain: str = "", **attributes: Any
    ) -> list[str]:
        """Add a node with several outputs; returns their names."""
        names = [f"v{self._counter + i}" for i in range(outputs)]
        self._counter += outputs
        node = helper.make_node(op_type, list(inputs), names, domain=domain, **attributes)
        node.name = f"{self._scope}/{op_type}_{len(self.nodes)}"
        self.nodes.append(node)
        self.scopes.append(self._scope)
        return names

    def matmul(self, x: str, name: str, weight: torch.Tensor) -> str:
        """x [B, 1, K] times a torch weight [N, K] → [B, 1, N]."""
        return self.op("MatMul", [x, self.const(name, as_array(weight).T)])

    def linear(self, x: str, name: str, weight: torch.Tensor, bias: torch.Tensor) -> str:
        """x [B, K] through torch's Linear(K, N) → [B, N].

        Two-dimensional on purpose: onnxruntime fuses a three-dimensional MatMul + Add into a Gemm between
        two Reshapes.
        """
        weights = self.const(f"{name}.weight", as_array(weight))
        return self.op("Gemm", [x, weights, self.const(f"{name}.bias", as_array(bias))], transB=1)

    def silu(self, x: str) -> str:
        """x·sigmoid(x), any shape."""
        if self.fast:
            return self.op("QuickGelu", [x], domain=CONTRIB, alpha=1.0)
        return self.op("Mul", [x, self.op("Sigmoid", [x])])

    def rms_norm(self, x: str, name: str, weight: torch.Tensor, eps: float) -> str:
        """x / sqrt(mean(x², last axis) + eps) · weight (Zhang & Sennrich 2019, eq. 4); weight [C]."""
        gain = self.const(name, as_array(weight))
        if self.fast:
            return self.op("RMSNormalization", [x, gain], epsilon=eps)
        mean_square = self.op("ReduceMean", [self.op("Mul", [x, x])], axes=[-1], keepdims=1)
        root = self.op("Sqrt", [self.op("Add", [mean_square, self.const("eps", np.array([eps], np.float32))])])
        return self.op("Mul", [self.op("Div", [x, root]), gain])

    def add_rms_norm(
        self, residual: str, branch: str | None, name: str, weight: torch.Tensor, eps: float
    ) -> tuple[str, str]:
        """(norm(residual + branch), residual + branch); without a branch (norm(residual), residual)."""
        if branch is None:
            return self.rms_norm(residual, name, weight, eps), residual
        if self.fast:
            gain = self.const(name, as_array(weight))
            normed, mean, inverse, total = self.ops(
                "SkipSimplifiedLayerNormalization", [residual, branch, gain], 4, domain=CONTRIB, epsilon=eps
            )
            # An empty name tells onnxruntime not to compute an optional output.
            self._renames |= {mean: "", inverse: ""}
            return normed, total
        total = self.op("Add", [residual, branch])
        return self.rms_norm(total, name, weight, eps), total

    def count(self, scope: str) -> int:
        """Number of nodes emitted in `scope`."""
        return self.scopes.count(scope)

    def build(self) -> bytes:
        """The checked, serialised ModelProto."""
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in self.nodes]
        for node in nodes:
            node.input[:] = [self._renames.get(v, v) for v in node.input]
            node.output[:] = [self._renames.get(v, v) for v in node.output]
        results = [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(s)) for n, _, s in self._results]
        # Constant outputs cost nothing in a step: they are initializers, fetched once at load.
        results += [
            helper.make_tensor_value_info(f"{name}_init", TensorProto.FLOAT, [1, *shape])
            for name, shape in self.states.items()
        ]
        initializers = [numpy_helper.from_array(array, name) for name, array in self._constants.items()]
        graph = helper.make_graph(nodes, "step", self._inputs, results, initializers)
        opsets = [helper.make_opsetid(domain, version) for domain, version in OPSETS[self.variant].items()]
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION[self.variant], producer_name="kizzasi_export"
        )
        onnx.checker.check_model(model)
        return cast(bytes, model.SerializeToString())

    def _finish(self, name: str, value: str, shape: tuple[int | str, ...]) -> None:
        taken = {v for _, v, _ in self._results}
        computed = {v for node in self.nodes for v in node.output}
        if value in taken or value not in computed:
            value = self.op("Identity", [value])
        self._renames[value] = name
        self._results.append((name, value, shape))
