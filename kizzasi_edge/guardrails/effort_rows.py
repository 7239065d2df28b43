"""Torque and power limits on position commands: τ = M(q)·a + h(q, v) as rows on the acceleration.

q and v are the guard's own: the position applied last and the step that led to it; a is the change of step that the
next command asks for. Both are exact, so τ is as exact as the model. M and h move with q and v: the rows are written
anew each period, into slots behind the declared rows of the struct that :func:`build_coupled` made.

A hard torque limit must be kept while braking, whatever the pose. :func:`effort_authority` finds the accelerations with
which it is kept everywhere, in any combination of the joints' signs and sizes, and :func:`derated_limits` makes them
the lattice's. Then every step on the lattice keeps the effort, those of a lone microcontroller too, if the search found
the worst pose. The rows check that at the pose at hand, and shape commands where it is not so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from kizzasi_bridge._kz_core import ffi, lib

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.coupled import MAX_ROWS
from kizzasi_edge.guardrails.coupled_spec import power_rules
from kizzasi_edge.guardrails.dynamics import Authority, Dynamics, braking_authority, torque_scales
from kizzasi_edge.guardrails.dynamics_spec import robot_dynamics
from kizzasi_edge.guardrails.lattice import JointLimits
from kizzasi_edge.guardrails.rows import F64, PowerRule
from kizzasi_edge.guardrails.spec import GuardFile

__all__ = ["EffortRows", "EffortRules", "derated_limits", "effort_authority", "effort_rules"]

_DOUBLES = ffi.sizeof("kz_row") // 8
_BOUND = ffi.offsetof("kz_row", "b") // 8


@dataclass(frozen=True, slots=True, eq=False)
class EffortRules:
    """Torque and power limits on position commands. ``limits``: the joints', derated; ``powers``: none hard."""

    limits: tuple[JointLimits, ...]
    dynamics: Dynamics
    authority: Authority
    powers: tuple[PowerRule, ...] = ()

    def explain(self) -> list[str]:
        """What is promised and what it rests on, in words."""
        error, found = self.dynamics.mass_error, self.authority
        masses = f"link masses within ±{error:.0%}" if error else "masses exact"
        lines = [
            "Torques are the model's, at the position and velocity applied last: rotors as declared, no friction, "
            f"{masses}. What servos add in order to follow is not in them."
        ]
        if limited := [f"{x.name} {x.effort:g}" for x in self.limits if math.isfinite(x.effort)]:
            lines += [
                f"Effort, hard: {', '.join(limited)}. Accelerations are {found.scale:.3g} of those asked for, which "
                "keeps it in every pose, while braking too.",
                f"Worst pose found: {found.joint} at {np.round(found.position, 2).tolist()}; searched, not proved, so "
                "checked at every command.",
            ]
        lines += [f"{x.name}: Σ torque·velocity ≤ {x.watts:g} W, soft, priority {x.priority}" for x in self.powers]
        return lines


def effort_rules(spec: GuardFile, limits: Sequence[JointLimits], where: str | Path) -> EffortRules:
    """The rules of a file that commands positions and has a ``[dynamics]`` section; ``limits`` as
    :func:`~kizzasi_edge.guardrails.limits.joint_limits` gives them.

    Raises :class:`GuardrailError` naming file, section, key, found, expected; MissingExtra without pinocchio.
    """
    joints = [limit.name for limit in limits]
    dynamics, powers = robot_dynamics(spec, joints, where), power_rules(spec, joints, where)
    assert spec.dynamics is not None  # robot_dynamics has seen to it
    if spec.dynamics.torque_rate is not None:
        raise GuardrailError(f"{where}: [dynamics] torque_rate: not enforced on position commands; remove it")
    for rule in powers:
        if rule.hard:
            raise GuardrailError(
                f"{where}: [constraint] {rule.name!r} hard: found true for kind 'power' on position commands; expected "
                "hard = false: gravity does work on a braking robot too, so braking could not keep it"
            )
    if not powers and all(math.isinf(limit.effort) for limit in limits):
        raise GuardrailError(f"{where}: [dynamics]: no joint has an effort and no rule bounds a power; remove it")
    try:
        authority = effort_authority(limits, dynamics, minimum=spec.dynamics.minimum_authority)
    except GuardrailError as exc:
        raise GuardrailError(f"{where}: {exc}") from None
    return EffortRules(derated_limits(limits, authority), dynamics, authority, powers)


def effort_authority(limits: Sequence[JointLimits], dynamics: Dynamics, *, minimum: float = 0.25) -> Authority:
    """The largest share of the joints' ``acceleration`` with which no motion inside ``limits`` takes more than
    ``effort``, for every mass within the error. Searched, not proved: see :func:`braking_authority`.

    There an unknown mass spoils the acceleration; here the acceleration is given, and the mass decides the torque
    (:func:`torque_scales`).

    Raises :class:`GuardrailError` where less than ``minimum`` is left, naming joint and pose; where the joints are not
    those of ``dynamics``, have no range, or an effort that is not above 0.
    """
    if (names := [limit.name for limit in limits]) != list(dynamics.joints):
        raise GuardrailError(f"[dynamics]: found joints {list(dynamics.joints)}; expected {names}")
    for limit in limits:
        if not limit.effort > 0.0:
            raise GuardrailError(f"[joints] effort: found {limit.effort:g} for {limit.name!r}; expected above 0")
        if not math.isfinite(limit.upper - limit.lower):
            raise GuardrailError(f"[joints] position: {limit.name!r} has no range; torque limits need one")
    lower, upper, velocity, acceleration, effort = (
        np.array([getattr(limit, key) for limit in limits])
        for key in ("lower", "upper", "velocity", "acceleration", "effort")
    )
    return braking_authority(
        dynamics,
        lower=lower,
        upper=upper,
        velocity=velocity,
        acceleration=acceleration,
        effort=effort,
        minimum=minimum,
        scales_at=torque_scales,
    )


