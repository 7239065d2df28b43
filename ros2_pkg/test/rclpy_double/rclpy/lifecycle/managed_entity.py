"""What follows a node's lifecycle."""

from __future__ import annotations

import functools
from collections.abc import Callable
from enum import Enum
from typing import Any


class TransitionCallbackReturn(Enum):
    """What a transition's callback says of it."""

    SUCCESS = 97
    FAILURE = 98
    ERROR = 99

    def to_label(self) -> str:
        return f"transition_{self.name.lower()}"


class ManagedEntity:
    """Does nothing at any transition."""

    def on_configure(self, state: Any) -> TransitionCallbackReturn:
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: Any) -> TransitionCallbackReturn:
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: Any) -> TransitionCallbackReturn:
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: Any) -> TransitionCallbackReturn:
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: Any) -> TransitionCallbackReturn:
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: Any) -> TransitionCallbackReturn:
        return TransitionCallbackReturn.SUCCESS


class SimpleManagedEntity(ManagedEntity):
    """Knows whether it is active. Only activate and deactivate change that: an error or a shutdown does not."""

    def __init__(self) -> None:
        self._enabled = False

    def on_activate(self, state: Any) -> TransitionCallbackReturn:
        self._enabled = True
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: Any) -> TransitionCallbackReturn:
        self._enabled = False
        return TransitionCallbackReturn.SUCCESS

    @property
    def is_activated(self) -> bool:
        return self._enabled

    @staticmethod
    def when_enabled(
        wrapped: Callable[..., None] | None = None, *, when_not_enabled: Callable[[], None] | None = None
    ) -> Callable[..., Any]:
        """A method that does nothing, or calls ``when_not_enabled``, while its object is not active."""

        def decorate(method: Callable[..., None]) -> Callable[..., None]:
            @functools.wraps(method)
            def only_when_enabled(self: SimpleManagedEntity, *args: Any, **kwargs: Any) -> None:
                if self._enabled:
                    method(self, *args, **kwargs)
                elif when_not_enabled is not None:
                    when_not_enabled()

            return only_when_enabled

        return decorate if wrapped is None else decorate(wrapped)
