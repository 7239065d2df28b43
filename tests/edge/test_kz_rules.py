"""kz_rules function by function, against what its header says, in integers and fractions.

Positions are whole quanta of 2^-10, coefficients small integers: every sum is exact, so that "just kept" and "broken"
are one quantum apart.
"""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Sequence
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from cffi import FFI
from hypothesis import given, settings
from hypothesis import strategies as st

C = Path(__file__).parents[2] / "firmware_bridge" / "c"
POSITION, VELOCITY, ACCELERATION = 0, 1, 2
QUANTUM = 2.0**-10
RATE = 512.0
EPSILON = sys.float_info.epsilon


def declarations(header: Path) -> str:
    """As cffi can read it: without comments, bodies and preprocessor lines but for plain constants."""
    text = re.sub(r"/\*.*?\*/", "", header.read_text(), flags=re.S)
    text = re.sub(r"#ifdef __cplusplus.*?#endif", "", text, flags=re.S)
    text = re.sub(r"^static inline.*?^}", "", text, flags=re.S | re.M)
    return re.sub(r"^#(?!define \w+ +(?:0x[0-9A-Fa-f]+|\d+) *$).*$", "", text, flags=re.M)


ffi = FFI()
for name in ("kz_guard", "kz_project", "kz_coupled", "kz_rules"):
    ffi.cdef(declarations(C / f"{name}.h"))


@pytest.fixture(scope="module")
def lib(tmp_path_factory: pytest.TempPathFactory) -> Any:
    target = tmp_path_factory.mktemp("kz_rules") / "kz_rules.so"
    flags = ["-std=c99", "-Wall", "-Wextra", "-O1", "-ffp-contract=off", "-shared", "-fPIC"]
    subprocess.run(["cc", *flags, str(C / "kz_rules.c"), "-lm", "-o", str(target)], check=True)
    return ffi.dlopen(str(target))


def coupled(n: int, *, h: Sequence[int] = (), groups: Sequence[int] = (), w: int = 500, span: int = 4000) -> Any:
    """n joints within ±span quanta; each brakes by itself unless ``groups`` says with whom."""
    g = ffi.new("kz_coupled *")
    g.n, g.rate = n, RATE
    for i in range(n):
        g.limit[i] = (-span, span, w, h[i] if h else 10)
        g.quantum[i] = QUANTUM
        g.group[i] = groups[i] if groups else i
    return g


def add_row(g: Any, a: Sequence[float], b: float, on: int = POSITION, *, hard: bool = True, priority: int = 0) -> None:
    row = g.row[g.rows]
    for i, value in enumerate(a):
        row.a[i] = value
    row.b, row.on, row.hard, row.priority = b, on, hard, priority
    g.enabled |= 1 << g.rows
    g.rows += 1


def add_quad(
    g: Any,
    q: Sequence[Sequence[float]],
    c: Sequence[float],
    r: float,
    on: int = POSITION,
    *,
    hard: bool = True,
    priority: int = 0,
) -> None:
    quad = g.quad[g.quads]
    for i, line in enumerate(q):
        quad.c[i] = c[i]
        for j, value in enumerate(line):
            quad.q[i][j] = value
    quad.r, quad.on, quad.hard, quad.priority = r, on, hard, priority
    g.quads += 1


def axes(q: Sequence[int], v: Sequence[int] | None = None) -> Any:
    return ffi.new("kz_axis[]", list(zip(q, v or [0] * len(q), strict=True)))


def look(lib: Any, g: Any, axis: Any, v: Sequence[int], coast: int = 0) -> Any:
    motion = ffi.new("kz_motion *")
    lib.kz_look(g, axis, ffi.new("int32_t[]", list(v)), coast, motion)
    return motion


def broken(lib: Any, g: Any, motion: Any, rows: int = 2**64 - 1, quads: int = 0xFF) -> tuple[int, int]:
    found = ffi.new("uint8_t *", 0xAA)
    return lib.kz_broken(g, motion, rows, quads, found), found[0]


# ---- braking together ------------------------------------------------------------------------------------------------

STEPS = st.lists(st.integers(-60, 60), min_size=4, max_size=4)
BRAKES = st.lists(st.integers(1, 12), min_size=4, max_size=4)
GROUPS = st.sampled_from([(0, 1, 2, 3), (0, 0, 2, 2), (0, 0, 0, 0), (0, 1, 1, 0), (0, 3, 3, 3)])


