"""From several sources to one model input: by name, with the oldest stamp, or not at all."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kizzasi_edge.align import Align, Input
from kizzasi_edge.errors import ConfigError
from kizzasi_edge.frames import Observation

MS = 1_000_000


class Held:
    """A source that gives what it was last told."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.seen: Observation | None = None

    def open(self) -> None: ...

    def close(self) -> None: ...

    def read(self) -> Observation | None:
        return self.seen

    @property
    def counters(self) -> Mapping[str, int]:
        return {}

    def findings(self, rate_hz: float, joints: int) -> list[tuple[bool, str]]:
        return []

    def put(self, *values: float, stamp: int, t_us: int = 0, valid: list[bool] | None = None) -> None:
        mask = np.array(valid if valid is not None else [True] * len(values))
        self.seen = Observation(stamp, 0, self.names, np.array(values, np.float32), mask, t_us)


def align(names: list[str], *inputs: tuple[str, Held, dict[str, str], int | None]) -> Align:
    return Align(names, [Input(*item) for item in inputs])


def test_routes_by_name_whatever_the_order() -> None:
    arm, goal = Held("q2", "temperature", "q1"), Held("goal")
    both = align(["q1", "target", "q2"], ("arm", arm, {}, None), ("goal", goal, {"target": "goal"}, None))
    arm.put(2, 99, 1, stamp=5)
    goal.put(7, stamp=6)
    seen = both.read(10, 42)
    assert seen is not None
    assert seen.names == ("q1", "target", "q2")
    assert seen.values.tolist() == [1, 7, 2]
    assert (seen.stamp_ns, seen.seq, seen.t_us) == (5, 42, 0)


@pytest.mark.parametrize(
    ("names", "fields", "words"),
    [
        (["q1", "q2", "q3"], {}, ["no [[input]] gives", "q3"]),
        (["q1", "q2"], {"q1": "nope"}, ["[[input]] arm fields", "'nope'", "'q1'", "q2"]),
        (["q1", "q2"], {"z": "q1"}, ["[[input]] arm fields", "'z'", "q1"]),
        (["x", "y"], {}, ["[[input]] arm", "gives none", "x"]),
    ],
)
def test_bad_routes_are_refused(names: list[str], fields: dict[str, str], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        align(names, ("arm", Held("q1", "q2"), fields, None))
    for word in words:
        assert word in str(error.value)


def test_an_input_from_two_sources_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"\[\[input\]\] b: input 'q' also comes from a"):
        align(["q"], ("a", Held("q"), {}, None), ("b", Held("q"), {}, None))


def test_missing_and_stale_inputs_are_refused_and_counted_by_name() -> None:
    a, b = Held("a"), Held("b")
    both = align(["a", "b"], ("a", a, {}, 10 * MS), ("b", b, {}, None))
    assert both.read(0, 0) is None  # nothing yet, from either
    assert both.stale == {"a": 1, "b": 1}
    b.put(1, stamp=0)
    a.put(1, stamp=0)
    assert both.read(10 * MS, 0) is not None  # exactly at its limit
    assert both.read(10 * MS + 1, 0) is None
    assert both.stale == {"a": 2, "b": 1}
    a.put(1, stamp=10**12)
    assert both.read(10**12, 0) is not None  # b has no limit


def test_a_value_that_is_not_valid_is_missing() -> None:
    a = Held("a", "unused")
    one = align(["a"], ("a", a, {}, None))
    a.put(np.nan, 1, stamp=0, valid=[False, True])
    assert one.read(1, 0) is None
    a.put(1, np.nan, stamp=0, valid=[True, False])
    assert one.read(1, 0) is not None
    assert one.stale == {"a": 1}


def test_what_the_guard_reads_follows_the_models_inputs() -> None:
    arm, goal = Held("q", "v", "force"), Held("target")
    both = Align(
        ["target", "q"],
        [Input("arm", arm, {"contact": "force"}, None), Input("goal", goal, {}, None)],
        ["q", "contact"],
        ["q", "v", "w"],
    )
    assert both.names == ("target", "q", "contact", "v")
    assert both.model_dim == 2
    arm.put(1, 2, 3, stamp=5)
    goal.put(4, stamp=6)
    seen = both.read(10, 0)
    assert seen is not None
    assert seen.values.tolist() == [4, 1, 3, 2]
    assert seen.names == both.names


def test_what_the_guard_needs_and_nobody_gives_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no \[\[input\]\] gives what the guard reads: \['contact'\]"):
        Align(["q"], [Input("arm", Held("q"), {}, None)], ["q", "contact"], ["v"])


def test_a_source_may_serve_the_guard_alone() -> None:
    arm, imu = Held("q"), Held("tilt")
    both = Align(["q"], [Input("arm", arm, {}, None), Input("imu", imu, {}, 10 * MS)], ["tilt"])
    arm.put(1, stamp=0)
    imu.put(2, stamp=0)
    assert both.read(10 * MS, 0) is not None
    assert both.read(10 * MS + 1, 0) is None
    assert both.stale == {"arm": 0, "imu": 1}


def test_of_two_that_offer_what_is_welcome_the_first_is_taken() -> None:
    a, b = Held("q", "v"), Held("t", "v")
    both = Align(["q", "t"], [Input("a", a, {}, None), Input("b", b, {}, None)], (), ["v"])
    a.put(1, 2, stamp=0)
    b.put(3, 4, stamp=0)
    seen = both.read(1, 0)
    assert seen is not None
    assert seen.values.tolist() == [1, 3, 2]
    with pytest.raises(ConfigError, match="input 'v' also comes from a"):
        Align(["q", "t"], [Input("a", a, {}, None), Input("b", b, {}, None)], ["v"])


U32 = 1 << 32


@given(
    st.integers(1, U32 - 1), st.integers(0, 20_000_000), st.integers(0, 20_000_000), st.booleans(),
)  # fmt: skip
def test_the_oldest_stamp_in_the_devices_time(clock_us: int, device_age: int, other_age: int, first: bool) -> None:
    device, other, now = Held("q"), Held("t"), 10**12
    inputs: list[tuple[str, Held, dict[str, str], int | None]]
    inputs = [("device", device, {}, None), ("other", other, {}, None)]
    both = align(["q", "t"], *(inputs if first else inputs[::-1]))
    device.put(0, stamp=now - device_age, t_us=clock_us)
    other.put(0, stamp=now - other_age)
    seen = both.read(now, 0)
    assert seen is not None
    assert seen.stamp_ns == now - max(device_age, other_age)
    older_us = max(0, other_age - device_age) // 1000
    assert seen.t_us == (clock_us - older_us) % U32


def test_a_younger_input_leaves_the_devices_stamp_alone() -> None:
    device, other = Held("q"), Held("t")
    both = align(["q", "t"], ("device", device, {}, None), ("other", other, {}, None))
    device.put(0, stamp=1000, t_us=77)
    other.put(0, stamp=5000)  # read after `now`, as waypoints are
    seen = both.read(4000, 0)
    assert seen is not None
    assert (seen.stamp_ns, seen.t_us) == (1000, 77)
