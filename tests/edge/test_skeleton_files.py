"""Skeletons from BVH and URDF files and from guard files' trees: what is read, and what is refused with its line."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skeletons import cmu_bvh, cmu_human, two_bones, unit

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.bones import PoseDrive
from kizzasi_edge.guardrails.skeleton import MAX_NODES, Skeleton
from kizzasi_edge.guardrails.spec import BoneSection


@pytest.fixture(scope="module")
def human(tmp_path_factory: pytest.TempPathFactory) -> Skeleton:
    return cmu_human(tmp_path_factory.mktemp("bvh"))


def loaded(folder: Path, text: str, kind: str) -> Skeleton:
    path = folder / f"s.{kind}"
    path.write_text(text)
    read: Callable[[Path], Skeleton] = getattr(Skeleton, f"from_{kind}")
    return read(path)


def test_bvh_like_cmu(human: Skeleton) -> None:
    assert human.names[:5] == ("Hips", "LUpLeg", "LLeg", "LFoot", "LToeBase")
    assert len(human.names) == 26
    assert human.merged["LHipJoint"] == "Hips"
    assert human.merged["LeftFingerBase"] == "LeftHand"
    parent = {name: human.names[p] for name, p in zip(human.names, human.parents, strict=True) if p >= 0}
    assert (parent["RUpLeg"], parent["Neck1"], parent["RightArm"]) == ("Hips", "Spine1", "Spine1")
    at = human.names.index("LLeg")
    assert human.lengths[at] == pytest.approx(0.0564 * math.hypot(2.45, 6.73))
    np.testing.assert_allclose(human.rest_directions[at], unit(np.array([2.45, -6.73, 0])))
    assert human.cones[at] == 0.9


def test_bvh_without_end_sites(tmp_path: Path) -> None:
    (tmp_path / "c.bvh").write_text("\ufeff" + cmu_bvh().replace("\n", "\r\n"), encoding="utf-8", newline="")
    names = Skeleton.from_bvh(tmp_path / "c.bvh", end_sites=False).names
    assert len(names) == 21
    assert not any(name.endswith("_end") for name in names)


BVH = "HIERARCHY\nROOT a\n{\nOFFSET 0 0 0\nCHANNELS 0\nJOINT b\n{\nOFFSET 0 1 0\nCHANNELS 0\n}\n}\n"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("HIERARCHY", "", "line 2: found ROOT; expected HIERARCHY"),
        ("0 1 0", "0 x 0", "line 8: OFFSET: found 'x'; expected a finite number"),
        ("0 1 0", "0 inf 0", "line 8: OFFSET: found 'inf'"),
        ("0 1 0", "0 1_0 0", "line 8: OFFSET: found '1_0'"),
        ("0 1 0", "0 1", "line 9: OFFSET: found 'CHANNELS'"),
        ("0 1 0", "0 5000 0", "line 6: length: found 5000"),
        ("JOINT b", "JOINT a", "line 6: found node 'a' again"),
        ("JOINT b", "JOINT b c", "line 6: found c; expected {"),
        ("CHANNELS 0\n}", "CHANNELS 1 Wrotation\n}", "line 9: found Wrotation; expected Xposition or"),
        ("}\n}\n", "}\n", "expected JOINT or End or }"),
        ("}\n}\n", "}\n}\nROOT c", "line 12: found ROOT; expected MOTION or the end of the file"),
    ],
)
def test_bvh_errors_have_lines(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert loaded(tmp_path, BVH, "bvh").names == ("a", "b")
    with pytest.raises(GuardrailError) as caught:
        loaded(tmp_path, BVH.replace(old, new), "bvh")
    assert message in str(caught.value)
    assert "s.bvh" in str(caught.value)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_bvh_reader_takes_or_refuses_anything(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp()
    tokens = [
        "HIERARCHY",
        "ROOT a",
        "JOINT b",
        "End Site",
        "{",
        "}",
        "OFFSET",
        "0 1 2",
        "CHANNELS",
        "0",
        "nan",
        "-1e999",
    ]
    words = data.draw(st.lists(st.sampled_from(tokens) | st.text(max_size=8), max_size=30))
    text = data.draw(st.sampled_from([BVH, cmu_bvh()]))
    at, gone = data.draw(st.integers(0, len(text))), data.draw(st.integers(0, 40))
    raw = " ".join(words) if data.draw(st.booleans()) else text[:at] + " ".join(words[:4]) + text[at + gone :]
    (folder / "fuzz.bvh").write_bytes(raw.encode("utf-8", "surrogatepass"))
    try:
        skeleton = Skeleton.from_bvh(folder / "fuzz.bvh")
    except GuardrailError as exc:
        refusal = str(exc)
    else:
        PoseDrive(skeleton, 30.0)
        return
    assert "fuzz.bvh" in refusal


@settings(max_examples=100, deadline=None)
@given(raw=st.binary(max_size=200))
def test_readers_refuse_bytes(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.any"
    path.write_bytes(raw)
    for read in (Skeleton.from_bvh, Skeleton.from_urdf):
        with pytest.raises(GuardrailError, match=r"fuzz\.any"):
            read(path)


URDF = """<robot name="r">
<link name="base"/><link name="upper"/><link name="hidden"/><link name="fore"/>
<joint name="j2" type="revolute"><parent link="upper"/><child link="hidden"/>
  <origin xyz="0 0 0" rpy="0 1.5707963267948966 0"/></joint>
<joint name="j1" type="continuous"><parent link="base"/><child link="upper"/>
  <origin xyz="0 0 0.5" rpy="1.5707963267948966 0 0"/></joint>
<joint name="j3" type="fixed"><parent link="hidden"/><child link="fore"/>
  <origin xyz="0 0 2"/></joint>
