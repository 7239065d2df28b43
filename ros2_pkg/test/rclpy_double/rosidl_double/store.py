"""The types known, by ROS name: those of the product's typestore, and the services' messages."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from kizzasi_edge.ros2.messages import Messages, message_type
from kizzasi_edge.ros2.structure import Struct, tree
from kizzasi_edge.ros2.transport import MessageType
from rosidl_double.definitions import SERVICES


@cache
def _store() -> Any:
    from rosbags.typesys import get_types_from_msg

    store = Messages().store
    for name, text in SERVICES.items():
        for half, part in zip(("Request", "Response"), text.split("---"), strict=True):
            named = get_types_from_msg(part, f"{name}_{half}".replace("/srv/", "/msg/"))
            store.register({f"{name}_{half}": fields for fields in named.values()})
    return store


def fields(name: str) -> Mapping[str, Any]:
    """Field → rosbags' description of its type."""
    return {key: kind for key, kind in _store().fielddefs[name][1] if key != "structure_needs_at_least_one_member"}


def constants(name: str) -> list[tuple[str, str, Any]]:
    """(name, type, value) of each constant."""
    return list(_store().fielddefs[name][0])


def names() -> list[str]:
    """All messages."""
    return list(_store().fielddefs)


@cache
def kind(name: str) -> MessageType:
    return message_type(_store(), name)


@cache
def structure(name: str) -> Struct:
    """What the codec reads and writes."""
    return tree(kind(name))
