"""Fallback controllers: what commands the joints once the deadline shield has taken over from the model.

The guard admits every proposal of theirs as it is, so the time that
:mod:`~kizzasi_edge.guardrails.temporal.time_to_go` promises is the time that is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Protocol

import numpy as np

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.temporal.time_to_go import F64, PoseTime, Values


class Fallback(Protocol):
    """Where it ends is declared, so that a goal which it cannot establish is refused at build."""

    pose: F64 | None
    """``(n,)`` [rad] where it ends, at velocity 0; ``None``: at velocity 0 anywhere."""

    def propose(self, position: Values, velocity: Values) -> F64 | None:
        """The next position ``(n,)`` [rad], from the applied position and velocity; ``None``: the guard is to brake."""


class Brake:
    """The guard's own brake: each joint at its limit, joints that a rule on velocities couples in proportion."""

    pose: F64 | None = None

    def propose(self, position: Values, velocity: Values) -> None:
        return None


class GoToPose:
    """Follow ruckig's fastest trajectory to ``time.pose``, joint by joint, and stay there.

    It is planned from the applied state when the fallback takes over, and again whenever that state is not the proposed
    one (a missed period, another fallback in between). A joint that ruckig would lead too near to a position limit
    brakes first and is planned from where that ends. Where ruckig finds no trajectory (counted in ``time.failures``)
    all joints brake, and it is asked again the next period.
    """

    def __init__(self, time: PoseTime) -> None:
        n = len(time.lattice.names)
        self.pose: F64 | None = time.pose
        self.plans = 0
        """Trajectories planned."""
        self._time = time
        self._trajectory: Any | None = None
        self._age = 0
        self._delay: F64 = np.zeros(n)
        self._proposed: F64 = np.zeros(n)
        self._step: F64 = np.zeros(n)
        self._out: F64 = np.zeros(n)

    def propose(self, position: Values, velocity: Values) -> F64:
        """As :class:`Fallback` says; the array is its own."""
        lattice = self._time.lattice
        q, step = lattice.state(position, velocity)
        on_path = np.array_equal(q, self._proposed) and np.array_equal(step, self._step)
        if self._trajectory is None or not on_path:
            self._plan(q, step)
        brake = q + lattice.slower(step)
        self._proposed = brake if self._trajectory is None else self._follow(self._trajectory, brake)
        self._step = self._proposed - q
        return np.multiply(self._proposed, lattice.quantum, out=self._out)

    def _plan(self, q: F64, step: F64) -> None:
        lattice, leaves = self._time.lattice, self._time.leaves(q, step)
        self._age = 0
        self._delay = np.where(leaves, lattice.brake_periods(step), 0.0)
        start = np.where(leaves, q + lattice.brake_distance(step), q)
        self._trajectory = self._time.plan(start, np.where(leaves, 0.0, step))
        self.plans += 1

    def _follow(self, trajectory: Any, brake: F64) -> F64:
        self._age += 1
        proposal = self._time.sample(trajectory, self._age)
        for i in np.flatnonzero(self._delay):
            late = self._age - self._delay[i]
            proposal[i] = self._time.sample(trajectory, late)[i] if late > 0 else brake[i]
        return proposal


def require_goal(fallback: Fallback, goal: Callable[[F64, F64], bool], uses: Collection[str], joints: int) -> None:
    """Refuse a goal that ``fallback`` does not establish by itself.

    ``goal(position, velocity)``: the formula's goal, on applied positions and velocities ``(joints,)``. ``uses``: the
    names that its atoms read; ``position`` and ``velocity`` are the guard's own, any other name is the world's.

    Raises :class:`GuardrailError` with the reason.
    """
    kind = type(fallback).__name__
    if outside := sorted(set(uses) - {"position", "velocity"}):
        raise GuardrailError(
            f"the goal reads {', '.join(outside)}; expected position and velocity only, which the guard's own commands "
            "determine: it can be monitored, not enforced"
        )
    if fallback.pose is None and "position" in uses:
        raise GuardrailError(
            f"the goal reads position, but fallback {kind} comes to rest anywhere: expected a goal on velocity alone, "
            "or a go-to-pose fallback"
        )
    position = np.full(joints, np.nan) if fallback.pose is None else fallback.pose
    if not goal(position, np.zeros(joints)):
        where = "at rest" if fallback.pose is None else f"at rest at {position.tolist()}"
        raise GuardrailError(f"fallback {kind} ends {where}, where the goal does not hold")
