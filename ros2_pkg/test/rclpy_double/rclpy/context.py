"""One init … shutdown: the arguments, and who wants to know of its end."""

from __future__ import annotations

import inspect
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from rosidl_double.distro import since

from rclpy import _arguments
from rclpy._graph import domain
from rclpy._rclpy_pybind11 import Destroyable, RCLError


class Context:
    """Not to be used again after its shutdown."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._handle: Destroyable | None = None
        self._ok = False
        self._callbacks: list[Callable[[], Any]] = []
        self._nodes: list[Any] = []
        self.arguments = _arguments.Arguments()
        self._domain_id = 0

    @property
    def handle(self) -> Destroyable | None:
        return self._handle

    def init(
        self, args: Sequence[str] | None = None, *, initialize_logging: bool = True, domain_id: int | None = None
    ) -> None:
        """Raises RuntimeError the second time, and for a negative domain."""
        with self._lock:
            if domain_id is not None and domain_id < 0:
                raise RuntimeError(f"Domain id ({domain_id}) should not be lower than zero.")
            if self._handle is not None:
                raise RuntimeError("Context.init() must only be called once")
            self.arguments = _arguments.parse(sys.argv if args is None else args)
            self._domain_id = domain_id or 0
            self._handle, self._ok = Destroyable(), True
            domain(self._domain_id).forget_the_ended()

    def ok(self) -> bool:
        return self._ok

    def get_domain_id(self) -> int:
        if self._handle is None:
            raise RuntimeError("Context must be initialized before it can have a domain id")
        return self._domain_id

    def track_node(self, node: Any) -> None:
        self._nodes.append(weakref.ref(node))

    def untrack_node(self, node: Any) -> None:
        self._nodes = [each for each in self._nodes if each() is not node]

    def on_shutdown(self, callback: Callable[[], Any]) -> None:
        """Called at shutdown, or now where that was. Methods do not keep their object."""
        if not callable(callback):
            raise TypeError("callback should be a callable, got {}", type(callback))
        with self._lock:
            if self._handle is not None and not self._ok:
                callback()
            else:
                bound = inspect.ismethod(callback)
                self._callbacks.append(weakref.WeakMethod(callback) if bound else lambda: callback)

    def shutdown(self) -> None:
        """Raises RuntimeError before init(), RCLError after a shutdown (a signal's, too)."""
        if self._handle is None:
            raise RuntimeError("Context must be initialized before it can be shutdown")
        with self._lock:
            if not self._ok:
                raise RCLError("failed to shutdown: rcl_shutdown already called on the given context")
            self._end()

    def try_shutdown(self) -> None:
        with self._lock:
            if self._ok:
                self._end()

    def interrupt(self) -> None:
        """What a signal does: no longer ok; the nodes stay."""
        self._ok = False
        self._tell()

    def _end(self) -> None:
        if since("kilted"):
            for reference in self._nodes:
                if (node := reference()) is not None:
                    node.destroy_node()
        self._ok = False
        self._tell()

    def _tell(self) -> None:
        callbacks, self._callbacks = self._callbacks, []
        for reference in callbacks:
            if (callback := reference()) is not None:
                callback()

    def __enter__(self) -> Context:
        if self._handle is None:
            raise RuntimeError("init() must be called on this Context before using it with a context manager")
        return self

    def __exit__(self, *exc: object) -> None:
        self.try_shutdown()