</robot>"""


def test_a_urdf_may_not_expand_entities(tmp_path: Path) -> None:
    laughs = '<!DOCTYPE robot [<!ENTITY a "ha">]>' + URDF.replace('name="r"', 'name="&a;"')
    with pytest.raises(GuardrailError, match="DOCTYPE"):
        loaded(tmp_path, laughs, "urdf")


def test_urdf(tmp_path: Path) -> None:
    skeleton = loaded(tmp_path, URDF, "urdf")
    assert skeleton.names == ("base", "upper", "fore")
    assert skeleton.parents == (-1, 0, 1)
    assert skeleton.merged == {"hidden": "upper"}
    np.testing.assert_allclose(skeleton.lengths, [0, 0.5, 2])
    # z of the hidden frame: Ry(90°) turns it to x of the upper frame, and Rx(90°) keeps that
    np.testing.assert_allclose(skeleton.rest_directions, [[0, 0, 0], [0, 0, 1], [1, 0, 0]], atol=1e-15)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"continuous"', '"prismatic"', "line 5: joint 'j1': type: found 'prismatic'"),
        ('xyz="0 0 2"', 'xyz="0 0"', "line 7: joint 'j3': <origin> xyz: found '0 0'; expected three numbers"),
        ('xyz="0 0 2"', 'xyz="0 0 nan"', "line 7: joint 'j3': <origin> xyz: found 'nan'"),
        ('<link name="base"/>', "", "line 5: joint 'j1': <parent> link: found 'base'"),
        ('<link name="base"/>', '<link name="base"/><link name="b2"/>', "line 2: found a second root 'b2'"),
        ('<parent link="base"/>', '<parent link="fore"/>', "cycle"),
        ('<child link="fore"/>', '<child link="upper"/>', "line 7: joint 'j3': found node 'upper' again"),
        ("</robot>", "", "not well-formed XML"),
    ],
)
def test_urdf_errors_have_lines(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(GuardrailError) as caught:
        loaded(tmp_path, URDF.replace(old, new), "urdf")
    assert message in str(caught.value)


TREE = """
hand = { parent = "elbow", length = 0.3, direction = [0, -2, 0] }
elbow = { parent = "shoulder", length = 0.4, direction = [1.0, 0, 0] }
shoulder = {}
"""


def tree(text: str) -> Skeleton:
    nodes = {name: BoneSection(**node) for name, node in tomllib.loads(text).items()}
    return Skeleton.from_tree(nodes, "arm.guard.toml: tree")


def test_tree() -> None:
    skeleton = tree(TREE)
    assert skeleton.names == ("shoulder", "elbow", "hand")
    np.testing.assert_allclose(skeleton.lengths, [0, 0.4, 0.3])
    np.testing.assert_allclose(skeleton.rest_directions[2], [0, -1, 0])
    assert skeleton.cones.tolist() == [math.pi, math.pi, math.pi]
    assert skeleton.with_cones(2.5).cones.tolist() == [math.pi, math.pi, 2.5]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (", length = 0.3", "", "tree hand length: missing"),
        (", direction = [1.0, 0, 0]", "", "tree elbow direction: missing"),
        ("length = 0.3", "length = 1e-9", "tree hand: length: found 1e-09; expected at least 1e-06"),
        ("length = 0.3", "length = 5e3", "tree hand length: found 5000; expected at most 4096"),
        ("[0, -2, 0]", "[0, 0, 0]", "tree hand direction: found"),
        ('parent = "shoulder"', 'parent = "hand"', "tree hand: no root leads to ['hand', 'elbow']"),
        ('parent = "shoulder"', 'parent = "neck"', "tree elbow: parent: found 'neck'"),
        ("shoulder = {}", "shoulder = { length = 1 }", "tree shoulder: found a bone without parent"),
        ("shoulder = {}", "shoulder = {}\nhip = {}", "tree hip: found a second root 'hip'"),
    ],
)
def test_tree_errors(old: str, new: str, message: str) -> None:
    assert old in TREE
    with pytest.raises(GuardrailError) as caught:
        tree(TREE.replace(old, new))
    assert message in str(caught.value)
    assert "arm.guard.toml" in str(caught.value)


def test_too_many_nodes_and_bad_arrays() -> None:
    n = MAX_NODES + 1
    with pytest.raises(GuardrailError, match="found 129 nodes; expected 1 to 128"):
        Skeleton(tuple(map(str, range(n))), (-1, *range(n - 1)), np.ones(n), np.ones((n, 3)), np.full(n, math.pi))
    with pytest.raises(GuardrailError, match=r"lengths: found shape \(3,\); expected \(2,\)"):
        Skeleton(("a", "b"), (-1, 0), np.ones(3), np.ones((2, 3)), np.full(2, math.pi))
    with pytest.raises(GuardrailError, match="'b': parent: found 1; expected 0 to 0"):
        Skeleton(("a", "b"), (-1, 1), np.ones(2), np.ones((2, 3)), np.full(2, math.pi))
    with pytest.raises(GuardrailError, match=r"nodes \['a'\] are there twice"):
        Skeleton(("a", "a"), (-1, 0), np.ones(2), np.ones((2, 3)), np.full(2, math.pi))
    with pytest.raises(GuardrailError, match=r"cone: found \['tail'\]; expected nodes where a bone ends: \['b', 'c'\]"):
        two_bones(1.0).with_cones({"tail": 1.0})
    with pytest.raises(GuardrailError, match="'b': cone: found 1; its parent is the root"):
        two_bones(1.0).with_cones({"b": 1.0})
    with pytest.raises(GuardrailError, match=r"'c': cone: found 4; expected 0 to 3\.14159 rad"):
        two_bones(1.0).with_cones(4.0)
