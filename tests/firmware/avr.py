"""Uno and Mega 2560 in simavr, on the core's own time."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cffi import FFI

GLUE = Path(__file__).parent / "arduino" / "simavr_glue.c"
MHZ = 16
JOINTS = 2
_TCCR1A, _TCCR1B, _OCR1A = 0x80, 0x81, 0x88  # on both
_NOISE = 0xA5  # what RAM holds when power comes


class Model(NamedTuple):
    """A board: Arduino's name for it, simavr's, its RAM, and where the sketch's pins are (port, bit)."""

    fqbn: str
    mcu: str
    ram_start: int
    ram_end: int
    pulses: tuple[tuple[str, int], ...]
    power: tuple[str, int]
    stop: tuple[str, int]


MODELS = {
    "uno": Model("arduino:avr:uno", "atmega328p", 0x100, 0x8FF, (("B", 1), ("B", 2)), ("D", 4), ("D", 2)),
    "mega": Model(
        "arduino:avr:mega:cpu=atmega2560", "atmega2560", 0x200, 0x21FF, (("B", 5), ("B", 6)), ("G", 5), ("E", 4)
    ),
}


class Simavr:
    """simavr behind our few lines of C."""

    def __init__(self, out: Path) -> None:
        flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
        library = str(out / "simavr_glue.so")
        subprocess.run(["cc", *flags, str(GLUE), "-o", library, "-lsimavr"], check=True)
        self.ffi = FFI()
        self.ffi.cdef(GLUE.with_suffix(".h").read_text())
        self.lib: Any = self.ffi.dlopen(library)


@dataclass(frozen=True)
class Event:
    """A watched function is entered, or comes back.

    ``arguments``: r18…r25 then: the results of a return are in its last bytes. ``memory``: what its second argument
    points at.
    """

    cycle: int
    name: str
    returned: bool
    arguments: bytes
    memory: bytes


