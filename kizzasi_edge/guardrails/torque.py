"""The guard of torque commands: position and velocity limits through the robot's dynamics.

A torque τ held for a period changes joint i's velocity by aᵢ(τ)·dt, aᵢ affine in τ. So the limits become a window of
acceleration for each joint, the window a pair of rows on τ, and the sent torque is the nearest on the torque lattice
that keeps every row, for every mass within the model's stated error. The windows keep each joint in the viable set of a
double integrator under a torque held for a period (DESIGN §4's formula from the middle of the period); that all joints
can brake *together* is what :func:`braking_authority` establishes when the guard is built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from kizzasi_edge.errors import GuardrailError, InputError
from kizzasi_edge.guardrails.dynamics import Dynamics, braking_authority
from kizzasi_edge.guardrails.lattice import JointLimits, default_quantum
from kizzasi_edge.guardrails.limits import BOUNDED, joint_limits
from kizzasi_edge.guardrails.project import BAD_INPUT, INFEASIBLE, Projection
from kizzasi_edge.guardrails.rows import Row
from kizzasi_edge.guardrails.spec import DynamicsSection, FaultsSection, GuardFile, PerJoint, check_keys
from kizzasi_edge.guardrails.verdict import Status, Verdict
from kizzasi_edge.toml_file import read_toml, validate

__all__ = ["TorqueFile", "TorqueGuard"]

F64 = npt.NDArray[np.float64]
FloatArray = npt.NDArray[np.float32]

RESERVE = 0.9
"""Share of the braking authority that the viable set counts on. The rest pays for what one period's model leaves out (M
and h move during it, masses between the ends of the error): a joint that has slipped out brakes with all of it."""

RULES = {
    1: "position",
    2: "velocity",
    4: "torque_rate",
    8: "recovery",
    16: "non_finite",
    32: "unmeasured",
    128: "effort",
}


class TorqueFile(GuardFile):
    """A guard file with ``command = "torque"``."""

    dynamics: DynamicsSection


class TorqueGuard:
    """Keeps torques inside the effort box and every joint inside its position and velocity limits.

    Promised of sent values: the effort box, and the torque rate unless counted in ``relaxed``; both on the lattice. Of
    the robot: its positions and velocities stay inside ``limits`` if the model is right within ``mass_error``, torques
    act as sent within the period, and q and v are measured each period (assumptions, not facts).

    Args:
        limits: of each joint after margins; ``acceleration`` is what it should brake with (scaled down as needed),
            ``effort`` its largest torque. All finite.
        dynamics: of the same joints.
        rate_hz: commands per second.
        torque_rate: (n,) largest change of torque per second [N·m/s]; None for no limit.
        minimum_authority: build is refused where less of the accelerations is left (:func:`braking_authority`).

    Attributes: ``joints``; ``rate_hz``; ``limits``; ``effort``; ``authority``; ``acceleration`` (n,) the viable set's
    braking [rad/s²]; ``interventions`` commands changed beyond rounding; ``relaxed`` periods in which the torque rate
    gave way to braking; ``infeasible`` periods in which no torque kept all rows (braking torque clipped to the box).

    Raises:
        GuardrailError: joints differ, a limit is not positive, or the braking authority is too small.
    """

    def __init__(
        self,
        limits: Sequence[JointLimits],
        dynamics: Dynamics,
        *,
        rate_hz: float,
        torque_rate: npt.ArrayLike | None = None,
        minimum_authority: float = 0.25,
        where: str = "guard",
    ) -> None:
        self.limits, self.dynamics, self.rate_hz, self.where = tuple(limits), dynamics, float(rate_hz), where
        self.joints = tuple(limit.name for limit in self.limits)
        if self.joints != dynamics.joints:
            raise GuardrailError(f"{where}: [joints]: found {list(self.joints)}; expected {list(dynamics.joints)}")
        n = self._n = len(self.joints)
        self._dt = 1.0 / self.rate_hz
        self._lower, self._upper = (
            np.array([getattr(limit, key) for limit in self.limits]) for key in ("lower", "upper")
        )
        self._speed, wanted, self.effort = (
            _positive([getattr(limit, key) for limit in self.limits], n, where, f"[joints] {key}")
            for key in ("velocity", "acceleration", "effort")
        )
        if not np.isfinite(self._upper - self._lower).all():
            raise GuardrailError(f"{where}: [joints] position: found no range for some joint; expected finite limits")
        self.authority = braking_authority(
            dynamics,
            lower=self._lower,
            upper=self._upper,
            velocity=self._speed,
            acceleration=wanted,
            effort=self.effort,
            minimum=minimum_authority,
        )
        self._brake = self.authority.scale * wanted
        self.acceleration = RESERVE * self._brake
        self.quanta = np.array([default_quantum(0.0, most) for most in self.effort])
        self._most = np.floor(self.effort / self.quanta)
        rate = np.full(n, np.inf) if torque_rate is None else _positive(torque_rate, n, where, "torque_rate")
        self._rate = np.floor(rate * self._dt / self.quanta)
        if (self._rate < 1).any():
            raise GuardrailError(
                f"{where}: [dynamics] torque_rate: found {torque_rate!r}; below one quantum per period"
            )
        self.interventions = self.relaxed = self.infeasible = 0
        self._q, self._v, self._command = np.zeros(n), np.zeros(n), np.zeros(n)
        some = Row("window", "acceleration", np.ones(n), 0.0)  # every period writes its own
        self._projection = Projection(n, [some] * (2 * n * len(dynamics.errors)))
        self._raw = np.zeros(n)  # last sent torque, quanta
        self._seeded = False
        self._bits = np.zeros(n, np.uint8)
        names = dict(RULES)
        self._names = tuple(names | {1: limit.origin["position"], 2: limit.origin["velocity"]} for limit in self.limits)
        self._live = Verdict(Status.PASS, 0.0, bytes(n), self.joints, self._names, 0)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Build from a ``*.guard.toml`` with ``command = "torque"`` and a ``[dynamics]`` section.

        Raises :class:`GuardrailError` naming file, section, key, found, expected; MissingExtra without pinocchio.
        """
        spec = validate(read_toml(path, GuardrailError), TorqueFile, path, GuardrailError)
        check_keys(spec, path)
        _require_supported(spec, path)
        limits, section = joint_limits(spec, path), spec.dynamics
        n = len(limits)
        dynamics = Dynamics(
            Path(path).parent / (section.urdf or spec.joints.from_urdf or ""),
            [limit.name for limit in limits],
            gravity=section.gravity,
            armature=_each(section.armature, n, path, "armature"),
            mass_error=section.mass_error,
            fixed=section.fixed,
        )
        rate = section.torque_rate
        return cls(
            limits,
            dynamics,
            rate_hz=spec.guard.rate_hz,
            torque_rate=None if rate is None else _each(rate, n, path, "torque_rate"),
            minimum_authority=section.minimum_authority,
            where=str(path),
        )

    def step(
        self,
        command: npt.ArrayLike,
        *,
        position: npt.ArrayLike | None = None,
        velocity: npt.ArrayLike | None = None,
        signals: Mapping[str, float] | None = None,
        stamp_ns: int = 0,
    ) -> tuple[FloatArray, Verdict]:
        """Admit one torque.

        ``command`` (n,) proposed [N·m]; where it is not finite the guard brakes. ``position``, ``velocity`` (n,)
        measured [rad, rad/s] this period; where missing or not finite the model's prediction stands in and the guard
        brakes, which is blind: a drive's own brake has to follow. Returns a fresh float32 (n,) and its verdict.

        Raises :class:`GuardrailError` without a first measurement, :class:`InputError` on a wrong shape.
        """
        out = np.empty(self._n, np.float32)
        live = self.step_into(command, out, position=position, velocity=velocity, signals=signals, stamp_ns=stamp_ns)
        return out, Verdict(live.status, live.intervention, live.bits, live.joints, live.names, live.stamp_ns)

    def step_into(
        self,
        command: npt.ArrayLike,
        out: FloatArray,
        *,
        position: npt.ArrayLike | None = None,
        velocity: npt.ArrayLike | None = None,
        signals: Mapping[str, float] | None = None,
        stamp_ns: int = 0,
    ) -> Verdict:
        """:meth:`step` into ``out``. The verdict returned is the guard's own: it changes with the next call."""
        if signals:
            raise GuardrailError(f"{self.where}: signals {sorted(signals)} are given, but no rule uses a signal")
        if np.shape(command) != (self._n,):
            raise InputError(f"command: found shape {np.shape(command)}; expected ({self._n},)")
        if out.shape != (self._n,) or out.dtype != np.float32:
            raise InputError(f"out: found {out.dtype} {out.shape}; expected float32 ({self._n},)")
        self._command[:] = command
        self._bits[:] = 0
        finite, measured = bool(np.isfinite(self._command).all()), self._see(position, velocity)
        self._bits |= np.uint8(0 if finite else 16) | np.uint8(0 if measured else 32)
        rows = _Rows(self, self._q, self._v)
        raw, status = self._admit(rows, finite and measured)
        self._raw = raw
        self._last = rows
        out[:] = raw * self.quanta
        live = self._live
        change = out - self._command
        live.intervention = float(np.sqrt(change @ change)) if finite else np.inf
        if status is Status.PASS:
            live.intervention = 0.0
        else:
            self.interventions += 1
        live.status, live.bits, live.stamp_ns = status, self._bits.tobytes(), stamp_ns
        return live

    def reset(self) -> None:
        """Forget the last torque and the last measurement: the next step needs both measured."""
        self._raw = np.zeros(self._n)
        self._seeded = False

    def explain(self) -> str:
        """What is enforced and under which assumptions, in words."""
        lines = [
            f"torque commands at {self.rate_hz:g} Hz: |τ| ≤ effort exactly, on the lattice",
            f"position and velocity: enforced under the model, link masses within ±{self.dynamics.mass_error:.0%}, "
            "q and v measured each period, torques acting as sent",
            f"braking authority {self.authority.scale:.3g} of the accelerations asked for (worst case found: "
            f"{self.authority.joint} at {np.round(self.authority.position, 2).tolist()}); searched, not proved",
        ]
        lines += [
            f"  {limit.name}: [{limit.lower:.4g}, {limit.upper:.4g}], |v| ≤ {limit.velocity:.4g}, |τ| ≤ {effort:.4g}, "
            f"brakes with {a:.4g}"
            for limit, effort, a in zip(self.limits, self.effort, self.acceleration, strict=True)
        ]
        return "\n".join(lines)

    def _see(self, position: npt.ArrayLike | None, velocity: npt.ArrayLike | None) -> bool:
        """Take the measurement, or predict it from the last one; whether it was measured."""
        pair = [np.asarray(x, np.float64) for x in (position, velocity) if x is not None]
        for array, name in zip(pair, ("position", "velocity"), strict=False):
            if array.shape != (self._n,):
                raise InputError(f"{name}: found shape {array.shape}; expected ({self._n},), one per joint")
        if len(pair) == 2 and np.isfinite(pair[0]).all() and np.isfinite(pair[1]).all():
            self._q[:], self._v[:] = pair
            self._seeded = True
            return True
        if not self._seeded:
            raise GuardrailError(
                f"{self.where}: the first step needs position= and velocity=, finite, of {list(self.joints)}"
            )
        a = self._last.acceleration(self._raw * self.quanta)
        self._q += self._v * self._dt + a * (0.5 * self._dt**2)
        self._v += a * self._dt
        return False

    def _admit(self, rows: _Rows, usable: bool) -> tuple[F64, Status]:
        lowest, highest = (
            np.maximum(-self._most, self._raw - self._rate),
            np.minimum(self._most, self._raw + self._rate),
        )
        want = self._command if usable else rows.braking()
        asked = np.rint(want / self.quanta)
        raw = np.clip(asked, lowest, highest)
        self._bits[asked != raw] |= 4
        self._bits[np.abs(asked) > self._most] |= 128
        status = Status.PASS if (raw == asked).all() else Status.CLAMPED
        if not rows.hold(raw * self.quanta):
            found = rows.nearest(want, lowest, highest)
            status = Status.PROJECTED
            if found is None and np.isfinite(self._rate).any():
                self.relaxed += 1
                lowest, highest = -self._most, self._most
                status, found = Status.BRAKE, rows.nearest(rows.braking(), lowest, highest)
            if found is None:
                self.infeasible += 1
                status, found = Status.BRAKE, np.clip(np.rint(rows.braking() / self.quanta), -self._most, self._most)
            raw = found
            self._bits |= rows.active(raw * self.quanta)
        return raw, status if usable else Status.BRAKE


