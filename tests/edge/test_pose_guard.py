"""Poses through a guard file: what is refused, what a stream with faults becomes, and a real model behind it."""

from __future__ import annotations

import math
import re
import runpy
import shutil
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skeletons import angle, cmu_bvh, cone_excess, length_error

from kizzasi_edge.errors import ConfigError, GuardrailError, InputError
from kizzasi_edge.guardrails import Guardrails, Status
from kizzasi_edge.guardrails.bones import PoseDrive
from kizzasi_edge.guardrails.faults import Event, State
from kizzasi_edge.guardrails.skeleton import Skeleton
from kizzasi_edge.guardrails.spec import parse_spec
from kizzasi_edge.predictor import Predictor

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "skeleton"

TREE = """
schema = 1
[guard]
rate_hz = 50
[[constraint]]
kind = "bones"
name = "arm"
cone = 2.5
root_speed = 1.0
turn_speed = 10.0
[constraint.tree]
shoulder = {}
elbow = { parent = "shoulder", length = 0.3, direction = [0, -1, 0] }
wrist = { parent = "elbow", length = 0.25, direction = [0, -1, 0] }
"""
REST = np.array([[0, 0, 0], [0, -0.3, 0], [0, -0.55, 0]], np.float32).reshape(-1)


def loaded(folder: Path, text: str) -> Guardrails:
    (folder / "arm.guard.toml").write_text(text)
    return Guardrails.load(folder / "arm.guard.toml")


def drive_of(guard: Guardrails) -> PoseDrive:
    assert isinstance(guard.drive, PoseDrive)
    return guard.drive


def skeleton_of(guard: Guardrails) -> Skeleton:
    return drive_of(guard).skeleton


# ---- what a guard file says ------------------------------------------------------------------------------------------


def test_a_tree(tmp_path: Path) -> None:
    guard = loaded(tmp_path, TREE)
    assert (guard.command, guard.shape, guard.measures) == ("pose", (9,), ())
    assert guard.joints == ("shoulder", "elbow", "wrist")
    assert guard.output_names[:4] == ("shoulder/x", "shoulder/y", "shoulder/z", "elbow/x")
    assert skeleton_of(guard).cones.tolist() == [math.pi, math.pi, 2.5]
    text = guard.explain()
    assert "The root moves at most 1/s." in text
    assert "wrist: 0.25 from elbow, within 2.5 rad of its parent's bone, turns at most 10 rad/s" in text


def test_a_bvh_beside_the_guard_file(tmp_path: Path) -> None:
    (tmp_path / "human.bvh").write_text(cmu_bvh())
    source = 'from_bvh = "human.bvh"\nscale = 0.0564'
    text = TREE[: TREE.index("cone")] + source + "\n[constraint.cone]\nLLeg = 0.9\n"
    guard = loaded(tmp_path, text)
    skeleton = skeleton_of(guard)
    assert len(guard.joints) == 26
    assert skeleton.cones[guard.joints.index("LLeg")] == 0.9
    assert skeleton.lengths[guard.joints.index("LLeg")] == pytest.approx(0.0564 * math.hypot(2.45, 6.73))
    fewer = loaded(tmp_path, text.replace("scale", "end_sites = false\nscale"))
    assert set(guard.joints) - set(fewer.joints) == {name for name in guard.joints if name.endswith("_end")}