class Avr:
    """A board that runs an ELF.

    Attributes:
        memory, flash: registers, I/O and RAM; the first 32 KiB of the program. What is written there is there.
        counts: what the two potentiometers read, in ADC counts, as float.
    """

    def __init__(self, simavr: Simavr, elf: Path, model: Model) -> None:
        self._ffi, self._lib = simavr.ffi, simavr.lib
        self._board = self._ffi.gc(self._lib.board_new(str(elf).encode(), model.mcu.encode()), self._lib.board_free)
        self._elf, self._model = elf, model
        self._names: list[str] = []
        self.symbols = _symbols(elf)
        self.memory = self._ffi.buffer(self._lib.board_memory(self._board), model.ram_end + 1)
        self.flash = self._ffi.buffer(self._lib.board_flash(self._board), 32 << 10)
        self.memory[model.ram_start :] = bytes([_NOISE]) * (model.ram_end + 1 - model.ram_start)
        self._buffer = self._ffi.new("uint8_t[65536]")
        self._edges = self._ffi.new("board_edge[65536]")
        self._rise = [0] * JOINTS
        self.counts = [0.0] * JOINTS
        for i in range(JOINTS):
            self.measure(i, 512)
            self._lib.board_record_edges(self._board, *self._at(model.pulses[i]))
        self.press(False)

    @staticmethod
    def _at(pin: tuple[str, int]) -> tuple[bytes, int]:
        return pin[0].encode(), pin[1]

    @property
    def cycle(self) -> int:
        return int(self._lib.board_cycle(self._board))

    @property
    def resets(self) -> int:
        """How often the sketch has begun anew."""
        return max(0, int(self._lib.board_starts(self._board)) - 1)

    def reset(self) -> None:
        """The reset button, or DTR."""
        self._lib.board_reset(self._board)

    def hide_mcusr(self) -> None:
        """From now on a bootloader runs first that clears MCUSR."""
        self._lib.board_bootloader(self._board)

    @property
    def power(self) -> bool:
        """Whether the servos' supply is switched on."""
        return bool(self._lib.board_pin(self._board, *self._at(self._model.power)))

    @property
    def eeprom(self) -> bytes:
        """Its first four bytes."""
        self._lib.board_eeprom(self._board, self._buffer, 0)
        return bytes(self._ffi.buffer(self._buffer, 4))

    @eeprom.setter
    def eeprom(self, data: bytes) -> None:
        self._lib.board_eeprom(self._board, data, 1)

    def press(self, on: bool) -> None:
        """The stop button: its contact opens when pressed."""
        self._lib.board_set_pin(self._board, *self._at(self._model.stop), on)

    def measure(self, joint: int, counts: float) -> None:
        """What a wiper reads from now on."""
        self.counts[joint] = counts
        self._lib.board_voltage(self._board, joint, round((counts + 0.5) * 5000 / 1024))

    def advance(self, us: int) -> None:
        """Let ``us`` pass."""
        assert self._lib.board_run(self._board, self.cycle + us * MHZ), "the core has crashed"

    def give(self, data: bytes) -> None:
        """Bytes on the line to the board, at its baud rate."""
        self._lib.board_give(self._board, data, len(data))

    def take(self) -> bytes:
        """What the board has sent since the last call."""
        return bytes(self._ffi.buffer(self._buffer, self._lib.board_take(self._board, self._buffer)))

    def widths(self) -> list[float | None]:
        """How long the pulses are that the timer is set to make, in µs; None for a servo that gets none."""
        connected, running = self.memory[_TCCR1A][0], self.memory[_TCCR1B][0] & 7
        return [
            (self._word(_OCR1A + 2 * i) + 1) / 2 if running and connected & (0x80, 0x20)[i] else None
            for i in range(JOINTS)
        ]

    def _word(self, at: int) -> int:
        return int.from_bytes(self.memory[at : at + 2], "little")

    def pulses(self) -> list[list[float]]:
        """The pulses that were on the pins since the last call, in µs. On the Uno simavr keeps to the first width."""
        pins = [bit for _, bit in self._model.pulses]
        widths: list[list[float]] = [[] for _ in pins]
        for k in range(self._lib.board_edges(self._board, self._edges)):
            edge = self._edges[k]
            joint = pins.index(edge.pin)
            if edge.level:
                self._rise[joint] = edge.cycle
            elif self._rise[joint]:
                widths[joint].append((edge.cycle - self._rise[joint]) / MHZ)
                self._rise[joint] = 0
        return widths

    def watch(self, names: Iterable[str]) -> None:
        """Record the calls of these functions."""
        for name in names:
            self._names.append(name)
            self._lib.board_watch(self._board, self.symbols[name], len(self._names))

    def events(self) -> list[Event]:
        """The calls since the last time."""
        count = self._ffi.new("uint32_t *")
        first = self._lib.board_events(self._board, count)
        return [
            Event(e.cycle, self._names[e.number - 1], bool(e.returned), bytes(e.r18_25), bytes(e.memory))
            for e in (first[k] for k in range(count[0]))
        ]

    def size(self, part: str) -> int:
        """Bytes of "text", "data" or "bss"."""
        names, sizes = subprocess.run(["avr-size", str(self._elf)], check=True, capture_output=True).stdout.split(
            b"\n"
        )[:2]
        return int(dict(zip(names.decode().split(), sizes.decode().split(), strict=True))[part])

    def stack_used(self) -> int:
        """High-water mark of the stack, in bytes: what no longer holds the noise of power-up."""
        free = bytes(self.memory[self.symbols["_end"] & 0xFFFF :])
        return len(free.lstrip(bytes([_NOISE])))


def _symbols(elf: Path) -> dict[str, int]:
    """Addresses, by the part of a name that the compiler leaves alone."""
    table = subprocess.run(["avr-nm", "-C", str(elf)], check=True, capture_output=True, text=True).stdout
    rows = [line.split(None, 2) for line in table.splitlines()]
    return {row[2].split("(")[0]: int(row[0], 16) for row in rows if len(row) == 3 and "::" not in row[2]}
