"""A saboteur against a guard, with an ideal robot behind it: what it proposed, what was sent, what either breaks."""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.faults import State
from kizzasi_edge.guardrails.lattice import LatticeLimits
from kizzasi_edge.guardrails.motion import jerk_lattice, motion_lattice
from kizzasi_edge.guardrails.project import Projection
from kizzasi_edge.guardrails.rows import Quadratic, Row
from kizzasi_edge.guardrails.stack import Guardrails

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

CROSSINGS = 8
"""Length of the sabotage, in crossings of the slowest joint's range …"""
MAX_PERIODS = 30_000
"""… but no more periods than this."""
ATTACKS = ("limit to limit", "noise", "bang-bang", "stuck", "not a number")
_NUMBER = re.compile(r"-?\d+\.?\d*(?:[eE][+-]?\d+)?")


@dataclass(frozen=True, slots=True)
class Motion:
    """The integers that a guard keeps, as positions of an ideal robot count them: ``cells`` with ``units`` [rad], and
    ``jerks`` per period³ (0: none). ``ranged``: which joints have a range."""

    cells: tuple[LatticeLimits, ...]
    units: F64
    jerks: tuple[int, ...]
    ranged: tuple[bool, ...]

    @classmethod
    def of(cls, guard: Guardrails) -> Motion:
        """Raises :class:`GuardrailError` for a guard of torques or poses."""
        if guard.command == "torque":
            raise GuardrailError(
                f"{guard.where}: [guard] command: found 'torque'; expected 'position' or 'velocity': what a torque "
                "does depends on the robot; examples/torque_arm/run.py shows it on a simulated one"
            )
        if guard.command == "pose":
            raise GuardrailError(
                f"{guard.where}: found a guard of poses; expected one of joints; examples/skeleton/show.py draws poses"
            )
        velocity = guard.command == "velocity"
        cells = motion_lattice(guard.spec, guard.limits, guard.where)
        quanta = np.array([cell.quantum for cell in cells])
        jerks = jerk_lattice(guard.spec, guard.limits, cells)
        ranged = tuple(math.isfinite(limit.lower) for limit in guard.limits)
        return cls(cells, quanta / guard.rate_hz if velocity else quanta, jerks, ranged)


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """A sabotaged run. ``proposed`` (periods, n) [rad]: where an unguarded robot would be, NaN where it was told NaN;
    ``sent`` (periods, n): where the guarded one is, in units of ``motion``. ``states`` (periods,) of the fault
    machine; ``attacks``: (first period, name) of each stretch; ``violated``: temporal rules that were."""

    motion: Motion
    proposed: F64
    sent: I64
    states: npt.NDArray[np.uint8]
    attacks: tuple[tuple[int, str], ...]
    violated: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Count:
    """How many periods of a trajectory broke each limit of one joint."""

    position: int
    velocity: int
    acceleration: int


def sabotage(guard: Guardrails, seed: int) -> Trial:
    """Run a seeded saboteur against a fresh ``guard``: jumps between the limits, noise, bang-bang, a stuck value,
    NaN (in runs shorter than those that latch); signals that wander across the numbers their rules compare them with.

    The robot does exactly what is sent. It starts at rest in the middle of its range. Where the guard latches, an
    operator clears it and the model asks for no motion until it is followed again.
    """
    motion, rng = Motion.of(guard), np.random.default_rng(seed)
    velocity = guard.command == "velocity"
    start = np.rint(_start(guard, motion) / motion.units).astype(np.int64)
    guard.reset(start * motion.units)
    wanted, attacks = _attacks(guard, rng)
    signals = _signals(guard, len(wanted), rng)
    proposed, sent = np.empty(wanted.shape), np.empty(wanted.shape, np.int64)
    states = np.empty(len(wanted), np.uint8)
    here = free = start
    violated: tuple[str, ...] = ()
    for k, want in enumerate(wanted):
        if guard.state >= State.REARM:
            want = np.zeros(len(want)) if velocity else here * motion.units
            guard.clear()
        out, verdict = guard.step(
            want,
            position=here * motion.units if guard.measures else None,
            signals={name: float(values[k]) for name, values in signals.items()} or None,
            stamp_ns=time.monotonic_ns(),
        )
        raw = np.rint(out / guard.quanta).astype(np.int64)
        here = here + raw if velocity else raw
        free = free + np.nan_to_num(want / guard.quanta)
        proposed[k] = np.where(np.isnan(want), np.nan, free * motion.units) if velocity else want
        sent[k], states[k], violated = here, verdict.state, verdict.violated
    return Trial(motion, proposed, sent, states, attacks, violated)


def count(position: F64 | I64, lo: float, hi: float, w: float, h: float) -> Count:
    """Violations in a trajectory (periods,), in whatever unit the limits have; a NaN breaks every limit it touches."""
    step, change = np.diff(position), np.diff(position, 2)
    inside = (lo <= position) & (position <= hi)
    return Count(int((~inside).sum()), int((~(np.abs(step) <= w)).sum()), int((~(np.abs(change) <= h)).sum()))


def counts(trial: Trial) -> list[tuple[str, Count, Count]]:
    """Of each joint: its name, the violations of what was proposed and of what was sent."""
    found = []
    for i, (cell, unit, ranged) in enumerate(
        zip(trial.motion.cells, trial.motion.units, trial.motion.ranged, strict=True)
    ):
        lo, hi = (cell.lo, cell.hi) if ranged else (-math.inf, math.inf)
        proposed, sent = trial.proposed[:, i] / unit, trial.sent[:, i]
        found.append((cell.name, count(proposed, lo, hi, cell.w, cell.h), count(sent, lo, hi, cell.w, cell.h)))
    return found


