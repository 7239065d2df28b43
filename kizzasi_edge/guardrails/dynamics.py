"""Rigid-body dynamics of the guarded joints: τ = M(q)·a + h(q, v), and what follows from it for a guard.

M and h come from the URDF's inertias by pinocchio (extra ``urdf-dynamics``, imported when a model is built):
composite rigid bodies for M, recursive Newton-Euler for h (Featherstone, *Rigid Body Dynamics Algorithms*, 2008), the
articulated-body recursion for M⁻¹ (Carpentier, *Analytical inverse of the joint space inertia matrix*, 2018).

The model's error is stated as one number: every link's mass and inertia are (1 + ε) times the URDF's, with one unknown
|ε| ≤ ``mass_error``. The rotors' inertia (``armature``) is taken as known, friction as none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kizzasi_edge.errors import GuardrailError, MissingExtra

__all__ = ["Authority", "Dynamics", "braking_authority", "torque_scales"]

F64 = npt.NDArray[np.float64]


class Dynamics:
    """M(q) and h(q, v) of ``joints``, in their order.

    Args:
        urdf: the robot; its links carry ``<inertial>``.
        joints: names of the guarded joints, revolute, continuous or prismatic.
        gravity: (3,) [m/s²] in the base frame.
        armature: (n,) rotor inertia seen through the gear [kg·m²; kg if prismatic], or one for all; 0 by default.
        mass_error: largest relative error of the links' masses, in [0, 1).
        fixed: position [rad, m] of every other moving joint of the URDF, which is then welded there.

    Attributes: ``joints``; ``n``; ``armature`` (n,); ``mass_error``; ``errors`` (k,) the ends of [−mass_error,
    mass_error], or just 0; ``heavier`` (k,) 1 + ``errors``.

    Raises:
        MissingExtra: pinocchio is not installed, or too old to know of armatures.
        GuardrailError: the URDF cannot be used, has no such joint, or moves a joint that is neither guarded nor fixed.
    """

    def __init__(
        self,
        urdf: str | Path,
        joints: Sequence[str],
        *,
        gravity: npt.ArrayLike = (0.0, 0.0, -9.81),
        armature: npt.ArrayLike | None = None,
        mass_error: float = 0.0,
        fixed: Mapping[str, float] | None = None,
    ) -> None:
        try:
            import pinocchio
        except ImportError as exc:
            raise MissingExtra("dynamics rules need pinocchio: pip install 'kizzasi-edge[urdf-dynamics]'") from exc
        self.joints, self.n, self.mass_error = tuple(joints), len(joints), float(mass_error)
        self.armature = np.array(np.broadcast_to(0.0 if armature is None else armature, (self.n,)), np.float64)
        down = np.asarray(gravity, np.float64)
        if not 0.0 <= self.mass_error < 1.0:
            raise GuardrailError(f"{urdf}: [dynamics] mass_error: found {mass_error}; expected 0 ≤ mass_error < 1")
        if not (np.isfinite(self.armature).all() and (self.armature >= 0.0).all()):
            raise GuardrailError(f"{urdf}: [dynamics] armature: found {self.armature}; expected finite values ≥ 0")
        if down.shape != (3,) or not np.isfinite(down).all():
            raise GuardrailError(f"{urdf}: [dynamics] gravity: found {down}; expected three finite numbers")
        self._pin: Any = pinocchio
        self._model = _model(pinocchio, urdf, self.joints, fixed or {})
        self._model.gravity.linear = down
        self._data = self._model.createData()
        self.errors = np.unique([-self.mass_error, self.mass_error])
        self.heavier = 1.0 + self.errors
        ids = [self._model.getJointId(name) for name in self.joints]
        self._v = np.array([self._model.joints[i].idx_v for i in ids], np.intp)
        self._q = np.array([self._model.joints[i].idx_q for i in ids], np.intp)
        self._turns = np.array([self._model.joints[i].nq == 2 for i in ids])  # continuous: (cos q, sin q)
        self._grid = np.ix_(self._v, self._v)
        self._simple = not self._turns.any() and self.joints == tuple(self._model.names)[1:]  # q is pinocchio's own
        self._configuration, self._rate = np.zeros(self._model.nq), np.zeros(self._model.nv)
        rotors = np.zeros(self._model.nv)
        rotors[self._v] = self.armature
        ends = [_weighing(pinocchio, self._model, factor, rotors) for factor in self.heavier]
        self._ends = [(model, model.createData()) for model in ends]
        self._inverse = np.empty((len(ends), self.n, self.n))
        middle = np.zeros(self.n)
        product = self.inverse_inertia(middle)[-1] @ (
            self.heavier[-1] * self.link_inertia(middle) + np.diag(self.armature)
        )
        if np.abs(product - np.eye(self.n)).max() > 1e-6:
            raise MissingExtra("dynamics rules need a newer pinocchio: pip install -U 'kizzasi-edge[urdf-dynamics]'")

    def link_inertia(self, q: F64) -> F64:
        """The links' share of M(q), (n, n) [kg·m²]; q (n,) [rad, m]."""
        whole: F64 = self._pin.crba(self._model, self._data, self._place(q))[self._grid]
        return whole

    def mass_matrix(self, q: F64) -> F64:
        """M(q), (n, n) [kg·m²], symmetric, positive definite, with the armature."""
        return self.link_inertia(q) + np.diag(self.armature)

    def bias(self, q: F64, v: F64) -> F64:
        """h(q, v), (n,) [N·m]: gravity, Coriolis and centrifugal torques; v (n,) [rad/s, m/s]."""
        if self._simple:
            return self._pin.nonLinearEffects(self._model, self._data, q, v)  # type: ignore[no-any-return]
        self._rate[self._v] = v
        h: F64 = self._pin.nonLinearEffects(self._model, self._data, self._place(q), self._rate)[self._v]
        return h

    def inverse_inertia(self, q: F64) -> F64:
        """M⁻¹ with the links' masses at each of ``errors``, (k, n, n): one array, rewritten by the next call."""
        at = q if self._simple else self._place(q)
        for inverse, (model, data) in zip(self._inverse, self._ends, strict=True):
            found = self._pin.computeMinverse(model, data, at)
            inverse[:] = found if self._simple else found[self._grid]
        return self._inverse

    def _place(self, q: F64) -> F64:
        configuration: F64 = self._configuration
        configuration[self._q] = np.where(self._turns, np.cos(q), q)
        configuration[self._q[self._turns] + 1] = np.sin(np.asarray(q)[self._turns])
        return configuration


