"""What a guard drives: commands of one kind, from the last one applied.

The stack (stack.py) checks arguments, runs the fault machine and the temporal rules, and asks its drive for one thing
per period: follow a proposal, coast, or brake. A drive knows what is admissible, and nothing of faults.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from kizzasi_edge.guardrails.verdict import Layout, Record

F64 = npt.NDArray[np.float64]
FloatArray = npt.NDArray[np.float32]


class Drive(Protocol):
    """One of :class:`~kizzasi_edge.guardrails.core.CoreDrive` (positions, velocities),
    :class:`~kizzasi_edge.guardrails.torque.TorqueDrive`, :class:`~kizzasi_edge.guardrails.bones.PoseDrive`."""

    layout: Layout
    shape: tuple[int, ...]
    """Of a command, and of what is sent."""
    record: Record
    """A verdict's record (verdict.py), rewritten by every :meth:`follow`, :meth:`coast` and :meth:`brake`: all of it
    but ``state`` and ``cause``, which are the stack's."""
    measures: tuple[str, ...]
    """Of "position" and "velocity", what :meth:`measure` needs each period."""

    def seed(self, position: F64) -> None:
        """Stand at rest at a measured position ``(n,)``."""

    def rebase(self, applied: npt.NDArray[np.int32], step: npt.NDArray[np.int32]) -> None:
        """Stand on what a node applied last ``(n,)``, and its last change, in quanta."""

    def measure(self, position: F64, velocity: F64 | None) -> None:
        """Take this period's measurement, finite. Not called where there was none: then what the last command should
        have led to stands in for it."""

    def follow(self, command: FloatArray, out: FloatArray) -> int:
        """``out`` ← the admissible value nearest to ``command``. Returns event bits (faults.py): 0; NON_FINITE, then
        nothing has moved; INFEASIBLE where not even braking kept every rule; OUTSIDE where a joint stood outside its
        range.
        """

    def coast(self, out: FloatArray, rule: int) -> None:
        """``out`` ← the last motion continued, or braked where that is not admissible. ``rule``: the bit that says why,
        in every channel's byte."""

    def brake(self, out: FloatArray, rule: int) -> None:
        """``out`` ← as :meth:`coast`, braking at the limit."""

    def derate(self, slow: bool) -> None:
        """Follow at half the speed from now on, or at full speed again."""

    @property
    def at_rest(self) -> bool:
        """Whether the last command applied asks for no motion."""

    def applied(self) -> tuple[list[float], list[float]]:
        """Position and velocity of each joint as last applied, where commands are torques as measured, SI units."""

    def asks_no_motion(self, command: FloatArray) -> bool:
        """Whether a finite ``command`` keeps everything where it is, within one period at full speed."""
