"""Fewer bits: the stored blocks, what onnxruntime makes of them, the stated errors, refusals, and training for it."""

from __future__ import annotations

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from graphs import optimised_ops
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from torch import Tensor
from typer.testing import CliRunner

from kizzasi_edge import Predictor
from kizzasi_edge.bench import bench
from kizzasi_edge.bundle import Bundle, write_bundle
from kizzasi_edge.errors import BundleError
from kizzasi_edge.inspect import inspect, replay_parity
from kizzasi_edge.onnx_wire import gemv_shapes
from kizzasi_export import StepModel, blocks, build_model, export_step, parity, quantize
from kizzasi_export.checkpoint import Checkpoint, ExportSpec
from kizzasi_export.cli import app
from kizzasi_export.graph import Graph
from kizzasi_export.models import Normalizer
from kizzasi_export.verify import verify

NAMES: dict[str, Any] = {
    "sample_rate_hz": 100.0,
    "input_names": ["a/position", "b/position", "c", "d"],
    "output_names": ["a/position", "b/position"],
}
INPUT, OUTPUT = (96, 4), (2, 96)  # the projections, too small for int8; K is the second
IN_PROJ, OUT_PROJ = (403, 96), (96, 192)


def make(**changes: Any) -> StepModel:
    torch.manual_seed(3)
    sizes = {"input_dim": 4, "output_dim": 2, "hidden_dim": 96, "state_dim": 8, "num_layers": 1}
    model = build_model("mamba2", **{**sizes, **changes}).eval()
    model.set_normalizer(Normalizer((0.5, -1.0, 0.0, 2.0), (2.0, 0.1, 1.0, 3.0), (0.2, -0.4), (1.5, 0.7)))
    return model


@pytest.fixture(scope="module")
def model() -> StepModel:
    torch.set_num_threads(1)
    return make()


