"""SIGINT and SIGTERM end all contexts; SIGINT then does what it did before, which is KeyboardInterrupt."""

from __future__ import annotations

import signal
import threading
import weakref
from enum import Enum
from typing import Any

from rclpy.context import Context

_contexts: weakref.WeakSet[Context] = weakref.WeakSet()
_before: dict[int, Any] = {}


class SignalHandlerOptions(Enum):
    NO = 0
    SIGINT = 1
    SIGTERM = 2
    ALL = 3


def watch(context: Context) -> None:
    _contexts.add(context)


def _handle(number: int, frame: Any) -> None:
    for context in list(_contexts):
        if context.ok():
            context.interrupt()
    if callable(before := _before.get(number)):
        before(number, frame)


def install_signal_handlers(options: SignalHandlerOptions = SignalHandlerOptions.ALL) -> None:
    """Only where Python lets it: in the main thread."""
    wanted = {
        SignalHandlerOptions.NO: (),
        SignalHandlerOptions.SIGINT: (signal.SIGINT,),
        SignalHandlerOptions.SIGTERM: (signal.SIGTERM,),
        SignalHandlerOptions.ALL: (signal.SIGINT, signal.SIGTERM),
    }[options]
    if threading.current_thread() is threading.main_thread():
        for number in wanted:
            if number not in _before:
                _before[number] = signal.signal(number, _handle)


def uninstall_signal_handlers() -> None:
    if threading.current_thread() is threading.main_thread():
        while _before:
            number, before = _before.popitem()
            signal.signal(number, before)
