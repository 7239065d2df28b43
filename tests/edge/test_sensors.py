"""Detectors: what is reported, exactly at which threshold, and that nothing is reported of honest samples."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.faults import Event
from kizzasi_edge.guardrails.sensors import JointWatch, SensorWatch, TimeWatch

MS = 1_000_000
PERIOD = 2 * MS
JOINT = JointWatch(lo=-3.0, hi=3.0, speed=2.0, allowance=0.0, warn=0.5, stop=1.0)  # a period moves 4 mrad at most
TIMES = TimeWatch(period_ns=PERIOD, stale_ns=10 * MS, jump_ns=20 * MS)
NONE = Event(0)
EDGE = 1e-9


def watch_of(n: int = 1, joint: JointWatch = JOINT, times: TimeWatch = TIMES) -> SensorWatch:
    return SensorWatch([joint] * n, times)


def sample(watch: SensorWatch, q: float, now: int, *, v: float = 0.0, sent: float | None = None, age: int = 0) -> Event:
    return watch.check([q], [v], [q if sent is None else sent], now - age, now)


# ---- positions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none(bad: float) -> None:
    watch = watch_of(3)
    good = [0.0, 0.1, 0.2]
    assert watch.check(good, good, good, 0, 0) == NONE
    for i in range(3):
        now = (2 * i + 1) * PERIOD
        wrong = [bad if k == i else x for k, x in enumerate(good)]
        found = watch.check(wrong, good, good, now, now)
        assert found == Event.SENSOR_NON_FINITE  # nobody knows whether an unmeasured joint is on track
        assert watch.check(good, wrong, good, now, now) == Event.SENSOR_NON_FINITE
        assert watch.check(good, good, wrong, now, now) == Event.TRACKING_STOP
        assert watch.check(good, good, good, now + PERIOD, now + PERIOD) == NONE


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_range(sign: float) -> None:
    assert sample(watch_of(), sign * 3.0, 0) == NONE
    assert sample(watch_of(), sign * (3.0 + EDGE), 0) == Event.SENSOR_RANGE
    assert sample(watch_of(), sign * 3.5, 0, v=math.nan) == Event.SENSOR_NON_FINITE


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("allowance", [0.0, 0.01])
@pytest.mark.parametrize(("elapsed", "periods"), [(0, 0), (1, 1), (PERIOD, 1), (PERIOD + 1, 2), (3 * PERIOD, 3)])
def test_jump(sign: float, allowance: float, elapsed: int, periods: int) -> None:
    reach = 0.004 * periods + allowance
    for distance, expected in ((max(reach - EDGE, 0.0), NONE), (reach + EDGE, Event.SENSOR_JUMP)):
        watch = watch_of(joint=replace(JOINT, allowance=allowance))
        assert sample(watch, 1.0, 0) == NONE
        assert sample(watch, 1.0 + sign * distance, elapsed) == expected


def test_one_wild_sample_is_one_event() -> None:
    watch = watch_of()
    assert [sample(watch, q, i * PERIOD) for i, q in enumerate([0.0, 0.001, 0.5, 0.002, 0.003])] == [
        NONE, NONE, Event.SENSOR_JUMP, NONE, NONE,
    ]  # fmt: skip


def test_a_slipped_encoder_stays_a_fault_until_it_could_have_travelled() -> None:
    watch = watch_of()
    sample(watch, 0.0, 0)
    found = [sample(watch, 0.1, i * PERIOD) for i in range(1, 40)]
    assert found == [Event.SENSOR_JUMP] * 24 + [NONE] * 15  # 0.1 rad at 4 mrad a period


def test_range_and_jump_together() -> None:
    watch = watch_of()
    sample(watch, 0.0, 0)
    assert sample(watch, 4.0, PERIOD) == Event.SENSOR_RANGE | Event.SENSOR_JUMP


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_tracking(sign: float) -> None:
    for error, expected in (
        (0.5, NONE),
        (0.5 + EDGE, Event.TRACKING_WARN),
        (1.0, Event.TRACKING_WARN),
        (1.0 + EDGE, Event.TRACKING_STOP),
    ):
        assert sample(watch_of(), 0.0, 0, sent=sign * error) == expected
    assert sample(watch_of(joint=JointWatch(-3, 3, 2, 0)), -3.0, 0, sent=3.0) == NONE


def test_each_joint_has_its_own_limits_and_any_one_reports() -> None:
    watch = SensorWatch([JOINT, replace(JOINT, lo=-1.0, hi=1.0, warn=0.1)], TIMES)
    assert watch.check([2.0, 0.0], [0.0, 0.0], [2.0, 0.0], 0, 0) == NONE
    assert watch.check([2.0, 0.0], [0.0, 0.0], [2.0, 0.2], PERIOD, PERIOD) == Event.TRACKING_WARN
    assert watch.check([2.0, 2.0], [0.0, 0.0], [4.0, 2.0], PERIOD, PERIOD) == (
        Event.SENSOR_RANGE | Event.SENSOR_JUMP | Event.TRACKING_STOP
    )


def test_another_number_of_joints_is_refused() -> None:
    for q, v, sent in ((1, 2, 2), (2, 1, 2), (2, 2, 1), (3, 3, 3)):
        with pytest.raises(ValueError, match="zip"):
            watch_of(2).check([0.0] * q, [0.0] * v, [0.0] * sent, 0, 0)


def test_of_several_faulty_joints_and_clocks_none_hides_another() -> None:
    watch = SensorWatch([JOINT, replace(JOINT, hi=1.0, speed=1e4), JOINT], replace(TIMES, active_ticks=1))
    assert watch.check([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0], 0, 0) == NONE
    found = watch.check([0.5, 1.5, 0.0], [0.0, 0.0, 0.0], [0.5, 1.5, 0.7], -1, 21 * MS, active=True)
    assert found == (
        Event.SENSOR_JUMP | Event.SENSOR_RANGE | Event.TRACKING_WARN | Event.ACTIVE_LONG
        | Event.STALE | Event.CLOCK_BACKWARD | Event.CLOCK_JUMP
    )  # fmt: skip


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_across_zero(sign: float) -> None:
    """Distances are differences, on both sides of zero."""
    watch = watch_of()
    assert sample(watch, sign * 0.3, 0) == NONE
    assert sample(watch, sign * -0.3, PERIOD) == Event.SENSOR_JUMP
    assert sample(watch_of(), sign * -0.3, 0, sent=sign * 0.3) == Event.TRACKING_WARN
    assert sample(watch_of(), sign * -0.6, 0, sent=sign * 0.6) == Event.TRACKING_STOP


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_what_stands_at_its_limit_keeps_it_whatever_else_is_wrong(sign: float) -> None:
    assert sample(watch_of(), 0.0, 0, v=math.nan, sent=sign * 0.5) == Event.SENSOR_NON_FINITE
    watch = watch_of()
    sample(watch, 0.0, 0)
    assert sample(watch, sign * 3.0, PERIOD) == Event.SENSOR_JUMP


# ---- clocks ----------------------------------------------------------------------------------------------------------


def test_stale() -> None:
    assert sample(watch_of(), 0.0, 0, age=10 * MS) == NONE
    assert sample(watch_of(), 0.0, 0, age=10 * MS + 1) == Event.STALE


def test_a_sensor_that_stops_sending_becomes_stale_and_then_comes_back() -> None:
    watch = watch_of()
    found = [sample(watch, 0.0, i * PERIOD, age=i * PERIOD) for i in range(8)]
    assert found == [NONE] * 6 + [Event.STALE] * 2
    assert sample(watch, 0.03, 8 * PERIOD) == NONE  # it may have moved in the meantime: 8 periods
    assert sample(watch, 0.03, 9 * PERIOD) == NONE


def test_clock_backward() -> None:
    watch = watch_of()
    assert sample(watch, 0.0, 100 * MS) == NONE
    assert sample(watch, 0.0, 100 * MS, age=1) == Event.CLOCK_BACKWARD  # the stamp
    assert sample(watch, 0.0, 101 * MS) == NONE
    assert sample(watch, 0.0, 100 * MS) == Event.CLOCK_BACKWARD  # both
    assert sample(watch, 0.0, 100 * MS) == NONE  # self-clearing: the new time is time
    assert watch.check([0.0], [0.0], [0.0], 100 * MS, 100 * MS - 1) == Event.CLOCK_BACKWARD | Event.CLOCK_JUMP


def test_clock_jump() -> None:
    watch = watch_of()
    assert sample(watch, 0.0, 0) == NONE
    assert sample(watch, 0.0, 20 * MS) == NONE
    assert sample(watch, 0.0, 40 * MS + 1) == Event.CLOCK_JUMP
    assert sample(watch, 0.0, 42 * MS) == NONE
    assert sample(watch_of(), 0.0, 0, age=-1) == Event.CLOCK_JUMP  # from the future, even if it is the first


@pytest.mark.parametrize("leap", [3_600_000 * MS, -3_600_000 * MS])
def test_a_leap_of_the_clock_excuses_no_leap_of_the_sensor(leap: int) -> None:
    """Across a leap the time is unknown: one period is granted, and later ones count on the new clock."""
    for jump, expected in ((0.004 - EDGE, NONE), (0.004 + EDGE, Event.SENSOR_JUMP)):
        watch = watch_of()
        sample(watch, 0.0, 0)
        found = sample(watch, jump, leap)
        assert found == expected | (Event.CLOCK_JUMP if leap > 0 else Event.CLOCK_BACKWARD)
        assert sample(watch, jump, leap + PERIOD) == NONE


def test_reset_forgets() -> None:
    watch = watch_of(times=replace(TIMES, active_ticks=2))
    watch.check([0.0], [0.0], [0.0], 5 * PERIOD, 5 * PERIOD, active=True)
    watch.reset()
    assert watch.check([2.0], [0.0], [2.0], 0, 0, active=True) == NONE


# ---- the guard's own activity ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ticks", [0, 1, 3])
def test_active_for_too_long(ticks: int) -> None:
    watch = watch_of(times=replace(TIMES, active_ticks=ticks))
    pattern = [True, True, False, True, True, True, True, False]
    run, expected = 0, []
    for active in pattern:
        run = run + 1 if active else 0
        expected.append(Event.ACTIVE_LONG if ticks and run >= ticks else NONE)
    found = [
        watch.check([0.0], [0.0], [0.0], i * PERIOD, i * PERIOD, active=active) for i, active in enumerate(pattern)
    ]
    assert found == expected
    assert watch.check([0.0], [0.0], [0.0], 9 * PERIOD, 9 * PERIOD) == NONE


# ---- properties ------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.floats(-1, 1), st.integers(1, 10 * MS), st.integers(0, 10 * MS)), max_size=30),
    st.floats(-2, 2),
)
def test_honest_samples_raise_nothing(steps: list[tuple[float, int, int]], start: float) -> None:
    """Motion within the speed, however the samples are spaced and delayed (stamps in order, none from the future)."""
    watch = watch_of(joint=replace(JOINT, allowance=1e-9))
    q = start
    stamp = now = 0
    sample(watch, q, 0)
    for share, elapsed, age in steps:
        stamp += elapsed
        now = max(now, stamp) if age > MS else max(now, min(stamp + age, now + TIMES.jump_ns))
        q = max(-3.0, min(3.0, q + share * 2.0 * elapsed * 1e-9))
        assert watch.check([q], [0.0], [q], stamp, now) == NONE


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=4, max_size=4), st.integers(), st.integers())
def test_whatever_comes_is_judged_and_nothing_wrong_passes(xs: list[float], stamp: int, now: int) -> None:
    watch = watch_of()
    sample(watch, 0.0, 0)
    q, v, sent, _ = xs
    found = watch.check([q], [v], [sent], stamp, now)
    assert bool(found & Event.SENSOR_NON_FINITE) == (not math.isfinite(q) or not math.isfinite(v))
    assert bool(found & Event.STALE) == (now - stamp > 10 * MS)
    if math.isfinite(q) and math.isfinite(v) and not abs(q - sent) <= 1.0:
        assert found & Event.TRACKING_STOP
    if stamp < 0 or now < 0:
        assert found & Event.CLOCK_BACKWARD
    if stamp > now or now > 20 * MS:
        assert found & Event.CLOCK_JUMP


ENDS = "finite, lo < hi"
ORDER = "0 < warn <= stop"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lo": 3.0}, f"lo, hi: found (3.0, 3.0); expected {ENDS}"),
        ({"lo": math.nan}, f"lo, hi: found (nan, 3.0); expected {ENDS}"),
        ({"hi": math.inf}, f"lo, hi: found (-3.0, inf); expected {ENDS}"),
        ({"lo": -math.inf}, f"lo, hi: found (-inf, 3.0); expected {ENDS}"),
        ({"speed": 0.0}, "speed: found 0.0; expected a positive number"),
        ({"speed": math.inf}, "speed: found inf; expected a positive number"),
        ({"speed": math.nan}, "speed: found nan; expected a positive number"),
        ({"allowance": -1e-9}, "allowance: found -1e-09; expected a number >= 0"),
        ({"allowance": math.inf}, "allowance: found inf; expected a number >= 0"),
        ({"warn": 0.0}, f"warn, stop: found (0.0, 1.0); expected {ORDER}"),
        ({"warn": 1.1}, f"warn, stop: found (1.1, 1.0); expected {ORDER}"),
        ({"stop": math.nan}, f"warn, stop: found (0.5, nan); expected {ORDER}"),
    ],
)
def test_joint_limits_that_cannot_be_compared_with(change: dict[str, float], message: str) -> None:
    with pytest.raises(GuardrailError, match=f"^{re.escape(message)}$"):
        replace(JOINT, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"period_ns": 0}, "period_ns: found 0; expected a whole number >= 1"),
        ({"stale_ns": 0}, "stale_ns: found 0; expected a whole number >= 1"),
        ({"stale_ns": 1.5}, "stale_ns: found 1.5; expected a whole number >= 1"),
        ({"active_ticks": -1}, "active_ticks: found -1; expected a whole number >= 0"),
        ({"jump_ns": PERIOD - 1}, f"jump_ns: found {PERIOD - 1}; expected >= period_ns, {PERIOD}"),
    ],
)
def test_times_that_are_none(change: dict[str, int], message: str) -> None:
    with pytest.raises(GuardrailError, match=f"^{re.escape(message)}$"):
        replace(TIMES, **change)


def test_the_least_that_can_be_compared_with() -> None:
    assert replace(TIMES, period_ns=1, stale_ns=1, jump_ns=1).jump_ns == 1
    assert replace(JOINT, warn=1.0, allowance=0.0, speed=1e-3).warn == 1.0
