"""What a message type is made of, as the codecs need it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from kizzasi_edge.errors import ConfigError
from kizzasi_edge.ros2.transport import MessageType

CODES = {
    "bool": "?",
    "byte": "B",
    "octet": "B",
    "char": "B",
    "uint8": "B",
    "int8": "b",
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "uint64": "Q",
    "float32": "f",
    "float64": "d",
}
"""Number types → their letter in `struct` and numpy."""


@dataclass(frozen=True, slots=True)
class Number:
    """One number of ``size`` bytes; ``code`` as in `struct`."""

    code: str
    size: int
    least: int


@dataclass(frozen=True, slots=True)
class Text:
    """UTF-8 with its NUL counted; ``bound`` bytes at most without it, 0: any."""

    bound: int
    least: int = 4


@dataclass(frozen=True, slots=True)
class Many:
    """A sequence of at most ``bound`` items (0: any), or exactly ``bound`` where it is ``fixed``."""

    item: Node
    bound: int
    fixed: bool
    least: int


@dataclass(frozen=True, slots=True)
class Struct:
    """Fields in order. ``least``, here and above: the fewest bytes that one takes, without padding."""

    name: str
    fields: tuple[tuple[str, Node], ...]
    least: int


Node = Number | Text | Many | Struct


def tree(kind: MessageType) -> Struct:
    """What a type is made of. Raises :class:`ConfigError` for what XCDR1 of ROS 2 has no form for here."""
    return _struct(kind, kind.name)


def _struct(kind: MessageType, name: str) -> Struct:
    # An empty message has one byte on the wire, as IDL allows no empty structure.
    described = kind.fields[name][1] or [("structure_needs_at_least_one_member", (1, ("uint8", 0)))]
    fields = tuple((key, _node(kind, description, key)) for key, description in described)
    return Struct(name, fields, sum(node.least for _, node in fields))


def _node(kind: MessageType, description: Any, key: str) -> Node:
    form, inner = description
    if form == 1:
        name, bound = inner
        if name == "string":
            return Text(bound)
        if name not in CODES:
            raise ConfigError(f"type {kind.name}: field {key!r} is a {name}; expected a number, a bool or a string")
        size = struct.calcsize(CODES[name])
        return Number(CODES[name], size, size)
    if form == 2:
        return _struct(kind, inner)
    item = _node(kind, inner[0], key)
    fixed = form == 3
    return Many(item, inner[1], fixed, item.least * inner[1] if fixed else 4)
