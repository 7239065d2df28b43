"""Step time of every kind's emitted graph, beside plain torch.onnx exports, the kizzasi wheel, and bare GEMVs.

    python benchmarks/bench_step_graph.py [--json PATH] [--rounds N] [--sizes 64/2 256/4 …] [--kinds mamba2 …]

One thread pinned to one core, all contenders of a size in the same run in interleaved rounds, every graph stepped by
the same engine (kizzasi_edge.engines.ort), median of all steps. Contenders, for every kind:

* f32, int8: `export_step(variant="fast")`, int8 with quantize="int8"
* dynamo: `torch.onnx.export(dynamo=True)` of `StepModel.step`, unchanged
* floor: the f32 graph's weights streamed once by GEMVs in C
* wheel: kizzasi 0.2.3 from PyPI, where installed: its own untrained model of that name, through its Python API
  (its rwkv beside our rwkv4/6/7, its s4, which is diagonal, beside our s4/s4d/s5)

Exit code 1 if a requirement below is not met (those whose contenders did not run are left out).
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import sys
import tempfile
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import onnx
import torch
from racing import Call, pin, race
from tables import WHEEL
from torch import Tensor, nn

from kizzasi_edge.bench import floor_calls, machine
from kizzasi_edge.bundle import Bundle, write_bundle
from kizzasi_edge.engines.ort import OrtEngine
from kizzasi_edge.onnx_wire import gemv_shapes
from kizzasi_export import KINDS, StepModel, build_model, export_step

INPUTS, OUTPUTS, STATE_DIM, WINDOW = 12, 6, 16, 128
SIZES = ("64/2", "128/2", "256/4", "512/4")


@dataclass(frozen=True)
class Requirement:
    """`name` ≤ `factor` × `beside`, at one size."""

    size: str
    name: str
    factor: float
    beside: str


REQUIREMENTS = (
    Requirement("256/4", "mamba2 f32", 0.55, "mamba2 dynamo"),
    Requirement("256/4", "mamba2 f32", 2.2, "mamba2 floor"),
    Requirement("256/4", "rwkv6 f32", 1 / 10, "wheel rwkv"),
    Requirement("256/4", "s4d f32", 1 / 40, "wheel s4"),
    Requirement("256/4", "mamba f32", 1 / 100, "wheel mamba"),
    Requirement("256/4", "transformer int8", 1.1, "mamba2 f32"),
    Requirement("64/2", "mamba2 f32", 1.5, "wheel mamba2"),
)


class FlatStep(nn.Module):
    """A step with its states as positional tensors, as torch.onnx wants them."""

    def __init__(self, model: StepModel, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        y, following = self.model.step(x, dict(zip(self.names, states, strict=True)))
        return y, *(following[name] for name in self.names)


def dynamo_bundle(model: StepModel, like: Bundle, path: Path) -> Bundle:
    """torch.onnx's graph of `model.step`, made loadable by our engine: initial states and manifest are added."""
    init = model.initial_state(1)
    names = list(init)
    program = torch.onnx.export(
        FlatStep(model, names).eval(),
        (torch.zeros(1, INPUTS), *init.values()),
        dynamo=True,
        verbose=False,
        input_names=["x", *names],
        output_names=["y", *(f"{name}_out" for name in names)],
    )
    buffer = io.BytesIO()
    program.save(buffer)
    proto = onnx.load_model_from_string(buffer.getvalue())
    for name, value in init.items():
        tensor = onnx.numpy_helper.from_array(value.numpy(), f"{name}_init")
        proto.graph.initializer.append(tensor)
        proto.graph.output.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, value.shape))
    del proto.metadata_props[:]
    manifest = like.manifest.model_dump()
    manifest["states"] = [
        {"name": name, "shape": list(value.shape), "dtype": str(value.numpy().dtype)} for name, value in init.items()
    ]
    return write_bundle(path, proto.SerializeToString(), type(like.manifest).model_validate(manifest))