def leader_of(v: Sequence[int], h: Sequence[int], groups: Sequence[int], group: int) -> int:
    """Most periods to rest; of equals the group's first, then the first."""
    members = [i for i in range(len(v)) if groups[i] == group]
    return min(members, key=lambda i: (-Fraction(abs(v[i]), h[i]), i != group, i))


@settings(max_examples=80, deadline=None)
@given(STEPS, BRAKES, GROUPS)
def test_the_leader_of_a_group_needs_most_periods(
    lib: Any, v: list[int], h: list[int], groups: tuple[int, ...]
) -> None:
    g, lead = coupled(4, h=h, groups=groups), ffi.new("uint8_t[]", 4)
    lib.kz_leaders(g, ffi.new("int32_t[]", v), lead)
    for group in set(groups):
        assert lead[group] == leader_of(v, h, groups, group)


@settings(max_examples=80, deadline=None)
@given(STEPS, BRAKES, st.integers(0, 3))
def test_braking_with_the_leader_keeps_the_proportion(lib: Any, v: list[int], h: list[int], lead: int) -> None:
    g, axis = coupled(4, h=h), axes([0] * 4, v)
    top = abs(v[lead])
    for i in range(4):
        if Fraction(abs(v[i]), h[i]) > Fraction(top, h[lead]):
            continue
        rest = math.floor(abs(v[i]) * (1 - Fraction(h[lead], top))) if top > h[lead] else 0
        assert lib.kz_braked_with(g, axis, i, lead) == (rest if v[i] >= 0 else -rest)


def stopping(v: int, h: int) -> int:
    return sum(range(abs(v) - h, 0, -h))


@settings(max_examples=80, deadline=None)
@given(STEPS, STEPS, BRAKES, GROUPS, st.integers(0, 5))
def test_where_a_step_leads(
    lib: Any, v: list[int], before: list[int], h: list[int], groups: tuple[int, ...], coast: int
) -> None:
    g, q = coupled(4, h=h, groups=groups), [5, -70, 0, 400]
    found = look(lib, g, axes(q, before), v, coast)
    for i in range(4):
        assert found.before[i] == q[i] * QUANTUM
        assert found.after[i] == (q[i] + v[i]) * QUANTUM
        assert found.step[i] == v[i] * QUANTUM
        assert found.change[i] == (v[i] - before[i]) * QUANTUM
        lead = leader_of(v, h, groups, groups[i])
        brake = stopping(v[lead], h[lead])
        exact = Fraction(abs(v[i]) * brake, abs(v[lead])) if v[lead] else Fraction(0)
        beyond = abs(found.beyond[i]) / QUANTUM - coast * abs(v[i])
        assert math.ceil(exact) <= beyond <= (math.ceil(exact) if lead == i or not exact else math.floor(exact) + 1)
        assert found.beyond[i] == 0 or (found.beyond[i] > 0) == (v[i] > 0)
    assert found.leaves == 0


def test_a_group_that_cannot_stop_inside_leaves(lib: Any) -> None:
    """100 quanta to go; at 30 a period, braking by 10, a joint needs 30 + 20 + 10."""
    for sign, room, coast in product((1, -1), (59, 60, 61), (0, 2)):
        g = coupled(1)
        away = 60 + coast * 30
        at = sign * (4000 - away + 60 - room)
        assert look(lib, g, axes([at]), [sign * 30], coast).leaves == (room < 60)
    g = coupled(1)
    assert look(lib, g, axes([4001]), [30]).leaves == 0  # outside already: recovery's matter
    assert look(lib, g, axes([-4001]), [-30]).leaves == 0
    assert look(lib, g, axes([4000]), [30]).leaves == 1
    assert look(lib, g, axes([-4000]), [-30]).leaves == 1
    assert look(lib, g, axes([4000]), [5]).leaves == 0  # stops after this step: the joint's own limit holds it


# ---- what is prepared ------------------------------------------------------------------------------------------------


