"""Linked firmware as the virtual MCU loads it, and a host on its UART."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from bare_host import LIMITS, Host
from unimcu import Image, Mcu

from kizzasi_bridge.protocol import Limits, NodeState

BOARD = Path(__file__).parents[2] / "firmware_bridge" / "boards" / "mps2"
Build = Callable[..., dict[str, Path]]
"""``build(MACHINE=...)`` runs make; the ELF of each image."""


def flat(elf: Path, cross: str) -> bytes:
    """What of an ELF is loaded, as one piece. By a file of its own: objcopy replaces what it writes to."""
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "flat"
        subprocess.run([f"{cross}objcopy", "-O", "binary", str(elf), str(target)], check=True)
        return target.read_bytes()


def tool(name: str, *arguments: object) -> bytes:
    """The output of one of the cross compiler's tools."""
    return subprocess.run([f"arm-none-eabi-{name}", *map(str, arguments)], check=True, capture_output=True).stdout


def load(elves: dict[str, Path], name: str) -> Image:
    """The ELF of an MPS2 image: its flash and its symbols."""
    elf = elves[name]
    rows = (line.split() for line in tool("nm", elf).decode().splitlines())
    symbols = {row[2]: int(row[0], 16) for row in rows if len(row) == 3}
    return Image(name, elf, flat(elf, "arm-none-eabi-"), symbols)


def host_of(mcu: Mcu, limits: Limits = LIMITS) -> Host:
    """A host that lets 1 ms of firmware life pass with each exchange."""

    def exchange(data: bytes) -> bytes:
        if data:
            mcu.link.give(data)
        mcu.advance(1000)
        return mcu.link.take()

    return Host(exchange, limits)


def armed(mcu: Mcu, limits: Limits = LIMITS) -> Host:
    """Boot, introduce, upload, ARM."""
    host = host_of(mcu, limits)
    host.upload()
    host.until(lambda: host.now and host.now.state == NodeState.READY)
    assert host.arm().result == 0
    return host


def stream(host: Host, values: tuple[int, ...], periods: int) -> None:
    """A COMMAND and a period (of 2 ms), so many times."""
    for _ in range(periods):
        host.command(values)
        host.live(2)