def derated_limits(limits: Sequence[JointLimits], authority: Authority) -> tuple[JointLimits, ...]:
    """``limits`` with the accelerations that ``authority`` leaves, named in verdicts after the effort that set them."""
    if authority.scale == 1.0:
        return tuple(limits)
    name = next(_name(limit) for limit in limits if limit.name == authority.joint)
    return tuple(
        replace(
            limit,
            acceleration=limit.acceleration * authority.scale,
            origin={**limit.origin, "acceleration": name},
        )
        for limit in limits
    )


class EffortRows:
    """The rows of efforts and powers, in a C struct that :func:`build_coupled` made.

    Two rows for each joint with a finite ``effort``: the heaviest robot's. A lighter one's torque lies between that and
    the rotors' own D·a, which the derated accelerations keep within the effort. For each power rule one row per end of
    the mass error.

    Args:
        coupled: the struct of the declared rows; these are appended. Kept, and changed by :meth:`update`.
        rules: of its joints.

    Attributes: ``names`` of the rules behind the rows appended, one each, in order; ``mask`` their bits.

    Raises :class:`GuardrailError` where there are too many rows.
    """

    def __init__(self, coupled: Any, rules: EffortRules) -> None:
        limits, dynamics = rules.limits, rules.dynamics
        n, first = len(limits), coupled.rows
        chosen = [i for i, limit in enumerate(limits) if math.isfinite(limit.effort)]
        powers = [rule for rule in rules.powers for _ in dynamics.errors]
        k = len(chosen)
        limited = tuple(_name(limits[i]) for i in chosen)
        self.names = (*limited, *limited, *(rule.name for rule in powers))
        if (found := first + len(self.names)) > MAX_ROWS:
            raise GuardrailError(
                f"[dynamics]: found {found} rows: {first} of [[constraint]] and [[temporal]], {2 * k} of efforts (two "
                f"a joint), {len(powers)} of powers; at most {MAX_ROWS}"
            )
        coupled.rows = found
        self.mask = (1 << found) - (1 << first)
        coupled.enabled |= self.mask
        for j, priority in enumerate([0] * (2 * k) + [rule.priority for rule in powers]):
            row = coupled.row[first + j]
            row.on, row.priority, row.hard = lib.KZ_ON_ACCELERATION, priority, j < 2 * k
        memory = np.frombuffer(ffi.buffer(coupled.row), np.float64).reshape(MAX_ROWS, _DOUBLES)[first:found]
        a, b = memory[:, :n], memory[:, _BOUND]
        self._up_a, self._down_a, self._power_a = a[:k], a[k : 2 * k], a[2 * k :]
        self._up_b, self._down_b, self._power_b = b[:k], b[k : 2 * k], b[2 * k :]
        self._coupled, self._dynamics = coupled, dynamics
        self._chosen: Any = slice(None) if k == n else chosen
        self._effort = np.array([limits[i].effort for i in chosen])
        self._heavier, self._rotors = 1.0 + dynamics.mass_error, np.diag(dynamics.armature)
        self._on = np.array([rule.on for rule in powers]).reshape(-1, n)
        self._watts = np.array([rule.watts for rule in powers])
        self._masses = np.tile(1.0 + dynamics.errors, len(rules.powers))
        self.update(np.array([(limit.lower + limit.upper) / 2 for limit in limits]), np.zeros(n))

    def update(self, q: F64, v: F64) -> None:
        """Write the rows for the next command, from the last applied position ``q`` [rad, m] and velocity ``v`` [rad/s,
        m/s], both (n,): once per period, before anything is admitted or coasted."""
        links, h = self._dynamics.link_inertia(q), self._dynamics.bias(q, v)
        mass = (self._heavier * links + self._rotors)[self._chosen]
        heavy = self._heavier * h[self._chosen]
        self._up_a[:] = mass
        np.negative(mass, out=self._down_a)
        np.subtract(self._effort, heavy, out=self._up_b)
        np.add(self._effort, heavy, out=self._down_b)
        if len(self._watts):
            speeds = self._on * v
            self._power_a[:] = self._masses[:, None] * (speeds @ links) + speeds @ self._rotors
            self._power_b[:] = self._watts - self._masses * (speeds @ h)
        lib.kz_coupled_prepare(self._coupled)


def _name(limit: JointLimits) -> str:
    """Of the rule on a joint's effort: the constraint's own, or the joint's."""
    origin = limit.origin.get("effort", "effort")
    return f"{limit.name} effort" if origin == "effort" else origin
