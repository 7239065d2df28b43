"""What a guard file and a URDF may say, and that whatever else they say is refused in words."""

from __future__ import annotations

import re
import string
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails import Guardrails
from kizzasi_edge.guardrails.spec import parse_spec
from kizzasi_edge.guardrails.urdf import read_urdf

GOOD = """schema = 1
[guard]
rate_hz = 500
[joints]
names = ["a", "b"]
position = [[-1, 1], [-2.0, 2]]
velocity = 2
acceleration = [10, 12.5]
"""

URDF = """<robot name="r">
  <joint name="base" type="fixed"/>
  <joint name="a" type="revolute"><limit lower="-1.5" upper="1" velocity="3" effort="9" acceleration="20"/></joint>
  <joint name="b" type="prismatic"><limit upper="0.4" velocity="1" effort="9"/></joint>
  <joint name="a_mirror" type="continuous"><mimic joint="a"/></joint>
</robot>"""
FROM_URDF = 'schema = 1\n[guard]\nrate_hz = 500\n[joints]\nfrom_urdf = "r.urdf"\nacceleration = 10\n'


def load(folder: Path, text: str, urdf: str | bytes | None = None) -> Guardrails:
    (folder / "x.guard.toml").write_text(text)
    if urdf is not None:
        (folder / "r.urdf").write_bytes(urdf.encode() if isinstance(urdf, str) else urdf)
    return Guardrails.load(folder / "x.guard.toml")


def refusal(folder: Path, text: str, urdf: str | bytes | None = None) -> str:
    with pytest.raises(GuardrailError) as error:
        load(folder, text, urdf)
    return str(error.value)


