"""One field of a message class: its default, and what may be assigned to it, as rosidl's generated Python has it."""

from __future__ import annotations

import array
import math
from collections import UserList, UserString
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

INTEGERS = {f"{sign}int{bits}": (sign, bits) for bits in (8, 16, 32, 64) for sign in ("", "u")}
TYPECODES = dict(
    zip(
        ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64", "char"),
        "bBhHiIqQfdB",
        strict=True,
    )
)
_IDL = {"float32": "float", "float64": "double", "byte": "octet", "octet": "octet", "char": "uint8", "bool": "boolean"}
_FLOAT32 = 3.402823466e38


@dataclass(frozen=True)
class Field:
    """``text``: the type as ``get_fields_and_field_types`` says it. ``default()`` makes a fresh value; ``check(value)``
    gives what is stored, and raises AssertionError for what does not fit."""

    text: str
    default: Callable[[], Any]
    check: Callable[[Any], Any]


def field(name: str, description: Any, message: Callable[[str], type]) -> Field:
    """A field from rosbags' description; ``message`` gives the class of a nested type."""
    form, inner = description
    if form == 1:
        return _base(name, *inner)
    if form == 2:
        return _nested(name, inner, message)
    item, bound = inner
    return _many(name, item, bound, form == 3, message)


def _base(name: str, base: str, bound: int) -> Field:
    if base == "string":

        def text(value: Any) -> Any:
            assert isinstance(value, str), f"The {name!r} field must be of type 'str'"
            assert not bound or len(value) <= bound, f"The {name!r} field must be string value not longer than {bound}"
            return value

        return Field(f"string<{bound}>" if bound else "string", str, text)
    if base == "bool":
        return Field("boolean", bool, _of(name, bool))
    if base in ("byte", "octet"):

        def octet(value: Any) -> Any:
            assert isinstance(value, (bytes, bytearray)), f"The {name!r} field must be of type 'bytes'"
            assert len(value) == 1, f"The {name!r} field must have a length of 1"
            return value

        return Field("octet", lambda: bytes(1), octet)
    if base in ("float32", "float64"):
        check = _of(name, float)

        def number(value: Any) -> Any:
            check(value)
            fits = base == "float64" or not math.isfinite(value) or abs(value) <= _FLOAT32
            assert fits, f"The {name!r} field must be a float in [-{_FLOAT32}, {_FLOAT32}]"
            return value

        return Field(_IDL[base], float, number)
    least, most = _range(base)

    def integer(value: Any) -> Any:
        assert isinstance(value, int), f"The {name!r} field must be of type 'int'"
        assert least <= value <= most, f"The {name!r} field must be an integer in [{least}, {most}]"
        return value

    return Field(_IDL.get(base, base), int, integer)


def _range(base: str) -> tuple[int, int]:
    sign, bits = INTEGERS["uint8" if base == "char" else base]
    return (0, 2**bits - 1) if sign else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _of(name: str, kind: type) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        assert isinstance(value, kind), f"The {name!r} field must be of type '{kind.__name__}'"
        return value

    return check


def _nested(name: str, inner: str, message: Callable[[str], type]) -> Field:
    package, _, short = inner.split("/")

    def check(value: Any) -> Any:
        assert isinstance(value, message(inner)), f"The {name!r} field must be a sub message of type {short!r}"
        return value

    return Field(f"{package}/{short}", lambda: message(inner)(), check)


def _many(name: str, item: Any, bound: int, fixed: bool, message: Callable[[str], type]) -> Field:
    element = field(name, item, message)
    code = TYPECODES.get(item[1][0]) if item[0] == 1 else None
    text = f"{element.text}[{bound}]" if fixed else f"sequence<{element.text}{f', {bound}' if bound else ''}>"

    def elements(value: Any) -> None:
        plain = isinstance(value, (Sequence, Set, UserList)) and not isinstance(value, (str, UserString))
        assert plain, f"The {name!r} field must be a set or sequence"
        assert not fixed or len(value) == bound, f"The {name!r} field must have {bound} elements"
        assert fixed or not bound or len(value) <= bound, f"The {name!r} field must have at most {bound} elements"
        for each in value:
            element.check(each)

    if code and fixed:
        dtype = np.dtype(code)

        def matrix(value: Any) -> Any:
            if isinstance(value, np.ndarray):
                assert value.dtype == dtype, f"The {name!r} numpy.ndarray() must have the dtype of '{dtype}'"
                assert value.size == bound, f"The {name!r} numpy.ndarray() must have a size of {bound}"
                return value
            elements(value)
            return np.array(value, dtype)

        return Field(text, lambda: np.zeros(bound, dtype), matrix)
    if code:

        def sequence(value: Any) -> Any:
            if isinstance(value, array.array):
                assert value.typecode == code, f"The {name!r} array.array() must have the type code of {code!r}"
                assert not bound or len(value) <= bound, f"The {name!r} array.array() must have a size <= {bound}"
                return value
            elements(value)
            return array.array(code, value)

        return Field(text, lambda: array.array(code), sequence)

    def objects(value: Any) -> Any:
        elements(value)
        return value

    return Field(text, lambda: [element.default() for _ in range(bound if fixed else 0)], objects)
