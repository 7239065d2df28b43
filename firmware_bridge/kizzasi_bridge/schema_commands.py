"""What ``kizzasi-bridge schema`` does: show a board.toml, write its C header, compare it with a board."""

from __future__ import annotations

import zlib
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .board_file import BoardFile
from .errors import ConfigError, LinkError
from .link import Link
from .schema import Schema
from .schema_header import schema_header
from .written import write_file

__all__ = ["compare", "schema_hash", "show", "write_header"]

_MOST_SHOWN = 12


def schema_hash(schema: Schema) -> int:
    """As HELLO has it, where the firmware is built here."""
    return zlib.crc32(schema.to_bytes())


def show(board: BoardFile, console: Console) -> None:
    """The table that the file describes, with every digit of the scales: a guard's ``quantum`` must equal them."""
    schema = board.schema
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("", "name", "zero", "scale", "unit", ""):
        table.add_column(name, justify="right" if name in ("zero", "scale") else "left", no_wrap=True)
    for i, channel in enumerate(schema.channels):
        table.add_row(f"channel {i}", channel.name, str(channel.zero), repr(channel.scale), channel.unit, channel.type)
    for i, sensor in enumerate(schema.sensors):
        measures = "" if sensor.channel is None else f"of channel {sensor.channel}"
        table.add_row(f"sensor {i}", sensor.name, str(sensor.zero), repr(sensor.scale), sensor.unit, measures)
    console.print(f"{schema.board}, tick {schema.tick_us} µs, hash {schema_hash(schema):#010x}", highlight=False)
    console.print(table)


def write_header(board: BoardFile, header: Path, console: Console) -> None:
    """Write the C header. Raises ConfigError if it cannot be written."""
    write_file(header, schema_header(board.schema, Path(board.where).name).encode(), ConfigError)
    console.print(f"{header}: hash {schema_hash(board.schema):#010x}", highlight=False, soft_wrap=True)


def compare(board: BoardFile, link: Link, console: Console) -> None:
    """Say that the connected board carries the file's table. Raises LinkError with the differences if it does not."""
    found, expected = link.hello.schema_hash, schema_hash(board.schema)
    if differences := board.schema.differences(link.schema):
        shown = differences[:_MOST_SHOWN]
        if len(differences) > len(shown):
            shown.append(f"… and {len(differences) - len(shown)} more")
        raise LinkError(
            f"port {link.port}: the board carries another table ({found:#010x}, the file {expected:#010x}); "
            + "\n  ".join([f"{board.where} says, not as the board:", *shown])
        )
    console.print(f"the board carries {board.where}: hash {found:#010x}", highlight=False, soft_wrap=True)
    if found != expected:
        console.print(f"(built here it would be {expected:#010x}: another zlib packs the same table otherwise)")