def test_bounds_leave_room_for_rounding(lib: Any) -> None:
    """Of n joints: b = 0, so that only the allowance of 2·(terms + 4)·ε/2 times the largest sum of products is left."""
    g = coupled(2, span=3, w=5)
    g.limit[1] = (-7, 2, 1, 10)
    reach = [2 * (3 + 5) * QUANTUM, 2 * (7 + 1) * QUANTUM]
    add_row(g, [3, -2], 0.0)
    add_quad(g, [[2, -1], [-1, 4]], [-6, 5], 0.0)
    lib.kz_coupled_prepare(g)
    size = 3 * reach[0] + 2 * reach[1]
    assert g.row[0].bound == pytest.approx(-(2 * 2 + 4) * EPSILON * size, rel=1e-9, abs=0)
    assert g.row[0].edge == pytest.approx(2 * (2 * 2 + 4) * EPSILON * size, rel=1e-9, abs=0)
    square = 4 * (2 * reach[0] ** 2 + 2 * reach[0] * reach[1] + 4 * reach[1] ** 2)
    square += 6 * reach[0] + 5 * reach[1]
    assert g.quad[0].bound == pytest.approx(-(4 * 2 * 2 + 2 * 256 + 4) * EPSILON * square, rel=1e-9, abs=0)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_rules_on_motion_are_scaled_to_a_period(lib: Any, sign: float) -> None:
    g = coupled(2)
    for on in (POSITION, VELOCITY, ACCELERATION):
        add_row(g, [0, 0], sign * 7.0, on)
    for on in (POSITION, VELOCITY):
        add_quad(g, [[0, 0], [0, 0]], [0, 0], sign * 7.0, on)
    lib.kz_coupled_prepare(g)
    less = 1 - sign * 4 * EPSILON
    assert [g.row[j].bound / sign for j in range(3)] == [7.0, 7 / RATE * less, 7 / RATE**2 * less]
    assert [g.quad[k].bound / sign for k in range(2)] == [7.0, 7 / RATE**2 * less]


def test_what_is_handed_to_the_projection(lib: Any) -> None:
    g = coupled(2)
    for j in range(40):
        add_row(g, [1, 0], 1.0, hard=j not in (3, 39), priority=j)
    for k in range(3):
        add_quad(g, [[1, 0], [0, 1]], [0, 0], 1.0, hard=k != 1, priority=5 + k)
    g.soft = g.projection.quads_soft = g.projection.quads_enabled = 0xF0
    lib.kz_coupled_prepare(g)
    p = g.projection
    assert (p.n, p.quads, g.soft) == (2, 3, 1 << 3 | 1 << 39)
    assert (p.quads_enabled, p.quads_soft) == (0b111, 0b010)
    assert [p.priority[j] for j in range(40)] == list(range(40))
    assert [p.quads_priority[k] for k in range(3)] == [5, 6, 7]


# ---- rows ------------------------------------------------------------------------------------------------------------


def test_what_is_broken_already_may_not_grow_worse(lib: Any) -> None:
    assert lib.kz_allowed(2.0, 1, 3.0) == 3.0
    assert lib.kz_allowed(2.0, 1, 1.0) == 2.0
    assert lib.kz_allowed(2.0, 0, 3.0) == 2.0


SMALL = st.integers(-3, 3)


@settings(max_examples=80, deadline=None)
@given(st.lists(SMALL, min_size=3, max_size=3), st.lists(st.integers(-80, 80), min_size=3, max_size=3),
       STEPS, st.integers(0, 3), st.sampled_from([-1, 0, 1]))  # fmt: skip
def test_a_row_on_positions_holds_on_all_that_can_be_reached_to_the_very_edge(
    lib: Any, a: list[int], q: list[int], v: list[int], coast: int, over: int
) -> None:
    """The largest a·z over the box of what can be reached is at most b: exactly at it yes, one quantum over it no."""
    far = [coast * abs(x) + stopping(x, 10) for x in v[:3]]
    ends = [(q[i] + v[i], q[i] + v[i] + (far[i] if v[i] >= 0 else -far[i])) for i in range(3)]
    most = max(sum(x * y for x, y in zip(a, corner, strict=True)) for corner in product(*ends))
    now = sum(x * y for x, y in zip(a, q, strict=True))
    for hard in (True, False):
        g = coupled(3)
        add_row(g, a, (most - over) * QUANTUM, hard=hard)
        lib.kz_coupled_prepare(g)
        found = broken(lib, g, look(lib, g, axes(q), v[:3], coast))
        assert found == (int(over > 0 and not (hard and most <= now)), 0)


