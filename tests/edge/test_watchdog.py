"""The watchdog: once for each tick that does not end, and never for one that does."""

from __future__ import annotations

import threading

from kizzasi_edge.watchdog import CHECKS, Watchdog

LIMIT_S = 0.02


class Ticks:
    """What the watchdog looks at, one look after the other; the last one stays."""

    def __init__(self, *numbers: int) -> None:
        self._numbers = list(numbers)
        self.looks = 0
        self.done = threading.Event()

    def __call__(self) -> int:
        self.looks += 1
        if self.looks >= len(self._numbers) + 2 * CHECKS:
            self.done.set()
        return self._numbers[min(self.looks, len(self._numbers)) - 1]


def stops(*numbers: int) -> tuple[int, int]:
    """How often it stopped the robot, and what it counted."""
    ticks, told = Ticks(*numbers), []
    with Watchdog(ticks, LIMIT_S, lambda: told.append(ticks.looks)) as dog:
        assert ticks.done.wait(10)
    return len(told), dog.hangs


def test_a_tick_that_does_not_end_is_stopped_once() -> None:
    assert stops(0, 7) == (1, 1)


def test_after_all_looks_of_a_limit_and_not_before() -> None:
    assert stops(*[7] * CHECKS, 8, 0) == (0, 0)
    assert stops(*[7] * (CHECKS + 1), 8, 0) == (1, 1)


def test_waiting_is_not_hanging() -> None:
    assert stops(0) == (0, 0)


def test_ticks_that_come_and_go_are_well() -> None:
    assert stops(*range(1, 40), 0) == (0, 0)
    assert stops(*[1, 1, 0, 2, 2, 0] * 6, 0) == (0, 0)


def test_each_hanging_tick_counts() -> None:
    hung = [7] * (CHECKS + 2)
    assert stops(*hung, 0, *[9] * (CHECKS + 2), 0) == (2, 2)
