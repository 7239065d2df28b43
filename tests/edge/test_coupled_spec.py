"""Guard file sections that couple joints: what rows and quadratics they become, and what is refused."""

from __future__ import annotations

import math
import tomllib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.coupled_spec import coupled_rules, power_rules
from kizzasi_edge.guardrails.lattice import to_lattice
from kizzasi_edge.guardrails.limits import joint_limits
from kizzasi_edge.guardrails.rows import PowerRule, Quadratic, Row
from kizzasi_edge.guardrails.spec import GuardFile, check_keys
from kizzasi_edge.toml_file import validate

HEAD = """schema = 1
[guard]
rate_hz = 500
[joints]
names = ["a", "b", "c"]
position = [[-1, 1], [-2, 2], [-3, 3]]
velocity = 2
acceleration = 10
"""


def spec(text: str) -> GuardFile:
    found = validate(tomllib.loads(HEAD + text), GuardFile, "x.toml", GuardrailError)
    check_keys(found, "x.toml")
    return found


def rules(*sections: str) -> tuple[tuple[Row, ...], tuple[Quadratic, ...]]:
    text = "".join(f'[[constraint]]\nname = "r{i}"\nkind = {section}\n' for i, section in enumerate(sections))
    found = spec(text)
    return coupled_rules(found, joint_limits(found, "x.toml"), "x.toml")


def test_linear_rows() -> None:
    rows, _ = rules(
        '"linear"\na = {a = 1.0, c = -2}\nmin = -1\nmax = 0.5\npriority = 3\nhard = false',
        '"linear"\na = {b = 4}\nmin = -0.5\non = "velocity"',
        '"linear"\na = {a = 1, b = 1}\nequals = 0.25\ntolerance = 0.125',
        '"linear"\na = {a = 1}\nmax = 3\non = "acceleration"',
    )
    found = [(row.name, row.on, row.a.tolist(), row.b, row.priority, row.hard) for row in rows]
    assert found == [
        ("r0", "position", [1, 0, -2], 0.5, 3, False),
        ("r0", "position", [-1, 0, 2], 1, 3, False),
        ("r1", "velocity", [0, -4, 0], 0.5, 0, True),
        ("r2", "position", [1, 1, 0], 0.375, 0, True),
        ("r2", "position", [-1, -1, 0], -0.125, 0, True),
        ("r3", "acceleration", [1, 0, 0], 3, 0, True),
    ]


NUMBER = st.floats(-1, 1)


@settings(max_examples=100, deadline=None)
@given(st.lists(NUMBER, min_size=6, max_size=6), st.lists(NUMBER, min_size=3, max_size=3),
       st.lists(NUMBER, min_size=3, max_size=3), st.lists(NUMBER, min_size=3, max_size=3))  # fmt: skip
def test_a_quadratic_is_the_set_that_was_written(
    factor: list[float], center: list[float], linear: list[float], z: list[float]
) -> None:
    root = np.array([[factor[0], factor[1]], [factor[2], factor[3]], [factor[4], factor[5]]])
    q = np.diag([0.5, 0.25, 0.125]) + root @ root.T
    q = (q + q.T) / 2
    matrix = q.tolist()
    named = ", ".join(
        f"{row} = {{{', '.join(f'{k} = {v!r}' for k, v in zip('abc', line, strict=True))}}}"
        for row, line in zip("abc", matrix, strict=True)
    )
    tail = "".join(
        f"\n{key} = {{{', '.join(f'{k} = {v!r}' for k, v in zip('abc', values, strict=True))}}}"
        for key, values in (("center", center), ("linear", linear))
    )
    (_, both) = rules(
        f'"quadratic"\nmax = 9\nmatrix = {{{named}}}{tail}',
        # The same over joints in another order.
        f'"quadratic"\nmax = 9\njoints = ["c", "a", "b"]\nmatrix = {q[np.ix_([2, 0, 1], [2, 0, 1])].tolist()}{tail}',
    )
    x, x0 = np.array(z), np.array(center)
    meant = (x - x0) @ q @ (x - x0) + np.array(linear) @ x - 9
    for found in both:
        assert x @ found.q @ x + found.c @ x - found.r == pytest.approx(meant, abs=1e-12)


