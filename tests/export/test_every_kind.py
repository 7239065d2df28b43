"""What every kind promises, for every kind: parallel ≡ step, memory, finite gradients, and both exported variants."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graphs import optimised_ops

from kizzasi_edge import Predictor
from kizzasi_export import KINDS, StepModel, build_model, export_step, parity
from kizzasi_export.graph import Graph
from kizzasi_export.models import Normalizer, State
from kizzasi_export.verify import verify

SIZES: dict[str, Any] = {"input_dim": 4, "output_dim": 2, "hidden_dim": 32, "state_dim": 8, "num_layers": 2}
NAMES: dict[str, Any] = {
    "sample_rate_hz": 100.0,
    "input_names": ["a/position", "b/position", "c", "d"],
    "output_names": ["a/position", "b/position"],
}
HEADS: dict[str, dict[str, Any]] = {
    "continuous": {},
    "gaussian": {"head": "gaussian"},
    "categorical": {
        "head": "categorical",
        "tokenizer": {"kind": "mulaw", "vocab": 32, "low": [-1.0, -2.0], "high": [1.0, 3.0]},
    },
}

NODES = {
    "mamba": 22,
    "mamba2": 19,
    "rwkv4": 36,
    "rwkv6": 46,
    "rwkv7": 58,
    "s4": 20,
    "s4d": 15,
    "s5": 12,
    "transformer": 16,
}
"""Nodes of a fast layer, norms included: what a step costs at small widths."""

every_kind = pytest.mark.parametrize("kind", KINDS)


def make(kind: str, seed: int = 0, **changes: Any) -> StepModel:
    """A model whose every parameter has been moved away from special initial values (zeros, ones)."""
    torch.manual_seed(seed)
    model = build_model(kind, **{**SIZES, **changes}).eval()
    with torch.no_grad():
        for p in model.network.parameters():
            p.add_(0.1 * torch.randn_like(p) * (p.abs().mean() + 0.1))
    out = model.output_dim
    model.set_normalizer(Normalizer((0.5, -1.0, 0.0, 2.0), (2.0, 0.1, 1.0, 3.0), (0.2,) * out, (1.5,) * out))
    return model


def inputs(model: StepModel, steps: int, batch: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(parity.excitation(model, steps, batch, seed)).transpose(0, 1).contiguous()  # [B, T, in]


@torch.no_grad()
def stepped(model: StepModel, x: torch.Tensor, state: State | None = None) -> tuple[torch.Tensor, State]:
    state = model.initial_state(len(x)) if state is None else state
    ys = []
    for t in range(x.shape[1]):
        y, state = model.step(x[:, t], state)
        ys.append(y)
    return torch.stack(ys, 1), state


def relative(found: torch.Tensor, expected: torch.Tensor, scale: torch.Tensor | None = None) -> float:
    """Largest error in units of each output's standard deviation (in `scale`, by default in `expected`)."""
    spread = (expected if scale is None else scale).std((0, 1))
    return float(((found - expected).abs().amax((0, 1)) / spread).max())


@every_kind
@pytest.mark.parametrize(("steps", "batch"), [(1, 1), (2, 3), (129, 3), (2048, 2)])
@torch.no_grad()
def test_forward_is_repeated_step(kind: str, steps: int, batch: int) -> None:
    model = make(kind)
    x = inputs(model, max(steps, 32), batch)
    y, _ = stepped(model, x)
    assert relative(model(x[:, :steps]), y[:, :steps], scale=y) <= 1e-4


@every_kind
@torch.no_grad()
def test_scan_continues_from_any_state(kind: str) -> None:
    """Scan, then scan, then step, then scan: the same as one run; chunks of every awkward length."""
    model = make(kind, context_window=48)
    x = inputs(model, 301, 2)
    expected, last = stepped(model, x)
    state, ys, at = model.initial_state(2), [], 0
    for length in (1, 63, 1, 64, 65, 7, 99):
        found, state = model.scan(x[:, at : at + length], state)
        ys.append(found["y"])
        at += length
        if length == 7:  # a few steps in between
            y, state = model.step(x[:, at], state)
            ys.append(y[:, None])
            at += 1
    assert at == 301
    assert relative(torch.cat(ys, 1), expected) <= 1e-4
    assert state.keys() == last.keys()
    for name, value in last.items():
        scale = value.double().std() + 1e-3
        assert float((state[name].double() - value.double()).abs().max() / scale) <= 1e-3, name


