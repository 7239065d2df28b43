"""Step time of the emitted Mamba-2 graph beside a plain torch.onnx export of the same torch step.

    python benchmarks/bench_step_graph.py [--json PATH] [--rounds N]

One thread pinned to one core, all contenders in the same run in interleaved rounds, both graphs stepped by the
same engine (kizzasi_edge.engines.ort: two bindings swapped each step), median of all steps. Contenders:

* emitted: `export_step(variant="fast")` and `variant="portable"`
* dynamo: `torch.onnx.export(dynamo=True)` of `StepModel.step`, unchanged
* dynamo, partial sums: the same exporter on a step rewritten by hand with the emitted graph's states (shows
  how much of the gain is the formulation and how much the operators)
* kizzasi 0.2.3 from PyPI, where installed: its own untrained Mamba2 of the same sizes, through its Python API

Requirement: emitted fast ≤ 0.6 × dynamo at 256/4 (exit code 1 otherwise).
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kizzasi_edge.bundle import Bundle, write_bundle
from kizzasi_edge.engines.ort import OrtEngine
from kizzasi_export import StepModel, build_model, export_step
from kizzasi_export.models.base import State
from kizzasi_export.models.mamba2 import Mamba2

INPUTS, OUTPUTS, STATE_DIM = 12, 6, 16
SIZES = ((256, 4), (64, 2))
LIMIT = 0.6
StepFunction = Callable[[Tensor, State], tuple[Tensor, State]]


class FlatStep(nn.Module):
    """A step with its states as positional tensors, as torch.onnx wants them."""

    def __init__(self, model: nn.Module, step: StepFunction, names: list[str]) -> None:
        super().__init__()
        self.model, self.step, self.names = model, step, names

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        y, following = self.step(x, dict(zip(self.names, states, strict=True)))
        return y, *(following[name] for name in self.names)


def partial_sum_step(model: StepModel) -> tuple[StepFunction, State]:
    """`Mamba2.step` with the emitted graph's states: FIR partial sums and a transposed SSM state."""
    net = model.network
    assert isinstance(net, Mamba2)
    init: State = {}
    for i, block in enumerate(net.backbone.blocks):
        m = block.mixer
        init[f"conv{i}"] = m.conv1d.bias.detach().repeat(1, m.K - 1, 1)
        init[f"ssm{i}"] = torch.zeros(1, m.H, m.N, m.P)

    def step(x: Tensor, state: State) -> tuple[Tensor, State]:
        u, following = net.input_projection(x), {}
        for i, block in enumerate(net.backbone.blocks):
            m = block.mixer
            z, xBC, dt = torch.split(m.in_proj(block.norm(u)), [m.inner, m.channels, m.H], -1)
            taps = m.conv1d.weight[:, 0].T.flip(0)
            sums = xBC[:, None] * taps + torch.cat([state[f"conv{i}"], m.conv1d.bias[None, None]], 1)
            v, B, C = torch.split(F.silu(sums[:, 0]), [m.inner, m.N, m.N], -1)
            dt = F.softplus(dt + m.dt_bias)
            v = v.reshape(-1, m.H, m.P)
            decay = torch.exp(dt * -m.A_log.exp())[..., None, None]
            ssm = decay * state[f"ssm{i}"] + B[:, None, :, None] * (dt[..., None] * v)[:, :, None]
            y = (C[:, None, None] @ ssm)[:, :, 0] + m.D[:, None] * v
            following |= {f"conv{i}": sums[:, 1:], f"ssm{i}": ssm}
            u = u + m.out_proj(m.norm(y.reshape(-1, m.inner), z))
        return net.output_projection(net.backbone.norm_f(u)), following

    return step, init


def dynamo_bundle(model: StepModel, like: Bundle, path: Path, step: StepFunction, init: State) -> Bundle:
    """torch.onnx's graph of `step`, made loadable by our engine: initial states and manifest are added."""
    names = list(init)
    program = torch.onnx.export(
        FlatStep(model, step, names).eval(),
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
        array = value.numpy()
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, f"{name}_init"))
        proto.graph.output.append(
            onnx.helper.make_tensor_value_info(f"{name}_init", onnx.TensorProto.FLOAT, array.shape)
        )
    del proto.metadata_props[:]
    manifest = like.manifest.model_dump()
    manifest["states"] = [{"name": name, "shape": list(value.shape)} for name, value in init.items()]
    return write_bundle(path, proto.SerializeToString(), type(like.manifest).model_validate(manifest))


