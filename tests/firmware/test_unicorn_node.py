"""Tier 2: the real ELF on virtual time, from reset to reset."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

pytest.importorskip("unicorn")

from bare_host import CHANNELS, LIMITS, Host, Trace
from images import armed, host_of, load, stream
from unimcu import SCRATCH, Mcu

from kizzasi_bridge import Frame, encode
from kizzasi_bridge.protocol import (
    AckResult,
    Arm,
    ChannelLimits,
    Fault,
    MsgType,
    NodeState,
    ResetCause,
    State,
)

IMAGES = ("an385", "an386")
FAR = (90_000,) * CHANNELS
HERE = (0,) * CHANNELS
TTL_US = 250_000
WIDE = replace(LIMITS, channels=(ChannelLimits(-(2**29), 2**29, 1000, 50),) * CHANNELS)
ALWAYS_ON = (2**29,) * CHANNELS  # many minutes away


def state(host: Host) -> State:
    assert host.now is not None
    return host.now


def in_state(host: Host, wanted: NodeState) -> None:
    host.until(lambda: host.now and host.now.state == wanted)


@pytest.mark.parametrize("name", IMAGES)
def test_a_life(elves: dict[str, Path], name: str) -> None:
    """Boot, INIT, limits, ARM, commands, TTL, FAILSAFE, CLEAR, ARM again."""
    mcu = Mcu(load(elves, name), traced=True)
    trace = Trace()
    host = host_of(mcu)
    hello = host.introduce()
    assert (hello.reset_cause, hello.state, hello.limits_hash) == (ResetCause.POWER_ON, NodeState.INIT, 0)
    schema = host.handshake.schema
    assert schema is not None
    assert (schema.board, len(schema.channels), schema.tick_us) == ("mps2", CHANNELS, 1000)
    assert mcu.leds == 0, "off until there are limits, whatever the LEDs were at reset"

    host.upload()
    in_state(host, NodeState.READY)
    assert mcu.leds == 1
    assert host.arm().result == AckResult.OK
    stream(host, FAR, 40)
    moving = state(host)
    assert moving.state == NodeState.ARMED
    assert 0 < moving.values[0] < FAR[0]

    host.command(FAR)  # the last one: computed from `moving`
    in_state(host, NodeState.FAILSAFE)
    assert state(host).fault == Fault.TTL
    host.live(60)
    trace.feed(mcu.trace.take())
    last = max(i for i, tick in enumerate(trace.ticks) if tick.state == NodeState.ARMED)
    assert trace.ticks[last + 1].t_us - moving.sample_t_us == TTL_US, "on the very tick of the deadline"
    applied = [tick.applied[0] for tick in trace.ticks if tick.boundary]
    assert max(abs(c - 2 * b + a) for a, b, c in zip(applied, applied[1:], applied[2:], strict=False)) <= 50
    assert applied[-1] == applied[-2], "at rest"

    assert host.request(MsgType.ARM, Arm(state(host).nonce, host.limits_hash).pack()).result == AckResult.WRONG_STATE
    assert host.clear().result == AckResult.OK
    in_state(host, NodeState.READY)
    assert host.arm().result == AckResult.OK
    assert host.decoder.ok > 0
    assert host.decoder.bad_crc + host.decoder.bad_cobs + host.decoder.runt + host.decoder.too_long == 0


def script(mcu: Mcu) -> bytes:
    """Everything the firmware sends during a script with noise, good and bad requests, motion, ESTOP and a reset."""
    noise = random.Random(5)
    host = armed(mcu)
    for i in range(200):
        target = tuple(noise.randrange(-120_000, 120_000) for _ in range(CHANNELS))
        if i % 7:
            host.command(target)
        if i % 31 == 0:
            mcu.link.give(noise.randbytes(40))
        if i % 13 == 0:
            host.put(noise.choice((MsgType.TIME_REQ, MsgType.HELLO_REQ, MsgType.SCHEMA_GET, 99)), noise.randbytes(4))
        host.live(2)
    host.put(MsgType.ESTOP)
    host.live(200)  # brakes, and must then have been seen at rest
    assert host.clear().result == AckResult.OK
    host.live(10)
    return bytes(host.raw)


def test_soft_and_hard_float_send_the_same_bytes(elves: dict[str, Path]) -> None:
    soft, hard = (script(Mcu(load(elves, name))) for name in IMAGES)
    assert len(soft) > 20_000
    assert soft == hard


def test_the_clock_wraps_in_mid_motion(elves: dict[str, Path]) -> None:
    """2³² µs = 71.6 min; TIMER0 itself wraps every 171.8 s on the way there."""
    mcu = Mcu(load(elves, "an385"))
    host = host_of(mcu, WIDE)
    host.introduce()
    for _ in range(26):
        mcu.warp(165_000_000)
        host.live(2)
    mcu.warp(2**32 - 300_000 - mcu.cycles // 25)
    host.live(20)
    host.upload()
    in_state(host, NodeState.READY)
    assert host.arm().result == AckResult.OK
    before = state(host).sample_t_us
    assert before > 2**32 - 300_000
    positions = []
    while not state(host).sample_t_us < before or state(host).sample_t_us < 100_000:
        stream(host, ALWAYS_ON, 1)
        positions.append(state(host).values[0])
    assert state(host).state == NodeState.ARMED
    assert state(host).misses + state(host).stale + state(host).ignored == 0
    assert all(b > a for a, b in pairwise(positions))


def test_a_deadline_beyond_the_wrap(elves: dict[str, Path]) -> None:
    """Commands stop 100 ms before the clock wraps: the TTL ends 150 ms after it."""
    mcu = Mcu(load(elves, "an385"), traced=True)
    trace = Trace()
    host = host_of(mcu, WIDE)
    host.introduce()
    for _ in range(26):
        mcu.warp(165_000_000)
        host.live(2)
    mcu.warp(2**32 - 130_000 - mcu.cycles // 25)
    host.live(12)
    host.upload()
    in_state(host, NodeState.READY)
    assert host.arm().result == AckResult.OK
    obs = state(host).sample_t_us
    stream(host, ALWAYS_ON, 1)
    mcu.trace.take()
    host.live(300)
    trace.feed(mcu.trace.take())
    end = next(tick for tick in trace.ticks if tick.state == NodeState.FAILSAFE)
    assert end.t_us < obs
    assert (end.t_us - obs) % 2**32 == TTL_US


def test_the_hosts_sequence_number_wraps(elves: dict[str, Path]) -> None:
    mcu = Mcu(load(elves, "an386"))
    host = armed(mcu)
    host.seq = 65_530
    stream(host, FAR, 12)
    assert state(host).applied_seq == 65_542 % 65_536
    assert state(host).ignored == 0
    host.command(FAR, seq=65_535)  # older, across the wrap
    host.live(2)
    assert state(host).ignored == 1


@pytest.mark.prove
def test_the_nodes_own_sequence_number_wraps(elves: dict[str, Path]) -> None:
    mcu = Mcu(load(elves, "an386"))
    host = armed(mcu)
    # Let it answer, to nobody, until its 16 bits are nearly through.
    mcu.link.blocked = True
    requests = b"".join(encode(MsgType.TIME_REQ, bytes(4), seq=1, t_us=0) for _ in range(3000))
    mcu.uc.mem_write(SCRATCH, requests)
    for _ in range(21):
        mcu.call("kz_node_rx", mcu.image.symbols["node.0"], SCRATCH, len(requests))
    mcu.link.unblock()
    host.live(10)
    first, *_, last = (frame.seq for frame in answered(host, 4000))
    assert first > 63_000
    assert last < 3000
    host.hellos = 0
    host.put(MsgType.HELLO_REQ)
    host.until(lambda: host.hellos)


def answered(host: Host, times: int) -> list[Frame]:
    """Frames that the node sends to so many requests, and their numbers are without a gap."""
    frames: list[Frame] = []
    for _ in range(times // 20):
        for _ in range(20):
            host.put(MsgType.TIME_REQ, bytes(4))
        frames += host.live()
    assert {(b.seq - a.seq) & 0xFFFF for a, b in pairwise(frames)} == {1}
    return frames


@pytest.mark.parametrize("has_rstinfo", [False, True])
def test_a_hang_cuts_the_outputs_and_resets_into_init(hanging_elves: dict[str, Path], has_rstinfo: bool) -> None:
    mcu = Mcu(load(hanging_elves, "an385"))
    mcu.has_rstinfo = has_rstinfo
    host = armed(mcu)
    first, session = host.hello, host.session
    assert first is not None
    host.hellos = 0
    while state(host).values[0] < 4242 - 1000:
        stream(host, FAR, 1)
    assert mcu.leds == 1
    host.command(FAR)
    host.live(6)
    stuck_since = mcu.cycles
    mcu.advance(21_000)
    assert mcu.leds == 0, "the watchdog's first bite"
    assert mcu.resets == 0
    mcu.advance(20_000)
    assert mcu.resets == 1, f"since {stuck_since}"

    host.live(30)
    assert host.hellos == 1
    assert host.hello is not None
    assert host.hello.reset_cause == ResetCause.WATCHDOG
    assert host.hello.boot_id != first.boot_id
    assert (host.hello.state, host.hello.limits_hash) == (NodeState.INIT, 0)
    assert state(host).state == NodeState.INIT
    assert mcu.leds == 0
    host.session = session
    stream(host, HERE, 3)
    assert state(host).state == NodeState.INIT
    assert state(host).ignored >= 3, "the old session is over"
    mcu.reset()  # somebody pulls the reset line: the watchdog is not blamed twice
    host.live(30)
    assert host.hello.reset_cause == ResetCause.SOFTWARE


def test_a_hang_during_boot(elves: dict[str, Path]) -> None:
    """Torque off first, then the watchdog, then everything that may hang."""
    mcu = Mcu(load(elves, "an385"))
    branch_to_itself = b"\xfe\xe7"
    mcu.uc.mem_write(mcu.image.symbols["kz_node_init"] & ~1, branch_to_itself)
    mcu.advance(1)
    assert mcu.leds == 0
    mcu.advance(41_000)
    assert mcu.resets == 1


def test_the_clock_loses_no_fraction(elves: dict[str, Path]) -> None:
    mcu = Mcu(load(elves, "an385"))
    mcu.advance(1500)
    start, cycles = mcu.call("clock_us"), mcu.cycles
    for _ in range(500):
        mcu.cycles += 13  # of 25 to the microsecond
        now = mcu.call("clock_us")
    assert now - start == (mcu.cycles - cycles) // 25 == 260


def test_boot_ids_differ(elves: dict[str, Path]) -> None:
    image = load(elves, "an385")
    ids = set()
    for noise in (0, 0x55, 0xA7):  # what the RAM holds when power comes
        mcu = Mcu(image, noise=noise)
        for _ in range(3):
            ids.add(host_of(mcu).introduce().boot_id)
            mcu.reset()
    assert len(ids) == 9


def test_the_button_stops_and_holds_the_stop(elves: dict[str, Path]) -> None:
    mcu = Mcu(load(elves, "an385"))
    host = armed(mcu)
    stream(host, FAR, 10)
    mcu.button = True
    in_state(host, NodeState.ESTOP)
    assert state(host).fault == Fault.ESTOP_LOCAL
    host.until(lambda: mcu.leds == 0)  # brakes first, then cuts
    assert host.clear().result == AckResult.ESTOP_INPUT
    mcu.button = False
    host.live(200)  # it must have been seen at rest
    assert host.clear().result == AckResult.OK
    in_state(host, NodeState.READY)


def test_a_host_that_does_not_listen_loses_whole_frames_only(elves: dict[str, Path]) -> None:
    mcu = Mcu(load(elves, "an385"))
    host = armed(mcu)
    mcu.link.blocked = True
    mcu.advance(600_000)
    mcu.link.unblock()
    frames = host.live(10)
    gaps = [(b.seq - a.seq) & 0xFFFF for a, b in pairwise(frames)]
    assert max(gaps) > 100, "frames were lost"
    assert host.decoder.bad_crc + host.decoder.bad_cobs + host.decoder.runt + host.decoder.too_long == 0
    assert (state(host).state, state(host).fault) == (NodeState.FAILSAFE, Fault.ARM_TTL)


def test_more_bytes_than_the_queue_holds_are_lost_and_told(elves: dict[str, Path]) -> None:
    mcu = Mcu(load(elves, "an385"))
    host = armed(mcu)
    host.hellos = 0
    for _ in range(40):
        host.put(MsgType.HELLO_REQ, bytes(2))  # 17 bytes each: 680 at once, into a queue of 512
    host.live(4)
    assert host.hellos == 512 // 17
    stream(host, FAR, 2)
    assert state(host).rx_errors == 1, "the frame that was cut off"
    assert state(host).state == NodeState.ARMED
