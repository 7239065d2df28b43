"""Cyclone DDS's own serialiser (cyclonedds.idl) for any of our messages."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from cyclonedds.idl import IdlStruct, make_idl_struct, types
from cyclonedds.idl._support import Endianness
from messages_in_use import KNOWN

_BASE = {"bool": bool, "byte": types.uint8, "char": types.uint8, "string": str}


@cache
def idl_class(name: str) -> Any:
    """The IdlStruct of a type."""

    def member(description: Any) -> Any:
        form, inner = description
        if form == 1:
            return _BASE.get(inner[0]) or getattr(types, inner[0])
        if form == 2:
            return idl_class(inner)
        item = member(inner[0])
        return types.array[item, inner[1]] if form == 3 else types.sequence[item]

    fields = {key: member(description) for key, description in KNOWN.store.fielddefs[name][1]}
    package, kind, short = name.split("/")
    return make_idl_struct(short, f"{package}.{kind}.dds_.{short}_", fields)


def for_cyclone(name: str, value: Mapping[str, Any]) -> IdlStruct:
    """Cyclone's object of a message."""

    def convert(description: Any, given: Any) -> Any:
        form, inner = description
        if form == 2:
            return for_cyclone(inner, given)
        return given if form == 1 else [convert(inner[0], one) for one in given]

    fields = KNOWN.store.fielddefs[name][1]
    return idl_class(name)(**{key: convert(description, value[key]) for key, description in fields})  # type: ignore[no-any-return]


def serialize(name: str, value: Mapping[str, Any], order: str) -> bytes:
    endian = Endianness.Little if order == "<" else Endianness.Big
    return bytes(for_cyclone(name, value).serialize(endianness=endian, use_version_2=False))


def deserialize(name: str, data: bytes) -> Any:
    return idl_class(name).deserialize(data)
