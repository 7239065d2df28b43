"""Honest timing of calls against each other: interleaved rounds in one process, on one pinned core, medians."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np

Call = Callable[[], object]


def pin() -> None:
    """One core for this process, the last one: interrupts prefer the first."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def race(calls: Mapping[str, Call], rounds: int, slice_ms: float = 20.0) -> dict[str, np.ndarray]:
    """Times in µs by name. In each round every call runs for about `slice_ms` after a short warm-up."""
    times: dict[str, list[int]] = {name: [] for name in calls}
    clock = time.perf_counter_ns
    for _ in range(rounds):
        for name, call in calls.items():
            call()
            began = clock()
            call()
            count = max(1, min(2000, int(slice_ms * 1e6 / max(clock() - began, 1))))
            for _ in range(count):
                start = clock()
                call()
                times[name].append(clock() - start)
    return {name: np.array(values) / 1e3 for name, values in times.items()}


def feed(inputs: Sequence[Any], act: Callable[[Any], object]) -> Call:
    """A call that acts on the next input; what that costs is the same for everybody."""
    following = cycle(inputs).__next__
    return lambda: act(following())
