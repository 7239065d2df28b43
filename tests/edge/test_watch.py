"""What a guard file's [faults] makes of thresholds: each detector fires just beyond its bound and not at it."""

from __future__ import annotations

import math
import re
import tomllib
from pathlib import Path

import pytest

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.faults import Event, FaultLimits
from kizzasi_edge.guardrails.lattice import JointLimits
from kizzasi_edge.guardrails.limits import joint_limits
from kizzasi_edge.guardrails.sensors import SensorWatch
from kizzasi_edge.guardrails.spec import GuardFile
from kizzasi_edge.guardrails.watch import (
    UNWATCHED,
    fault_limits,
    require_watchable,
    sensor_watch,
    watches_joints,
    watches_time,
)
from kizzasi_edge.toml_file import validate

WHERE = Path("x.guard.toml")
MS = 1_000_000
PERIOD = 10 * MS
EPS = 1e-9
JOINTS = (
    'names = ["a", "b"]\nposition = [[-1, 1], [-3, 2]]\nvelocity = 2\nacceleration = 9\nmargin = [0.125, 0.25]\n'
    "velocity_scale = 0.5\n"
)
WHEEL = 'names = ["w"]\nvelocity = 1\nacceleration = 1'


def spec_of(faults: str, *, guard: str = "", joints: str = JOINTS, rate: int = 100) -> GuardFile:
    text = f"schema = 1\n[guard]\nrate_hz = {rate}\n{guard}\n[joints]\n{joints}\n[faults]\n{faults}\n"
    return validate(tomllib.loads(text), GuardFile, WHERE, GuardrailError)


def watch_of(faults: str, rate: int = 100) -> SensorWatch:
    spec = spec_of(faults, rate=rate)
    limits = joint_limits(spec, WHERE)
    watch = sensor_watch(spec, limits, WHERE)
    assert watch is not None
    return watch


class Stream:
    """Samples of a joint that stands, one a period, on one clock."""

    def __init__(self, faults: str, rate: int = 100) -> None:
        self.watch = watch_of(faults, rate)
        self.now = 1 << 40

    def __call__(
        self,
        a: float = 0.0,
        b: float = 0.0,
        *,
        sent: float | None = None,
        age: int = 0,
        after: int = PERIOD,
        active: bool = False,
    ) -> Event:
        self.now += after
        applied = [a if sent is None else sent, b]
        return self.watch.check([a, b], [0.0, 0.0], applied, self.now - age, self.now, active=active)


TIMES = ("stale_ms", "clock_jump_ms")
ON_JOINTS = ("jump", "range_tolerance", "tracking_error", "tracking_stop")


@pytest.mark.parametrize("key", [*TIMES, *ON_JOINTS, "active_ms"])
def test_what_a_step_needs_for_each_key(key: str) -> None:
    spec = spec_of(f"{key} = 1")
    assert watches_time(spec) == (key in TIMES)
    assert watches_joints(spec) == (key in ON_JOINTS)
    assert isinstance(watch_of(f"{key} = 1"), SensorWatch)


def test_nothing_is_watched_without_a_threshold() -> None:
    spec = spec_of("settle_ticks = 3\nfault_ticks = 4")
    assert sensor_watch(spec, joint_limits(spec, WHERE), WHERE) is None
    assert not watches_time(spec)
    assert not watches_joints(spec)


@pytest.mark.parametrize("faults", ["stale_ms = 50", "clock_jump_ms = 50", "active_ms = 50"])
def test_joints_are_not_watched_because_clocks_are(faults: str) -> None:
    see = Stream(faults)
    for a in (0.0, 1e299, -1e299):
        assert see(a, -a, sent=0.0) == 0
    assert Stream("tracking_stop = 9")(UNWATCHED / 2, sent=UNWATCHED / 2) == 0


def test_range_is_that_before_margins_and_tolerance_more() -> None:
    see = Stream("range_tolerance = 0.5")
    assert [see(a) for a in (-1.5, 1.5, -1.5 - EPS, 1.5 + EPS)] == [0, 0, Event.SENSOR_RANGE, Event.SENSOR_RANGE]
    assert [see(0, b) for b in (-3.5, 2.5, -3.5 - EPS, 2.5 + EPS)] == [0, 0, Event.SENSOR_RANGE, Event.SENSOR_RANGE]


@pytest.mark.parametrize(("lower", "upper"), [(-math.inf, math.inf), (-math.inf, 1.0), (-1.0, math.inf)])
def test_a_joint_without_a_range_has_none_to_watch(lower: float, upper: float) -> None:
    limits = [JointLimits("w", lower, upper, 1.0, 1.0, {})]
    message = f"{WHERE}: [faults] range_tolerance: joint 'w' has no range to watch"
    with pytest.raises(GuardrailError, match="^" + re.escape(message) + "$"):
        sensor_watch(spec_of("range_tolerance = 0.5", joints=WHEEL), limits, WHERE)
    assert sensor_watch(spec_of("jump = 0.5", joints=WHEEL), limits, WHERE) is not None