def contenders(hidden: int, layers: int, folder: Path) -> dict[str, Callable[[], None]]:
    """Name → a call that steps once."""
    torch.manual_seed(0)
    model = build_model(
        "mamba2", input_dim=INPUTS, output_dim=OUTPUTS, hidden_dim=hidden, state_dim=STATE_DIM, num_layers=layers
    ).eval()
    names = {
        "input_names": [f"in{i}" for i in range(INPUTS)],
        "output_names": [f"out{i}" for i in range(OUTPUTS)],
    }
    bundles = {
        f"emitted {v}": export_step(model, folder / f"{v}.onnx", sample_rate_hz=500.0, variant=v, **names)
        for v in ("fast", "portable")
    }
    like = bundles["emitted fast"]
    bundles["dynamo"] = dynamo_bundle(model, like, folder / "d.onnx", model.step, model.initial_state(1))
    bundles["dynamo, partial sums"] = dynamo_bundle(model, like, folder / "p.onnx", *partial_sum_step(model))
    x = np.random.default_rng(0).standard_normal((64, INPUTS)).astype(np.float32)
    steps: dict[str, Callable[[], None]] = {}
    outputs = {}
    for name, bundle in bundles.items():
        engine = OrtEngine(bundle)
        outputs[name] = np.array([replay(engine, row) for row in x])
        steps[name] = engine_step(engine)
    for name, y in outputs.items():  # the same function, or the comparison means nothing
        np.testing.assert_allclose(y, outputs["dynamo"], atol=1e-4, err_msg=name)
    steps |= kizzasi_wheel(hidden, layers, x[0])
    return steps


def replay(engine: OrtEngine, x: np.ndarray) -> np.ndarray:
    engine.x[:] = x
    engine.run()
    engine.commit()
    return engine.y.copy()


def engine_step(engine: OrtEngine) -> Callable[[], None]:
    def step() -> None:
        engine.run()
        engine.commit()

    return step


def kizzasi_wheel(hidden: int, layers: int, x: np.ndarray) -> dict[str, Callable[[], None]]:
    """The published wheel's Mamba2 step, or nothing where it is not installed."""
    try:
        import kizzasi
    except ImportError:
        return {}
    config = kizzasi.Config(
        input_dim=INPUTS,
        output_dim=OUTPUTS,
        hidden_dim=hidden,
        num_layers=layers,
        state_dim=STATE_DIM,
        model_type="mamba2",
    )
    predictor = kizzasi.Predictor(config)
    return {"kizzasi 0.2.3 wheel": lambda: predictor.step(x)}


def measure(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, np.ndarray]:
    """Step times in µs; each round runs every contender for about 20 ms after a short warm-up."""
    times: dict[str, list[int]] = {name: [] for name in steps}
    clock = time.perf_counter_ns
    for _ in range(rounds):
        for name, step in steps.items():
            began = clock()
            for _ in range(3):
                step()
            count = max(3, int(2e7 / max((clock() - began) / 3, 1)))
            for _ in range(count):
                start = clock()
                step()
                times[name].append(clock() - start)
    return {name: np.array(values) / 1e3 for name, values in times.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description="Emitted step graph against a plain torch.onnx export.")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    warnings.filterwarnings("ignore")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    results, met = [], True
    for hidden, layers in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            times = measure(contenders(hidden, layers, Path(folder)), options.rounds)
        baseline = np.median(times["dynamo"])
        print(f"\nMamba2 {hidden}/{layers}, one thread{'':21}p50 µs    p99 µs   × dynamo")
        for name, values in times.items():
            p50, p99 = np.percentile(values, [50, 99])
            print(f"  {name:<36}{p50:10.1f}{p99:10.1f}{p50 / baseline:10.2f}")
            results.append(
                {"size": f"{hidden}/{layers}", "engine": name, "p50_us": p50, "p99_us": p99, "ratio": p50 / baseline}
            )
        if (hidden, layers) == SIZES[0]:
            met = bool(np.median(times["emitted fast"]) <= LIMIT * baseline)
            print(f"  requirement emitted fast ≤ {LIMIT} × dynamo: {'met' if met else 'NOT met'}")
    if options.json:
        options.json.write_text(json.dumps({"results": results, "met": met}, indent=2) + "\n")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
