"""The engine steps exactly as a naive session.run loop does, and refuses graphs unlike their manifest."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from kizzasi_edge.bundle import Bundle, StateSpec, write_bundle
from kizzasi_edge.engines import ENGINES, OrtEngine, open_engine
from kizzasi_edge.engines import ort as ort_module
from kizzasi_edge.errors import BundleError, ConfigError, ModelError, SnapshotError


def run_all(engine: OrtEngine, xs: np.ndarray) -> np.ndarray:
    ys = []
    for x in xs:
        engine.x[...] = x
        engine.run()
        engine.commit()
        ys.append(engine.y.copy())
    return np.array(ys)


def test_bit_for_bit_as_a_naive_loop(arm: Bundle, arm_core: bytes, xs: np.ndarray, build: Any) -> None:
    expected, last = build.naive_run(arm_core, xs)
    engine = OrtEngine(arm)
    assert run_all(engine, xs).tobytes() == expected.tobytes()
    state = engine.state()
    assert {name: value.tobytes() for name, value in state.items()} == {
        name: value.tobytes() for name, value in last.items()
    }


def test_initial_state_is_the_graphs(integrator: Bundle) -> None:
    engine = OrtEngine(integrator)
    np.testing.assert_array_equal(engine.state()["s"], [[2, 2]])
    engine.x[:] = [1, -1]
    for expected in ([2, 0], [2, -1], [2, -1.5]):
        engine.run()
        np.testing.assert_array_equal(engine.y, expected)
        engine.commit()
    engine.reset()
    np.testing.assert_array_equal(engine.state()["s"], [[2, 2]])


def test_nothing_moves_without_commit(arm: Bundle, xs: np.ndarray) -> None:
    engine = OrtEngine(arm)
    run_all(engine, xs[:11])
    before = engine.state()
    for x in xs[11:14]:
        engine.x[:] = x
        engine.run()
    after = engine.state()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    engine.x[:] = xs[13]
    engine.run()
    engine.commit()
    assert any(not np.array_equal(before[name], engine.state()[name]) for name in before)


def test_the_public_call_gives_the_same_bits(arm: Bundle, xs: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = run_all(OrtEngine(arm), xs[:100])

    class Public:
        """A session without private attributes, as another onnxruntime may have it."""

        def __init__(self, session: Any) -> None:
            for name in ("run", "get_inputs", "get_outputs", "io_binding", "run_with_iobinding"):
                setattr(self, name, getattr(session, name))

    real = ort_module._open_session
    monkeypatch.setattr(ort_module, "_open_session", lambda bundle: Public(real(bundle)))
    assert run_all(OrtEngine(arm), xs[:100]).tobytes() == expected.tobytes()


def test_a_fork_has_its_own_buffers(arm: Bundle, xs: np.ndarray) -> None:
    engine = OrtEngine(arm)
    run_all(engine, xs[:5])
    twin = engine.fork()
    before, y = engine.state(), engine.y.copy()
    ahead = run_all(twin, xs[5:20])
    assert np.array_equal(engine.y, y)
    assert all(np.array_equal(before[name], engine.state()[name]) for name in before)
    assert run_all(engine, xs[5:20]).tobytes() == ahead.tobytes()


def test_batch_is_as_many_single_streams(tmp_path: Path, build: Any, xs: np.ndarray) -> None:
    core = build.recurrent_core(batch="B")
    bundle = write_bundle(tmp_path / "b.onnx", core, build.manifest_for(core, build.inputs, build.outputs, batch="B"))
    streams = xs[:60].reshape(20, 3, 4)
    together = run_all(OrtEngine(bundle, batch=3), streams)
    assert together.shape == (20, 3, 2)
    for i in range(3):
        alone = run_all(OrtEngine(bundle), streams[:, i])
        np.testing.assert_allclose(together[:, i], alone, rtol=1e-5, atol=1e-6)


def test_batch_of_a_static_bundle_is_refused(arm: Bundle) -> None:
    with pytest.raises(ConfigError, match=r"batch: found 3, expected 1 \(the bundle was exported without --batch\)"):
        OrtEngine(arm, batch=3)


def test_load_state_checks_before_it_changes(arm: Bundle, xs: np.ndarray) -> None:
    engine = OrtEngine(arm)
    run_all(engine, xs[:3])
    before = engine.state()
    good = {name: np.ones_like(value) for name, value in before.items()}
    for bad, message in (
        ({"h": good["h"]}, r"states: found \['h'\], expected \['c', 'h'\]"),
        (
            good | {"c": np.ones((1, 9), np.float32)},
            r"state c: found float32 \(1, 9\), expected float32 \(1, 8\)",
        ),
        (good | {"c": np.ones((1, 8))}, "state c: found float64"),
    ):
        with pytest.raises(SnapshotError, match=message):
            engine.load_state(bad)
        assert all(np.array_equal(before[name], engine.state()[name]) for name in before)
    engine.load_state(good)
    assert (engine.state()["c"] == 1).all()


def edited(path: Path, core: bytes, edit: Any, manifest: Any) -> Bundle:
    model = onnx.load_from_string(core)
    edit(model.graph)
    return write_bundle(path, bytes(model.SerializeToString()), manifest)


def rename_state(graph: Any) -> None:
    graph.input[1].name = "hidden"
    graph.node[1].input[0] = "hidden"


def drop_init(graph: Any) -> None:
    del graph.output[4]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (rename_state, r"graph inputs: found \['c', 'hidden', 'x'\], expected \['c', 'h', 'x'\]"),
        (drop_init, r"graph outputs: .* \(missing \['c_init'\]"),
    ],
)
def test_graph_and_manifest_disagree_on_names(
    tmp_path: Path, arm_core: bytes, arm: Bundle, edit: Any, message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        OrtEngine(edited(tmp_path / "m.onnx", arm_core, edit, arm.manifest))


def test_graph_and_manifest_disagree_on_shapes(tmp_path: Path, arm: Bundle, build: Any) -> None:
    wider = build.recurrent_core(hidden=9)
    with pytest.raises(BundleError, match=r"tensor h: found shape \[1, 9\], expected \[1, 8\]"):
        OrtEngine(write_bundle(tmp_path / "m.onnx", wider, arm.manifest))
    symbolic = build.recurrent_core(batch="B")
    with pytest.raises(BundleError, match=r"tensor x: found shape \['B', 4\], expected \[1, 4\]"):
        OrtEngine(write_bundle(tmp_path / "n.onnx", symbolic, arm.manifest))


def test_graph_and_manifest_disagree_on_dtype(tmp_path: Path, arm: Bundle, arm_core: bytes) -> None:
    def to_double(graph: Any) -> None:
        graph.node.append(helper.make_node("Cast", ["y"], ["y64"], to=onnx.TensorProto.DOUBLE))
        for node in graph.node:
            node.output[:] = ["y32" if name == "y" else name for name in node.output]
            node.input[:] = ["y32" if name == "y" else name for name in node.input]
        graph.node[-1].output[:] = ["y"]
        graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE

    with pytest.raises(BundleError, match=r"tensor y: found tensor\(double\), expected tensor\(float\)"):
        OrtEngine(edited(tmp_path / "m.onnx", arm_core, to_double, arm.manifest))


def test_onnxruntime_too_old_or_graph_not_loadable(tmp_path: Path, arm: Bundle, arm_core: bytes) -> None:
    newer = arm.manifest.model_copy(update={"onnxruntime_min": "99.1"})
    with pytest.raises(BundleError, match=r"onnxruntime: found 1\..*, expected 99\.1 or newer"):
        OrtEngine(write_bundle(tmp_path / "m.onnx", arm_core, newer))

    def unknown_op(graph: Any) -> None:
        graph.node[0].op_type = "NoSuchOperator"

    with pytest.raises(BundleError, match=r"cannot load it: .*NoSuchOperator"):
        OrtEngine(edited(tmp_path / "n.onnx", arm_core, unknown_op, arm.manifest))


def test_a_kernel_that_fails_is_a_model_error(tmp_path: Path, build: Any) -> None:
    """Gather with an index computed from x: out of range for x ≥ 2."""
    model = onnx.load_from_string(build.integrator_core())
    graph = model.graph
    graph.node[2].output[0] = "plain"
    graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((2, 2), np.float32), "table"))
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([0, 0], np.int64), "corner"))
    graph.node.append(helper.make_node("Cast", ["x"], ["xi"], to=onnx.TensorProto.INT64))
    graph.node.append(helper.make_node("GatherND", ["table", "xi"], ["picked"]))
    graph.node.append(helper.make_node("Add", ["plain", "picked"], ["y"]))
    core = bytes(model.SerializeToString())
    good = build.manifest_for(build.integrator_core(), ("a", "b"), ("a", "b"))
    engine = OrtEngine(write_bundle(tmp_path / "g.onnx", core, good))
    engine.x[:] = 1
    engine.run()
    before = engine.state()
    engine.x[:] = 5
    with pytest.raises(ModelError, match=r"g\.onnx: onnxruntime failed in a step"):
        engine.run()
    np.testing.assert_array_equal(engine.state()["s"], before["s"])


def test_no_allocation_per_step(arm: Bundle, xs: np.ndarray) -> None:
    engine = OrtEngine(arm)
    engine.x[:] = xs[0]

    def steps(n: int) -> int:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(n):
            engine.run()
            engine.commit()
        return tracemalloc.get_traced_memory()[0] - before

    tracemalloc.start()
    try:
        steps(100)
        assert steps(1000) < 500
    finally:
        tracemalloc.stop()


def test_engines_by_name(arm: Bundle) -> None:
    assert open_engine(arm).name == "ort"
    assert open_engine(arm, "ort").name == "ort"
    assert set(ENGINES) == {"ort"}
    with pytest.raises(ConfigError, match=r'engine: found "native", expected "ort": .* kind "test"'):
        open_engine(arm, "native")
    with pytest.raises(ConfigError, match='engine: found "gpu", expected one of auto, native, ort'):
        open_engine(arm, "gpu")


RING = 5


def ring_bundle(path: Path, build: Any, *, in_place: bool) -> Bundle:
    """y = attention of x [4] to the last 5 inputs, through a ring cache and an int64 position."""
    tensor, kinds = helper.make_tensor_value_info, onnx.TensorProto
    ring, at = ("ring", kinds.FLOAT, [1, 1, RING, 4]), ("position", kinds.INT64, [1, 1])
    nodes = [
        helper.make_node("Reshape", ["x", "row"], ["new"]),
        helper.make_node("Reshape", ["position", "flat"], ["slot"]),
        helper.make_node("TensorScatter", ["ring", "new", "slot"], ["ring_out"], mode="circular"),
        helper.make_node("Add", ["position", "one"], ["position_out"]),
        helper.make_node("Min", ["position_out", "length"], ["least"]),
        helper.make_node("Reshape", ["least", "flat"], ["reached"]),
        helper.make_node("Attention", ["new", "ring_out", "ring_out", "", "", "", "reached"], ["read"]),
        helper.make_node("Reshape", ["read", "out"], ["y"]),
        helper.make_node("Identity", ["ring0"], ["ring_init"]),
        helper.make_node("Identity", ["position0"], ["position_init"]),
    ]
    constants = {
        "row": [1, 1, 1, 4], "flat": [-1], "out": [1, 4], "one": [1], "length": [RING], "position0": [[0]],
    }  # fmt: skip
    initializers = [onnx.numpy_helper.from_array(np.array(v, np.int64), name) for name, v in constants.items()]
    initializers.append(onnx.numpy_helper.from_array(np.zeros((1, 1, RING, 4), np.float32), "ring0"))
    outputs = [tensor("y", kinds.FLOAT, [1, 4])]
    outputs += [tensor(f"{name}_{end}", kind, shape) for name, kind, shape in (ring, at) for end in ("out", "init")]
    graph = helper.make_graph(
        nodes, "ring", [tensor("x", kinds.FLOAT, [1, 4]), tensor(*ring), tensor(*at)], outputs, initializers
    )
    model = helper.make_model(graph, ir_version=11, opset_imports=[helper.make_opsetid("", 24)])
    onnx.checker.check_model(model)
    names = tuple("abcd")
    states = [
        StateSpec(name="ring", shape=[1, 1, RING, 4], in_place=in_place),
        StateSpec(name="position", shape=[1, 1], dtype="int64"),
    ]
    manifest = build.manifest_for(build.integrator_core(dim=4), names, names)
    return write_bundle(path, bytes(model.SerializeToString()), manifest.model_copy(update={"states": states}))


@pytest.fixture
def ring(tmp_path: Path, build: Any) -> Bundle:
    return ring_bundle(tmp_path / "ring.onnx", build, in_place=True)


def attended(xs: np.ndarray) -> np.ndarray:
    """What a ring bundle computes, in float64."""
    ys = []
    for t in range(len(xs)):
        seen = xs[max(0, t - RING + 1) : t + 1].astype(np.float64)
        weight = np.exp(seen @ xs[t] / 2)
        ys.append(weight @ seen / weight.sum())
    return np.array(ys)


def test_an_in_place_state_is_the_same_function(tmp_path: Path, ring: Bundle, build: Any, xs: np.ndarray) -> None:
    ys = run_all(OrtEngine(ring), xs[:40])
    np.testing.assert_allclose(ys, attended(xs[:40]), rtol=1e-5, atol=1e-6)
    apart = ring_bundle(tmp_path / "apart.onnx", build, in_place=False)
    assert run_all(OrtEngine(apart), xs[:40]).tobytes() == ys.tobytes()


@pytest.mark.parametrize("bad", [np.nan, np.inf, 7.0])
def test_what_an_abandoned_step_wrote_in_place_is_never_read(ring: Bundle, xs: np.ndarray, bad: float) -> None:
    """While the ring fills, when it is full, and when it has gone round."""
    expected = run_all(OrtEngine(ring), xs[:20])
    engine = OrtEngine(ring)
    for t in range(20):
        before = engine.state()
        engine.x[:] = bad
        engine.run()
        after = engine.state()
        changed = (before["ring"] != after["ring"]).any((0, 1, 3)).nonzero()[0]
        assert changed.tolist() == [t % RING]  # the slot that the next step writes, and nothing else
        assert np.array_equal(before["position"], after["position"])
        assert run_all(engine, xs[t : t + 1]).tobytes() == expected[t].tobytes()


@pytest.mark.parametrize("steps", [0, 1, 3, 5, 13])
def test_in_place_snapshots_forks_and_resets(ring: Bundle, xs: np.ndarray, steps: int) -> None:
    engine, other = OrtEngine(ring), OrtEngine(ring)
    first = run_all(engine, xs[:steps])
    engine.x[:] = np.nan
    engine.run()  # not adopted
    kept, twin, untouched = engine.state(), engine.fork(), engine.fork()
    run_all(twin, -xs[:7])  # a ring of its own, over every slot
    expected = run_all(OrtEngine(ring), xs[: steps + 20])[steps:]
    assert run_all(engine, xs[steps : steps + 20]).tobytes() == expected.tobytes()
    assert run_all(untouched, xs[steps : steps + 20]).tobytes() == expected.tobytes()
    run_all(other, xs[50:61])  # an odd number of steps: the other binding is live
    other.load_state(kept)
    assert run_all(other, xs[steps : steps + 20]).tobytes() == expected.tobytes()
    engine.reset()
    assert run_all(engine, xs[:steps]).tobytes() == first.tobytes()
