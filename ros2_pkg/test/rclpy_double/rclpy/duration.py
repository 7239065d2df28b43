"""A span of time, int nanoseconds."""

from __future__ import annotations

from functools import total_ordering
from typing import Any

import builtin_interfaces.msg

_LIMIT = 2**63


@total_ordering
class Duration:
    """``seconds`` and ``nanoseconds`` add up. Raises OverflowError beyond 64 bits."""

    def __init__(self, *, seconds: float = 0, nanoseconds: int = 0) -> None:
        total = int(seconds * 1_000_000_000) + int(nanoseconds)
        if not -_LIMIT <= total < _LIMIT:
            raise OverflowError("Total nanoseconds value is too large to store in C duration.")
        self.nanoseconds = total

    def __repr__(self) -> str:
        return f"Duration(nanoseconds={self.nanoseconds})"

    def __eq__(self, other: object) -> bool:
        return self.nanoseconds == other.nanoseconds if isinstance(other, Duration) else NotImplemented

    def __lt__(self, other: object) -> bool:
        return self.nanoseconds < other.nanoseconds if isinstance(other, Duration) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.nanoseconds)

    def to_msg(self) -> Any:
        sec, nanosec = divmod(self.nanoseconds, 1_000_000_000)
        return builtin_interfaces.msg.Duration(sec=sec, nanosec=nanosec)

    @classmethod
    def from_msg(cls, msg: Any) -> Duration:
        if not isinstance(msg, builtin_interfaces.msg.Duration):
            raise TypeError("Must pass a builtin_interfaces.msg.Duration object")
        return cls(seconds=msg.sec, nanoseconds=msg.nanosec)


Infinite = Duration(nanoseconds=_LIMIT - 1)
