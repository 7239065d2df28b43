"""What onnxruntime makes of a graph at the optimisation level that robots use."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import onnxruntime as ort


def optimised_ops(core: bytes, folder: Path) -> Counter[str]:
    """Operators of the graph that onnxruntime runs: fusions and folded constants (ENABLE_BASIC) are in it."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(core, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node)
