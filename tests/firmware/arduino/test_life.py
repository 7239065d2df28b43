"""From power-on to the stop contact: the sketch as Arduino's own builder compiles it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from avr import JOINTS, MODELS, Avr, Simavr
from sketch import (
    CENTRE_RAW,
    GAIN,
    LIMITS,
    PERIOD_TICKS,
    THERE,
    TICK_US,
    armed,
    compile_sketch,
    counts_of,
    host_of,
    in_state,
    named,
    output_state,
    result,
    state,
    states,
    stream,
)

from kizzasi_bridge import Decoder
from kizzasi_bridge.protocol import AckResult, Arm, Fault, MsgType, NodeState, ResetCause, SchemaGet

Boot = Callable[[str], Avr]
DDRD = 0x2A


def test_a_life(avr: Avr) -> None:
    """Boot, INIT, limits, ARM, commands, TTL, FAILSAFE, CLEAR, ARM again."""
    host = host_of(avr)
    hello = host.introduce()
    assert (hello.reset_cause, hello.state, hello.limits_hash) == (ResetCause.POWER_ON, NodeState.INIT, 0)
    schema = host.handshake.schema
    assert schema is not None
    assert (schema.board, len(schema.channels), schema.tick_us) == ("pan-tilt", JOINTS, TICK_US)
    host.live(10)
    assert not avr.power
    assert avr.widths() == [None] * JOINTS, "no pulses until there are limits"

    host.upload()
    in_state(host, NodeState.READY)
    host.live(8)
    assert avr.power
    for joint, width in enumerate(avr.widths()):
        assert width is not None
        assert abs(counts_of(width) - avr.counts[joint]) < 1, "holds where it was measured"

    assert host.arm().result == AckResult.OK
    for _ in range(10):
        host.command(THERE)
        host.live(PERIOD_TICKS)
        for joint, width in enumerate(avr.widths()):
            assert width is not None
            assert abs(counts_of(width) * 64 - state(host).values[joint]) < 1000, "the pulses follow the setpoints"
    moving = state(host)
    assert moving.state == NodeState.ARMED
    assert moving.values[0] > CENTRE_RAW + 1000
    assert moving.values[1] < CENTRE_RAW - 1000
    assert moving.ignored + moving.stale == 0
    assert all(abs(m - a) < 3000 for a, m in zip(moving.values[:JOINTS], moving.values[JOINTS:], strict=True))

    host.command(THERE)  # the last one: computed from `moving`
    seen = states(host.live(50))
    end = next(s for s in seen if s.state == NodeState.FAILSAFE)
    assert end.fault == Fault.TTL
    applied = [s.values[0] for s in seen]
    assert max(abs(c - 2 * b + a) for a, b, c in zip(applied, applied[1:], applied[2:], strict=False)) <= 57
    assert applied[-1] == applied[-2], "at rest"
    assert avr.power, "it holds"
    for width, position in zip(avr.widths(), seen[-1].values, strict=False):
        assert width is not None
        assert abs(counts_of(width) * 64 - position) < 12, "half a microsecond is 11 raw"

    assert host.request(MsgType.ARM, Arm(state(host).nonce, host.limits_hash).pack()).result == AckResult.WRONG_STATE
    assert host.clear().result == AckResult.OK
    in_state(host, NodeState.READY)
    assert host.arm().result == AckResult.OK
    assert host.decoder.bad_crc + host.decoder.bad_cobs + host.decoder.runt + host.decoder.too_long == 0
    assert avr.resets == 0


def test_failsafe_on_the_first_tick_past_the_ttl(uno: Avr) -> None:
    host = armed(uno)
    stream(host, THERE, 10)
    deadline = state(host).sample_t_us + 1000 * LIMITS.ttl_max_ms
    host.command(THERE)
    uno.watch(["board_us", "machine_actuate"])
    host.live(30)
    times, before = [], None
    now = 0
    for event in uno.events():
        if event.name == "board_us" and event.returned:
            now = result(event)
        elif named(event, "machine_actuate"):
            failed = output_state(event) == NodeState.FAILSAFE
            times.append((now, failed))
            if failed:
                break
            before = now
    assert all(abs(b - a - TICK_US) < 100 for (a, _), (b, _) in pairwise(times[1:]))  # the first had a COMMAND to read
    assert before is not None
    assert times[-1][1]
    assert before < deadline <= now < before + TICK_US + 100


@pytest.mark.prove
def test_what_the_pins_carry(boot: Boot) -> None:
    """One whole pulse in each frame of 20 ms, the first as right as the last."""
    mega = boot("mega")  # simavr's Uno keeps to the first width
    host = armed(mega)
    low, high = LIMITS.channels[0].lo, LIMITS.channels[0].hi
    for k in range(4):
        stream(host, (low, high) if k % 2 else (high, low), 40)
    for widths in mega.pulses():
        assert 160 <= len(widths) <= 166, "one in each frame"
        assert 1000 <= min(widths) < 1050
        assert 1950 < max(widths) <= 2000
        assert max(abs(b - a) for a, b in pairwise(widths)) <= 1.05 * LIMITS.channels[0].w * GAIN / 2


def test_the_stop_contact(avr: Avr) -> None:
    host = armed(avr)
    stream(host, THERE, 10)
    avr.press(True)
    in_state(host, NodeState.ESTOP)
    assert state(host).fault == Fault.ESTOP_LOCAL
    host.until(lambda: not avr.power)  # it brakes first, then cuts
    assert avr.widths() == [None] * JOINTS
    assert host.clear().result == AckResult.ESTOP_INPUT
    avr.press(False)
    host.live(80)  # it must have been seen at rest
    assert not avr.power
    assert host.clear().result == AckResult.OK
    in_state(host, NodeState.READY)
    host.live(4)
    assert avr.power


def test_a_broken_wire(avr: Avr) -> None:
    avr.measure(1, 0)
    host = host_of(avr)
    host.upload()
    host.live(50)
    assert state(host).state == NodeState.INIT, "no setpoint is taken from a wire that is not there"
    assert not avr.power
    avr.measure(1, 512)
    in_state(host, NodeState.READY)
    assert host.arm().result == AckResult.OK
    stream(host, THERE, 5)
    avr.measure(0, 0)
    host.command(THERE)
    host.live(2 * PERIOD_TICKS)
    assert (state(host).state, state(host).fault) == (NodeState.FAILSAFE, Fault.SENSOR)


def test_the_first_reading_counts_for_nothing(uno: Avr) -> None:
    uno.watch(["machine_sense"])
    uno.advance(5 * TICK_US)
    inputs = [event.arguments[6] for event in uno.events() if event.returned]
    assert inputs[:3] == [8, 0, 0]


def test_a_flood_of_bytes_is_survived(avr: Avr) -> None:
    """More requests than the core's receive buffer holds: what is lost is counted, what is sent is whole."""
    host = armed(avr)
    for _ in range(100):
        host.put(MsgType.SCHEMA_GET, SchemaGet(0, 240).pack())
    answers = [frame for frame in host.live(30) if frame.type == MsgType.SCHEMA_DATA]
    assert 3 <= len(answers) < 100
    assert state(host).rx_errors > 0
    assert host.decoder.bad_crc + host.decoder.bad_cobs + host.decoder.runt + host.decoder.too_long == 0
    stream(host, THERE, 5)
    assert state(host).state == NodeState.ARMED


