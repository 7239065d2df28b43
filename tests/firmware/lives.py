"""Whole lives of a node, on this machine and on an emulated core: firmware_bridge/c/prove/live_node.c."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from careless_nodes import careless
from images import tool
from unicorn import UC_ARCH_ARM, UC_MODE_MCLASS, UC_MODE_THUMB, UC_PROT_READ, UC_PROT_WRITE, Uc, UcError
from unicorn.arm_const import UC_ARM_REG_LR, UC_ARM_REG_R0, UC_ARM_REG_R1, UC_ARM_REG_SP
from unimcu import CPU, FLASH, RAM, RETURN, SIZE

from kizzasi_bridge.protocol import AckResult, Fault, MsgType, NodeState

__all__ = ["CORES", "MUTANTS", "Core", "Lived", "Native", "compile_core", "compile_native"]

C = Path(__file__).parents[2] / "firmware_bridge" / "c"
SOURCES = ["prove/live_node.c", "kz_node.c", "kz_channel.c", "kz_wire.c", "kz_guard.c"]
FLAGS = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-Wno-unused", "-DKZ_NODE_CH=2", "-DKZ_NODE_SENSORS=2"]
# As boards/mps2/Makefile compiles for them.
CORES = {
    "an385": ["-mthumb", "-mcpu=cortex-m3"],
    "an386": ["-mthumb", "-mcpu=cortex-m4", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"],
}
CODE, BSS = FLASH + 0x100, RAM

MUTANTS = (
    "ARM with any nonce",
    "CLEAR with any nonce",
    "ARM from FAILSAFE",
    "COMMAND of any session",
    "COMMAND of any age",
    "COMMAND twice",
    "COMMAND with a seq that does not wrap",
    "a clock that does not wrap",
    "the TTL counts from arrival",
    "ESTOP leaves the torque on",
    "limits that are torn",
    "limits while armed",
    "unguarded",
    "a torque beyond its range",
    "endless coasting",
    "outputs on in INIT",
)
"""Of the careless nodes, those that the lives find out."""


def _sources(directory: Path, mutant: str) -> list[Path]:
    """The sources, one of them changed as the mutant says."""
    texts = careless(mutant)
    for name, text in texts.items():
        (directory / name).write_text(text)
    return [directory / name if name in texts else C / name for name in SOURCES]


@dataclass(frozen=True)
class Lived:
    """What lives came to.

    Attributes:
        digests: four bytes for each life, of all that the node sent and drove in it.
        counts: how often what happened in them; ``Native.tables`` says what the numbers are.
        violated: the promise that was broken, in life ``life``; "" if all were kept.
    """

    digests: bytes = b""
    counts: tuple[int, ...] = ()
    violated: str = ""
    life: int = 0


class Native:
    """The lives on this machine: ``program`` is live_node."""

    def __init__(self, program: Path) -> None:
        self.program = program

    def live(self, first: int, count: int) -> Lived:
        digests = self.program.with_name(f"digests_{first}")
        command = [str(self.program), str(first), str(count), str(digests)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        try:
            if done.returncode:
                life, violated = done.stderr.removeprefix("life ").split(": violated: ")
                return Lived(violated=violated.strip(), life=int(life))
            tables = self._parse(done.stdout)
            return Lived(digests.read_bytes(), tuple(n for table in tables.values() for n in table.values()))
        finally:
            digests.unlink(missing_ok=True)

    def tables(self, counts: tuple[int, ...]) -> dict[str, dict[str, int]]:
        """The counts by table and name."""
        nothing = subprocess.run([str(self.program), "0", "0"], capture_output=True, text=True, check=True).stdout
        number = iter(counts)
        return {name: {key: next(number) for key in table} for name, table in self._parse(nothing).items()}

    @staticmethod
    def _parse(line: str) -> dict[str, dict[str, int]]:
        tables = json.loads(line)
        names = {
            "ways": [f"{a.name}-{b.name}" for a in NodeState for b in NodeState],
            "answers": [f"{kind} {result.name}" for kind in _TYPES for result in AckResult],
            "faults": [fault.name for fault in Fault],
            "lost_estops": [str(n) for n in range(8)],
            **dict.fromkeys(("replayed", "late", "outdated"), _TYPES),
            **tables.pop("names"),
        }
        return {name: dict(zip(names[name], numbers, strict=True)) for name, numbers in tables.items()}


_TYPES = ["none", *(kind.name for kind in sorted(MsgType))]


def compile_native(directory: Path, mutant: str = "") -> Native:
    program = directory / "live_node"
    sources = map(str, _sources(directory, mutant))
    subprocess.run(["cc", *FLAGS, "-O1", f"-I{C}", *sources, "-o", str(program)], check=True)
    return Native(program)


@dataclass(frozen=True)
class Core:
    """The lives on an emulated core: memory, no peripherals, no operating system.

    Attributes:
        name: "an385", Cortex-M3, or "an386", Cortex-M4F.
        code: what lies at ``CODE``.
        symbols: address and size of what is there.
    """

    name: str
    code: bytes
    symbols: dict[str, tuple[int, int]]

    def live(self, first: int, count: int) -> Lived:
        uc = Uc(UC_ARCH_ARM, UC_MODE_THUMB | UC_MODE_MCLASS, CPU[self.name])
        uc.mem_map(FLASH, SIZE)
        uc.mem_map(RAM, SIZE, UC_PROT_READ | UC_PROT_WRITE)  # no code: half as fast again
        uc.mem_write(CODE, self.code)
        uc.reg_write(UC_ARM_REG_SP, RAM + SIZE)
        uc.reg_write(UC_ARM_REG_LR, RETURN | 1)
        uc.reg_write(UC_ARM_REG_R0, first)
        uc.reg_write(UC_ARM_REG_R1, count)

        def words(symbol: str) -> tuple[int, ...]:
            at, size = self.symbols[symbol]
            return struct.unpack(f"<{size // 4}I", uc.mem_read(at, size))

        try:
            uc.emu_start(self.symbols["live"][0] | 1, RETURN)
        except UcError as error:
            (text,), (life,) = words("live_violated"), words("live_now")
            if not text:  # not a violation, but a fault of the core
                raise AssertionError(f"life {life}: {error}") from error
            return Lived(violated=bytes(uc.mem_read(text, 200)).split(b"\0")[0].decode(), life=life)
        at, size = self.symbols["live_digests"]
        assert 4 * count <= size
        return Lived(bytes(uc.mem_read(at, 4 * count)), words("live_counts"))


def compile_core(directory: Path, name: str, mutant: str = "") -> Core:
    """wire, guard, channel and node as the firmware is compiled, and their witness."""
    if not shutil.which("arm-none-eabi-gcc"):
        pytest.skip("arm-none-eabi-gcc is not installed (Debian: gcc-arm-none-eabi libnewlib-arm-none-eabi)")
    objects = []
    for source in _sources(directory, mutant):
        objects.append(str(directory / f"{name}_{source.stem}.o"))
        speed = "-O2" if source.stem == "live_node" else "-Os"
        tool("gcc", *CORES[name], *FLAGS, speed, "-DBARE", f"-I{C}", "-c", source, "-o", objects[-1])
    elf, flat = directory / f"{name}.elf", directory / f"{name}.bin"
    places = f"-Wl,-Ttext={CODE:#x},-Tbss={BSS:#x},-e,live"
    tool("gcc", *CORES[name], "-nostartfiles", places, *objects, "-o", elf)
    tool("objcopy", "-O", "binary", "-j", ".text", "-j", ".rodata", elf, flat)
    rows = [row for row in map(str.split, tool("nm", "-S", elf).decode().splitlines()) if len(row) == 4]
    assert not {kind for _, _, kind, _ in rows} & set("dD"), "nobody is there to initialise variables"
    return Core(name, flat.read_bytes(), {name: (int(at, 16), int(size, 16)) for at, size, _, name in rows})