def test_a_urdf(tmp_path: Path) -> None:
    (tmp_path / "leg.urdf").write_text(
        '<robot name="leg"><link name="hip"/><link name="knee"/><link name="foot"/>'
        '<joint name="a" type="revolute"><parent link="hip"/><child link="knee"/><origin xyz="0 0 -0.4"/></joint>'
        '<joint name="b" type="revolute"><parent link="knee"/><child link="foot"/><origin xyz="0 0 -0.5"/></joint>'
        "</robot>"
    )
    guard = loaded(
        tmp_path, TREE[: TREE.index("cone")] + 'from_urdf = "leg.urdf"\nturn_speed = { knee = 2, foot = 3 }\n'
    )
    assert guard.joints == ("hip", "knee", "foot")
    assert "foot: 0.5 from knee, turns at most 3 rad/s" in guard.explain()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[[constraint]]", '[joints]\nnames = ["a"]\n[[constraint]]', "[joints]: found joints together with 'arm'"),
        ("[[constraint]]", "[joints]\n[[constraint]]", "[joints]: found joints together with 'arm' of kind 'bones'"),
        ("[[constraint]]", "[dynamics]\n[[constraint]]", "[dynamics]: found dynamics together with 'arm'"),
        ("50", '50\ncommand = "velocity"', "[guard] command: found 'velocity' together with 'arm'"),
        ("50", '50\non_clamp = "approach"', "[guard] on_clamp: found 'approach' together with 'arm'"),
        ("50", "50\n[faults]\njump = 0.1", "[faults]"),
        (
            "[[constraint]]",
            '[[constraint]]\nkind = "velocity"\nname = "slow"\nmax = 1\n[[constraint]]',
            "[constraint] 'slow': found kind 'velocity' together with 'arm'",
        ),
        (
            "[[constraint]]",
            '[[temporal]]\nname = "t"\nformula = "always[0,1] a"\natoms = { a = "x > 0" }\n[[constraint]]',
            "[temporal] 't': found a temporal rule together with 'arm'",
        ),
        ("cone = 2.5", "cone = 4", "[constraint] 'arm': node 'wrist': cone: found 4; expected 0 to 3.14159 rad"),
        ("cone = 2.5", "cone = nan", "[constraint] 'arm' cone: found nan"),
        ("cone = 2.5", "cone = { hand = 1 }", "[constraint] 'arm': cone: found ['hand']; expected nodes where a bone"),
        ("cone = 2.5", "cone = { elbow = 1 }", "node 'elbow': cone: found 1; its parent is the root"),
        ("cone = 2.5", "cone = { wrist = inf }", "[cone] wrist: found inf; expected a finite"),
        (
            "turn_speed = 10.0",
            "turn_speed = { wrist = 1, elbow = 2 }",
            "'wrist': found 1 rad/s; its cone follows 'elbow'",
        ),
        ("turn_speed = 10.0", "turn_speed = { wrist = -1 }", "node 'wrist': found -1 rad/s; expected above 0"),
        ("turn_speed = 10.0", "turn_speed = inf", "[constraint] 'arm' turn_speed: found inf; expected a finite number"),
        ("turn_speed = 10.0", "turn_speed = { shoulder = 1 }", "'arm': turn_speed: found ['shoulder']"),
        ("turn_speed = 10.0", "turn_speed = 0", "'arm': turn_speed: node 'shoulder': found 0 rad/s; expected above 0"),
        ("root_speed = 1.0", "root_speed = -1", "root_speed: found -1; expected greater than 0"),
        ("root_speed = 1.0", "scale = 2", "[constraint] 'arm' scale: found without from_bvh"),
        ("root_speed = 1.0", 'from_bvh = "no.bvh"', "[constraint] 'arm': expected one of from_bvh, from_urdf and tree"),
        ("root_speed = 1.0", "max = 1", "[constraint] 'arm' max: not used for kind 'bones'"),
        ("root_speed = 1.0", "hard = false", "[constraint] 'arm' hard: found False"),
        ("length = 0.3", "length = -1", "[tree] [elbow] length: found -1; expected greater than 0"),
        ("length = 0.3", "lenght = 0.3", "lenght: unknown key (found 0.3); expected one of"),
        (", direction = [0, -1, 0] }\nwrist", " }\nwrist", "'arm' tree elbow direction: missing"),
        ("shoulder = {}", "", "'arm' tree elbow: parent: found 'shoulder'; expected the name of a node"),
    ],
)
def test_refusals(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in TREE
    with pytest.raises(GuardrailError) as caught:
        loaded(tmp_path, TREE.replace(old, new, 1))
    assert message in str(caught.value)
    assert "arm.guard.toml" in str(caught.value)


NAMES = st.sampled_from(["a", "b", "c", "d", ""])
NUMBERS = st.floats(1e-3, 10) | st.floats() | st.integers(-2, 10)
NODES = st.fixed_dictionaries(
    {}, optional={"parent": NAMES, "length": NUMBERS, "direction": st.lists(NUMBERS, min_size=3, max_size=3)}
)
SOUND = st.fixed_dictionaries(
    {"parent": st.just("a"), "length": st.floats(0.01, 10), "direction": st.just([0, 1, 0])},
)
ANY = NUMBERS | NAMES | st.booleans() | st.lists(NUMBERS, max_size=3)
BONES = st.fixed_dictionaries(
    {
        "tree": st.dictionaries(NAMES, NODES, max_size=4)
        | st.fixed_dictionaries({"a": st.just({}), "b": SOUND, "c": SOUND})
    },
    optional={
        "cone": NUMBERS | st.dictionaries(NAMES, NUMBERS),
        "turn_speed": NUMBERS | st.dictionaries(NAMES, NUMBERS),
        "root_speed": NUMBERS,
        "scale": ANY,
        "priority": ANY,
        "odd": ANY,
    },
)


@settings(max_examples=200, deadline=None)
@given(bones=BONES, rate=st.floats(1, 1000), data=st.data())
def test_any_bones_section_is_refused_or_kept(bones: dict[str, Any], rate: float, data: st.DataObject) -> None:
    rule = {"kind": "bones", "name": "body", **bones}
    try:
        guard = Guardrails(parse_spec({"schema": 1, "guard": {"rate_hz": rate}, "constraint": [rule]}, "any"), "any")
    except GuardrailError as exc:
        refusal = str(exc)
    else:
        kept(guard, data)
        return
    assert "any: " in refusal


def kept(guard: Guardrails, data: st.DataObject) -> None:
    skeleton, n = skeleton_of(guard), guard.shape[0]
    for _ in range(3):
        want = data.draw(st.lists(st.floats(-20, 20, width=32) | st.just(math.nan), min_size=n, max_size=n))
        sent, _ = guard.step(np.array(want, np.float32))
        pose = drive_of(guard).pose
        np.testing.assert_array_equal(sent, pose.reshape(-1).astype(np.float32))
        assert length_error(skeleton, pose) <= 1e-12
        assert cone_excess(skeleton, pose) <= 1e-9


# ---- a stream through the stack --------------------------------------------------------------------------------------


def test_a_jump_is_caught_up_at_the_speed_limits(tmp_path: Path) -> None:
    guard = loaded(tmp_path, TREE)
    first, verdict = guard.step(REST, stamp_ns=7)
    assert (verdict.status, verdict.state, verdict.stamp_ns) == (Status.PASS, State.NOMINAL, 7)
    np.testing.assert_allclose(first, REST, atol=1e-7)
    target = (REST.reshape(3, 3) @ np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]]) + [0.1, 0, 0]).astype(np.float32)
    last, statuses = drive_of(guard).pose, []
    for _ in range(10):
        _, verdict = guard.step(target.reshape(-1))
        pose = drive_of(guard).pose
        statuses.append(verdict.status)
        assert np.linalg.norm(pose[0] - last[0]) <= 0.02 * (1 + 1e-12)
        assert angle(pose[1] - pose[0], last[1] - last[0]) <= 0.2 + 1e-12
        last = pose
    assert statuses == [Status.PROJECTED] * 7 + [Status.PASS] * 3  # 90° at 0.2 rad a period take eight
    np.testing.assert_allclose(last, target, atol=1e-6)