def test_a_diagonal_and_a_part_of_the_joints() -> None:
    _, (one, two) = rules(
        '"quadratic"\ndiagonal = {a = 2, c = 3}\nmax = 1\non = "velocity"',
        '"quadratic"\njoints = ["c", "a"]\nmatrix = [[2, 1], [1, 4]]\nmax = 1',
    )
    assert one.q.tolist() == [[2, 0, 0], [0, 0, 0], [0, 0, 3]]
    assert (one.on, one.r, one.c.tolist()) == ("velocity", 1, [0, 0, 0])
    assert two.q.tolist() == [[4, 0, 1], [0, 0, 0], [1, 0, 2]]


def test_power() -> None:
    found = spec(
        '[[constraint]]\nkind = "power"\nname = "p"\nmax = 80\nhard = false\npriority = 2\n'
        '[[constraint]]\nkind = "power"\nname = "q"\njoint = "b"\nmax = 8\n'
        '[[constraint]]\nkind = "power"\nname = "r"\njoints = ["c", "a"]\nmax = 8\n'
    )
    p, q, r = power_rules(found, ["a", "b", "c"], "x.toml")
    assert isinstance(p, PowerRule)
    assert (p.name, p.on.tolist(), p.watts, p.priority, p.hard) == ("p", [1, 1, 1], 80, 2, False)
    assert (q.on.tolist(), r.on.tolist()) == ([0, 1, 0], [1, 0, 1])
    for text, words in (("max = 0", "'p' max: found 0"), ('max = 1\njoint = "z"', "'p' joints: found joint 'z'")):
        bad = spec(f'[[constraint]]\nkind = "power"\nname = "p"\n{text}\n')
        with pytest.raises(GuardrailError, match=words):
            power_rules(bad, ["a", "b", "c"], "x.toml")


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ('"linear"\nmax = 1', ["'r0' a: missing for kind 'linear'"]),
        ('"linear"\na = {a = 1}', ["'r0'", "min or max or both, or else equals and tolerance"]),
        ('"linear"\na = {a = 1}\nmax = 1\nequals = 0', ["min or max or both, or else equals and tolerance"]),
        ('"linear"\na = {a = 1}\nequals = 0', ["equals and tolerance"]),
        ('"linear"\na = {a = 1}\nequals = 0\ntolerance = 0', ["[[constraint]] 1 tolerance", "found 0"]),
        ('"linear"\na = {z = 1}\nmax = 1', ["'r0' a: found joint 'z'; expected one of ['a', 'b', 'c']"]),
        ('"linear"\na = {b = "x"}\nmax = 1', ["[[constraint]] 1 [a] b", "found 'x'", "number"]),
        ('"linear"\na = {a = inf}\nmax = 1', ["'r0' a: found inf for joint 'a'; expected a finite number"]),
        ('"linear"\na = {a = 1}\nmax = nan', ["'r0' max: found nan; expected a finite number"]),
        ('"linear"\na = {a = 0}\nmax = 1', ["'r0' a: found only zeros"]),
        ('"linear"\na = {}\nmax = 1', ["'r0' a: found only zeros"]),
        ('"linear"\na = {a = 1e60}\nmax = 1', ["'r0': numbers above 1e+50"]),
        ('"linear"\na = {a = 1}\nmin = 1\nmax = 1', ["'r0' min: found 1, max 1", "equals and tolerance"]),
        ('"linear"\na = {a = 1}\nmax = 1\njoint = "a"', ["'r0' joint: not used for kind 'linear'", "tolerance"]),
        ('"linear"\na = {a = 1}\nmax = 1\non = "torque"', ["[[constraint]] 1 on", "'torque'", "'velocity'"]),
        ('"linear"\na = {a = 1}\nmax = -0.1\non = "velocity"', ["'r0': does not admit velocity 0", "stand still"]),
        ('"linear"\na = {a = 1}\nmin = 0.1\non = "acceleration"', ["'r0': does not admit acceleration 0"]),
        ('"linear"\na = {a = 1, b = 1}\nmax = -3.5', ["'r0': no position on the lattice within the joints' limits"]),
        ('"linear"\na = {a = 1, b = 1}\nequals = 0.1\ntolerance = 1e-9', ["'r0': no position on the lattice"]),
        ('"quadratic"\nmax = 1', ["'r0' matrix: expected either matrix or diagonal"]),
        ('"quadratic"\nmax = 1\ndiagonal = {a = 1}\nmatrix = [[1]]\njoints = ["a"]', ["either matrix or diagonal"]),
        ('"quadratic"\ndiagonal = {a = 1}', ["'r0' max: missing"]),
        ('"quadratic"\nmax = 1\nmatrix = [[1]]', ["'r0' joints: expected exactly where matrix is a list"]),
        ('"quadratic"\nmax = 1\nmatrix = {a = {a = 1}}\njoints = ["a"]', ["'r0' joints: expected exactly where"]),
        ('"quadratic"\nmax = 1\nmatrix = [[1, 0]]\njoints = ["a"]', ["'r0' matrix: found rows of [2]; expected 1"]),
        ('"quadratic"\nmax = 1\nmatrix = [[1, 0], [0, 1]]\njoints = ["a", "a"]', ["'r0' matrix", "different joints"]),
        ('"quadratic"\nmax = 1\nmatrix = [[1]]\njoints = ["z"]', ["'r0' joints: found joint 'z'"]),
        ('"quadratic"\nmax = 1\nmatrix = {a = {z = 1}}', ["'r0' matrix.a: found joint 'z'"]),
        ('"quadratic"\nmax = 1\nmatrix = {a = {a = 1, b = 0.5}, b = {b = 1}}',
         ["'r0' matrix: found 0.5 for (a, b) and 0 for (b, a); expected a symmetric matrix"]),
        ('"quadratic"\nmax = 1\nmatrix = {a = {a = 1, b = 2}, b = {a = 2, b = 1}}', ["found eigenvalue -1", "below 0"]),
        ('"quadratic"\nmax = 1\ndiagonal = {a = -1}', ["found eigenvalue -1"]),
        ('"quadratic"\nmax = 1\ndiagonal = {a = 0}', ["'r0' matrix: found only zeros"]),
        ('"quadratic"\nmax = 1\ndiagonal = {a = nan}', ["'r0' diagonal: found nan for joint 'a'"]),
        ('"quadratic"\nmax = 1\ndiagonal = {a = 1e200}\ncenter = {a = 1e200}', ["'r0' center: numbers too large"]),
        ('"quadratic"\nmax = 1\ndiagonal = {a = 1}\ncenter = {z = 1}', ["'r0' center: found joint 'z'"]),
        ('"quadratic"\nmax = -1\ndiagonal = {a = 1}', ["'r0': no position"]),
        ('"quadratic"\nmax = -1\ndiagonal = {a = 1}\non = "velocity"', ["'r0': does not admit velocity 0"]),
        ('"quadratic"\nmax = 1\ndiagonal = {a = 1}\ncenter = {a = 2}\non = "velocity"', ["does not admit velocity 0"]),
        ('"quadratic"\nmax = 1\ndiagonal = {a = 1}\ncenter = {a = 5}', ["'r0': no position on the lattice"]),
        ('"range"\nmin = 0\nmax = 1\na = {a = 1}', ["'r0' a: not used for kind 'range'"]),
        ('"range"\nmin = 0\nmax = 1\njoint = "a"\njoints = ["a"]', ["'r0' joints: found together with joint"]),
        ('"range"\nmin = 0\nmax = 1\njoints = []', ["[[constraint]] 1 joints", "at least 1"]),
        ('"range"\nmin = 0\nmax = 1\npriority = -1', ["[[constraint]] 1 priority", "found -1"]),
        ('"torque"\nmax = 1\nhard = false', ["'r0' hard: found False for kind 'torque'", "linear, quadratic, power"]),
        ('"bones"', ["'r0': expected one of from_bvh, from_urdf and tree"]),
    ],
)  # fmt: skip
def test_refusals(section: str, words: list[str]) -> None:
    with pytest.raises(GuardrailError) as error:
        rules(section)
    for word in ["x.toml", *words]:
        assert word in str(error.value)


