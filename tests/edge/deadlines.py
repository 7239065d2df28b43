"""A guard, adversaries that command it, and what fallbacks promise: shared by the tests of deadlines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from kizzasi_edge.guardrails import Guardrails, Status
from kizzasi_edge.guardrails.temporal.fallback import Brake, Fallback, GoToPose
from kizzasi_edge.guardrails.temporal.shield import DeadlineShield
from kizzasi_edge.guardrails.temporal.time_to_go import F64, BrakeTime, Lattice, PoseTime, TimeToGo

Goal = Callable[[F64, F64], bool]
RATE = 100.0
DT = 1 / RATE


def guard_of(n: int, *, v: float = 2.0, a: float = 12.0, miss: int = 0, rate: float = RATE) -> Guardrails:
    """Joints that differ: range, speed and acceleration."""
    builder = Guardrails.builder(rate_hz=rate, miss_budget=miss, velocity_scale=1.0)
    for i in range(n):
        builder.joint(
            f"j{i}", position=(-1.0 - 0.2 * i, 1.5), velocity=v * (1 + 0.1 * i), acceleration=a * (1 - 0.1 * i)
        )
    guard = builder.build()
    guard.reset(np.zeros(n))
    return guard


# ---- adversaries: each proposes the next position, knowing everything ------------------------------------------------

ADVERSARIES = ("random", "away", "bang", "nan", "pass", "crawl")


def adversary(kind: str, rng: np.random.Generator, guard: Guardrails, q: F64, step: F64, aim: F64) -> F64:
    lattice = Lattice(guard.lattice, 1 / guard.rate_hz)
    quantum = lattice.quantum
    if kind == "random":
        return rng.uniform(lattice.lo * quantum * 1.5, lattice.hi * quantum * 1.5)
    if kind == "away":  # the limit that is farther from the goal
        return np.where(aim * 2 > (lattice.hi + lattice.lo) * quantum, lattice.lo, lattice.hi) * quantum
    if kind == "bang":  # full speed, either way, with switches
        return (q + rng.choice([-2.0, 2.0], q.shape) * lattice.w) * quantum
    if kind == "nan":  # every other period, so that the guard does not latch
        bang = (q + rng.choice([-2.0, 2.0], q.shape) * lattice.w) * quantum
        return np.where(rng.random() < 0.5, rng.choice([np.nan, np.inf]), bang)
    if kind == "pass":  # through the goal at full speed, never at rest in it
        return (q + np.where(step == 0, np.sign(aim / quantum - q + 0.5), np.sign(step)) * lattice.w) * quantum
    return (q + np.sign(step + 0.5)) * quantum  # crawl: one quantum a period, so never at rest


@dataclass
class Tally:
    requests: int = 0
    infeasible: int = 0
    late: int = 0
    lattice: int = 0
    altered: int = 0
    periods: int = 0
    engaged: int = 0
    engagements: int = 0
    slack: list[float] = field(default_factory=list)


def state(guard: Guardrails) -> tuple[F64, F64]:
    """Applied position and velocity."""
    q, step = guard.motion
    return q * guard.quanta, step * (guard.quanta * guard.rate_hz)


def proposed(guard: Guardrails, fallback: Fallback) -> F64:
    """What the fallback commands next; its brake written out by the definition."""
    proposal = fallback.propose(*state(guard))
    if proposal is not None:
        return proposal.copy()
    lattice = Lattice(guard.lattice, 1 / guard.rate_hz)
    q, step = guard.motion
    return (q + lattice.slower(np.asarray(step, np.float64))) * guard.quanta


def campaign(
    guard: Guardrails, shield: DeadlineShield | None, fallback: Fallback, goal: Goal, aim: F64, bound: int, *,
    requests: int, seed: int, misses: int = 0,
) -> Tally:  # fmt: skip
    """So many requests, each waited for until its goal or well past its deadline. Deadlines, limits and passing of the
    fallback's proposals are judged here, from the applied integers, not by what the shield says of itself."""
    rng = np.random.default_rng(seed)
    lattice = Lattice(guard.lattice, 1 / guard.rate_hz)
    quantum, rate = lattice.quantum, guard.rate_hz
    tally, out = Tally(), np.zeros(len(quantum), np.float32)
    kind, idle, waited, feasible, late, budget, burst = "bang", 0, -1, True, False, misses, 0
    q, step = (np.asarray(x, np.float64) for x in guard.motion)
    while tally.requests < requests or waited >= 0:
        position, velocity = q * quantum, step * (quantum * rate)
        holds = goal(position, velocity)
        trigger = tally.requests < requests and idle >= 3 and (waited >= 0 or rng.random() < 0.3)
        engaged = shield is not None and shield.update(trigger, holds, position.tolist(), velocity.tolist())
        idle = idle + 1 if waited < 0 else 0
        if holds:
            if waited > bound and not late:
                tally.late += feasible
            waited, kind = -1, "bang"  # away from the goal, or there would never be another request
        elif waited >= 0 or trigger:
            if waited < 0:
                tally.requests += 1
                kind = str(rng.choice(ADVERSARIES))
                waited, late = 0, False
                feasible = shield is None or not shield.infeasible_at_request
                tally.infeasible += not feasible
            if waited >= bound and not late:
                tally.late, late = tally.late + feasible, True
            if waited > bound + 20 and shield is None:
                waited = -1
        if not engaged:
            budget = misses
        # Losses: bursts at will while the model commands, at most the budget from there to the goal.
        if burst == 0 and misses and rng.random() < 0.15:
            burst = int(rng.integers(1, misses + 1))
        lost = burst > 0 and (not engaged or budget > 0)
        burst = max(burst - 1, 0)
        budget -= lost and engaged
        command = adversary(kind, rng, guard, q, step, aim)
        if engaged:
            command = proposed(guard, fallback)
            tally.engaged += 1
        tally.periods += 1
        before, v = q, step
        if lost:
            guard.miss(out)
        else:
            _, verdict = guard.step(command)
            q_sent = np.asarray(guard.motion[0], np.float64)
            if engaged:
                tally.altered += verdict.status != Status.PASS or not np.array_equal(q_sent * quantum, command)
        waited += waited >= 0
        q, step = (np.asarray(x, np.float64) for x in guard.motion)
        tally.lattice += int(
            (q < lattice.lo).any() or (q > lattice.hi).any() or (np.abs(q - before) > lattice.w).any()
            or (np.abs(q - before - v) > lattice.h).any() or (step != q - before).any()
        )  # fmt: skip
    if shield is not None:
        tally.engagements = shield.engagements
    return tally