@pytest.mark.prove
def test_a_line_that_is_too_slow_loses_whole_frames_only(simavr: Simavr, libraries: Path, out: Path) -> None:
    """At 9600 baud a STATE takes 61 ms, and there is one every 10 ms."""
    sketch = out / "slow" / "PanTilt"
    shutil.copytree(libraries / "Kizzasi" / "examples" / "PanTilt", sketch)
    main = sketch / "PanTilt.ino"
    main.write_text(main.read_text().replace("Serial.begin(500000)", "Serial.begin(9600)"))
    avr = Avr(simavr, compile_sketch(MODELS["uno"], libraries, sketch, out / "slow-uno"), MODELS["uno"])
    avr.advance(3_000_000)
    decoder = Decoder()
    frames = decoder.feed(avr.take())
    gaps = [(b.seq - a.seq) & 0xFFFF for a, b in pairwise(frames)]
    assert max(gaps) > 3
    assert len(frames) > 40, "the line is busy all the time"
    assert decoder.bad_crc + decoder.bad_cobs + decoder.runt + decoder.too_long == 0


def test_the_clock_wraps_in_mid_motion(uno: Avr) -> None:
    """2**32 us = 71.6 min: the board starts 0.8 s before that."""
    while not uno.memory[DDRD][0] & 0x10:  # machine_start; the port's clock starts next
        uno.advance(1)
    at = uno.symbols["timer0_overflow_count"] & 0xFFFF
    uno.memory[at : at + 4] = (2**22 - 800).to_bytes(4, "little")
    host = armed(uno)
    before = state(host).sample_t_us
    assert before > 2**31
    positions = []
    while not state(host).sample_t_us < 200_000:
        stream(host, (LIMITS.channels[0].hi, LIMITS.channels[1].lo), 1)
        positions.append(state(host).values[0])
    assert state(host).state == NodeState.ARMED
    assert state(host).stale + state(host).ignored == 0
    assert all(b >= a for a, b in pairwise(positions))
