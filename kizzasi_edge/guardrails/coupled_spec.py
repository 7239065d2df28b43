"""From ``[[constraint]]`` sections that couple joints to rows and quadratics for the projection (rows.py)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.lattice import JointLimits, default_quantum
from kizzasi_edge.guardrails.rows import F64, PowerRule, Quadratic, Row
from kizzasi_edge.guardrails.spec import ConstraintSection, GuardFile

INDEFINITE = -1e-12
"""Smallest eigenvalue, relative to the largest entry, that counts as rounding of zero (as in project.py)."""

Rule = Row | Quadratic


def coupled_rules(
    spec: GuardFile, limits: Sequence[JointLimits], where: str | Path
) -> tuple[tuple[Row, ...], tuple[Quadratic, ...]]:
    """Rows (of ``linear``) and quadratics over the joints of ``limits``, in the file's order; an equality is two rows.

    Raises :class:`GuardrailError` naming ``where``, the rule, key, found and expected: unknown joints, rules about
    nothing, a Q that is asymmetric or indefinite, rules that forbid to stand still, sets that are empty.
    """
    rows: list[Row] = []
    quadratics: list[Quadratic] = []
    joints = [limit.name for limit in limits]
    for constraint in spec.constraint:
        place = f"{where}: [constraint] {constraint.name!r}"
        if constraint.kind == "linear":
            rows += _linear(constraint, joints, place)
        elif constraint.kind == "quadratic":
            quadratics.append(_quadratic(constraint, joints, place))
    for row in rows:
        _check_rule(row, row.b, where)
    for quadratic in quadratics:
        _check_rule(quadratic, quadratic.r, where)
    check_feasible(limits, rows, quadratics, where)
    return tuple(rows), tuple(quadratics)


def power_rules(spec: GuardFile, joints: Sequence[str], where: str | Path) -> tuple[PowerRule, ...]:
    """The ``power`` sections, in the file's order. Raises :class:`GuardrailError` as :func:`coupled_rules` does."""
    rules = []
    for constraint in spec.constraint:
        if constraint.kind != "power":
            continue
        place = f"{where}: [constraint] {constraint.name!r}"
        chosen = [constraint.joint] if constraint.joint is not None else constraint.joints or joints
        on = joint_vector(dict.fromkeys(chosen, 1.0), joints, f"{place} joints")
        if (watts := float(constraint.max or 0.0)) <= 0:
            raise GuardrailError(f"{place} max: found {watts:g}; expected a power above 0 [W]")
        rules.append(PowerRule(constraint.name, on, watts, constraint.priority, constraint.hard))
    return tuple(rules)


def joint_vector(values: Mapping[str, float], joints: Sequence[str], place: str) -> F64:
    """``values`` by name as (n,), zero for joints not named.

    Raises :class:`GuardrailError` for an unknown joint and a value that is not finite.
    """
    vector = np.zeros(len(joints))
    for name, value in values.items():
        if name not in joints:
            raise GuardrailError(f"{place}: found joint {name!r}; expected one of {list(joints)}")
        if not math.isfinite(value):
            raise GuardrailError(f"{place}: found {value} for joint {name!r}; expected a finite number")
        vector[joints.index(name)] = value
    return vector


def check_feasible(
    limits: Sequence[JointLimits], rows: Sequence[Row], quadratics: Sequence[Quadratic], where: str | Path
) -> None:
    """Refuse hard rules on positions that leave no position on the lattice, naming a smallest set that conflicts.

    Box and rows are tightened by what rounding to the lattice moves them, so a point that is left has a lattice point
    beside it that keeps them. Rules on velocities and accelerations all admit 0: :func:`coupled_rules` has checked it.
    """
    every: list[Rule] = [*rows, *quadratics]
    rules = [rule for rule in every if rule.on == "position" and rule.hard]
    if not rules:
        return
    for limit in limits:
        if not (math.isfinite(limit.lower) and math.isfinite(limit.upper)):
            raise GuardrailError(
                f"{where}: [constraint] {rules[0].name!r} on: found 'position', but {limit.name!r} has no range"
            )
    half = np.array([(limit.quantum or default_quantum(limit.lower, limit.upper)) / 2 for limit in limits])
    if _feasible(limits, rules, half, where):
        return
    for rule in list(rules):  # what remains when nothing more can go without leaving room
        fewer = [other for other in rules if other is not rule]
        if fewer and not _feasible(limits, fewer, half, where):
            rules = fewer
    names = list(dict.fromkeys(rule.name for rule in rules))
    others = "" if len(names) == 1 else f" conflicts with {', '.join(map(repr, names[1:]))}"
    raise GuardrailError(
        f"{where}: [constraint] {names[0]!r}{others}: no position on the lattice within the joints' limits is left"
    )


def _feasible(limits: Sequence[JointLimits], rules: Sequence[Rule], half: F64, where: str | Path) -> bool:
    from kizzasi_edge.guardrails.project import BAD_INPUT, INFEASIBLE, Projection

    rows = [
        Row(rule.name, rule.on, rule.a, rule.b - float(np.abs(rule.a) @ half))
        for rule in rules
        if isinstance(rule, Row)
    ]
    quadratics = [
        Quadratic(rule.name, rule.on, rule.q, rule.c, rule.r) for rule in rules if isinstance(rule, Quadratic)
    ]
    try:
        projection = Projection(len(limits), rows, quadratics)
    except GuardrailError as exc:  # too many of something
        raise GuardrailError(f"{where}: [[constraint]]: {exc}") from None
    lower, upper = np.array([limit.lower for limit in limits]), np.array([limit.upper for limit in limits])
    middle = projection.u[:] = (lower + upper) / 2
    projection.lo[:], projection.hi[:] = np.minimum(lower + half, middle), np.maximum(upper - half, middle)
    return projection.run() not in (INFEASIBLE, BAD_INPUT)