def at_rest(position: F64, velocity: F64) -> bool:
    return not velocity.any()


def at(pose: F64, tolerance: float = 1e-3) -> Goal:
    return lambda position, velocity: bool(np.abs(position - pose).max() <= tolerance and not velocity.any())


def shield_of(
    guard: Guardrails, bound: int, misses: int, pose: F64 | None = None
) -> tuple[DeadlineShield, TimeToGo, Fallback]:
    dt = 1 / guard.rate_hz
    time: TimeToGo
    fallback: Fallback
    if pose is None:
        time, fallback = BrakeTime(guard.lattice, dt), Brake()
    else:
        time = PoseTime(guard.lattice, dt, pose, guard.miss_budget)
        fallback = GoToPose(time)
    return DeadlineShield(bound * dt, dt, time, 0.0, misses), time, fallback


def wander(guard: Guardrails, rng: np.random.Generator, periods: int) -> tuple[F64, F64]:
    """A state that the guard really gets into."""
    n = len(guard.joints)
    guard.reset(rng.uniform(-0.9, 1.4, n))
    direction = rng.choice([-3.0, 3.0], n)
    for _ in range(periods):
        direction = np.where(rng.random(n) < 0.05, -direction, direction)
        guard.step(direction)
    return state(guard)


def run_fallback(guard: Guardrails, fallback: Fallback, goal: Goal, limit: int) -> int:
    """Periods until the goal, every proposal passing as it is."""
    for k in range(limit):
        if goal(*state(guard)):
            return k
        _, verdict = guard.step(proposed(guard, fallback))
        assert verdict.status == Status.PASS
        assert verdict.intervention < 1e-12
    return limit
