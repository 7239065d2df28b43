"""Guard conditions: a callback that any thread can ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy._rclpy_pybind11 import Destroyable


class GuardCondition:
    """Made by :meth:`Node.create_guard_condition`."""

    def __init__(
        self,
        callback: Callable[[], Any] | None,
        callback_group: Any,
        context: Any = None,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self.callback, self.callback_group, self._wake = callback, callback_group, wake
        self._executor_event = self._triggered = False
        self.handle = Destroyable()

    def trigger(self) -> None:
        with self.handle:
            self._triggered = True
            self._wake()

    def destroy(self) -> None:
        self.handle.destroy_when_not_in_use()

    def _due_ns(self) -> None:
        return None

    def _ready(self) -> bool:
        return self._triggered

    def _take(self) -> Callable[[], Any] | None:
        self._triggered = False
        return self.callback