def test_what_is_not_finite_holds_the_last_pose(tmp_path: Path) -> None:
    guard = loaded(tmp_path, TREE)
    sent, _ = guard.step(REST)
    for bad, state in ((math.nan, State.HOLD), (math.inf, State.BRAKE), (-math.inf, State.BRAKE)):
        broken = REST.copy()
        broken[4] = bad
        held, verdict = guard.step(broken)
        assert (verdict.status, verdict.state, verdict.cause) == (Status.HOLD, state, Event.NON_FINITE)
        assert verdict.intervention == math.inf
        assert verdict.rules == ("non_finite",)
        assert set(verdict.by_joint) == set(guard.joints)
        np.testing.assert_array_equal(held, sent)
    again, verdict = guard.step(REST)
    assert (verdict.status, verdict.state) == (Status.PASS, State.NOMINAL)
    np.testing.assert_allclose(again, sent, atol=1e-7)


def test_a_missing_pose_holds_whatever_the_budget(tmp_path: Path) -> None:
    guard = loaded(tmp_path, TREE.replace("50", "50\nmiss_budget = 2", 1))
    sent, _ = guard.step(REST + np.float32(0.2))
    out = np.empty_like(REST)
    for _ in range(6):
        verdict = guard.miss(out)
        assert verdict.status is Status.HOLD
        assert "miss" in verdict.rules
        np.testing.assert_array_equal(out, sent)