@pytest.mark.parametrize("sign", [1, -1])
def test_rows_on_motion_to_the_very_edge(lib: Any, sign: int) -> None:
    """2x − y at x' = 30, y' = −15 a period, from 20 and −5: 75 quanta a period, 75 − 45 in change."""
    v, before = [sign * 30, sign * -15], [sign * 20, sign * -5]
    for on, value, scale in ((VELOCITY, 75, RATE), (ACCELERATION, 30, RATE**2)):
        for over, hard in product((-1, 0, 1), (True, False)):
            g = coupled(2)
            add_row(g, [2 * sign, -sign], (value - over) * QUANTUM * scale, on, hard=hard)
            lib.kz_coupled_prepare(g)
            assert broken(lib, g, look(lib, g, axes([900, -900], before), v)) == (int(over > 0), 0), (on, over)


def test_an_edge_that_cannot_be_shown_exactly_is_broken(lib: Any) -> None:
    """0.1·3 + 0.2·3 rounds; so do its product with a rate of 500 and a sum of far-off magnitudes."""
    for a, q, exact in (([0.5, 0.25], [3, 3], True), ([0.1, 0.2], [3, 3], False), ([2.0**60, 1.0], [3, 3], False)):
        g = coupled(2)
        value = sum(x * y * QUANTUM for x, y in zip(a, q, strict=True))
        add_row(g, a, value)
        lib.kz_coupled_prepare(g)
        assert broken(lib, g, look(lib, g, axes([0, 0]), q))[0] == int(not exact)
    g = coupled(1)
    g.rate = 1 / 3
    add_row(g, [1], 3 * QUANTUM * g.rate, VELOCITY)
    lib.kz_coupled_prepare(g)
    assert broken(lib, g, look(lib, g, axes([0]), [3]))[0] == 1
    assert broken(lib, g, look(lib, g, axes([0]), [2]))[0] == 0


def test_rounding_is_not_let_through_from_far_above_the_edge(lib: Any) -> None:
    g = coupled(1)
    add_row(g, [1], 3 * QUANTUM)
    lib.kz_coupled_prepare(g)
    g.row[0].b = 4 * QUANTUM  # only values up to `edge` are looked at again
    assert broken(lib, g, look(lib, g, axes([0]), [4]))[0] == 1


def test_only_what_is_asked_for_is_told(lib: Any) -> None:
    g = coupled(1)
    for j in range(45):
        add_row(g, [1 if j in (0, 7, 44) else -1], 0.0)
    for _ in range(3):
        add_quad(g, [[1]], [0], QUANTUM)
    g.quad[1].r = 1000.0
    lib.kz_coupled_prepare(g)
    motion = look(lib, g, axes([0]), [60])
    assert broken(lib, g, motion) == (1 | 1 << 7 | 1 << 44, 0b101)
    assert broken(lib, g, motion, 1 << 44 | 1 << 3, 0b110) == (1 << 44, 0b100)
    assert broken(lib, g, motion, 0, 0) == (0, 0)


# ---- quadratics ------------------------------------------------------------------------------------------------------


def value_of(q: Sequence[Sequence[int]], c: Sequence[int], z: Sequence[float]) -> float:
    n = len(c)
    return sum(z[i] * (c[i] + sum(q[i][j] * z[j] for j in range(n))) for i in range(n))


