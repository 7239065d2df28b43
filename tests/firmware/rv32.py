"""The core on RISC-V: wire, guard, channels, node and the board of ``VirtualNode``, called function by function."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

from images import flat
from unicorn import UC_ARCH_RISCV, UC_MODE_RISCV32, Uc
from unicorn.riscv_const import UC_RISCV_REG_A0, UC_RISCV_REG_RA, UC_RISCV_REG_SP

BRIDGE = Path(__file__).parents[2] / "firmware_bridge"
CC = "riscv64-unknown-elf-gcc"
RV32IMC = ["-march=rv32imc", "-mabi=ilp32"]
BASE, SIZE = 0x80000000, 4 << 20
SCRATCH = BASE + SIZE // 2  # for arguments in memory
RETURN = BASE + SIZE - 0x100  # where a called function comes back to
STACK = RETURN - 0x100

_LAYOUT = """
SECTIONS {
  . = 0x80000000;
  .text : { *(.text*) *(.rodata*) *(.srodata*) }
  .data : { *(.data*) *(.sdata*) *(.bss*) *(.sbss*) *(COMMON) }
}
"""


def build(directory: Path) -> Path:
    """The linked program, as large as the host's: 16 channels, 64 sensors."""
    elf, layout = directory / "rv32.elf", directory / "rv32.ld"
    layout.write_text(_LAYOUT)
    sources = [BRIDGE / "c" / f"kz_{part}.c" for part in ("wire", "guard", "channel", "node")]
    flags = ["-std=c99", "-Os", "-Wall", "-Wextra", "-Werror", "-I", BRIDGE / "c"]
    link = ["--specs=picolibc.specs", "-nostartfiles", "-T", layout, "-Wl,--no-relax,--no-gc-sections,-e,kz_node_init"]
    command = [CC, *RV32IMC, *flags, *sources, BRIDGE / "kizzasi_bridge" / "host_glue.c", *link, "-o", elf]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return elf


class Rv32:
    """A hart with the program in its memory."""

    def __init__(self, elf: Path) -> None:
        def tool(name: str, *arguments: str) -> bytes:
            return subprocess.run([CC.replace("gcc", name), *arguments], check=True, capture_output=True).stdout

        self.uc = Uc(UC_ARCH_RISCV, UC_MODE_RISCV32)
        self.uc.mem_map(BASE, SIZE)
        self.uc.mem_write(BASE, flat(elf, CC.removesuffix("gcc")))
        rows = (line.split() for line in tool("nm", str(elf)).decode().splitlines())
        self.symbols = {row[2]: int(row[0], 16) for row in rows if len(row) == 3}

    def call(self, function: str, *arguments: int) -> int:
        """A C function's result as i32. Arguments beyond the eighth go on the stack."""
        rest = [a & 0xFFFFFFFF for a in arguments[8:]]
        self.uc.mem_write(STACK, struct.pack(f"<{len(rest)}I", *rest))
        for i, argument in enumerate(arguments[:8]):
            self.uc.reg_write(UC_RISCV_REG_A0 + i, argument & 0xFFFFFFFF)
        self.uc.reg_write(UC_RISCV_REG_SP, STACK)
        self.uc.reg_write(UC_RISCV_REG_RA, RETURN)
        self.uc.emu_start(self.symbols[function], RETURN)
        result = self.uc.reg_read(UC_RISCV_REG_A0)
        return result - (1 << 32) if result >> 31 else result

    def write(self, address: int, data: bytes) -> None:
        self.uc.mem_write(address, data)

    def read(self, address: int, n: int) -> bytes:
        return bytes(self.uc.mem_read(address, n))
