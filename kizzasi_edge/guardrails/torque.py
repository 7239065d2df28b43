"""The drive of torque commands: position and velocity limits through the robot's dynamics (docs/torque.md).

A torque τ held for a period changes joint i's velocity by aᵢ(τ)·dt, aᵢ affine in τ. So the limits become a window of
acceleration for each joint (acceleration_windows.py), the window rows on τ (torque_rows.py), and the sent torque is the
nearest on the torque lattice that keeps every row (torque_lattice.py), for every mass within the model's stated error.
That all joints can brake *together* is what :func:`braking_authority` establishes when the drive is built.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.acceleration_windows import AccelerationWindows
from kizzasi_edge.guardrails.coupled_spec import power_rules
from kizzasi_edge.guardrails.drive import F64, FloatArray
from kizzasi_edge.guardrails.dynamics import Dynamics, braking_authority
from kizzasi_edge.guardrails.dynamics_spec import each_joint, robot_dynamics
from kizzasi_edge.guardrails.faults import Event
from kizzasi_edge.guardrails.lattice import JointLimits
from kizzasi_edge.guardrails.limits import BOUNDED
from kizzasi_edge.guardrails.rows import PowerRule
from kizzasi_edge.guardrails.spec import GuardFile
from kizzasi_edge.guardrails.torque_lattice import EFFORT, RATE, TORQUE_RATE, TorqueLattice, positive
from kizzasi_edge.guardrails.torque_rows import TorqueRows
from kizzasi_edge.guardrails.verdict import HEADER, RULE_BITS, Layout, Record, Status

__all__ = ["TorqueDrive", "torque_drive"]

RESERVE = 0.9
"""Share of the braking authority that the viable set counts on. The rest pays for what one period's model leaves out (M
and h move during it, masses between the ends of the error): a joint that has slipped out brakes with all of it."""

REST = 0.01
"""Share of its velocity limit below which a joint counts as at rest: above the sensor's noise, below any motion."""

_NON_FINITE, _INFEASIBLE, _OUTSIDE = int(Event.NON_FINITE), int(Event.INFEASIBLE), int(Event.OUTSIDE)


