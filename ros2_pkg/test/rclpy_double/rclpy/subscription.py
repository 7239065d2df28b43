"""Subscriptions."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import Enum
from typing import Any

from rosidl_double import cdr
from rosidl_double.distro import since

from kizzasi_edge.errors import WireError
from rclpy._graph import Reader
from rclpy._rclpy_pybind11 import RCLError

MessageInfo = dict[str, Any]


class Subscription:
    """Made by :meth:`Node.create_subscription`."""

    class CallbackType(Enum):
        MessageOnly = 0
        WithMessageInfo = 1

    def __init__(
        self,
        subscription_impl: Reader,
        msg_type: type,
        topic: str,
        callback: Callable[..., Any],
        callback_group: Any,
        qos_profile: Any,
        raw: bool,
        event_callbacks: Any,
    ) -> None:
        self._reader, self.msg_type, self.topic, self.raw = subscription_impl, msg_type, topic, raw
        self.callback, self.callback_group, self.qos_profile = callback, callback_group, qos_profile
        self._executor_event = False
        self.event_handlers = event_callbacks.create_event_handlers(callback_group, subscription_impl, topic)

    @property
    def callback(self) -> Callable[..., Any]:
        return self._callback

    @callback.setter
    def callback(self, value: Callable[..., Any]) -> None:
        """Of one argument, or two: the message, and ``message_info``. Raises RuntimeError otherwise. On humble it is
        always called with one."""
        self._callback, self._callback_type = value, self.CallbackType.MessageOnly
        if not since("iron"):
            return
        signature = inspect.signature(value)
        for kind, arguments in zip(self.CallbackType, ((0,), (0, 0)), strict=True):
            try:
                signature.bind(*arguments)
            except TypeError:
                continue
            self._callback_type = kind
            return
        raise RuntimeError(
            "Subscription.__init__(): callback should be either be callable with one argument"
            "(to get only the message) or two (to get message and message info)"
        )

    if since("iron"):

        def get_publisher_count(self) -> int:
            with self.handle:
                return len(self._reader.writers)

    @property
    def handle(self) -> Reader:
        return self._reader

    @property
    def topic_name(self) -> str:
        with self.handle:
            return self._reader.name

    @property
    def logger_name(self) -> str:
        return self._reader.node.get_logger().name

    def destroy(self) -> None:
        for handler in self.event_handlers:
            handler.destroy()
        self._reader.destroy_when_not_in_use()

    def _due_ns(self) -> None:
        return None

    def _ready(self) -> bool:
        return bool(self._reader.queue)

    def _take(self) -> Callable[[], Any] | None:
        try:
            data, info = self._reader.queue.popleft()
        except IndexError:
            return None
        try:
            message = data if self.raw else cdr.loads(self.msg_type, data)
        except WireError as exc:
            raise RCLError(f"failed to take message from subscription: {exc}") from None
        if self._callback_type is self.CallbackType.MessageOnly:
            return lambda: self._callback(message)
        return lambda: self._callback(message, info)

    if since("kilted"):

        def __enter__(self) -> Subscription:
            return self

        def __exit__(self, *exc: object) -> None:
            self.destroy()