def test_conflicting_rules_are_named_and_no_others() -> None:
    with pytest.raises(GuardrailError) as error:
        rules(
            '"linear"\na = {a = 1, c = 1}\nmax = 1',
            '"linear"\na = {a = 1, b = 1}\nmin = 1.5',
            '"quadratic"\ndiagonal = {c = 1}\nmax = 1',
            '"linear"\na = {b = 1, c = 0.1}\nmax = 0',
            '"linear"\na = {a = 1, b = 1, c = 1}\nmin = 99\nhard = false',
        )
    assert "[constraint] 'r1' conflicts with 'r3': no position" in str(error.value)
    with pytest.raises(GuardrailError, match="'r0' conflicts with 'r1'"):
        rules('"linear"\na = {a = 1, b = 1}\nmin = 1', '"quadratic"\ndiagonal = {a = 1, b = 1}\nmax = 0.49')
    rules('"linear"\na = {a = 1, b = 1}\nmin = 1', '"quadratic"\ndiagonal = {a = 1, b = 1}\nmax = 0.51')


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.lists(st.integers(-2, 2), min_size=2, max_size=2).filter(any), st.floats(-3, 3)),
                min_size=1, max_size=4))  # fmt: skip
def test_what_is_accepted_has_a_lattice_point_and_what_is_refused_is_empty(
    halves: list[tuple[list[int], float]],
) -> None:
    """Against linear programming (scipy): the largest slack within the box."""
    from scipy.optimize import linprog

    found = spec("")
    limits = joint_limits(found, "x.toml")
    quanta = np.array([to_lattice(limit, 500).quantum for limit in limits])
    a = np.array([[*line, 0] for line, _ in halves], np.float64)
    b = np.array([bound for _, bound in halves])
    box = [(limit.lower, limit.upper) for limit in limits]
    best = linprog([0, 0, 0, -1], np.c_[a, np.ones(len(b))], b, bounds=[*box, (None, 9)])
    slack = best.x[3]
    sections = [f'"linear"\na = {{a = {line[0]}, b = {line[1]}}}\nmax = {bound!r}' for line, bound in halves]
    try:
        rules(*sections)
    except GuardrailError:
        assert slack < 1e-5
    else:
        point = np.round(best.x[:3] / quanta) * quanta
        assert (a @ point <= b).all()
        assert slack > 0


