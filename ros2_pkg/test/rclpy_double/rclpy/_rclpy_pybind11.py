"""Errors that rclpy's C++ part raises; nodes import them from here."""

from __future__ import annotations


class RCLError(RuntimeError):
    """rcl refused."""


class RCLInvalidROSArgsError(RCLError):
    """A ROS argument has not its form."""


class UnknownROSArgsError(RCLError):
    """There is no such ROS argument."""


class NodeNameNonExistentError(RCLError):
    """No node of this name."""


class UnsupportedEventTypeError(RCLError):
    """The middleware has no such event."""


class InvalidHandle(RuntimeError):
    """What was used has been destroyed."""

    def __init__(self) -> None:
        super().__init__("cannot use Destroyable because destruction was requested")


class Destroyable:
    """What other objects hold of an endpoint, a node or a context: used within ``with``, which fails afterwards."""

    _destroyed = False

    def __enter__(self) -> None:
        if self._destroyed:
            raise InvalidHandle

    def __exit__(self, *exc: object) -> None: ...

    def destroy_when_not_in_use(self) -> None:
        self._destroyed = True
