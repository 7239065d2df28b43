"""DDS types that carry ready CDR bytes. Cyclone compares types by structure (XTypes) and checks every message against
it, so the structure has to be the real one; building it from the message's definition covers custom types too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cyclonedds.idl import IdlStruct, make_idl_struct
from cyclonedds.idl import types as idl
from rosbags.interfaces import Nodetype

from kizzasi_edge.errors import ConfigError
from kizzasi_edge.ros2.names import dds_type
from kizzasi_edge.ros2.transport import MessageType

SCALARS: dict[str, Any] = {
    "bool": bool,
    "byte": idl.uint8,  # these three are one type on the wire, as rmw_cyclonedds_cpp has them
    "octet": idl.uint8,
    "char": idl.uint8,
    "uint8": idl.uint8,
    "int8": idl.int8,
    "int16": idl.int16,
    "uint16": idl.uint16,
    "int32": idl.int32,
    "uint32": idl.uint32,
    "int64": idl.int64,
    "uint64": idl.uint64,
    "float32": idl.float32,
    "float64": idl.float64,
}


_carriers: dict[tuple[str, str], type[IdlStruct]] = {}
"""Each structure once: Cyclone's Python types all have one hash value, and its table of types loops for ever when it
has to hold more than some 30 of those."""


def carrier(kind: MessageType) -> type[IdlStruct]:
    """A DDS type of this structure whose samples are bytes: ``carrier(kind)(cdr)`` is written as it is, and what is
    read has them in ``.cdr``. Raises :class:`ConfigError` for a type DDS cannot carry."""
    key = kind.name, repr(kind.fields)
    if key not in _carriers:
        _carriers[key] = _make(_struct(kind.name, kind.fields, {}))
    return _carriers[key]


def _make(made: Any) -> type[IdlStruct]:
    class Carrier(made):  # type: ignore[misc]
        def __init__(self, cdr: bytes) -> None:
            self.cdr = cdr

        def serialize(self, *_: object, **__: object) -> bytes:
            return self.cdr

        @classmethod
        def deserialize(cls, data: bytes, *_: object, **__: object) -> Any:
            return cls(data)

        deserialize_key = deserialize

    # The description stays the bare struct's: a subclass would get one of its own, with a base type ROS does not have.
    Carrier.__idl__ = made.__idl__
    Carrier.__idl_typename__ = made.__idl_typename__
    return Carrier


def _struct(name: str, fields: Mapping[str, Any], done: dict[str, type[IdlStruct]]) -> type[IdlStruct]:
    if name not in done:
        if name not in fields:
            raise ConfigError(f"type: found {name!r}; expected a message type whose definition is known")
        members = {member: _member(name, member, node, fields, done) for member, node in fields[name][1]}
        typename = dds_type(name).replace("::", ".")
        done[name] = make_idl_struct(name.rpartition("/")[2], typename, members, dataclassify=False)
    return done[name]


def _member(owner: str, member: str, node: Any, fields: Mapping[str, Any], done: dict[str, type[IdlStruct]]) -> Any:
    """One member's type from rosbags' description of it: (kind, details)."""
    what, details = node
    if what is Nodetype.NAME:
        return _struct(details, fields, done)
    if what is Nodetype.BASE:
        name, bound = details
        if name == "string":
            return idl.bounded_str[bound] if bound else str
        if name not in SCALARS:
            raise ConfigError(f"type: {owner} {member}: found {name!r}; expected one of {[*SCALARS, 'string']}")
        return SCALARS[name]
    inner, count = details
    element = _member(owner, member, inner, fields, done)
    if what is Nodetype.ARRAY:
        return idl.array[element, count]
    return idl.sequence[element, count] if count else idl.sequence[element]
