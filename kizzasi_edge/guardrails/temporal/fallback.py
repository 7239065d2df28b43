"""Fallback controllers: what commands the joints once the deadline shield has taken over from the model.

Each proposes one position per period from the guard's applied state; the guard admits every one of these proposals
as it is, so the time that :mod:`~kizzasi_edge.guardrails.temporal.time_to_go` promises is the time that is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

import numpy as np

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.lattice import LatticeLimits
from kizzasi_edge.guardrails.temporal.time_to_go import F64, Lattice, PoseTime


class Fallback(Protocol):
    """Where it ends is declared, so that a goal which it cannot establish is refused at build."""

    pose: F64 | None
    """``(n,)`` [rad] where it ends, at velocity 0; ``None``: at velocity 0 anywhere."""

    def start(self) -> None:
        """It takes over with the next :meth:`propose`."""

    def propose(self, position: F64, velocity: F64) -> F64:
        """The next position ``(n,)`` [rad], from the applied position and velocity. The array is its own."""


class Brake:
    """Every joint brakes at the guard's limit and stays where it comes to rest."""

    pose: F64 | None = None

    def __init__(self, limits: Sequence[LatticeLimits], dt: float) -> None:
        self._lattice = Lattice(limits, dt)
        self._out: F64 = np.zeros(len(limits))

    def start(self) -> None:
        pass

    def propose(self, position: F64, velocity: F64) -> F64:
        lattice = self._lattice
        q, step = lattice.state(position, velocity)
        return np.multiply(q + lattice.slower(step), lattice.quantum, out=self._out)


class Hold:
    """Brake, then keep the place: a joint that something moves after it came to rest is asked back to it."""

    pose: F64 | None = None

    def __init__(self, limits: Sequence[LatticeLimits], dt: float) -> None:
        self._lattice = Lattice(limits, dt)
        self._brake = Brake(limits, dt)
        self._place: F64 | None = None

    def start(self) -> None:
        self._place = None

    def propose(self, position: F64, velocity: F64) -> F64:
        if self._place is not None:
            return self._place
        if not self._lattice.state(position, velocity)[1].any():
            self._place = np.array(position, np.float64)
            return self._place
        return self._brake.propose(position, velocity)


class GoToPose:
    """Follow ruckig's fastest trajectory to ``time.pose``, joint by joint, and stay there.

    It is planned from the applied state when the fallback takes over, and again whenever the applied positions are
    not the proposed ones (a missed period, a rule that couples joints). A joint that ruckig would lead too near to a
    position limit brakes first and is planned from where that ends. Where ruckig finds no trajectory (counted in
    ``time.failures``) all joints brake, and it is asked again the next period.
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
        self._out: F64 = np.zeros(n)

    def start(self) -> None:
        self._trajectory = None

    def propose(self, position: F64, velocity: F64) -> F64:
        lattice = self._time.lattice
        q, step = lattice.state(position, velocity)
        if self._trajectory is None or not np.array_equal(q, self._proposed):
            self._plan(q, step)
        brake = q + lattice.slower(step)
        self._proposed = brake if self._trajectory is None else self._follow(self._trajectory, brake)
        return np.multiply(self._proposed, lattice.quantum, out=self._out)

    def _plan(self, q: F64, step: F64) -> None:
        lattice, leaves = self._time.lattice, self._time.leaves(q, step)
        self._age = 0
        self._delay = np.where(leaves, lattice.brake_periods(step), 0.0)
        # Σ max(|step| − k·h, 0) over the whole periods of a brake that lasts m of them
        braking = np.ceil(np.abs(step) / lattice.h) - 1
        distance = np.copysign(braking * np.abs(step) - lattice.h * braking * (braking + 1) / 2, step)
        self._trajectory = self._time.plan(np.where(leaves, q + distance, q), np.where(leaves, 0.0, step))
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
            f"the goal reads {', '.join(outside)}, which no command of this guard determines: "
            "it can be monitored, not enforced"
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
