"""Named columns of a file: the asked-for channels, whole or element by element, as finite float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kizzasi_edge.errors import ConfigError
from kizzasi_export.datasets.clock import Stamps, Values

_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_SHOWN = 20


@dataclass
class Columns:
    """Channels [T] by name; elements of a vector column are ``name[element]``.

    Attributes:
        source: file (and episode) for error messages.
        channels: name → values [T].
        groups: a vector column's name, or ``name[number]`` of an element that has a name → its channels.
        unread: columns that are in the file too.
    """

    source: str
    channels: dict[str, NDArray[Any]] = field(default_factory=dict)
    groups: dict[str, list[str]] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)

    def add(self, name: str, values: NDArray[Any], elements: Sequence[str] | None = None) -> None:
        """A column of values [T], or of vectors [T, k] (k = 1: also [T]) whose elements are named, else numbered.

        Raises:
            ConfigError: neither of these shapes.
        """
        if values.ndim == 1 and elements is None:
            self.channels[name] = values
            return
        values = values[:, None] if values.ndim == 1 else values
        if values.ndim != 2:
            raise ConfigError(f"{self.source}: {name!r} is {list(values.shape)}, expected [T] or [T, k]")
        numbered = [f"{name}[{i}]" for i in range(values.shape[1])]
        named = numbered if elements is None else [f"{name}[{element}]" for element in elements]
        if len(set(named)) != len(numbered):  # names that repeat, or of another number, are no use
            named = numbered
        self.channels.update(zip(named, values.T, strict=True))
        self.groups |= {number: [channel] for number, channel in zip(numbered, named, strict=True)}
        self.groups[name] = named

    def find(self, wanted: Sequence[str]) -> list[str]:
        """The channels that these names stand for, in order.

        Raises:
            ConfigError: names that are not there (with those that are), or a channel named twice.
        """
        found = {name: [name] if name in self.channels else self.groups.get(name, []) for name in wanted}
        if missing := [name for name, channels in found.items() if not channels]:
            there = [*self.channels, *self.unread]
            more = f" and {len(there) - _SHOWN} more" if len(there) > _SHOWN else ""
            raise ConfigError(
                f"{self.source}: no column {', '.join(map(repr, missing))}; found {', '.join(there[:_SHOWN])}{more}"
            )
        channels = [channel for name in wanted for channel in found[name]]
        if twice := sorted({name for name in channels if channels.count(name) > 1}):
            raise ConfigError(f"{self.source}: column {', '.join(map(repr, twice))} chosen twice, expected once")
        return channels

    def values(self, channels: Sequence[str]) -> Values:
        """Channels side by side [T, n].

        Raises:
            ConfigError: channels that are no numbers, empty, or of unequal length.
        """
        lengths = {name: len(self.channels[name]) for name in channels}
        if len(set(lengths.values())) > 1 or 0 in lengths.values():
            raise ConfigError(f"{self.source}: found columns of lengths {lengths}, expected equal ones > 0")
        for name in channels:
            if (dtype := self.channels[name].dtype).kind not in "fiub":
                raise ConfigError(f"{self.source}: column {name!r} holds {dtype}, expected numbers")
        return np.stack([self.channels[name].astype(np.float64) for name in channels], axis=1)

    def stamps(self, name: str, unit: str | None) -> Stamps:
        """A time column in ns [T], from the first row.

        Raises:
            ConfigError: no such column, no time in some row, or neither timestamps nor numbers.
        """
        values = self.channels[self.find([name])[0]]
        kind = values.dtype.kind
        if kind not in "Mfiu" or (kind == "M" and unit is not None):
            expected = "no time_unit for timestamps" if kind == "M" else "timestamps, or numbers with a time_unit"
            raise ConfigError(f"{self.source}: time column {name!r} holds {values.dtype}, expected {expected}")
        if len(missing := np.flatnonzero(np.isnat(values) if kind == "M" else ~np.isfinite(values))):
            raise ConfigError(f"{self.source}: time column {name!r} holds no time at row {missing[0]}")
        if kind == "M":
            return np.asarray((values - values[:1]).astype("timedelta64[ns]").astype(np.int64))
        exact = values.astype(np.float64 if kind == "f" else np.int64)  # also what would wrap where time runs back
        return np.asarray(np.rint((exact - exact[:1]) * _NS[unit or "s"]).astype(np.int64))


def require_finite(values: Values, channels: Sequence[str], source: str) -> None:
    """Raise ConfigError naming column and row of the first of the values [T, n] that float32 cannot hold."""
    bad = np.argwhere(~(np.abs(values) <= np.finfo(np.float32).max))
    if len(bad):
        row, column = bad[0]
        raise ConfigError(
            f"{source}: column {channels[column]!r} holds {values[row, column]} at row {row}, expected finite numbers "
            f"({len(bad)} such value(s))"
        )


def episodes(values: NDArray[Any], source: str) -> list[slice]:
    """Rows of each run of equal values [T].

    Raises:
        ConfigError: a value that comes back after another, or none.
    """
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    seen = set()
    for start in starts.tolist():
        if values[start] != values[start]:  # NaN: an empty cell
            raise ConfigError(f"{source}: no episode at row {start}, expected a value in every row")
        if values[start] in seen:
            raise ConfigError(
                f"{source}: episode {values[start]} begins again at row {start}, expected one run of rows"
            )
        seen.add(values[start])
    return [slice(int(a), int(b)) for a, b in zip(starts, [*starts[1:], len(values)], strict=True)]
