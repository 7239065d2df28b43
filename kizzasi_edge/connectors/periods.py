"""Waking one thread as another one's periods begin."""

from __future__ import annotations

import threading

__all__ = ["Periods"]


class Periods:
    """Counts periods for one who waits for the next. A lock that is released as one begins wakes him at half the price
    of a condition. :meth:`begin` is one thread's, :meth:`wait` another's."""

    def __init__(self) -> None:
        self._bell = threading.Lock()
        self._bell.acquire()
        self._began = self._seen = 0

    def begin(self, count: int) -> None:
        """``count`` periods began since the last call, the present one among them."""
        self._began += count
        if self._bell.locked():  # nobody else releases it
            self._bell.release()

    def wait(self, timeout_s: float) -> int:
        """Block until the next one begins; how many began since the last call (0 = timed out)."""
        while True:
            rang = self._bell.acquire(timeout=timeout_s)
            began = self._began
            new, self._seen = began - self._seen, began
            if new or not rang:  # a bell that rang for a period seen already is none
                return new
