"""One transport for all parts of a process that want the same one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any, Generic, Protocol, TypeVar


class Closable(Protocol):
    @property
    def domain(self) -> Any:
        """The settings it was made of."""

    def close(self) -> None: ...


K = TypeVar("K", bound=Hashable)
T = TypeVar("T", bound=Closable)


class Shared(Generic[K, T]):
    """Transports by their settings: the first who asks for one has it made, the last who releases it closes it."""

    def __init__(self, make: Callable[[K], T]) -> None:
        self._make = make
        self._open: dict[K, tuple[T, int]] = {}
        self._lock = threading.Lock()

    def acquire(self, domain: K) -> T:
        """Raises what the making of it raises."""
        with self._lock:
            transport, users = self._open.get(domain) or (self._make(domain), 0)
            self._open[domain] = (transport, users + 1)
            return transport

    def release(self, transport: T) -> None:
        """One user fewer."""
        with self._lock:
            _, users = self._open.pop(transport.domain)
            if users > 1:
                self._open[transport.domain] = (transport, users - 1)
                return
        transport.close()
