"""CSV and Parquet files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kizzasi_edge.errors import ConfigError
from kizzasi_export.datasets.clock import Clock
from kizzasi_export.datasets.columns import Columns
from kizzasi_export.datasets.files import library
from kizzasi_export.datasets.recordings import Part, from_columns, needed
from kizzasi_export.datasets.section import DataSection


def read_csv(path: Path, section: DataSection, clock: Clock) -> Part:
    """One file; its rows are steps, in episodes where `section` names a column for them.

    Raises:
        ConfigError: not such a file, or columns that do not fit.
    """
    return _read(path, section, clock, parquet=False)


def read_parquet(path: Path, section: DataSection, clock: Clock) -> Part:
    """As `read_csv`; list columns are vectors."""
    return _read(path, section, clock, parquet=True)


def _read(path: Path, section: DataSection, clock: Clock, *, parquet: bool) -> Part:
    columns = read_columns(path, needed(section), parquet=parquet)
    return from_columns(columns, section, clock, [path], time=section.time, episode=section.episode)


def read_columns(
    path: Path, wanted: set[str], *, parquet: bool, elements: dict[str, Sequence[str] | None] | None = None
) -> Columns:
    """The wanted columns of a Parquet or CSV file; `elements` names those of vector columns."""
    lib = library("pyarrow", path)
    kind = "Parquet" if parquet else "CSV"
    try:
        if parquet:
            reader = library("pyarrow.parquet", path)
            names = reader.read_schema(path).names
            table = reader.read_table(path, columns=[name for name in dict.fromkeys(names) if _is_wanted(name, wanted)])
        else:
            table = library("pyarrow.csv", path).read_csv(path)
            names = table.column_names
    except (lib.ArrowException, OSError) as error:
        raise ConfigError(f"{path}: cannot be read as {kind}: {error}") from None
    if table.num_rows == 0:
        raise ConfigError(f"{path}: found no rows, expected at least one")
    picked = [name for name in names if _is_wanted(name, wanted)]
    if twice := sorted({name for name in picked if picked.count(name) > 1}):
        raise ConfigError(f"{path}: column {', '.join(map(repr, twice))} is there more than once")
    columns = Columns(str(path), unread=[name for name in names if name not in picked])
    for name in picked:
        columns.add(name, _array(table[name], f"{path}: column {name!r}"), (elements or {}).get(name))
    return columns


def _is_wanted(name: str, wanted: set[str]) -> bool:
    return any(w == name or w.startswith(f"{name}[") for w in wanted)


def _array(column: Any, where: str) -> NDArray[Any]:
    """An Arrow column as [T], or as [T, k] of a list column; empty cells are NaN."""
    types = library("pyarrow.types", where)
    kind = column.type
    if not (types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)):
        scalars: NDArray[Any] = column.to_numpy()  # [T]
        return scalars
    lists = column.combine_chunks()
    lengths = library("pyarrow.compute", where).list_value_length(lists).to_numpy(zero_copy_only=False)  # [T]
    if len(odd := np.flatnonzero(lengths != lengths[0])):
        raise ConfigError(f"{where} has {_count(lengths[odd[0]])} at row {odd[0]}, expected {_count(lengths[0])}")
    flat: NDArray[Any] = lists.flatten().to_numpy(zero_copy_only=False)  # [T * k]
    return flat.reshape(len(lists), -1)


def _count(elements: float) -> str:
    return f"{elements:.0f} elements" if elements == elements else "no list"  # NaN: an empty cell
