"""A host that is killed, stopped or slow, and the machine that it moved, by the board's own clock: the plant sees every
tick.

The board's time passes in the exchanges with the plant only. While the host is meant to live, the plant lets it pass
no further than some ms beyond the newest observation that the host has answered, so that a busy machine that forgets
the host for a while stops no arm."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import IO

import pytest
from bare_host import CHANNELS, Tick, Trace
from link_host import BUDGET, PERIOD_US, H, W

from kizzasi_bridge.board import PosixBoard
from kizzasi_bridge.link import Link
from kizzasi_bridge.protocol import Fault, NodeState
from kizzasi_bridge.schema import Schema

SCHEMA = Schema.positions(tuple(f"joint_{i}" for i in range(CHANNELS)), scale=2.0**-21)
TICK_US = SCHEMA.tick_us
MESSAGE = 16 + 8 * CHANNELS
AHEAD_US = 20_000
HOST = Path(__file__).parent / "link_host.py"


class Machine:
    """Ideal motors behind the plant socket; what they were told on every tick, and what the host said it does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trace = Trace(TICK_US)
        self.stamps: list[tuple[int, bool]] = []  # of the observations that the host answered; whether it was slow
        self.waits = False
        self._said: IO[bytes] | None = None
        self._rest = b""
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen(1)
        self._closing = False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def ticks(self) -> list[Tick]:
        return self.trace.ticks

    def listen(self, host: subprocess.Popen[bytes]) -> None:
        """Follow what the host prints, and wait for it from now on."""
        assert host.stdout is not None
        os.set_blocking(host.stdout.fileno(), False)
        self._said = host.stdout
        self.waits = True

    def _serve(self) -> None:
        connection, _ = self._server.accept()
        with connection, suppress(ConnectionResetError, BrokenPipeError):
            while not self._closing:
                data = connection.recv(MESSAGE, socket.MSG_WAITALL)
                if len(data) < MESSAGE:
                    return
                self.trace.feed(data)
                self._read_host()
                while self.waits and self.stamps and self.ticks[-1].t_us > self.stamps[-1][0] + AHEAD_US:
                    time.sleep(0.001)
                    self._read_host()
                connection.sendall(struct.pack(f"<BBH{CHANNELS}i", 0, CHANNELS, 0, *self.ticks[-1].out))

    def _read_host(self) -> None:
        if self._said is None:
            return
        with suppress(BlockingIOError):
            *lines, self._rest = (self._rest + os.read(self._said.fileno(), 1 << 16)).split(b"\n")
            self.stamps += [(int(line.split()[0]), line.endswith(b"1")) for line in lines]

    def until(self, condition: Callable[[], object], timeout_s: float = 30.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, (self.ticks[-3:], self.stamps[-3:])
            time.sleep(0.002)

    def pass_time(self, ms: int) -> None:
        """Let so much of the board's time pass."""
        begin = len(self.ticks)
        self.until(lambda: len(self.ticks) >= begin + 1000 * ms // TICK_US)

    def close(self) -> None:
        self._closing, self.waits = True, False
        self._thread.join(10)
        self._server.close()
        if self._said is not None:
            self._said.close()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    plant = Machine(tmp_path / "plant")
    try:
        yield plant
    finally:
        plant.close()


@pytest.fixture
def board(machine: Machine, tmp_path: Path) -> Iterator[PosixBoard]:
    with PosixBoard(SCHEMA, plant=machine.path, directory=tmp_path) as running:
        yield running


@contextmanager
def running_host(board: PosixBoard, machine: Machine, *arguments: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has armed the board and moves it at full speed."""
    paths = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, str(HOST), str(board.port), *map(str, arguments)]
    host = subprocess.Popen(command, stdout=subprocess.PIPE, env=dict(os.environ, PYTHONPATH=paths))
    try:
        machine.listen(host)
        machine.until(lambda: machine.ticks and machine.ticks[-1].applied[0] > 100 * W)
        yield host
    finally:
        machine.waits = False
        host.kill()
        host.wait()  # its pipe stays open until the machine no longer reads it


def stopped_by_its_ttl(ticks: list[Tick], stamps: list[int], ttl_ms: int) -> tuple[int, int]:
    """FAILSAFE on the first tick at or after the deadline of the last observation, one of ``stamps``; motion as the
    limits say before and after it; at rest. Returns when it came and when nothing moved any more, µs after that."""
    end = next(i for i, tick in enumerate(ticks) if tick.state == NodeState.FAILSAFE)
    assert ticks[end - 1].state == NodeState.ARMED
    assert all(tick.state == NodeState.FAILSAFE for tick in ticks[end:])
    took = [ticks[end].t_us - stamp for stamp in stamps]
    (failsafe,) = [each for each in took if 1000 * ttl_ms <= each < 1000 * ttl_ms + TICK_US] or [took]
    assert isinstance(failsafe, int), f"FAILSAFE came {took} µs after the last observations, TTL {ttl_ms} ms"
    periods = [tick for tick in ticks if tick.boundary and tick.state != NodeState.INIT]
    assert all(b.t_us - a.t_us == PERIOD_US for a, b in pairwise(periods)), "a period is missing"
    for a, b, c in zip(periods, periods[1:], periods[2:], strict=False):
        for x, y, z in zip(a.applied, b.applied, c.applied, strict=True):
            assert abs(z - y) <= W
            assert abs(z - 2 * y + x) <= H
    rest = next(i for i in range(len(periods) - 1, 0, -1) if periods[i].applied != periods[i - 1].applied)
    assert len(periods) - rest > 20, "it holds"
    assert all(tick.enabled for tick in ticks[end:]), "and is not let go of"
    return failsafe, periods[rest].t_us - (ticks[end].t_us - failsafe)


def told(what: str, failsafe: int, rest: int, ttl_ms: int) -> None:
    text = f"{what}: FAILSAFE {failsafe / 1000:.1f} ms after the last observation (TTL {ttl_ms} ms, tick 1 ms)"
    sys.stdout.write(f"\n{text}, at rest after {rest / 1000:.1f} ms\n")


# From full speed it coasts for the miss budget and brakes for W/H periods: 86 ms. A TTL of 60 ms falls into that.
@pytest.mark.parametrize(
    ("how", "ttl_ms"),
    [
        pytest.param(signal.SIGKILL, 60, id="kill -9, braking"),
        pytest.param(signal.SIGSTOP, 200, id="stopped, at rest"),
        pytest.param(signal.SIGKILL, 200, id="kill -9, at rest", marks=pytest.mark.prove),
        pytest.param(signal.SIGSTOP, 60, id="stopped, braking", marks=pytest.mark.prove),
    ],
)
def test_a_host_that_is_no_more(board: PosixBoard, machine: Machine, how: signal.Signals, ttl_ms: int):
    with running_host(board, machine, ttl_ms) as host:
        host.send_signal(how)
        if how is signal.SIGKILL:
            host.wait()
        machine.waits = False
        machine.until(lambda: machine.ticks[-1].state == NodeState.FAILSAFE)
        machine.pass_time(150)
        stamps = [stamp for stamp, _ in machine.stamps[-2:]]  # it may have been stopped between print and send
        took = stopped_by_its_ttl(machine.ticks, stamps, ttl_ms)
        if how is signal.SIGSTOP:
            machine.pass_time(300)
            host.send_signal(signal.SIGCONT)  # with 200 STATEs in its buffer
            machine.pass_time(300)
            assert stopped_by_its_ttl(machine.ticks, stamps, ttl_ms) == took, "what it sent then changed nothing"
    told(how.name, *took, ttl_ms)
    assert took[1] <= BUDGET * PERIOD_US + PERIOD_US * (W // H + 2) + PERIOD_US
    with Link(board.port) as link:
        state = link.wait_state(0, 10.0)
        assert (state.state, state.fault) == (NodeState.FAILSAFE, Fault.TTL)
        assert state.ignored + state.stale <= 3, "the command under way and its successors, no backlog"


def test_a_slow_host_is_as_good_as_none(board: PosixBoard, machine: Machine):
    """Its COMMANDs are 100 ms old when they arrive, and good for 20: they neither move the arm nor keep it armed."""
    ttl_ms = 300
    with running_host(board, machine, ttl_ms, 200, 100, 20):
        machine.until(lambda: machine.stamps and machine.stamps[-1][1])
        machine.waits = False
        machine.until(lambda: machine.ticks[-1].state == NodeState.FAILSAFE)
        machine.pass_time(150)
        prompt = [stamp for stamp, slow in machine.stamps if not slow]
        late = [stamp for stamp, slow in machine.stamps if slow]
        failsafe, rest = stopped_by_its_ttl(machine.ticks, prompt[-1:], ttl_ms)
        assert len(late) >= 2
    told("slow host", failsafe, rest, ttl_ms)
    assert rest < 1000 * ttl_ms, "at rest long before the TTL: nothing late was applied"
    with Link(board.port) as link:
        state = link.wait_state(0, 10.0)
        assert state.fault == Fault.TTL
        assert state.stale >= 1