def squares(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """L L': symmetric, positive semidefinite."""
    return [[sum(x * y for x, y in zip(a, b, strict=True)) for b in rows] for a in rows]


MATRIX = st.lists(st.lists(SMALL, min_size=3, max_size=3), min_size=3, max_size=3).map(squares)
VECTOR = st.lists(st.integers(-9, 9), min_size=3, max_size=3)


@settings(max_examples=80, deadline=None)
@given(MATRIX, VECTOR, VECTOR, VECTOR)
def test_the_farthest_corner_is_found(
    lib: Any, q: list[list[int]], c: list[int], after: list[int], beyond: list[int]
) -> None:
    g = coupled(3)
    add_quad(g, q, c, 0.0)
    motion, corner = ffi.new("kz_motion *"), ffi.new("uint32_t *", 99)
    motion.after[0:3], motion.beyond[0:3] = after, beyond
    assert lib.kz_form(g, g.quad, motion.after) == value_of(q, c, after)
    values = {}
    for mask in range(8):
        at = [after[i] + (beyond[i] if mask >> i & 1 else 0) for i in range(3)]
        values[mask] = value_of(q, c, at)
    best = max(values.values())
    assert lib.kz_farthest(g, g.quad, motion, -math.inf, corner) == best
    assert values[corner[0]] == best
    assert not corner[0] & ~sum(1 << i for i in range(3) if beyond[i])  # only joints that travel
    bound = lib.kz_farthest(g, g.quad, motion, math.inf, corner)
    assert bound >= best
    slopes = [2 * sum(q[i][j] * after[j] for j in range(3)) + c[i] for i in range(3)]
    assert bound == pytest.approx(
        values[0]
        + sum(max(slopes[i] * beyond[i], 0) for i in range(3))
        + sum(max(q[i][j] * beyond[i] * beyond[j], 0) for i in range(3) for j in range(3))
    )
    assert corner[0] == sum(1 << i for i in range(3) if slopes[i] * beyond[i] > 0)
    if best < bound:
        assert lib.kz_farthest(g, g.quad, motion, best, corner) == best  # the bound does not settle it
    assert lib.kz_farthest(g, g.quad, motion, bound, corner) == bound  # and here it does


@pytest.mark.parametrize("moving", [8, 9])
def test_with_many_joints_on_their_way_only_the_bound_is_known(lib: Any, moving: int) -> None:
    """(x₀ + … + x₈)² with half of the joints coming back: the corners know that they cancel, the bound does not."""
    g = coupled(9)
    add_quad(g, [[1] * 9] * 9, [0] * 9, 0.0)
    motion, corner = ffi.new("kz_motion *"), ffi.new("uint32_t *")
    motion.beyond[0:moving] = [1.0, -1.0] * (moving // 2) + [1.0] * (moving % 2)
    best, up = ((moving + 1) // 2) ** 2, (moving + 1) // 2
    found = lib.kz_farthest(g, g.quad, motion, 0.0, corner)
    if moving == 8:
        assert found == best
        assert corner[0] in (0b01010101, 0b10101010)
    else:
        assert found == up**2 + (moving - up) ** 2
        assert corner[0] == 0


def test_quadratics_to_the_edge(lib: Any) -> None:
    """3x² − 2xy + 2y² + x − y, on what can be reached and on velocities; the edge itself is left to the allowance."""
    q, c = [[3, -1], [-1, 2]], [1, -1]
    v, at = [30, -20], [100, 50]
    far = [(x, x + (stopping(s, 10) if s > 0 else -stopping(s, 10))) for x, s in zip((130, 30), v, strict=True)]
    most = max(value_of(q, c, [x * QUANTUM for x in corner]) for corner in product(*far))
    speed = value_of(q, c, [x * QUANTUM * RATE for x in v])
    now = value_of(q, c, [x * QUANTUM for x in at])
    for on, value in ((POSITION, most), (VELOCITY, speed)):
        for r, hard in product((value * (1 + 1e-6), value * (1 - 1e-6)), (True, False)):
            g = coupled(2)
            add_quad(g, q, c, r, on, hard=hard)
            lib.kz_coupled_prepare(g)
            assert broken(lib, g, look(lib, g, axes(at), v)) == (0, int(r < value)), (on, r, hard)
    for r, hard in product((now * 1.01, now * 0.99), (True, False)):  # backwards, from outside
        g = coupled(2)
        add_quad(g, q, c, r, hard=hard)
        lib.kz_coupled_prepare(g)
        assert broken(lib, g, look(lib, g, axes(at), [0, 0])) == (0, int(r < now and not hard))


# ---- all together ----------------------------------------------------------------------------------------------------


def test_a_step_keeps_what_is_hard(lib: Any) -> None:
    def keeps(g: Any, q: int = 0, v: int = 30, coast: int = 0) -> bool:
        lib.kz_coupled_prepare(g)
        return bool(lib.kz_coupled_keeps(g, axes([q]), ffi.new("int32_t[]", [v]), coast))

    for bound, hard in product((60, 59), (True, False)):
        g = coupled(1)
        add_row(g, [1], bound * QUANTUM, hard=hard)
        assert keeps(g) == (bound == 60 or not hard)
        assert keeps(g, coast=1) == (not hard)
        g.enabled = 0
        assert keeps(g)
        g = coupled(1)
        add_quad(g, [[1]], [0], (bound * QUANTUM) ** 2 * (1 + 1e-6), hard=hard)
        assert keeps(g) == (bound == 60 or not hard)
    assert keeps(coupled(1), 4000 - 60)
    assert not keeps(coupled(1), 4000 - 59)
