"""The library as the IDE takes it, and that docs/arduino.md says what is so."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from avr import JOINTS, MHZ, Avr, Event
from sketch import (
    BOARD,
    CORE,
    LIMITS,
    PACKAGES,
    PERIOD_TICKS,
    SKETCH,
    TICK_US,
    armed,
    named,
)

from kizzasi_bridge.board_file import load_board
from kizzasi_bridge.schema import Schema

PAGE = (BOARD.parents[2] / "docs" / "arduino.md").read_text()
Boot = Callable[[str], Avr]


def test_the_library_is_laid_out_as_the_ide_wants_it(libraries: Path) -> None:
    root = libraries / "Kizzasi"
    properties = dict(line.split("=", 1) for line in (root / "library.properties").read_text().splitlines())
    project = tomllib.loads((BOARD.parents[2] / "pyproject.toml").read_text())["project"]
    assert properties["version"] == project["version"]
    assert properties["name"] == root.name
    assert {"author", "maintainer", "sentence", "paragraph", "category", "url", "architectures"} <= properties.keys()
    assert (root / "src" / properties["includes"]).is_file()
    for line in (root / "keywords.txt").read_text().splitlines():
        word, kind = line.split("\t")
        assert kind in ("KEYWORD1", "KEYWORD2", "LITERAL1")
        assert any(word in source.read_text() for source in (root / "src").iterdir()), word
    with zipfile.ZipFile(libraries / "Kizzasi.zip") as archive:
        packed = {name for name in archive.namelist() if not name.endswith("/")}
    assert packed == {str(path.relative_to(libraries)) for path in root.rglob("*") if path.is_file()}


def test_the_core_is_the_one_core(libraries: Path) -> None:
    source = libraries / "Kizzasi" / "src"
    core = CORE
    names = {path.name for path in source.glob("kz_*")} - {"kz_capacity.h"}
    assert {"kz_wire.c", "kz_guard.c", "kz_node.c"} <= names
    for name in names:
        added = '#include "kz_capacity.h"\n' if name == "kz_node.h" else ""
        assert (source / name).read_text() == added + (core / name).read_text()


@pytest.mark.parametrize("compiler", ["avr-gcc -mmcu=atmega328p", "arm-none-eabi-gcc -mcpu=cortex-m0plus"])
def test_the_core_compiles_without_a_warning(libraries: Path, out: Path, compiler: str) -> None:
    """With the capacity of an Uno, and with that of boards that are no AVR."""
    command = compiler.split()
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not installed")
    for source in (libraries / "Kizzasi" / "src").glob("*.c"):
        flags = ["-std=c99", "-Os", "-Wall", "-Wextra", "-Werror", "-c", str(source), "-o", str(out / "core.o")]
        subprocess.run([*command, *flags], check=True)


def test_the_header_beside_the_sketch_is_that_of_board_toml() -> None:
    board, header = load_board(SKETCH / "board.toml").schema, (SKETCH / "schema.h").read_text()
    table = re.search(r"schema\[(\d+)\] = \{([^}]*)\}", header)
    assert table
    data = bytes(map(int, table[2].split(",")))
    assert len(data) == int(table[1])
    assert Schema.from_bytes(data) == board
    for name, value in (
        ("CHANNELS", len(board.channels)),
        ("SENSORS", len(board.sensors)),
        ("TICK_US", board.tick_us),
    ):
        assert re.search(rf"#define SCHEMA_{name} {value}(ul)?$", header, re.M), name


def test_the_page_says_what_the_sources_say() -> None:
    machine, capacity = (SKETCH / "machine.cpp").read_text(), (BOARD / "src" / "kz_capacity.h").read_text()
    assert f"Debian: `{PACKAGES}`" in PAGE
    rows = dict(table("Mega"))
    for what, form in (("pulse", "PULSE[JOINTS] = {%s}"), ("power", "POWER = %s"), ("stop", "STOP = %s")):
        cells = next(cells for row, cells in rows.items() if row.startswith(what))
        assert all(form % cell in machine for cell in cells), what
    numbers = re.findall(r"#define KZ_NODE_(?:CH|SENSORS) (\d+)", capacity)
    text = " ".join(PAGE.split())
    other, small, large = (numbers[k : k + 2] for k in (0, 2, 4))
    assert (
        "{} channels and {} sensors in 2 KiB of RAM, {} and {} on a Mega, {} and {} elsewhere".format(
            *small, *large, *other
        )
        in text
    )


def cycles(events: list[Event]) -> dict[str, int]:
    """The longest of each, in cycles, interrupts included."""
    longest: dict[str, int] = {}
    entered: dict[str, int] = {}
    begun = ticked = decoding = 0
    boundary = False

    def note(what: str, count: int) -> None:
        longest[what] = max(longest.get(what, 0), count)

    for event in events:
        if not event.returned:
            entered[event.name] = event.cycle
        if named(event, "board_read"):
            begun = begun or event.cycle
            if decoding:
                note("decode", event.cycle - decoding)
                decoding = 0
        elif event.name == "board_read" and event.arguments[6]:
            decoding = event.cycle
        elif event.name == "board_us" and event.returned:
            ticked, boundary = event.cycle, False
        elif event.name == "board_write":
            boundary = True
        elif event.name in ("kz_admit", "machine_sense") and event.returned:
            note(event.name, event.cycle - entered[event.name])
        elif named(event, "board_kick") and ticked:
            if boundary:
                note("boundary", event.cycle - begun)
            else:
                note("between", event.cycle - ticked)
            begun = 0
    return longest


@pytest.mark.parametrize(("name", "column"), [("uno", 0), pytest.param("mega", 1, marks=pytest.mark.prove)])
def test_the_figures_of_the_page(boot: Boot, libraries: Path, name: str, column: int) -> None:
    """docs/arduino.md says no less than what is counted here, and not much more."""
    avr = boot(name)
    noise = random.Random(1)
    host = armed(avr)
    avr.watch(["board_read", "board_us", "board_kick", "board_write", "machine_sense", "kz_admit"])
    for _ in range(40):
        host.command([noise.randrange(LIMITS.channels[0].lo, LIMITS.channels[0].hi) for _ in range(JOINTS)])
        host.live(PERIOD_TICKS)
    counted = cycles(avr.events())
    found = {
        "flash": avr.size("text") + avr.size("data"),
        "RAM": avr.size("data") + avr.size("bss"),
        "stack": avr.stack_used(),
        "measuring": counted["machine_sense"],
        "decode a COMMAND": counted["decode"],
        "guard, one channel": counted["kz_admit"],
        "tick between setpoints": counted["between"],
        "tick with COMMAND, guard, STATE": counted["boundary"],
    }
    print(name, found)  # noqa: T201
    stated = {what: int(re.sub(r"\D", "", cells[column])) for what, cells in table("Mega 2560")}
    assert stated.keys() == found.keys()
    for what, figure in stated.items():
        assert 0.85 * figure <= found[what] <= figure, (what, figure, found[what])
    assert found["tick with COMMAND, guard, STATE"] < TICK_US * MHZ
    assert found["RAM"] + found["stack"] < (0x900 - 0x100 if name == "uno" else 0x2000) - 128


def table(last: str) -> Iterator[tuple[str, list[str]]]:
    """The rows of the page's table whose last column has this heading."""
    rows = re.search(rf"^\|.*\| {last} \|\n\|[-|]*\n((?:\|.*\n)+)", PAGE, re.M)
    assert rows
    for line in rows[1].splitlines():
        first, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        yield first, cells
