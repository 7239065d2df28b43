"""Rows: rules that couple joints, as the projection takes them.

A row is a·z ≤ b, a quadratic z'Qz + c·z ≤ r, in SI units over all joints of the guard. What z is, ``on`` says:

==============  ==================================================================================
position        the position commanded for the next period (rad, m)
velocity        its change per second (rad/s, m/s)
acceleration    the change of that per second (rad/s²)
command         the command itself, whatever ``[guard] command`` says it is
==============  ==================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
On = Literal["position", "velocity", "acceleration"]


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """``a`` (n,) · z ≤ ``b``. ``priority``: 0 matters most; only a row that is not ``hard`` may ever be relaxed."""

    name: str
    on: On
    a: F64
    b: float
    priority: int = 0
    hard: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Quadratic:
    """z'``q``z + ``c``·z ≤ ``r``; ``q`` (n, n) symmetric, positive semidefinite, ``c`` (n,)."""

    name: str
    on: On
    q: F64
    c: F64
    r: float
    priority: int = 0
    hard: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class PowerRule:
    """Σ torque·velocity ≤ ``watts`` over the joints where ``on`` (n,) is 1: a row on torques at a measured velocity."""

    name: str
    on: F64
    watts: float
    priority: int = 0
    hard: bool = True
