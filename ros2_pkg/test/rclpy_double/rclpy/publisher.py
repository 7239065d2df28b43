"""Publishers."""

from __future__ import annotations

from typing import Any

from rosidl_double import cdr
from rosidl_double.distro import since

from rclpy._graph import Writer
from rclpy._rclpy_pybind11 import RCLError


class Publisher:
    """Made by :meth:`Node.create_publisher`."""

    def __init__(
        self,
        publisher_impl: Writer,
        msg_type: type,
        topic: str,
        qos_profile: Any,
        event_callbacks: Any,
        callback_group: Any,
    ) -> None:
        self._writer, self.msg_type, self.topic, self.qos_profile = publisher_impl, msg_type, topic, qos_profile
        self.event_handlers = event_callbacks.create_event_handlers(callback_group, publisher_impl, topic)

    def publish(self, msg: Any) -> None:
        """A message, or ``bytes`` that are one already. Raises TypeError for anything else, InvalidHandle after
        destruction, RCLError after the context's end."""
        with self.handle:
            if isinstance(msg, self.msg_type):
                data = cdr.dumps(msg)
            elif isinstance(msg, bytes):
                data = msg
            else:
                raise TypeError(f"Expected {self.msg_type}, got {type(msg)}")
            if not self._writer.node.context.ok():
                raise RCLError("Failed to publish: publisher's context is invalid")
            self._writer.write(data)

    def get_subscription_count(self) -> int:
        with self.handle:
            return len(self._writer.readers)

    @property
    def topic_name(self) -> str:
        with self.handle:
            return self._writer.name

    @property
    def handle(self) -> Writer:
        return self._writer

    @property
    def logger_name(self) -> str:
        return self._writer.node.get_logger().name

    def assert_liveliness(self) -> None:
        with self.handle:
            pass

    def wait_for_all_acked(self, timeout: Any = None) -> bool:
        with self.handle:
            return True

    def destroy(self) -> None:
        for handler in self.event_handlers:
            handler.destroy()
        self._writer.destroy_when_not_in_use()

    if since("kilted"):

        def __enter__(self) -> Publisher:
            return self

        def __exit__(self, *exc: object) -> None:
            self.destroy()
