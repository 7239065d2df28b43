"""A user's own nn.Module: the documented GRU, states of every sort, and every refusal, none of which leaves a file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from kizzasi_edge import Predictor
from kizzasi_edge.bundle import Bundle
from kizzasi_edge.engines.ort import OrtEngine
from kizzasi_edge.errors import BundleError
from kizzasi_export import Normalizer, export_step
from kizzasi_export.verify import verify

PAGE = Path(__file__).resolve().parents[2] / "docs" / "export.md"
NAMES: dict[str, Any] = {"sample_rate_hz": 50.0, "input_names": ["a", "b", "c"], "output_names": ["a", "d"]}
State = dict[str, Tensor]
Step = Callable[["Own", Tensor, State], tuple[Tensor, State]]


def usual_step(self: Own, x: Tensor, state: State) -> tuple[Tensor, State]:
    h = self.cell(x, state["h"])
    return self.out(h), {"h": h, "count": state["count"] + 1}


def usual_state(batch: int) -> State:
    return {"h": torch.full((batch, 8), 0.3), "count": torch.zeros(batch, 1, dtype=torch.int64)}


class Own(nn.Module):
    """A GRU with a step counter; step and initial state are replaced by the tests."""

    def __init__(self, step: Step = usual_step, init: Callable[[int], Any] = usual_state) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell, self.out = nn.GRUCell(3, 8), nn.Linear(8, 2)
        self._step, self._init = step, init

    def initial_state(self, batch: int) -> State:
        return self._init(batch)  # type: ignore[no-any-return]

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        return self._step(self, x, state)


def test_the_documented_gru(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    (code,) = (text for text in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.S | re.M) if "GRU" in text)
    scope: dict[str, Any] = {"__name__": "documented"}
    exec(code, scope)
    manifest = Bundle.open("gru.onnx").manifest
    assert (manifest.kind, manifest.variant, manifest.precision) == ("GRU", "portable", "f32")
    assert manifest.config == {"class": "documented.GRU"}
    assert [(s.name, s.unit) for s in (*manifest.inputs, *manifest.outputs)] == [
        ("tank/level", "m"), ("valve/position", "rad"), ("tank/level", "m")
    ]  # fmt: skip
    assert manifest.parity.steps >= 1000
    assert manifest.parity.relative_error <= manifest.parity.bound == 1e-5
    assert scope["y"].shape == (1,)
    assert verify(Path("gru.onnx")).passed
    model = onnx.load("gru.onnx")
    assert (model.ir_version, {entry.domain: entry.version for entry in model.opset_import}) == (8, {"": 17})
    assert b".py" not in Path("gru.onnx").read_bytes()  # the exporter's stack traces stay at home


@pytest.fixture(scope="module")
def batched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Own, Bundle]:
    model = Own()
    path = tmp_path_factory.mktemp("own") / "m.onnx"
    normalizer = Normalizer((0.5, -1.0, 0.0), (2.0, 0.1, 1.0), (0.2, -0.4), (1.5, 0.7))
    bundle = export_step(model, path, batch=True, kind="flow", normalizer=normalizer, **NAMES)
    return model, bundle


@torch.no_grad()
def test_states_and_streams(batched: tuple[Own, Bundle]) -> None:
    """Three streams, each as torch computes it from raw values: normaliser, start value and int64 counter included."""
    model, bundle = batched
    assert bundle.manifest.kind == "flow"
    assert {(s.name, tuple(s.shape), s.dtype) for s in bundle.manifest.states} == {
        ("h", (1, 8), "float32"), ("count", (1, 1), "int64")
    }  # fmt: skip
    engine = OrtEngine(bundle, batch=3)
    np.testing.assert_array_equal(engine.state()["h"], np.full((3, 8), 0.3, np.float32))
    x = np.random.default_rng(0).standard_normal((20, 3, 3)).astype(np.float32)
    state = model.initial_state(3)
    for row in x:
        engine.x[...] = row
        engine.run()
        engine.commit()
        normal = (torch.from_numpy(row) - torch.tensor([0.5, -1.0, 0.0])) / torch.tensor([2.0, 0.1, 1.0])
        y, state = model.step(normal, state)
        expected = y * torch.tensor([1.5, 0.7]) + torch.tensor([0.2, -0.4])
        np.testing.assert_allclose(engine.y, expected.numpy(), atol=1e-5)
    np.testing.assert_array_equal(engine.state()["count"], np.full((3, 1), 20))


def test_one_stream_of_a_batch_and_a_rollout(batched: tuple[Own, Bundle]) -> None:
    predictor = Predictor(batched[1])
    assert np.isfinite(predictor.predict_n([0.1, 0.2, 0.3], 30)).all()
    first = predictor.step([0.1, 0.2, 0.3])
    predictor.reset()
    assert np.array_equal(predictor.step([0.1, 0.2, 0.3]), first)


@pytest.mark.parametrize("newer", [False, True])
def test_portable_where_opset_17_can_say_it(newer: bool, tmp_path: Path) -> None:
    """Means and splits are spelled differently since opset 18, which is no reason; a bitwise operator is one."""

    def step(self: Own, x: Tensor, state: State) -> tuple[Tensor, State]:
        y, after = usual_step(self, x, state)
        first, second = after["h"].chunk(2, -1)
        y = (
            y
            + first.mean(-1, keepdim=True) * second.amax(-1, keepdim=True)
            - nn.functional.layer_norm(first, [4]).sum()
        )
        return (y + (state["count"] & 3).float() if newer else y), after

    bundle = export_step(Own(step), tmp_path / "m.onnx", **NAMES)
    assert bundle.manifest.variant == ("fast" if newer else "portable")
    assert verify(bundle.path).passed
    if newer:
        assert bundle.manifest.opset[""] > 17
        with pytest.raises(BundleError, match=r"no portable graph .*BitwiseAnd"):
            export_step(Own(step), tmp_path / "p.onnx", variant="portable", **NAMES)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def growing(self: Own, x: Tensor, state: State) -> tuple[Tensor, State]:
    y, after = usual_step(self, x, state | {"h": state["h"][:, :8]})
    return y, after | {"h": torch.cat([after["h"], x], -1)}


def retyped(self: Own, x: Tensor, state: State) -> tuple[Tensor, State]:
    y, after = usual_step(self, x, state)
    return y, after | {"count": after["count"].float()}


def renamed(self: Own, x: Tensor, state: State) -> tuple[Tensor, State]:
    y, after = usual_step(self, x, state)
    return y, {"h": after["h"], "n": after["count"]}


def too_wide(self: Own, x: Tensor, state: State) -> tuple[Tensor, State]:
    y, after = usual_step(self, x, state)
    return torch.cat([y, y], -1), after


def crashing(self: Own, x: Tensor, state: State) -> tuple[Tensor, State]:
    return usual_step(self, x[:, :2], state)


def branching(self: Own, x: Tensor, state: State) -> tuple[Tensor, State]:
    y, after = usual_step(self, x, state)
    return (y if x.sum() > 0 else -y), after


def bfloat(self: Own, x: Tensor, state: State) -> tuple[Tensor, State]:
    y, after = usual_step(self, x, state)
    return torch.tanh(y.bfloat16()).float(), after


def special(self: Own, x: Tensor, state: State) -> tuple[Tensor, State]:
    y, after = usual_step(self, x, state)
    return torch.special.bessel_j0(y), after


def exploding(self: Own, x: Tensor, state: State) -> tuple[Tensor, State]:
    y, after = usual_step(self, x, state)
    return y / (50 - after["count"]).clamp(min=0), after


@torch.library.custom_op("kizzasi_test::twirl", mutates_args=())
def twirl(x: Tensor) -> Tensor:
    return 2 * x


@twirl.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def custom(self: Own, x: Tensor, state: State) -> tuple[Tensor, State]:
    y, after = usual_step(self, x, state)
    return twirl(y), after


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (nn.Linear(3, 2), r"^Linear: found no method step"),
        (Own(growing), r"Own\.step: state 'h': found torch.float32 \[1, 11\], expected torch.float32 \[1, 8\]"),
        (Own(retyped), r"state 'count': found torch.float32 \[1, 1\], expected torch.int64 \[1, 1\]"),
        (Own(renamed), r"states: found \['h', 'n'\], expected \['count', 'h'\]"),
        (Own(too_wide), r"y: found torch.float32 \[1, 4\], expected torch.float32 \[1, 2\]"),
        (Own(crashing), r"Own\.step failed: RuntimeError: "),
        (Own(exploding), r"Own\.step: y: found NaN or Inf"),
        (Own(branching), r"depends on values.*use torch\.where"),
        (Own(bfloat), r"onnxruntime .* has no kernel for \w+ \(opset"),
        (Own(special), r"operator prims\.bessel_j0 has no ONNX form"),
        (Own(custom), r"operator kizzasi_test\.twirl has no ONNX form"),
        (Own(init=lambda b: [torch.zeros(b, 8)]), r"initial_state: found list, expected a dict"),
        (Own(init=lambda b: {"h": torch.full((b, 8), torch.nan)}), r"initial_state: state 'h': found NaN or Inf"),
        (Own(init=lambda b: {"h": torch.zeros(b, 8).double()}), r"state 'h': found torch.float64, expected"),
        (Own(init=lambda b: {"h": torch.zeros(8)}), r"state 'h': found shape \[8\], expected 1 \(the batch\) first"),
        (Own(init=lambda b: usual_state(b) | {"x": torch.zeros(b, 1)}), r"states: found \['count', 'h'\]"),
    ],
)  # fmt: skip
def test_refusals_are_one_short_line_and_write_nothing(model: nn.Module, match: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=match) as caught:
        export_step(model, tmp_path / "m.onnx", **NAMES)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"quantize": "int8"}, "found 'int8' with Own, expected a model of build_model"),
        ({"normalizer": Normalizer.identity(2, 2)}, "input_mean has 2 values, input_names has 3"),
        ({"output_names": ["a", "a"]}, "duplicates"),
        ({"sample_rate_hz": -1.0}, "sample_rate_hz: found -1.0"),
    ],
)
def test_refused_options_write_nothing(change: dict[str, Any], match: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=match):
        export_step(Own(), tmp_path / "m.onnx", **{**NAMES, **change})
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_clashes_and_a_batch_that_cannot_be(tmp_path: Path) -> None:
    def step(self: Own, x: Tensor, state: State) -> tuple[Tensor, State]:
        y, after = usual_step(self, x, {"h": state["x"], "count": state["count"]})
        return y, {"x": after["h"], "count": after["count"]}

    clash = Own(step, lambda b: {"x": torch.zeros(b, 8), "count": torch.zeros(b, 1, dtype=torch.int64)})
    with pytest.raises(BundleError):
        export_step(clash, tmp_path / "m.onnx", **NAMES)
    uneven = Own(init=lambda b: usual_state(b) | {"h": torch.arange(8.0 * b).reshape(b, 8)})
    with pytest.raises(BundleError, match="state 'h' of a batch of 2 is not that of a batch of 1 repeated"):
        export_step(uneven, tmp_path / "m.onnx", batch=True, **NAMES)
    assert list(tmp_path.iterdir()) == []
