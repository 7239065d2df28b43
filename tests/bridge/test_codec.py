"""The C codec against an independent one (zlib + PyPI cobs), on clean, cut and corrupted streams."""

from __future__ import annotations

import random
import struct
import zlib

import pytest
from cobs import cobs
from hypothesis import given, settings
from hypothesis import strategies as st

from kizzasi_bridge import Decoder, Frame, WireError, encode
from kizzasi_bridge.frame import MAX_PAYLOAD, OVERHEAD

FRAMES = st.builds(
    Frame,
    st.integers(0, 255),
    st.integers(0, 255),
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFFFFFF),
    st.one_of(st.binary(max_size=MAX_PAYLOAD), st.integers(0, MAX_PAYLOAD).map(bytes)),
)


def oracle_encode(f: Frame) -> bytes:
    body = struct.pack("<BBHI", f.type, f.flags, f.seq, f.t_us) + f.payload
    return b"\0" + cobs.encode(body + struct.pack("<I", zlib.crc32(body))) + b"\0"


def oracle_decode(stream: bytes) -> list[Frame]:
    """Complete frames only: what lies between two delimiters (or the start and a delimiter)."""
    frames = []
    for piece in stream.split(b"\0")[:-1]:
        try:
            body = cobs.decode(piece)
        except cobs.DecodeError:
            continue
        if not 12 <= len(body) <= MAX_PAYLOAD + 12 or zlib.crc32(body[:-4]) != int.from_bytes(body[-4:], "little"):
            continue
        frames.append(Frame(*struct.unpack_from("<BBHI", body), body[8:-4]))
    return frames


def wire(f: Frame) -> bytes:
    return encode(f.type, f.payload, seq=f.seq, t_us=f.t_us, flags=f.flags)


@given(FRAMES)
def test_encode_matches_the_oracle(f: Frame) -> None:
    assert wire(f) == oracle_encode(f)
    assert len(wire(f)) == len(f.payload) + OVERHEAD


@given(st.lists(FRAMES, max_size=8), st.lists(st.integers(1, 97), min_size=1, max_size=20))
def test_decode_in_pieces_of_any_size(frames: list[Frame], cuts: list[int]) -> None:
    stream = b"".join(map(wire, frames))
    decoder, got, at, turn = Decoder(), [], 0, 0
    while at < len(stream):
        size = cuts[turn % len(cuts)]
        got += decoder.feed(stream[at : at + size])
        at, turn = at + size, turn + 1
    assert got == frames
    assert decoder.ok == len(frames)
    assert decoder.bad_crc == decoder.bad_cobs == decoder.too_long == decoder.runt == 0


@given(st.lists(FRAMES, min_size=1, max_size=6), st.data())
def test_corrupted_streams_decode_as_the_oracle_does(frames: list[Frame], data: st.DataObject) -> None:
    stream = bytearray(b"".join(map(wire, frames)))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(stream) - 1))
        match data.draw(st.sampled_from(["flip", "drop", "insert", "zero"])):
            case "flip":
                stream[at] ^= 1 << data.draw(st.integers(0, 7))
            case "zero":
                stream[at] = 0
            case "insert":
                stream.insert(at, data.draw(st.integers(0, 255)))
            case "drop" if len(stream) > 1:
                del stream[at]
    assert Decoder().feed(bytes(stream)) == oracle_decode(bytes(stream))


@given(st.binary(max_size=2000))
def test_noise_decodes_as_the_oracle_does(noise: bytes) -> None:
    assert Decoder().feed(noise) == oracle_decode(noise)


def test_no_wrong_frame_in_a_long_corrupted_stream() -> None:
    rng = random.Random(4)
    sent = [Frame(rng.randrange(256), 16, i & 0xFFFF, i, rng.randbytes(rng.randrange(241))) for i in range(4000)]
    stream = bytearray(b"".join(map(wire, sent)))
    for _ in range(8000):
        stream[rng.randrange(len(stream))] ^= 1 << rng.randrange(8)
    decoder = Decoder()
    got = decoder.feed(bytes(stream))
    assert set(got) <= set(sent)
    assert 100 < len(got) < len(sent)
    assert decoder.ok == len(got)
    assert decoder.bad_crc > 100
    assert decoder.bad_cobs > 100


def test_each_kind_of_damage_has_its_counter() -> None:
    good = wire(Frame(1, 16, 2, 3, b"payload"))
    for name, damaged in {
        "bad_crc": good[:12] + bytes([good[12] ^ 1]) + good[13:],
        "bad_cobs": good[:-4] + b"\0",
        "too_long": b"\0" + b"\x01" * 400 + b"\0",
        "runt": b"\0" + cobs.encode(b"short") + b"\0",
    }.items():
        decoder = Decoder()
        assert decoder.feed(damaged) == []
        assert getattr(decoder, name) == 1, name
        assert len(decoder.feed(good)) == 1, "the next frame must survive"
        assert decoder.ok == 1


def test_delimiters_alone_are_nothing() -> None:
    decoder = Decoder()
    assert decoder.feed(bytes(1000)) == []
    assert decoder.runt == 0


@pytest.mark.parametrize(
    ("payload", "field"),
    [(bytes(241), {}), (b"", {"seq": 65536}), (b"", {"seq": -1}), (b"", {"t_us": 2**32}), (b"", {"flags": 256})],
)
def test_what_does_not_fit_is_refused(payload: bytes, field: dict[str, int]) -> None:
    with pytest.raises(WireError):
        encode(1, payload, **{"seq": 0, "t_us": 0, **field})


@settings(max_examples=30)
@given(FRAMES)
def test_any_single_bit_flip_is_caught(f: Frame) -> None:
    good = wire(f)
    for bit in range(0, 8 * len(good), 7):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        assert all(g == f for g in Decoder().feed(bytes(bad)))