def _linear(constraint: ConstraintSection, joints: Sequence[str], place: str) -> list[Row]:
    a = joint_vector(constraint.a or {}, joints, f"{place} a")
    if not a.any():
        raise GuardrailError(f"{place} a: found only zeros; expected a coefficient of at least one joint")
    least, most = constraint.min, constraint.max
    if constraint.equals is not None and constraint.tolerance is not None:
        least, most = constraint.equals - constraint.tolerance, constraint.equals + constraint.tolerance
    if least is not None and most is not None and least >= most:
        raise GuardrailError(
            f"{place} min: found {least:g}, max {most:g}; expected min < max (for an equality: equals and tolerance)"
        )
    row: Callable[[F64, float], Row] = lambda a, b: Row(  # noqa: E731
        constraint.name, constraint.on, a, b, constraint.priority, constraint.hard
    )
    upper = [] if most is None else [row(a, float(most))]
    return upper if least is None else [*upper, row(-a, -float(least))]


def _quadratic(constraint: ConstraintSection, joints: Sequence[str], place: str) -> Quadratic:
    """(z−z₀)'Q(z−z₀) + l·z ≤ m is z'Qz + (l − 2Qz₀)·z ≤ m − z₀'Qz₀."""
    q = _matrix(constraint, joints, place)
    _check_convex(q, joints, place)
    center = joint_vector(constraint.center or {}, joints, f"{place} center")
    linear = joint_vector(constraint.linear or {}, joints, f"{place} linear")
    with np.errstate(over="ignore", invalid="ignore"):
        c, r = linear - 2.0 * q @ center, float(constraint.max or 0.0) - float(center @ q @ center)
    if not (np.isfinite(c).all() and math.isfinite(r)):
        raise GuardrailError(f"{place} center: numbers too large to compute with; expected smaller ones")
    return Quadratic(constraint.name, constraint.on, q, c, r, constraint.priority, constraint.hard)


def _matrix(constraint: ConstraintSection, joints: Sequence[str], place: str) -> F64:
    """Q (n, n), as it is written: by joint names, over ``joints``, or its diagonal."""
    matrix = constraint.matrix
    if matrix is None:
        return np.diag(joint_vector(constraint.diagonal or {}, joints, f"{place} diagonal"))
    q = np.zeros((len(joints), len(joints)))
    if isinstance(matrix, dict):
        for name, line in matrix.items():
            chosen = joint_vector({name: 1.0}, joints, f"{place} matrix") != 0.0
            q[chosen] = joint_vector(line, joints, f"{place} matrix.{name}")
        return q
    names = constraint.joints or []
    if len(matrix) != len(names) or any(len(line) != len(names) for line in matrix) or len(set(names)) != len(names):
        raise GuardrailError(
            f"{place} matrix: found rows of {[len(line) for line in matrix][:16]}; expected {len(names)} rows of "
            f"{len(names)}, for different joints"
        )
    for name, numbers in zip(names, matrix, strict=True):
        chosen = joint_vector({name: 1.0}, joints, f"{place} joints") != 0.0
        q[chosen] = joint_vector(dict(zip(names, numbers, strict=True)), joints, f"{place} matrix")
    return q


def _check_convex(q: F64, joints: Sequence[str], place: str) -> None:
    if not np.array_equal(q, q.T):
        i, j = (int(index[0]) for index in np.nonzero(q != q.T))
        raise GuardrailError(
            f"{place} matrix: found {q[i, j]:g} for ({joints[i]}, {joints[j]}) and {q[j, i]:g} for ({joints[j]}, "
            f"{joints[i]}); expected a symmetric matrix"
        )
    if (largest := float(np.abs(q).max())) == 0.0:
        raise GuardrailError(f"{place} matrix: found only zeros; expected a quadratic (or the kind 'linear')")
    if (least := float(np.linalg.eigvalsh(q / largest)[0])) < INDEFINITE:
        raise GuardrailError(
            f"{place} matrix: found eigenvalue {least * largest:g}; expected none below 0 (a convex set)"
        )


def _check_rule(rule: Rule, bound: float, where: str | Path) -> None:
    """The finite numbers the projection takes; and standing still must keep a rule on motion."""
    place = f"{where}: [constraint] {rule.name!r}"
    numbers: tuple[Any, ...] = (rule.a, bound) if isinstance(rule, Row) else (rule.q, rule.c, bound)
    if any(np.abs(number).max() > LARGEST for number in numbers):
        raise GuardrailError(f"{place}: numbers above {LARGEST:g} found; expected smaller ones")
    if rule.on != "position" and bound < 0:
        raise GuardrailError(
            f"{place}: does not admit {rule.on} 0, so the robot could not stand still; expected 0 inside its bounds"
        )


LARGEST = 1e50
"""Beyond this, products of a row's numbers would overflow."""
