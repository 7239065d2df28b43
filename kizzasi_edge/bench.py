"""How long a model's step takes here: back to back, and paced at its own rate as a robot runs it.

Paced steps are slower, because caches cool between them (DESIGN §7); they are the figures to plan with. The
floor is the time of bare matrix-vector products in C over the same weights: what is above it is overhead
and everything else that a step computes.
"""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kizzasi_edge.bundle import Bundle
from kizzasi_edge.clock import DeadlineClock, low_jitter
from kizzasi_edge.onnx_wire import gemv_shapes
from kizzasi_edge.predictor import Predictor

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

__all__ = ["bench", "floor_us", "machine", "run_bench"]

_MAX_STEPS = 1_000_000
_WARM_UP = 50


def bench(path: str | os.PathLike[str], seconds: float = 3.0) -> dict[str, Any]:
    """Times a bundle's step for `seconds` in each mode, fed with its own parity inputs.

    Returns `machine`, `model`, `results` (engine, precision, mode, steps, p50_us, p99_us, p999_us, max_us; paced
    ones also rate_hz and overruns) and `floor_us` {f32, int8}. Raises BundleError as Predictor does.
    """
    bundle = Bundle.open(path)
    xs = [np.array(x, np.float32) for x in bundle.manifest.parity.vector.x]
    results = []
    for mode in ("tight", "paced"):
        predictor = Predictor(bundle, engine="ort")
        rate_hz = bundle.manifest.sample_rate_hz if mode == "paced" else None
        results.append(
            {"engine": predictor.engine, "precision": bundle.manifest.precision, "mode": mode}
            | _time(predictor, xs, seconds, rate_hz)
        )
    return {
        "machine": machine(),
        "model": {"path": str(bundle.path), "digest": bundle.digest, "kind": bundle.manifest.kind},
        "results": results,
        "floor_us": floor_us(gemv_shapes(memoryview(bundle.bytes)), seconds=min(seconds, 1.0)),
    }


def machine() -> dict[str, Any]:
    """Processor, cores and versions that the figures depend on."""
    import onnxruntime

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = (line.partition(":") for line in info.read_text().splitlines())
        cpu = next((value.strip() for key, _, value in lines if key.strip() == "model name"), cpu)
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": onnxruntime.__version__,
    }


def _time(
    predictor: Predictor, xs: list[npt.NDArray[np.float32]], seconds: float, rate_hz: float | None
) -> dict[str, Any]:
    """Latencies of step_into; the run ends after `seconds`, paced at absolute deadlines when a rate is given."""
    steps = _MAX_STEPS if rate_hz is None else max(1, min(_MAX_STEPS, round(seconds * rate_hz)))
    took = np.zeros(steps, np.int64)
    out = np.empty(len(predictor.output_names), np.float32)
    now = time.perf_counter_ns
    for i in range(_WARM_UP):
        predictor.step_into(xs[i % len(xs)], out)
    with low_jitter(realtime=False):
        clock = DeadlineClock(rate_hz, spin=True) if rate_hz is not None else None
        end, n = now() + round(seconds * 1e9), 0
        while n < steps and (clock is not None or now() < end):
            if clock is not None:
                clock.wait()
            x = xs[n % len(xs)]
            began = now()
            predictor.step_into(x, out)
            took[n] = now() - began
            n += 1
    result = {"steps": n} | _percentiles(took[:n])
    return result if clock is None else result | {"rate_hz": rate_hz, "overruns": clock.overruns}


def _percentiles(took_ns: npt.NDArray[np.int64]) -> dict[str, float]:
    p50, p99, p999 = (float(value) for value in np.percentile(took_ns, (50, 99, 99.9)) * 1e-3)
    return {"p50_us": p50, "p99_us": p99, "p999_us": p999, "max_us": float(took_ns.max()) * 1e-3}


