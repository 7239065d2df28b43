"""The Predictor: what goes in is checked, what fails changes nothing, and the guard has the last word."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kizzasi_edge.bundle import Bundle, write_bundle
from kizzasi_edge.errors import ConfigError, GuardrailError, InputError, ModelError, SnapshotError
from kizzasi_edge.guardrails import Guardrails, Status
from kizzasi_edge.guardrails.spec import parse_spec
from kizzasi_edge.predictor import Predictor

POISON = np.array([10, 0, 0, 0], np.float32)  # the arm model divides by zero on it


def state_bytes(predictor: Predictor) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in predictor.snapshot().state.items()}


def make_guard(*joints: str, rate_hz: float = 500.0) -> Guardrails:
    builder = Guardrails.builder(rate_hz=rate_hz)
    for joint in joints:
        builder.joint(joint, position=(-1.5, 1.5), velocity=2.0, acceleration=80.0)
    return builder.build()


def test_names_and_rate(arm: Bundle) -> None:
    predictor = Predictor(arm.path)
    assert predictor.input_names == arm.manifest.input_names
    assert predictor.output_names == ("pan/position", "lift/position")
    assert (predictor.sample_rate_hz, predictor.engine) == (500.0, "ort")
    assert predictor.manifest == arm.manifest
    assert predictor.verdict is None


def test_steps_as_the_naive_loop(arm: Bundle, arm_core: bytes, xs: np.ndarray, build: Any) -> None:
    expected, _ = build.naive_run(arm_core, xs)
    by_step, by_step_into, by_propose = Predictor(arm), Predictor(arm), Predictor(arm)
    out = np.empty(2, np.float32)
    ys = [by_step.step(x) for x in xs]
    assert np.array(ys).tobytes() == expected.tobytes()
    for x, y in zip(xs[:100], ys, strict=False):
        by_step_into.step_into(x, out)
        assert out.tobytes() == y.tobytes()
        assert by_propose.propose(x).tobytes() == y.tobytes()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros(3, np.float32), r"arm\.onnx: x: found float32 \(3,\), expected float32 \(4,\)"),
        (np.zeros((1, 4), np.float32), r"x: found float32 \(1, 4\)"),
        ([0.0] * 3, r"x: found .* expected float32 \(4,\)"),
        (
            np.array([0, 0, np.nan, 0], np.float32),
            r"x\[2\] \(pan/target_position\): found nan, expected a finite",
        ),
        (np.array([0, -np.inf, 0, 0], np.float32), r"x\[1\] \(lift/position\): found -inf"),
    ],
)
def test_bad_input_changes_nothing(arm: Bundle, xs: np.ndarray, x: Any, message: str) -> None:
    for guardrails in (None, make_guard("pan", "lift")):
        predictor = Predictor(arm, guardrails=guardrails)
        predictor.step(xs[0])
        before, verdict = state_bytes(predictor), predictor.verdict
        for call in (predictor.step, predictor.propose, lambda x: predictor.predict_n(x, 2)):  # noqa: B023
            with pytest.raises(InputError, match=message):
                call(x)
        assert state_bytes(predictor) == before
        assert predictor.verdict is verdict


def test_only_the_allocating_calls_convert(arm: Bundle) -> None:
    predictor, twin = Predictor(arm), Predictor(arm)
    assert predictor.step([0.5] * 4).tobytes() == twin.step(np.full(4, 0.5, np.float32)).tobytes()
    x: Any
    for x in ([0.5] * 4, np.full(4, 0.5)):
        with pytest.raises(InputError, match="expected float32"):
            predictor.step_into(x, np.empty(2, np.float32))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(values=st.lists(st.floats(width=32), min_size=4, max_size=4))
def test_exactly_the_non_finite_inputs_are_refused(arm: Bundle, values: list[float]) -> None:
    predictor = Predictor(arm)
    x = np.array(values, np.float32)
    if np.isfinite(x).all():
        predictor._check(x)
    else:
        with pytest.raises(InputError, match=rf"x\[{int(np.argmin(np.isfinite(x)))}\]"):
            predictor._check(x)


@pytest.mark.parametrize("out", [np.empty(3, np.float32), np.empty(2), [0.0, 0.0]])
def test_bad_out_changes_nothing(arm: Bundle, xs: np.ndarray, out: Any) -> None:
    predictor = Predictor(arm)
    before = state_bytes(predictor)
    with pytest.raises(InputError, match=r"out: found .*, expected float32 \(2,\)"):
        predictor.step_into(xs[0], out)
    assert state_bytes(predictor) == before


def test_failed_step_leaves_the_state(arm: Bundle, xs: np.ndarray) -> None:
    disturbed, clean = Predictor(arm), Predictor(arm)
    for i, x in enumerate(xs[:50]):
        if i % 7 == 3:
            with pytest.raises(ModelError, match=r"y\[0\] \(pan/position\): found -?(inf|nan)"):
                disturbed.step(POISON)
        assert disturbed.step(x).tobytes() == clean.step(x).tobytes()
    assert disturbed.failed_steps == 7
    assert state_bytes(disturbed) == state_bytes(clean)


def test_snapshot_mid_run(arm: Bundle, xs: np.ndarray) -> None:
    predictor = Predictor(arm)
    for x in xs[:33]:
        predictor.step(x)
    snapshot = predictor.snapshot()
    expected = [predictor.step(x).tobytes() for x in xs[33:70]]
    predictor.restore(snapshot)
    assert [predictor.step(x).tobytes() for x in xs[33:70]] == expected
    other = Predictor(arm.path)
    other.restore(snapshot)
    assert [other.step(x).tobytes() for x in xs[33:70]] == expected
    assert snapshot.digest == arm.digest
    with pytest.raises(ValueError, match="read-only"):
        snapshot.state["h"][0, 0] = 1


def test_snapshot_of_another_bundle(tmp_path: Path, arm: Bundle, build: Any) -> None:
    core = build.recurrent_core(seed=8)
    other = write_bundle(tmp_path / "o.onnx", core, build.manifest_for(core, build.inputs, build.outputs))
    predictor = Predictor(arm)
    before = state_bytes(predictor)
    with pytest.raises(SnapshotError, match=rf"snapshot of bundle {other.digest[:12]}…, expected {arm.digest[:12]}"):
        predictor.restore(Predictor(other).snapshot())
    assert state_bytes(predictor) == before


def test_reset(arm: Bundle, xs: np.ndarray) -> None:
    predictor = Predictor(arm)
    first = [predictor.step(x).tobytes() for x in xs[:5]]
    predictor.reset()
    assert [predictor.step(x).tobytes() for x in xs[:5]] == first


class TestPredictN:
    def test_leaves_the_live_state(self, arm: Bundle, xs: np.ndarray) -> None:
        predictor, clean = Predictor(arm), Predictor(arm)
        for x in xs[:20]:
            y = predictor.propose(x)
            copy = y.copy()
            predictor.predict_n(x, 5)
            assert np.array_equal(y, copy), "the live output moved"
            assert copy.tobytes() == clean.step(x).tobytes()
        assert state_bytes(predictor) == state_bytes(clean)

    def test_does_not_touch_the_guard(self, arm: Bundle, xs: np.ndarray) -> None:
        guard = make_guard("pan", "lift")
        predictor = Predictor(arm, guardrails=guard)
        predictor.step(xs[0])
        before, status = [array.copy() for array in guard.motion], predictor.verdict.status  # type: ignore[union-attr]
        predictor.predict_n(xs[1], 20)
        predictor.reset()
        predictor.restore(predictor.snapshot())
        assert all(np.array_equal(a, b) for a, b in zip(before, guard.motion, strict=True))
        assert predictor.verdict is not None
        assert predictor.verdict.status is status

    def test_outputs_that_bear_an_inputs_name_are_fed_back(self, arm: Bundle, xs: np.ndarray) -> None:
        ys = Predictor(arm).predict_n(xs[0], 30)
        by_hand, x = Predictor(arm), xs[0].copy()
        for y in ys:
            assert by_hand.step(x).tobytes() == y.tobytes()
            x[:2] = y  # the measured positions; the targets stay
        assert ys.shape == (30, 2)
        assert ys.dtype == np.float32

    def test_same_length_without_shared_names_is_fed_back_whole(self, tmp_path: Path, build: Any) -> None:
        core = build.integrator_core()
        bundle = write_bundle(tmp_path / "i.onnx", core, build.manifest_for(core, ("a", "b"), ("c", "d")))
        ys = Predictor(bundle).predict_n(np.array([1, 0], np.float32), 3)
        np.testing.assert_array_equal(ys, [[2, 1], [3, 1.5], [4.5, 2.25]])

    def test_otherwise_x_is_held(self, tmp_path: Path, build: Any, xs: np.ndarray) -> None:
        core = build.recurrent_core()
        bundle = write_bundle(tmp_path / "h.onnx", core, build.manifest_for(core, build.inputs, ("u", "v")))
        by_hand = Predictor(bundle)
        ys = Predictor(bundle).predict_n(xs[0], 9)
        assert ys.tobytes() == np.array([by_hand.step(xs[0]) for _ in range(9)]).tobytes()

    def test_bounds_and_failure(self, arm: Bundle) -> None:
        predictor = Predictor(arm)
        before = state_bytes(predictor)
        assert predictor.predict_n(np.zeros(4, np.float32), 0).shape == (0, 2)
        with pytest.raises(InputError, match="n: found -1, expected 0 or more"):
            predictor.predict_n(np.zeros(4, np.float32), -1)
        with pytest.raises(ModelError, match=r"step 0 of 4: .*y\[0\]"):
            predictor.predict_n(POISON, 4)
        assert state_bytes(predictor) == before


class TestGuarded:
    def test_the_guards_command_is_returned(self, arm: Bundle, xs: np.ndarray) -> None:
        guard, oracle, free = make_guard("pan", "lift"), make_guard("pan", "lift"), Predictor(arm)
        predictor = Predictor(arm, guardrails=guard)
        statuses = set()
        for i, x in enumerate(xs[:300]):
            u = predictor.step(x, stamp_ns=1000 + i)
            expected, verdict = oracle.step(free.step(x), position=x[:2])
            assert u.tobytes() == expected.tobytes()
            assert predictor.verdict is not None
            assert (predictor.verdict.status, predictor.verdict.rules) == (verdict.status, verdict.rules)
            assert predictor.verdict.stamp_ns == 1000 + i
            statuses.add(verdict.status)
        assert Status.CLAMPED in statuses, "the test never made the guard act"

    def test_order_of_joints_does_not_matter(self, arm: Bundle, xs: np.ndarray) -> None:
        one = Predictor(arm, guardrails=make_guard("pan", "lift"))
        other = Predictor(arm, guardrails=make_guard("lift", "pan"))
        for x in xs[:100]:
            assert one.step(x).tobytes() == other.step(x).tobytes()

    def test_joints_without_suffix(self, tmp_path: Path, arm_core: bytes, build: Any, xs: np.ndarray) -> None:
        manifest = build.manifest_for(arm_core, build.inputs, ("lift", "pan"))
        bundle = write_bundle(tmp_path / "p.onnx", arm_core, manifest)
        u = Predictor(bundle, guardrails=make_guard("pan", "lift")).step(np.zeros(4, np.float32))
        y = Predictor(bundle).step(np.zeros(4, np.float32))
        assert u.shape == (2,)
        assert (np.sign(u) == np.sign(y)).all()

    @pytest.mark.parametrize("joints", [("pan",), ("pan", "lift", "elbow"), ("pan", "tilt")])
    def test_other_joints_are_refused(self, arm: Bundle, joints: tuple[str, ...]) -> None:
        with pytest.raises(GuardrailError) as caught:
            Predictor(arm, guardrails=make_guard(*joints))
        assert str(list(joints)) in str(caught.value)
        assert "['pan/position', 'lift/position']" in str(caught.value)

    def test_another_rate_is_refused(self, arm: Bundle) -> None:
        with pytest.raises(ConfigError, match=r"sample_rate_hz: found 500, expected 250 as the guard's rate_hz"):
            Predictor(arm, guardrails=make_guard("pan", "lift", rate_hz=250))

    def test_non_finite_proposal_goes_to_the_guard(self, arm: Bundle, xs: np.ndarray) -> None:
        guard = make_guard("pan", "lift")
        disturbed, clean = Predictor(arm, guardrails=guard), Predictor(arm)
        moves = []
        for i, x in enumerate(xs[:120]):
            if 40 <= i < 80:
                u = disturbed.step(POISON)
                assert disturbed.verdict is not None
                assert disturbed.verdict.status in (Status.BRAKE, Status.HOLD, Status.CLAMPED)
            else:
                u = disturbed.step(x)
                clean.step(x)
            assert np.isfinite(u).all()
            moves.append(guard.motion[1].copy())
        assert np.abs(moves[39]).max() > 0, "it was not moving"
        assert not moves[79].any(), "it did not come to rest"
        assert disturbed.failed_steps == 40
        assert state_bytes(disturbed) == state_bytes(clean)

    def test_first_step_needs_a_position(self, tmp_path: Path, arm_core: bytes, build: Any) -> None:
        manifest = build.manifest_for(arm_core, ("a", "b", "c", "d"), build.outputs)
        bundle = write_bundle(tmp_path / "q.onnx", arm_core, manifest)
        predictor = Predictor(bundle, guardrails=make_guard("pan", "lift"))
        before, x = state_bytes(predictor), np.zeros(4, np.float32)
        with pytest.raises(GuardrailError, match="needs position="):
            predictor.step(x)
        with pytest.raises(InputError, match="position"):
            predictor.step(x, position=np.array([0, np.nan]))
        assert state_bytes(predictor) == before
        first = predictor.step(x, position=np.array([0.5, -0.5]))
        np.testing.assert_allclose(first, [0.5, -0.5], atol=1e-3)
        predictor.step(x)

    def test_position_argument_overrules_x(self, arm: Bundle) -> None:
        predictor = Predictor(arm, guardrails=make_guard("pan", "lift"))
        u = predictor.step(np.zeros(4, np.float32), position=np.array([1.0, -1.0]))
        np.testing.assert_allclose(u, [1, -1], atol=1e-3)


class TestMeasured:
    """What the guard measures: among the inputs by name, or from the caller, who wins."""

    @pytest.fixture
    def velocity_guard(self) -> Guardrails:
        builder = Guardrails.builder(rate_hz=500, command="velocity")
        for joint in ("pan", "lift"):
            builder.joint(joint, position=(-1.5, 1.5), velocity=2.0, acceleration=80.0)
        return builder.build()

    @pytest.fixture
    def measuring(self, tmp_path: Path, arm_core: bytes, build: Any) -> Bundle:
        inputs = ("lift/velocity", "pan/position", "pan/velocity", "lift/position")
        manifest = build.manifest_for(arm_core, inputs, ("lift/velocity", "pan/velocity"))
        return write_bundle(tmp_path / "v.onnx", arm_core, manifest)

    def test_positions_and_velocities_are_found_by_name(
        self, measuring: Bundle, velocity_guard: Guardrails, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: dict[str, Any] = {}
        step_into = velocity_guard.step_into

        def listen(*args: Any, **kwargs: Any) -> Any:
            seen.update({name: None if value is None else np.array(value) for name, value in kwargs.items()})
            return step_into(*args, **kwargs)

        monkeypatch.setattr(velocity_guard, "step_into", listen)
        predictor = Predictor(measuring, guardrails=velocity_guard)
        predictor.step(np.array([1, 2, 3, 4], np.float32) / 10)
        np.testing.assert_allclose(seen["position"], [0.2, 0.4], rtol=1e-6)
        np.testing.assert_allclose(seen["velocity"], [0.3, 0.1], rtol=1e-6)
        predictor.step(np.zeros(4, np.float32), position=[0.5, 0.6], velocity=[0.7, 0.8])
        assert (seen["position"].tolist(), seen["velocity"].tolist()) == ([0.5, 0.6], [0.7, 0.8])

    def test_velocities_are_guarded_in_the_joints_order(self, measuring: Bundle, velocity_guard: Guardrails) -> None:
        predictor, free = Predictor(measuring, guardrails=velocity_guard), Predictor(measuring)
        oracle = Guardrails(velocity_guard.spec)
        for i in range(50):
            x = np.array([0, 0.01 * i, 0, -0.01 * i], np.float32)
            expected, verdict = oracle.step(free.step(x)[::-1], position=x[[1, 3]])
            assert predictor.step(x).tolist() == expected[::-1].tolist()
            assert predictor.verdict is not None
            assert predictor.verdict.status is verdict.status

    def test_what_is_measured_may_come_from_the_caller_alone(
        self, tmp_path: Path, arm_core: bytes, build: Any, velocity_guard: Guardrails
    ) -> None:
        manifest = build.manifest_for(arm_core, tuple("abcd"), ("pan", "lift"))
        predictor = Predictor(write_bundle(tmp_path / "w.onnx", arm_core, manifest), guardrails=velocity_guard)
        x = np.zeros(4, np.float32)
        predictor.step(x, position=[0.0, 0.0])
        before = state_bytes(predictor)
        with pytest.raises(GuardrailError, match="position=: missing"):
            predictor.step(x)
        assert state_bytes(predictor) == before

    def test_signals_among_the_inputs_and_from_the_caller(self, tmp_path: Path, arm_core: bytes, build: Any) -> None:
        spec = {
            "schema": 1,
            "guard": {"rate_hz": 500},
            "joints": {"names": ["pan", "lift"], "position": [[-1.5, 1.5]] * 2, "velocity": 2, "acceleration": 80},
            "temporal": [
                {"name": name, "formula": "always low", "atoms": {"low": f"{name} < 5"}, "mode": "monitor"}
                for name in ("force", "heat")
            ],
        }
        inputs = ("pan/position", "lift/position", "other", "force")
        bundle = write_bundle(tmp_path / "s.onnx", arm_core, build.manifest_for(arm_core, inputs, build.outputs))
        predictor = Predictor(bundle, guardrails=Guardrails(parse_spec(spec, "g"), "g"))

        def violated(measured: float, **given: float) -> tuple[str, ...]:
            predictor.step(np.array([0, 0, 0, measured], np.float32), signals=given)
            assert predictor.verdict is not None
            return predictor.verdict.violated

        assert violated(1, heat=1) == ()
        assert violated(9, heat=1, force=2) == ()  # the caller wins
        assert violated(9, heat=1) == ("force",)
        assert violated(1) == ("force", "heat")  # heat is unknown


@pytest.mark.parametrize("guarded", [False, True])
def test_step_into_does_not_allocate(arm: Bundle, xs: np.ndarray, guarded: bool) -> None:
    predictor = Predictor(arm, guardrails=make_guard("pan", "lift") if guarded else None)
    out = np.empty(2, np.float32)

    def steps(n: int) -> int:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(n):
            predictor.step_into(xs[0], out)
        return tracemalloc.get_traced_memory()[0] - before

    tracemalloc.start()
    try:
        steps(200)
        assert steps(1000) < 1000
    finally:
        tracemalloc.stop()
