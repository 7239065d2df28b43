"""The firmware's ELF in this process, on virtual time: Unicorn for the core, a few lines for each peripheral.

The core is infinitely fast: time passes only while it sleeps (or is stuck), so a run depends on nothing but its input.
Interrupts are taken where it sleeps, or between slices of a stuck loop.
"""

from __future__ import annotations

import struct
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from unicorn import UC_ARCH_ARM, UC_HOOK_CODE, UC_MODE_MCLASS, UC_MODE_THUMB, Uc
from unicorn.arm_const import (
    UC_ARM_REG_LR,
    UC_ARM_REG_PC,
    UC_ARM_REG_R0,
    UC_ARM_REG_SP,
    UC_CPU_ARM_CORTEX_M3,
    UC_CPU_ARM_CORTEX_M4,
)

MHZ = 25
FLASH, RAM, SIZE = 0x00000000, 0x20000000, 4 << 20
SCRATCH = RAM + SIZE // 2  # for arguments of call()
RETURN = FLASH + SIZE - 0x100  # erased flash: where a called function comes back to
SLICE = 200_000  # instructions; a healthy tick takes a few thousand
NMI, IRQ0, IRQ_TIMER1 = 2, 16, 9
CPU = {"an385": UC_CPU_ARM_CORTEX_M3, "an386": UC_CPU_ARM_CORTEX_M4}


@dataclass(frozen=True)
class Image:
    """A linked firmware: ``name`` is the MPS2 image it is for, ``code`` its flash, ``symbols`` their addresses."""

    name: str
    elf: Path
    code: bytes
    symbols: dict[str, int]


class Uart:
    """Takes bytes as fast as the firmware gives them, unless ``blocked``."""

    def __init__(self, mcu: Mcu, rx_irq: int) -> None:
        self._mcu, self._rx_irq = mcu, rx_irq
        self.rx: deque[int] = deque()
        self.tx = bytearray()
        self.blocked = False

    def give(self, data: bytes) -> None:
        """Bytes for the firmware."""
        self.rx += data
        self._mcu.pend(self._rx_irq)

    def take(self) -> bytes:
        """What the firmware has sent since the last call."""
        data = bytes(self.tx)
        self.tx.clear()
        return data

    def unblock(self) -> None:
        """The transmitter is free again, and says so."""
        self.blocked = False
        self._mcu.pend(self._rx_irq + 1)

    def read(self, at: int) -> int:
        if at == 0:
            return self.rx.popleft() if self.rx else 0
        return (1 if self.blocked else 0) | (2 if self.rx else 0) if at == 4 else 0

    def write(self, at: int, value: int) -> None:
        if at == 0:
            assert not self.blocked, "the firmware overruns the transmitter"
            self.tx.append(value & 0xFF)


class Timer:
    """CMSDK timer: counts down from ``reload``, again and again."""

    def __init__(self, mcu: Mcu) -> None:
        self._mcu = mcu
        self.on = False
        self.period = 1 << 32
        self.start = 0

    @property
    def next(self) -> float:
        """When it reaches 0, in cycles."""
        if not self.on:
            return float("inf")
        return self.start + (self._mcu.cycles - self.start) // self.period * self.period + self.period

    def read(self, at: int) -> int:
        return self.period - 1 - (self._mcu.cycles - self.start) % self.period if at == 4 else 0

    def write(self, at: int, value: int) -> None:
        if at == 8:
            self.period = value + 1
        elif at in (0, 4):
            self.on = self.on or (at == 0 and bool(value & 1))
            self.start = self._mcu.cycles


class Watchdog:
    """CMSDK watchdog: after ``load`` cycles the NMI, after as many again a reset; locked but for its key."""

    def __init__(self, mcu: Mcu) -> None:
        self._mcu = mcu
        self.load = 1 << 32
        self.next = float("inf")
        self.bitten = self.open = False

    def read(self, at: int) -> int:
        return 0

    def write(self, at: int, value: int) -> None:
        if at == 0xC00:
            self.open = value == 0x1ACCE551
        elif self.open and at == 0:
            self.load = value
        elif self.open and at in (8, 12):
            self.bitten = False
            self.next = self._mcu.cycles + self.load


