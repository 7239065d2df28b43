"""A real model without training: setpoints that go to targets, as an ONNX graph of two states."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kizzasi_edge.bundle import Manifest, write_bundle

FASTEST, FASTER = 0.02, 0.0011
"""[rad] per period, and by how much more each period."""


def write_policy(path: Path, joints: Sequence[str], rate_hz: float) -> None:
    """A model of two states: its setpoint, which starts at the measured positions and goes to the targets, and how fast
    it may go, which starts at rest."""

    n = len(joints)

    def tensor(name: str, *shape: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    eye, none = np.eye(n), np.zeros((n, n))
    weights: dict[str, Any] = {
        "measured": np.vstack([eye, none]),
        "wanted": np.vstack([none, eye]),
        "faster": FASTER,
        "fastest": FASTEST,
        "huge": 1e6,
        "one": 1.0,
        "at_rest": np.zeros((1, 1)),
        "nowhere": np.zeros((1, n)),
    }
    steps = [
        ("MatMul", "x measured", "q"),
        ("MatMul", "x wanted", "target"),
        ("Mul", "speed huge", "many"),
        ("Min", "many one", "later"),  # 0 in the first step, then 1
        ("Sub", "setpoint q", "gone"),
        ("Mul", "gone later", "kept"),
        ("Add", "q kept", "from"),
        ("Add", "speed faster", "more"),
        ("Min", "more fastest", "speed_out"),
        ("Neg", "speed_out", "backwards"),
        ("Sub", "target from", "gap"),
        ("Min", "gap speed_out", "up"),
        ("Max", "up backwards", "step"),
        ("Add", "from step", "setpoint_out"),
        ("Identity", "setpoint_out", "y"),
        ("Identity", "at_rest", "speed_init"),
        ("Identity", "nowhere", "setpoint_init"),
    ]
    graph = helper.make_graph(
        [helper.make_node(kind, inputs.split(), [output]) for kind, inputs, output in steps],
        "to_targets",
        [tensor("x", 1, 2 * n), tensor("setpoint", 1, n), tensor("speed", 1, 1)],
        [tensor(name, 1, n) for name in ("y", "setpoint_out", "setpoint_init")]
        + [tensor(name, 1, 1) for name in ("speed_out", "speed_init")],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in weights.items()],
    )
    core = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    manifest = {
        "kind": "test",
        "variant": "portable",
        "input_dim": 2 * n,
        "output_dim": n,
        "sample_rate_hz": float(rate_hz),
        "inputs": [{"name": f"{j}/{kind}", "unit": "rad"} for kind in ("position", "target_position") for j in joints],
        "outputs": [{"name": f"{j}/position", "unit": "rad"} for j in joints],
        "states": [{"name": "setpoint", "shape": [1, n]}, {"name": "speed", "shape": [1, 1]}],
        "config": {},
        "parity": {
            "steps": 1,
            "max_abs_error": 0.0,
            "relative_error": 0.0,
            "vector": {"seed": 1, "x": [[0.0] * n + [1.0] * n], "y": [[FASTER] * n]},
        },
        "onnxruntime_min": "1.16",
        "opset": {"": 17},
    }
    write_bundle(path, core, Manifest.model_validate(manifest))
