"""``encode`` and ``Decoder``: the frame codec of ``c/kz_wire.c``, the same object code the firmware runs."""

from __future__ import annotations

import struct

from ._kz_core import ffi, lib
from .errors import WireError
from .frame import DEFAULT_FLAGS, MAX_PAYLOAD, Frame

__all__ = ["Decoder", "encode"]

_RECORD = struct.Struct("<BBBHI")
_SLACK = 256  # what an earlier call may have left unfinished in the decoder


def encode(type: int, payload: bytes, *, seq: int, t_us: int, flags: int = DEFAULT_FLAGS) -> bytes:
    """One frame ready for the wire, delimiters included (15 + len(payload) bytes).

    Raises:
        WireError: payload longer than 240 bytes, or a header field out of its range.
    """
    if len(payload) > MAX_PAYLOAD:
        raise WireError(f"payload of {len(payload)} bytes, at most {MAX_PAYLOAD} fit one frame")
    for name, value, limit in (
        ("type", type, 0xFF),
        ("flags", flags, 0xFF),
        ("seq", seq, 0xFFFF),
        ("t_us", t_us, 0xFFFFFFFF),
    ):
        if not 0 <= value <= limit:
            raise WireError(f"{name} = {value}, expected 0…{limit}")
    out = ffi.new("uint8_t[256]")
    n = lib.kz_host_encode(out, type, flags, seq, t_us, payload, len(payload))
    return bytes(ffi.buffer(out, n))


class Decoder:
    """Byte stream → checked frames. Not thread-safe; one per stream.

    Attributes:
        ok: frames passed up.
        bad_crc: complete frames whose checksum did not match.
        bad_cobs: delimiter inside a COBS block.
        too_long: more bytes than the longest frame holds.
        runt: too few bytes for a header and a checksum.
    """

    __slots__ = ("_decoder",)

    def __init__(self) -> None:
        self._decoder = ffi.new("kz_host_decoder *")

    def feed(self, data: bytes | bytearray | memoryview) -> list[Frame]:
        """Frames completed by ``data`` (any length, any alignment)."""
        n = len(data)
        if not n:
            return []
        out = bytearray(n + _SLACK)
        used = lib.kz_host_feed(self._decoder, ffi.from_buffer(data), n, ffi.from_buffer(out))
        frames = []
        at = 0
        while at < used:
            length, type_, flags, seq, t_us = _RECORD.unpack_from(out, at)
            at += _RECORD.size
            frames.append(Frame(type_, flags, seq, t_us, bytes(out[at : at + length])))
            at += length
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