class _Rows:
    """One period's acceleration windows at (q, v) and the rows on τ that they are: low ≤ ``a``·τ ≤ high, (k·n, n)."""

    def __init__(self, guard: TorqueGuard, q: F64, v: F64) -> None:
        self._guard, self._v = guard, v
        n, dt = guard._n, guard._dt
        links, h = guard.dynamics.link_inertia(q), guard.dynamics.bias(q, v)
        self._links, self._h, self._mass = links, h, links + np.diag(guard.dynamics.armature)
        ends = self._mass + guard.dynamics.errors[:, None, None] * links
        inverse: F64 = np.asarray(np.linalg.inv(ends), np.float64)
        self._ends = inverse
        drift = inverse @ h * (1.0 + guard.dynamics.errors[:, None])
        up, self._up_rule = self._ceiling(guard._upper - q, v)
        down, self._down_rule = self._ceiling(q - guard._lower, -v)
        self._low, self._high = (-down - v) / dt, (up - v) / dt
        self.a: F64 = inverse.reshape(len(inverse) * n, n)
        self.low: F64 = (self._low + drift).ravel()
        self.high: F64 = (self._high + drift).ravel()
        rounding = np.abs(self.a) @ guard.quanta / 2
        self._slack = rounding + 1e-9 * (1.0 + np.abs(self.a) @ guard.effort)

    def _ceiling(self, room: F64, v: F64) -> tuple[F64, npt.NDArray[np.uint8]]:
        """Largest next velocity toward a limit ``room`` away, and the rule behind it.

        Reaching u from v takes (v+u)/2·dt, and braking from u by h a period, the last period shorter, D(u). The largest
        u with both ≤ room is DESIGN §4's formula for the distance left at the middle of the period.
        """
        g = self._guard
        h = g.acceleration * g._dt
        d = room / g._dt - v / 2
        m = np.floor((np.sqrt(1.0 + 8.0 * np.maximum(d, 0.0) / h) - 1.0) / 2.0)
        reach = (d + h * m * (m + 1.0) / 2.0) / (m + 1.0)
        viable = np.minimum(reach, g._speed)
        # Slipped out (model error, a start outside): brake with all there is, then come back slowly.
        out = np.maximum(v - g._brake * g._dt, -g._speed / 8.0)
        rule = np.where(viable < out, 8, np.where(reach < g._speed, 1, 2)).astype(np.uint8)
        return np.maximum(viable, out), rule

    def hold(self, tau: F64) -> bool:
        """Whether ``tau`` keeps every row; no tolerance."""
        value = self.a @ tau
        return bool(((value >= self.low) & (value <= self.high)).all())

    def nearest(self, want: F64, lowest: F64, highest: F64) -> F64 | None:
        """The lattice torque [quanta] nearest to ``want`` in rows and box, up to rounding; None if there is none."""
        quanta = self._guard.quanta
        if (self.low + self._slack > self.high - self._slack).any():
            return None
        solver, m = self._guard._projection, len(self.a)
        solver.a[:m], solver.a[m:] = self.a, -self.a
        solver.b[:m], solver.b[m:] = self.high - self._slack, -(self.low + self._slack)
        solver.lo[:], solver.hi[:], solver.u[:] = lowest * quanta, highest * quanta, want
        solver.prepare()
        if solver.run() in (INFEASIBLE, BAD_INPUT):
            return None
        raw: F64 = np.clip(np.rint(solver.x / quanta), lowest, highest)
        return raw if self.hold(raw * quanta) else None

    def braking(self) -> F64:
        """The torque that stops every joint as fast as the windows and the authority allow.

        By the nominal model, at no more than the authority and what the mass error may take of it.
        """
        delta, most = self._guard.dynamics.mass_error, self._guard._brake
        spread, drift = (delta * np.abs(self._ends @ x).max(0) for x in (self._links, self._h))
        most = most + np.linalg.solve(np.eye(len(most)) - spread, spread @ most + drift)  # as braking_authority counts
        wish = np.clip(-self._v / self._guard._dt, -most, most)
        torque: F64 = self._mass @ np.clip(wish, self._low, self._high) + self._h
        return torque

    def acceleration(self, tau: F64) -> F64:
        """By the nominal model, (n,)."""
        a: F64 = np.asarray(np.linalg.solve(self._mass, tau - self._h), np.float64)
        return a

    def active(self, tau: F64) -> npt.NDArray[np.uint8]:
        """For each joint, the rules whose rows ``tau`` stands at."""
        near = 4.0 * self._slack
        value = self.a @ tau
        shape = (-1, self._guard._n)
        up = (value >= self.high - near).reshape(shape).any(0)
        down = (value <= self.low + near).reshape(shape).any(0)
        bits: npt.NDArray[np.uint8] = np.where(up, self._up_rule, 0).astype(np.uint8)
        bits |= np.where(down, self._down_rule, 0).astype(np.uint8)
        return bits


