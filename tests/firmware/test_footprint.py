"""Flash, RAM, stack and instructions of wire + guard + channels + node, for six channels; the same C on every core."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

pytest.importorskip("unicorn")

from bare_host import CHANNELS
from images import BOARD, armed, load
from unimcu import Mcu

C = BOARD.parents[1] / "c"
CORE = ("kz_wire", "kz_guard", "kz_channel", "kz_node")
PORTING = (BOARD.parents[2] / "docs" / "porting.md").read_text()
ARM, RISCV, AVR = "arm-none-eabi-", "riscv64-unknown-elf-", "avr-"
DEBIAN = {
    ARM: "gcc-arm-none-eabi libnewlib-arm-none-eabi",
    RISCV: "gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf",
    AVR: "gcc-avr avr-libc",
}
CORES = {
    "Cortex-M0+": (ARM, ["-mcpu=cortex-m0plus", "-mthumb", "--specs=nano.specs"]),
    "Cortex-M3": (ARM, ["-mcpu=cortex-m3", "-mthumb", "--specs=nano.specs"]),
    "Cortex-M4F": (ARM, ["-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16", "--specs=nano.specs"]),
    "Cortex-M7": (ARM, ["-mcpu=cortex-m7", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv5-d16", "--specs=nano.specs"]),
    "RV32IMC": (RISCV, ["-march=rv32imc", "-mabi=ilp32", "--specs=picolibc.specs"]),
    "RV32EC": (RISCV, ["-march=rv32ec", "-mabi=ilp32e", "--specs=picolibc.specs"]),
    "AVR": (AVR, ["-mmcu=atmega2560"]),
}
PROMISED = ("Cortex-M0+", "Cortex-M4F")
"""Within 6 KiB of flash and 1 KiB of RAM."""

# GCC 5 for AVR calls a sum of two u8 a change of sign.
STRICT = ["-std=c99", "-Os", "-ffunction-sections", "-Wall", "-Wextra", "-Werror", "-Wconversion"]
FLOAT_HELPER = re.compile(r"__aeabi_([fd]|u?[il]2[fd])|.*[sd]f[23]?$|__(fix|float)")
WHOLE = """
#include "kz_node.h"
kz_node node;
extern const kz_board *volatile board;
extern volatile uint32_t boot_id;
int main(void) {
  kz_node_init(&node, board, 0, boot_id, 0);
  for (;;) kz_node_poll(&node);
}
"""


class Program(NamedTuple):
    """The core compiled for one kind of processor, in ``directory``."""

    core: str
    cross: str
    flags: list[str]
    directory: Path

    def tool(self, name: str, *arguments: object) -> str:
        done = subprocess.run([self.cross + name, *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def compile(self, source: Path, *flags: str) -> Path:
        target = self.directory / f"{source.stem}.o"
        capacity = [f"-DKZ_NODE_CH={CHANNELS}", f"-DKZ_NODE_SENSORS={CHANNELS}"]
        self.tool("gcc", *self.flags, *flags, *capacity, "-I", C, "-c", source, "-o", target)
        return target

    def size(self, *objects: Path) -> tuple[int, int]:
        """Flash and RAM in bytes."""
        rows = [line.split() for line in self.tool("size", *objects).splitlines()[1:]]
        return sum(int(row[0]) + int(row[1]) for row in rows), sum(int(row[1]) + int(row[2]) for row in rows)

    @property
    def objects(self) -> list[Path]:
        return [self.directory / f"{name}.o" for name in CORE]


@pytest.fixture(scope="module", params=CORES)
def program(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Program:
    cross, flags = CORES[request.param]
    if not shutil.which(f"{cross}gcc"):
        pytest.skip(f"{cross}gcc is not installed (Debian: {DEBIAN[cross]})")
    made = Program(request.param, cross, flags, tmp_path_factory.mktemp("objects"))
    strict = [*STRICT, "-Wno-sign-conversion"] if cross == AVR else STRICT
    for name in CORE:
        made.compile(C / f"{name}.c", *strict)
    return made


def test_size(program: Program) -> None:
    one = program.directory / "one.c"
    one.write_text('#include "kz_node.h"\nkz_node node;\n')
    flash, _ = program.size(*program.objects)
    _, ram = program.size(program.compile(one, "-fno-common"))
    print(f"{program.core}: wire + guard + channels + node {flash} B flash, {ram} B RAM")  # noqa: T201
    if program.core in PROMISED:
        assert flash <= 6 * 1024
    assert 512 < ram <= 1024
    said = row("wire + guard + channels + node, flash")[program.core]
    assert abs(float(said.removesuffix(" KiB")) * 1024 - flash) < 0.02 * flash, f"docs/porting.md says {said}"
    assert row("RAM")[program.core] == f"{ram} B"


def test_size_with_all_that_it_calls(program: Program) -> None:
    """Linked alone: the helpers for division, memcpy and memset count too, if the program has no other use for them."""
    if program.cross == AVR:
        pytest.skip("its start-up code comes with the C library")
    whole = program.directory / "whole.c"
    whole.write_text(WHOLE)
    rest = program.directory / "rest.c"
    rest.write_text("#include <stdint.h>\nconst void *volatile board;\nvolatile uint32_t boot_id;\n")
    stub = program.compile(whole, "-std=c99", "-Os")
    objects = [*program.objects, stub, program.compile(rest)]
    elf = program.directory / "whole.elf"
    program.tool("gcc", *program.flags, "-nostartfiles", "-Wl,--gc-sections,-e,main", *objects, "-o", elf)
    sections = dict(line.split()[:2] for line in program.tool("size", "-A", elf).splitlines() if line.startswith("."))
    flash = sum(int(sections.get(name, 0)) for name in (".text", ".rodata", ".data")) - program.size(stub)[0]
    print(f"{program.core}: with its helpers {flash} B flash")  # noqa: T201
    if program.core in PROMISED:
        assert flash <= 6 * 1024
    said = row("linked, with the helpers they call, flash")[program.core]
    assert abs(float(said.removesuffix(" KiB")) * 1024 - flash) < 0.02 * flash, f"docs/porting.md says {said}"


def test_no_floating_point_and_no_heap(program: Program) -> None:
    listing = program.tool("nm", "-u", *program.objects).splitlines()
    wanted = {line.split()[-1] for line in listing if line.strip().startswith("U ")}
    foreign = {name for name in wanted if not name.startswith("kz_")}
    assert {name for name in foreign if not name.startswith("_")} <= {"memcpy", "memset"}
    assert not {name for name in foreign if FLOAT_HELPER.match(name)}


def row(title: str) -> dict[str, str]:
    """A row of the table "Measure" of docs/porting.md, by core."""
    lines = [line.strip("|").split("|") for line in PORTING.splitlines() if line.startswith("|")]
    header = next(cells for cells in lines if "Cortex-M0+" in "|".join(cells))
    cells = next(cells for cells in lines if cells[0].strip() == title)
    return {core.strip(): cell.strip() for core, cell in zip(header[1:], cells[1:], strict=True)}


@pytest.mark.parametrize("name", ["an385", "an386"])
def test_instructions_for_one_command(elves: dict[str, Path], name: str) -> None:
    """A 1 ms tick has 25 000 cycles at 25 MHz; a period's work must be a fraction of that."""
    noise = random.Random(1)
    mcu = Mcu(load(elves, name), noise=0xA5)
    host = armed(mcu)
    decode, guard, busy, quiet = [], [], [], []
    for _ in range(10):
        host.command([noise.randrange(-100_000, 100_000) for _ in range(CHANNELS)])
        mcu.link.give(host.out())
        counts = mcu.count(2000, "kz_node_rx", "kz_admit", "kz_node_tick")
        decode.append(sum(counts["kz_node_rx"]))
        guard += counts["kz_admit"]
        between, boundary = sorted(counts["kz_node_tick"])
        quiet.append(between)
        busy.append(boundary)
    assert len(guard) == 10 * CHANNELS
    print(  # noqa: T201
        f"{name}: decode {max(decode)}, kz_admit {min(guard)}…{max(guard)} a channel, tick with guard, apply and "
        f"STATE {min(busy)}…{max(busy)}, tick between {max(quiet)} instructions; stack {mcu.stack_used()} B"
    )
    assert max(decode) + max(busy) < 25_000
    assert mcu.stack_used() < 1024
