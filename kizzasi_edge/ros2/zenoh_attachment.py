"""What rmw_zenoh_cpp attaches to each message: its number, its time, and the publisher it is from."""

from __future__ import annotations

import struct

_FORMAT = struct.Struct("<qqB16s")
GID_BYTES = 16
PUBLISHERS = 1000
"""Publishers whose numbers are kept; beyond them the one that was first is forgotten."""


def pack(number: int, stamp_ns: int, gid: bytes) -> bytes:
    """``number``: from 1, one more with each message; ``stamp_ns`` since 1970; ``gid``: 16 bytes."""
    return _FORMAT.pack(number, stamp_ns, GID_BYTES, gid)


def unpack(data: bytes) -> tuple[int, int, bytes] | None:
    """Number, stamp, gid; ``None`` if it is no attachment of rmw_zenoh_cpp. What follows them is not looked at."""
    if len(data) < _FORMAT.size:
        return None
    number, stamp_ns, length, gid = _FORMAT.unpack_from(data)
    return (number, stamp_ns, gid) if length == GID_BYTES else None


class Numbers:
    """Counts, publisher by publisher, the messages that never came: those that the numbers leave out."""

    def __init__(self) -> None:
        self.lost = 0
        self._last: dict[bytes, int] = {}

    def take(self, gid: bytes, number: int) -> None:
        """A message has come. The first one of a publisher says nothing about those before it; nor does one out of
        turn: what it was the proof of has been counted."""
        last = self._last.get(gid)
        if last is None and len(self._last) >= PUBLISHERS:
            del self._last[next(iter(self._last))]
        if last is None or number > last:
            self._last[gid] = number
            self.lost += 0 if last is None else number - last - 1