def _require_supported(spec: TorqueFile, path: str | Path) -> None:
    """Refuse what the schema knows and this guard would not enforce."""
    if spec.guard.command != "torque":
        raise GuardrailError(f"{path}: [guard] command: found {spec.guard.command!r}; expected 'torque'")
    for key in ("miss_budget", "nan_ticks", "on_clamp"):
        if key in spec.guard.model_fields_set:
            raise GuardrailError(f"{path}: [guard] {key}: not used by the torque guard; remove it")
    if spec.joints.jerk is not None:
        raise GuardrailError(f"{path}: [joints] jerk: not enforced on torque commands; remove it")
    for constraint in spec.constraint:
        if constraint.kind not in ("range", "less", "greater", *(set(BOUNDED) - {"jerk"})):
            raise GuardrailError(
                f"{path}: [constraint] {constraint.name!r}: kind {constraint.kind!r} is not enforced on torque "
                "commands; remove it"
            )
    if spec.temporal or spec.faults != FaultsSection():
        raise GuardrailError(f"{path}: [temporal], [faults]: not enforced by the torque guard itself; remove them")
    if spec.dynamics.urdf is None and spec.joints.from_urdf is None:
        raise GuardrailError(f"{path}: [dynamics] urdf: missing; torque commands need a URDF's inertias")


def _each(value: PerJoint, n: int, where: str | Path, key: str) -> F64:
    if isinstance(value, list) and len(value) != n:
        raise GuardrailError(f"{where}: [dynamics] {key}: found {len(value)} values; expected one, or {n}")
    return np.array(np.broadcast_to(value, (n,)), np.float64)


def _positive(value: Any, n: int, where: str, key: str) -> F64:
    array = np.array(np.broadcast_to(value, (n,)), np.float64)
    if not (np.isfinite(array).all() and (array > 0.0).all()):
        raise GuardrailError(f"{where}: {key}: found {array}; expected finite values above 0")
    return array
