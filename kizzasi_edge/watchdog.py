"""Stops the robot when a tick of the loop does not come to its end: a model that hangs, a guard that loops.

Between two commands the node coasts and brakes by itself, and its TTL latches (CONTRACT §3); this says so at once,
and to the operator. A call that hangs while it holds Python's global lock stops this thread too: then the TTL is what
is left.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import TracebackType

_log = logging.getLogger(__name__)

CHECKS = 4
"""Looks per limit: a tick is found hanging after one to 1 + 1/CHECKS limits."""


class Watchdog:
    """Looks at ``in_flight()``, the number of the tick being worked on (0: waiting for the next), and calls ``stop()``
    once for each tick that takes longer than ``limit_s``; ``hangs`` counts them.

    It counts its own looks, not the clock: a process that was suspended has not hung, and its TTL has passed anyway.
    """

    def __init__(self, in_flight: Callable[[], int], limit_s: float, stop: Callable[[], None]) -> None:
        self.hangs = 0
        self._in_flight, self._stop = in_flight, stop
        self._interval_s = limit_s / CHECKS
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(1.0)

    def _watch(self) -> None:
        tick, seen = 0, 0
        while not self._over.wait(self._interval_s):
            now = self._in_flight()
            seen = seen + 1 if now and now == tick else 0
            tick = now
            if seen == CHECKS:
                self.hangs += 1
                try:
                    self._stop()
                except Exception:  # a port that is gone: go on watching
                    _log.exception("the emergency stop after a hanging tick failed")