def test_a_good_file(tmp_path: Path) -> None:
    guard = load(tmp_path, GOOD + "margin = 0.1\nvelocity_scale = 0.5\n")
    assert guard.joints == ("a", "b")
    assert guard.rate_hz == 500
    assert guard.miss_budget == 3
    one, two = guard.limits
    assert (one.lower, one.upper, one.velocity, one.acceleration) == (-0.9, 0.9, 1.0, 10.0)
    assert (two.lower, two.upper, two.velocity, two.acceleration) == (-1.9, 1.9, 1.0, 12.5)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("schema = 1", "schema = 2", ["schema", "found 2", "expected 1"]),
        ("schema = 1", "", ["schema", "missing"]),
        ("rate_hz = 500", "rate_hz = 0", ["[guard] rate_hz", "found 0", "greater than 0"]),
        ("rate_hz = 500", "rate_hz = nan", ["[guard] rate_hz", "found nan"]),
        ("rate_hz = 500", 'rate_hz = "fast"', ["[guard] rate_hz", "found 'fast'", "number"]),
        ("rate_hz = 500", "rate_hz = true", ["[guard] rate_hz", "found True", "number"]),
        ("rate_hz = 500", "rate_hz = 500\nfoo = 1", ["[guard] foo", "unknown key", "nan_ticks"]),
        ("rate_hz = 500", "rate_hz = 500\nmiss_budget = 256", ["[guard] miss_budget", "found 256", "255"]),
        ("rate_hz = 500", "rate_hz = 500\nmiss_budget = 1.5", ["[guard] miss_budget", "found 1.5", "integer"]),
        ("rate_hz = 500", 'rate_hz = 500\ncommand = "torque"', ["[dynamics]: missing", "torque"]),
        ("rate_hz = 500", 'rate_hz = 500\non_infeasible = "cut"', ["[guard] on_infeasible", "'cut'", "'brake'"]),
        ("velocity = 2", "speed = 2", ["[joints] speed", "unknown key", "velocity_scale"]),
        ("velocity = 2\n", "", ["[joints] velocity", "missing", "'a'"]),
        ("acceleration = [10, 12.5]\n", "", ["[joints] acceleration", "missing", "'a'"]),
        ("velocity = 2", "velocity = [1, 2, 3]", ["[joints] velocity", "found 3 values", "one, or 2"]),
        ("velocity = 2", 'velocity = [1, "x"]', ["[joints] velocity[1]", "found 'x'", "number"]),
        ("velocity = 2", "velocity = inf", ["[joints] velocity", "found inf", "finite"]),
        ("velocity = 2", "velocity = -2", ["[joints] velocity", "found -2", "above 0"]),
        ("velocity = 2", "velocity = 1e-9", ["[joints] velocity", "'a'", "below one quantum", "at least"]),
        ("velocity = 2", "velocity = 1" + "0" * 400, ["[joints] velocity", "number"]),
        ("velocity = 2", "velocity = 1" + "0" * 5000, ["x.guard.toml", "not valid TOML"]),
        ("velocity = 2", "velocity = 2\nvelocity_scale = 1.1", ["[joints] velocity_scale", "found 1.1"]),
        ("velocity = 2", "velocity = 2\nmargin = 1", ["[joints] margin", "found 1", "'a'", "[-1, 1]"]),
        ("velocity = 2", "velocity = 2\nmargin = -0.1", ["[joints] margin", "found -0.1"]),
        ("velocity = 2", "velocity = 2\nmargin = nan", ["[joints] margin", "nan", "finite"]),
        ("velocity = 2", "velocity = 2\nquantum = 0", ["[joints] quantum", "found 0"]),
        ("velocity = 2", "velocity = 2\nquantum = inf", ["[joints] quantum", "found inf", "finite"]),
        ("velocity = 2", "velocity = 2\nquantum = 1e-12", ["[joints] quantum", "too fine", "at least"]),
        ("velocity = 2", "velocity = 2\nquantum = 8", ["[joints] velocity", "below one quantum"]),
        ("[-1, 1]", "[1, -1]", ["[joints] position", "[1, -1]", "'a'", "lo < hi"]),
        ("[-1, 1]", "[1, 1]", ["[joints] position", "lo < hi"]),
        ("[-1, 1]", "[nan, 1]", ["[joints] position", "nan", "finite"]),
        ("[-1, 1]", "[-1, 1, 2]", ["[joints] position[0]", "2 items"]),
        ("[-1, 1], ", "", ["[joints] position", "1 pairs", "2 pairs"]),
        ("position = [[-1, 1], [-2.0, 2]]\n", "", ["[joints] position", "nothing"]),
        ('["a", "b"]', '["a", "a"]', ["[joints] names", "twice"]),
        ('names = ["a", "b"]\n', "", ["[joints]", "from_urdf or names", "neither"]),
        ('names = ["a", "b"]', 'names = ["a", "b"]\nfrom_urdf = "r.urdf"', ["[joints]", "both"]),
        ('["a", "b"]\nposition = [[-1, 1], [-2.0, 2]]', "[]\nposition = []", ["acceleration", "found 2 values"]),
        ("[guard]", "[guard", ["not valid TOML", "line 2"]),
    ],
)  # fmt: skip
def test_refusals_name_file_section_key_found_and_expected(
    tmp_path: Path, old: str, new: str, words: list[str]
) -> None:
    assert old in GOOD
    message = refusal(tmp_path, GOOD.replace(old, new, 1))
    for word in [str(tmp_path / "x.guard.toml"), *words]:
        assert word in message
    assert len(message.splitlines()) <= 13


def test_efforts_that_nothing_enforces_are_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path, GOOD.replace("[joints]", "[joints]\neffort = 5.0", 1))
    assert "[joints] effort: not enforced without a [dynamics] section" in message


def test_a_jerk_below_one_quantum_is_refused_with_the_least_that_works(tmp_path: Path) -> None:
    message = refusal(tmp_path, GOOD.replace("[joints]", "[joints]\njerk = 0.001", 1))
    assert "[joints] jerk: joint 'a': found 0.001, below one quantum" in message
    least = message.rsplit(" ", 1)[1]
    assert "rad/s³" in load(tmp_path, GOOD.replace("[joints]", f"[joints]\njerk = [{least}, 100.0]", 1)).explain()


@pytest.mark.parametrize("kind", ["torque", "power"])
def test_kinds_that_need_inertias_are_refused_without_them(tmp_path: Path, kind: str) -> None:
    message = refusal(tmp_path, GOOD + f'[[constraint]]\nkind = "{kind}"\nname = "c"\nmax = 5\n')
    assert f"[constraint] kind: found '{kind}'" in message
    assert "[dynamics]" in message