def floor_us(shapes: list[tuple[int, int]], seconds: float = 1.0) -> dict[str, float]:
    """Median time in µs to stream weights of these (n, k) shapes once, as float32 and as 8-bit integers."""
    if not shapes:
        return {"f32": 0.0, "int8": 0.0}
    return {precision: _median_us(call, seconds) for precision, call in floor_calls(shapes).items()}


def floor_calls(shapes: list[tuple[int, int]]) -> dict[str, Callable[[], object]]:
    """Calls that stream weights of these (n, k) shapes once: "f32" and "int8".

    Matrix-vector products in C on one thread (kz_gemv), weights back to back, caches as warm as they get.
    """
    from kizzasi_bridge._kz_step import ffi, lib

    block = int(lib.KZ_GEMV_BLOCK)
    n, k = (np.array(column, np.int32) for column in zip(*shapes, strict=True))
    rows = -(-n // block) * block
    rng = np.random.default_rng(0)

    def call(gemvs: Callable[..., object], *buffers: tuple[str, npt.NDArray[Any]]) -> Callable[[], object]:
        sizes = (("int32_t *", n), ("int32_t *", k))
        pointers = [ffi.cast(kind, ffi.from_buffer(array)) for kind, array in (*buffers, *sizes)]

        def run(_alive: object = (buffers, n, k)) -> object:  # a cast pointer keeps no buffer alive
            return gemvs(*pointers, len(shapes))

        return run

    weights = rng.standard_normal(int((rows * k).sum(dtype=np.int64)), np.float32)
    x, y = rng.standard_normal(int(k.max()), np.float32), np.empty(int(rows.max()), np.float32)
    weights8 = rng.integers(-127, 128, int((n.astype(np.int64) * k).sum()), np.int8)
    x8, y8 = rng.integers(-127, 128, int(k.max()), np.int8), np.empty(int(n.max()), np.int32)
    return {
        "f32": call(lib.kz_gemvs_f32, ("float *", weights), ("float *", x), ("float *", y)),
        "int8": call(lib.kz_gemvs_i8, ("int8_t *", weights8), ("int8_t *", x8), ("int32_t *", y8)),
    }


def _median_us(call: Callable[[], object], seconds: float) -> float:
    took: list[int] = []
    now = time.perf_counter_ns
    end = now() + round(seconds * 1e9)
    while len(took) < 20 or (now() < end and len(took) < 20_000):
        began = now()
        call()
        took.append(now() - began)
    return float(np.median(took)) * 1e-3


def run_bench(
    path: str | os.PathLike[str],
    seconds: float = 3.0,
    json_path: str | os.PathLike[str] | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """bench() printed, and written to `json_path` where given. Returns what bench() does."""
    from rich.console import Console

    report = bench(path, seconds)
    if json_path is not None:
        Path(json_path).write_text(json.dumps(report, indent=2) + "\n")
    _show(report, console or Console())
    return report


def _show(report: dict[str, Any], console: Console) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    about = report["machine"]
    table = Table(
        box=box.SIMPLE_HEAD,
        title=Text(f"{report['model']['path']}: one step, µs"),
        caption=f"{about['cpu']}, {about['cores']} cores, onnxruntime {about['onnxruntime']}",
        title_justify="left",
        caption_justify="left",
    )
    for heading in ("engine", "type", "mode"):
        table.add_column(heading, no_wrap=True)
    for heading in ("p50", "p99", "p99.9", "max", "steps", "late"):
        table.add_column(heading, justify="right")
    for row in report["results"]:
        mode = f"paced {row['rate_hz']:g} Hz" if row["mode"] == "paced" else row["mode"]
        figures = [f"{row[key]:.{0 if row[key] >= 1000 else 1}f}" for key in ("p50_us", "p99_us", "p999_us", "max_us")]
        table.add_row(row["engine"], row["precision"], mode, *figures, str(row["steps"]), str(row.get("overruns", "–")))
    for precision, value in report["floor_us"].items():
        table.add_row("C GEMVs", precision, "floor", f"{value:.1f}")
    console.print(table)
