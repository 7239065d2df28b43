"""A point in time of one clock."""

from __future__ import annotations

from typing import Any

import builtin_interfaces.msg

from rclpy.clock_type import ClockType
from rclpy.duration import Duration


class Time:
    """Raises ValueError before the epoch; comparing times of different clocks raises TypeError."""

    def __init__(
        self, *, seconds: float = 0, nanoseconds: int = 0, clock_type: ClockType = ClockType.SYSTEM_TIME
    ) -> None:
        if not isinstance(clock_type, ClockType):
            raise TypeError("Clock type must be a ClockType enum")
        if seconds < 0 or nanoseconds < 0:
            raise ValueError("Time values must not be negative")
        self.nanoseconds = int(seconds * 1_000_000_000) + int(nanoseconds)
        self.clock_type = clock_type
        if self.nanoseconds >= 2**63:
            raise OverflowError("Total nanoseconds value is too large to store in C time point.")

    def seconds_nanoseconds(self) -> tuple[int, int]:
        return divmod(self.nanoseconds, 1_000_000_000)

    def __repr__(self) -> str:
        return f"Time(nanoseconds={self.nanoseconds}, clock_type={self.clock_type.name})"

    def __add__(self, other: object) -> Time:
        if not isinstance(other, Duration):
            return NotImplemented
        return Time(nanoseconds=self.nanoseconds + other.nanoseconds, clock_type=self.clock_type)

    __radd__ = __add__

    def __sub__(self, other: object) -> Any:
        if isinstance(other, Time):
            return Duration(nanoseconds=self.nanoseconds - self._same(other))
        if isinstance(other, Duration):
            return Time(nanoseconds=self.nanoseconds - other.nanoseconds, clock_type=self.clock_type)
        return NotImplemented

    def __eq__(self, other: object) -> bool:
        return self.nanoseconds == self._same(other) if isinstance(other, Time) else NotImplemented

    def __lt__(self, other: object) -> bool:
        return self.nanoseconds < self._same(other) if isinstance(other, Time) else NotImplemented

    def __le__(self, other: object) -> bool:
        return self.nanoseconds <= self._same(other) if isinstance(other, Time) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.nanoseconds, self.clock_type))

    def _same(self, other: Time) -> int:
        if self.clock_type != other.clock_type:
            raise TypeError("Can't compare times with different clock types")
        return other.nanoseconds

    def to_msg(self) -> Any:
        sec, nanosec = self.seconds_nanoseconds()
        return builtin_interfaces.msg.Time(sec=sec, nanosec=nanosec)

    @classmethod
    def from_msg(cls, msg: Any, clock_type: ClockType = ClockType.ROS_TIME) -> Time:
        if not isinstance(msg, builtin_interfaces.msg.Time):
            raise TypeError("Must pass a builtin_interfaces.msg.Time object")
        return cls(seconds=msg.sec, nanoseconds=msg.nanosec, clock_type=clock_type)
