"""Periods: every one is counted, once, however late the one who waits is."""

from __future__ import annotations

import threading
import time

from kizzasi_edge.connectors.periods import Periods


def test_it_counts_what_began_and_times_out() -> None:
    periods = Periods()
    assert periods.wait(0.01) == 0
    periods.begin(1)
    periods.begin(2)
    assert periods.wait(5.0) == 3
    assert periods.wait(0.01) == 0


def test_a_bell_for_a_period_seen_already_is_no_silence() -> None:
    """One begins between his waking up and his counting: he counts both, and the second bell still rings."""
    periods = Periods()
    periods.begin(1)
    assert periods._bell.acquire(timeout=0)  # he wakes up
    periods.begin(1)
    periods._seen = periods._began  # he counts
    later = threading.Timer(0.05, periods.begin, [3])
    later.start()
    assert periods.wait(20.0) == 3
    later.join()


def test_none_is_lost_between_two_threads() -> None:
    periods, total = Periods(), 3000

    def begin() -> None:
        for i in range(total):
            periods.begin(1)
            if i % 7 == 0:
                time.sleep(0)

    thread = threading.Thread(target=begin)
    thread.start()
    counted = 0
    while counted < total:
        began = periods.wait(20.0)
        assert began > 0
        counted += began
    thread.join()
    assert counted == total
    assert periods.wait(0.01) == 0