def test_too_many_rows_are_refused() -> None:
    many = ['"linear"\na = {a = 1}\nmax = 1'] * 65
    with pytest.raises(GuardrailError, match=r"x\.toml: \[\[constraint\]\]: a projection has 0 to 64 rows, found 65"):
        rules(*many)


# ---- the other sections ----------------------------------------------------------------------------------------------


def test_temporal_faults_and_dynamics() -> None:
    found = spec("""
[[temporal]]
name = "stop"
formula = "always(near -> eventually[0,0.5] still)"
atoms = { near = "distance < 0.3", still = "max(abs(velocity)) < 0.01" }
time_to_go = "ruckig"
fallback = "go-to-pose"
pose = { a = 0.0, b = 0.5 }
margin = 0.05
[faults]
stale_ms = 20
tracking_error = 0.1
tracking_stop = 0.2
settle_ticks = 5
[dynamics]
mass_error = 0.2
armature = [0.1, 0.1, 0.1]
fixed = { gripper = 0.0 }
""")
    (rule,) = found.temporal
    assert (rule.mode, rule.fallback, rule.pose, rule.margin) == ("enforce", "go-to-pose", {"a": 0.0, "b": 0.5}, 0.05)
    assert (found.faults.stale_ms, found.faults.jump, found.faults.settle_ticks) == (20, None, 5)
    assert found.dynamics is not None
    assert (found.dynamics.mass_error, found.dynamics.gravity) == (0.2, [0.0, 0.0, -9.81])
    assert spec('[[temporal]]\nname = "t"\nformula = "p"\ntime_to_go = 0.25').temporal[0].time_to_go == 0.25


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[faults]\nstale_ms = 0", ["[faults] stale_ms", "found 0", "greater than 0"]),
        ("[faults]\njump = inf", ["[faults] jump", "found inf", "finite"]),
        ("[faults]\nsettle_ticks = 1.5", ["[faults] settle_ticks", "found 1.5", "integer"]),
        ("[faults]\nhang_ticks = 0", ["[faults] hang_ticks", "found 0"]),
        ("[faults]\ntracking_error = 2\ntracking_stop = 1", ["[faults] tracking_stop", "found 1", "at least", "2"]),
        ("[faults]\nstale = 1", ["[faults] stale", "unknown key", "stale_ms"]),
        ("[dynamics]\nmass_error = 1", ["[dynamics] mass_error", "found 1", "less than 1"]),
        ("[dynamics]\ngravity = [0, 0]", ["[dynamics] gravity", "3 items"]),
        ('[[temporal]]\nname = "t"', ["[[temporal]] 1 formula", "missing"]),
        ('[[temporal]]\nname = "t"\nformula = "p"\nmode = "try"', ["[[temporal]] 1 mode", "'try'", "'monitor'"]),
        ('[[temporal]]\nname = "t"\nformula = "p"\nfallback = "go-to-pose"', ["[temporal] 't' pose: missing"]),
        ('[[temporal]]\nname = "t"\nformula = "p"\npose = {a = 1}', ["[temporal] 't' pose: not used with", "'brake'"]),
        ('[[temporal]]\nname = "t"\nformula = "p"\nfallback = "go-to-pose"\npose = {a = nan}', ["'t' pose", "finite"]),
        ('[[temporal]]\nname = "t"\nformula = "p"\ntime_to_go = "soon"', ["[[temporal]] 1 time_to_go", "'ruckig'"]),
        ('[[temporal]]\nname = "t"\nformula = "p"\ntime_to_go = 0', ["[temporal] 't' time_to_go: found 0", "above 0"]),
        ('[[temporal]]\nname = "t"\nformula = "p"\natoms = {p = 1}', ["[[temporal]] 1 [atoms] p", "found 1", "string"]),
    ],
)
def test_sections_are_refused_by_section_and_key(text: str, words: list[str]) -> None:
    with pytest.raises(GuardrailError) as error:
        spec(text)
    for word in ["x.toml", *words]:
        assert word in str(error.value)


