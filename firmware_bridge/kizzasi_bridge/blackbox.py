"""What led to a fault: finds it in a link's history, keeps the STATEs around it, writes them as a table."""

from __future__ import annotations

import csv
import os
import time
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from .calibration import Calibration
from .errors import ConnectorError
from .protocol import Fault, NodeState
from .request import code_name
from .schema import Schema
from .setpoints import setpoint_units, setpoints_si

__all__ = ["BlackBox", "write_csv"]

_AFTER_NS = 1_000_000_000
_COUNTERS = ("clamp_mask", "applied_seq", "rx_errors", "ignored", "misses", "stale", "connection")


class BlackBox:
    """Keeps the newest fault and what was around it.

    Attributes:
        rows: the STATEs around it, rows of :class:`.history.History`; empty before the first fault.
        at: index in ``rows`` of the first STATE that shows it.
    """

    def __init__(self) -> None:
        self.rows: NDArray[np.void] = np.zeros(0, dtype=[])
        self.at = 0
        self._told = 0

    def look(self, history: NDArray[np.void], schema: Schema) -> bool:
        """Look for a fault that began within ``history``; call it more often than that is replaced.

        True once for each fault: when the second after it is in ``rows`` too.
        """
        fault = history["fault"]
        begins = np.flatnonzero((fault[1:] != 0) & (fault[:-1] == 0)) + 1
        if not len(begins) or history["applied"].shape[1] != len(schema.channels):
            return False  # none, or its beginning has been replaced and is kept here
        at = int(begins[-1])
        stamps = history["recv_ns"]
        end = int(np.searchsorted(stamps, stamps[at] + _AFTER_NS, side="right"))
        self.rows, self.at = history[:end], at
        count = int(history["count"][at])
        if end == len(history) or count == self._told:
            return False
        self._told = count
        return True


def write_csv(path: str | os.PathLike[str], rows: NDArray[np.void], schema: Schema, period_us: int) -> None:
    """``rows`` of a history as a table: a line each, values in SI, time in UTC. Replaces ``path``.

    Raises:
        ConnectorError: it cannot be written.
    """
    try:
        _write(path, rows, schema, period_us)
    except OSError as error:
        raise ConnectorError(f"{os.fspath(path)}: {error.strerror or error}") from error


def _write(path: str | os.PathLike[str], rows: NDArray[np.void], schema: Schema, period_us: int) -> None:
    units = setpoint_units(schema)
    names = [f"applied {channel.name} [{unit}]" for channel, unit in zip(schema.channels, units, strict=True)]
    names += [f"{sensor.name} [{sensor.unit}]" for sensor in schema.sensors]
    applied = setpoints_si(schema, rows["applied"], period_us)
    sensors = Calibration(schema.sensors).to_si(rows["sensors"])
    wall_ns = time.time_ns() - time.monotonic_ns()
    with open(path, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["time", "t_us", "boot_id", "session", "state", "fault", *_COUNTERS, *names])
        for row, *values in zip(rows, applied, sensors, strict=True):
            table.writerow(
                [
                    datetime.fromtimestamp((int(row["recv_ns"]) + wall_ns) * 1e-9, UTC).isoformat("T", "microseconds"),
                    row["t_us"],
                    f"{row['boot_id']:#010x}",
                    f"{row['session']:#010x}",
                    code_name(NodeState, row["state"]),
                    code_name(Fault, row["fault"]),
                    *(row[name] for name in _COUNTERS),
                    *(f"{value:.9g}" for value in np.concatenate(values)),
                ]
            )
