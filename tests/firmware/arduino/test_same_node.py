"""The node on an AVR, where int has 16 bits, is the node on the host, bit for bit."""

from __future__ import annotations

import random
import struct
import subprocess
from pathlib import Path

import pytest
from avr import JOINTS, MODELS, Avr, Event, Simavr
from cffi import FFI
from sketch import (
    CORE,
    HERE,
    PERIOD_TICKS,
    TICK_US,
    armed,
    named,
    result,
    states,
)

from kizzasi_bridge import Decoder, Frame, encode
from kizzasi_bridge.protocol import AckResult, MsgType
from kizzasi_bridge.virtual import VirtualNode

CASE = struct.Struct("<4i2i7i8B")
RAW_MAX = 0x3FFFFFFF
CASES = 20
TORQUE = 2  # KZ_MODE_TORQUE


def test_the_same_bytes_as_the_node_on_the_host(avr: Avr) -> None:
    """What the sketch was given and measured, tick by tick, makes the host's build of the node send the same frames."""
    avr.watch(["board_read", "board_us", "machine_sense", "board_write"])
    noise = random.Random(7)
    host = armed(avr)
    for i in range(80):
        if i % 7:
            host.command([noise.randrange(20_000, 46_000) for _ in range(JOINTS)])
        if i % 19 == 0:
            avr.give(noise.randbytes(40))
        if i % 13 == 0:
            host.put(noise.choice((MsgType.TIME_REQ, MsgType.HELLO_REQ, MsgType.SCHEMA_GET, 99)), noise.randbytes(4))
        host.live(PERIOD_TICKS)
    host.put(MsgType.ESTOP)
    host.live(100)
    assert host.clear().result == AckResult.OK
    host.live(10)

    events = avr.events()
    sent = [e.memory[: int.from_bytes(e.arguments[2:4], "little")] for e in events if named(e, "board_write")]
    assert host.hello is not None
    assert host.handshake.schema is not None
    expected = replay(events, VirtualNode(host.handshake.schema, boot_id=host.hello.boot_id))
    assert len(sent) > 150
    for k, (mine, theirs) in enumerate(zip(sent, expected, strict=True)):
        if theirs.type == MsgType.SCHEMA_DATA:  # the small board sends less at once
            (short,) = Decoder().feed(mine)
            assert theirs.payload.startswith(short.payload)
        else:
            assert mine == encode(theirs.type, theirs.payload, seq=theirs.seq, t_us=theirs.t_us, flags=theirs.flags), k
    clamped = sum(s.clamp_mask != 0 for s in states([f for f in expected if f.type == MsgType.STATE]))
    assert clamped > 30, "a script in which the guard has nothing to do proves nothing"


def replay(events: list[Event], node: VirtualNode) -> list[Frame]:
    """Give a node what the board's functions returned."""
    node.ideal(False)
    frames: list[Frame] = []
    at, now = 0, 0
    for event in events:
        if not event.returned:
            continue
        if event.name == "board_read":
            frames += node.feed(event.memory[: int.from_bytes(event.arguments[6:8], "little")])
        elif event.name == "board_us":
            now = result(event)
        elif event.name == "machine_sense":
            node.sensors[:] = struct.unpack(f"<{JOINTS}i", event.memory[: 4 * JOINTS])
            node.inputs(event.arguments[6])
            node.stall(now - at)
            frames += node.tick()
            at = now + TICK_US
    return frames


def anything(noise: random.Random) -> int:
    """An int32 of any magnitude, but INT32_MIN."""
    size = noise.choice((1, 4, 12, 16, 20, 29, 31))
    return noise.randrange(1 - (1 << size), 1 << size)


def draw(noise: random.Random) -> bytes:
    """Limits, an axis inside, near or far outside of them, a proposal, a measurement, a coasting budget."""
    lo, hi = sorted(max(-RAW_MAX, min(RAW_MAX, anything(noise))) for _ in range(2))
    w, h = (max(1, min(RAW_MAX, abs(anything(noise)))) for _ in range(2))
    w = min(w, 2**29)
    mode = noise.randrange(3)
    if mode == TORQUE:
        lo, hi = min(lo, 0), max(hi, 0)
        fallback = noise.randrange(151 << 23)  # a damping: bits of an f32
    else:
        fallback = noise.choice((-(2**31), noise.randint(lo, hi), anything(noise)))
    q = noise.choice((noise.randint(lo, hi), lo, hi, anything(noise) % RAW_MAX))
    motion = q, noise.randint(-w, w), anything(noise), noise.choice((q, anything(noise))), fallback, anything(noise)
    choices = noise.choice((0, 0, 1, 2, 3)), noise.choice((0, 1, 3, 255)), mode, noise.randrange(4)
    return CASE.pack(lo, hi, w, min(h, 2 * w), *motion, 0, 0, 0, *choices, 0, 0, 0, 0)


@pytest.mark.parametrize("batches", [40, pytest.param(1500, marks=pytest.mark.prove)])
def test_the_same_guard(simavr: Simavr, out: Path, batches: int) -> None:
    """kz_guard and kz_channel where int has 16 bits, over extremes that no wire could bring: as the host's compiler
    understands them."""
    c, elf, library = CORE, out / f"guard{batches}.elf", out / f"guard{batches}.so"
    sources = [str(HERE / "avr_guard.c"), str(c / "kz_guard.c"), str(c / "kz_channel.c")]
    flags = ["-std=c99", "-Os", "-Wall", "-Wextra", "-Werror", "-I", str(c), *sources, "-o"]
    subprocess.run(["avr-gcc", "-mmcu=atmega328p", *flags, str(elf)], check=True)
    subprocess.run(["cc", "-shared", "-fPIC", *flags, str(library)], check=True)
    ffi = FFI()
    ffi.cdef("void judge(void *one);")
    host = ffi.dlopen(str(library))
    avr = Avr(simavr, elf, MODELS["uno"])
    avr.advance(10_000)
    at, left = (avr.symbols[name] & 0xFFFF for name in ("cases", "left"))
    noise = random.Random(batches)
    shaped = 0
    for _ in range(batches):
        cases = [draw(noise) for _ in range(CASES)]
        avr.memory[at : at + CASES * CASE.size] = b"".join(cases)
        avr.memory[left : left + 1] = bytes([CASES])
        while avr.memory[left] != b"\0":
            avr.advance(2000)
        for k, case in enumerate(cases):
            expected = bytearray(case)
            host.judge(ffi.from_buffer(expected))
            found = bytes(avr.memory[at + k * CASE.size : at + (k + 1) * CASE.size])
            assert found == expected, (CASE.unpack(case), CASE.unpack(found), CASE.unpack(expected))
            *_, rules, _, ok, channel_shaped = CASE.unpack(found)
            shaped += bool(rules or (ok and channel_shaped))
    assert CASES * batches / 4 < shaped < CASES * batches
