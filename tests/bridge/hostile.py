"""Streams that a bad line makes, and a codec that shares nothing with ours (zlib and PyPI cobs)."""

from __future__ import annotations

import random
import struct
import zlib

from cobs import cobs

from kizzasi_bridge.frame import MAX_PAYLOAD, Frame

__all__ = ["corrupted", "decode", "encode", "some_frame"]

_HEADER = struct.Struct("<BBHI")


def encode(f: Frame) -> bytes:
    body = _HEADER.pack(f.type, f.flags, f.seq, f.t_us) + f.payload
    return b"\0" + cobs.encode(body + struct.pack("<I", zlib.crc32(body))) + b"\0"


def decode(stream: bytes) -> tuple[list[Frame], int]:
    """The complete frames between delimiters (or the start and a delimiter), and how many pieces were none."""
    frames, damaged = [], 0
    for piece in stream.split(b"\0")[:-1]:
        if not piece:
            continue
        try:
            body = cobs.decode(piece)
        except cobs.DecodeError:
            body = b""
        fits = 12 <= len(body) <= MAX_PAYLOAD + 12
        if fits and zlib.crc32(body[:-4]) == int.from_bytes(body[-4:], "little"):
            frames.append(Frame(*_HEADER.unpack_from(body), body[8:-4]))
        else:
            damaged += 1
    return frames, damaged


def some_frame(rng: random.Random) -> Frame:
    """Any frame; payloads of noise, of zeros, of few values and of the longest runs without a zero."""
    n = rng.randrange(MAX_PAYLOAD + 1)
    match rng.randrange(4):
        case 0:
            payload = rng.randbytes(n)
        case 1:
            payload = bytes(n)
        case 2:
            payload = bytes(rng.choices((0, 0, 1, 255), k=n))
        case _:
            payload = b"\xa5" * n
    return Frame(rng.randrange(256), rng.randrange(256), rng.randrange(1 << 16), rng.randrange(1 << 32), payload)


def corrupted(stream: bytes, rng: random.Random) -> bytes:
    """One to four accidents: a bit flips, bytes vanish, double, are overwritten or come from elsewhere."""
    out = bytearray(stream)
    for _ in range(rng.randint(1, 4)):
        at, n = rng.randrange(len(out) + 1), rng.randint(1, 12)
        match rng.randrange(6):
            case 0 if at < len(out):
                out[at] ^= 1 << rng.randrange(8)
            case 1:
                del out[at : at + n]
            case 2:
                out[at:at] = out[at : at + n]
            case 3:
                out[at : at + n] = rng.randbytes(n)
            case 4:
                out[at:at] = bytes([rng.randrange(256)])
            case _:
                out[at : at + 1] = b"\0"
    return bytes(out)
