"""Which callbacks may run at once."""

from __future__ import annotations

import weakref
from threading import Lock
from typing import Any


class CallbackGroup:
    """Entities of a node, and the rule by which their callbacks run."""

    def __init__(self) -> None:
        self.entities: set[weakref.ReferenceType[Any]] = set()

    def add_entity(self, entity: Any) -> None:
        self.entities.add(weakref.ref(entity))

    def has_entity(self, entity: Any) -> bool:
        return weakref.ref(entity) in self.entities

    def can_execute(self, entity: Any) -> bool:
        raise NotImplementedError

    def beginning_execution(self, entity: Any) -> bool:
        raise NotImplementedError

    def ending_execution(self, entity: Any) -> None:
        raise NotImplementedError


class ReentrantCallbackGroup(CallbackGroup):
    """All at once, each also with itself."""

    def can_execute(self, entity: Any) -> bool:
        return True

    def beginning_execution(self, entity: Any) -> bool:
        return True

    def ending_execution(self, entity: Any) -> None: ...


class MutuallyExclusiveCallbackGroup(CallbackGroup):
    """One at a time."""

    def __init__(self) -> None:
        super().__init__()
        self._active_entity: Any = None
        self._lock = Lock()

    def can_execute(self, entity: Any) -> bool:
        with self._lock:
            return self._active_entity is None

    def beginning_execution(self, entity: Any) -> bool:
        with self._lock:
            if self._active_entity is None:
                self._active_entity = entity
                return True
            return False

    def ending_execution(self, entity: Any) -> None:
        with self._lock:
            self._active_entity = None
