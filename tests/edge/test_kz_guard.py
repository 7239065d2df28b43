"""kz_guard function by function, against what its header says, by brute force in Python integers."""

from __future__ import annotations

import subprocess
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cffi import FFI
from hypothesis import given, settings
from hypothesis import strategies as st

C = Path(__file__).parents[2] / "firmware_bridge" / "c"
RAW_MAX = 0x3FFFFFFF
POSITION, VELOCITY, ACCELERATION, RECOVERY = 1, 2, 4, 8

ffi = FFI()
ffi.cdef("""
    typedef struct { int32_t lo, hi, w, h; } kz_limit;
    typedef struct { int32_t q, v; } kz_axis;
    typedef struct { int32_t down, up; uint8_t down_rules, up_rules; } kz_window;
    int kz_limit_ok(const kz_limit *l);
    int32_t kz_reach(int32_t d, int32_t h, uint8_t coast);
    int kz_viable(const kz_limit *l, const kz_axis *a);
    void kz_seed(kz_axis *a, int32_t q);
    kz_window kz_admissible(const kz_limit *l, const kz_axis *a, uint8_t coast);
    int32_t kz_move(kz_axis *a, int32_t v);
    int32_t kz_braked(const kz_limit *l, const kz_axis *a);
    int32_t kz_admit(const kz_limit *l, kz_axis *a, int32_t want, uint8_t coast, uint8_t *rules);
    int32_t kz_miss(const kz_limit *l, kz_axis *a, int may_coast);
""")


class Limit(NamedTuple):
    lo: int
    hi: int
    w: int
    h: int


class Axis(NamedTuple):
    q: int
    v: int


@pytest.fixture(scope="module")
def lib(tmp_path_factory: pytest.TempPathFactory) -> Any:
    target = tmp_path_factory.mktemp("kz_guard") / "kz_guard.so"
    command = [
        "cc",
        "-std=c99",
        "-Wall",
        "-Wextra",
        "-O2",
        "-shared",
        "-fPIC",
        str(C / "kz_guard.c"),
        "-o",
        str(target),
    ]
    subprocess.run(command, check=True)
    return ffi.dlopen(str(target))


def travel(v: int, h: int, coast: int) -> int:
    """(1 + coast)·v + (v−h) + (v−2h) + … down to 0, for v >= 0."""
    m = v // h
    return (1 + coast) * v + m * v - h * m * (m + 1) // 2


def reach(d: int, h: int, coast: int) -> int:
    """The largest v >= 0 whose travel is at most d, by looking."""
    v = 0
    while travel(v + 1, h, coast) <= d:
        v += 1
    return v


def test_travel_is_the_sum() -> None:
    for v, h in product(range(30), range(1, 8)):
        assert travel(v, h, 2) == 3 * v + sum(range(v - h, 0, -h))


# ---- the parts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "ok"),
    [
        (Limit(-RAW_MAX, RAW_MAX, RAW_MAX, RAW_MAX), 1),
        (Limit(0, 0, 1, 1), 1),
        (Limit(1, 0, 1, 1), 0),
        (Limit(-RAW_MAX - 1, 0, 1, 1), 0),
        (Limit(0, RAW_MAX + 1, 1, 1), 0),
        (Limit(0, 5, 0, 1), 0),
        (Limit(0, 5, -1, 1), 0),
        (Limit(0, 5, RAW_MAX + 1, 1), 0),
        (Limit(0, 5, 1, 0), 0),
        (Limit(0, 5, 1, -1), 0),
        (Limit(0, 5, 1, RAW_MAX + 1), 0),
    ],
)
def test_what_limits_can_be_guarded(lib: Any, limit: Limit, ok: int) -> None:
    assert lib.kz_limit_ok(ffi.new("kz_limit *", limit)) == ok


def test_reach_is_the_largest_step(lib: Any) -> None:
    for h, coast, d in product(range(1, 8), (0, 1, 3, 255), range(-2, 130)):
        assert lib.kz_reach(d, h, coast) == reach(d, h, coast), (d, h, coast)