class Mcu:
    """A core with flash, RAM and the board's peripherals.

    Args:
        image: what is flashed.
        noise: what every RAM byte holds when power comes.
        traced: somebody listens on UART1; else it is blocked, which saves most of the time a run takes.

    Attributes:
        cycles: virtual time, at 25 MHz.
        link, trace: UART0 (the host) and UART1 (every tick's outputs).
        leds, button: LED register; whether button 0, the local emergency stop, is pressed.
        resets: how often the watchdog has reset the core.
        has_rstinfo: the reset-cause register is there (not in QEMU's model of the board).
    """

    def __init__(self, image: Image, *, noise: int = 0, traced: bool = False) -> None:
        self.image = image
        self.uc = Uc(UC_ARCH_ARM, UC_MODE_THUMB | UC_MODE_MCLASS, CPU[image.name])
        self.uc.mem_map(FLASH, SIZE)
        self.uc.mem_map(RAM, SIZE)
        self.uc.mmio_map(0x40000000, 0x30000, self._read, 0x40000000, self._write, 0x40000000)
        self.uc.mmio_map(0xE000E000, 0x1000, self._read, 0xE000E000, self._write, 0xE000E000)
        self.uc.mem_write(FLASH, b"\xff" * SIZE)
        self.uc.mem_write(FLASH, image.code)
        self.uc.mem_write(RAM, bytes([noise]) * SIZE)
        self._sleep_at = _wfi(image)
        self.cycles = 0
        self._traced, self._noise = traced, noise
        self.button = False
        self.has_rstinfo = False
        self.resets = 0
        self._rstinfo = 0
        self.reset()

    def reset(self) -> None:
        """As the reset line does it: registers to their defaults, RAM as it was."""
        sp, pc = struct.unpack("<II", self.uc.mem_read(FLASH, 8))
        self.link, self.trace = Uart(self, 0), Uart(self, 2)
        self.trace.blocked = not self._traced
        self.timer0, self.timer1, self.watchdog = Timer(self), Timer(self), Watchdog(self)
        self._devices = {
            0x40000000: self.timer0,
            0x40001000: self.timer1,
            0x40004000: self.link,
            0x40005000: self.trace,
            0x40008000: self.watchdog,
        }
        self.leds = 3
        self._enabled = self._pending = 0
        self.stuck = False
        self.uc.reg_write(UC_ARM_REG_SP, sp)
        self._pc = pc

    # ---- time ----------------------------------------------------------------------------------

    def advance(self, us: int) -> None:
        """Let ``us`` pass."""
        end = self.cycles + us * MHZ
        while True:
            self._run()
            due = min(self.timer1.next, self.watchdog.next)
            if due > end:
                break
            timer, watchdog = self.timer1.next == due, self.watchdog.next == due
            self.cycles = int(due)
            if timer:
                self.pend(IRQ_TIMER1)
            if watchdog:
                self._watchdog()
        self.cycles = end

    def warp(self, us: int) -> None:
        """Let ``us`` pass at once for TIMER0 alone, everything else halted, as a debugger does it."""
        self.cycles += us * MHZ
        self.timer1.start += us * MHZ
        self.watchdog.next += us * MHZ

    def pend(self, irq: int) -> None:
        """Raise an interrupt."""
        self._pending |= 1 << irq

    def _run(self) -> None:
        """Until the core sleeps with nothing pending, or is stuck."""
        while not self.stuck:
            self.uc.emu_start(self._pc | 1, self._sleep_at, count=SLICE)
            self._pc = self.uc.reg_read(UC_ARM_REG_PC)
            asleep = self._pc == self._sleep_at
            waiting = self._pending & self._enabled
            while waiting and not self.stuck:
                irq = (waiting & -waiting).bit_length() - 1
                self._pending &= ~(1 << irq)
                self._exception(IRQ0 + irq)
                waiting = self._pending & self._enabled
                if asleep:
                    self._pc = self._sleep_at + 2
            if self._pc == self._sleep_at or not asleep:
                return

    def _exception(self, number: int) -> None:
        """Run a handler on top of what the core is doing. One that does not return leaves the core stuck."""
        (handler,) = struct.unpack("<I", self.uc.mem_read(FLASH + 4 * number, 4))
        before = self.uc.context_save()
        self.uc.reg_write(UC_ARM_REG_SP, self.uc.reg_read(UC_ARM_REG_SP) - 32 & ~7)
        self.uc.reg_write(UC_ARM_REG_LR, RETURN | 1)
        self.uc.emu_start(handler, RETURN, count=SLICE)
        self.stuck = self.uc.reg_read(UC_ARM_REG_PC) != RETURN
        if not self.stuck:
            self.uc.context_restore(before)

    def _watchdog(self) -> None:
        if self.watchdog.bitten:
            self.resets += 1
            self._rstinfo = 2 if self.has_rstinfo else 0
            self.reset()
        else:
            self.watchdog.bitten = True
            self.watchdog.next += self.watchdog.load
            self.stuck = False
            self._exception(NMI)

    # ---- the bus -------------------------------------------------------------------------------

    def _read(self, uc: Uc, offset: int, size: int, base: int) -> int:
        address = base + offset
        device = self._devices.get(address & ~0xFFF)
        if device is not None:
            return device.read(address & 0xFFF)
        if address == 0x4001F010:
            return self._rstinfo
        return int(self.button) if address == 0x40028008 else 0

    def _write(self, uc: Uc, offset: int, size: int, value: int, base: int) -> None:
        address = base + offset
        device = self._devices.get(address & ~0xFFF)
        if device is not None:
            device.write(address & 0xFFF, value)
        elif address == 0x4001F010:
            self._rstinfo &= ~value
        elif address == 0x40028000:
            self.leds = value
        elif address == 0xE000E100:
            self._enabled |= value
        elif address == 0xE000E200:
            self._pending |= value

    # ---- looking inside ------------------------------------------------------------------------

    def call(self, function: str, *arguments: int) -> int:
        """Call a C function while the core sleeps; its result as i32."""
        before = self.uc.context_save()
        sp = self.uc.reg_read(UC_ARM_REG_SP) - 64 & ~7
        self.uc.mem_write(sp, struct.pack(f"<{len(arguments)}I", *(a & 0xFFFFFFFF for a in arguments))[16:])
        for i, argument in enumerate(arguments[:4]):
            self.uc.reg_write(UC_ARM_REG_R0 + i, argument & 0xFFFFFFFF)
        self.uc.reg_write(UC_ARM_REG_SP, sp)
        self.uc.reg_write(UC_ARM_REG_LR, RETURN | 1)
        self.uc.emu_start(self.image.symbols[function] | 1, RETURN)
        result = self.uc.reg_read(UC_ARM_REG_R0)
        self.uc.context_restore(before)
        return result - (1 << 32) if result >> 31 else result

    def count(self, us: int, *functions: str) -> dict[str, list[int]]:
        """Let ``us`` pass; how many instructions each call of these functions took, callees included."""
        entries = {self.image.symbols[name] & ~1: name for name in functions}
        counts: dict[str, list[int]] = {name: [] for name in functions}
        open_calls: dict[str, int] = {}  # and where they come back to

        def step(uc: Uc, address: int, size: int, user: object) -> None:
            for name in [name for name, back in open_calls.items() if back == address]:
                del open_calls[name]
            if address in entries:
                open_calls[entries[address]] = uc.reg_read(UC_ARM_REG_LR) & ~1
                counts[entries[address]].append(0)
            for name in open_calls:
                counts[name][-1] += 1

        self.uc.ctl_flush_tb()  # what has been translated knows nothing of a new hook
        hook = self.uc.hook_add(UC_HOOK_CODE, step, begin=FLASH, end=FLASH + SIZE)
        self.advance(us)
        self.uc.hook_del(hook)
        return counts

    def stack_used(self) -> int:
        """High-water mark of the stack, in bytes: what no longer holds the noise of power-up."""
        base, top = self.image.symbols["__stack_base"], self.image.symbols["__stack_top"]
        return len(bytes(self.uc.mem_read(base, top - base)).lstrip(bytes([self._noise])))


def _wfi(image: Image) -> int:
    """The one place where the firmware sleeps."""
    start = image.symbols["clock_wait"] & ~1
    return start + image.code.index(b"\x30\xbf", start, start + 64) - start
