"""Limits from an MJCF; MuJoCo is the oracle."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from limit_files import limits

from kizzasi_edge import demo
from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.bounds import JointBounds
from kizzasi_edge.guardrails.mjcf import read_mjcf
from kizzasi_edge.guardrails.urdf import read_urdf

ASSETS = Path(demo.__file__).parent / "assets"
INF = math.inf
ONE = '<geom size="0.1" mass="1"/>'


def mjcf(folder: Path, text: str) -> dict[str, JointBounds]:
    """Our reading, after comparing range, order and forces with MuJoCo's own."""
    import mujoco

    path = folder / "m.xml"
    path.write_text(text)
    ours = {bound.name: bound for bound in read_mjcf(path)}
    model = mujoco.MjModel.from_xml_path(str(path))
    kinds = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))
    scalar = [i for i in range(model.njnt) if model.jnt_type[i] in kinds]
    on_joint = np.isin(model.actuator_trntype, [int(mujoco.mjtTrn.mjTRN_JOINT), int(mujoco.mjtTrn.mjTRN_JOINTINPARENT)])
    driven = {int(i) for i in model.actuator_trnid[on_joint, 0]}
    expected = [i for i in scalar if not len(on_joint) or i in driven]
    assert list(ours) == [model.joint(i).name for i in expected]
    for i in expected:
        bound = ours[model.joint(i).name]
        lower, upper = model.jnt_range[i] if model.jnt_limited[i] else (-INF, INF)
        effort = min(-model.jnt_actfrcrange[i][0], model.jnt_actfrcrange[i][1]) if model.jnt_actfrclimited[i] else INF
        for k in np.flatnonzero(on_joint & (model.actuator_trnid[:, 0] == i)):
            gear = model.actuator_gear[k, 0]
            motor = model.actuator_gainprm[k, 0] == 1 and not model.actuator_biasprm[k].any()
            if model.actuator_forcelimited[k]:
                low, high = model.actuator_forcerange[k]
                effort = min(effort, -low * abs(gear), high * abs(gear))
            if model.actuator_ctrllimited[k]:
                low, high = sorted(model.actuator_ctrlrange[k] / gear)
                if motor:
                    effort = min(effort, *(abs(gear) * abs(x) for x in model.actuator_ctrlrange[k]))
                elif model.actuator_biasprm[k, 1] and not model.actuator_dyntype[k]:  # a position servo
                    lower, upper = max(lower, low), min(upper, high)
        assert (bound.lower, bound.upper) == pytest.approx((lower, upper), rel=1e-15)
        assert bound.effort == pytest.approx(effort, rel=1e-15)
    return ours


def test_the_demo_arm_reads_as_mujoco_and_as_its_urdf(tmp_path: Path) -> None:
    ours = mjcf(tmp_path, (ASSETS / "arm.xml").read_text())
    assert len(ours) == 6
    for bound in read_urdf(ASSETS / "arm.urdf"):
        same = ours[bound.name]
        assert (same.lower, same.upper, same.effort) == (bound.lower, bound.upper, bound.effort)
    from_mjcf = limits(ASSETS, 'from_mjcf = "arm.xml"\nvelocity = 3\nacceleration = 12\nmargin = 0.02')
    assert [limit.name for limit in from_mjcf] == list(ours)
    assert from_mjcf[2].upper == ours["elbow_joint"].upper - 0.02
    with pytest.raises(
        GuardrailError, match=r"\[joints\] velocity is missing, and .*arm\.xml has none for joint 'shou"
    ):
        limits(ASSETS, 'from_mjcf = "arm.xml"\nacceleration = 12')
    with pytest.raises(GuardrailError, match="root element is <robot>; expected <mujoco>"):
        read_mjcf(ASSETS / "arm.urdf")


RANGE = st.sampled_from(["", 'range="-90 90"', 'range="-1.5 0.5"', 'range="0 2" limited="true"',
                         'range="-1 1" limited="false"', 'class="k"', 'class="kk"', 'type="slide" range="-2 1"',
                         'type="ball" range="0 60"', 'actuatorfrcrange="-7 5"',
                         'class="main" range="-3 3"'])  # fmt: skip
