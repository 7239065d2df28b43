"""The default context."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence

from rclpy._arguments import others
from rclpy.context import Context

_lock = threading.Lock()
_default: list[Context] = []


def get_default_context(*, shutting_down: bool = False) -> Context:
    """The one that is used where none is named; ``shutting_down``: the next call makes a new one."""
    with _lock:
        if not _default:
            _default.append(Context())
        return _default.pop() if shutting_down else _default[0]


def remove_ros_args(args: Sequence[str] | None = None) -> list[str]:
    return others(sys.argv if args is None else args)


def ok(*, context: Context | None = None) -> bool:
    return (context or get_default_context()).ok()


def shutdown(*, context: Context | None = None) -> None:
    (context or get_default_context(shutting_down=True)).shutdown()


def try_shutdown(*, context: Context | None = None) -> None:
    if context is not None:
        context.try_shutdown()
    elif _default:
        get_default_context(shutting_down=True).try_shutdown()


def get_rmw_implementation_identifier() -> str:
    return "rmw_double"


def timeout_sec_to_nsec(timeout_sec: float | None) -> int:
    """-1: for ever."""
    return -1 if timeout_sec is None or timeout_sec < 0 else int(timeout_sec * 1_000_000_000)
