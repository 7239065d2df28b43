"""Frames on the host, beside PyPI cobs + zlib, and round trips to the firmware on the POSIX board.

    python benchmarks/bench_wire.py [--json PATH] [--rounds N] [--seconds S]

Codec: one thread pinned to one core, all contenders of a case in interleaved rounds of one run.

* COMMAND, STATE: one frame of six channels (and six sensors), encoded, decoded, and both
* longest: the same for a payload of 240 bytes
* batch: `Decoder.feed` of 100 STATEs at once, per frame
* cobs + zlib: what a careful Python program would do with the same bytes; its fields end in a tuple

Round trips: the host's process on one core, the board's on another, where there are two.

* TIME: TIME_REQ is written, TIME_RSP read and decoded. A board reads its port once a tick, so that with a tick of 1 ms
  most of this is its sleep; a board that never sleeps (--fast) shows what the wire itself takes: both codecs, the pty
  and the scheduler
* COMMAND: from `Link.command` to the `Link.wait_state` that shows it applied, which is after the next period begins

Reader: CPU of a Link that receives 1000 STATEs a second and does nothing else with them.

Exit code 1 if a requirement below is not met.
"""

from __future__ import annotations

import argparse
import os
import select
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from racing import Call, pin, race, write_results
from rich.console import Console
from rich.table import Table

from kizzasi_bridge import Decoder, encode
from kizzasi_bridge.board import PosixBoard
from kizzasi_bridge.frame import DEFAULT_FLAGS, MAX_PAYLOAD
from kizzasi_bridge.link import Link
from kizzasi_bridge.protocol import ChannelLimits, Command, Limits, MsgType, State, TimeRequest, TimeResponse
from kizzasi_bridge.schema import Schema

CHANNELS = 6
BATCH = 100
HEADER = struct.Struct("<BBHI")
LOST_S = 0.5
PEER = "cobs + zlib"

Figures = dict[str, dict[str, dict[str, float]]]
"""Case → contender → p50_us, p99_us."""

REQUIREMENTS = (  # case, contender, p50 at most, µs
    ("COMMAND", "encode + decode", 2.0),
    ("STATE", "encode + decode", 2.0),
    ("batch", "decode", 0.6),
    ("round trip", "TIME, unpaced", 100.0),
)


# ---- the codec ---------------------------------------------------------------------------------------------


def command_payload() -> bytes:
    return Command(0xDEADBEEF, 123_456_789, 100, tuple(range(-3, CHANNELS - 3))).pack()


def state_payload() -> bytes:
    values = tuple(1000 * k for k in range(2 * CHANNELS))
    return State(2, 0, 0, 1, 0xA1B2C3D4, 0xDEADBEEF, 77, 0, 123_456_789, 0, 0, 3, 0, values).pack()


def peer_codec() -> tuple[Callable[[int, bytes], bytes], Callable[[bytes], list[tuple[object, ...]]]] | None:
    """The same frames by PyPI cobs and zlib."""
    try:
        from cobs import cobs
    except ImportError as missing:
        print(f"left out: cobs + zlib: {missing}")
        return None

    def peer_encode(kind: int, payload: bytes) -> bytes:
        body = HEADER.pack(kind, DEFAULT_FLAGS, 1, 2) + payload
        return b"\0" + cobs.encode(body + zlib.crc32(body).to_bytes(4, "little")) + b"\0"

    def peer_decode(stream: bytes) -> list[tuple[object, ...]]:
        frames = []
        for piece in stream.split(b"\0"):
            if not piece:
                continue
            try:
                body = cobs.decode(piece)
            except cobs.DecodeError:
                continue
            if len(body) >= 12 and zlib.crc32(body[:-4]) == int.from_bytes(body[-4:], "little"):
                frames.append((*HEADER.unpack_from(body), body[8:-4]))
        return frames

    return peer_encode, peer_decode


