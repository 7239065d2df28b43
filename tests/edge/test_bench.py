"""The bench measures what it says, and the C products behind its floor compute what they should."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kizzasi_bridge._kz_step import ffi, lib
from rich.console import Console

from kizzasi_edge.bench import floor_us, run_bench
from kizzasi_edge.bundle import Bundle
from kizzasi_edge.errors import BundleError
from kizzasi_edge.onnx_wire import gemv_shapes

BLOCK = lib.KZ_GEMV_BLOCK


def at(kind: str, array: np.ndarray) -> Any:
    return ffi.cast(f"{kind} *", array.ctypes.data)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 100), k=st.integers(1, 100), seed=st.integers(0, 1000))
def test_f32_product(n: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    w, x = rng.standard_normal((n, k), np.float32), rng.standard_normal(k, np.float32)
    rows = -(-n // BLOCK) * BLOCK
    padded = np.zeros((rows, k), np.float32)
    padded[:n] = w
    blocked = np.ascontiguousarray(padded.reshape(-1, BLOCK, k).transpose(0, 2, 1))
    y = np.full(rows + 1, 7, np.float32)
    lib.kz_gemv_f32(at("float", blocked), at("float", x), at("float", y), n, k)
    np.testing.assert_allclose(y[:n], w.astype(np.float64) @ x, rtol=1e-4, atol=1e-4)
    assert not y[n:rows].any()
    assert y[rows] == 7, "wrote past the end"


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 40), k=st.integers(1, 200), seed=st.integers(0, 1000), extreme=st.booleans())
def test_i8_product_is_exact(n: int, k: int, seed: int, extreme: bool) -> None:
    rng = np.random.default_rng(seed)
    draw = (lambda *s: rng.choice([-127, 127], s)) if extreme else (lambda *s: rng.integers(-127, 128, s))
    w, x = draw(n, k).astype(np.int8), draw(k).astype(np.int8)
    y = np.full(n + 1, 7, np.int32)
    lib.kz_gemv_i8(at("int8_t", w), at("int8_t", x), at("int32_t", y), n, k)
    np.testing.assert_array_equal(y[:n], w.astype(np.int64) @ x)
    assert y[n] == 7, "wrote past the end"


def test_products_of_the_graph(arm_core: bytes) -> None:
    assert gemv_shapes(memoryview(arm_core)) == [(8, 4), (8, 8), (2, 8), (1, 4)]


def test_floor_grows_with_the_weights() -> None:
    small, large = floor_us([(64, 64)], 0.02), floor_us([(1024, 1024)] * 4, 0.1)
    assert large["f32"] > 20 * small["f32"]
    assert large["int8"] > 20 * small["int8"]
    assert floor_us([]) == {"f32": 0.0, "int8": 0.0}


def test_bench(arm: Bundle, tmp_path: Path) -> None:
    screen, path = io.StringIO(), tmp_path / "bench.json"
    report = run_bench(arm.path, 0.3, path, Console(file=screen, width=160))
    assert json.loads(path.read_text()) == report
    assert report["machine"]["cpu"]
    tight, paced = report["results"]
    for row in (tight, paced):
        assert (row["engine"], row["precision"]) == ("ort", "f32")
        assert 0 < row["p50_us"] <= row["p99_us"] <= row["p999_us"] <= row["max_us"]
    assert (tight["mode"], paced["mode"], paced["rate_hz"]) == ("tight", "paced", 500)
    assert paced["steps"] == 150
    assert tight["steps"] > paced["steps"]
    assert set(report["floor_us"]) == {"f32", "int8"}
    assert report["floor_us"]["f32"] < tight["p50_us"]
    assert "paced 500 Hz" in screen.getvalue()


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such model file"):
        run_bench(tmp_path / "none.onnx", 0.1)