def broken(rule: Row | Quadratic, position: F64, rate_hz: float) -> int:
    """Periods of a trajectory (periods, n) [rad] that break a rule that couples joints, by more than what is lost in
    evaluating it here; a NaN breaks it."""
    order = ("position", "velocity", "acceleration").index(rule.on)
    z = np.diff(position, order, axis=0) * rate_hz**order
    value, size = excess(rule, z), excess(rule, np.abs(z), absolute=True)
    return int((~(value <= 1e-9 * size)).sum())


def excess(rule: Row | Quadratic, z: F64, *, absolute: bool = False) -> F64:
    """What ``rule`` is exceeded by at points (…, n); with ``absolute`` the size of the terms that this adds up."""
    sign = np.abs if absolute else np.asarray
    if isinstance(rule, Row):
        linear: F64 = z @ sign(rule.a) + (abs(rule.b) if absolute else -rule.b)
        return linear
    square = np.einsum("...i,ij,...j", z, sign(rule.q), z) + z @ sign(rule.c)
    total: F64 = square + (abs(rule.r) if absolute else -rule.r)
    return total


def _start(guard: Guardrails, motion: Motion) -> F64:
    """The middle of the range, or the nearest place to it that keeps the hard rules on positions by a unit."""
    lo, hi = np.array([(cell.lo, cell.hi) for cell in motion.cells]).T * motion.units
    middle: F64 = (lo + hi) / 2  # without a range: 0
    most = np.maximum(np.abs(lo), np.abs(hi))
    rows = [
        Row(rule.name, rule.on, rule.a, rule.b - float(np.abs(rule.a) @ motion.units))
        for rule in guard.rows
        if rule.on == "position" and rule.hard
    ]
    curved = [
        Quadratic(f.name, f.on, f.q, f.c, f.r - float((2 * np.abs(f.q) @ most + np.abs(f.c)) @ motion.units))
        for f in guard.quadratics
        if f.on == "position" and f.hard
    ]
    if not rows and not curved:
        return middle
    projection = Projection(len(middle), rows, curved)
    projection.lo[:], projection.hi[:], projection.u[:] = lo, hi, middle
    projection.run()
    return projection.x.copy()


def _attacks(guard: Guardrails, rng: np.random.Generator) -> tuple[F64, tuple[tuple[int, str], ...]]:
    """Proposals (periods, n) and the stretches they consist of."""
    if guard.command == "velocity":
        hi = np.array([limit.velocity for limit in guard.limits])
        lo = -hi
    else:
        lo, hi = (np.array([getattr(limit, key) for limit in guard.limits]) for key in ("lower", "upper"))
    crossing_s = max(
        (b.upper - b.lower if np.isfinite(b.lower) else 0.0) / b.velocity + 2 * b.velocity / b.acceleration
        for b in guard.limits
    )
    periods = min(int(CROSSINGS * crossing_s * guard.rate_hz) + 1, MAX_PERIODS)
    proposed = np.empty((periods, len(lo)))
    attacks: list[tuple[int, str]] = []
    at = 0
    while at < periods:
        for name in ATTACKS if at == 0 else rng.permutation(ATTACKS):
            length = int(rng.uniform(0.2, 1.0) * periods / CROSSINGS) + 1
            if name == "not a number":
                length = min(length, guard.spec.guard.nan_ticks - 1)
            if length and at < periods and (not attacks or name != attacks[-1][1]):  # two in a row might latch
                attacks.append((at, str(name)))
                stretch = proposed[at : at + length]
                stretch[:] = _attack(str(name), len(stretch), lo, hi, rng)
                at += length
    return proposed, tuple(attacks)


def _attack(name: str, periods: int, lo: F64, hi: F64, rng: np.random.Generator) -> F64:
    """Proposals (periods, n) of one kind, up to half a range beyond the limits."""
    n, beyond = len(lo), (hi - lo) / 2
    low, high = lo - beyond, hi + beyond
    match name:
        case "limit to limit":
            side = rng.random(n) < 0.5
            first, then = np.where(side, low, high), np.where(side, high, low)
            return np.where(np.arange(periods)[:, None] < periods // 2, first, then)
        case "noise":
            return rng.uniform(low, high, (periods, n))
        case "bang-bang":
            each = max(periods // 12, 1)
            return np.where((np.arange(periods)[:, None] // each + rng.integers(0, 2, n)) % 2, high, low)
        case "stuck":
            return np.tile(rng.uniform(lo, hi), (periods, 1))
        case _:
            return np.full((periods, n), np.nan)


def _signals(guard: Guardrails, periods: int, rng: np.random.Generator) -> dict[str, F64]:
    """Each signal as steps between values around the numbers beside it in the rules' atoms."""
    found: dict[str, F64] = {}
    for name in guard.signals:
        atoms = [text for rule in guard.spec.temporal for text in rule.atoms.values() if name in text]
        numbers = np.array([float(text) for atom in atoms for text in _NUMBER.findall(atom.replace(name, ""))] or [0.0])
        each = max(periods // (2 * CROSSINGS), 1)
        steps = rng.choice(numbers, -(-periods // each)) + rng.choice((-1.0, 1.0), -(-periods // each)) * (
            0.1 + 0.5 * np.abs(numbers).max()
        )
        found[name] = np.repeat(steps, each)[:periods]
    return found