def test_a_guard_needs_joints(tmp_path: Path) -> None:
    assert "[joints]: missing" in refusal(tmp_path, "schema = 1\n[guard]\nrate_hz = 500\n")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ('kind = "temporal"', ["[[constraint]] 1 kind", "'temporal'", "'range'"]),
        ('kind = "fancy"', ["[[constraint]] 1 kind", "'fancy'", "'range'"]),
        ('kind = "range"\nmin = 0', ["'c' max", "missing", "range"]),
        ('kind = "less"\nmin = 0\nmax = 1', ["'c' min", "not used"]),
        ('kind = "range"\nmin = 2\nmax = 3', ["'c'", "conflicts", "'a'", "nothing left between 2 and 1"]),
        ('kind = "range"\nmin = nan\nmax = 3', ["'c' min", "nan", "finite"]),
        ('kind = "rate"\nmax = 0', ["'c' max", "found 0", "above 0"]),
        ('kind = "acceleration"\nmax = 1e-9', ["[constraint] 'c'", "'a'", "at least"]),
        ('kind = "range"\nmin = 0\nmax = 1\nhard = false', ["'c' hard", "found False", "'range'", "expected True"]),
        ('kind = "range"\nmin = 0\nmax = 1\nbounce = 1', ["[[constraint]] 1 bounce", "unknown key", "priority"]),
    ],
)
def test_constraint_refusals(tmp_path: Path, lines: str, words: list[str]) -> None:
    message = refusal(tmp_path, GOOD + f'[[constraint]]\nname = "c"\njoint = "a"\n{lines}\n')
    for word in [str(tmp_path / "x.guard.toml"), *words]:
        assert word in message


def test_a_constraint_on_an_unknown_joint(tmp_path: Path) -> None:
    text = GOOD + '[[constraint]]\nname = "c"\njoint = "z"\nkind = "less"\nmax = 1\n'
    assert "[constraint] 'c' joint: found 'z'; expected one of ['a', 'b']" in refusal(tmp_path, text)


def test_the_tightest_constraint_wins(tmp_path: Path) -> None:
    rows = [("less", "max = 0.5"), ("greater", "min = -0.25"), ("range", "min = -9\nmax = 9"), ("rate", "max = 1.5"),
            ("velocity", "max = 99"), ("acceleration", "max = 3")]  # fmt: skip
    text = GOOD + "".join(f'[[constraint]]\nname = "{k}"\njoint = "a"\nkind = "{k}"\n{row}\n' for k, row in rows)
    limit = load(tmp_path, text).limits[0]
    assert (limit.lower, limit.upper, limit.velocity, limit.acceleration) == (-0.25, 0.5, 1.5, 3.0)
    assert limit.origin["velocity"] == "rate"


@pytest.mark.parametrize("rate", [100, 333.3, 500, 2000])
@pytest.mark.parametrize("half", [0.7, 1.0, 3.1])
def test_the_smallest_acceleration_that_is_named_works(tmp_path: Path, rate: float, half: float) -> None:
    text = GOOD.replace("rate_hz = 500", f"rate_hz = {rate}").replace("[-1, 1]", f"[-{half}, {half}]")
    message = refusal(tmp_path, text.replace("[10, 12.5]", "1e-7"))
    found = re.search(r"at least ([0-9.e+-]+)", message)
    assert found
    load(tmp_path, text.replace("[10, 12.5]", f"[{found[1]}, 10]"))
    too_little = float(found[1]) * (1 - 1e-4)
    assert "acceleration" in refusal(tmp_path, text.replace("[10, 12.5]", f"[{too_little!r}, 10]"))


def test_at_most_sixteen_joints(tmp_path: Path) -> None:
    def text(n: int) -> str:
        names = [f"j{i}" for i in range(n)]
        return f"schema = 1\n[guard]\nrate_hz = 500\n[joints]\nnames = {names}\nvelocity = 1\nacceleration = 9\n" + (
            f"position = {[[-1, 1]] * n}"
        )

    assert len(load(tmp_path, text(16)).joints) == 16
    assert "1 to 16 joints, found 17" in refusal(tmp_path, text(17))
    assert "found 0" in refusal(tmp_path, text(0))