DRIVE = st.sampled_from(['motor joint="{}"', 'motor joint="{}" ctrlrange="-2 3" gear="5"', 'motor class="k" joint="{}"',
                         'position joint="{}" kp="2" ctrlrange="-0.4 0.3" gear="-2"',
                         'general joint="{}" forcerange="-4 9"',
                         'position jointinparent="{}" class="kk" kp="2" forcelimited="false"'])  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_generated_models_read_as_mujoco_reads_them(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    names = iter("abcdefgh")

    def body(depth: int) -> str:
        childclass = data.draw(st.sampled_from(["", 'childclass="k"', 'childclass="kk"']))
        inner = body(depth - 1) if depth and data.draw(st.booleans()) else ""
        own = f'<joint name="{next(names)}" {data.draw(RANGE)}/>'
        frame = data.draw(st.sampled_from(["<frame>", '<frame childclass="kk">'])) + own + "</frame>"
        parts = [inner, data.draw(st.sampled_from([own, frame])), ONE]
        if "ball" not in own and data.draw(st.booleans()):
            own = (
                f'<joint name="{next(names)}" axis="0 1 0" {data.draw(RANGE.filter(lambda text: "ball" not in text))}/>'
            )
            parts.insert(2, own)
        return f"<body {childclass}>{''.join(parts)}</body>"

    world = "".join(body(1) for _ in range(data.draw(st.integers(1, 2))))
    used = "abcdefgh"[: world.count("<joint")]
    drives = data.draw(st.lists(st.tuples(DRIVE, st.sampled_from(used)), max_size=4))
    compiler = data.draw(st.sampled_from(["", '<compiler angle="radian"/>', '<compiler angle="degree"/>']))
    text = (
        f'<mujoco>{compiler}<default><joint range="-30 40"/><position forcerange="-50 60"/><default class="k">'
        '<joint range="-20 20"/><motor forcerange="-5 6"/><default class="kk"><joint type="slide" limited="false"/>'
        f"</default></default></default><worldbody>{world}</worldbody><actuator>"
        + "".join(f"<{drive.format(name)}/>" for drive, name in drives)
        + "</actuator></mujoco>"
    )
    folder = tmp_path_factory.getbasetemp()
    try:
        mjcf(folder, text)
    except GuardrailError as error:
        message = str(error)
    else:
        return
    # Refused only where nothing could be guarded.
    assert any(words in message for words in ("no hinge or slide joint found", "is not below upper")), message


def test_includes_are_searched_as_mujoco_does(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.xml").write_text('<mujocoinclude><include file="b.xml"/></mujocoinclude>')
    inner = '<mujocoinclude><body><joint name="{}" range="-9 9"/>' + ONE + "</body></mujocoinclude>"
    text = '<mujoco><worldbody><include file="sub/a.xml"/></worldbody></mujoco>'
    (tmp_path / "sub/b.xml").write_text(inner.format("beside"))
    assert list(mjcf(tmp_path, text)) == ["beside"]
    (tmp_path / "b.xml").write_text(inner.format("main"))
    assert list(mjcf(tmp_path, text)) == ["main"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('range="-90 90"', 'range="90 -90"', ["joint 'j': range", "90 is not below -90"]),
        ('range="-90 90"', 'range="-90"', ["joint 'j': range", "'-90'", "two numbers"]),
        ('range="-90 90"', 'range="-90 x"', ["joint 'j': range", "'x'", "finite number"]),
        ('range="-90 90"', 'range="-90 90" limited="yes"', ["joint 'j': limited", "'yes'", "'true' or 'false'"]),
        ('range="-90 90"', 'range="-90 90" class="z"', ["<joint> class", "'z'", "no such default class"]),
        ("<worldbody>", '<compiler angle="turns"/><worldbody>', ["<compiler> angle", "'turns'", "'radian'"]),
        ("<worldbody>", '<compiler autolimits="false"/><worldbody>', ["range without limited", "autolimits"]),
        ("<worldbody>", '<default><default class="main"/></default><worldbody>', ["<default> class", "'main'"]),
        ("<worldbody>", '<default class="x"/><worldbody>', ["<default> class", "'x'", "'main'"]),
        ("<worldbody>", '<include file="gone.xml"/><worldbody>', ["gone.xml: no such file"]),
        ("<worldbody>", '<include file="m.xml"/><worldbody>', ["m.xml", "included twice"]),
        ("<worldbody>", "<include/><worldbody>", ["<include> file", "''"]),
        ("</body>", "<composite/></body>", ["<composite>", "mj_saveLastXML"]),
        ("<body>", "<replicate><body>", ["<replicate>"]),
        ('joint="j"', 'joint="z"', ["<motor> joint", "'z'", "no such joint"]),
        ('name="j"', 'name="j" type="ball"', ["no hinge or slide joint"]),
    ],
)
def test_mjcf_refusals(tmp_path: Path, old: str, new: str, words: list[str]) -> None:
    text = (
        f'<mujoco><worldbody><body><joint name="j" range="-90 90"/>{ONE}</body></worldbody>'
        '<actuator><motor joint="j"/></actuator></mujoco>'
    )
    assert set(mjcf(tmp_path, text)) == {"j"}
    text = text.replace(old, new, 1)
    (tmp_path / "m.xml").write_text(text.replace("</body>", "</body></replicate>") if "<replicate>" in new else text)
    with pytest.raises(GuardrailError) as error:
        read_mjcf(tmp_path / "m.xml")
    for word in ["m.xml" if "gone" not in new else "gone.xml", *words]:
        assert word in str(error.value)


RICH = """<mujoco>
<compiler angle="radian"/><compiler autolimits="false"/>
<default class="main">
  <joint range="-2 3" limited="true"/><motor forcerange="-9 8" forcelimited="true" gear="4"/>
  <default class="bent"><joint type="slide" range="-0.5 0.25"/><position ctrlrange="-0.375 0.125" ctrllimited="true"/>
    <default class="free"><joint limited="false"/></default></default>
</default>
<worldbody>
  <body><joint name="a"/>{one}
    <body childclass="bent"><joint name="b"/>{one}
      <body><frame><joint name="c" axis="0 1 0"/></frame><frame childclass="free"><joint name="d"/></frame>{one}</body>
      <body><joint name="e" class="main" actuatorfrcrange="-7 5" actuatorfrclimited="true"/>{one}</body></body></body>
  <body><joint name="f" type="slide" limited="true" range="-4 4"/>{one}</body>
  <body><joint name="g" limited="false"/>{one}</body>
  <body><joint name="idle"/>{one}</body>
  <body><joint name="ball" type="ball" limited="false"/>{one}</body>
</worldbody>
<actuator>
  <motor joint="a" ctrlrange="-1 0.5" ctrllimited="true"/>
  <position class="bent" joint="b" gear="-0.5"/>
  <general joint="c" forcelimited="false"/>
  <velocity joint="d" ctrlrange="-3 6" ctrllimited="true" gear="2"/>
  <motor joint="e" gear="1"/>
  <position jointinparent="f" gear="2" ctrlrange="-3 2" ctrllimited="true" forcelimited="false"/>
  <velocity joint="g" ctrlrange="-8 5" ctrllimited="true" gear="-2"/>
  <motor joint="ball" gear="1 0 0"/>
</actuator></mujoco>""".replace("{one}", ONE)


def test_every_way_to_say_a_limit(tmp_path: Path) -> None:
    assert mjcf(tmp_path, RICH) == {
        "a": JointBounds("a", -2, 3, effort=0.5 * 4),
        "b": JointBounds("b", -0.25, 0.25, effort=8 * 0.5),
        "c": JointBounds("c", -0.5, 0.25),
        "d": JointBounds("d", velocity=1.5, effort=8 * 2),
        "e": JointBounds("e", -2, 3, effort=5),
        "f": JointBounds("f", -1.5, 1),
        "g": JointBounds("g", velocity=2.5, effort=8 * 2),
    }
    degrees = RICH.replace('angle="radian"', 'angle="degree"')
    assert mjcf(tmp_path, degrees)["a"] == JointBounds("a", math.radians(-2), math.radians(3), effort=2)
    assert mjcf(tmp_path, degrees)["f"] == JointBounds("f", -1.5, 1)
    assert mjcf(tmp_path, degrees.replace(' angle="degree"', ""))["a"].upper == math.radians(3)
    integrated = '<intvelocity joint="j" kp="1" actrange="-1 1" ctrlrange="-8 5" gear="-2"/>'
    assert mjcf(tmp_path, BARE.format("", "", "", integrated)) == {"j": JointBounds("j", velocity=2.5)}
    without = RICH[: RICH.index("<actuator>")] + "</mujoco>"
    assert list(mjcf(tmp_path, without)) == ["a", "b", "c", "d", "e", "f", "g", "idle"]


BARE = '<mujoco>{}<worldbody><body><joint name="j" {}/>' + ONE + "</body>{}</worldbody><actuator>{}</actuator></mujoco>"
X = "found 'x'; expected a finite number"
MAKES = "makes joints that are not written down; save the compiled model (mj_saveLastXML) and use that"


@pytest.mark.parametrize(
    ("top", "attributes", "more", "drives", "message"),
    [
        ("", 'range="1"', "", "", "joint 'j': range: found '1'; expected two numbers"),
        ("", 'range="x 1"', "", "", f"joint 'j': range: {X}"),
        ("", 'range="1 1"', "", "", "joint 'j': range: 1 is not below 1"),
        ("", 'range="0 0" limited="true"', "", "", "joint 'j': range: 0 is not below 0"),
        ("", 'actuatorfrcrange="x 1"', "", "", f"joint 'j': actuatorfrcrange: {X}"),
        ("", 'actuatorfrcrange="1 5"', "", "", "joint 'j' effort: found -1; expected a value of at least 0"),
        ("", 'actuatorfrclimited="x"', "", "", "joint 'j': actuatorfrclimited: found 'x'; expected 'true' or 'false'"),
        ("", 'limited="x"', "", "", "joint 'j': limited: found 'x'; expected 'true' or 'false'"),
        ("", 'class="x"', "", "", "<joint> class: found 'x'; no such default class"),
        ("", "", '<body><joint name="j"/></body>', "", "joint 'j': declared twice"),
        ("", "", '<body><joint name="j" type="ball"/></body>', "", "joint 'j': declared twice"),
        ("", 'type="ball"', '<body><joint name="j"/></body>', "", "joint 'j': declared twice"),
        ("", "", '<body><joint type="slide"/></body>', "", "a slide joint has no name"),
        ("", "", "<body><joint/></body>", "", "a hinge joint has no name"),
        ("", 'type="ball"', "", "", "no hinge or slide joint found that an actuator drives"),
        ("", "", "<attach/>", "", f"<attach>: {MAKES}"),
        ("", "", "<flexcomp/>", "", f"<flexcomp>: {MAKES}"),
        ("", "", "<body><composite/></body>", "", f"<composite>: {MAKES}"),
        ("", "", "<replicate><body><joint/></body></replicate>", "", f"<replicate>: {MAKES}"),
        ('<compiler angle="x"/>', "", "", "", "<compiler> angle: found 'x'; expected 'degree' or 'radian'"),
        ('<compiler autolimits="x"/>', "", "", "", "<compiler> autolimits: found 'x'; expected 'true' or 'false'"),
        ('<compiler autolimits="false"/>', 'range="0 1"', "", "",
         'joint \'j\': range without limited while autolimits="false"; say true or false'),
        ('<default class="x"/>', "", "", "", "<default> class: found 'x'; the outermost is 'main'"),
        ("<default><default/></default>", "", "", "", "<default> class: found ''; expected a new name"),
        ('<default><default class="x"/><default class="x"/></default>', "", "", "",
         "<default> class: found 'x'; expected a new name"),
        ("", "", "", '<motor joint="k"/>', "<motor> joint: found 'k'; no such joint in this file"),
        ("", "", "", '<motor joint="j" gear="x"/>', f"<motor> of joint 'j': gear: {X}"),
        ("", "", "", '<motor joint="j" forcerange="x 1"/>', f"<motor> of joint 'j': forcerange: {X}"),
        ("", "", "", '<motor joint="j" ctrlrange="x 1"/>', f"<motor> of joint 'j': ctrlrange: {X}"),
        ("", "", "", '<motor joint="j" class="x"/>', "<motor> class: found 'x'; no such default class"),
        ("", 'range="0 1"', "", '<position joint="j" ctrlrange="2 3"/>',
         "joint 'j': <position>: lower 2 is not below upper 0.0174533"),
        ("", "", "", '<velocity joint="j" ctrlrange="-3 0"/>',
         "joint 'j': <velocity> velocity: found 0; expected a value above 0"),
        ("<include/>", "", "", "", "<include> file: found ''; expected the name of a file"),
        ('<include file="m.xml"/>', "", "", "", "<include> file: {folder}/m.xml is included twice"),
        ('<include file="no.xml"/>', "", "", "", "<include> file: {folder}/no.xml: no such file"),
    ],
)  # fmt: skip
def test_the_words_of_a_refusal(
    tmp_path: Path, top: str, attributes: str, more: str, drives: str, message: str
) -> None:
    path = tmp_path / "m.xml"
    path.write_text(BARE.format(top, attributes, more, drives))
    with pytest.raises(GuardrailError) as error:
        read_mjcf(path)
    assert str(error.value) == f"{path}: {message.format(folder=tmp_path)}"


def test_what_limits_nothing_is_allowed(tmp_path: Path) -> None:
    """A replicate without joints, a drive of no gear, of a tendon, of a joint that cannot be guarded."""
    more = '<replicate count="2"><geom size="0.1"/></replicate>'
    (j,) = mjcf(tmp_path, BARE.format("", "", more, "")).values()
    assert j == JointBounds("j")
    path = tmp_path / "m.xml"
    path.write_text(BARE.format("", "", "", '<position joint="j" gear="0" ctrlrange="-1 1"/><motor tendon="t"/>'))
    assert read_mjcf(path) == (JointBounds("j"),)


def test_includes_in_a_circle(tmp_path: Path) -> None:
    for name, other in (("m", "a"), ("a", "b"), ("b", "a")):
        root = "mujoco" if name == "m" else "mujocoinclude"
        (tmp_path / f"{name}.xml").write_text(f'<{root}><include file="{other}.xml"/></{root}>')
    with pytest.raises(GuardrailError) as error:
        read_mjcf(tmp_path / "m.xml")
    assert str(error.value) == f"{tmp_path / 'b.xml'}: <include> file: {tmp_path / 'a.xml'} is included twice"


def test_includes_nest_no_deeper_than_elements(tmp_path: Path) -> None:
    for i in range(60):
        inner = f'<body><include file="i{i + 1}.xml"/></body>' if i < 59 else '<body><joint name="j"/></body>'
        (tmp_path / f"i{i}.xml").write_text(f"<mujocoinclude><body>{inner}</body></mujocoinclude>")
    path = tmp_path / "m.xml"
    path.write_text('<mujoco><worldbody><include file="i12.xml"/></worldbody></mujoco>')
    assert len(read_mjcf(path)) == 1
    path.write_text('<mujoco><worldbody><include file="i0.xml"/></worldbody></mujoco>')
    with pytest.raises(GuardrailError, match=r"i\d+\.xml: more than 100 nested elements$"):
        read_mjcf(path)