class TorqueDrive:
    """Keeps torques inside the effort box and every joint inside its position and velocity limits.

    Promised of sent values: the effort box, and the torque rate unless it is named in the verdict's ``given_up``; both
    on the lattice. Of the robot: its positions and velocities stay inside ``limits`` if the model is right within
    ``mass_error``, torques act as sent within the period, and q and v are measured each period (assumptions, not
    facts). A period without a measurement stands on the model's prediction.

    It is the :class:`~kizzasi_edge.guardrails.drive.Drive` of torques [N·m]: one follow, coast or brake per period.
    A held torque is no coasting, so to coast is to brake, by the model; the torque that ends in is the one that
    holds the joints.

    Args:
        limits: of each joint after margins; ``acceleration`` is what it should brake with (scaled down as needed),
            ``effort`` its largest torque. All finite.
        dynamics: of the same joints.
        rate_hz: commands per second.
        torque_rate: (n,) largest change of torque per second [N·m/s]; None for no limit. It gives way to braking.
        power: rules on Σ v·τ, soft: coming back inside a range, or braking, may have to break them.
        minimum_authority: build is refused where less of the accelerations is left (:func:`braking_authority`).

    Attributes (besides the protocol's): ``limits``; ``dynamics``; ``rate_hz``; ``authority``; ``acceleration`` (n,) the
    viable set's braking [rad/s²]; ``effort`` (n,) and ``quanta`` (n,) [N·m]; ``lattice`` the integers a node would
    enforce on the torques: range the effort, step the torque rate (all of the range without one).

    Raises:
        GuardrailError: joints differ, a limit is not positive, a power rule is hard, there are too many of them, or
            the braking authority is too small.
    """

    measures: tuple[str, ...] = ("position", "velocity")

    def __init__(
        self,
        limits: Sequence[JointLimits],
        dynamics: Dynamics,
        *,
        rate_hz: float,
        torque_rate: npt.ArrayLike | None = None,
        power: Sequence[PowerRule] = (),
        minimum_authority: float = 0.25,
        where: str | Path = "guard",
    ) -> None:
        self.limits, self.dynamics, self.rate_hz = tuple(limits), dynamics, float(rate_hz)
        joints = tuple(limit.name for limit in self.limits)
        if joints != dynamics.joints:
            raise GuardrailError(f"{where}: [joints]: found {list(joints)}; expected {list(dynamics.joints)}")
        if hard := [rule.name for rule in power if rule.hard]:
            raise GuardrailError(
                f"{where}: [constraint] {hard[0]!r} hard: found True; expected False: staying inside the limits "
                "may take more power than the rule allows"
            )
        n = len(joints)
        self.shape: tuple[int, ...] = (n,)
        self._dt = 1.0 / self.rate_hz
        self._lower, self._upper = (
            np.array([getattr(limit, key) for limit in self.limits]) for key in ("lower", "upper")
        )
        self._speed, wanted, self.effort = (
            positive([getattr(limit, key) for limit in self.limits], n, where, f"[joints] {key}")
            for key in ("velocity", "acceleration", "effort")
        )
        if not np.isfinite(self._upper - self._lower).all():
            raise GuardrailError(f"{where}: [joints] position: found no range for some joint; expected finite limits")
        self._torques = TorqueLattice(joints, self.effort, torque_rate, self._dt, where)
        self.quanta, self.lattice = self._torques.quanta, self._torques.limits
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
        self._windows = AccelerationWindows(
            self._lower, self._upper, self._speed, self.acceleration, self._brake, self._dt
        )
        try:
            self._rows = TorqueRows(
                dynamics, self._windows, self._brake, self.quanta, self._torques.most, power, dt=self._dt
            )
        except GuardrailError as exc:  # more joints or power rules than the projection takes
            raise GuardrailError(f"{where}: [[constraint]]: {exc}") from None
        self._gave_rate = 1 << len(power)
        self.layout = Layout(joints, tuple(map(_names, self.limits)), (*(rule.name for rule in power), RATE))
        self.record: Record = bytearray(HEADER.size + n)
        self._bits = np.frombuffer(self.record, np.uint8, offset=HEADER.size)
        self._q, self._v, self._want = np.zeros(n), np.zeros(n), np.zeros(n)
        self._here = self._ready = self._slow = False  # q, v are this period's; the rows are those at q, v

    def seed(self, position: F64) -> None:
        """Stand at rest at a measured ``position`` (n,) [rad], the last torque 0 (from which a torque rate counts)."""
        self._torques.raw = np.zeros(self.shape)
        self._torques.infeasible = False
        self.measure(position, np.zeros(self.shape))

    def rebase(self, applied: npt.NDArray[np.int32], step: npt.NDArray[np.int32]) -> None:
        """Take ``applied`` (n,) [quanta] for the last torque sent, from which a torque rate counts."""
        self._torques.raw = applied.astype(np.float64)

    def measure(self, position: F64, velocity: F64 | None) -> None:
        """Take this period's ``position`` [rad] and ``velocity`` [rad/s], both (n,) and finite."""
        self._q[:] = position
        self._v[:] = 0.0 if velocity is None else velocity
        self._here, self._ready = True, False

    def follow(self, command: FloatArray, out: FloatArray) -> int:
        """``out`` ← the admissible torque nearest to ``command``, both (n,) [N·m]; event bits, as drive.py says."""
        want = self._want
        want[:] = command
        if not math.isfinite(want.dot(want)):
            return _NON_FINITE
        outside = self._stand()
        status, shaped, relaxed = self._admit(want, out)
        change = out - want
        self._write(status, 0.0 if status is Status.PASS else math.sqrt(change.dot(change)), shaped, relaxed)
        return outside | (_INFEASIBLE if self._torques.infeasible else 0)

    def coast(self, out: FloatArray, rule: int) -> None:
        """As :meth:`brake`: a torque that is held goes on accelerating."""
        self.brake(out, rule)

    def brake(self, out: FloatArray, rule: int) -> None:
        """``out`` ← the torque that stops every joint as fast as the authority allows, then holds it."""
        self._stand()
        _, shaped, relaxed = self._admit(self._rows.braking(), out)
        self._bits[:] = rule
        self._write(Status.BRAKE, math.inf, shaped, relaxed)

    def derate(self, slow: bool) -> None:
        if slow != self._slow:
            self._slow, self._ready = slow, False
            self._windows.derate(slow)

    @property
    def at_rest(self) -> bool:
        """Whether every joint is slower than :data:`REST` of its limit, and stays so under the last torque."""
        slow = REST * self._speed
        if (np.abs(self._v) > slow).any():
            return False
        return bool((np.abs(self._v + self._rows_here().nearest_hold(self._torque()) * self._dt) <= slow).all())

    def asks_no_motion(self, command: FloatArray) -> bool:
        """Whether the joints are at rest and ``command`` holds them: for some mass within the error it accelerates none
        by more than the braking authority, so that one period of braking undoes one period of it."""
        if (np.abs(self._v) > REST * self._speed).any():
            return False
        found = self._rows_here().nearest_hold(command.astype(np.float64))
        return bool((np.abs(found) <= self._brake).all())

    def applied(self) -> tuple[list[float], list[float]]:
        """Where the robot was last known to be, and how fast: as measured or predicted, SI units."""
        return self._q.tolist(), self._v.tolist()

    def explain(self) -> list[str]:
        at, found = np.round(self.authority.position, 2).tolist(), self.authority
        rate = "" if self._torques.rate is None else " Torque rate: kept likewise, except where braking needs more."
        return [
            f"Guard of {len(self.limits)} joints, one torque command every {1e3 / self.rate_hz:g} ms.",
            f"Enforced exactly on sent values, with nothing assumed: effort.{rate}",
            "Enforced through the robot's dynamics: after every admitted torque each joint can still brake inside its "
            "range, below its velocity limit.",
            "",
            *(
                f"  {limit.name}: [{limit.lower:+.4f}, {limit.upper:+.4f}] rad, {limit.velocity:.4f} rad/s, "
                f"{limit.effort:g} N·m; brakes with {a:.4g} rad/s²"
                for limit, a in zip(self.limits, self.acceleration, strict=True)
            ),
            "",
            "Assumed, for positions and velocities: the robot is the one described, its masses within "
            f"±{self.dynamics.mass_error:.0%}; both are measured every period; torques act as sent, within the period.",
            f"Braking has {found.scale:.3g} of the accelerations asked for (least at {at}, limited by {found.joint}): "
            "searched, not proved.",
            "A period without a measurement stands on what the model predicts. One without a command is braked, since "
            "a torque that is held goes on accelerating.",
            *(f"Power {name!r}: soft, gives way to positions and velocities." for name in self.layout.coupled[:-1]),
        ]

    def _stand(self) -> int:
        """Stand where the robot is this period: as measured, or where the model says the last torque has led. OUTSIDE
        where a joint is out of its range."""
        if not self._here:
            a, dt = self._rows_here().acceleration(self._torque()), self._dt
            self._q += self._v * dt + a * (0.5 * dt * dt)
            self._v += a * dt
            self._here, self._ready = True, False
        self._rows_here()
        return _OUTSIDE if ((self._q < self._lower) | (self._q > self._upper)).any() else 0

    def _rows_here(self) -> TorqueRows:
        if not self._ready:
            self._rows.at(self._q, self._v)
            self._ready = True
        return self._rows

    def _admit(self, want: F64, out: FloatArray) -> tuple[Status, int, int]:
        """Decide and send; status, and the coupled rules that shaped it and that gave way, a bit each."""
        torques = self._torques
        status, shaped, broken, gave_rate = torques.admit(want, self._rows, self._bits)
        np.multiply(torques.raw, self.quanta, out=out, casting="same_kind")  # exact: these multiples are float32
        self._here = False
        return status, shaped, broken | (self._gave_rate if gave_rate else 0)

    def _torque(self) -> F64:
        """The last one sent, (n,) [N·m]."""
        torque: F64 = self._torques.raw * self.quanta
        return torque

    def _write(self, status: Status, length: float, shaped: int, relaxed: int) -> None:
        _, state, cause, *_ = HEADER.unpack_from(self.record)  # these two are the stack's
        HEADER.pack_into(self.record, 0, status, state, cause, 0, length, shaped, relaxed)


