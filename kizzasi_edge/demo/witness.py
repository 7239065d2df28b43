"""What the plant itself saw: limit violations and the trace of a run.

The witness shares no code with the guard. It compares true joint motion with the raw limits of the URDF at
every physics step, and the setpoints that reached the actuators with the guard's integer limits every period.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kizzasi_edge.errors import ConfigError

__all__ = ["Lattice", "LimitWitness", "Trace", "raw_limits"]

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


def raw_limits(urdf: str | Path, joints: tuple[str, ...]) -> F64:
    """Read (3, n) lower [rad], upper [rad] and velocity [rad/s] of the named joints from a URDF.

    Raises:
        ConfigError: a joint or its limit is missing.
    """
    try:
        root = ET.parse(urdf).getroot()
    except (OSError, ET.ParseError) as error:
        raise ConfigError(f"{urdf}: cannot be read as a URDF: {error}") from error
    rows = []
    for name in joints:
        limit = root.find(f"./joint[@name='{name}']/limit")
        if limit is None:
            raise ConfigError(f"{urdf}: joint {name}: found no <limit>, expected lower, upper and velocity")
        try:
            rows.append([float(limit.attrib[key]) for key in ("lower", "upper", "velocity")])
        except (KeyError, ValueError) as error:
            raise ConfigError(
                f"{urdf}: joint {name}: <limit> needs the numbers lower, upper, velocity: {error}"
            ) from error
    return np.array(rows, dtype=np.float64).T


@dataclass(frozen=True)
class Lattice:
    """The guard's integers a channel, (n,) int64: lo, hi [quanta], w [quanta/period], h [quanta/period²]."""

    lo: I64
    hi: I64
    w: I64
    h: I64

    @classmethod
    def load(cls, path: str | Path, joints: tuple[str, ...]) -> Lattice:
        """Read ``{"channels": [{"name", "lo", "hi", "w", "h"}, …]}``, one entry a joint, in any order.

        Raises:
            ConfigError: the file cannot be read or a joint is missing.
        """
        try:
            channels = {entry["name"]: entry for entry in json.loads(Path(path).read_text())["channels"]}
            columns = [[int(channels[name][key]) for name in joints] for key in ("lo", "hi", "w", "h")]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path}: expected channels with name, lo, hi, w, h for {joints}: {error!r}") from error
        return cls(*(np.array(column, dtype=np.int64) for column in columns))


class LimitWitness:
    """Counts violations; every counter is (n,) int64, one a joint.

    Attributes:
        position, velocity: physics steps at which the true joint was outside the raw limits.
        range, step, acceleration: periods whose applied setpoint broke lo ≤ q ≤ hi, |step| ≤ w, |Δstep| ≤ h
            (integers, no tolerance); all zero without a lattice.
        extremes: (3, n) least and greatest position [rad] and greatest speed [rad/s] seen.
        steps, periods: how many physics steps and periods were compared.
    """

    def __init__(self, raw: F64, lattice: Lattice | None) -> None:
        n = raw.shape[1]
        self._raw, self._lattice = raw, lattice
        self.position, self.velocity = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self.range, self.step, self.acceleration = (np.zeros(n, np.int64) for _ in range(3))
        self.extremes = np.array([np.full(n, np.inf), np.full(n, -np.inf), np.zeros(n)])
        self.steps = self.periods = 0
        self._last: I64 = np.zeros(n, np.int64)
        self._last_step: I64 = np.zeros(n, np.int64)
        self._known = 0  # applied setpoints known in a row since the outputs were enabled

    def see_motion(self, q: F64, qvel: F64) -> None:
        """Compare true positions [rad] and velocities [rad/s], (n,), with the raw limits."""
        low, high, speed = self._raw
        self.steps += 1
        rate = np.abs(qvel)
        np.minimum(self.extremes[0], q, out=self.extremes[0])
        np.maximum(self.extremes[1], q, out=self.extremes[1])
        np.maximum(self.extremes[2], rate, out=self.extremes[2])
        if (q < low).any() or (q > high).any():
            self.position += (q < low) | (q > high)
        if (rate > speed).any():
            self.velocity += rate > speed

    def see_setpoint(self, applied: npt.NDArray[np.int32], enabled: bool) -> None:
        """Compare a new period's setpoint, (n,) quanta, with the lattice; disabled outputs break the chain."""
        if not enabled or self._lattice is None:
            self._known = 0
            return
        limit, q = self._lattice, applied.astype(np.int64)
        self.periods += 1
        self.range += (q < limit.lo) | (q > limit.hi)
        if self._known >= 1:
            step = q - self._last
            self.step += np.abs(step) > limit.w
            # The first setpoint after enabling is a hold: the step before it is zero.
            before = self._last_step if self._known >= 2 else np.zeros_like(step)
            self.acceleration += np.abs(step - before) > limit.h
            self._last_step = step
        self._last = q
        self._known = min(self._known + 1, 2)

    def summary(self, joints: tuple[str, ...]) -> dict[str, Any]:
        """Everything counted, as JSON-ready values."""

        def by_joint(values: npt.NDArray[Any]) -> dict[str, Any]:
            return dict(zip(joints, values.tolist(), strict=True))

        return {
            "violations": {
                "position": int(self.position.sum()),
                "velocity": int(self.velocity.sum()),
                "acceleration": int(self.acceleration.sum()),
                "commanded_range": int(self.range.sum()),
                "commanded_step": int(self.step.sum()),
            },
            "violations_by_joint": {
                "position": by_joint(self.position),
                "velocity": by_joint(self.velocity),
                "acceleration": by_joint(self.acceleration),
                "commanded_range": by_joint(self.range),
                "commanded_step": by_joint(self.step),
            },
            "physics_steps": self.steps,
            "periods_compared": self.periods,
            "position_min": by_joint(self.extremes[0]) if self.steps else {},
            "position_max": by_joint(self.extremes[1]) if self.steps else {},
            "speed_max": by_joint(self.extremes[2]) if self.steps else {},
        }


class Trace:
    """A run, one row a period, in arrays allocated beforehand; rows past the capacity are only counted."""

    def __init__(self, n: int, capacity: int) -> None:
        self.rows = self.dropped = 0
        self._capacity = capacity
        self.columns: dict[str, npt.NDArray[Any]] = {
            "t_us": np.zeros(capacity, np.uint32),
            "state": np.zeros(capacity, np.uint8),
            "enabled": np.zeros(capacity, np.bool_),
            "q": np.zeros((capacity, n)),
            "qvel": np.zeros((capacity, n)),
            "out": np.zeros((capacity, n), np.int32),
            "applied": np.zeros((capacity, n), np.int32),
            "measured": np.zeros((capacity, n), np.int32),
        }

    def add(self, **row: Any) -> None:
        """Record one period: a value for every column."""
        if self.rows == self._capacity:
            self.dropped += 1
            return
        for name, column in self.columns.items():
            column[self.rows] = row[name]
        self.rows += 1

    def save(self, path: str | Path, *, joints: tuple[str, ...], quantum: float) -> None:
        """Write the columns, the joint names and the quantum [rad] to an npz file."""
        kept: dict[str, Any] = {name: column[: self.rows] for name, column in self.columns.items()}
        np.savez(path, joints=np.array(joints), quantum=np.float64(quantum), **kept)
