"""The quick way between CDR bytes and numbers with names.

Messages of one topic hardly ever change their form: the same joints in the same order, the same number of elements. A
layout remembers where the numbers are for one form and which bytes (lengths, names) mark it. A message that has the
same bytes there is read by one gather; any other one is parsed, and its form remembered.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kizzasi_edge.errors import ConfigError, WireError
from kizzasi_edge.frames import Observation
from kizzasi_edge.ros2.cdr import HEADER, Parsed, Span, dumps, parse
from kizzasi_edge.ros2.channels import Channel
from kizzasi_edge.ros2.offers import offers, require_joints, require_number
from kizzasi_edge.ros2.structure import Struct, tree
from kizzasi_edge.ros2.transport import MessageType

Buffer = bytes | bytearray | memoryview
Floats = npt.NDArray[np.float64]

REMEMBERED = 8
"""Forms of one topic's messages: several publishers, or padding that a writer leaves as it was."""

STAMP = "std_msgs/msg/Header"
"""Where a type begins with it, its first eight bytes are when the message was made."""


class Sample(NamedTuple):
    """One message as numbers.

    Attributes:
        recv_ns: monotonic receive time, ns.
        stamp_ns: the publisher's own stamp (``header.stamp``: ROS time, another clock), ns; 0 without a header.
        names: what each value is.
        values: float64 (n,), in the message's units. NaN and ±inf pass as they are: who uses them must refuse them.
        valid: bool (n,), read-only; False where this message has no such number (its value is NaN).
    """

    recv_ns: int
    stamp_ns: int
    names: tuple[str, ...]
    values: Floats
    valid: npt.NDArray[np.bool_]

    def observation(self, seq: int) -> Observation:
        """As a connector hands it on: float32; what is too large for that is ±inf."""
        with np.errstate(over="ignore", invalid="ignore"):
            values = self.values.astype(np.float32)
        return Observation(self.recv_ns, seq, self.names, values, self.valid)


class Decoder:
    """Reads the messages of one topic; for one thread.

    ``channels`` are the numbers wanted, by our name; without them the first message tells, and ``names`` is empty until
    then. Afterwards names stay as they are, whatever order, joints or lengths later messages have. ``rename``: our name
    of a joint → the messages'.

    Raises :class:`ConfigError` for a channel that the type cannot hold.
    """

    def __init__(
        self,
        kind: MessageType,
        topic: str,
        channels: Mapping[str, Channel] | None = None,
        rename: Mapping[str, str] | None = None,
    ) -> None:
        self.kind, self.topic = kind, topic
        self._ours = {theirs: ours for ours, theirs in (rename or {}).items()}
        self.channels = dict(channels or {})
        self.names = tuple(self.channels)
        self.parsed = 0
        """Messages whose form was not known: more than a few say that the publisher changes it all the time."""
        self._tree = tree(kind)
        for name, channel in self.channels.items():
            require_number(self._tree, channel, f"channel {name!r}")
        self._stamped = _is_stamped(self._tree)
        self._latest: _Layout | None = None
        self._layouts: list[_Layout] = []

    def decode(self, data: Buffer, recv_ns: int = 0) -> Sample:
        """One message. Raises :class:`WireError` for anything but a whole message of this type; memory in proportion to
        ``data``."""
        layout = self._latest
        if layout is None or len(data) != layout.size or layout.marks(data) != layout.expected:
            layout = self._other(data)
        stamp_ns = 0
        if self._stamped:
            sec, nanosec = layout.stamp(data, HEADER)
            stamp_ns = sec * 1_000_000_000 + nanosec
        return Sample(recv_ns, stamp_ns, self.names, layout.gather(data), layout.valid)

    def _other(self, data: Buffer) -> _Layout:
        """The layout of a message that is not like the last one."""
        for layout in self._layouts:
            if len(data) == layout.size and layout.marks(data) == layout.expected:
                self._layouts.remove(layout)
                break
        else:
            layout = self._learn(data)
        self._layouts = [layout, *self._layouts[: REMEMBERED - 1]]
        self._latest = layout
        return layout

    def _learn(self, data: Buffer) -> _Layout:
        self.parsed += 1
        parsed = parse(self._tree, data)
        if self.channels:
            require_joints(self.kind.name, parsed.shape)
            found = {name: span for name, channel in self.channels.items() if (span := _find(channel, parsed.shape))}
        else:
            found = self._renamed(offers(self.kind.name, self.topic, parsed.shape))
            self.names = self.names or tuple(found)
        if not self.names:
            raise WireError(f"{self.topic}: {self.kind.name} without a number in it; expected at least one")
        return _layout(parsed, data, [found.get(name) for name in self.names])

    def _renamed(self, found: dict[str, Span]) -> dict[str, Span]:
        """By our names. A joint of theirs that has the name of another of ours is not offered: it is not that one."""
        taken = set(self._ours.values())
        named = {}
        for name, span in found.items():
            joint, slash, rest = name.rpartition("/")
            if joint in self._ours:
                named[f"{self._ours[joint]}{slash}{rest}"] = span
            elif joint not in taken:
                named[name] = span
        return named