RAW = st.integers(0, RAW_MAX) | st.integers(0, 40) | st.integers(RAW_MAX - 3, RAW_MAX)
SIZE = RAW.map(lambda x: max(x, 1))
COAST = st.integers(0, 8) | st.just(255)


@settings(max_examples=300, deadline=None)
@given(RAW.map(lambda x: 2 * x) | RAW, SIZE, COAST)
def test_reach_of_any_size(lib: Any, d: int, h: int, coast: int) -> None:
    v = lib.kz_reach(d, h, coast)
    assert travel(v, h, coast) <= d < travel(v + 1, h, coast)


@pytest.mark.parametrize("m", [1 << k for k in range(1, 16)] + [3, 100, 32_767, 65_535])
@pytest.mark.parametrize("coast", [0, 3, 255])
@pytest.mark.parametrize("h", [1, 2, 7])
def test_reach_around_every_corner(lib: Any, m: int, coast: int, h: int) -> None:
    """At m·h the slope changes: on both sides of it, and where m is a digit of the search by itself."""
    for v in range((m - 1) * h, (m + 1) * h + 1):
        for d in {travel(v, h, coast) + k for k in (-1, 0, 1, coast + m)}:
            if 0 <= d < 2**31:
                found = lib.kz_reach(d, h, coast)
                assert travel(found, h, coast) <= d < travel(found + 1, h, coast), (d, h, coast)


@pytest.mark.parametrize("q", [-5, 0, 7, RAW_MAX, -RAW_MAX, RAW_MAX + 1, -RAW_MAX - 1, 2**31 - 1, -(2**31) + 1])
def test_a_seed_is_at_rest_within_what_fits(lib: Any, q: int) -> None:
    axis = ffi.new("kz_axis *", Axis(99, 99))
    lib.kz_seed(axis, q)
    assert (axis.q, axis.v) == (min(max(q, -RAW_MAX), RAW_MAX), 0)


def braked(l: Limit, a: Axis) -> int:  # noqa: E741
    return max(abs(a.v) - l.h, 0) * (1 if a.v > 0 else -1)


def viable(l: Limit, a: Axis) -> bool:  # noqa: E741
    """Braking from the next period, every position on the way is inside."""
    q, v = a
    while l.lo <= q <= l.hi:
        v = braked(l, Axis(q, v))
        if v == 0:
            return True
        q += v
    return False


