"""XCDR1, the encoding of ROS 2 messages on the wire and in bags: any type to bytes and back.

:func:`parse` finds where everything is. Each length is compared with the bytes that are left before anything is made of
it, so a message costs memory in proportion to its own size, not to what it says. The values follow from there
(:func:`loads`), or a layout to read the next message of the same form at once (:mod:`kizzasi_edge.ros2.codec`).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from kizzasi_edge.errors import WireError
from kizzasi_edge.ros2.structure import Many, Node, Number, Struct, Text

HEADER = 4
"""Bytes of encapsulation header; positions and alignment count from behind it."""

REFUSED = {
    (2, 3): "PL_CDR",
    (6, 7): "XCDR2",
    (8, 9): "XCDR2 (delimited)",
    (10, 11): "XCDR2 (parameter list)",
}


@dataclass(frozen=True, slots=True)
class Span:
    """Where a number is: ``at`` bytes behind the header."""

    code: str
    at: int


@dataclass(frozen=True, slots=True)
class Run:
    """Numbers side by side; its elements are :class:`Span`."""

    code: str
    at: int
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Span:
        return Span(self.code, self.at + index * struct.calcsize(self.code))


@dataclass(frozen=True, slots=True)
class Parsed:
    """A message taken apart.

    Attributes:
        shape: its fields as attributes: Span, Run, str, list, or the same again.
        order: "<" or ">".
        fixed: the stretches (start, end), in bytes behind the header, that hold lengths and texts: where two messages
            have the same bytes there, everything else is in the same places.
    """

    shape: Any
    order: str
    fixed: list[tuple[int, int]]


def parse(node: Struct, data: bytes | bytearray | memoryview) -> Parsed:
    """Take a message apart. Raises :class:`WireError` with the place and what is wrong there."""
    parser = _Parser(node.name, data)
    shape = parser.read(node, "")
    if (left := len(parser.body) - parser.at) > 3:  # padding to four bytes is not counted in
        raise WireError(f"{node.name}: {left} bytes left behind the last field; another version of the type?")
    return Parsed(shape, parser.order, parser.fixed)


def loads(node: Struct, data: bytes | bytearray | memoryview) -> Any:
    """A message as a namespace of its fields: numbers, str, numpy arrays, lists, and the same again.

    Raises :class:`WireError` for anything that is not one whole message of this type.
    """
    parsed = parse(node, data)
    body = memoryview(data)[HEADER:]

    def value(part: Any) -> Any:
        match part:
            case Span():
                return struct.unpack_from(parsed.order + part.code, body, part.at)[0]
            case Run():
                dtype = np.dtype(parsed.order + part.code)
                return np.frombuffer(body, dtype, part.count, part.at).astype(dtype.newbyteorder("="))
            case SimpleNamespace():
                return SimpleNamespace(**{name: value(inner) for name, inner in vars(part).items()})
            case list():
                return [value(inner) for inner in part]
        return part

    return value(parsed.shape)


def dumps(node: Struct, message: Any, order: str = "<") -> bytes:
    """A message, given as a mapping or an object with the fields as attributes; what is missing is zero or empty.

    Raises :class:`WireError` for a value that does not fit its field.
    """
    writer = _Writer(node.name, order)
    writer.write(node, message, "")
    return bytes(writer.out)


@dataclass
class _Parser:
    name: str
    data: bytes | bytearray | memoryview
    at: int = 0
    fixed: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        view = memoryview(self.data)
        if len(view) < HEADER:
            raise WireError(f"{self.name}: found {len(view)} bytes; expected at least the {HEADER} of the header")
        if view[0] or view[1] > 1:
            form = next((text for ids, text in REFUSED.items() if not view[0] and view[1] in ids), "no XCDR1")
            raise WireError(
                f"{self.name}: encapsulation {bytes(view[:2]).hex()} is {form}; expected 0000 or 0001, plain XCDR1"
            )
        self.order = "<" if view[1] else ">"
        self.body = view[HEADER:]
        self._word = struct.Struct(self.order + "I")

    def read(self, node: Node, path: str) -> Any:
        match node:
            case Struct():
                return SimpleNamespace(**{name: self.read(inner, f"{path}.{name}") for name, inner in node.fields})
            case Number():
                return Span(node.code, self._take(node.size, node.size, path))
            case Text():
                return self._text(node, path)
        count = node.bound if node.fixed else self._count(path)
        if not node.fixed and node.bound and count > node.bound:
            raise self._wrong(path, f"{count} elements; expected at most {node.bound}")
        if count * node.item.least > len(self.body) - self.at:
            raise self._wrong(path, f"{count} elements; only {len(self.body) - self.at} bytes are left")
        if isinstance(node.item, Number):
            # A sequence without elements has no padding in front of them.
            at = self._take(count * node.item.size, node.item.size, path) if count else self.at
            return Run(node.item.code, at, count)
        return [self.read(node.item, f"{path}[{i}]") for i in range(count)]

    def _take(self, size: int, align: int, path: str) -> int:
        at = -(-self.at // align) * align
        if at + size > len(self.body):
            raise self._wrong(path, f"the message ends after {len(self.data)} bytes; expected {size} bytes here")
        self.at = at + size
        return at

    def _count(self, path: str) -> int:
        before = self.at
        at = self._take(4, 4, path)
        self._fix(before, at)
        return int(self._word.unpack_from(self.body, at)[0])

    def _text(self, node: Text, path: str) -> str:
        size = self._count(path)
        if size > len(self.body) - self.at:
            raise self._wrong(path, f"a text of {size} bytes; only {len(self.body) - self.at} are left")
        start, self.at = self.at, self.at + size
        self._fix(start, start)
        if not size:  # some writers leave the NUL of an empty text away
            return ""
        if self.body[self.at - 1] or (node.bound and size - 1 > node.bound):
            expected = f"at most {node.bound} bytes" if not self.body[self.at - 1] else "a NUL at its end"
            raise self._wrong(path, f"a text of {size - 1} bytes; expected {expected}")
        try:
            return str(self.body[start : self.at - 1], "utf-8")
        except UnicodeDecodeError as exc:
            raise self._wrong(path, f"a text that is no UTF-8: {exc.reason}") from None

    def _fix(self, before: int, start: int) -> None:
        """What was read from ``start`` is compared from now on; one stretch with what came before it, if that was."""
        if self.fixed and self.fixed[-1][1] == before:
            self.fixed[-1] = (self.fixed[-1][0], self.at)
        else:
            self.fixed.append((start, self.at))

    def _wrong(self, path: str, what: str) -> WireError:
        return WireError(f"{self.name}: {path.lstrip('.')} at byte {HEADER + self.at}: found {what}")


class _Writer:
    def __init__(self, name: str, order: str) -> None:
        self.name, self.order = name, order
        self.out = bytearray((0, order == "<", 0, 0))

    def write(self, node: Node, value: Any, path: str) -> None:
        match node:
            case Struct():
                for name, inner in node.fields:
                    found = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
                    self.write(inner, found, f"{path}.{name}")
            case Number():
                self._pack(node, 0 if value is None else value, path)
            case Text():
                self._text(node, "" if value is None else value, path)
            case Many():
                self._many(node, () if value is None else value, path)

    def _many(self, node: Many, value: Any, path: str) -> None:
        if isinstance(value, str) or not hasattr(value, "__len__"):
            raise self._wrong(path, f"{repr(value)[:60]}; expected a sequence")
        if node.fixed and not len(value):
            value = [None] * node.bound
        if (len(value) != node.bound) if node.fixed else (0 < node.bound < len(value)):
            raise self._wrong(path, f"{len(value)} elements; expected {'' if node.fixed else 'at most '}{node.bound}")
        if not node.fixed:
            self._pack(_COUNT, len(value), path)
        if isinstance(node.item, Number) and isinstance(value, np.ndarray):
            self._align(node.item.size if len(value) else 1)
            try:
                self.out += value.astype(self.order + node.item.code, casting="same_kind").tobytes()
            except TypeError as exc:
                raise self._wrong(path, str(exc)) from None
            return
        for i, item in enumerate(value):
            self.write(node.item, item, f"{path}[{i}]")

    def _text(self, node: Text, value: Any, path: str) -> None:
        raw = value.encode() if isinstance(value, str) else None
        if raw is None or b"\0" in raw or (node.bound and len(raw) > node.bound):
            most = f" of at most {node.bound} bytes" if node.bound else ""
            raise self._wrong(path, f"{repr(value)[:60]}; expected a text without NUL{most}")
        self._pack(_COUNT, len(raw) + 1, path)
        self.out += raw + b"\0"

    def _pack(self, node: Number, value: Any, path: str) -> None:
        self._align(node.size)
        try:
            self.out += struct.pack(self.order + node.code, value)
        except (struct.error, TypeError, OverflowError) as exc:
            raise self._wrong(path, f"{repr(value)[:60]}: {exc}") from None

    def _align(self, size: int) -> None:
        self.out += bytes(-(len(self.out) - HEADER) % size)

    def _wrong(self, path: str, what: str) -> WireError:
        return WireError(f"{self.name}: {path.lstrip('.')}: found {what}")


_COUNT = Number("I", 4, 4)