@pytest.fixture(scope="module")
def files(model: StepModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    folder = tmp_path_factory.mktemp("quantized")
    made = {"f32": export_step(model, folder / "f32.onnx", **NAMES)}
    for precision in ("int8", "f16"):
        made[precision] = export_step(model, folder / f"{precision}.onnx", quantize=precision, **NAMES)
    return made


@pytest.fixture(scope="module")
def checkpoint(model: StepModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "model.safetensors"
    Checkpoint(model, ExportSpec(**NAMES), {}).save(path)
    return path


def kernel(weight: Tensor, x: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """x [B, 1, K] through the node that `Graph.linear` emits for int8."""
    q, scales = blocks.to_blocks(weight)
    rows, columns = weight.shape
    node = helper.make_node(
        "MatMulNBits", ["x", "q", "s", "", "", "b"], ["y"], domain="com.microsoft",
        N=rows, K=columns, bits=8, block_size=blocks.BLOCK, accuracy_level=4,
    )  # fmt: skip
    constants = {"q": q.numpy(), "s": scales.numpy(), "b": bias}
    graph = helper.make_graph(
        [node], "one",
        [helper.make_tensor_value_info("x", 1, x.shape)], [helper.make_tensor_value_info("y", 1, [*x.shape[:2], rows])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    core = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    session = onnxruntime.InferenceSession(core, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]  # type: ignore[no-any-return]


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 70), columns=st.integers(1, 150), streams=st.integers(1, 3), seed=st.integers(0, 99))
def test_onnxruntime_computes_with_exactly_these_blocks(rows: int, columns: int, streams: int, seed: int) -> None:
    """Also where a row is not whole blocks; its inputs are rounded in the same blocks."""
    rng = np.random.default_rng(seed)
    w, x = (rng.standard_normal(s).astype(np.float32) for s in ((rows, columns), (streams, 1, columns)))
    bias = rng.standard_normal(rows).astype(np.float32)
    weight = torch.from_numpy(w)
    rounded_x = blocks.rounded(torch.from_numpy(x[:, 0])).numpy()
    expected = rounded_x.astype(np.float64) @ blocks.rounded(weight).numpy().astype(np.float64).T + bias
    np.testing.assert_allclose(kernel(weight, x, bias)[:, 0], expected, atol=2e-6 * np.sqrt(columns) * 4, rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 9), columns=st.integers(1, 100), power=st.integers(-20, 20), seed=st.integers(0, 99))
def test_blocks(rows: int, columns: int, power: int, seed: int) -> None:
    """Half a step at most, zeros stay zero, a second rounding changes nothing."""
    w = np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32) * np.float32(10.0**power)
    w[0, ::3] = 0
    q, scales = blocks.to_blocks(torch.from_numpy(w))
    assert q.shape == (rows, -(-columns // 32), 32)
    assert q.dtype == torch.uint8
    assert int(q.min()) >= 1  # symmetric: -128 is never used
    rounded = blocks.from_blocks(q, scales, columns).numpy()
    step = np.repeat(scales.numpy(), 32, axis=1)[:, :columns]
    assert (np.abs(rounded - w) <= 0.5001 * step).all()
    assert (rounded[w == 0] == 0).all()
    again = blocks.rounded(torch.from_numpy(rounded)).numpy()
    np.testing.assert_allclose(again, rounded, rtol=1e-6)


def test_what_is_stored(files: dict[str, Bundle]) -> None:
    sizes = {name: bundle.path.stat().st_size for name, bundle in files.items()}
    assert sizes["int8"] < 0.45 * sizes["f32"]
    assert sizes["f16"] < 0.6 * sizes["f32"]
    big = int(np.prod(IN_PROJ) + np.prod(OUT_PROJ))
    section = files["int8"].manifest.quantization
    assert section is not None
    assert (section.matrices, section.weights, section.block) == (2, big, 32)
    ops = [node.op_type for node in onnx.load(files["int8"].path).graph.node]
    assert (ops.count("MatMulNBits"), ops.count("Gemm")) == (2, 2)
    half = files["f16"].manifest.quantization
    assert half is not None
    assert (half.matrices, half.weights, half.block) == (2, big, None)
    types = {t.name: t.data_type for t in onnx.load(files["f16"].path).graph.initializer}
    assert sum(kind == onnx.TensorProto.FLOAT16 for kind in types.values()) == 2


def test_onnxruntime_folds_the_half_floats_at_load(files: dict[str, Bundle], tmp_path: Path) -> None:
    plain = Counter(node.op_type for node in onnx.load(files["f32"].path).graph.node)
    assert optimised_ops(files["f16"].bytes, tmp_path) == plain


@pytest.mark.parametrize("precision", ["int8", "f16"])
def test_the_stated_errors_are_the_errors(precision: str, model: StepModel, files: dict[str, Bundle]) -> None:
    """Measured again without the exporter's code: torch's and the Predictor's own loops."""
    bundle = files[precision]
    section = bundle.manifest.quantization
    assert section is not None
    assert bundle.manifest.precision == precision
    assert bundle.manifest.parity.relative_error <= bundle.manifest.parity.bound == 1e-5
    assert section.bound == {"int8": 0.1, "f16": 5e-3}[precision]
    assert section.free_run_bound == 4 * section.bound
    predictor, state = Predictor(bundle), model.initial_state(1)
    x = parity.excitation(model, section.steps, 1, bundle.manifest.parity.vector.seed)[:, 0]
    given, expected = [], []
    with torch.no_grad():
        for row in x:
            given.append(predictor.step(row))
            y, state = model.step(torch.from_numpy(row)[None], state)
            expected.append(y[0].numpy())
        free = predictor.predict_n(x[-1] * [0, 0, 1, 1] + [*given[-1], 0, 0], section.free_run_steps)
        held, ys = x[-1].copy(), [expected[-1]]
        for _ in range(section.free_run_steps):
            held[:2] = ys[-1]
            y, state = model.step(torch.from_numpy(held)[None], state)
            ys.append(y[0].numpy())
    scale = np.std(expected, axis=0)
    np.testing.assert_allclose(section.scale, scale, rtol=1e-4)
    error = (np.abs(np.array(given) - expected) / scale).max()
    assert error == pytest.approx(section.open_loop_error, rel=1e-2)
    assert error > 1e-4  # it is a different model
    assert (np.abs(free - ys[1:]) / scale).max() == pytest.approx(section.free_run_error, rel=0.2)


@pytest.mark.parametrize("batch", [False, True])
def test_portable_half_floats(batch: bool, model: StepModel, tmp_path: Path) -> None:
    bundle = export_step(model, tmp_path / "m.onnx", quantize="f16", variant="portable", batch=batch, **NAMES)
    assert verify(bundle.path).passed
    assert {node.domain for node in onnx.load(bundle.path).graph.node} == {""}


def test_int8_streams(model: StepModel, tmp_path: Path) -> None:
    bundle = export_step(model, tmp_path / "m.onnx", quantize="int8", batch=True, **NAMES)
    x = parity.excitation(model, 40, 3, 1)
    y, alone = parity.run_bundle(bundle, x)["y"], parity.run_bundle(bundle, x[:, :1])["y"]
    np.testing.assert_allclose(y[:, :1], alone, atol=0.05)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"quantize": "int8", "variant": "portable"}, "MatMulNBits, which is no standard operator"),
        ({"quantize": "int4"}, "quantize: found 'int4', expected int8 or f16"),
        (
            {"quantize": "int8", "bound": 1e-3},
            r"differs from float32 by .* with the same inputs, expected at most 0.001",
        ),
        ({"quantize": "f16", "bound": 1e-5}, "with the same inputs, expected at most 1e-05"),
        ({"quantize": "f16", "bound": -1.0}, "bound: found -1.0"),
        ({"bound": 0.1}, "bound: found 0.1 without quantize"),
        ({"kind": "mine"}, "kind: found 'mine', expected none"),
    ],
)
def test_refusals_leave_the_old_file(change: dict[str, Any], match: str, model: StepModel, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("old")
    with pytest.raises(BundleError, match=match):
        export_step(model, tmp_path / "m.onnx", **change, **NAMES)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("m.onnx", "old")]