def test_a_jump_is_beyond_what_the_joint_can_travel_at_full_speed() -> None:
    """2 rad/s whatever ``velocity_scale`` commands, for 10 ms, and the allowance."""
    see = Stream("jump = 0.01")
    assert [see(0.0), see(0.03 - EPS), see(0.0)] == [0, 0, 0]
    assert [see(0.03 + EPS), see(0.0, 0.03 + EPS)] == [Event.SENSOR_JUMP, 0]  # after two periods, b can be there


@pytest.mark.parametrize(
    ("faults", "warn", "stop"),
    [
        ("tracking_error = 0.125\ntracking_stop = 0.25", 0.125, 0.25),
        ("tracking_error = 0.125", 0.125, math.inf),
        ("tracking_stop = 0.25", 0.25, 0.25),
        ("tracking_error = 0.5\ntracking_stop = 0.25", 0.25, 0.25),
    ],
)
def test_tracking(faults: str, warn: float, stop: float) -> None:
    see = Stream(faults)
    for error in (0.125, 0.125 + EPS, 0.25, 0.25 + EPS, 0.5 + EPS, 1e6):
        expected = Event.TRACKING_STOP if error > stop else Event.TRACKING_WARN if error > warn else Event(0)
        assert see(0.0, sent=error) == see(0.0, sent=-error) == expected


def test_clocks() -> None:
    see = Stream("stale_ms = 5.5\nclock_jump_ms = 20")
    assert see(after=100 * PERIOD) == 0  # nothing before it to jump from
    assert [see(age=5_500_000), see(age=5_500_001)] == [0, Event.STALE]
    assert [see(after=2 * PERIOD), see(after=2 * PERIOD + 1)] == [0, Event.CLOCK_JUMP]
    see = Stream("stale_ms = 5")
    assert [see(), see(after=1 << 50)] == [0, 0]
    see = Stream("clock_jump_ms = 1")  # no shorter than a period
    assert [see(age=1 << 40), see(), see(after=PERIOD + 1)] == [0, 0, Event.CLOCK_JUMP]
    see = Stream("clock_jump_ms = 1", rate=1)
    assert [see(), see(after=100 * PERIOD), see(after=100 * PERIOD + 1)] == [0, 0, Event.CLOCK_JUMP]


@pytest.mark.parametrize(("milliseconds", "ticks"), [(50, 5), (54, 5), (1, 1)])
def test_active_for_so_many_periods(milliseconds: int, ticks: int) -> None:
    see = Stream(f"active_ms = {milliseconds}")
    found = [see(active=True) for _ in range(ticks + 1)]
    assert found == [Event(0)] * (ticks - 1) + [Event.ACTIVE_LONG] * 2
    assert see() == 0
    see = Stream("stale_ms = 5")
    assert {see(active=True) for _ in range(100)} == {Event(0)}


def test_thresholds_of_the_machine() -> None:
    assert fault_limits(spec_of("")) == FaultLimits()
    faults = "settle_ticks = 2\nfault_ticks = 4\nhang_ticks = 6\ninfeasible_ticks = 8"
    expected = FaultLimits(miss_budget=1, nan_ticks=9, hang_ticks=6, fault_ticks=4, infeasible_ticks=8, settle_ticks=2)
    assert fault_limits(spec_of(faults, guard="miss_budget = 1\nnan_ticks = 9")) == expected


ALL = "stale_ms, clock_jump_ms, active_ms, jump, range_tolerance"


@pytest.mark.parametrize(
    ("command", "key", "expected"),
    [
        ("velocity", "tracking_error", ALL),
        ("torque", "tracking_stop", ALL),
        ("pose", "jump", "stale_ms, clock_jump_ms, active_ms"),
        ("pose", "range_tolerance", "stale_ms, clock_jump_ms, active_ms"),
    ],
)
def test_what_cannot_be_watched_is_refused(command: str, key: str, expected: str) -> None:
    message = f"{WHERE}: [faults] {key}: not watched on {command} commands; expected only {expected}"
    with pytest.raises(GuardrailError, match="^" + re.escape(message) + "$"):
        require_watchable(spec_of(f"{key} = 1"), command, WHERE)
    require_watchable(spec_of(f"{key} = 1"), "position", WHERE)
    require_watchable(spec_of("stale_ms = 1"), command, WHERE)