def test_before_any_pose_the_rest_pose_is_held(tmp_path: Path) -> None:
    guard = loaded(tmp_path, TREE)
    out = np.full_like(REST, np.nan)
    guard.miss(out)
    np.testing.assert_allclose(out, REST, atol=1e-7)
    moved, _ = guard.step(REST + np.float32(1.0))  # and that was sent: the next one is not far
    assert float(np.linalg.norm(moved[:3])) == pytest.approx(0.02, rel=1e-6)


def test_an_emergency_stop_holds_until_it_is_cleared(tmp_path: Path) -> None:
    guard = loaded(tmp_path, TREE)
    sent, _ = guard.step(REST)
    guard.estop()
    far = REST + np.float32(0.5)
    for _ in range(3):
        held, verdict = guard.step(far)
        assert (verdict.status, verdict.state) == (Status.ESTOP, State.ESTOP)
        np.testing.assert_array_equal(held, sent)
    guard.clear()
    held, verdict = guard.step(far)
    assert verdict.state is State.REARM  # a pose this far away asks for motion
    np.testing.assert_array_equal(held, sent)
    _, verdict = guard.step(REST)
    assert (verdict.status, verdict.state) == (Status.PASS, State.NOMINAL)


def test_old_inputs_hold_and_a_guard_that_always_corrects_stops(tmp_path: Path) -> None:
    guard = loaded(tmp_path, TREE.replace("50", "50\n[faults]\nstale_ms = 2000\nactive_ms = 100", 1))
    sent, verdict = guard.step(REST, position=REST, stamp_ns=time.monotonic_ns())
    assert verdict.status is Status.PASS
    held, verdict = guard.step(REST + np.float32(0.5), stamp_ns=time.monotonic_ns() - 10**10)
    assert verdict.status is Status.HOLD
    assert Event.STALE in verdict.cause
    np.testing.assert_array_equal(held, sent)
    states = [guard.step(2 * REST, stamp_ns=time.monotonic_ns())[1].state for _ in range(8)]
    assert states[0] == State.NOMINAL
    assert states[-1] == State.STOPPED


def test_starting_from_a_measured_pose(tmp_path: Path) -> None:
    guard = loaded(tmp_path, TREE)
    guard.reset(REST.astype(np.float64) + 1.0)
    sent, _ = guard.step(REST)
    np.testing.assert_allclose(sent[:3], 1.0 - 0.02 / math.sqrt(3), rtol=1e-6)
    with pytest.raises(InputError, match=r"position: found shape \(3,\); expected \(9,\)"):
        guard.reset(np.zeros(3))
    with pytest.raises(InputError, match=r"position\[8\] \(wrist/z\): found nan"):
        guard.reset([0.0] * 8 + [math.nan])


@pytest.mark.parametrize("command", [np.zeros(3, np.float32), np.zeros((3, 3), np.float32), [0.0] * 8, 0.0])
def test_a_wrong_shape_is_refused_and_changes_nothing(tmp_path: Path, command: Any) -> None:
    guard = loaded(tmp_path, TREE)
    guard.step(REST + np.float32(0.1))
    before = drive_of(guard).pose
    with pytest.raises(InputError, match=r"command: found shape .*; expected \(9,\)"):
        guard.step(command)
    np.testing.assert_array_equal(drive_of(guard).pose, before)
    with pytest.raises(InputError, match=r"out: found float64 \(9,\); expected float32 \(9,\)"):
        guard.step_into(REST, np.zeros(9))  # type: ignore[arg-type]