def test_a_joint_without_a_range_has_no_rules_on_positions() -> None:
    found = spec('[[constraint]]\nname = "r"\nkind = "linear"\na = {a = 1}\nmax = 1')
    limits = [*joint_limits(found, "x.toml")[:2]]
    free = type(limits[0])("c", -math.inf, math.inf, 1, 1, dict(limits[0].origin))
    with pytest.raises(GuardrailError, match="'r' on: found 'position', but 'c' has no range"):
        coupled_rules(found, [*limits, free], "x.toml")


def test_power_sections_among_others_and_below_a_watt() -> None:
    found = spec(
        '[[constraint]]\nkind = "less"\nname = "e"\nmax = 0.5\n'
        '[[constraint]]\nkind = "power"\nname = "p"\nmax = 0.5\n'
    )  # fmt: skip
    (p,) = power_rules(found, ["a", "b", "c"], "x.toml")
    assert (p.name, p.watts) == ("p", 0.5)


def test_a_range_with_one_end_is_none() -> None:
    found = spec('[[constraint]]\nkind = "linear"\nname = "r"\na = {a = 1}\nmax = 1\n')
    limits = joint_limits(found, "x.toml")
    for lower, upper in ((-math.inf, 1.0), (-1.0, math.inf)):
        half_open = type(limits[0])("c", lower, upper, 1, 1, dict(limits[0].origin))
        with pytest.raises(GuardrailError, match="'r' on: found 'position', but 'c' has no range"):
            coupled_rules(found, [*limits[:2], half_open], "x.toml")


def test_what_is_not_hard_and_its_priority_reach_the_quadratic() -> None:
    _, (soft, zero) = rules(
        '"quadratic"\ndiagonal = {a = 1}\nmax = 0.25\npriority = 3\nhard = false',
        '"quadratic"\ndiagonal = {a = 1}\nmax = 0\nhard = false',
    )
    assert (soft.priority, soft.hard, soft.r) == (3, False, 0.25)
    assert zero.r == 0.0


@pytest.mark.parametrize("on", ["velocity", "acceleration"])
def test_standing_still_may_be_the_edge(on: str) -> None:
    (row,), _ = rules(f'"linear"\na = {{a = 1}}\nmax = 0\non = "{on}"')
    assert row.b == 0.0


# ---- word for word ---------------------------------------------------------------------------------------------------