def one_frame(kind: int, payload: bytes) -> dict[str, Call]:
    decoder = Decoder()
    frame = encode(kind, payload, seq=1, t_us=2)
    calls: dict[str, Call] = {
        "encode": lambda: encode(kind, payload, seq=1, t_us=2),
        "decode": lambda: decoder.feed(frame),
        "encode + decode": lambda: decoder.feed(encode(kind, payload, seq=1, t_us=2)),
    }
    if peer := peer_codec():
        peer_encode, peer_decode = peer
        if peer_encode(kind, payload) != frame or peer_decode(frame) != [tuple(decoder.feed(frame)[0])]:
            raise AssertionError("the peer speaks another wire")
        calls |= {
            f"{PEER} encode": lambda: peer_encode(kind, payload),
            f"{PEER} decode": lambda: peer_decode(frame),
            f"{PEER} encode + decode": lambda: peer_decode(peer_encode(kind, payload)),
        }
    return calls


def batch() -> dict[str, Call]:
    decoder = Decoder()
    stream = b"".join(encode(MsgType.STATE, state_payload(), seq=k, t_us=k) for k in range(BATCH))
    if len(decoder.feed(stream)) != BATCH:
        raise AssertionError("frames were lost")
    calls: dict[str, Call] = {"decode": lambda: decoder.feed(stream)}
    if peer := peer_codec():
        calls[f"{PEER} decode"] = lambda: peer[1](stream)
    return calls


def codec(rounds: int) -> Figures:
    longest = bytes(1 + k % 255 for k in range(MAX_PAYLOAD))
    cases = {
        "COMMAND": (1, one_frame(MsgType.COMMAND, command_payload())),
        "STATE": (1, one_frame(MsgType.STATE, state_payload())),
        "longest": (1, one_frame(MsgType.LOG, longest)),
        "batch": (BATCH, batch()),
    }
    return {
        title: {name: summary(times / frames) for name, times in race(calls, rounds).items()}
        for title, (frames, calls) in cases.items()
    }


def summary(us: np.ndarray) -> dict[str, float]:
    return {"p50_us": float(np.median(us)), "p99_us": float(np.percentile(us, 99))}


# ---- the board ---------------------------------------------------------------------------------------------


@contextmanager
def board(tick_us: int, period_us: int, *, fast: bool = False) -> Iterator[PosixBoard]:
    """A board with limits, on another core than ours."""
    schema = Schema.positions(tuple(f"joint{i}" for i in range(CHANNELS)), scale=2.0**-21, tick_us=tick_us)
    limits = Limits((ChannelLimits(-(2**29), 2**29, 4000, 100),) * CHANNELS, period_us, 3, 5000, 5000)
    everywhere = os.sched_getaffinity(0)
    others = everywhere - {max(everywhere)} or everywhere
    with PosixBoard(schema, fast=fast) as running:
        os.sched_setaffinity(running.process.pid, others)
        with Link(running.port) as link:
            link.upload_limits(limits)
        os.sched_setaffinity(0, {max(everywhere)})
        try:
            yield running
        finally:
            os.sched_setaffinity(0, everywhere)