# ---- a real model ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pose_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained, 72 coordinates in and out; its outputs not in the guard's order, scaled so that they leave no bone
    as long as it is."""
    torch = pytest.importorskip("torch")
    from kizzasi_export import build_model, export_step
    from kizzasi_export.models.normalizer import Normalizer

    torch.manual_seed(5)
    names = list(Guardrails.load(EXAMPLE / "skeleton.guard.toml").output_names)
    n = len(names)
    path = tmp_path_factory.mktemp("pose") / "pose.onnx"
    export_step(
        build_model("mamba2", input_dim=n, output_dim=n, hidden_dim=32, num_layers=1),
        path,
        sample_rate_hz=60,
        input_names=names,
        output_names=names[::-1],
        normalizer=Normalizer((0.0,) * n, (1.0,) * n, (0.0,) * n, (2.0,) * n),
        input_units=["m"] * n,
        output_units=["m"] * n,
    )
    return path


def test_a_pose_model_behind_the_guard(pose_model: Path) -> None:
    guard = Guardrails.load(EXAMPLE / "skeleton.guard.toml")
    predictor, bare = Predictor(pose_model, guardrails=guard), Predictor(pose_model)
    skeleton, names = skeleton_of(guard), guard.output_names
    order = [predictor.output_names.index(name) for name in names]
    rng = np.random.default_rng(3)
    wild = 0.0
    last: npt.NDArray[np.float64] | None = None
    for k in range(120):
        x = rng.normal(size=len(names)).astype(np.float32)
        sent = predictor.step(x, stamp_ns=k)[order]
        wild = max(wild, length_error(skeleton, bare.step(x)[order].astype(np.float64).reshape(-1, 3)))
        pose = drive_of(guard).pose
        np.testing.assert_array_equal(sent, pose.reshape(-1).astype(np.float32))
        assert length_error(skeleton, pose) <= 1e-12
        assert cone_excess(skeleton, pose) <= 1e-9
        assert predictor.verdict is not None
        assert predictor.verdict.status is Status.PROJECTED
        assert predictor.verdict.stamp_ns == k
        if last is not None:
            assert np.linalg.norm(pose[0] - last[0]) <= 3.0 / 60 * (1 + 1e-12)
        last = pose
    assert wild > 0.1, "the model on its own must break bones, else this shows nothing"


def test_a_model_of_other_nodes_is_refused(tmp_path: Path, pose_model: Path) -> None:
    other = loaded(tmp_path, TREE.replace("50", "60"))
    with pytest.raises(GuardrailError, match="wrist/x"):
        Predictor(pose_model, guardrails=other)
    slower = (EXAMPLE / "skeleton.guard.toml").read_text().replace("rate_hz = 60", "rate_hz = 50")
    (tmp_path / "walker.bvh").write_text((EXAMPLE / "walker.bvh").read_text())
    with pytest.raises(ConfigError, match="sample_rate_hz: found 60, expected 50"):
        Predictor(pose_model, guardrails=loaded(tmp_path, slower))


# ---- the example and the page ----------------------------------------------------------------------------------------


def test_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(sys, "argv", ["show.py", "--out", str(tmp_path / "skeleton.html")])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(EXAMPLE / "show.py"), run_name="__main__")
    assert caught.value.code == 0
    page = (tmp_path / "skeleton.html").read_text(encoding="utf-8")
    assert "300 poses" in page
    assert "6 HOLD" in page
    assert page.count("<img") == 2


def test_the_example_tells_a_broken_pose(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own judgement, without the guard's: a pose off by a micrometre is seen."""
    show = runpy.run_path(str(EXAMPLE / "show.py"))
    guard = Guardrails.load(EXAMPLE / "skeleton.guard.toml")
    skeleton = skeleton_of(guard)
    poses = show["walk"](skeleton, guard.rate_hz)
    fine = show["worst"](skeleton, poses, guard.rate_hz)
    assert fine.length < 1e-12
    assert fine.bend == 0
    assert fine.turn < 20
    poses[7, 5, 1] += 1e-6
    assert show["worst"](skeleton, poses, guard.rate_hz).length > 1e-8


def test_the_example_on_the_page_is_the_file() -> None:
    page = (ROOT / "docs" / "bones.md").read_text()
    text = (EXAMPLE / "skeleton.guard.toml").read_text()
    assert f"```toml\n{text}```" in page
    assert tomllib.loads(text)["constraint"][0]["from_bvh"] == "walker.bvh"


def test_the_snippet_on_the_page(tmp_path: Path, pose_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (snippet,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "bones.md").read_text(), re.S | re.M)
    for file in (pose_model, EXAMPLE / "skeleton.guard.toml", EXAMPLE / "walker.bvh"):
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {"x": np.zeros(72, np.float32)}
    exec(snippet, scope)
    pose = np.empty(72)
    pose[[scope["guard"].output_names.index(name) for name in scope["predictor"].output_names]] = scope["pose"]
    assert length_error(skeleton_of(scope["guard"]), pose.reshape(-1, 3)) < 1e-5
