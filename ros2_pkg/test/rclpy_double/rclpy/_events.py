"""What the middleware tells of a topic's other ends. ``rclpy.event_handler``; on humble ``rclpy.qos_event``."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

from rosidl_double.distro import since

from rclpy._graph import Endpoint, Status
from rclpy._rclpy_pybind11 import UnsupportedEventTypeError
from rclpy.logging import get_logger
from rclpy.qos import qos_policy_name_from_kind, seconds

__all__ = [
    "EventHandler",
    "PublisherEventCallbacks",
    "QoSPublisherEventType",
    "QoSSubscriptionEventType",
    "SubscriptionEventCallbacks",
    "UnsupportedEventTypeError",
]


class QoSPublisherEventType(IntEnum):
    RCL_PUBLISHER_OFFERED_DEADLINE_MISSED = 0
    RCL_PUBLISHER_LIVELINESS_LOST = 1
    RCL_PUBLISHER_OFFERED_INCOMPATIBLE_QOS = 2
    RCL_PUBLISHER_INCOMPATIBLE_TYPE = 3
    RCL_PUBLISHER_MATCHED = 4


class QoSSubscriptionEventType(IntEnum):
    RCL_SUBSCRIPTION_REQUESTED_DEADLINE_MISSED = 0
    RCL_SUBSCRIPTION_LIVELINESS_CHANGED = 1
    RCL_SUBSCRIPTION_REQUESTED_INCOMPATIBLE_QOS = 2
    RCL_SUBSCRIPTION_MESSAGE_LOST = 3
    RCL_SUBSCRIPTION_INCOMPATIBLE_TYPE = 4
    RCL_SUBSCRIPTION_MATCHED = 5


def _total(status: Status) -> dict[str, int]:
    return {"total_count": status.total, "total_count_change": status.change}


_FIELDS: dict[str, Callable[[Status], dict[str, int]]] = {
    "deadline": _total,
    "incompatible_qos": lambda status: _total(status) | {"last_policy_kind": int(status.policy)},
    "matched": lambda status: (
        _total(status) | {"current_count": status.current, "current_count_change": status.current_change}
    ),
    "liveliness": lambda status: {
        "alive_count": status.current,
        "alive_count_change": status.current_change,
        "not_alive_count": 0,
        "not_alive_count_change": 0,
    },
}


class EventHandler:
    """An entity for the executor: ready when its endpoint's counters of one kind of event changed."""

    def __init__(self, callback_group: Any, callback: Callable[[Any], Any], endpoint: Endpoint, kind: str) -> None:
        self.callback_group, self.callback, self._endpoint, self._kind = callback_group, callback, endpoint, kind
        self._status = endpoint.statuses.get(kind)
        self._executor_event = False
        self._limit_s = seconds(endpoint.qos.deadline) if kind == "deadline" else None
        self._missed_ns = 0
        callback_group.add_entity(self)

    def _due_ns(self) -> int | None:
        if self._limit_s is None or self._endpoint.last_ns is None:
            return None
        return max(self._endpoint.last_ns, self._missed_ns) + int(self._limit_s * 1e9)

    def _ready(self) -> bool:
        due = self._due_ns()
        if due is not None and due <= time.monotonic_ns():
            self._missed_ns = due
            self._endpoint.statuses["deadline"].count()
        return self._status is not None and self._status.fresh

    def _take(self) -> Callable[[], Any] | None:
        status = self._status
        if status is None or not status.fresh:
            return None
        found = SimpleNamespace(**_FIELDS[self._kind](status))
        status.change, status.current_change, status.fresh = 0, 0, False
        return lambda: self.callback(found)

    def destroy(self) -> None:
        self._status = None


class _Callbacks:
    def __init__(self, use_default_callbacks: bool, **found: Any) -> None:
        if found.get("matched") is not None and not since("iron"):
            raise TypeError("__init__() got an unexpected keyword argument 'matched'")
        self.use_default_callbacks = use_default_callbacks
        vars(self).update(found)

    def create_event_handlers(self, callback_group: Any, endpoint: Endpoint, topic_name: str) -> list[EventHandler]:
        callbacks = {key: value for key, value in vars(self).items() if callable(value)}
        if self.use_default_callbacks and "incompatible_qos" not in callbacks:
            callbacks["incompatible_qos"] = lambda event: self._warn(endpoint, topic_name, event)
        return [EventHandler(callback_group, callback, endpoint, key) for key, callback in callbacks.items()]

    _words = ("", "", "")

    def _warn(self, endpoint: Endpoint, topic_name: str, event: Any) -> None:
        who, does, what = self._words
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        get_logger(endpoint.node.get_logger().name).warning(
            f"New {who} discovered on topic '{topic_name}', {does} incompatible QoS. No messages will be {what} it. "
            f"Last incompatible policy: {policy}"
        )


class SubscriptionEventCallbacks(_Callbacks):
    _words = ("publisher", "offering", "received from")

    def __init__(
        self,
        *,
        deadline: Callable[[Any], None] | None = None,
        incompatible_qos: Callable[[Any], None] | None = None,
        liveliness: Callable[[Any], None] | None = None,
        message_lost: Callable[[Any], None] | None = None,
        incompatible_type: Callable[[Any], None] | None = None,
        matched: Callable[[Any], None] | None = None,
        use_default_callbacks: bool = True,
    ) -> None:
        _Callbacks.__init__(**locals())


class PublisherEventCallbacks(_Callbacks):
    _words = ("subscription", "requesting", "sent to")

    def __init__(
        self,
        *,
        deadline: Callable[[Any], None] | None = None,
        liveliness: Callable[[Any], None] | None = None,
        incompatible_qos: Callable[[Any], None] | None = None,
        incompatible_type: Callable[[Any], None] | None = None,
        matched: Callable[[Any], None] | None = None,
        use_default_callbacks: bool = True,
    ) -> None:
        _Callbacks.__init__(**locals())
