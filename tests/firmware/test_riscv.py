"""RV32IMC does what the gateway does, bit for bit: the guard, and whole sessions through the node."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Protocol

import pytest

pytest.importorskip("unicorn")

from bare_host import CHANNELS, Host
from kizzasi_bridge._kz_core import ffi, lib
from rv32 import CC, SCRATCH, Rv32, build
from same_guard import same_guard

from kizzasi_bridge.protocol import AckResult, MsgType, NodeState
from kizzasi_bridge.schema import Schema

TICK_US = 1000
BOOT_ID = 77
SCHEMA = Schema.positions(tuple(f"joint{i + 1}" for i in range(CHANNELS)), scale=2.0**-21, tick_us=TICK_US).to_bytes()
START_US = 2**32 - 300_000  # the clock wraps in mid motion


@pytest.fixture(scope="module")
def elf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which(CC):
        pytest.skip(f"{CC} is not installed (Debian: gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf)")
    return build(tmp_path_factory.mktemp("rv32"))


def test_the_same_guard(elf: Path) -> None:
    hart = Rv32(elf)
    same_guard(hart.call, hart.write, hart.read, SCRATCH, random.Random("rv32"))


class Node(Protocol):
    """A node on its virtual board; ``exchange``: bytes in, one tick, bytes out."""

    def exchange(self, data: bytes) -> bytes: ...


class OnHost:
    """In this process."""

    def __init__(self, modes: bytes) -> None:
        self._h = ffi.new("kz_host_node *")
        sizes = len(SCHEMA), TICK_US, BOOT_ID, 0
        assert lib.kz_host_node_init(self._h, CHANNELS, CHANNELS, modes, SCHEMA, *sizes)
        self._h.ideal = 1
        self._us = START_US
        self._buffer = bytearray(1 << 16)

    def exchange(self, data: bytes) -> bytes:
        lib.kz_host_node_rx(self._h, data, len(data))
        self._us = (self._us + TICK_US) & 0xFFFFFFFF
        lib.kz_host_node_tick(self._h, self._us)
        return bytes(self._buffer[: lib.kz_host_node_take(self._h, ffi.from_buffer(self._buffer), 1 << 16)])


class OnRv32:
    """In Unicorn."""

    BYTES, BOARD = SCRATCH, SCRATCH + (1 << 17)  # what goes in and out; the kz_host_node

    def __init__(self, elf: Path, modes: bytes) -> None:
        self._hart = Rv32(elf)
        self._hart.write(self.BYTES, modes + SCHEMA)
        arguments = CHANNELS, CHANNELS, self.BYTES, self.BYTES + CHANNELS, len(SCHEMA), TICK_US, BOOT_ID, 0
        assert self._hart.call("kz_host_node_init", self.BOARD, *arguments)
        # plain int32 and small members stand first in a kz_host_node, so its offsets are those of the host
        self._hart.write(self.BOARD + ffi.offsetof("kz_host_node", "ideal"), b"\1")
        self._us = START_US

    def exchange(self, data: bytes) -> bytes:
        self._hart.write(self.BYTES, data)
        self._hart.call("kz_host_node_rx", self.BOARD, self.BYTES, len(data))
        self._us = (self._us + TICK_US) & 0xFFFFFFFF
        self._hart.call("kz_host_node_tick", self.BOARD, self._us)
        return self._hart.read(self.BYTES, self._hart.call("kz_host_node_take", self.BOARD, self.BYTES, 1 << 16))


def script(node: Node) -> bytes:
    """All that the node sends in a life with noise, good and bad requests, motion, misses, TTL, ESTOP, CLEAR."""
    noise = random.Random(5)
    junk: list[bytes] = []
    host = Host(lambda data: node.exchange(data + b"".join(junk)))
    host.upload()
    host.until(lambda: host.now and host.now.state == NodeState.READY)
    assert host.arm().result == AckResult.OK
    for i in range(400):
        if i % 7:
            host.command(tuple(noise.randrange(-120_000, 120_000) for _ in range(CHANNELS)))
        junk[:] = [noise.randbytes(40)] if i % 31 == 0 else []
        if i % 13 == 0:
            host.put(noise.choice((MsgType.TIME_REQ, MsgType.HELLO_REQ, MsgType.SCHEMA_GET, 99)), noise.randbytes(4))
        host.live(2)
    host.until(lambda: host.now and host.now.state == NodeState.FAILSAFE)
    host.live(200)
    assert host.clear().result == AckResult.OK
    host.live(4)
    assert host.arm().result == AckResult.OK
    host.command((50_000,) * CHANNELS)
    host.live(30)
    host.put(MsgType.ESTOP)
    host.live(200)
    assert host.now is not None
    assert host.now.state == NodeState.ESTOP
    assert host.clear().result == AckResult.OK
    host.live(10)
    assert host.now.sample_t_us < START_US, "the clock has wrapped"
    return bytes(host.raw)


@pytest.mark.parametrize(
    "modes", [bytes(CHANNELS), bytes(i % 3 for i in range(CHANNELS))], ids=["positions", "all modes"]
)
def test_the_same_session(elf: Path, modes: bytes) -> None:
    here, there = script(OnHost(modes)), script(OnRv32(elf, modes))
    assert len(here) > 50_000
    assert there == here
