"""A board's port and example on this machine, over a double of its SDK: what can be run where the SDK is not."""

from __future__ import annotations

import shutil
import subprocess
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from bare_host import Host
from cffi import FFI

from kizzasi_bridge.board_file import load_board
from kizzasi_bridge.protocol import ChannelLimits, Limits
from kizzasi_bridge.schema_header import schema_header

HERE = Path(__file__).parent
BRIDGE = HERE.parents[1] / "firmware_bridge"
BOARDS = BRIDGE / "boards"
DECLARATIONS, DOUBLES = HERE / "sdk_declarations", HERE / "sdk_doubles"
CORE = [BRIDGE / "c" / f"kz_{part}.c" for part in ("wire", "guard", "channel", "node")]
WARNINGS = ["-Wall", "-Wextra", "-Werror"]


class Board(NamedTuple):
    """What is compiled for a board beside the core.

    Attributes:
        sources: of port and example.   includes: where else they find headers.   settings: what their build defines.
        start: where the joint stands, raw.   room: of its queue to the host.
    """

    example: Path
    sources: list[Path]
    includes: list[Path]
    settings: list[str]
    start: int
    room: int = 1024

    @property
    def target(self) -> int:
        """The end of its range."""
        return self.start + 22_000

    @property
    def limits(self) -> Limits:
        """For the one channel of the example; a period of 2 ms, a TTL of 250 ms."""
        channel = ChannelLimits(self.start - 22_000, self.target, 200, 10)
        return Limits((channel,), 2000, 3, 250, 500)


def _boards() -> dict[str, Board]:
    stm32, zephyr, esp = BOARDS / "stm32", BOARDS / "zephyr", BOARDS / "esp-idf"
    nucleo, servo, c3 = stm32 / "example_nucleo_g474re", zephyr / "samples" / "servo", esp / "examples" / "servo"
    capacity = ["-DKZ_NODE_CH=1", "-DKZ_NODE_SENSORS=1"]
    kconfig = [f"-DCONFIG_KIZZASI_{name}" for name in ("RX_ROOM=512", "TX_ROOM=1024", "WATCHDOG_MS=20")]
    return {
        "stm32": Board(nucleo, [stm32 / "kizzasi_stm32.c", nucleo / "joint.c", nucleo / "app.c"], [stm32], capacity, 0),
        "zephyr": Board(
            servo,
            [zephyr / "src" / "kizzasi_zephyr.c", servo / "src" / "servo.c", servo / "src" / "main.c"],
            [zephyr / "include"],
            [*capacity, *kconfig],
            32_768,
        ),
        "esp-idf": Board(
            c3,
            [esp / "kizzasi" / "kizzasi_esp.c", c3 / "main" / "servo.c", c3 / "main" / "main.c"],
            [esp / "kizzasi" / "include"],
            capacity,
            32_768,
        ),
    }


ALL = _boards()
_numbers = count()


def flags(name: str, schema: Path) -> list[str]:
    """The compiler's flags; ``schema``: the folder that holds schema.h."""
    board = ALL[name]
    folders = {path.parent for path in board.sources} | {*board.includes, BRIDGE / "c", DECLARATIONS / name, schema}
    return ["-std=c99", *WARNINGS, *board.settings, *(f"-I{folder}" for folder in sorted(folders))]


def make_schema(name: str, directory: Path) -> Path:
    """schema.h of the board's example, in ``directory``."""
    schema = load_board(ALL[name].example / "board.toml").schema
    (directory / "schema.h").write_text(schema_header(schema, "board.toml"))
    return directory


def build(name: str, directory: Path) -> Path:
    """A library of port, example, core and double."""
    library = directory / f"{name}.so"
    doubles = [DOUBLES / "bench.c", DOUBLES / f"{name}.c"]
    words = ["cc", *flags(name, make_schema(name, directory)), "-D_GNU_SOURCE", "-g", "-O1", f"-I{DOUBLES}"]
    words += ["-fPIC", "-shared", *map(str, [*ALL[name].sources, *CORE, *doubles]), "-o", str(library)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return library


class Bench:
    """A board that has just been powered.

    Args:
        library: from ``build``; loaded anew each time, so that its memory is fresh.
        declarations: C declarations of what the test calls beside bench.h.
    """

    def __init__(self, library: Path, declarations: str = "") -> None:
        self.board = ALL[library.stem]
        own = library.with_name(f"{library.stem}-{next(_numbers)}.so")
        shutil.copy(library, own)
        header = (DOUBLES / "bench.h").read_text().replace("[BENCH_ROOM]", "[65536]")
        plain = "\n".join(line for line in header.splitlines() if not line.startswith("#"))
        self._ffi = FFI()
        self._ffi.cdef(plain + declarations)
        self.lib: Any = self._ffi.dlopen(str(own))
        own.unlink()
        self.state: Any = self.lib.bench
        self.null: Any = self._ffi.NULL
        self.lib.bench_boot()

    def give(self, data: bytes) -> None:
        """Bytes for the firmware."""
        n = self.state.rx_n
        self._ffi.memmove(self.state.rx + n, data, len(data))
        self.state.rx_n = n + len(data)

    def take(self) -> bytes:
        """What has left the UART since the last call."""
        data = bytes(self._ffi.buffer(self.state.tx, self.state.tx_n))
        self.state.tx_n = 0
        return data

    def run(self, us: int) -> bytes:
        """Let so much time pass; what was sent meanwhile."""
        self.lib.bench_run(us)
        return self.take()

    def stick(self) -> None:
        """The firmware hangs in its next output."""
        self.state.hang = 1
        self.run(2000)

    @property
    def calls(self) -> list[str]:
        """Of the SDK since power-up, as far as the double notes them."""
        return str(self._ffi.string(self.state.calls).decode()).split()

    def host(self) -> Host:
        """A host that lets 1 ms pass with each exchange."""

        def exchange(data: bytes) -> bytes:
            self.give(data)
            return self.run(1000)

        return Host(exchange, self.board.limits)
