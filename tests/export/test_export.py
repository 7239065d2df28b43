"""The emitted graphs: node counts, parity in both variants, manifests, and refusals that write nothing."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from kizzasi_edge import Predictor
from kizzasi_edge.bundle import Bundle
from kizzasi_edge.engines.ort import OrtEngine
from kizzasi_edge.errors import BundleError
from kizzasi_export import StepModel, build_model, export_step, parity
from kizzasi_export.graph import Graph
from kizzasi_export.models import Normalizer
from kizzasi_export.verify import verify

NAMES: dict[str, Any] = {
    "sample_rate_hz": 500.0,
    "input_names": ["a/position", "b/position", "a/target_position", "b/target_position"],
    "output_names": ["a/position", "b/position"],
}


def test_a_fast_mamba2_layer_is_19_nodes() -> None:
    model = build_model("mamba2", input_dim=4, output_dim=2, hidden_dim=16, state_dim=4, num_layers=3)
    graph = Graph("fast")
    model.emit(graph)
    assert [graph.count(f"layers.{i}") for i in range(3)] == [19, 19, 19]
    # two projections, their two reshapes and the final norm; nothing else
    assert len(graph.nodes) == 3 * 19 + 5


@pytest.mark.parametrize("which", ["small", "smooth"])
@pytest.mark.parametrize("variant", ["fast", "portable"])
@pytest.mark.parametrize("batch", [False, True])
def test_parity_over_1000_steps(
    which: str, variant: Any, batch: bool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(which)
    bundle = export_step(model, tmp_path / "m.onnx", variant=variant, batch=batch, **NAMES)
    found = bundle.manifest.parity
    assert found.steps >= 1000
    assert found.relative_error <= found.bound == 1e-5
    # Measured again, independently of what export stored, on other inputs.
    x = parity.excitation(model, 300, 3 if batch else 1, seed=5)
    y, expected = parity.run_bundle(bundle, x)["y"], parity.run_torch(model, x)["y"]
    assert expected.std((0, 1)).min() > 1e-2
    assert (np.abs(y - expected) / expected.std((0, 1))).max() <= 1e-5


@pytest.mark.parametrize("variant", ["fast", "portable"])
@torch.no_grad()
def test_saturated_models_are_as_exact_as_torch(variant: Any, small: StepModel) -> None:
    """Large weights and steps (softplus linear, decays to 0) lose digits in any float32: float64 is the judge."""
    for block in small.network.backbone.blocks:
        block.mixer.in_proj.weight *= 10
        block.mixer.dt_bias += 30
    x = parity.excitation(small, 300, 1, seed=0)
    exact, state, ys = copy.deepcopy(small).double(), {}, []
    state = {name: value.double() for name, value in exact.initial_state(1).items()}
    for row in x:
        y, state = exact.step(torch.from_numpy(row).double(), state)
        ys.append(y.numpy())
    truth = np.array(ys)
    graph = Graph(variant)
    small.emit(graph)
    scale = truth.std((0, 1))
    torch_error = (np.abs(parity.run_torch(small, x)["y"] - truth) / scale).max()
    ort_error = (np.abs(_run_graph(graph.build(), x) - truth) / scale).max()
    assert torch_error < 1e-2
    assert ort_error <= 1e-5 + 10 * torch_error


def _run_graph(core: bytes, x: np.ndarray) -> np.ndarray:
    import onnxruntime as ort

    session = ort.InferenceSession(core, providers=["CPUExecutionProvider"])
    names = [v.name for v in session.get_inputs() if v.name != "x"]
    zeros = {v.name: np.zeros(v.shape, np.float32) for v in session.get_inputs()}
    state = dict(zip(names, session.run([f"{n}_init" for n in names], zeros), strict=True))
    ys = []
    for row in x:
        y, *following = session.run(["y", *(f"{n}_out" for n in names)], {"x": row, **state})
        state = dict(zip(names, following, strict=True))
        ys.append(y)
    return np.array(ys)


def test_parity_notices_a_wrong_model(small: StepModel, tmp_path: Path) -> None:
    bundle = export_step(small, tmp_path / "m.onnx", **NAMES)
    with torch.no_grad():
        small.network.backbone.blocks[1].mixer.conv1d.bias += 1e-3
    assert parity.measure(small, bundle).relative_error > 1e-4


def test_a_graph_that_disagrees_is_not_written(
    small: StepModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = StepModel.emit

    def emit_another_model(self: StepModel, graph: Graph) -> None:
        with torch.no_grad():
            self.network.output_projection.bias += 0.01
        original(self, graph)
        with torch.no_grad():
            self.network.output_projection.bias -= 0.01

    monkeypatch.setattr(StepModel, "emit", emit_another_model)
    with pytest.raises(BundleError, match="parity"):
        export_step(small, tmp_path / "m.onnx", **NAMES)
    assert list(tmp_path.iterdir()) == []


def test_portable_is_portable(smooth: StepModel, tmp_path: Path) -> None:
    export_step(smooth, tmp_path / "m.onnx", variant="portable", **NAMES)
    model = onnx.load(tmp_path / "m.onnx")
    assert model.ir_version <= 8
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 17}
    assert {node.domain for node in model.graph.node} == {""}


def test_manifest(smooth: StepModel, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in smooth.state_dict().items()}
    bundle = export_step(
        smooth,
        tmp_path / "m.onnx",
        normalizer=Normalizer.identity(4, 2),
        input_units=["rad", "rad", "m", "m"],
        training={"seed": 3},
        limits_trained_under={"acceleration": 12.0},
        **NAMES,
    )
    manifest = Bundle.open(tmp_path / "m.onnx").manifest
    assert manifest == bundle.manifest
    assert (manifest.kind, manifest.variant, manifest.input_dim, manifest.output_dim) == ("mamba2", "fast", 4, 2)
    assert [s.unit for s in manifest.inputs] == ["rad", "rad", "m", "m"]
    assert manifest.training == {"seed": 3}
    assert manifest.limits_trained_under == {"acceleration": 12.0}
    assert manifest.config["reference_tau"] == 6.0
    shapes = {s.name: s.shape for s in manifest.states}
    assert shapes["conv0"] == [1, 3, 40]
    assert shapes["ssm1"] == [1, 1, 4, 32]
    assert shapes["reference_p"] == [1, 2]
    for name, value in smooth.state_dict().items():  # the model itself keeps its normaliser
        assert torch.equal(value, before[name])


def test_initial_states_are_the_biases(small: StepModel, tmp_path: Path) -> None:
    engine = OrtEngine(export_step(small, tmp_path / "m.onnx", **NAMES))
    bias = small.network.backbone.blocks[0].mixer.conv1d.bias.detach().numpy()
    np.testing.assert_array_equal(engine.state()["conv0"], np.repeat(bias[None, None], 3, axis=1))


def test_the_predictor_runs_it_from_the_measured_position(smooth: StepModel, tmp_path: Path) -> None:
    export_step(smooth, tmp_path / "m.onnx", **NAMES)
    predictor = Predictor(tmp_path / "m.onnx")
    x = np.array([0.3, 1.0, -0.8, 0.4], np.float32)
    y = predictor.step(x)
    alpha = -np.expm1(-1 / 6.0)
    goal = smooth.goal(torch.from_numpy(x)[None, None])[0, 0].detach().numpy()
    np.testing.assert_allclose(y, x[[2, 0]] + alpha * goal, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"input_names": ["a", "b"]}, "input_names: found 2, the model has 4"),
        ({"output_names": ["a", "a"]}, "duplicates"),
        ({"output_units": ["rad"]}, "output_units: found 1"),
    ],
)
def test_bad_arguments_write_nothing(change: dict[str, Any], match: str, small: StepModel, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=match):
        export_step(small, tmp_path / "m.onnx", **{**NAMES, **change})
    assert list(tmp_path.iterdir()) == []


def test_nan_weights_write_nothing(small: StepModel, tmp_path: Path) -> None:
    with torch.no_grad():
        small.network.output_projection.bias[0] = float("nan")
    with pytest.raises(BundleError, match=r"network\.output_projection\.bias holds NaN"):
        export_step(small, tmp_path / "m.onnx", **NAMES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("variant", ["fast", "portable"])
def test_verify_replays_the_vector(variant: Any, smooth: StepModel, tmp_path: Path) -> None:
    export_step(smooth, tmp_path / "m.onnx", variant=variant, **NAMES)
    report = verify(tmp_path / "m.onnx")
    assert report.passed
    assert report.mode == "replay"
    assert report.steps >= 8
    assert report.as_dict().keys() >= {"max_abs_error", "steps", "variant", "bound", "passed"}


def test_verify_refuses_a_changed_graph(small: StepModel, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    export_step(small, path, **NAMES)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match="sha256"):
        verify(path)


@torch.no_grad()
def test_small_steps_are_exported_with_exact_operators(small: StepModel, tmp_path: Path) -> None:
    """LinearAttentionGate loses digits of small dt; where that shows, two nodes more are spent on Softplus."""
    usual = export_step(small, tmp_path / "usual.onnx", **NAMES)
    for block in small.network.backbone.blocks:
        block.mixer.dt_bias.fill_(-9.0)
        block.mixer.A_log.zero_()
        block.mixer.D.zero_()
        block.mixer.out_proj.weight *= 30
    slow = export_step(small, tmp_path / "slow.onnx", **NAMES)
    assert slow.manifest.parity.relative_error <= 3e-6
    kinds = [{node.op_type for node in onnx.load_from_string(b.bytes).graph.node} for b in (usual, slow)]
    assert "LinearAttentionGate" in kinds[0]
    assert "Softplus" in kinds[1]
    assert "LinearAttentionGate" not in kinds[1]


def test_outputs_with_a_large_offset_are_exported(small: StepModel, tmp_path: Path) -> None:
    """A pressure of 1e5 ± 100 Pa in float32 is rounded to 1/128 Pa, eight times the bound of parity."""
    pressure = Normalizer((1e5, 0.0, -3e4, 0.0), (100.0, 1e-3, 1e4, 1.0), (1e5, 0.0), (100.0, 1.0))
    found = export_step(small, tmp_path / "m.onnx", normalizer=pressure, **NAMES).manifest.parity
    assert found.max_abs_error <= 2 / 128
    assert found.relative_error <= found.bound == 1e-5
    assert verify(tmp_path / "m.onnx").passed


@torch.no_grad()
def test_the_bound_is_what_float32_can_do(small: StepModel, tmp_path: Path) -> None:
    """Outputs that are small differences of large numbers: torch itself is further from float64 than 1e-5."""
    small.network.output_projection.bias += 200
    shifted = Normalizer((0.0,) * 4, (1.0,) * 4, (-200.0, -140.0), (1.0, 0.7))
    small.set_normalizer(shifted)
    bundle = export_step(small, tmp_path / "m.onnx", **NAMES)
    found = bundle.manifest.parity
    assert 1e-5 < found.relative_error <= found.bound <= parity.WIDEST_BOUND == 1e-4
    assert verify(tmp_path / "m.onnx").passed
    small.network.output_projection.bias += 1e-3  # a wrong model is refused all the same
    other = parity.measure(small, bundle)
    assert other.relative_error > other.bound


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_models_of_other_types_are_exported_in_float32(dtype: torch.dtype, small: StepModel, tmp_path: Path) -> None:
    bundle = export_step(small.to(dtype), tmp_path / "m.onnx", **NAMES)
    assert bundle.manifest.parity.relative_error <= 1e-5
    assert small.input_mean.dtype == dtype  # the model itself is as it was


def test_a_constant_has_one_value() -> None:
    graph = Graph("fast")
    graph.scope("a")
    assert graph.const("low", np.array(1.0)) == graph.const("low", np.array(1.0))  # a scalar stays one: Clip wants it
    assert graph.const("eps", np.array([1.0])) == graph.const("eps", np.array([1.0])) == "a.eps"
    with pytest.raises(ValueError, match=r"'a\.eps' is given twice"):
        graph.const("eps", np.array([2.0]))
