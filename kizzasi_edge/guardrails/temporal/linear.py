"""Atoms as linear rows: what an atom says about positions, velocities or commands in the form a·z ≤ b.

A comparison is enforceable when left − right is a maximum of affine functions (so ``max``, ``abs`` and sums of them on
the smaller side are fine, a ``min`` there isn't), over one of position, velocity, command, without signals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from kizzasi_edge.guardrails.temporal.atoms import (
    VECTORS,
    Call,
    Comparison,
    Element,
    Expression,
    Number,
    Signal,
    Vector,
)

STRICT_MARGIN = 1e-6
"""``<`` is enforced as ``≤ b − STRICT_MARGIN·max(1, |b|)``."""
MAX_ROWS = 256
"""Rows that one atom may expand into: ``sum(abs(velocity)) < c`` takes 2ⁿ."""

Affine = dict[tuple[str, int], float]
"""Coefficients by (vector, joint); the constant under ("", 0)."""


@dataclass(frozen=True, slots=True, eq=False)
class LinearBound:
    """``a`` (n,) · z ≤ ``b`` with z the joints' ``on``: position, velocity (SI) or command. ``name``: the atom's."""

    name: str
    on: str
    a: npt.NDArray[np.float64]
    b: float


class NotLinear(Exception):
    """Says why an atom isn't a set of linear rows."""


def bounds_of(atom: Comparison, joints: int, *, negated: bool = False) -> tuple[LinearBound, ...]:
    """The rows that together say the same as the atom (or its negation). Raises :class:`NotLinear` with the reason."""
    op = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}[atom.op] if negated else atom.op
    name = f"not {atom.name}" if negated else atom.name
    if op in ("==", "!="):
        raise NotLinear(
            f"{name!r} is an {'equality' if op == '==' else 'inequality of two values'}: no a·z ≤ b says it"
        )
    smaller, larger = (atom.left, atom.right) if op in ("<", "<=") else (atom.right, atom.left)
    pieces = _pieces(Call("-", (smaller, larger)), 1.0, joints)
    if len(pieces) != 1:
        raise AssertionError(atom)  # the parser lets scalars through only
    rows = []
    for piece in pieces[0]:
        groups = {vector for (vector, _), value in piece.items() if vector and value != 0.0}
        if not groups:
            raise NotLinear(f"{name!r} has a part that depends on no joint")
        if len(groups) > 1:
            raise NotLinear(f"{name!r} joins {' and '.join(sorted(groups))} in one sum")
        (on,) = groups
        a = np.array([piece.get((on, j), 0.0) for j in range(joints)])
        b = -piece.get(("", 0), 0.0)
        if op in ("<", ">"):
            b -= STRICT_MARGIN * max(1.0, abs(b))
        if not (np.isfinite(a).all() and math.isfinite(b)):
            raise NotLinear(f"{name!r} has coefficients beyond the range of a double")
        rows.append(LinearBound(name, on, a, b))
    return tuple(rows)


@lru_cache(1024)  # abs(…) asks for both signs of its argument: without it, nesting doubles the work
def _pieces(expression: Expression, sign: float, joints: int) -> list[list[Affine]]:
    """Per component, the affine functions whose maximum ``sign`` · expression is."""
    match expression:
        case Number(value):
            return [[{("", 0): sign * value}]]
        case Element(vector, index):
            return [[{(vector, index): sign}]]
        case Vector(name):
            return [[{(name, j): sign}] for j in range(joints)]
        case Signal(name):
            raise NotLinear(f"the signal {name!r} is measured, not commanded; of {', '.join(VECTORS)} only")
        case Call("neg", (arg,)):
            return _pieces(arg, -sign, joints)
        case Call("+" | "-", (left, right)):
            other = sign if expression.op == "+" else -sign
            return _each(_pieces(left, sign, joints), _pieces(right, other, joints))
        case Call("*" | "/", (left, right)):
            return _scaled(expression.op, left, right, sign, joints)
        case Call("abs", (arg,)):
            up, down = _pieces(arg, 1.0, joints), _pieces(arg, -1.0, joints)
            if sign < 0 and any(_constant(p) is None for p in up):
                raise NotLinear("abs(…) is bounded from below, which is not convex")
            return [[{("", 0): sign * abs(c)}] if (c := _constant(u)) is not None else _few(u + d)
                    for u, d in zip(up, down, strict=True)]  # fmt: skip
        case Call("max" | "min" as op, args):
            flat = [p for arg in args for p in _pieces(arg, sign, joints)]
            if len(flat) > 1 and (op == "max") != (sign > 0):
                side = "below" if op == "max" else "above"
                raise NotLinear(f"{op}(…) is bounded from {side}, which is not convex")
            return [_few([piece for p in flat for piece in p])]
        case Call("sum", (arg,)):
            total: list[list[Affine]] = [[{}]]
            for part in _pieces(arg, sign, joints):
                total = _each(total, [part])
            return total
        case Call(op, _):
            raise NotLinear(f"{op}(…) is not linear")
    raise AssertionError(expression)


def _scaled(op: str, left: Expression, right: Expression, sign: float, joints: int) -> list[list[Affine]]:
    """Product or quotient where one side is a constant."""
    factors = _constants(right, joints)
    if factors is None and op == "*":
        left, factors = right, _constants(left, joints)
    if factors is None or (op == "/" and 0.0 in factors):
        raise NotLinear("a product or quotient of two variables is not linear" if factors is None else "divides by 0")
    if len(factors) != 1:
        raise NotLinear("a product of vectors is not linear")
    factor = factors[0] if op == "*" else 1.0 / factors[0]
    parts = _pieces(left, math.copysign(1.0, factor) * sign, joints)
    return [[{key: abs(factor) * value for key, value in piece.items()} for piece in part] for part in parts]


def _constants(expression: Expression, joints: int) -> list[float] | None:
    try:
        values = [_constant(part) for part in _pieces(expression, 1.0, joints)]
    except NotLinear:
        return None
    known = [value for value in values if value is not None]
    return known if len(known) == len(values) else None


def _constant(pieces: Sequence[Affine]) -> float | None:
    if any(value for piece in pieces for key, value in piece.items() if key[0]):
        return None
    return max(piece.get(("", 0), 0.0) for piece in pieces)


def _each(left: list[list[Affine]], right: list[list[Affine]]) -> list[list[Affine]]:
    """Sum, component by component; a maximum plus a maximum is the maximum over all pairs."""
    n = max(len(left), len(right))
    left, right = (part * n if len(part) == 1 else part for part in (left, right))
    if any(len(a) * len(b) > MAX_ROWS for a, b in zip(left, right, strict=True)):
        raise NotLinear(f"it expands into more than {MAX_ROWS} rows")
    return [[_sum(p, q) for p in a for q in b] for a, b in zip(left, right, strict=True)]


def _sum(p: Affine, q: Affine) -> Affine:
    return {key: p.get(key, 0.0) + q.get(key, 0.0) for key in {**p, **q}}


def _few(pieces: list[Affine]) -> list[Affine]:
    if len(pieces) > MAX_ROWS:
        raise NotLinear(f"it expands into more than {MAX_ROWS} rows")
    return pieces