JOINTS = "['a', 'b', 'c']"


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ('"linear"\na = {z = 1}\nmax = 1', f"a: found joint 'z'; expected one of {JOINTS}"),
        ('"linear"\na = {a = inf}\nmax = 1', "a: found inf for joint 'a'; expected a finite number"),
        ('"linear"\na = {a = 0}\nmax = 1', "a: found only zeros; expected a coefficient of at least one joint"),
        ('"linear"\na = {a = 1}\nmin = 1\nmax = 1',
         "min: found 1, max 1; expected min < max (for an equality: equals and tolerance)"),
        ('"quadratic"\ndiagonal = {z = 1}\nmax = 1', f"diagonal: found joint 'z'; expected one of {JOINTS}"),
        ('"quadratic"\ndiagonal = {a = 1}\ncenter = {z = 1}\nmax = 1',
         f"center: found joint 'z'; expected one of {JOINTS}"),
        ('"quadratic"\ndiagonal = {a = 1}\nlinear = {z = 1}\nmax = 1',
         f"linear: found joint 'z'; expected one of {JOINTS}"),
        ('"quadratic"\nmatrix = {z = {a = 1}}\nmax = 1', f"matrix: found joint 'z'; expected one of {JOINTS}"),
        ('"quadratic"\nmatrix = {a = {z = 1}}\nmax = 1', f"matrix.a: found joint 'z'; expected one of {JOINTS}"),
        ('"quadratic"\njoints = ["z"]\nmatrix = [[1]]\nmax = 1', f"joints: found joint 'z'; expected one of {JOINTS}"),
        ('"quadratic"\njoints = ["a"]\nmatrix = [[inf]]\nmax = 1',
         "matrix: found inf for joint 'a'; expected a finite number"),
        ('"quadratic"\njoints = ["a", "b"]\nmatrix = [[1, 2], [3]]\nmax = 1',
         "matrix: found rows of [2, 1]; expected 2 rows of 2, for different joints"),
        ('"quadratic"\njoints = ["a", "c"]\nmatrix = [[1, 2], [3, 4]]\nmax = 1',
         "matrix: found 2 for (a, c) and 3 for (c, a); expected a symmetric matrix"),
        ('"quadratic"\ndiagonal = {a = 0}\nmax = 1',
         "matrix: found only zeros; expected a quadratic (or the kind 'linear')"),
        ('"quadratic"\njoints = ["a", "b"]\nmatrix = [[1, 2], [2, 1]]\nmax = 1',
         "matrix: found eigenvalue -1; expected none below 0 (a convex set)"),
        ('"quadratic"\ndiagonal = {a = 1}\ncenter = {a = 1e160}\nmax = 1',
         "center: numbers too large to compute with; expected smaller ones"),
    ],
)  # fmt: skip
def test_the_words_of_a_refusal(section: str, message: str) -> None:
    with pytest.raises(GuardrailError) as error:
        rules(section)
    assert str(error.value) == f"x.toml: [constraint] 'r0' {message}"


def test_three_that_conflict_only_together() -> None:
    sections = [
        '"linear"\na = {a = 1}\nmin = 0.5',
        '"linear"\na = {b = 1}\nmin = 0.5',
        '"linear"\na = {a = 1, b = 1}\nmax = 0.9',
    ]
    with pytest.raises(GuardrailError) as error:
        rules(*sections)
    text = "no position on the lattice within the joints' limits is left"
    assert str(error.value) == f"x.toml: [constraint] 'r0' conflicts with 'r1', 'r2': {text}"
    for i in range(3):
        assert len(rules(*sections[:i], *sections[i + 1 :])[0]) == 2


def coarse(lower: float, upper: float, section: str) -> None:
    """Joint a is between these, on multiples of 0.5."""
    text = HEAD.replace("[-1, 1]", f"[{lower}, {upper}]").replace("velocity", "quantum = 0.5\nvelocity")
    text += f'[[constraint]]\nname = "r"\nkind = "linear"\na = {{a = 1}}\n{section}\n'
    found = validate(tomllib.loads(text), GuardFile, "x.toml", GuardrailError)
    coupled_rules(found, joint_limits(found, "x.toml"), "x.toml")


@pytest.mark.parametrize(
    ("lower", "upper", "section", "left"),
    [
        (-1, 1, "min = 0.1\nmax = 0.61", True),  # as wide as a quantum: there is a multiple in it
        (-1, 1, "min = 0.1\nmax = 0.59", False),
        (-1, 1, "min = 0.49", True),  # and as far from the end of the range
        (-1, 1, "min = 0.51", False),
        (-1, 1, "max = -0.49", True),
        (-1, 1, "max = -0.51", False),
        (0.4, 0.6, "max = 0.76", True),  # narrower than a quantum: its middle stands for it
        (0.4, 0.6, "max = 0.74", False),
        (0.4, 0.6, "min = 0.24", True),
        (0.4, 0.6, "min = 0.26", False),
    ],
)
def test_room_for_rounding_is_kept(lower: float, upper: float, section: str, left: bool) -> None:
    if left:
        coarse(lower, upper, section)
    else:
        with pytest.raises(GuardrailError, match="'r': no position on the lattice within the joints' limits is left"):
            coarse(lower, upper, section)