def _model(pinocchio: Any, urdf: str | Path, joints: Sequence[str], fixed: Mapping[str, float]) -> Any:
    if not Path(urdf).is_file():
        raise GuardrailError(f"{urdf}: no such file")
    try:
        model = pinocchio.buildModelFromUrdf(str(urdf))
    except (ValueError, RuntimeError) as exc:
        raise GuardrailError(f"{urdf}: pinocchio cannot read it: {exc}") from exc
    moving = list(model.names)[1:]
    if unknown := [name for name in (*joints, *fixed) if name not in moving]:
        raise GuardrailError(f"{urdf}: joints {unknown}: not found; expected some of {moving}")
    if both := sorted(set(joints) & set(fixed)):
        raise GuardrailError(f"{urdf}: joints {both}: found both guarded and fixed")
    if loose := [name for name in moving if name not in joints and name not in fixed]:
        raise GuardrailError(
            f"{urdf}: joints {loose}: they move the guarded ones and nothing guards them; guard them or fix them "
            "(fixed = { name = position })"
        )
    if fixed:
        at = pinocchio.neutral(model)
        for name, position in fixed.items():
            joint = model.joints[model.getJointId(name)]
            turns = joint.nq == 2
            at[joint.idx_q : joint.idx_q + joint.nq] = (np.cos(position), np.sin(position)) if turns else position
        model = pinocchio.buildReducedModel(model, [model.getJointId(name) for name in fixed], at)
    return model


def _weighing(pinocchio: Any, model: Any, factor: float, rotors: F64) -> Any:
    """``model`` with links ``factor`` times as heavy, and with its rotors."""
    heavier = model.copy()
    for i in range(1, model.njoints):
        links = model.inertias[i]
        heavier.inertias[i] = pinocchio.Inertia(factor * links.mass, links.lever, factor * links.inertia)
    heavier.armature = rotors
    return heavier


Scales = Callable[[Dynamics, F64, F64, F64], F64]


@dataclass(frozen=True, slots=True, eq=False)
class Authority:
    """``scale`` ≤ 1 of the accelerations that can always be braked with, and the worst case that was found:
    ``position`` (n,) [rad], ``velocity`` (n,) [rad/s], the ``joint`` whose effort runs out there."""

    scale: float
    position: F64
    velocity: F64
    joint: str


