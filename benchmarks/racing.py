"""Honest timing of calls against each other: interleaved rounds in one process, on one pinned core, medians."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from kizzasi_edge.bench import machine

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


def write_results(path: Path, cases: object, met: bool, **more: object) -> None:
    """Figures as JSON, with the machine they were taken on and how busy it was."""
    whole = {"machine": machine(), "load_average": os.getloadavg()[0], "cases": cases, **more, "met": met}
    path.write_text(json.dumps(whole, indent=2) + "\n")


def feed(inputs: Sequence[Any], act: Callable[[Any], object]) -> Call:
    """A call that acts on the next input; what that costs is the same for everybody."""
    following = cycle(inputs).__next__
    return lambda: act(following())
