"""Messages to and from bytes, by the product's own codec (which other tests compare with rosbags and Cyclone DDS)."""

from __future__ import annotations

from typing import Any

from kizzasi_edge.ros2 import cdr
from rosidl_double import store
from rosidl_double.messages import fill, plain


def dumps(message: Any) -> bytes:
    return cdr.dumps(store.structure(message._ros_name), plain(message))


def loads(kind: Any, data: bytes) -> Any:
    """Raises :class:`kizzasi_edge.errors.WireError` for bytes that are not one such message."""
    return fill(kind, cdr.loads(store.structure(kind._ros_name), data))
