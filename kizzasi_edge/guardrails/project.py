"""Binding of kz_project: the nearest point of a box, rows and convex quadratics (float64, in C)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from kizzasi_bridge._kz_core import ffi, lib

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.rows import F64, Quadratic, Row

MAX_N: int = lib.KZ_PROJECT_N
MAX_ROWS: int = lib.KZ_PROJECT_ROWS
MAX_QUADRATICS: int = lib.KZ_PROJECT_QUADS

PASS: int = lib.KZ_PROJECT_PASS
CLAMPED: int = lib.KZ_PROJECT_CLAMPED
PROJECTED: int = lib.KZ_PROJECT_PROJECTED
RETRACTED: int = lib.KZ_PROJECT_RETRACTED
INFEASIBLE: int = lib.KZ_PROJECT_INFEASIBLE
BAD_INPUT: int = lib.KZ_PROJECT_BAD_INPUT


class Projection:
    """Minimise ½|x − u|² over lo ≤ x ≤ hi, rows a·x ≤ b and quadratics x'Qx + c·x ≤ r (Goldfarb & Idnani, 1983).

    All arrays are float64 views of the C struct, written in place: ``lo``, ``hi``, ``u``, ``x``, ``anchor`` (n,),
    ``a`` (rows, n), ``b`` (rows,), ``q`` (quadratics, n, n), ``c`` (quadratics, n), ``r`` (quadratics,). ``lo``,
    ``hi``, ``b``, ``r`` are read afresh by every :meth:`run`; after a change of ``a``, ``q`` or ``c`` call
    :meth:`prepare`. ``hard`` and ``priority`` of the rows say which may be relaxed, and in which order (the largest
    number first), where not all can be met. Masks are integers with bit j for row, quadratic or joint j.

    Raises :class:`GuardrailError` for more joints, rows or quadratics than fit, wrong shapes, values that are not
    finite, and a Q that is not symmetric positive semidefinite.
    """

    __slots__ = ("_anchor_p", "_p", "_u_p", "_x_p", "a", "anchor", "b", "c", "hi", "lo", "q", "r", "u", "x")

    def __init__(self, n: int, rows: Sequence[Row] = (), quadratics: Sequence[Quadratic] = ()) -> None:
        for what, count, least, most in (
            ("joints", n, 1, MAX_N),
            ("rows", len(rows), 0, MAX_ROWS),
            ("quadratics", len(quadratics), 0, MAX_QUADRATICS),
        ):
            if not least <= count <= most:
                raise GuardrailError(f"a projection has {least} to {most} {what}, found {count}")
        self._p: Any = ffi.new("kz_projection *")
        p = self._p
        p.n, p.rows, p.quads = n, len(rows), len(quadratics)
        p.enabled, p.quads_enabled = (1 << len(rows)) - 1, (1 << len(quadratics)) - 1
        p.soft = sum(1 << j for j, row in enumerate(rows) if not row.hard)
        p.quads_soft = sum(1 << j for j, quadratic in enumerate(quadratics) if not quadratic.hard)
        self.lo, self.hi = self._view("lo")[:n], self._view("hi")[:n]
        self.a, self.b = self._view("a").reshape(MAX_ROWS, MAX_N)[: len(rows), :n], self._view("b")[: len(rows)]
        self.q = self._view("q").reshape(MAX_QUADRATICS, MAX_N, MAX_N)[: len(quadratics), :n, :n]
        self.c = self._view("c").reshape(MAX_QUADRATICS, MAX_N)[: len(quadratics), :n]
        self.r = self._view("r")[: len(quadratics)]
        self.u, self.x, self.anchor = np.zeros(n), np.zeros(n), np.zeros(n)
        self._u_p, self._x_p, self._anchor_p = (
            ffi.from_buffer("double[]", array) for array in (self.u, self.x, self.anchor)
        )
        for j, row in enumerate(rows):
            self.a[j], self.b[j] = _shaped(row.name, "a", row.a, (n,)), row.b
            p.priority[j] = _priority(row)
        for j, quadratic in enumerate(quadratics):
            self.q[j] = _convex(quadratic.name, _shaped(quadratic.name, "q", quadratic.q, (n, n)))
            self.c[j], self.r[j] = _shaped(quadratic.name, "c", quadratic.c, (n,)), quadratic.r
            p.quads_priority[j] = _priority(quadratic)
        self.prepare()

    def _view(self, field: str) -> F64:
        """The whole array ``field`` of the struct, flat; the view keeps the struct alive."""
        start, size = ffi.offsetof("kz_projection", field), ffi.sizeof(getattr(self._p, field))
        return np.frombuffer(ffi.buffer(self._p), np.float64, size // 8, start)

    def prepare(self) -> None:
        """Take over new ``a``, ``q``, ``c``; the next run starts cold. Raises GuardrailError unless all are finite."""
        if lib.kz_project_prepare(self._p) != 0:
            raise GuardrailError("a projection's rows and quadratics must be finite and below 1e100")

    def run(self, anchored: bool = False) -> int:
        """``x`` ← the feasible point nearest to ``u``; returns the status.

        With ``anchored``, ``anchor`` is a feasible point to fall back towards. ``x`` lies within ``lo``, ``hi``
        exactly and is finite, except on BAD_INPUT, which leaves it as it was.
        """
        return int(lib.kz_project(self._p, self._u_p, self._anchor_p if anchored else ffi.NULL, self._x_p))

    @property
    def enabled(self) -> int:
        """Which rows count; all, at first."""
        return int(self._p.enabled)

    @enabled.setter
    def enabled(self, mask: int) -> None:
        self._p.enabled = mask

    @property
    def iterations(self) -> int:
        """Changes of the working set in the last run."""
        return int(self._p.iterations)

    @property
    def active(self) -> tuple[int, int]:
        """Rows and quadratics that shaped ``x``."""
        return int(self._p.active), int(self._p.quads_active)

    @property
    def relaxed(self) -> tuple[int, int]:
        """Soft rows and quadratics that ``x`` breaks because not all could be met."""
        return int(self._p.relaxed), int(self._p.quads_relaxed)

    @property
    def at_bounds(self) -> tuple[int, int]:
        """Joints held by ``lo``, and by ``hi``."""
        return int(self._p.at_lo), int(self._p.at_hi)


def _shaped(name: str, key: str, value: F64, shape: tuple[int, ...]) -> F64:
    if np.shape(value) != shape:
        raise GuardrailError(f"[constraint] {name!r}: {key}: found shape {np.shape(value)}, expected {shape}")
    return value


def _priority(rule: Row | Quadratic) -> int:
    if not 0 <= rule.priority <= 255:
        raise GuardrailError(f"[constraint] {rule.name!r}: priority: found {rule.priority}, expected 0 to 255")
    return rule.priority


def _convex(name: str, q: F64) -> F64:
    if not np.isfinite(q).all() or not np.array_equal(q, q.T):
        raise GuardrailError(f"[constraint] {name!r}: q: expected a finite symmetric matrix")
    values = np.linalg.eigvalsh(q)
    if values[0] < -1e-12 * abs(values[-1]):
        raise GuardrailError(f"[constraint] {name!r}: q: found eigenvalue {values[0]:g}, expected none below 0")
    return q
