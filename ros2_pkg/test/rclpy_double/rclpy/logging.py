"""Loggers: lines on stderr, and /rosout where a node publishes it."""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable
from enum import IntEnum
from typing import Any

RosOut = Callable[[int, str, str, Any], None]


class LoggingSeverity(IntEnum):
    UNSET = 0
    DEBUG = 10
    INFO = 20
    WARN = 30
    ERROR = 40
    FATAL = 50


_levels: dict[str, LoggingSeverity] = {"": LoggingSeverity.INFO}
_outputs: dict[str, RosOut] = {}


class RcutilsLogger:
    """Filters belong to the place of the call: ``once``, ``skip_first``, ``throttle_duration_sec`` (and a
    ``throttle_time_source_type``, a clock). Raises ValueError where one place changes its filters or its severity,
    TypeError for a message that is no str or an argument that is none of these."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self._places: dict[tuple[str, int, int], dict[str, Any]] = {}

    def get_child(self, name: str) -> RcutilsLogger:
        if not name:
            raise ValueError("Child logger name must not be empty.")
        return RcutilsLogger(f"{self.name}.{name}" if self.name else name)

    def set_level(self, level: LoggingSeverity | int) -> None:
        _levels[self.name] = LoggingSeverity(level)

    def get_effective_level(self) -> LoggingSeverity:
        name = self.name
        while name and _levels.get(name, LoggingSeverity.UNSET) == LoggingSeverity.UNSET:
            name = name.rpartition(".")[0]
        return _levels.get(name) or _levels[""]

    def is_enabled_for(self, severity: LoggingSeverity | int) -> bool:
        return severity >= self.get_effective_level()

    def log(self, message: str, severity: LoggingSeverity | int, name: str | None = None, **kwargs: Any) -> bool:
        severity = LoggingSeverity(severity)
        if not isinstance(message, str):
            raise TypeError(f"incompatible function arguments: the message is a {type(message).__name__}, no str")
        unknown = kwargs.keys() - {"once", "skip_first", "throttle_duration_sec", "throttle_time_source_type"}
        if unknown:
            raise TypeError(f"Unexpected keyword arguments: {', '.join(sorted(unknown))}")
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_code.co_filename == __file__:
            frame = frame.f_back
        place = self._place(frame, severity, kwargs)
        if not self.is_enabled_for(severity) or not _passes(place, kwargs):
            return False
        sys.stderr.write(f"[{severity.name}] [{time.time():.9f}] [{name or self.name}]: {message}\n")
        if (output := _output_of(name or self.name)) is not None:
            output(int(severity), name or self.name, message, inspect.getframeinfo(frame, context=0))
        return True

    def debug(self, message: str, **kwargs: Any) -> bool:
        return self.log(message, LoggingSeverity.DEBUG, **kwargs)

    def info(self, message: str, **kwargs: Any) -> bool:
        return self.log(message, LoggingSeverity.INFO, **kwargs)

    def warning(self, message: str, **kwargs: Any) -> bool:
        return self.log(message, LoggingSeverity.WARN, **kwargs)

    def warn(self, message: str, **kwargs: Any) -> bool:
        return self.log(message, LoggingSeverity.WARN, **kwargs)

    def error(self, message: str, **kwargs: Any) -> bool:
        return self.log(message, LoggingSeverity.ERROR, **kwargs)

    def fatal(self, message: str, **kwargs: Any) -> bool:
        return self.log(message, LoggingSeverity.FATAL, **kwargs)

    def _place(self, frame: Any, severity: LoggingSeverity, kwargs: dict[str, Any]) -> dict[str, Any]:
        """What is remembered of the place of a call."""
        if "throttle_time_source_type" in kwargs and not kwargs.get("throttle_duration_sec"):
            raise TypeError('required parameter "throttle_duration_sec" not specified')
        key = (frame.f_code.co_filename, frame.f_lineno, frame.f_lasti)
        place = self._places.setdefault(key, {"severity": severity, "asked": kwargs, "calls": 0, "last": None})
        if place["severity"] != severity:
            raise ValueError("Logger severity cannot be changed between calls.")
        if place["asked"] != kwargs:
            raise ValueError("Requested logging filters cannot be changed between calls.")
        return place


def _passes(place: dict[str, Any], kwargs: dict[str, Any]) -> bool:
    if duration := kwargs.get("throttle_duration_sec"):
        clock = kwargs.get("throttle_time_source_type")
        now = clock.now().nanoseconds if hasattr(clock, "now") else time.monotonic_ns()
        if place["last"] is not None and now < place["last"] + duration * 1e9:
            return False
        place["last"] = now
    place["calls"] += 1
    return not (kwargs.get("skip_first") and place["calls"] == 1) and not (kwargs.get("once") and place["calls"] > 1)


_root = RcutilsLogger()


def get_logger(name: str) -> RcutilsLogger:
    if not name:
        raise ValueError("Logger name must not be empty.")
    return RcutilsLogger(name)


def set_logger_level(name: str, level: LoggingSeverity | int, detailed_error: bool = False) -> None:
    _levels[name] = LoggingSeverity(level)


def get_logger_effective_level(name: str) -> LoggingSeverity:
    return RcutilsLogger(name).get_effective_level()


def connect(name: str, output: RosOut | None) -> None:
    """Where the lines of a node's logger go besides stderr."""
    if output is None:
        _outputs.pop(name, None)
    else:
        _outputs[name] = output


def _output_of(name: str) -> RosOut | None:
    """The node's own logger, or the nearest above it."""
    while name and name not in _outputs:
        name = name.rpartition(".")[0]
    return _outputs.get(name)
