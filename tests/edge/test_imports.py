"""`import kizzasi_edge` is quick and pulls in nothing heavy; proved in a fresh interpreter."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import kizzasi_edge

HEAVY = ("torch", "scipy", "serial", "mujoco", "matplotlib", "onnx", "onnxruntime", "pandas", "lightning")


def modules_after(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_import_is_light_and_quick() -> None:
    assert not modules_after("import kizzasi_edge") & set(HEAVY)
    timer = "import time; t = time.perf_counter(); import kizzasi_edge; print(time.perf_counter() - t)"
    times = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", timer], capture_output=True, text=True, check=True)
        times.append(float(done.stdout))
    assert min(times) < 0.5


def test_names_in_use_need_no_optional_library() -> None:
    """Opening a model file or naming the classes needs neither torch nor onnx nor a simulator."""
    loaded = modules_after("from kizzasi_edge import Bundle, Predictor, Guardrails, Observation, BundleError")
    assert not loaded & set(HEAVY)


def test_public_names() -> None:
    for name in kizzasi_edge.__all__:
        if name != "__version__":
            assert getattr(kizzasi_edge, name).__name__ == name
    assert kizzasi_edge.__version__.count(".") >= 1
    assert dir(kizzasi_edge) == sorted(kizzasi_edge.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = kizzasi_edge.Nothing


def test_every_error_is_public() -> None:
    errors = importlib.import_module("kizzasi_edge.errors")
    assert set(errors.__all__) <= set(kizzasi_edge.__all__)
    assert issubclass(kizzasi_edge.InputError, ValueError)
    assert issubclass(kizzasi_edge.ModelError, ArithmeticError)