@every_kind
@torch.no_grad()
def test_steps_do_not_touch_the_state_they_start_from(kind: str) -> None:
    model = make(kind)
    x = inputs(model, 20, 2)
    _, state = stepped(model, x[:, :10])
    copies = {name: value.clone() for name, value in state.items()}
    model.step(x[:, 10], state)
    model.scan(x[:, 10:], state)
    for name, value in state.items():
        assert torch.equal(value, copies[name]), name


@every_kind
@torch.no_grad()
def test_the_past_matters_and_the_future_does_not(kind: str) -> None:
    model = make(kind)
    x = inputs(model, 120, 1)
    before = model(x)
    later = x.clone()
    later[:, 60:] += 1.0
    assert relative(model(later)[:, :60], before[:, :60]) <= 1e-4  # causal
    earlier = x.clone()
    earlier[:, :59] += 1.0
    assert (model(earlier)[:, 60:] - before[:, 60:]).abs().max() > 1e-3  # has memory


@every_kind
def test_gradients_are_finite_and_reach_every_parameter(kind: str) -> None:
    model = make(kind).train()
    x = inputs(model, 300, 2).requires_grad_()
    model(x).square().mean().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        assert torch.isfinite(p.grad).all(), name
        assert p.grad.abs().max() > 0, name


@every_kind
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision(kind: str, dtype: torch.dtype) -> None:
    """As Lightning's "bf16-mixed" and "16-mixed" train; what is carried from chunk to chunk stays float32."""
    model = make(kind).train()
    x = inputs(model, 70, 2)
    with torch.autocast("cpu", dtype=dtype):
        first, state = model.scan(x[:, :40], model.initial_state(2))
        second, state = model.scan(x[:, 40:], state)
    found = torch.cat([first["y"], second["y"]], 1)
    found.square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.network.parameters())
    assert {v.dtype for v in state.values()} <= {torch.float32, torch.int64}
    assert relative(found.detach(), model(x).detach()) <= 0.1


@every_kind
def test_state_dict_and_config_rebuild_the_model(kind: str) -> None:
    model = make(kind, reference_tau=5.0, anchor=[0, 1]).double()
    rebuilt = build_model(**model.config).double()
    rebuilt.load_state_dict(model.state_dict())
    x = inputs(model, 20, 2).double()
    assert torch.equal(rebuilt(x), model(x))
    state = model.initial_state(2)
    after = model.step(x[:, 0], state)[1]
    assert {k: v.dtype for k, v in state.items()} == {k: v.dtype for k, v in after.items()}


@every_kind
@pytest.mark.parametrize("shape", [(2, 4, 1), (2, 4, 5), (2, 0, 4), (4, 4)])
def test_inputs_of_another_shape_are_refused(kind: str, shape: tuple[int, ...]) -> None:
    """One channel for four would broadcast: a wrong result, silently."""
    with pytest.raises(
        ValueError, match=rf"x: found shape \[{', '.join(map(str, shape))}\], expected \[B ≥ 1, T ≥ 1, 4\]"
    ):
        make(kind)(torch.zeros(shape))


