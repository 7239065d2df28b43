"""Messages to and from bytes."""

from __future__ import annotations

from typing import Any

from rosidl_double import cdr

from kizzasi_edge.errors import WireError
from rclpy._rclpy_pybind11 import RCLError


def serialize_message(message: Any) -> bytes:
    return cdr.dumps(message)


def deserialize_message(serialized_message: bytes, message_type: Any) -> Any:
    """Raises RCLError for bytes that are no such message."""
    try:
        return cdr.loads(message_type, serialized_message)
    except WireError as exc:
        raise RCLError(f"failed to deserialize ROS message: {exc}") from None