def test_a_free_run_above_its_bound_is_refused(
    model: StepModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize, "FREE_RUN_FACTOR", 1e-3)
    with pytest.raises(BundleError, match=r"running free, expected at most 0\.0001"):
        export_step(model, tmp_path / "m.onnx", quantize="int8", **NAMES)
    assert list(tmp_path.iterdir()) == []


def test_too_small_and_too_large_weights(tmp_path: Path) -> None:
    small = make(hidden_dim=16)
    with pytest.raises(BundleError, match="no weight matrix of at least 16384 values"):
        export_step(small, tmp_path / "m.onnx", quantize="int8", **NAMES)
    with torch.no_grad():
        small.network.backbone.blocks[0].mixer.in_proj.weight[0, 0] = 1e5
    with pytest.raises(BundleError, match="in_proj holds 100000, a half float reaches 65504"):
        Graph("fast", quantize="f16").matmul("x", "in_proj", small.network.backbone.blocks[0].mixer.in_proj.weight)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("precision", ["int8", "f16"])
def test_verify(precision: str, files: dict[str, Bundle], checkpoint: Path) -> None:
    path, section = files[precision].path, files[precision].manifest.quantization
    assert section is not None
    replayed = verify(path)
    assert replayed.passed
    assert (replayed.mode, replayed.precision, replayed.bound) == ("replay", precision, section.bound)
    assert (replayed.error_from_torch, replayed.relative_error <= 1e-5) == (section.open_loop_error, True)
    beside = verify(path, checkpoint=checkpoint)
    assert beside.passed
    assert beside.free_run is not None
    assert (beside.steps, beside.free_run.steps) == (section.steps, section.free_run_steps)
    assert beside.relative_error == pytest.approx(section.open_loop_error, rel=1e-2)
    assert not verify(path, checkpoint=checkpoint, bound=section.open_loop_error / 2).passed
    assert not verify(path, bound=section.open_loop_error / 2).passed


def test_verify_refuses_another_model_and_false_figures(
    model: StepModel, files: dict[str, Bundle], tmp_path: Path
) -> None:
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.network.output_projection.bias += 1.0
    Checkpoint(other, ExportSpec(**NAMES), {}).save(tmp_path / "other.safetensors")
    assert not verify(files["int8"].path, checkpoint=tmp_path / "other.safetensors").passed
    stranger = build_model("s4d", input_dim=model.input_dim, output_dim=model.output_dim)
    Checkpoint(stranger, ExportSpec(**NAMES), {}).save(tmp_path / "stranger.safetensors")
    with pytest.raises(BundleError, match=r"kind is s4d, .* has mamba2"):
        verify(files["int8"].path, checkpoint=tmp_path / "stranger.safetensors")
    manifest = files["int8"].manifest
    assert manifest.quantization is not None
    worse = manifest.quantization.model_copy(update={"free_run_error": 1.0})
    core = files["int8"].bytes[: manifest.core_bytes]
    write_bundle(tmp_path / "m.onnx", core, manifest.model_copy(update={"quantization": worse}))
    assert not verify(tmp_path / "m.onnx").passed
    with pytest.raises(BundleError, match="quantization: found none, expected one exactly with a precision other"):
        write_bundle(tmp_path / "m.onnx", core, manifest.model_copy(update={"quantization": None}))


def test_commands(checkpoint: Path, tmp_path: Path) -> None:
    out, report, run = tmp_path / "m.onnx", tmp_path / "r.json", CliRunner()
    done = run.invoke(app, ["export", str(checkpoint), str(out), "--quantize", "int8", "--bound", "0.2"])
    assert done.exit_code == 0, done.output
    assert Bundle.open(out).manifest.quantization.bound == 0.2  # type: ignore[union-attr]
    assert run.invoke(app, ["verify", str(out), "--json", str(report)]).exit_code == 0
    found = json.loads(report.read_text())
    assert found.keys() >= {"max_abs_error", "steps", "variant", "bound", "passed"}
    assert found["passed"] is True
    assert run.invoke(app, ["verify", str(out), "--json", str(report), "--bound", "1e-4"]).exit_code == 1
    assert json.loads(report.read_text())["passed"] is False
    refused = run.invoke(app, ["export", str(checkpoint), str(tmp_path / "n.onnx"), "--quantize", "int8", "--portable"])
    assert isinstance(refused.exception, BundleError)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx", "r.json"]