def test_missing_and_odd_files(tmp_path: Path) -> None:
    with pytest.raises(GuardrailError, match=r"gone\.guard\.toml: no such file"):
        Guardrails.load(tmp_path / "gone.guard.toml")
    with pytest.raises(GuardrailError, match="is a directory"):
        Guardrails.load(tmp_path)
    (tmp_path / "b.guard.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(GuardrailError, match=r"b\.guard\.toml"):
        Guardrails.load(tmp_path / "b.guard.toml")
    with pytest.raises(GuardrailError):
        Guardrails.load("a\0b")
    (tmp_path / "d.guard.toml").write_text("a = " + "[" * 5000)
    with pytest.raises(GuardrailError, match=r"d\.guard\.toml"):
        Guardrails.load(tmp_path / "d.guard.toml")


def test_many_problems_are_one_screen(tmp_path: Path) -> None:
    message = refusal(tmp_path, GOOD + "".join(f"key_{i} = 1\n" for i in range(40)))
    assert len(message.splitlines()) == 13
    assert "and 28 more" in message


# ---- URDF ------------------------------------------------------------------------------------------------------------


def test_from_urdf(tmp_path: Path) -> None:
    guard = load(tmp_path, FROM_URDF, URDF)
    assert guard.joints == ("a", "b")  # not the fixed one, not the mimic
    a, b = guard.limits
    assert (a.lower, a.upper, a.velocity, a.acceleration) == (-1.5, 1, 2.7, 10)  # the tighter acceleration
    assert (b.lower, b.upper, b.velocity) == (0, 0.4, 0.9)  # lower defaults to 0, as URDF says
    assert load(tmp_path, FROM_URDF + "velocity = [1, 9]\n", URDF).limits[0].velocity == 0.9


def test_safety_controller_tightens_and_never_widens(tmp_path: Path) -> None:
    soft = '<safety_controller k_velocity="1" soft_lower_limit="-9" soft_upper_limit="0.5"/></joint>'
    guard = load(tmp_path, FROM_URDF, URDF.replace("</joint>", soft, 1))
    assert (guard.limits[0].lower, guard.limits[0].upper) == (-1.5, 0.5)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('<limit lower="-1.5" upper="1" velocity="3" effort="9" acceleration="20"/>', "", ["'a'", "no <limit>"]),
        ('lower="-1.5" upper="1"', 'lower="1" upper="-1.5"', ["'a'", "lower 1 is not below upper -1.5"]),
        ('lower="-1.5" upper="1"', "", ["'a'", "lower 0 is not below upper 0"]),
        ('lower="-1.5"', 'lower="${-pi/2}"', ["'a'", "<limit> lower", "${-pi/2}", "finite number"]),
        ('lower="-1.5"', 'lower="nan"', ["'a'", "<limit> lower", "'nan'", "finite number"]),
        ('upper="1"', 'upper="inf"', ["'a'", "<limit> upper", "'inf'"]),
        ('velocity="3"', 'velocity="0"', ["'a'", "<limit> velocity", "found 0", "above 0"]),
        ('acceleration="20"', 'acceleration="-20"', ["'a'", "<limit> acceleration", "found -20"]),
        ('name="a" type="revolute"', 'name="a" type="continuous"', ["'a'", "continuous", "names and position"]),
        ('<joint name="a" type', "<joint type", ["no name"]),
        ("</robot>", "", ["not well-formed XML"]),
        ("<robot", "<model", ["not well-formed"]),
        ('type="revolute"', 'type="fixed"', ["'b'"]),
    ],
)
def test_urdf_refusals_name_file_joint_and_attribute(tmp_path: Path, old: str, new: str, words: list[str]) -> None:
    text = URDF.replace(old, new, 1) if new != 'type="fixed"' else URDF.replace('upper="0.4" ', "")
    message = refusal(tmp_path, FROM_URDF, text)
    for word in [str(tmp_path / "r.urdf"), *words]:
        assert word in message


@pytest.mark.parametrize(
    ("urdf", "word"),
    [
        (b"", "not well-formed"),
        (b"<sdf/>", "root element is <sdf>"),
        (b"<robot/>", "no revolute, continuous or prismatic joint"),
        (b'<?xml version="1.0" encoding="klingon"?><robot/>', "not well-formed XML"),
        (b'<?xml version="1.0" encoding="utf-32"?><robot/>', "not well-formed XML"),
        (b"\0\1\2", "not well-formed"),
    ],
)
def test_what_is_no_urdf(tmp_path: Path, urdf: bytes, word: str) -> None:
    message = refusal(tmp_path, FROM_URDF, urdf)
    assert word in message
    assert "r.urdf" in message


