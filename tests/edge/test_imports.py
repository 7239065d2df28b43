"""`import kizzasi_edge` is quick and pulls in nothing heavy; proved in a fresh interpreter."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import kizzasi_edge

OPTIONAL = (
    "torch",
    "scipy",
    "serial",
    "tomlkit",
    "cyclonedds",
    "zenoh",
    "xxhash",
    "rosbags",
    "mujoco",
    "matplotlib",
    "onnx",
    "pandas",
    "lightning",
    "pinocchio",
    "ruckig",
    "yaml",
)
HEAVY = (*OPTIONAL, "onnxruntime")
GUARD = """schema = 1
[guard]
rate_hz = 100
command = "{command}"
[joints]
names = ["a", "b"]
position = [[-1, 1], [-1, 1]]
velocity = 2
acceleration = 9
"""
RULES = """
[[constraint]]
kind = "linear"
name = "apart"
a = { a = 1.0, b = -1.0 }
max = 1.5
[[temporal]]
name = "stop"
formula = "always(near -> eventually[0,2] stopped)"
atoms = { near = "distance < 0.3", stopped = "max(abs(velocity)) < 0.01" }
[faults]
jump = 0.1
tracking_error = 0.2
"""


def modules_after(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_import_is_light_and_quick() -> None:
    assert not modules_after("import kizzasi_edge") & set(HEAVY)
    timer = "import time; t = time.process_time(); import kizzasi_edge; print(time.process_time() - t)"
    times = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", timer], capture_output=True, text=True, check=True)
        times.append(float(done.stdout))
    assert min(times) < 0.5


def test_names_in_use_need_no_optional_library() -> None:
    """Opening a model file or naming the classes needs neither torch nor onnx nor a simulator."""
    loaded = modules_after("from kizzasi_edge import Bundle, Predictor, Guardrails, Observation, BundleError")
    assert not loaded & set(HEAVY)


@pytest.mark.parametrize(("command", "more"), [("position", ""), ("velocity", ""), ("position", RULES)])
def test_a_guard_needs_no_optional_library(tmp_path: Path, command: str, more: str) -> None:
    """Loaded, explained and stepped: what rules need beyond numpy is imported where a file asks for it."""
    (tmp_path / "g.guard.toml").write_text(GUARD.format(command=command) + more)
    loaded = modules_after(
        f"from kizzasi_edge import Guardrails\nguard = Guardrails.load({str(tmp_path / 'g.guard.toml')!r})\n"
        "guard.explain()\nguard.step([0.1, 0.1], position=[0.0, 0.0])"
    )
    assert "kizzasi_bridge" in loaded
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
