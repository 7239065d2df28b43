"""Where limits come from: URDF, MJCF (MuJoCo is the oracle) and joint_limits.yaml; and how they are merged."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kizzasi_edge import demo
from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.bounds import JointBounds
from kizzasi_edge.guardrails.files import MAX_DEPTH
from kizzasi_edge.guardrails.joint_limits import read_joint_limits
from kizzasi_edge.guardrails.lattice import JointLimits
from kizzasi_edge.guardrails.limits import joint_limits
from kizzasi_edge.guardrails.mjcf import read_mjcf
from kizzasi_edge.guardrails.spec import GuardFile, check_keys
from kizzasi_edge.guardrails.urdf import read_urdf
from kizzasi_edge.toml_file import validate

ASSETS = Path(demo.__file__).parent / "assets"
INF = math.inf


def limits(folder: Path, joints: str, rest: str = "", command: str = "position") -> tuple[JointLimits, ...]:
    """The limits that follow from a guard file in ``folder``."""
    where = folder / "x.guard.toml"
    text = (
        f'schema = 1\n[guard]\nrate_hz = 500\ncommand = "{command}"\n[joints]\nvelocity_scale = 1.0\n{joints}\n{rest}'
    )
    spec = validate(tomllib.loads(text), GuardFile, where, GuardrailError)
    check_keys(spec, where)
    return joint_limits(spec, where)


def urdf(folder: Path, body: str) -> tuple[JointBounds, ...]:
    path = folder / "r.urdf"
    path.write_text(f'<robot name="r">{body}</robot>')
    return read_urdf(path)


def joint(name: str, attributes: str, inner: str = "", kind: str = "revolute") -> str:
    return f'<joint name="{name}" type="{kind}"><limit {attributes}/>{inner}</joint>'


# ---- URDF ------------------------------------------------------------------------------------------------------------


def test_every_attribute_of_limit(tmp_path: Path) -> None:
    text = 'lower="-1" upper="2" velocity="3" effort="4" acceleration="6" deceleration="5" jerk="7"'
    assert urdf(tmp_path, joint("a", text)) == (JointBounds("a", -1, 2, 3, 5, 7, 4),)
    assert urdf(tmp_path, joint("a", 'upper="2"')) == (JointBounds("a", 0, 2),)
    assert urdf(tmp_path, '<joint name="w" type="continuous"/>') == (JointBounds("w"),)
    with pytest.raises(GuardrailError, match=r"r\.urdf: joint 'a': <limit> jerk: found 0; expected a value above 0"):
        urdf(tmp_path, joint("a", 'upper="2" jerk="0"'))
    with pytest.raises(GuardrailError, match="'a': declared twice"):
        urdf(tmp_path, joint("a", 'upper="2"') * 2)


def test_soft_limits_tighten_and_gains_are_only_checked(tmp_path: Path) -> None:
    soft = '<safety_controller k_velocity="{}" k_position="5" soft_lower_limit="-0.5" soft_upper_limit="9"/>'
    (a,) = urdf(tmp_path, joint("a", 'lower="-1" upper="1" velocity="3"', soft.format(20)))
    assert (a.lower, a.upper, a.velocity) == (-0.5, 1, 3)
    with pytest.raises(GuardrailError, match="<safety_controller>: found a gain below 0"):
        urdf(tmp_path, joint("a", 'lower="-1" upper="1"', soft.format(-20)))
    with pytest.raises(GuardrailError, match="<safety_controller> k_velocity: found 'fast'"):
        urdf(tmp_path, joint("a", 'lower="-1" upper="1"', soft.format("fast")))


FACTOR = st.floats(-4, 4).filter(lambda x: abs(x) > 0.1)


@settings(max_examples=100, deadline=None)
@given(FACTOR, st.floats(-0.2, 0.2), FACTOR, st.floats(-0.2, 0.2))
def test_whatever_a_mimicked_joint_does_its_mimics_stay_inside(
    tmp_path_factory: pytest.TempPathFactory, m1: float, o1: float, m2: float, o2: float
) -> None:
    """b = m1·a + o1, c = m2·b + o2: at both ends of what is left of a, and so between them."""
    text = (
        joint("c", 'lower="-0.7" upper="0.9" velocity="2" acceleration="5"',
              f'<mimic joint="b" multiplier="{m2!r}" offset="{o2!r}"/>')
        + joint("a", 'lower="-1" upper="1" velocity="3"')
        + joint("b", 'lower="-0.5" upper="0.6" velocity="1"', f'<mimic joint="a" multiplier="{m1!r}" offset="{o1!r}"/>')
    )  # fmt: skip
    (a,) = urdf(tmp_path_factory.getbasetemp(), text)
    assert a.name == "a"
    reached = {"lower": False, "upper": False}
    for side in ("lower", "upper"):
        q = getattr(a, side)
        b = m1 * q + o1
        c = m2 * b + o2
        slack = [q + 1, 1 - q, b + 0.5, 0.6 - b, c + 0.7, 0.9 - c]
        assert min(slack) > -1e-12
        reached[side] = min(slack) < 1e-12
    assert all(reached.values())  # no tighter than needed
    assert a.velocity == pytest.approx(min(3, 1 / abs(m1), 2 / abs(m1 * m2)))
    assert a.acceleration == pytest.approx(5 / abs(m1 * m2))


@pytest.mark.parametrize(
    ("mimic", "words"),
    [
        ('joint="z"', ["found joint 'z'", "movable joint"]),
        ('joint="b"', ["circle"]),
        ('joint="a" offset="5"', ["leaves joint 'a' no room"]),
        ('joint="a" multiplier="0" offset="5"', ["stands at 5", "[-1, 1]"]),
        ('joint="a" multiplier="two"', ["multiplier: found 'two'"]),
    ],
)
def test_mimics_that_cannot_be(tmp_path: Path, mimic: str, words: list[str]) -> None:
    body = joint("a", 'lower="-1" upper="1"') + joint("b", 'lower="-1" upper="1"', f"<mimic {mimic}/>")
    with pytest.raises(GuardrailError) as error:
        urdf(tmp_path, body)
    for word in ["r.urdf: joint 'b': <mimic>", *words]:
        assert word in str(error.value)


def test_a_mimic_at_a_fixed_value_limits_nothing(tmp_path: Path) -> None:
    body = joint("a", 'lower="-1" upper="1"') + joint(
        "b", 'lower="-9" upper="9"', '<mimic joint="a" multiplier="0" offset="5"/>'
    )
    assert urdf(tmp_path, body) == (JointBounds("a", -1, 1),)


CONTROL = (
    '<ros2_control name="r" type="system"><joint name="{}"><command_interface name="{}">'
    '<param name="min">{}</param><param name="max"> {} </param></command_interface>'
    '<state_interface name="position"/></joint></ros2_control>'
)


def test_ros2_control_tightens(tmp_path: Path) -> None:
    a = joint("a", 'lower="-1" upper="1" velocity="3" effort="9"')
    assert urdf(tmp_path, a + CONTROL.format("a", "position", -0.5, 7)) == (JointBounds("a", -0.5, 1, 3, effort=9),)
    assert urdf(tmp_path, a + CONTROL.format("a", "velocity", -2, 2.5)) == (JointBounds("a", -1, 1, 2, effort=9),)
    assert urdf(tmp_path, a + CONTROL.format("a", "effort", -8, 9)) == (JointBounds("a", -1, 1, 3, effort=8),)
    wheel = '<joint name="w" type="continuous"/>'
    assert urdf(tmp_path, wheel + CONTROL.format("w", "position", -50, 50)) == (JointBounds("w", -50, 50),)
    assert urdf(tmp_path, a + '<joint name="f" type="fixed"/>' + CONTROL.format("f", "position", 0, 0))
    # On a mimic: its own limit, and so what is left of the joint it follows.
    mirror = joint("m", 'lower="-9" upper="9"', '<mimic joint="a" multiplier="-2"/>')
    assert urdf(tmp_path, a + mirror + CONTROL.format("m", "position", -1, 1))[0].upper == 0.5


@pytest.mark.parametrize(
    ("control", "words"),
    [
        (("z", "position", -1, 1), ["<ros2_control> joint 'z'", "no such joint"]),
        (("a", "position", 2, 3), ["joint 'a'", "<ros2_control>", "lower 2 is not below upper 1"]),
        (("a", "position", "${lo}", 3), ["joint 'a': position command_interface: min", "${lo}", "finite number"]),
        (("a", "velocity", 1, 3), ["joint 'a': velocity command_interface velocity: found -1", "above 0"]),
    ],
)
def test_ros2_control_refusals(tmp_path: Path, control: tuple[Any, ...], words: list[str]) -> None:
    with pytest.raises(GuardrailError) as error:
        urdf(tmp_path, joint("a", 'lower="-1" upper="1"') + CONTROL.format(*control))
    for word in ["r.urdf", *words]:
        assert word in str(error.value)


WHEEL = '<robot name="r"><joint name="w" type="continuous"><limit velocity="2" effort="1"/></joint></robot>'


def test_a_continuous_joint_needs_a_range_from_somewhere(tmp_path: Path) -> None:
    (tmp_path / "r.urdf").write_text(WHEEL)
    keys = 'from_urdf = "r.urdf"\nacceleration = 9'
    with pytest.raises(GuardrailError, match=r"r\.urdf: joint 'w': continuous.*'range'.*names and position"):
        limits(tmp_path, keys)
    rule = '[[constraint]]\nkind = "range"\nname = "turns"\njoint = "w"\nmin = -30\nmax = 30'
    (w,) = limits(tmp_path, keys, rule)
    assert (w.lower, w.upper, w.origin["position"]) == (-30, 30, "turns")
    (w,) = limits(tmp_path, keys, command="velocity")
    assert (w.lower, w.upper, w.velocity, w.effort) == (-INF, INF, 2, 1)


# ---- MJCF: MuJoCo is the oracle --------------------------------------------------------------------------------------

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
                elif model.actuator_biasprm[k, 1]:  # a position servo
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


# ---- XML that is meant to hurt ---------------------------------------------------------------------------------------

LAUGHS = '<!DOCTYPE robot [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(12)
)  # fmt: skip


@pytest.mark.parametrize("reader", [read_urdf, read_mjcf])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        (LAUGHS + ']>\n<robot name="&m;"/>', "line 1: found a DOCTYPE"),
        ('<!DOCTYPE robot [<!ENTITY x SYSTEM "file:///etc/passwd">]><robot>&x;</robot>', "found a DOCTYPE"),
        ("<robot>\n" + "<a>" * 100_000, f"line 2: more than {MAX_DEPTH} nested elements"),
        (" " * (16 << 20) + "<robot/>", "larger than"),
    ],
    ids=["billion laughs", "external entity", "deep", "large"],
)
def test_hostile_xml_is_refused_at_once(tmp_path: Path, reader: Any, text: str, words: str) -> None:
    path = tmp_path / "r.xml"
    path.write_text(text)
    with pytest.raises(GuardrailError, match=words):
        reader(path)


# ---- joint_limits.yaml -----------------------------------------------------------------------------------------------

YAML = """# MoveIt
default_velocity_scaling_factor: 0.1
default_acceleration_scaling_factor: 0.1
joint_limits:
  a:
    has_position_limits: true
    min_position: !degrees -90
    max_position: 1.25
    has_velocity_limits: true
    max_velocity: 2
    has_acceleration_limits: true
    max_acceleration: 8e0
    has_deceleration_limits: true
    max_deceleration: 6.5
    has_jerk_limits: true
    max_jerk: 50
    has_effort_limits: true
    max_effort: 20
  b:
    has_velocity_limits: false
    max_velocity: 0.001
    has_soft_limits: true
    soft_lower_limit: -0.5
    soft_upper_limit: 0.5
    k_position: 10
    k_velocity: 20
    angle_wraparound: false
