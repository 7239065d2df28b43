"""Ticks: never early, never caught up, and every skipped one counted."""

from __future__ import annotations

import gc
import os
import sys
import time

import pytest

from kizzasi_edge.clock import DeadlineClock, DevicePace, low_jitter


@pytest.mark.parametrize("spin", [False, True])
def test_deadlines_are_absolute_and_never_early(spin: bool) -> None:
    clock = DeadlineClock(200.0, spin=spin)
    start = time.monotonic_ns()
    late = []
    for k in range(1, 21):
        assert clock.wait()
        # k ticks, plus those that were skipped because this machine was busy: the grid itself does not slip.
        late.append(time.monotonic_ns() - start - (k + clock.overruns) * 5e6)
    assert min(late) >= -1e5
    assert min(late[-10:]) < 2e7


def test_a_stall_is_skipped_and_counted_not_caught_up() -> None:
    clock = DeadlineClock(100.0)
    clock.wait()
    time.sleep(0.105)  # the deadlines at 10, 20, … 100 ms pass
    stalled = clock.overruns
    clock.wait()
    assert clock.overruns - stalled >= 10
    before = time.monotonic_ns()
    for _ in range(4):
        clock.wait()
    # Catching up would return at once; one more deadline may have been skipped on a busy machine.
    assert time.monotonic_ns() - before >= 25e6


def test_a_slow_tick_overruns_once_each_period() -> None:
    clock = DeadlineClock(100.0)
    for _ in range(5):
        clock.wait()
        time.sleep(0.015)
    clock.wait()
    assert clock.overruns >= 5


class Device:
    """Says how many periods began, from a script."""

    def __init__(self, *began: int) -> None:
        self.began = list(began)
        self.timeouts: list[float] = []

    def wait(self, timeout_s: float) -> int:
        self.timeouts.append(timeout_s)
        return self.began.pop(0)


def test_device_pace_counts_the_periods_it_slept_through() -> None:
    pace = DevicePace(Device(70, 1, 1, 3, 1), 500.0)
    assert all(pace.wait() for _ in range(5))
    assert pace.overruns == 2  # what began before the first wait is no overrun


def test_device_pace_says_when_the_device_is_silent() -> None:
    device = Device(1, 0, 0, 9, 2)
    pace = DevicePace(device, 100.0)
    assert [pace.wait() for _ in range(5)] == [1, 0, 0, 1, 2]
    assert pace.overruns == 1  # not the nine after the silence
    assert device.timeouts[0] == pytest.approx(0.05)


def test_low_jitter_restores_the_process() -> None:
    switch, policy = sys.getswitchinterval(), os.sched_getscheduler(0)
    with low_jitter(False) as refused:
        assert refused == []
        assert not gc.isenabled()
        assert sys.getswitchinterval() == pytest.approx(1e-4)
    assert gc.isenabled()
    assert sys.getswitchinterval() == switch
    assert os.sched_getscheduler(0) == policy