def window(l: Limit, a: Axis, coast: int) -> tuple[int, int, int, int]:  # noqa: E741
    """(down, up, down_rules, up_rules): the upper end by looking, the lower one by turning the axis round."""

    def end(l: Limit, a: Axis) -> tuple[int, int]:  # noqa: E741
        outside = not l.lo <= a.q <= l.hi
        w = max(l.w // 8, 1) if outside else l.w
        brake = braked(l, a)
        position = max(reach(l.hi - a.q, l.h, coast), brake)
        up = min(max(w, brake), a.v + l.h, position)
        rules = (RECOVERY if outside else 0) | (POSITION if up == position else 0)
        return up, rules | (VELOCITY if up == w else 0) | (ACCELERATION if up == a.v + l.h else 0)

    up, up_rules = end(l, a)
    down, down_rules = end(Limit(-l.hi, -l.lo, l.w, l.h), Axis(-a.q, -a.v))
    return -down, up, down_rules, up_rules


LIMITS = [Limit(-6, 9, 7, 2), Limit(-4, 4, 3, 1), Limit(0, 0, 1, 1), Limit(-30, 3, 17, 5), Limit(-3, 3, 2, 9)]


def axes(limit: Limit) -> list[Axis]:
    positions = range(limit.lo - 3, limit.hi + 4)
    return [Axis(q, v) for q in positions for v in range(-limit.w, limit.w + 1)]


@pytest.mark.parametrize("limit", LIMITS)
def test_every_state_of_a_small_axis(lib: Any, limit: Limit) -> None:
    c_limit = ffi.new("kz_limit *", limit)
    for axis in axes(limit):
        c_axis = ffi.new("kz_axis *", axis)
        assert lib.kz_viable(c_limit, c_axis) == viable(limit, axis), axis  # 1 or 0
        assert lib.kz_braked(c_limit, c_axis) == braked(limit, axis)
        for coast in (0, 1, 4):
            found = lib.kz_admissible(c_limit, c_axis, coast)
            assert (found.down, found.up, found.down_rules, found.up_rules) == window(limit, axis, coast), (axis, coast)
        assert (c_axis.q, c_axis.v) == axis  # only looked at


@pytest.mark.parametrize("limit", LIMITS)
def test_every_proposal_in_every_state_of_a_small_axis(lib: Any, limit: Limit) -> None:
    """The nearest admissible position, and the rules of the end that was hit, added to those there were."""
    c_limit, rules = ffi.new("kz_limit *", limit), ffi.new("uint8_t *")
    for axis, coast in product(axes(limit), (0, 2)):
        down, up, down_rules, up_rules = window(limit, axis, coast)
        for step in {down - 5, down - 1, down, down + 1, 0, up - 1, up, up + 1, up + 5}:
            c_axis, rules[0] = ffi.new("kz_axis *", axis), 0x40
            sent = lib.kz_admit(c_limit, c_axis, axis.q + step, coast, rules)
            v = min(max(step, down), up)
            assert (sent, c_axis.q, c_axis.v) == (axis.q + v, axis.q + v, v), (axis, coast, step)
            hit = up_rules if step > up else down_rules if step < down else 0
            assert rules[0] == 0x40 | hit, (axis, coast, step)


@pytest.mark.parametrize("limit", LIMITS)
def test_a_miss_coasts_where_that_is_viable_and_brakes_elsewhere(lib: Any, limit: Limit) -> None:
    c_limit = ffi.new("kz_limit *", limit)
    for axis, may_coast in product(axes(limit), (0, 1)):
        c_axis = ffi.new("kz_axis *", axis)
        sent = lib.kz_miss(c_limit, c_axis, may_coast)
        coasts = may_coast and viable(limit, Axis(axis.q + axis.v, axis.v))
        v = axis.v if coasts else braked(limit, axis)
        assert (sent, c_axis.q, c_axis.v) == (axis.q + v, axis.q + v, v), (axis, may_coast)


# ---- any size: no intermediate overflows -----------------------------------------------------------------------------


@st.composite
def extreme(draw: st.DrawFn) -> tuple[Limit, Axis, int, int]:
    """Limits up to KZ_RAW_MAX, a state inside or outside, a proposal anywhere."""
    lo, hi = sorted((draw(RAW) * draw(st.sampled_from((-1, 1))), draw(RAW) * draw(st.sampled_from((-1, 1)))))
    limit = Limit(lo, hi, draw(SIZE), draw(SIZE))
    q = draw(st.sampled_from((lo, hi, -RAW_MAX, RAW_MAX)) | st.integers(lo, hi))
    v = draw(st.sampled_from((0, limit.w, -limit.w)) | st.integers(-limit.w, limit.w))
    if not viable(limit, Axis(q, v)) if limit.h * 2000 > abs(v) else True:
        v = 0
    return limit, Axis(q, v), draw(st.integers(-(2**31) + 1, 2**31 - 1)), draw(COAST)


@settings(max_examples=400, deadline=None)
@given(extreme())
def test_limits_as_large_as_they_may_be(lib: Any, case: tuple[Limit, Axis, int, int]) -> None:
    limit, axis, want, coast = case
    c_axis, rules = ffi.new("kz_axis *", axis), ffi.new("uint8_t *")
    sent = lib.kz_admit(ffi.new("kz_limit *", limit), c_axis, want, coast, rules)
    v = sent - axis.q
    assert (c_axis.q, c_axis.v) == (sent, v)
    assert abs(v) <= limit.w
    assert abs(v - axis.v) <= limit.h
    inside = limit.lo <= axis.q <= limit.hi
    assert not inside or limit.lo <= sent <= limit.hi
    assert not inside or limit.h * 2000 <= abs(v) or viable(limit, Axis(sent, v))
    assert sent == want or rules[0]
    outward = (axis.q > limit.hi and v > 0) or (axis.q < limit.lo and v < 0)
    assert inside or not outward
    if not inside:
        assert abs(v) <= max(limit.w // 8, 1)
