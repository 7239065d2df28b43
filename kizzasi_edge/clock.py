"""When a tick begins: by absolute deadlines on the monotonic clock, or by the device's own period.

Neither ever catches up: a deadline that has passed is skipped and counted (CONTRACT §3).
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
import time
from collections.abc import Iterator
from typing import Protocol

SPIN_NS = 100_000
"""With ``realtime``, how much of the wait is spent spinning: a sleep's wake-up is later than that only rarely."""


class Pace(Protocol):
    """Waits for the next tick."""

    overruns: int

    def wait(self) -> int:
        """Block until the next tick begins. Returns how many periods began since the last one: 1 when on time, more
        when some were skipped, 0 if none did (the device is silent)."""


class DeadlineClock:
    """Absolute deadlines ``start + k/rate`` on CLOCK_MONOTONIC; ``overruns`` counts skipped ones."""

    def __init__(self, rate_hz: float, *, spin: bool = False) -> None:
        self._period_ns = round(1e9 / rate_hz)
        self._spin_ns = SPIN_NS if spin else 0
        self._deadline_ns = 0
        self.overruns = 0

    def wait(self) -> int:
        now = time.monotonic_ns()
        skipped = 0
        if not self._deadline_ns:
            self._deadline_ns = now
        self._deadline_ns += self._period_ns
        if now > self._deadline_ns:
            skipped = (now - self._deadline_ns) // self._period_ns + 1
            self.overruns += skipped
            self._deadline_ns += skipped * self._period_ns
        if (rest := self._deadline_ns - self._spin_ns - time.monotonic_ns()) > 0:
            time.sleep(rest * 1e-9)
        while self._spin_ns and time.monotonic_ns() < self._deadline_ns:
            pass
        return skipped + 1


class Periodic(Protocol):
    """A device that says when its period begins."""

    def wait(self, timeout_s: float) -> int: ...


class DevicePace:
    """One tick for each period the device begins, so that gateway and device never drift against each other.

    ``overruns`` counts periods that began while the previous tick was still busy.
    """

    def __init__(self, device: Periodic, rate_hz: float) -> None:
        self._device = device
        self._timeout_s = max(5 / rate_hz, 0.02)
        self._started = False
        self.overruns = 0

    def wait(self) -> int:
        began = self._device.wait(self._timeout_s)
        if not self._started:
            began = min(began, 1)  # those before the first tick, or before the silence ended, are no overruns
        self.overruns += max(began - 1, 0)
        self._started = began > 0
        return began


@contextlib.contextmanager
def low_jitter(realtime: bool) -> Iterator[list[str]]:
    """Quiet the process for the loop: garbage collection frozen, short thread switches; with ``realtime`` also locked
    memory and SCHED_FIFO. Yields what was not permitted, in words."""
    refused: list[str] = []
    switch = sys.getswitchinterval()
    gc.collect()
    gc.freeze()
    gc.disable()
    sys.setswitchinterval(1e-4)
    if realtime:
        if ctypes.CDLL(None, use_errno=True).mlockall(3) != 0:
            refused.append(f"mlockall: {os.strerror(ctypes.get_errno())}")
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
        except OSError as exc:
            refused.append(f"SCHED_FIFO: {exc.strerror}")
    try:
        yield refused
    finally:
        if realtime:
            with contextlib.suppress(OSError):
                os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        sys.setswitchinterval(switch)
        gc.enable()
        gc.unfreeze()
