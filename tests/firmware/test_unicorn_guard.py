"""The guard on the MCU and the one on the gateway are the same function, bit for bit."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

pytest.importorskip("unicorn")

from bare_host import CHANNELS, LIMITS
from images import armed, load
from kizzasi_bridge._kz_core import ffi, lib
from same_guard import anything, same_guard
from unimcu import SCRATCH, Mcu


@pytest.mark.parametrize("name", ["an385", "an386"])
def test_the_same_function(elves: dict[str, Path], name: str) -> None:
    mcu = Mcu(load(elves, name))
    mcu.advance(5000)
    same_guard(mcu.call, mcu.uc.mem_write, mcu.uc.mem_read, SCRATCH, random.Random(name))


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
