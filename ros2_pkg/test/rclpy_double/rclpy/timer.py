"""Timers, on the steady clock, and rates."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from rclpy._rclpy_pybind11 import Destroyable
from rclpy.exceptions import ROSInterruptException


class Timer:
    """Made by :meth:`Node.create_timer`. A tick that comes late does not move the ones after it; those missed are left
    out."""

    def __init__(
        self,
        callback: Callable[[], Any] | None,
        callback_group: Any,
        timer_period_ns: int,
        clock: Any,
        *,
        context: Any = None,
        wake: Callable[[], None] = lambda: None,
        autostart: bool = True,
    ) -> None:
        self.callback, self.callback_group, self._clock, self._wake = callback, callback_group, clock, wake
        self._period_ns, self._canceled, self._executor_event = timer_period_ns, not autostart, False
        self._last_ns = time.monotonic_ns()
        self._next_ns = self._last_ns + timer_period_ns
        self.handle = Destroyable()

    @property
    def clock(self) -> Any:
        return self._clock

    @property
    def timer_period_ns(self) -> int:
        return self._period_ns

    @timer_period_ns.setter
    def timer_period_ns(self, value: int) -> None:
        with self.handle:
            self._period_ns = int(value)

    def is_ready(self) -> bool:
        with self.handle:
            return not self._canceled and self._next_ns <= time.monotonic_ns()

    def is_canceled(self) -> bool:
        with self.handle:
            return self._canceled

    def cancel(self) -> None:
        with self.handle:
            self._canceled = True

    def reset(self) -> None:
        with self.handle:
            self._next_ns = time.monotonic_ns() + self._period_ns
            self._canceled = False
            self._wake()

    def time_since_last_call(self) -> int:
        with self.handle:
            return time.monotonic_ns() - self._last_ns

    def time_until_next_call(self) -> int | None:
        with self.handle:
            return None if self._canceled else self._next_ns - time.monotonic_ns()

    def destroy(self) -> None:
        self.handle.destroy_when_not_in_use()

    def _due_ns(self) -> int | None:
        return None if self._canceled or self.handle._destroyed else self._next_ns

    def _ready(self) -> bool:
        due = self._due_ns()
        return due is not None and due <= time.monotonic_ns()

    def _take(self) -> Callable[[], Any] | None:
        if not self._ready():
            return None
        self._last_ns = now = time.monotonic_ns()
        self._next_ns += self._period_ns
        if self._next_ns < now:
            behind = now - self._next_ns
            self._next_ns = (
                now if not self._period_ns else self._next_ns + self._period_ns * (behind // self._period_ns + 1)
            )
        return self.callback or (lambda: None)


class Rate:
    """Made by :meth:`Node.create_rate`; some other thread must spin."""

    def __init__(self, timer: Timer, *, context: Any) -> None:
        self._timer, self._context, self._event, self._destroyed = timer, context, threading.Event(), False
        timer.callback = self._event.set
        context.on_shutdown(self.destroy)

    def sleep(self) -> None:
        """Raises ROSInterruptException when the context ends."""
        self._event.clear()
        if self._destroyed or not self._context.ok():
            raise ROSInterruptException
        self._event.wait()
        if not self._context.ok():
            raise ROSInterruptException

    def destroy(self) -> None:
        self._destroyed = True
        self._event.set()
