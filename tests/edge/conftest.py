"""Small real models: ONNX graphs built here, so that the runtime is tested without torch."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from kizzasi_edge.bundle import Bundle, Manifest, write_bundle

JOINTS = ("pan", "lift")
INPUTS = tuple(f"{joint}/{kind}" for kind in ("position", "target_position") for joint in JOINTS)
OUTPUTS = tuple(f"{joint}/position" for joint in JOINTS)


def tensor(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def constant(name: str, value: Any) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value, np.float32), name)


def recurrent_core(
    *, input_dim: int = 4, hidden: int = 8, output_dim: int = 2, batch: int | str = 1, seed: int = 7
) -> bytes:
    """h' = a⊙h + W x + V tanh(c), c' = h', y = C h'/(1 − Σ relu(x₀ − 9)): not finite for x₀ = 10 (0 divides).

    Two states; h starts at a non-zero value. Products of many random weights, so that any mix-up of the
    ping-pong buffers changes bits.
    """
    rng = np.random.default_rng(seed)
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["wx"]),
        helper.make_node("Mul", ["h", "a"], ["ah"]),
        helper.make_node("Tanh", ["c"], ["tanh_c"]),
        helper.make_node("MatMul", ["tanh_c", "V"], ["vc"]),
        helper.make_node("Add", ["wx", "ah"], ["sum"]),
        helper.make_node("Add", ["sum", "vc"], ["h_out"]),
        helper.make_node("Mul", ["h_out", "one"], ["c_out"]),
        helper.make_node("MatMul", ["h_out", "C"], ["ch"]),
        helper.make_node("MatMul", ["x", "first"], ["x0"]),
        helper.make_node("Sub", ["x0", "nine"], ["over"]),
        helper.make_node("Relu", ["over"], ["excess"]),
        helper.make_node("Sub", ["one", "excess"], ["room"]),
        helper.make_node("Div", ["ch", "room"], ["y"]),
        helper.make_node("Identity", ["h0"], ["h_init"]),
        helper.make_node("Identity", ["c0"], ["c_init"]),
    ]
    weights = {
        "W": rng.normal(0, 0.2, (input_dim, hidden)),
        "V": rng.normal(0, 0.1, (hidden, hidden)),
        "C": rng.normal(0, 0.3, (hidden, output_dim)),
        "a": rng.uniform(0.5, 0.95, (1, hidden)),
        "first": np.eye(input_dim, 1),
        "one": 1.0,
        "nine": 9.0,
        "h0": rng.normal(0, 1, (1, hidden)),
        "c0": np.zeros((1, hidden)),
    }
    graph = helper.make_graph(
        nodes,
        "recurrent",
        [tensor("x", batch, input_dim), tensor("h", batch, hidden), tensor("c", batch, hidden)],
        [
            tensor("y", batch, output_dim),
            tensor("h_out", batch, hidden),
            tensor("c_out", batch, hidden),
            tensor("h_init", 1, hidden),
            tensor("c_init", 1, hidden),
        ],
        [constant(name, value) for name, value in weights.items()],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def integrator_core(*, leak: float = 0.5, start: float = 2.0, dim: int = 2) -> bytes:
    """s' = leak·s + x, y = s'; starts at `start`. Simple enough to predict by hand."""
    nodes = [
        helper.make_node("Mul", ["s", "leak"], ["kept"]),
        helper.make_node("Add", ["kept", "x"], ["s_out"]),
        helper.make_node("Identity", ["s_out"], ["y"]),
        helper.make_node("Identity", ["start"], ["s_init"]),
    ]
    outputs = [tensor(name, 1, dim) for name in ("y", "s_out", "s_init")]
    weights = [constant("leak", leak), constant("start", np.full((1, dim), start))]
    graph = helper.make_graph(nodes, "integrator", [tensor("x", 1, dim), tensor("s", 1, dim)], outputs, weights)
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    return bytes(model.SerializeToString())


def naive_run(core: bytes, xs: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The oracle: session.run with a dict, states passed by hand. Returns ys and the last state."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = ort.InferenceSession(core, options, providers=["CPUExecutionProvider"])
    states = [item.name for item in session.get_inputs() if item.name != "x"]
    blank = {item.name: np.zeros([1, *item.shape[1:]], np.float32) for item in session.get_inputs()}
    state = dict(zip(states, session.run([f"{name}_init" for name in states], blank), strict=True))
    ys = []
    for x in xs:
        y, *following = session.run(["y", *(f"{name}_out" for name in states)], {"x": x[None], **state})
        state = dict(zip(states, following, strict=True))
        ys.append(y[0])
    return np.array(ys), state


def manifest_for(core: bytes, inputs: tuple[str, ...], outputs: tuple[str, ...], **changes: Any) -> Manifest:
    """A manifest that fits the graph; its parity vector comes from the naive loop."""
    model = onnx.load_from_string(core)
    shapes = {item.name: [d.dim_value or 1 for d in item.type.tensor_type.shape.dim] for item in model.graph.input}
    xs = np.random.default_rng(1).normal(0, 0.5, (8, len(inputs))).astype(np.float32)
    ys, _ = naive_run(core, xs)
    fields: dict[str, Any] = {
        "kind": "test",
        "variant": "portable",
        "input_dim": len(inputs),
        "output_dim": len(outputs),
        "sample_rate_hz": 500.0,
        "inputs": [{"name": name, "unit": "rad"} for name in inputs],
        "outputs": [{"name": name, "unit": "rad"} for name in outputs],
        "states": [{"name": name, "shape": shape} for name, shape in shapes.items() if name != "x"],
        "config": {},
        "parity": {
            "steps": 8,
            "max_abs_error": 0.0,
            "relative_error": 0.0,
            "vector": {"seed": 1, "x": xs.tolist(), "y": ys.tolist()},
        },
        "onnxruntime_min": "1.16",
        "opset": {"": 17},
    }
    return Manifest.model_validate(fields | changes)


@pytest.fixture(scope="session")
def arm_core() -> bytes:
    return recurrent_core()


@pytest.fixture
def arm(tmp_path: Path, arm_core: bytes) -> Bundle:
    """Two joints: measured and target positions in, position commands out."""
    return write_bundle(tmp_path / "arm.onnx", arm_core, manifest_for(arm_core, INPUTS, OUTPUTS))


@pytest.fixture
def integrator(tmp_path: Path) -> Bundle:
    core = integrator_core()
    return write_bundle(tmp_path / "leaky.onnx", core, manifest_for(core, ("a", "b"), ("a", "b")))


@pytest.fixture(scope="session")
def xs() -> np.ndarray:
    """1000 inputs of the arm, float32 (1000, 4)."""
    return np.random.default_rng(3).normal(0, 1, (1000, len(INPUTS))).astype(np.float32)


class Build:
    """The functions above, for tests that need a model of their own."""

    joints, inputs, outputs = JOINTS, INPUTS, OUTPUTS
    recurrent_core = staticmethod(recurrent_core)
    integrator_core = staticmethod(integrator_core)
    manifest_for: Callable[..., Manifest] = staticmethod(manifest_for)
    naive_run = staticmethod(naive_run)


@pytest.fixture(scope="session")
def build() -> type[Build]:
    return Build