def test_inspect_and_bench_know_the_precision(files: dict[str, Bundle]) -> None:
    for precision, bundle in files.items():
        replay = replay_parity(bundle)
        assert replay.passed
        assert replay.relative_error <= 1e-5  # this very machine made it
        assert replay.bound == (0.1 if precision == "int8" else 1e-5)
        assert (inspect(bundle.path)["manifest"]["quantization"] is None) == (precision == "f32")
        # MatMul's are [k, n]; Gemm's are stored [n, k] and listed the other way round
        spread = (192, 3)  # dt to every head's channels
        expected = [INPUT[::-1], IN_PROJ, spread, OUT_PROJ, OUTPUT[::-1]]
        assert gemv_shapes(memoryview(bundle.bytes)) == expected
    rows = bench(files["int8"].path, 0.05)["results"]
    assert {row["precision"] for row in rows} == {"int8"}


def test_a_changed_int8_graph_does_not_replay(model: StepModel, files: dict[str, Bundle], tmp_path: Path) -> None:
    """The wide bound of an int8 replay still notices a bias that is off by a tenth of the output."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.network.output_projection.bias += 0.3
    graph = Graph("fast", quantize="int8")
    other.emit(graph)
    assert not replay_parity(write_bundle(tmp_path / "m.onnx", graph.build(), files["int8"].manifest)).passed


def rms(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.sqrt((((found - expected) / expected.std((0, 1))) ** 2).mean()))


def test_fake_quantisation_computes_as_the_file_does(model: StepModel, files: dict[str, Bundle]) -> None:
    x = parity.excitation(model, 400, 1, 7)
    real, plain = parity.run_bundle(files["int8"], x)["y"], parity.run_torch(model, x)["y"]
    names = list(model.state_dict())
    with quantize.fake_quantized(model):
        fake = parity.run_torch(model, x)["y"]
        with torch.no_grad():
            scanned = model(torch.from_numpy(x).transpose(0, 1)).transpose(0, 1).numpy()
        graph = Graph("fast", quantize="int8")
        model.emit(graph)  # rounding what is rounded already changes nothing
    assert rms(plain, real) > 1e-3
    assert rms(fake, real) < 0.1 * rms(plain, real)
    assert rms(scanned, real) < 0.2 * rms(plain, real)
    assert list(model.state_dict()) == names
    assert np.array_equal(parity.run_torch(model, x)["y"], plain)
    untouched = Graph("fast", quantize="int8")
    model.emit(untouched)
    for name, array in untouched._constants.items():
        np.testing.assert_allclose(graph._constants[name], array, rtol=1e-6)


def test_a_matrix_made_of_several_parameters_is_followed_back() -> None:
    """Rows of two parameters under each other round as each does; other parameters are left alone."""
    first, second, gain = torch.nn.Parameter(torch.randn(8, 40)), torch.nn.Parameter(torch.randn(3, 40)), torch.ones(40)
    vector = torch.nn.Parameter(gain)
    found = quantize._leaves(torch.cat([first, second]) * vector, 40)
    assert {id(leaf) for leaf in found} == {id(first), id(second)}


def test_training_for_int8_lowers_its_error(model: StepModel, files: dict[str, Bundle]) -> None:
    """A student learns what a float model says while computing as the file does; judged on other inputs.

    Every eighth input of the model's first product has large weights: blocks with outliers round coarsely, which
    training can mend.
    """
    teacher = copy.deepcopy(model)
    with torch.no_grad():
        block = teacher.network.backbone.blocks[0]
        block.mixer.in_proj.weight[:, ::8] *= 30
        block.norm.weight[::8] /= 30
    student = copy.deepcopy(teacher)
    x = parity.excitation(model, 2000, 4, 11).transpose(1, 0, 2).reshape(10, 8, 100, 4)  # batches of 100-step windows
    with torch.no_grad():
        y = torch.stack([teacher(torch.from_numpy(batch)) for batch in x])
    scale, steps = y.std((0, 1, 2)), 60
    quantize.prepare(student)
    optimizer = torch.optim.Adam(student.network.parameters(), lr=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        loss = ((student(torch.from_numpy(x[step % 10])) - y[step % 10]) / scale).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    quantize.finish(student)
    new = parity.excitation(model, 1000, 1, 99)
    expected = parity.run_torch(teacher, new)["y"]
    before, after = (rms(stepped_in_int8(m, files["int8"], new), expected) for m in (teacher, student))
    assert after < 0.7 * before


def stepped_in_int8(model: StepModel, like: Bundle, x: np.ndarray) -> np.ndarray:
    graph = Graph("fast", quantize="int8")
    model.emit(graph)
    return parity.run_bundle(write_bundle(like.path.with_name("other.onnx"), graph.build(), like.manifest), x)["y"]
