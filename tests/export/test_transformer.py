"""The Transformer: transformers' Mistral as an oracle, its window, days of positions, and the ring inside the graph."""

from __future__ import annotations

import copy
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from graphs import optimised_ops
from torch import Tensor

from kizzasi_edge import Predictor
from kizzasi_edge.bundle import Bundle
from kizzasi_edge.engines import OrtEngine
from kizzasi_edge.errors import BundleError, ModelError
from kizzasi_export import StepModel, build_model, export_step, parity
from kizzasi_export.graph import Graph, as_array
from kizzasi_export.models import State, rotary, transformer
from kizzasi_export.models.transformer import Transformer, TransformerConfig

DAYS = 10**9
NAMES: dict[str, Any] = {"sample_rate_hz": 100.0, "input_names": ["a", "b", "c"], "output_names": ["a", "b"]}


def make(seed: int = 0, **changes: Any) -> StepModel:
    torch.manual_seed(seed)
    sizes = {"input_dim": 3, "output_dim": 2, "hidden_dim": 32, "num_layers": 2, "context_window": 8, "head_dim": 8}
    model = build_model("transformer", **{**sizes, **changes}).eval()
    with torch.no_grad():
        for p in model.network.parameters():
            p.mul_(1.5).add_(0.05 * torch.randn_like(p))
    return model


def network(model: StepModel) -> Transformer:
    assert isinstance(model.network, Transformer)
    return model.network


