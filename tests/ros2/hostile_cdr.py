"""Damage to messages, and what must hold whatever the damage is."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
from messages_in_use import KINDS, MESSAGES, TREES, golden

from kizzasi_edge.errors import WireError
from kizzasi_edge.ros2 import cdr
from kizzasi_edge.ros2.channels import Channel
from kizzasi_edge.ros2.codec import Decoder

WORDS = [0, 1, 2, 3, 4, 7, 255, 65_536, (1 << 31) - 1, 1 << 31, (1 << 32) - 1]


class Judge:
    """One type: a decoder that has seen its form, against one that sees each message for the first time."""

    def __init__(self, name: str) -> None:
        self.name, self.node = name, TREES[name]
        self.accepted = self.refused = 0
        found = cdr.loads(self.node, golden(name, "<"))
        reader = Decoder(KINDS[name], "/t")
        try:
            names = reader.decode(golden(name, "<")).names
        except WireError:  # a text has no numbers
            names = ()
        self.channels = {key: Channel.parse(key, "") for key in names if key.startswith("/t:")}
        self.warm = Decoder(KINDS[name], "/t", self.channels)
        assert found is not None

    def check(self, data: bytes) -> None:
        """Read, or refused by WireError; the same by both decoders; what is read can be written and read again."""
        try:
            message = cdr.loads(self.node, data)
        except WireError:
            message = None
        if message is not None:
            self._again(message)
        found = [self._decoded(self.warm, data)]
        if self.channels:
            found.append(self._decoded(Decoder(KINDS[self.name], "/t", self.channels), data))
            assert (found[0] is None) == (found[1] is None), data.hex()
        if message is None:
            self.refused += 1
            assert found[0] is None, data.hex()
        else:
            self.accepted += 1
        if found[0] is not None and self.channels:
            assert found[0] == found[1], data.hex()

    def _again(self, message: object) -> None:
        try:
            data = cdr.dumps(self.node, message)
        except WireError as exc:
            if "without NUL" not in str(exc):
                raise AssertionError(f"read, but cannot be written: {exc}") from exc
        else:
            assert repr(cdr.loads(self.node, data)) == repr(message)

    @staticmethod
    def _decoded(reader: Decoder, data: bytes) -> tuple[bytes, bytes, int] | None:
        try:
            sample = reader.decode(data)
        except WireError:
            return None
        assert sample.values.nbytes <= 8 * max(len(reader.names), 1)
        return np.nan_to_num(sample.values, nan=1e9).tobytes(), sample.valid.tobytes(), sample.stamp_ns


def mutations(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """Golden messages of every type with bytes changed, words replaced, cut, doubled, or another's tail."""
    rng = random.Random(seed)
    names = list(MESSAGES)
    for _ in range(count):
        name = rng.choice(names)
        data = bytearray(golden_bytes(name, rng.choice("<>")))
        for _ in range(rng.choice((1, 1, 1, 2, 5))):
            at = rng.randrange(len(data) or 1)
            kind = rng.randrange(6)
            if kind == 0 and data:
                data[at % len(data)] = rng.randrange(256)
            elif kind == 1 and data:
                data[at % len(data)] ^= 1 << rng.randrange(8)
            elif kind == 2:
                word = rng.choice(WORDS).to_bytes(4, rng.choice(("little", "big")))
                data[at - at % 4 : at - at % 4 + 4] = word
            elif kind == 3:
                del data[at:]
            elif kind == 4:
                data[at:at] = rng.randbytes(rng.randrange(1, 9))
            else:
                other = golden_bytes(rng.choice(names), rng.choice("<>"))
                data[at:] = other[rng.randrange(len(other)) :]
        yield name, bytes(data)


def golden_bytes(name: str, order: str) -> bytes:
    key = name, order
    if key not in _read:
        _read[key] = golden(name, order)
    return _read[key]


_read: dict[tuple[str, str], bytes] = {}


def fuzz(seed: int, count: int) -> dict[str, int]:
    """Judge ``count`` mutations. Returns how many were accepted and refused."""
    judges = {name: Judge(name) for name in MESSAGES}
    for name, data in mutations(seed, count):
        judges[name].check(data)
    return {
        "accepted": sum(judge.accepted for judge in judges.values()),
        "refused": sum(judge.refused for judge in judges.values()),
    }
