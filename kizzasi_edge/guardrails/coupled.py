"""Rows and quadratics as the C core takes them (kz_coupled.h)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from kizzasi_bridge._kz_core import ffi, lib

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.lattice import LatticeLimits
from kizzasi_edge.guardrails.rows import F64, On, Quadratic, Row

_ON: dict[On, int] = {
    "position": lib.KZ_ON_POSITION,
    "velocity": lib.KZ_ON_VELOCITY,
    "acceleration": lib.KZ_ON_ACCELERATION,
}
MAX_ROWS: int = lib.KZ_PROJECT_ROWS
MAX_QUADRATICS: int = lib.KZ_PROJECT_QUADS


def build_coupled(
    limits: Sequence[LatticeLimits],
    rows: Sequence[Row],
    quadratics: Sequence[Quadratic],
    *,
    rate_hz: float,
    miss_budget: int,
) -> Any:
    """The C struct of these rules, over joints with these limits.

    Raises :class:`GuardrailError` where there are too many, where a rule cannot be kept while braking, or where it is
    too tight for the lattice.
    """
    _check(limits, rows, quadratics, rate_hz)
    g = ffi.new("kz_coupled *")
    g.n, g.rows, g.quads = len(limits), len(rows), len(quadratics)
    g.coast, g.rate = miss_budget, rate_hz
    for i, (limit, group) in enumerate(zip(limits, brake_groups(len(limits), rows, quadratics), strict=True)):
        g.limit[i] = (limit.lo, limit.hi, limit.w, limit.h)
        g.quantum[i] = limit.quantum
        g.group[i] = group
    for j, row in enumerate(rows):
        r = g.row[j]
        r.a[0 : g.n] = row.a.tolist()
        r.b, r.on, r.priority, r.hard = row.b, _ON[row.on], row.priority, row.hard
    for k, quadratic in enumerate(quadratics):
        f = g.quad[k]
        for i in range(g.n):
            f.q[i][0 : g.n] = quadratic.q[i].tolist()
        f.c[0 : g.n] = quadratic.c.tolist()
        f.r, f.on, f.priority, f.hard = quadratic.r, _ON[quadratic.on], quadratic.priority, quadratic.hard
    g.enabled = (1 << len(rows)) - 1
    lib.kz_coupled_prepare(g)
    return g


def brake_groups(n: int, rows: Iterable[Row], quadratics: Iterable[Quadratic]) -> list[int]:
    """For each joint the number of its group: joints that share a rule on velocities brake in proportion to each other,
    which keeps such a rule; all others brake alone."""
    group = list(range(n))
    supports = [np.flatnonzero(row.a) for row in rows if row.on == "velocity"]
    supports += [np.flatnonzero(f.q.any(0) | (f.c != 0)) for f in quadratics if f.on == "velocity"]
    for support in supports:
        joined = {group[i] for i in support}
        group = [min(joined) if old in joined else old for old in group]
    return group


def _check(
    limits: Sequence[LatticeLimits], rows: Sequence[Row], quadratics: Sequence[Quadratic], rate_hz: float
) -> None:
    for found, most, what in ((len(rows), MAX_ROWS, "rows"), (len(quadratics), MAX_QUADRATICS, "quadratics")):
        if found > most:
            raise GuardrailError(f"[[constraint]]: found {found} {what} (an equality is two); at most {most}")
    for row in rows:
        if row.on == "acceleration" and row.hard:
            raise GuardrailError(
                f"[constraint] {row.name!r} on: found 'acceleration' with hard = true; braking could not keep it, so "
                "expected hard = false, or a rule on positions or velocities"
            )
        if row.on == "velocity":
            _check_stop(row.name, row.b, np.abs(row.a), limits, rate_hz)
    for f in quadratics:
        if f.on == "acceleration":
            raise GuardrailError(f"[constraint] {f.name!r} on: found 'acceleration'; expected position or velocity")


def _check_stop(name: str, b: float, a: F64, limits: Sequence[LatticeLimits], rate_hz: float) -> None:
    """A joint braking in proportion is rounded to quanta each period; the rule must leave room for the sum of it."""
    rounding = sum(float(x) * limit.quantum for x, limit in zip(a, limits, strict=True)) * rate_hz
    periods = max((limit.w // limit.h + 1 for x, limit in zip(a, limits, strict=True) if x), default=0)
    if b < (least := 2 * periods * rounding):
        raise GuardrailError(
            f"[constraint] {name!r} max: found {b:g}; expected at least {least:.3g}: the joints must be able to brake "
            f"under it on their lattice, {periods} periods long"
        )