def contenders(kind: str, hidden: int, layers: int, folder: Path) -> dict[str, Call]:
    """Name → a call that steps once. A contender that cannot be made is reported and left out."""
    torch.manual_seed(0)
    model = build_model(
        kind,
        input_dim=INPUTS,
        output_dim=OUTPUTS,
        hidden_dim=hidden,
        state_dim=STATE_DIM,
        num_layers=layers,
        context_window=WINDOW,
    ).eval()
    names = {"input_names": [f"in{i}" for i in range(INPUTS)], "output_names": [f"out{i}" for i in range(OUTPUTS)]}
    f32 = export_step(model, folder / "f32.onnx", sample_rate_hz=500.0, **names)
    bundles = {"f32": f32}
    makers = {
        # Untrained weights quantise badly; what is timed does not depend on it.
        "int8": lambda: export_step(
            model, folder / "int8.onnx", sample_rate_hz=500.0, quantize="int8", bound=10.0, **names
        ),
        "dynamo": lambda: dynamo_bundle(model, f32, folder / "dynamo.onnx"),
    }
    for name, maker in makers.items():
        try:
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # torch.onnx prints what it tries
                bundles[name] = maker()
        except Exception as error:  # torch.onnx and onnxruntime fail with whatever they like
            print(
                f"  {kind} {hidden}/{layers}: no {name}: {type(error).__name__}: {' '.join(str(error).split())[:100]}"
            )
    x = np.random.default_rng(0).standard_normal((64, INPUTS)).astype(np.float32)
    calls: dict[str, Call] = {}
    outputs = {}
    for name, bundle in bundles.items():
        engine = OrtEngine(bundle)
        outputs[name] = np.array([replay(engine, row) for row in x])
        calls[f"{kind} {name}"] = engine_step(engine)
    if "dynamo" in outputs and not np.allclose(outputs["dynamo"], outputs["f32"], atol=1e-3):
        del calls[f"{kind} dynamo"]  # only the same function can be compared
        print(f"  {kind} {hidden}/{layers}: no dynamo: its graph computes something else than the torch step")
    calls[f"{kind} floor"] = floor_calls(gemv_shapes(memoryview(f32.bytes)))["f32"]
    return calls


def replay(engine: OrtEngine, x: np.ndarray) -> np.ndarray:
    engine.x[:] = x
    engine.run()
    engine.commit()
    return engine.y.copy()


def engine_step(engine: OrtEngine) -> Call:
    def step() -> None:
        engine.run()
        engine.commit()

    return step


def wheels(kinds: list[str], hidden: int, layers: int) -> dict[str, Call]:
    """The published wheel's steps, or nothing where it is not installed."""
    try:
        import kizzasi
    except ImportError:
        return {}
    x = np.random.default_rng(0).standard_normal(INPUTS).astype(np.float32)

    def step(model_type: str) -> Call:
        sizes = {"hidden_dim": hidden, "num_layers": layers, "state_dim": STATE_DIM}
        config = kizzasi.Config(input_dim=INPUTS, output_dim=OUTPUTS, model_type=model_type, **sizes)
        predictor = kizzasi.Predictor(config)
        return lambda: predictor.step(x)

    return {f"wheel {name}": step(name) for name in dict.fromkeys(WHEEL[k] for k in kinds if k in WHEEL)}


def run_size(size: str, kinds: list[str], rounds: int) -> dict[str, dict[str, float]]:
    """Race everything of one size: name → {p50_us, p99_us}."""
    hidden, layers = (int(part) for part in size.split("/"))
    with tempfile.TemporaryDirectory() as folder:
        calls: dict[str, Call] = {}
        for kind in kinds:
            place = Path(folder) / kind
            place.mkdir()
            calls |= contenders(kind, hidden, layers, place)
        times = race(calls | wheels(kinds, hidden, layers), rounds)
    return {name: {"p50_us": float(np.median(v)), "p99_us": float(np.percentile(v, 99))} for name, v in times.items()}


def show(size: str, found: dict[str, dict[str, float]], kinds: list[str]) -> None:
    columns = ("f32", "int8", "dynamo", "floor", "wheel")
    print(f"\n{size}, one thread, p50 µs of a step" + "".join(f"{c:>10}" for c in columns))
    for kind in kinds:
        names = [f"{kind} {c}" for c in columns[:-1]] + [f"wheel {WHEEL.get(kind)}"]
        figures = [found[n]["p50_us"] if n in found else None for n in names]
        print(f"  {kind:<32}" + "".join(f"{'–' if f is None else f'{f:.1f}':>10}" for f in figures))


def judge(found: dict[str, dict[str, dict[str, float]]]) -> bool:
    """Print every requirement whose contenders ran; whether all of them are met."""
    met = True
    print()
    for r in REQUIREMENTS:
        figures = found.get(r.size, {})
        if r.name in figures and r.beside in figures:
            ratio = figures[r.name]["p50_us"] / figures[r.beside]["p50_us"]
            met &= ratio <= r.factor
            verdict = "met" if ratio <= r.factor else "NOT met"
            print(f"{r.size}: {r.name} ≤ {r.factor:.3g} × {r.beside}: {verdict}, {ratio:.3g}")
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description="Emitted step graphs against plain exports, the wheel and bare GEMVs.")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES))
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pin()
    warnings.filterwarnings("ignore")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    found = {}
    for size in options.sizes:
        found[size] = run_size(size, options.kinds, options.rounds)
        show(size, found[size], options.kinds)
    met = judge(found)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "sizes": found, "met": met}, indent=2) + "\n")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
