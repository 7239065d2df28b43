"""What happened, tick by tick, in preallocated arrays; the newest ``capacity`` ticks are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kizzasi_edge.frames import Observation
from kizzasi_edge.guardrails import Verdict


class Recorder:
    """Ring of per-tick records. Columns (one row per tick):

    ``stamp_ns`` receive time of the oldest input, ``t_us`` the device's clock at sampling, ``x`` the inputs,
    ``proposal`` model output in the guard's order, ``sent`` guarded command [SI], ``armed``, ``status`` and ``state``
    (guard verdict and fault machine), ``rules`` bits per channel, ``intervention``, ``model_ns`` time in the model,
    ``tick_ns`` from the observation's arrival to the command's write, ``late_ns`` from the observation's arrival to the
    tick's start.
    """

    def __init__(self, capacity: int, inputs: int, commands: int, channels: int) -> None:
        """Room for ``capacity`` ticks of ``inputs`` values in, ``commands`` out, and a guard of ``channels``."""
        self.capacity = capacity
        self.ticks = 0
        self.columns: dict[str, npt.NDArray[Any]] = {
            "stamp_ns": np.zeros(capacity, np.int64),
            "t_us": np.zeros(capacity, np.uint32),
            "x": np.zeros((capacity, inputs), np.float32),
            "proposal": np.zeros((capacity, commands), np.float32),
            "sent": np.zeros((capacity, commands), np.float32),
            "armed": np.zeros(capacity, np.bool_),
            "status": np.zeros(capacity, np.uint8),
            "state": np.zeros(capacity, np.uint8),
            "rules": np.zeros((capacity, channels), np.uint8),
            "intervention": np.zeros(capacity, np.float64),
            "model_ns": np.zeros(capacity, np.int64),
            "tick_ns": np.zeros(capacity, np.int64),
            "late_ns": np.zeros(capacity, np.int64),
        }

    def add(self, observation: Observation, verdict: Verdict, **values: Any) -> None:
        """Record one tick: what was seen, what the guard decided, and a value for each of the other columns."""
        row, columns = self.ticks % self.capacity, self.columns
        columns["stamp_ns"][row] = observation.stamp_ns
        columns["t_us"][row] = observation.t_us
        columns["x"][row] = observation.values
        columns["status"][row] = verdict.status
        columns["state"][row] = verdict.state
        columns["rules"][row] = np.frombuffer(verdict.bits, np.uint8)
        columns["intervention"][row] = verdict.intervention
        for name, value in values.items():
            columns[name][row] = value
        self.ticks += 1

    def history(self) -> dict[str, npt.NDArray[Any]]:
        """The recorded ticks in order of time."""
        if self.ticks <= self.capacity:
            return {name: column[: self.ticks] for name, column in self.columns.items()}
        start = self.ticks % self.capacity
        return {name: np.roll(column, -start, axis=0) for name, column in self.columns.items()}

    def save(self, path: Path, **extra: Any) -> None:
        """Write a compressed ``.npz`` with all columns and ``extra`` arrays."""
        columns: dict[str, Any] = {**self.history(), **extra}
        np.savez_compressed(path, **columns)
