"""kz_admit and kz_miss on an emulated core and on the host, called with the same arguments."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

from kizzasi_bridge._kz_core import ffi, lib

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


def same_guard(
    call: Callable[..., int],
    write: Callable[[int, bytes], object],
    read: Callable[[int, int], bytes],
    scratch: int,
    noise: random.Random,
) -> None:
    """Over extremes that no wire could bring. ``call`` calls a function of the core; ``scratch``: its memory for us."""
    limit, axis, rules = ffi.new("kz_limit *"), ffi.new("kz_axis *"), ffi.new("uint8_t *")
    shaped = 0
    for _ in range(CALLS):
        limits, motion, want, coast = draw(noise)
        limit.lo, limit.hi, limit.w, limit.h = limits
        axis.q, axis.v = motion
        rules[0] = 0
        write(scratch, struct.pack("<4i2iI", *limits, *motion, 0))
        where = scratch, scratch + 16
        if noise.random() < 0.8:
            host = lib.kz_admit(limit, axis, want, coast, rules)
            device = call("kz_admit", *where, want, coast, scratch + 24)
        else:
            host, device = lib.kz_miss(limit, axis, coast & 1), call("kz_miss", *where, coast & 1)
        q, v, device_rules = struct.unpack("<iiB", read(scratch + 16, 9))
        assert (device, q, v, device_rules) == (host, axis.q, axis.v, rules[0]), (limits, motion, want, coast)
        shaped += rules[0] != 0
    assert CALLS / 4 < shaped < CALLS, "a script in which the guard has nothing to do proves nothing"
