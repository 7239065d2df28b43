"""``encode`` and ``Decoder``: the frame codec of ``c/kz_wire.c``, which the firmware runs too.

Frames that lie whole in what is fed, which is nearly all of them, take a short cut in ``host_wire.c``; the tests
hold it, ``kz_decode`` and an independent codec together.
"""

from __future__ import annotations

import struct
import threading

from ._kz_core import ffi, lib
from .errors import WireError
from .frame import DEFAULT_FLAGS, HEADER, MAX_PAYLOAD, OVERHEAD, Frame

__all__ = ["Decoder", "encode"]

_RECORDS = tuple(struct.Struct(f"<x{HEADER.format[1:]}{n}s") for n in range(MAX_PAYLOAD + 1))
"""Behind a payload length: header and payload, by that length."""
_RECORD_HEAD = _RECORDS[0].size
_SLACK = 256  # what an earlier call may have left unfinished in the decoder
_new = tuple.__new__  # skips what a NamedTuple's constructor checks


class _Line(threading.local):
    """Where a thread's frames are made, again and again."""

    def __init__(self) -> None:
        self.out = ffi.new("uint8_t[]", MAX_PAYLOAD + OVERHEAD)
        self.view = ffi.buffer(self.out)


_line = _Line()


def encode(type: int, payload: bytes, *, seq: int, t_us: int, flags: int = DEFAULT_FLAGS) -> bytes:
    """One frame ready for the wire, delimiters included (15 + len(payload) bytes).

    Raises:
        WireError: payload longer than 240 bytes, or a header field out of its range.
    """
    if len(payload) > MAX_PAYLOAD:
        raise WireError(f"payload of {len(payload)} bytes, at most {MAX_PAYLOAD} fit one frame")
    try:
        header = HEADER.pack(type, flags, seq, t_us)
    except struct.error as error:
        raise WireError(f"type {type}, flags {flags}, seq {seq}, t_us {t_us}: {error}") from None
    line = _line
    n: int = lib.kz_host_encode(line.out, header, payload, len(payload))
    frame: bytes = line.view[:n]
    return frame


class Decoder:
    """Byte stream → checked frames. Not thread-safe; one per stream.

    Attributes:
        ok: frames passed up.
        bad_crc: complete frames whose checksum did not match.
        bad_cobs: delimiter inside a COBS block.
        too_long: more bytes than the longest frame holds.
        runt: too few bytes for a header and a checksum.
    """

    __slots__ = ("_decoder", "_out", "_out_p", "_room")

    def __init__(self) -> None:
        self._decoder = ffi.new("kz_host_decoder *")
        self._out = bytearray()
        self._room, self._out_p = -1, ffi.NULL

    def feed(self, data: bytes | bytearray | memoryview) -> list[Frame]:
        """Frames completed by ``data`` (any length, any alignment)."""
        n = len(data)
        if n > self._room:
            self._out = bytearray(n + _SLACK)
            self._room, self._out_p = n, ffi.from_buffer(self._out)
        out = self._out
        used = lib.kz_host_feed(self._decoder, data if type(data) is bytes else ffi.from_buffer(data), n, self._out_p)
        frames = []
        at = 0
        while at < used:
            length = out[at]
            frames.append(_new(Frame, _RECORDS[length].unpack_from(out, at)))
            at += _RECORD_HEAD + length
        return frames

    @property
    def ok(self) -> int:
        """Frames passed up."""
        return int(lib.kz_host_count(self._decoder, 0))

    @property
    def bad_crc(self) -> int:
        """Frames with a wrong checksum."""
        return int(lib.kz_host_count(self._decoder, 1))

    @property
    def bad_cobs(self) -> int:
        """Frames with a broken COBS structure."""
        return int(lib.kz_host_count(self._decoder, 2))

    @property
    def too_long(self) -> int:
        """Runs of bytes longer than any frame."""
        return int(lib.kz_host_count(self._decoder, 3))

    @property
    def runt(self) -> int:
        """Frames too short to hold header and checksum."""
        return int(lib.kz_host_count(self._decoder, 4))
