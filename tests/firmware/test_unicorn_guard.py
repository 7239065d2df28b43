"""The guard on the MCU and the one on the gateway are the same function, bit for bit."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

pytest.importorskip("unicorn")

from bare_host import CHANNELS, LIMITS
from images import armed, load
from kizzasi_bridge._kz_core import ffi, lib
from unimcu import SCRATCH, Mcu

RAW_MAX = 0x3FFFFFFF
CALLS = 3000


def anything(noise: random.Random) -> int:
    """An int32 of any magnitude."""
    size = noise.choice((1, 4, 12, 20, 29, 31))
    return noise.randrange(-(1 << size), 1 << size)


def draw(noise: random.Random) -> tuple[tuple[int, int, int, int], tuple[int, int], int, int]:
    """Limits, an axis inside, near or far outside of them, a proposal, a coasting budget."""
    ends = sorted(max(-RAW_MAX, min(RAW_MAX, anything(noise))) for _ in range(2))
    w, h = (max(1, min(RAW_MAX, abs(anything(noise)))) for _ in range(2))
    w = min(w, 2**29)
    q = noise.choice((noise.randint(*ends), ends[0], ends[1], anything(noise) % RAW_MAX))
    v = noise.randint(-w, w)
    return (ends[0], ends[1], w, min(h, 2 * w)), (q, v), anything(noise), noise.choice((0, 1, 3, 255))


@pytest.mark.parametrize("name", ["an385", "an386"])
def test_the_same_function(elves: dict[str, Path], name: str) -> None:
    """kz_admit and kz_miss, called with the same arguments, over extremes that no wire could bring."""
    mcu = Mcu(load(elves, name))
    mcu.advance(5000)
    noise = random.Random(name)
    limit, axis, rules = ffi.new("kz_limit *"), ffi.new("kz_axis *"), ffi.new("uint8_t *")
    shaped = 0
    for _ in range(CALLS):
        limits, motion, want, coast = draw(noise)
        limit.lo, limit.hi, limit.w, limit.h = limits
        axis.q, axis.v = motion
        rules[0] = 0
        mcu.uc.mem_write(SCRATCH, struct.pack("<4i2iI", *limits, *motion, 0))
        where = SCRATCH, SCRATCH + 16
        if noise.random() < 0.8:
            host = lib.kz_admit(limit, axis, want, coast, rules)
            device = mcu.call("kz_admit", *where, want, coast, SCRATCH + 24)
        else:
            host, device = lib.kz_miss(limit, axis, coast & 1), mcu.call("kz_miss", *where, coast & 1)
        q, v, device_rules = struct.unpack("<iiB", mcu.uc.mem_read(SCRATCH + 16, 9))
        assert (device, q, v, device_rules) == (host, axis.q, axis.v, rules[0]), (limits, motion, want, coast)
        shaped += rules[0] != 0
    assert CALLS / 4 < shaped < CALLS, "a script in which the guard has nothing to do proves nothing"


@pytest.mark.parametrize("name", ["an385", "an386"])
def test_the_same_setpoints_over_the_wire(elves: dict[str, Path], name: str) -> None:
    """What STATE says was applied is what the gateway's guard makes of the same proposals and misses."""
    noise = random.Random(name)
    mcu = Mcu(load(elves, name))
    host = armed(mcu)
    limits = [ffi.new("kz_limit *", (c.lo, c.hi, c.w, c.h)) for c in LIMITS.channels]
    axes = [ffi.new("kz_axis *") for _ in limits]
    rules = ffi.new("uint8_t *")
    missed = LIMITS.miss_budget  # before the first COMMAND there is nothing to repeat
    clamps = 0
    for _ in range(400):
        clamped = 0
        if noise.random() < 0.9:
            missed = 0
            values = [noise.choice((a.q, a.q + noise.randint(-900, 900), anything(noise))) for a in axes]
            values = [max(-(2**31) + 1, v) for v in values]
            host.command(values)
            for i, (limit, axis, value) in enumerate(zip(limits, axes, values, strict=True)):
                rules[0] = 0
                lib.kz_admit(limit, axis, value, LIMITS.miss_budget, rules)
                clamped |= bool(rules[0]) << i
        else:
            for limit, axis in zip(limits, axes, strict=True):
                lib.kz_miss(limit, axis, missed < LIMITS.miss_budget)
            missed += 1
        host.live(2)
        assert host.now is not None
        assert host.now.values[:CHANNELS] == tuple(axis.q for axis in axes)
        assert host.now.clamp_mask == clamped
        clamps += clamped != 0
    assert clamps > 100
