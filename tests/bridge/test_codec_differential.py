"""The C codec, the host's and the firmware's, against one that shares nothing with it: on random frames and on streams
that a bad line makes."""

from __future__ import annotations

import random

import hostile
import pytest
from kizzasi_bridge._kz_core import ffi, lib

from kizzasi_bridge import Decoder, encode
from kizzasi_bridge.frame import MAX_PAYLOAD, OVERHEAD, Frame

PAYLOAD_AT = 10  # KZ_PAYLOAD_AT: behind the delimiter, the COBS code and the header


def sealed(f: Frame) -> bytes:
    """By the firmware's own encoder."""
    line = ffi.new("uint8_t[]", MAX_PAYLOAD + OVERHEAD)
    line[PAYLOAD_AT : PAYLOAD_AT + len(f.payload)] = f.payload
    return bytes(ffi.buffer(line, lib.kz_seal(line, f.type, f.flags, f.seq, f.t_us, len(f.payload))))


def same_frames(n: int, seed: int) -> None:
    """The host's encoder, the firmware's and the independent one make the same bytes of n random frames, and the two
    decoders read them back."""
    rng = random.Random(seed)
    for _ in range(n):
        f = hostile.some_frame(rng)
        line = encode(f.type, f.payload, seq=f.seq, t_us=f.t_us, flags=f.flags)
        assert line == sealed(f) == hostile.encode(f)
        assert Decoder().feed(line) == [f]
        assert hostile.decode(line) == ([f], 0)


def same_damage(n: int, seed: int) -> tuple[int, int, int]:
    """n corrupted streams of one to three frames: both accept the same frames and reject the same number of pieces,
    whether the bytes come at once or in pieces, every eighth time one by one. Returns the numbers accepted, rejected,
    and accepted though never sent."""
    rng = random.Random(seed)
    batch, single = Decoder(), Decoder()
    accepted = rejected = foreign = 0
    for turn in range(n):
        sent = [hostile.some_frame(rng) for _ in range(rng.randint(1, 3))]
        line = hostile.corrupted(b"".join(map(hostile.encode, sent)), rng)
        stream = b"\0" + line + b"\0"  # the decoders live on; each stream begins at a delimiter
        frames, damaged = hostile.decode(stream)
        assert batch.feed(stream) == frames
        in_pieces: list[Frame] = []
        size = 1 if turn % 8 == 0 else rng.randint(1, 100)
        for at in range(0, len(stream), size):
            in_pieces += single.feed(stream[at : at + size])
        assert in_pieces == frames
        accepted, rejected = accepted + len(frames), rejected + damaged
        foreign += len([f for f in frames if f not in sent])
        for decoder in (batch, single):
            assert decoder.ok == accepted
            assert decoder.bad_crc + decoder.bad_cobs + decoder.too_long + decoder.runt == rejected
    assert batch.bad_crc == single.bad_crc
    assert batch.bad_cobs == single.bad_cobs
    assert batch.too_long == single.too_long
    return accepted, rejected, foreign


def test_random_frames() -> None:
    same_frames(5000, 1)


def test_corrupted_streams() -> None:
    accepted, rejected, foreign = same_damage(2000, 2)
    assert foreign == 0
    assert accepted > 1000
    assert rejected > 1000


@pytest.mark.parametrize(
    "wrong",
    [
        lambda line: line[:1] + line[2:],  # the COBS code
        lambda line: line[:-2] + bytes([line[-2] ^ 1]) + line[-1:],  # the CRC
    ],
)
def test_the_independent_codec_can_disagree(wrong) -> None:
    f = Frame(1, 16, 2, 3, b"payload")
    assert hostile.decode(wrong(hostile.encode(f))) == ([], 1)