def test_urdf_keys_in_the_guard_file(tmp_path: Path) -> None:
    assert "r.urdf: no such file" in refusal(tmp_path, FROM_URDF)
    assert "[joints] position" in refusal(tmp_path, FROM_URDF + "position = [[0, 1]]\n", URDF)
    assert "[joints] velocity: found 1 values" in refusal(tmp_path, FROM_URDF + "velocity = [1]\n", URDF)
    no_acceleration = FROM_URDF.replace("acceleration = 10\n", "")
    assert "[joints] acceleration: missing" in refusal(tmp_path, no_acceleration, URDF)
    no_velocity = URDF.replace('velocity="1" effort="9"', 'effort="9"')
    message = refusal(tmp_path, FROM_URDF, no_velocity)
    assert "'b'" in message
    assert "[joints] velocity is missing" in message
    (tmp_path / "r.urdf").unlink()
    (tmp_path / "r.urdf").mkdir()
    assert "cannot be read" in refusal(tmp_path, FROM_URDF)
    assert "embedded null" in refusal(tmp_path, FROM_URDF.replace("r.urdf", "a\\u0000"))


# ---- fuzz: only GuardrailError may come out --------------------------------------------------------------------------

WORDS = st.sampled_from(["a", "b", "range", "rate", "linear", "position", "brake", "r.urdf", ""]) | st.text(max_size=5)
SCALAR = st.one_of(
    st.floats(), st.integers(-(10**320), 10**320), st.integers(-3, 3), st.booleans(), WORDS, st.floats(-2, 2)
)
VALUE = st.recursive(SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=2))


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """A good file with some values replaced, removed or added."""
    data: dict[str, Any] = tomllib.loads(
        GOOD
        + 'margin = 0.1\nquantum = 0.001\n[[constraint]]\nname = "c"\nkind = "range"\njoint = "a"\nmin = 0\nmax = 1'
    )
    places = [(data, key) for key in data]
    places += [(data[section], key) for section in ("guard", "joints") for key in data[section]]
    places += [(data["constraint"][0], key) for key in data["constraint"][0]]
    places += [(data["joints"]["position"][0], 0), (data["joints"]["acceleration"], 1), (data["guard"], "miss_budget")]
    for _ in range(draw(st.integers(1, 3))):
        place, key = draw(st.sampled_from(places))
        if isinstance(place, dict) and draw(st.integers(0, 4)) == 0:
            place.pop(key, None)
        else:
            place[key] = draw(VALUE)
    return data


@settings(max_examples=400, deadline=None)
@given(mutated())
def test_fuzzed_files_raise_only_guardrail_errors(data: dict[str, Any]) -> None:
    try:
        guard = Guardrails(parse_spec(data, "fuzz"), "fuzz")
    except GuardrailError as error:
        message = str(error)
    else:
        message = ""
    if message:
        assert "fuzz" in message or "r.urdf" in message
        return
    guard.explain()
    for limit in guard.lattice:
        assert limit.lo <= limit.hi
        assert limit.w > 0
        assert limit.h > 0


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_fuzzed_urdfs_raise_only_guardrail_errors(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    text = URDF
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 12)))
        text = text[:start] + data.draw(st.text(string.printable + "é\0", max_size=6)) + text[end:]
    path = tmp_path_factory.getbasetemp() / "fuzz.urdf"
    path.write_text(text)
    try:
        joints = read_urdf(path)
    except GuardrailError as error:
        message = str(error)
    else:
        message = "fuzz.urdf"
        assert all(joint.name for joint in joints)
    assert "fuzz.urdf" in message


# ---- explain ---------------------------------------------------------------------------------------------------------


def test_explain_states_the_numbers_the_sources_and_the_assumptions(tmp_path: Path) -> None:
    text = GOOD + 'margin = 0.1\n[[constraint]]\nname = "edge"\nkind = "less"\njoint = "a"\nmax = 0.5\n'
    guard = load(tmp_path, text)
    words = guard.explain()
    one, two = guard.lattice
    for part in (
        str(tmp_path / "x.guard.toml"), "every 2 ms", "3 missed periods", "position from 'edge'", "+0.5000] rad",
        f"lo={one.lo} hi={one.hi} w={one.w} h={one.h}", f"lo={two.lo} hi={two.hi} w={two.w} h={two.h}",
        "% of the acceleration lost", "position 0.1 rad, velocity scale 0.9", "Assumed", "50 in a row latch", "inwards",
    ):  # fmt: skip
        assert part in words
