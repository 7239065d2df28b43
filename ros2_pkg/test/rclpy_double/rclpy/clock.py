"""Clocks. The ROS clock is the system's: the double has no simulated time."""

from __future__ import annotations

import threading
import time
from typing import Any

from rclpy.clock_type import ClockType
from rclpy.duration import Duration
from rclpy.exceptions import NotInitializedException
from rclpy.time import Time
from rclpy.utilities import get_default_context

__all__ = ["Clock", "ClockType", "ROSClock"]


class Clock:
    """``Clock(clock_type=ClockType.STEADY_TIME)``."""

    def __init__(self, *, clock_type: ClockType = ClockType.SYSTEM_TIME) -> None:
        if not isinstance(clock_type, ClockType):
            raise TypeError("Clock type must be a ClockType enum")
        self._clock_type = clock_type

    @property
    def clock_type(self) -> ClockType:
        return self._clock_type

    def now(self) -> Time:
        steady = self._clock_type == ClockType.STEADY_TIME
        return Time(nanoseconds=time.monotonic_ns() if steady else time.time_ns(), clock_type=self._clock_type)

    def sleep_until(self, until: Time, context: Any = None) -> bool:
        """False where the context ended meanwhile. Raises ValueError for another clock's time."""
        if until.clock_type != self._clock_type:
            raise ValueError("until's clock type does not match this clock's type")
        return self.sleep_for(Duration(nanoseconds=until.nanoseconds - self.now().nanoseconds), context)

    def sleep_for(self, rel_time: Duration, context: Any = None) -> bool:
        chosen = context or get_default_context()
        if not chosen.ok():
            raise NotInitializedException
        ended = threading.Event()
        chosen.on_shutdown(ended.set)
        return not ended.wait(max(0, rel_time.nanoseconds) / 1e9)


class ROSClock(Clock):
    def __init__(self) -> None:
        super().__init__(clock_type=ClockType.ROS_TIME)

    @property
    def ros_time_is_active(self) -> bool:
        return False