def braking_authority(
    dynamics: Dynamics,
    *,
    lower: F64,
    upper: F64,
    velocity: F64,
    acceleration: F64,
    effort: F64,
    minimum: float = 0.25,
    samples: int = 2048,
    scales_at: Scales | None = None,
) -> Authority:
    """Largest s ≤ 1 such that all joints together can brake at s·``acceleration`` within ``effort``, whatever the
    signs, at every q in [``lower``, ``upper``], |v| ≤ ``velocity`` and mass within the error. All (n,), SI units.

    At one (q, v): with masses off by ε the acceleration differs from the intended one â by
    −ε·M(ε)⁻¹(M_L·â + h), M_L being the links' share of M. To get at least s·A one must intend s·A + d, with
    d = δ·(N·(s·A + d) + c), N and c the larger |M(±δ)⁻¹M_L| and |M(±δ)⁻¹h| of the two ends, and that takes at most
    |M|(s·A + d) + |h| of torque: affine in s, so s follows in closed form. Sufficient, not necessary.

    ``scales_at``: another measure of the same (:func:`torque_scales`); that of the last paragraph by default.

    **Assumption**: the worst (q, v) is found by search: ``samples`` points of a low-discrepancy sequence (Roberts'
    R_d), half of the speeds at their limits, then pattern search from the four worst. That is sampling, not a proof.

    Raises:
        GuardrailError: s is below ``minimum``; names the joint, the pose and what would help.
    """
    n = dynamics.n
    low, high = np.concatenate([lower, -velocity]), np.concatenate([upper, velocity])

    def scales(points: F64) -> F64:
        return (scales_at or _braking_scales)(dynamics, points, acceleration, effort)

    points = _sequence(samples, 2 * n)
    points[:, n:] = np.clip(2.0 * points[:, n:] - 0.5, 0.0, 1.0)
    points = low + (high - low) * points
    worst_first = points[np.argsort(scales(points).min(1))]
    ends = [_descend(scales, point, low, high) for point in worst_first[:4]]
    best = min(ends, key=lambda point: float(scales(point[None]).min()))
    found = scales(best[None])[0]
    worst = int(found.argmin())
    authority = Authority(min(1.0, float(found[worst])), best[:n].copy(), best[n:].copy(), dynamics.joints[worst])
    if authority.scale < minimum:
        pose, speed = (np.round(x, 3).tolist() for x in (authority.position, authority.velocity))
        raise GuardrailError(
            f"[joints] acceleration: joint {authority.joint!r} can brake with only {authority.scale:.3g} of it at "
            f"position {pose}, velocity {speed}; expected at least {minimum:g}. "
            "Lower the velocity limits, the accelerations or the mass error, or raise the effort"
        )
    return authority


def _braking_scales(dynamics: Dynamics, points: F64, acceleration: F64, effort: F64) -> F64:
    """The largest s for each joint's effort at each of ``points`` (m, 2n), q and v in a row: (m, n); −inf where no
    intention outweighs the mass error."""
    n, delta = dynamics.n, dynamics.mass_error
    links = np.array([dynamics.link_inertia(point[:n]) for point in points])
    h = np.array([dynamics.bias(point[:n], point[n:]) for point in points])[..., None]
    mass = links + np.diag(dynamics.armature)
    ends = np.linalg.inv(mass[:, None] + dynamics.errors[:, None, None] * links[:, None])
    spread, drift = np.abs(ends @ links[:, None]).max(1), np.abs(ends @ h[:, None]).max(1)
    wanted = acceleration[:, None]
    extra = np.linalg.solve(np.eye(n) - delta * spread, delta * np.concatenate([spread @ wanted, drift], -1))
    more, fixed = extra[..., :1], extra[..., 1:]
    scales: F64 = ((effort[:, None] - np.abs(mass) @ fixed - np.abs(h)) / (np.abs(mass) @ (wanted + more)))[..., 0]
    # Where more < 0, δN has an eigenvalue above 1 (Collatz, Wielandt): the more torque, the more error.
    scales[(more < 0.0).any((1, 2))] = -np.inf
    return scales


def torque_scales(dynamics: Dynamics, points: F64, acceleration: F64, effort: F64) -> F64:
    """The largest s, shaped as in :func:`_braking_scales`, where the accelerations are given and the mass decides the
    torque: (1+ε)(M_L·a + h) + D·a, with D of the rotors. The heaviest robot's is the largest, since the signs of a are
    free; a lighter one's lies between that and the rotors' own."""
    n, heavier = dynamics.n, 1.0 + dynamics.mass_error
    links = np.array([dynamics.link_inertia(point[:n]) for point in points])
    h = np.array([dynamics.bias(point[:n], point[n:]) for point in points])
    mass = heavier * links + np.diag(dynamics.armature)
    scales: F64 = (effort - heavier * np.abs(h)) / (np.abs(mass) @ acceleration)
    return scales


def _sequence(count: int, dimension: int) -> F64:
    """Roberts' additive recurrence R_d in [0, 1), (count, dimension): powers of the root of x^(d+1) = x + 1."""
    root = 2.0
    for _ in range(64):
        root = (1.0 + root) ** (1.0 / (dimension + 1))
    steps = root ** -np.arange(1.0, dimension + 1)
    points: F64 = (0.5 + np.outer(np.arange(count), steps)) % 1.0
    return points


def _descend(scales: Callable[[F64], F64], start: F64, low: F64, high: F64) -> F64:
    """Pattern search along the axes for the smallest of ``scales``, to 1/512 of the box."""
    at, value = start, float(scales(start[None]).min())
    step = (high - low) / 8
    axes = np.concatenate([np.eye(len(at)), -np.eye(len(at))])
    while (step > (high - low) / 600).any():
        around = np.clip(at + axes * step, low, high)
        found = scales(around).min(1)
        best = int(found.argmin())
        if found[best] < value:
            at, value = around[best], float(found[best])
        else:
            step = step / 2
    return at
