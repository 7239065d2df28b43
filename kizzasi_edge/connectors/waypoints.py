"""Waypoints from a CSV file: each row's values hold from its time until the next row's."""

from __future__ import annotations

import csv
import math
import time
from bisect import bisect_right
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydantic import StrictStr

from kizzasi_edge.errors import ConfigError
from kizzasi_edge.frames import Observation
from kizzasi_edge.toml_file import Section

FLOAT32_MAX = float(np.finfo(np.float32).max)


class WaypointsOptions(Section):
    """``path`` of a CSV with a header: ``time_s`` (from the run's start, increasing) and one column per signal."""

    path: StrictStr


class Waypoints:
    """A :class:`~kizzasi_edge.connectors.base.Source` of targets; never stale: a target holds until replaced."""

    Options = WaypointsOptions

    def __init__(self, options: WaypointsOptions, base: Path) -> None:
        self.path = base / options.path
        self.names, self._times, self._rows = read_waypoints(self.path)
        self._valid = np.ones(len(self.names), np.bool_)
        self._start_ns = 0

    def open(self) -> None:
        self._start_ns = time.monotonic_ns()

    def close(self) -> None:
        """Nothing to release."""

    def read(self) -> Observation:
        now = time.monotonic_ns()
        row = max(bisect_right(self._times, (now - self._start_ns) * 1e-9) - 1, 0)
        return Observation(now, row, self.names, self._rows[row], self._valid)

    @property
    def counters(self) -> Mapping[str, int]:
        return {}

    def findings(self, rate_hz: float, joints: int) -> list[tuple[bool, str]]:
        return []


def read_waypoints(
    path: Path,
) -> tuple[tuple[str, ...], list[float], list[np.ndarray[tuple[int], np.dtype[np.float32]]]]:
    """Names, times [s] and rows of float32 values. Raises :class:`ConfigError` naming file, line and column."""
    try:
        with path.open(newline="") as file:
            header, *lines = list(csv.reader(file)) or [[]]
    except (OSError, ValueError, csv.Error) as exc:
        raise ConfigError(f"{path}: cannot be read: {exc}") from exc
    if not header or header[0] != "time_s" or len(header) < 2:
        raise ConfigError(f"{path}: line 1: found columns {header}; expected time_s and at least one signal")
    if len(set(header)) != len(header):
        raise ConfigError(f"{path}: line 1: found columns {header}; expected each name once")
    times: list[float] = []
    rows = []
    for number, line in enumerate(lines, start=2):
        if len(line) != len(header):
            raise ConfigError(f"{path}: line {number}: found {len(line)} columns; expected {len(header)}")
        values = []
        for column, text in zip(header, line, strict=True):
            try:
                value = float(text)
            except ValueError:
                value = math.nan
            if not abs(value) <= FLOAT32_MAX:
                raise ConfigError(f"{path}: line {number}, column {column!r}: found {text!r}; expected a finite number")
            values.append(value)
        if times and values[0] <= times[-1]:
            raise ConfigError(
                f"{path}: line {number}, column 'time_s': found {values[0]:g}; expected more than {times[-1]:g}"
            )
        times.append(values[0])
        rows.append(np.array(values[1:], np.float32))
    if not rows:
        raise ConfigError(f"{path}: no rows; expected at least one waypoint")
    return tuple(header[1:]), times, rows
