"""A double of rclpy, for tests where ROS is not installed: one process, real threads, real bytes.

A program written for rclpy runs on it unchanged. What it leaves out (actions, simulated time, content filters,
loaned messages, type descriptions) is not there at all, so that using it fails. The distributions' differences are
listed, and chosen, in :mod:`rosidl_double.distro`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rosidl_double.distro import since

from rclpy import signals as _signals
from rclpy.context import Context
from rclpy.executors import Executor, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from rclpy.utilities import get_default_context, get_rmw_implementation_identifier, ok
from rclpy.utilities import shutdown as _shutdown
from rclpy.utilities import try_shutdown as _try_shutdown

__all__ = [
    "Context",
    "Future",
    "Node",
    "Parameter",
    "create_node",
    "get_default_context",
    "get_global_executor",
    "get_rmw_implementation_identifier",
    "init",
    "ok",
    "shutdown",
    "spin",
    "spin_once",
    "spin_until_future_complete",
    "try_shutdown",
]

_executors: list[Executor] = []


class InitContextManager:
    """``with rclpy.init():`` shuts down at its end."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def __enter__(self) -> InitContextManager:
        return self

    def __exit__(self, *exc: object) -> None:
        try_shutdown(context=None if self.context is get_default_context() else self.context)


def init(
    *,
    args: Sequence[str] | None = None,
    context: Context | None = None,
    domain_id: int | None = None,
    signal_handler_options: SignalHandlerOptions | None = None,
) -> InitContextManager | None:
    """``args`` None: the program's. Signals are handled for the default context only, if not said otherwise."""
    chosen = get_default_context() if context is None else context
    if signal_handler_options is None:
        signal_handler_options = SignalHandlerOptions.ALL if context is None else SignalHandlerOptions.NO
    chosen.init(args, domain_id=domain_id)
    _signals.watch(chosen)
    _signals.install_signal_handlers(signal_handler_options)
    return InitContextManager(chosen) if since("kilted") else None


def get_global_executor() -> Executor:
    if not _executors:
        _executors.append(SingleThreadedExecutor())
        get_default_context().on_shutdown(_forget_executor)
    return _executors[0]


def _forget_executor() -> None:
    for executor in _executors:
        executor.wake()
    _executors.clear()


def shutdown(*, context: Context | None = None, uninstall_handlers: bool | None = None) -> None:
    """Raises RuntimeError where there is nothing to shut down, RCLError where that was done."""
    _shutdown(context=context)
    if uninstall_handlers or (uninstall_handlers is None and context is None):
        _signals.uninstall_signal_handlers()


def try_shutdown(*, context: Context | None = None, uninstall_handlers: bool | None = None) -> None:
    """As shutdown(), but never raises."""
    _try_shutdown(context=context)
    if uninstall_handlers or (uninstall_handlers is None and context is None):
        _signals.uninstall_signal_handlers()


def create_node(node_name: str, **options: Any) -> Node:
    return Node(node_name, **options)


@contextmanager
def _attached(node: Node, executor: Executor | None) -> Iterator[Executor]:
    """The node belongs to the executor meanwhile, and goes on to if it did before."""
    chosen = executor or get_global_executor()
    added = chosen.add_node(node)
    try:
        yield chosen
    finally:
        if added:
            chosen.remove_node(node)


def spin_once(node: Node, *, executor: Executor | None = None, timeout_sec: float | None = None) -> None:
    with _attached(node, executor) as chosen:
        chosen.spin_once(timeout_sec=timeout_sec)


def spin(node: Node, executor: Executor | None = None) -> None:
    with _attached(node, executor) as chosen:
        while chosen.context.ok():
            chosen.spin_once()


def spin_until_future_complete(
    node: Node, future: Future, executor: Executor | None = None, timeout_sec: float | None = None
) -> None:
    with _attached(node, executor) as chosen:
        chosen.spin_until_future_complete(future, timeout_sec)
