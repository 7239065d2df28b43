"""The lattice of torques: effort box and torque rate, exactly, and which of its points is sent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.lattice import LatticeLimits, default_quantum
from kizzasi_edge.guardrails.torque_rows import TorqueRows
from kizzasi_edge.guardrails.verdict import Status

__all__ = ["EFFORT", "RATE", "TORQUE_RATE", "TorqueLattice", "positive"]

F64 = npt.NDArray[np.float64]

TORQUE_RATE, EFFORT = 4, 128
"""Bits of a channel's rules that torques use for what positions have not; the others are verdict.RULE_BITS."""

RATE = "torque_rate"


class TorqueLattice:
    """The torques that may be sent, as multiples of ``quanta``, and the last one sent.

    Args:
        joints: names.
        effort: (n,) largest torque [N·m].
        torque_rate: (n,) or one, largest change per second [N·m/s]; None for no limit.
        dt: period [s].

    Attributes: ``quanta`` (n,) [N·m]; ``most`` (n,) largest torque and ``raw`` (n,) the one sent last, in quanta;
    ``limits`` the integers a node would enforce; ``infeasible``: nothing but the brake was found last.

    Raises :class:`GuardrailError` for a torque rate below one quantum per period.
    """

    def __init__(
        self, joints: Sequence[str], effort: F64, torque_rate: npt.ArrayLike | None, dt: float, where: str | Path
    ) -> None:
        self.quanta = np.array([default_quantum(0.0, most) for most in effort])
        self.most = np.floor(effort / self.quanta)
        self._least = -self.most
        steps = 2.0 * self.most
        self.rate: F64 | None = None
        if torque_rate is not None:
            rate = positive(torque_rate, len(effort), where, f"[dynamics] {RATE}")
            steps = self.rate = np.minimum(np.floor(rate * dt / self.quanta), steps)
            if (steps < 1).any():
                raise GuardrailError(
                    f"{where}: [dynamics] {RATE}: found {rate.tolist()}, below one quantum per period; expected at "
                    f"least {float(self.quanta.max()) / dt:.6g}"
                )
        self.limits = tuple(
            LatticeLimits(name, float(quantum), -int(most), int(most), int(step), 2 * int(step), 0.0)
            for name, quantum, most, step in zip(joints, self.quanta, self.most, steps, strict=True)
        )
        self.raw: F64 = np.zeros(len(effort))
        self.infeasible = False

    def admit(self, want: F64, rows: TorqueRows, bits: npt.NDArray[np.uint8]) -> tuple[Status, int, int, bool]:
        """``raw`` ← the point nearest to ``want`` (n,) [N·m] that keeps box, rate and ``rows``; ``bits`` ← its rules.

        Returns the status, the power rules that shaped it and those it breaks, a bit each, and whether the torque rate
        gave way, which it does where no torque within it keeps the rows.
        """
        quanta, most = self.quanta, self.most
        self.infeasible = False
        bits[:] = 0
        asked = np.rint(want / quanta)
        boxed = raw = np.minimum(np.maximum(asked, self._least), most)
        lowest, highest = self._least, most
        if self.rate is not None:
            lowest, highest = np.maximum(lowest, self.raw - self.rate), np.minimum(highest, self.raw + self.rate)
            raw = np.minimum(np.maximum(boxed, lowest), highest)
        status = Status.PASS
        if not np.array_equal(raw, asked):
            status = Status.CLAMPED
            bits[boxed != asked] = EFFORT
            bits[raw != boxed] |= TORQUE_RATE
        if rows.hold(raw * quanta):
            self.raw = raw
            return status, 0, 0, False
        status, gave_rate = Status.PROJECTED, False
        found = rows.nearest(want, lowest, highest)
        if found is None and self.rate is not None:
            status, gave_rate = Status.BRAKE, True
            found = rows.nearest(rows.braking(), self._least, most)
        if found is None:
            self.infeasible, status = True, Status.BRAKE
            found = np.minimum(np.maximum(np.rint(rows.braking() / quanta), self._least), most)
        touched, shaped, broken = rows.touched(found * quanta)
        bits |= touched
        self.raw = found
        return status, shaped, broken, gave_rate


def positive(value: Any, n: int, where: str | Path, key: str) -> F64:
    """``value``, one or (n,), as (n,). Raises :class:`GuardrailError` unless all are finite and above 0."""
    array = np.array(np.broadcast_to(value, (n,)), np.float64)
    if not (np.isfinite(array).all() and (array > 0.0).all()):
        raise GuardrailError(f"{where}: {key}: found {array}; expected finite values above 0")
    return array