def torque_drive(spec: GuardFile, limits: Sequence[JointLimits], where: str | Path) -> TorqueDrive:
    """The drive of a parsed guard file with ``command = "torque"``; ``limits`` are those of limits.joint_limits.

    Raises :class:`GuardrailError` naming file, section, key, found, expected (also for what it would not enforce);
    MissingExtra without pinocchio.
    """
    _require_supported(spec, where)
    joints = [limit.name for limit in limits]
    dynamics = robot_dynamics(spec, joints, where)
    section = spec.dynamics
    assert section is not None  # robot_dynamics rests on it
    return TorqueDrive(
        limits,
        dynamics,
        rate_hz=spec.guard.rate_hz,
        torque_rate=None if section.torque_rate is None else each_joint(section.torque_rate, len(joints), where, RATE),
        power=power_rules(spec, joints, where),
        minimum_authority=section.minimum_authority,
        where=where,
    )


def _require_supported(spec: GuardFile, where: str | Path) -> None:
    """Refuse what the schema knows and this drive would not enforce."""
    if spec.guard.command != "torque":
        raise GuardrailError(f"{where}: [guard] command: found {spec.guard.command!r}; expected 'torque'")
    if spec.guard.on_clamp != "nearest":
        raise GuardrailError(f"{where}: [guard] on_clamp: found {spec.guard.on_clamp!r}; torques know only 'nearest'")
    for key in ("jerk", "quantum"):
        if getattr(spec.joints, key) is not None:
            raise GuardrailError(f"{where}: [joints] {key}: not used on torque commands; remove it")
    for constraint in spec.constraint:
        if constraint.kind not in ("range", "less", "greater", "power", *(set(BOUNDED) - {"jerk"})):
            raise GuardrailError(
                f"{where}: [constraint] {constraint.name!r}: kind {constraint.kind!r} is not enforced on torque "
                "commands; remove it"
            )


def _names(limit: JointLimits) -> dict[int, str]:
    """The rule names behind a channel's bits."""
    shared = {bit: RULE_BITS[bit] for bit in (8, 16, 32)}
    return {
        1: limit.origin["position"],
        2: limit.origin["velocity"],
        TORQUE_RATE: RATE,
        EFFORT: limit.origin["effort"],
        **shared,
    }