class Encoder:
    """Writes messages of one form: ``skeleton`` with a new number at each of the ``channels``; for one thread.

    Raises :class:`ConfigError` for a channel that the skeleton does not have, :class:`WireError` for a skeleton that is
    no message of this type.
    """

    def __init__(self, kind: MessageType, skeleton: Mapping[str, Any], channels: Sequence[Channel]) -> None:
        node = tree(kind)
        self._stamped = _is_stamped(node)
        self._count = len(channels)
        self._out = bytearray(dumps(node, skeleton))
        shape = parse(node, self._out).shape
        spans = []
        for channel in channels:
            require_number(node, channel, "channel")
            spans.append(_find(channel, shape))
            if spans[-1] is None:
                raise ConfigError(f"channel '{channel}': not in the message that would be sent")
        if len({span.at for span in spans if span}) < len(spans):
            raise ConfigError(f"channels {', '.join(map(str, channels))}: two go to the same place")
        self._parts = [
            (
                np.frombuffer(self._out, part.dtype, part.reach, part.offset),
                slice(None) if part.picks is None else part.picks,
                part.target,
            )
            for part in _parts("<", spans)
        ]
        self._whole = any(view.dtype.kind != "f" for view, _, _ in self._parts)

    def encode(self, values: npt.NDArray[np.floating[Any]], stamp_ns: int = 0) -> bytes:
        """A message with ``values`` (n,), in the channels' order; ``stamp_ns`` for its header: ROS time, 0 is "now" to
        most readers. Integers and bools are rounded. Raises :class:`WireError` for another number of values, and for a
        NaN or ±inf in an integer."""
        if len(values) != self._count:
            raise WireError(f"found {len(values)} values; expected {self._count}")
        if self._whole and not np.isfinite(values).all():
            raise WireError("found a value that is not finite; expected numbers for integer fields")
        for view, picks, target in self._parts:
            part = values if target is None else values[target]
            view[picks] = part if view.dtype.kind == "f" else np.rint(part)
        if self._stamped:
            sec = stamp_ns // 1_000_000_000
            _PACK_STAMP(self._out, HEADER, sec, stamp_ns - sec * 1_000_000_000)
        return bytes(self._out)


DOUBLE = np.dtype(np.float64)
_STAMP = {"<": struct.Struct("<iI"), ">": struct.Struct(">iI")}
_PACK_STAMP = _STAMP["<"].pack_into


class _Part(NamedTuple):
    """Numbers of one type: ``reach`` of them from byte ``offset`` on hold those at ``picks`` (None: just these), which
    are the values at ``target`` (None: all values)."""

    dtype: np.dtype[Any]
    reach: int
    offset: int
    picks: npt.NDArray[np.intp] | None
    target: npt.NDArray[np.intp] | None


@dataclass(frozen=True, slots=True)
class _Layout:
    """One form of message, ``size`` bytes long: what ``marks`` takes out of it is ``expected``."""

    size: int
    marks: Callable[[Buffer], tuple[bytes, ...]]
    expected: tuple[bytes, ...]
    stamp: Callable[[Buffer, int], tuple[int, int]]
    gather: Callable[[Buffer], Floats]
    valid: npt.NDArray[np.bool_]


def _layout(parsed: Parsed, data: Buffer, spans: list[Span | None]) -> _Layout:
    form, at = "2s", 2  # the encapsulation; its other two bytes are options
    for start, end in parsed.fixed:
        form += f"{start + HEADER - at}x{end - start}s"
        at = end + HEADER
    marks = struct.Struct(form).unpack_from
    valid = np.array([span is not None for span in spans], np.bool_)
    valid.flags.writeable = False
    gather = _gatherer(_parts(parsed.order, spans), valid)
    return _Layout(len(data), marks, marks(data), _STAMP[parsed.order].unpack_from, gather, valid)


def _gatherer(parts: list[_Part], valid: npt.NDArray[np.bool_]) -> Callable[[Buffer], Floats]:
    frombuffer = np.frombuffer
    if len(parts) == 1 and parts[0].target is None and parts[0].dtype.char == "d":
        dtype, reach, offset, picks, _ = parts[0]
        if picks is None:
            return lambda data: frombuffer(data, dtype, reach, offset).astype(DOUBLE)
        if dtype == DOUBLE:
            return lambda data: frombuffer(data, dtype, reach, offset)[picks]

    def gather(data: Buffer) -> Floats:
        values = np.full(len(valid), np.nan)
        with np.errstate(invalid="ignore"):  # a signalling NaN is passed on like any other
            for dtype, reach, offset, picks, target in parts:
                found = frombuffer(data, dtype, reach, offset)
                values[slice(None) if target is None else target] = found if picks is None else found[picks]
        return values

    return gather


def _parts(order: str, spans: Sequence[Span | None]) -> list[_Part]:
    """Numbers in CDR lie at multiples of their size behind the header: those of one type are elements of one array."""
    there = [(i, span) for i, span in enumerate(spans) if span is not None]
    parts = []
    for code in dict.fromkeys(span.code for _, span in there):
        dtype = np.dtype(order + code)
        target = np.array([i for i, span in there if span.code == code], np.intp)
        index = np.array([span.at // dtype.itemsize for _, span in there if span.code == code], np.intp)
        first = int(index.min())
        index -= first
        consecutive = np.array_equal(index, np.arange(len(index)))
        parts.append(
            _Part(
                dtype,
                int(index.max()) + 1,
                HEADER + first * dtype.itemsize,
                None if consecutive else index,
                None if len(target) == len(spans) else target,
            )
        )
    return parts


def _is_stamped(node: Struct) -> bool:
    first = node.fields[0][1]
    return isinstance(first, Struct) and first.name == STAMP


def _find(channel: Channel, shape: Any) -> Span | None:
    """Where a message has it, if it has."""
    try:
        found, _ = channel.follow(shape, "")
    except ConfigError:
        return None
    return found if isinstance(found, Span) else None