@every_kind
@pytest.mark.parametrize("size", ["hidden_dim", "state_dim", "num_layers", "context_window", "input_dim", "output_dim"])
@pytest.mark.parametrize("value", [0, -1, 2.5, "8", True])
def test_sizes_are_whole_numbers(kind: str, size: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{size} = {value!r}, expected (a whole number )?≥ 1"):
        build_model(kind, **{**SIZES, size: value})


@every_kind
@torch.no_grad()
def test_long_and_large_inputs_stay_finite(kind: str) -> None:
    model = make(kind)
    x = inputs(model, 600, 1) * 30
    assert torch.isfinite(model(x)).all()
    y, _ = stepped(model, x)
    assert torch.isfinite(y).all()


@every_kind
@pytest.mark.parametrize("variant", ["fast", "portable"])
@pytest.mark.parametrize("batch", [False, True])
def test_parity(kind: str, variant: Any, batch: bool, tmp_path: Path) -> None:
    model = make(kind, context_window=64)
    bundle = export_step(model, tmp_path / "m.onnx", variant=variant, batch=batch, **NAMES)
    found = bundle.manifest.parity
    assert found.steps >= 1000
    assert found.relative_error <= found.bound == 1e-5
    assert verify(tmp_path / "m.onnx").passed
    x = parity.excitation(model, 200, 3 if batch else 1, seed=5)  # again, on other inputs
    y, expected = parity.run_bundle(bundle, x)["y"], parity.run_torch(model, x)["y"]
    assert expected.std((0, 1)).min() > 1e-2
    assert (np.abs(y - expected) / expected.std((0, 1))).max() <= 1e-5


@every_kind
@pytest.mark.parametrize("head", ["gaussian", "categorical"])
def test_heads(kind: str, head: str, tmp_path: Path) -> None:
    model = make(kind, **HEADS[head])
    bundle = export_step(model, tmp_path / "m.onnx", **NAMES)
    assert bundle.manifest.head.kind == head
    predictor = Predictor(bundle)
    state = model.initial_state(1)
    for row in parity.excitation(model, 50, 1, seed=3)[:, 0]:
        y = predictor.step(row)
        with torch.no_grad():
            expected, state = model.step_outputs(torch.from_numpy(row)[None], state)
        for name, array in predictor.head.items():
            torch.testing.assert_close(torch.from_numpy(array.copy()), expected[name][0], rtol=1e-4, atol=1e-4)
        if head == "gaussian":
            torch.testing.assert_close(torch.from_numpy(y), expected["y"][0], rtol=1e-4, atol=1e-4)
        else:
            codebook = np.array(bundle.manifest.tokenizer.codebook, np.float32)  # type: ignore[union-attr]
            token = predictor.head["logits"].argmax(-1)
            assert np.array_equal(y, codebook[np.arange(2), token])


@every_kind
def test_snapshot_restore_reset(kind: str, tmp_path: Path) -> None:
    predictor = Predictor(export_step(make(kind, context_window=16), tmp_path / "m.onnx", **NAMES))
    x = np.random.default_rng(0).standard_normal((80, 4)).astype(np.float32)
    first = np.array([predictor.step(row) for row in x])
    predictor.reset()
    half = np.array([predictor.step(row) for row in x[:40]])
    snapshot = predictor.snapshot()
    rest = np.array([predictor.step(row) for row in x[40:]])
    assert np.array_equal(np.concatenate([half, rest]), first)
    rollout = predictor.predict_n(x[0], 30)  # on copies: moves nothing
    predictor.restore(snapshot)
    assert np.array_equal(np.array([predictor.step(row) for row in x[40:]]), first[40:])
    assert np.isfinite(rollout).all()


@every_kind
@pytest.mark.parametrize("variant", ["fast", "portable"])
def test_onnxruntime_keeps_the_graph_as_emitted(kind: str, variant: Any, tmp_path: Path) -> None:
    """Few nodes, and ENABLE_BASIC fuses none into slower ones (a MatMul + Add becomes Reshape, Gemm, Reshape)."""
    model = make(kind)
    model.set_normalizer(Normalizer.identity(4, 2))
    graph = Graph(variant)
    model.emit(graph)
    if variant == "fast":
        assert graph.count("layers.1") == NODES[kind]
    assert optimised_ops(graph.build(), tmp_path) == Counter(n.op_type for n in graph.nodes)