@torch.no_grad()
def stepped(model: StepModel, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
    state = model.initial_state(len(x)) if state is None else state
    ys = []
    for t in range(x.shape[1]):
        y, state = model.step(x[:, t], state)
        ys.append(y)
    return torch.stack(ys, 1), state


def relative(found: Tensor, expected: Tensor) -> float:
    assert expected.std((0, 1)).min() > 1e-2
    return float(((found - expected).abs().amax((0, 1)) / expected.std((0, 1))).max())


@pytest.mark.parametrize("window", [1, 24, 128])
@torch.no_grad()
def test_the_same_function_as_transformers_mistral(window: int) -> None:
    """300 steps through windows of 1, 24 and 128; one that is longer than the run would be plain Llama."""
    from transformers import MistralConfig, MistralModel

    net = network(make(hidden_dim=64, num_layers=3, head_dim=16, context_window=window))
    oracle = MistralModel(
        MistralConfig(
            vocab_size=1,
            hidden_size=64,
            intermediate_size=net.cfg.inner,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=4,
            head_dim=16,
            sliding_window=window,
            rms_norm_eps=1e-5,
            attn_implementation="eager",
        )
    ).eval()
    assert oracle.config.rope_parameters["rope_theta"] == rotary.BASE
    weights = {
        name: p for name, p in net.state_dict().items() if not name.endswith(("put_projection.weight", "n.bias"))
    }
    missing, unexpected = oracle.load_state_dict(weights, strict=False)
    assert (missing, unexpected) == (["embed_tokens.weight"], [])
    x = torch.randn(2, 300, 3)
    expected = net.output_projection(oracle(inputs_embeds=net.input_projection(x)).last_hidden_state)
    assert relative(net(x), expected) <= 1e-4
    state, ys = net.initial_state(2), []
    for t in range(300):
        y, state = net.step(x[:, t], state)
        ys.append(y)
    assert relative(torch.stack(ys, 1), expected) <= 1e-4


@torch.no_grad()
def test_the_same_function_as_transformers_llama() -> None:
    from transformers import LlamaConfig, LlamaModel

    net = network(make(context_window=64))
    oracle = LlamaModel(
        LlamaConfig(
            vocab_size=1,
            hidden_size=32,
            intermediate_size=net.cfg.inner,
            num_hidden_layers=2,
            num_attention_heads=4,
            rms_norm_eps=1e-5,
        )
    ).eval()
    oracle.load_state_dict(net.state_dict(), strict=False)
    x = torch.randn(1, 64, 3)
    expected = net.output_projection(oracle(inputs_embeds=net.input_projection(x)).last_hidden_state)
    assert relative(net(x), expected) <= 1e-4


def test_parameter_names_and_shapes_are_llamas() -> None:
    model = build_model("transformer", input_dim=3, output_dim=2, hidden_dim=64, num_layers=1)
    shapes = {name: tuple(p.shape) for name, p in model.network.named_parameters()}
    assert shapes == {
        "input_projection.weight": (64, 3),
        "input_projection.bias": (64,),
        "layers.0.input_layernorm.weight": (64,),
        "layers.0.self_attn.q_proj.weight": (64, 64),
        "layers.0.self_attn.k_proj.weight": (64, 64),
        "layers.0.self_attn.v_proj.weight": (64, 64),
        "layers.0.self_attn.o_proj.weight": (64, 64),
        "layers.0.post_attention_layernorm.weight": (64,),
        "layers.0.mlp.gate_proj.weight": (160, 64),
        "layers.0.mlp.up_proj.weight": (160, 64),
        "layers.0.mlp.down_proj.weight": (64, 160),
        "norm.weight": (64,),
        "output_projection.weight": (2, 64),
        "output_projection.bias": (2,),
    }
    gelu = build_model("transformer", input_dim=3, output_dim=2, hidden_dim=64, num_layers=1, ffn="gelu")
    assert network(gelu).blocks[0].mlp.up_proj.weight.shape == (256, 64)
    assert not any("gate" in name for name, _ in gelu.named_parameters())


@pytest.mark.parametrize(("hidden", "head", "inner"), [(256, 64, 672), (96, 32, 256), (6, 2, 32)])
def test_default_sizes(hidden: int, head: int, inner: int) -> None:
    cfg = TransformerConfig(1, 1, hidden_dim=hidden)
    assert (cfg.head, cfg.inner, cfg.context_window) == (head, inner, 128)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"hidden_dim": 5}, "hidden_dim = 5, expected an even number"),
        ({"head_dim": 12}, "head_dim = 12"),
        ({"head_dim": 0}, "head_dim = 0"),
        ({"ffn": "relu"}, "ffn = 'relu'"),
        ({"ffn_dim": 0}, "ffn_dim = 0"),
        ({"context_window": 0}, "context_window = 0"),
    ],
)
def test_impossible_sizes_are_refused(change: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        build_model("transformer", **{"input_dim": 3, "output_dim": 2, **change})


@torch.no_grad()
def test_the_window_is_exact() -> None:
    """One layer sees the last 8 inputs, its own among them, and not the one before."""
    model = make(num_layers=1)
    x = torch.randn(1, 40, 3)
    x.requires_grad_()
    with torch.enable_grad():
        (seen,) = torch.autograd.grad(model(x)[0, 30].sum(), x)
    reached = seen[0].abs().amax(-1) > 0
    assert reached.nonzero()[:, 0].tolist() == list(range(23, 31))


@torch.no_grad()
def test_streams_of_one_batch_may_be_at_different_positions() -> None:
    model = make(num_layers=2, context_window=150)  # more than a block of queries
    x = torch.randn(3, 400, 3)
    states = []
    for i, past in enumerate((0, 5, 333)):
        _, state = (
            stepped(model, torch.randn(1, past, 3) if past else x[:1, :0]) if past else (0, model.initial_state(1))
        )
        states.append(state)
        assert state["position"].item() == past, i
    together = {name: torch.cat([state[name] for state in states]) for name in states[0]}
    found, after = model.scan(x, together)
    for i, state in enumerate(states):
        expected, last = stepped(model, x[i : i + 1], state)
        assert relative(found["y"][i : i + 1], expected) <= 1e-4
        assert after["position"][i] == last["position"][0]
        for name in ("k1", "v1"):
            torch.testing.assert_close(after[name][i], last[name][0], rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_unreached_slots_stay_zero_in_scan_and_step() -> None:
    model = make()
    x = torch.randn(1, 5, 3)
    for state in (stepped(model, x)[1], model.scan(x, model.initial_state(1))[1]):
        for name in ("k0", "v0", "k1", "v1"):
            assert (state[name][:, :, 5:] == 0).all()
            assert (state[name][:, :, :5] != 0).all()


def test_angles_are_exact_after_days() -> None:
    """Against rational arithmetic, with 40 digits of 2π. A float32 position alone would be off by radians."""
    turn = Fraction("6.283185307179586476925286766559005768394")
    positions = [DAYS, DAYS + 1, DAYS + 12345]
    cos, sin = rotary.angles(torch.tensor([positions]), 64, torch.float64)
    for row, position in enumerate(positions):
        for i, rate in enumerate(rotary.frequencies(64)):
            exact = float(Fraction(position) * Fraction(float(rate)) % turn)
            assert abs(float(cos[0, row, i]) - np.cos(exact)) < 3e-7
            assert abs(float(sin[0, row, i]) - np.sin(exact)) < 3e-7


def started(model: StepModel, position: int, dtype: torch.dtype = torch.float32) -> State:
    state = model.initial_state(1)
    return {name: value.to(dtype) for name, value in state.items()} | {"position": torch.full((1, 1), position)}


@torch.no_grad()
def test_float32_steps_after_days_follow_float64() -> None:
    model = make(hidden_dim=64, head_dim=None, context_window=48)
    x = torch.randn(1, 200, 3)
    exact = copy.deepcopy(model).double()
    expected, _ = stepped(exact, x.double(), started(model, DAYS, torch.float64))
    found, _ = stepped(model, x, started(model, DAYS))
    assert relative(found.double(), expected) <= 2e-5
    scanned, _ = model.scan(x, started(model, DAYS))
    assert relative(scanned["y"].double(), expected) <= 2e-5


@torch.no_grad()
def test_only_distances_matter() -> None:
    """Eleven days in, the outputs are those of any other start with as full a ring."""
    model = make(context_window=48)
    x = torch.randn(1, 200, 3)
    early, _ = stepped(model, x, started(model, 48))
    late, _ = stepped(model, x, started(model, 48 * (DAYS // 48)))
    assert relative(late, early) <= 2e-5


@pytest.mark.parametrize("variant", ["fast", "portable"])
def test_the_graph_after_days(variant: Any, tmp_path: Path) -> None:
    """Three streams at once, new and old, are torch's, and as near to exact arithmetic as torch's float32 is."""
    model = make(context_window=24, head_dim=16)
    bundle = export_step(model, tmp_path / "m.onnx", variant=variant, batch=True, **NAMES)
    position = torch.tensor([[0], [77], [DAYS]])
    x = parity.excitation(model, 200, 3, seed=7)
    found = parity.run_bundle(bundle, x, {"position": position.numpy()})
    expected = parity.run_torch(model, x, model.initial_state(3) | {"position": position})
    assert parity.deviation(found, expected).relative_error <= 1e-5
    start = {name: value.double() for name, value in model.initial_state(3).items()} | {"position": position}
    exact, _ = stepped(copy.deepcopy(model).double(), torch.from_numpy(x).double().transpose(0, 1), start)
    truth = {"y": exact.transpose(0, 1).numpy()}
    torch_error = parity.deviation(expected, truth).relative_error
    assert parity.deviation(found, truth).relative_error <= 3e-6 + 2 * torch_error


def _float32_angles(g: Graph, position: str, rates: np.ndarray) -> tuple[str, str]:
    counted = g.op("Cast", [position], to=onnx.TensorProto.FLOAT)
    angle = g.op("Mul", [counted, g.const("rates", rates.astype(np.float32))])
    return g.op("Cos", [angle]), g.op("Sin", [angle])


def test_export_refuses_a_graph_that_is_right_for_an_hour_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting in float32 passes 1024 steps from the start, and is wrong where `parity_states` looks."""
    monkeypatch.setattr(transformer, "emit_angles", _float32_angles)
    with pytest.raises(BundleError, match="parity"):
        export_step(make(), tmp_path / "m.onnx", **NAMES)
    monkeypatch.setattr(Transformer, "parity_states", lambda self, batch: [])
    export_step(make(), tmp_path / "m.onnx", **NAMES)


@pytest.mark.parametrize("ffn", ["swiglu", "gelu"])
def test_onnxruntime_keeps_the_fast_graph_as_emitted(ffn: str, tmp_path: Path) -> None:
    graph = Graph("fast")
    make(ffn=ffn).emit(graph)
    layer = 16 if ffn == "swiglu" else 14
    assert [graph.count(f"layers.{i}") for i in range(2)] == [layer, layer]
    assert len(graph.nodes) == 2 * layer + 11 + 5  # 11 for the position; two projections, their reshapes and the norm
    assert optimised_ops(graph.build(), tmp_path) == Counter(n.op_type for n in graph.nodes)


def test_rings_are_in_place_in_the_fast_variant_only() -> None:
    for graph, opset in ((Graph("fast"), 24), (Graph("portable"), 17)):
        make().emit(graph)
        assert graph.opsets[""] == opset
        ring = ((4, 8, 8), np.dtype(np.float32), graph.fast)
        found = {name: (state.shape, state.dtype, state.in_place) for name, state in graph.states.items()}
        assert found == {"position": ((1,), np.dtype(np.int64), False), "k0": ring, "v0": ring, "k1": ring, "v1": ring}


@pytest.mark.parametrize("variant", ["fast", "portable"])
def test_gelu_parity(variant: Any, tmp_path: Path) -> None:
    bundle = export_step(make(ffn="gelu", ffn_dim=48, num_layers=1), tmp_path / "m.onnx", variant=variant, **NAMES)
    assert bundle.manifest.parity.relative_error <= 1e-5


def run(engine: OrtEngine, x: np.ndarray) -> np.ndarray:
    ys = []
    for row in x:
        engine.x[...] = row
        engine.run()
        engine.commit()
        ys.append(engine.y.copy())
    return np.array(ys)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A window of 8, with rings written in place."""
    return export_step(make(), tmp_path_factory.mktemp("ring") / "ring.onnx", **NAMES)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30, 0.25])
def test_abandoned_steps_leave_no_trace(bundle: Bundle, bad: float) -> None:
    """Before each of 30 steps (ring filling, full, and twice around) another input is run and not adopted."""
    x = np.random.default_rng(0).standard_normal((30, 3)).astype(np.float32)
    expected = run(OrtEngine(bundle), x)
    engine = OrtEngine(bundle)
    for row, y in zip(x, expected, strict=True):
        engine.x[:] = bad
        engine.run()
        assert run(engine, row[None]).tobytes() == y.tobytes()


def test_a_snapshot_after_an_abandoned_step_is_good(bundle: Bundle) -> None:
    x = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
    for at in (3, 8, 21):
        engine, other = OrtEngine(bundle), OrtEngine(bundle)
        run(engine, x[:at])
        engine.x[:] = np.nan
        engine.run()
        kept, twin = engine.state(), engine.fork()
        assert np.isnan(kept["k1"]).any()  # in the slot that the next step writes first
        expected = run(engine, x[at:])
        assert np.isfinite(expected).all()
        assert run(twin, x[at:]).tobytes() == expected.tobytes()  # a ring of its own
        other.load_state(kept)
        assert run(other, x[at:]).tobytes() == expected.tobytes()
        engine.reset()
        assert run(engine, x[:at]).tobytes() == run(OrtEngine(bundle), x[:at]).tobytes()


def test_forks_do_not_share_rings(bundle: Bundle) -> None:
    x = np.random.default_rng(0).standard_normal((60, 3)).astype(np.float32)
    expected = run(OrtEngine(bundle), x)
    engine = OrtEngine(bundle)
    run(engine, x[:20])
    twin = engine.fork()
    run(twin, -x[:20])  # over every slot, with other numbers
    assert run(engine, x[20:]).tobytes() == expected[20:].tobytes()


def test_a_step_that_fails_in_the_predictor(bundle: Bundle) -> None:
    """An input that overflows: refused, without blaming the state for it, and gone with the next step."""
    x = np.random.default_rng(0).standard_normal((30, 3)).astype(np.float32)
    predictor, expected = Predictor(bundle), Predictor(bundle)
    for i, row in enumerate(x):
        if i in (2, 7, 8, 20):
            with pytest.raises(ModelError, match=r"expected a finite number$"):
                predictor.step(np.full(3, 3e38, np.float32))
        assert predictor.step(row).tobytes() == expected.step(row).tobytes()


def test_q_k_and_v_are_one_product_head_by_head() -> None:
    graph = Graph("fast")
    model = make()
    model.emit(graph)
    attention = network(model).blocks[1].self_attn
    stacked = attention._stacked().reshape(4, 3, 8, 32)
    torch.testing.assert_close(stacked[2, 1], attention.k_proj.weight[16:24])
    torch.testing.assert_close(stacked[3, 2], attention.v_proj.weight[24:])
    core = onnx.load_from_string(graph.build())
    (stored,) = (t for t in core.graph.initializer if t.name == "layers.1.qkv_proj")
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(stored), as_array(attention._stacked()).T)