"""


def yaml(folder: Path, text: str) -> dict[str, JointBounds]:
    (folder / "joint_limits.yaml").write_text(text)
    return {bound.name: bound for bound in read_joint_limits(folder / "joint_limits.yaml")}


def test_moveit_and_ros2_control_files(tmp_path: Path) -> None:
    expected = {
        "a": JointBounds("a", -math.pi / 2, 1.25, 2, 6.5, 50, 20),
        "b": JointBounds("b", -0.5, 0.5),
    }
    assert yaml(tmp_path, YAML) == expected
    indented = YAML.replace("\n", "\n  ")
    assert yaml(tmp_path, "robot_description_planning:\n  " + indented) == expected
    parameters = "node:\n  ros__parameters:\n    update_rate: 100\n    " + YAML[YAML.index("joint_limits") :].replace(
        "\n", "\n    "
    )
    assert yaml(tmp_path, parameters) == expected
    one, two = parameters.split("      b:")
    assert yaml(tmp_path, one.rstrip(" ") + "other:\n  ros__parameters:\n    joint_limits:\n      b:" + two) == expected


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("max_jerk", "max_jerkiness", ["line 16: joint 'a': max_jerkiness: unknown key", "max_jerk"]),
        ("default_velocity", "default_speed", ["line 2: default_speed_scaling_factor: unknown key"]),
        ("scaling_factor: 0.1", "scaling_factor: 1.5", ["line 2: default_velocity", "found 1.5", "at most 1"]),
        ("max_jerk: 50", "max_jerk: fast", ["line 16: joint 'a': max_jerk: found 'fast'", "finite number"]),
        ("max_jerk: 50", "max_jerk: .inf", ["line 16", "'.inf'", "finite number"]),
        ("max_jerk: 50", 'max_jerk: "50"', ["line 16", "'50'", "finite number"]),
        ("max_jerk: 50", "max_jerk: [50]", ["line 16", "a sequence", "finite number"]),
        ("max_jerk: 50", "max_jerk: -50", ["line 6: joint 'a' jerk: found -50", "above 0"]),
        ("max_jerk: 50", "max_jerk: !turns 50", ["line 16", "'50', !turns", "!degrees"]),
        ("max_jerk: 50", "max_jerk: !!python/object:os.system 50", ["line 16", "'50'"]),
        ("    max_jerk: 50\n", "", ["joint 'a': max_jerk: missing; has_jerk_limits is true"]),
        ("    has_jerk_limits: true\n", "", ["line 15: joint 'a': max_jerk: found without has_jerk_limits"]),
        ("has_jerk_limits: true", "has_jerk_limits: 1", ["line 15", "found '1'", "true or false"]),
        ("max_jerk: 50", "max_jerk: 50\n    max_jerk: 60", ["line 17", "'max_jerk': found twice"]),
        ("  b:", "  a:", ["line 19", "'a': found twice"]),
        ("max_position: 1.25", "max_position: -3", ["joint 'a'", "lower -1.5708 is not below upper -3"]),
        ("joint_limits:", "joints:", ["line 2: default_velocity_scaling_factor: found '0.1'", "keys and values"]),
        ("joint_limits:", "joint_limits: {a: {", ["not valid YAML", "line"]),
        (YAML, "", ["the file: found nothing"]),
        (YAML, "[1, 2]", ["line 1: the file: found a sequence"]),
        (YAML, "joint_limits: {}", ["no joint under joint_limits"]),
        (YAML, "n: {ros__parameters: {rate: 1}}", ["no joint under joint_limits"]),
        (YAML, "n: {parameters: {rate: 1}}", ["line 1: n: expected joint_limits, or a node with ros__parameters"]),
        (YAML, "joint_limits: {[a]: 1}", ["line 1", "expected a name"]),
        (YAML, "[" * 5000, ["not valid YAML"]),
        (YAML, "a: &a [" + "*a, " * 9 + "]", ["line 1: a: found a sequence"]),
        (YAML, "a: &a {joint_limits: *a}", ["line 1"]),
    ],
)  # fmt: skip
def test_yaml_refusals_name_line_joint_and_key(tmp_path: Path, old: str, new: str, words: list[str]) -> None:
    assert old in YAML
    with pytest.raises(GuardrailError) as error:
        yaml(tmp_path, YAML.replace(old, new, 1))
    for word in [str(tmp_path / "joint_limits.yaml"), *words]:
        assert word in str(error.value)


def test_a_yaml_of_aliases_is_not_expanded(tmp_path: Path) -> None:
    lines = ["a0: &a0 {ros__parameters: {joint_limits: {}}}"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30)]
    with pytest.raises(GuardrailError, match="line 2: a1: found a sequence"):
        yaml(tmp_path, "\n".join(lines))


# ---- merging ---------------------------------------------------------------------------------------------------------


def test_the_tightest_source_wins(tmp_path: Path) -> None:
    (tmp_path / "r.urdf").write_text(
        "<robot>" + joint("a", 'lower="-2" upper="1" velocity="1.5" effort="30"') + joint("b", 'upper="9" velocity="4"')
        + "</robot>"
    )  # fmt: skip
    (tmp_path / "l.yaml").write_text(YAML.replace("has_velocity_limits: false", "has_velocity_limits: true"))
    keys = 'from_urdf = "r.urdf"\njoint_limits = "l.yaml"\nacceleration = [7, 9]\njerk = [60, 70]\neffort = 25\n'
    rules = '[[constraint]]\nkind = "{}"\nname = "{}"\nmax = {}\n'
    rest = rules.format("jerk", "gentle", 40) + 'joints = ["a"]\n' + rules.format("torque", "weak", 10)
    a, b = limits(tmp_path, keys, rest)
    assert (a.lower, a.upper, a.velocity, a.acceleration) == (-math.pi / 2, 1, 1.5, 6.5)
    assert (a.jerk, a.effort, a.origin["jerk"], a.origin["effort"]) == (40, 10, "gentle", "weak")
    assert (b.lower, b.upper, b.velocity, b.acceleration) == (0, 0.5, 0.001, 9)
    assert (b.jerk, b.effort, b.origin["jerk"]) == (70, 10, "jerk")


def test_names_take_their_limits_from_a_yaml(tmp_path: Path) -> None:
    (tmp_path / "l.yaml").write_text(YAML)
    keys = 'joint_limits = "l.yaml"\nvelocity = 9\nacceleration = 9\n'
    (a, b) = limits(tmp_path, 'names = ["a", "b"]\n' + keys)
    assert (a.upper, a.velocity, b.upper, b.velocity) == (1.25, 2, 0.5, 9)
    with pytest.raises(GuardrailError, match=r"l\.yaml: joint 'b': not guarded by .*x\.guard\.toml; expected one of"):
        limits(tmp_path, 'names = ["a"]\nposition = [[-1, 1]]\n' + keys)
    with pytest.raises(GuardrailError, match=r"l\.yaml: joint 'a': with .*: lower 2 is not below upper 1\.25"):
        limits(tmp_path, 'names = ["a", "b"]\nposition = [[2, 3], [0, 1]]\n' + keys)


def test_a_torque_guard_needs_efforts(tmp_path: Path) -> None:
    keys = 'names = ["a"]\nposition = [[-1, 1]]\nvelocity = 1\nacceleration = 1\n'
    with pytest.raises(GuardrailError, match=r"\[joints\] effort: missing; a torque guard needs one above 0"):
        limits(tmp_path, keys, command="torque")
    assert limits(tmp_path, keys + "effort = 3", command="torque")[0].effort == 3
    assert limits(tmp_path, 'names = ["a"]\nvelocity = 1\nacceleration = 1', command="velocity")[0].upper == INF


@pytest.mark.parametrize("both", ['names = ["a"]\nfrom_mjcf = "m.xml"', 'from_urdf = "r.urdf"\nfrom_mjcf = "m.xml"'])
def test_one_source_of_joints(tmp_path: Path, both: str) -> None:
    with pytest.raises(GuardrailError, match=r"\[joints\]: give either from_urdf or names or from_mjcf, found both"):
        limits(tmp_path, both)