def time_round_trips(port: Path, seconds: float) -> np.ndarray:
    """µs from TIME_REQ to its decoded TIME_RSP, one after the other."""
    fd = os.open(port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    decoder = Decoder()

    def ask(cookie: int) -> bool:
        os.write(fd, encode(MsgType.TIME_REQ, TimeRequest(cookie).pack(), seq=cookie & 0xFFFF, t_us=0))
        give_up = time.monotonic() + LOST_S
        while time.monotonic() < give_up:
            if not poller.poll(1000 * LOST_S):
                continue
            for frame in decoder.feed(os.read(fd, 4096)):
                if frame.type == MsgType.TIME_RSP and TimeResponse.unpack(frame.payload).cookie == cookie:
                    return True
        return False

    try:
        return one_after_the_other(ask, seconds)
    finally:
        os.close(fd)


def command_round_trips(port: Path, seconds: float) -> np.ndarray:
    """µs from Link.command to the wait_state that shows it applied."""
    raw = np.zeros(CHANNELS, dtype=np.int32)
    with Link(port) as link:
        link.arm()

        def command(_: int) -> bool:
            state = link.latest
            assert state is not None
            before = state.applied_seq
            give_up = time.monotonic() + LOST_S
            link.command(raw, state.t_us, 5000)
            while time.monotonic() < give_up:
                state = link.wait_state(state.count, LOST_S) or state
                if state.applied_seq != before:
                    return True
            return False

        times = one_after_the_other(command, seconds)
        link.disarm()
    return times


def one_after_the_other(act: Callable[[int], bool], seconds: float) -> np.ndarray:
    """How long each took, µs; those that came to nothing (a board drops what it sends before it has seen that its port
    is open) are left out, unless they are many."""
    times, turns = [], 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        turns += 1
        start = time.perf_counter_ns()
        if act(turns):
            times.append(time.perf_counter_ns() - start)
    if turns - len(times) > 2:
        raise TimeoutError(f"{turns - len(times)} of {turns} got no answer")
    return np.array(times) / 1e3


def reader_cpu(port: Path, seconds: float) -> dict[str, float]:
    """Of this process, whose only busy thread is the Link's reader."""
    with Link(port) as link:
        link.wait_state(0, 5.0)
        states, cpu, began = link.counters["states_rx"], time.process_time(), time.perf_counter()
        time.sleep(seconds)
        states, cpu = link.counters["states_rx"] - states, time.process_time() - cpu
        elapsed = time.perf_counter() - began
    return {"states_hz": states / elapsed, "cpu_percent": 100 * cpu / elapsed, "us_per_state": 1e6 * cpu / states}


def round_trips(seconds: float) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    found = {}
    # A second between STATEs, so that nothing but the answers is on the line.
    for name, tick_us, fast in (("unpaced", 1000, True), ("tick 0.1 ms", 100, False), ("tick 1 ms", 1000, False)):
        with board(tick_us, 1_000_000, fast=fast) as running:
            found[f"TIME, {name}"] = summary(time_round_trips(running.port, seconds))
    with board(1000, 1000) as running:
        found["COMMAND, period 1 ms"] = summary(command_round_trips(running.port, seconds))
        cpu = reader_cpu(running.port, seconds)
    return found, cpu


# ---- the report --------------------------------------------------------------------------------------------


def show(found: Figures, cpu: dict[str, float]) -> None:
    table = Table(title=f"{CHANNELS} channels, µs")
    for column in ("case", "", "p50", "p99", "× peer"):
        table.add_column(column, justify="left" if column in ("case", "") else "right")
    for title, rows in found.items():
        for number, (name, figures) in enumerate(rows.items()):
            peer = rows.get(f"{PEER} {name}")
            ratio = f"{figures['p50_us'] / peer['p50_us']:.2f}" if peer else "–"
            times = (f"{figures['p50_us']:.2f}", f"{figures['p99_us']:.2f}")
            table.add_row("" if number else title, name, *times, ratio)
        table.add_section()
    Console(width=80).print(table)
    print(
        f"reader at {cpu['states_hz']:.0f} STATEs/s: {cpu['cpu_percent']:.1f} % of a core, "
        f"{cpu['us_per_state']:.0f} µs each"
    )


def judge(found: Figures) -> bool:
    """Print every requirement; whether all of them are met."""
    met = True
    for case, name, most in REQUIREMENTS:
        figure = found[case][name]["p50_us"]
        met &= figure <= most
        print(f"{case}: {name} p50 ≤ {most:g} µs: {'met' if figure <= most else 'NOT met'}, {figure:.3g}")
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description="Frames beside cobs + zlib, and round trips to the POSIX board.")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each kind of round trip")
    options = parser.parse_args()
    trips, cpu = round_trips(options.seconds)
    pin()
    found = codec(options.rounds) | {"round trip": trips}
    show(found, cpu)
    met = judge(found)
    if options.json:
        write_results(options.json, found, met, reader_at_1_khz=cpu)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
