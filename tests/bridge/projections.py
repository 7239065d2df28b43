"""Random projection problems, and what DAQP and Clarabel make of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from kizzasi_edge.guardrails.project import Projection
from kizzasi_edge.guardrails.rows import Quadratic, Row

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """½|x − u|² over lo ≤ x ≤ hi, a x ≤ b, x'q[k]x + c[k]·x ≤ r[k]."""

    u: F64
    lo: F64
    hi: F64
    a: F64
    b: F64
    q: F64
    c: F64
    r: F64

    def excess(self, x: F64) -> float:
        """How far x is outside: of rows per unit of their normal, of quadratics relative to their terms; ≤ 0 inside.

        Both in terms of the box, as the header of kz_project.h defines its tolerance.
        """
        scale = max(np.abs(self.lo).max(), np.abs(self.hi).max(), 1e-300)
        worst = float(max((self.lo - x).max(), (x - self.hi).max())) / scale
        if len(self.b):
            norms = np.maximum(np.linalg.norm(self.a, axis=1), 1e-300)
            worst = max(worst, float(((self.a @ x - self.b) / norms).max()) / scale)
        for q, c, r in zip(self.q, self.c, self.r, strict=True):
            square, line = float(x @ q @ x), float(c @ x)
            worst = max(worst, (square + line - r) / (abs(square) + abs(line) + abs(r)))
        return worst

    def cost(self, x: F64) -> float:
        return float(((x - self.u) ** 2).sum()) / 2

    def load(self) -> Projection:
        """A projection that holds this problem."""
        rows = [Row(f"row{j}", "position", a, float(b)) for j, (a, b) in enumerate(zip(self.a, self.b, strict=True))]
        quads = [
            Quadratic(f"q{k}", "position", q, c, float(r))
            for k, (q, c, r) in enumerate(zip(self.q, self.c, self.r, strict=True))
        ]
        projection = Projection(len(self.u), rows, quads)
        self.refresh(projection)
        return projection

    def refresh(self, projection: Projection) -> None:
        """What changes every tick, into a projection that holds the rest."""
        projection.u[:], projection.lo[:], projection.hi[:] = self.u, self.lo, self.hi
        projection.b[:], projection.r[:] = self.b, self.r


def random_problem(rng: np.random.Generator, n: int, rows: int, quads: int, *, ugly: bool = True) -> Problem:
    """A problem with a feasible point; ``ugly`` mixes in duplicate, opposite, parallel and box-like rows, rows through
    the same point, joints without room, rows of very different lengths and singular quadratics."""
    half = 10 ** rng.uniform(-2, 0.5, n)
    middle = rng.normal(size=n) * rng.choice([0.0, 1.0, 3.0])
    lo, hi = middle - half, middle + half
    inside = rng.uniform(lo, hi)
    a = rng.normal(size=(rows, n))
    room = np.abs(rng.normal(size=rows)) * 10 ** rng.uniform(-3, 0, rows)
    q = np.empty((quads, n, n))
    c = rng.normal(size=(quads, n))
    r = np.empty(quads)
    if ugly:
        for j in range(rows):
            kind = rng.integers(10)
            if kind == 0 and j:
                a[j] = a[rng.integers(j)] * rng.choice([-2.0, -1.0, 1.0, 3.0])
            elif kind == 1:
                a[j] = np.eye(n)[rng.integers(n)] * rng.choice([-1.0, 1.0])
            elif kind == 2:
                a[j] = np.where(rng.random(n) < 0.7, 0, np.round(a[j]))
            elif kind == 3:
                room[j] = 0
            elif kind == 4 and j > 1:
                a[j] = a[:j].T @ rng.normal(size=j)
            elif kind == 5:
                a[j] *= 10 ** rng.uniform(-6, 6)
        fixed = rng.random(n) < 0.1
        lo, hi = np.where(fixed, inside, lo), np.where(fixed, inside, hi)
    norms = np.linalg.norm(a, axis=1)
    b = a @ inside + room * norms
    for k in range(quads):
        m = rng.normal(size=(n, n))
        if ugly and rng.random() < 0.3:
            m[: n // 2] = 0
        q[k] = m.T @ m * 10 ** rng.uniform(-2, 2)
        r[k] = inside @ q[k] @ inside + c[k] @ inside
        r[k] += abs(r[k]) * abs(rng.normal()) * 10 ** rng.uniform(-2, 0) + 1e-3 * np.trace(q[k]) * half.max() ** 2
    u = inside + rng.normal(size=n) * half * 10 ** rng.uniform(-1, 1)
    return Problem(u, lo, hi, a, b, q, c, r)


def next_tick(rng: np.random.Generator, problem: Problem, amount: float) -> Problem:
    """The same rules a little later: another u, and bounds that only widen, so that a feasible point stays one."""
    move = rng.normal(size=len(problem.u)) * amount
    return replace(problem, u=problem.u + move, b=problem.b + np.abs(problem.b) * abs(rng.normal()) * amount)


def daqp_solve(problem: Problem) -> F64 | None:
    """DAQP's minimiser, or None if it found none. Rows scaled to unit length; no quadratics."""
    import daqp

    n = len(problem.u)
    norms = np.maximum(np.linalg.norm(problem.a, axis=1), 1e-300)
    x, _, flag, _ = daqp.solve(
        np.eye(n),
        -problem.u,
        np.ascontiguousarray(problem.a / norms[:, None]),
        np.concatenate([problem.hi, problem.b / norms]),
        np.concatenate([problem.lo, np.full(len(norms), -1e30)]),
        primal_tol=1e-11,
        dual_tol=1e-12,
    )
    return np.asarray(x) if flag == 1 else None


def clarabel_solve(problem: Problem) -> tuple[F64, float] | None:
    """Clarabel's minimiser and dual cost (a lower bound of ½|x − u|²), or None. Quadratics as second-order cones."""
    import clarabel
    from scipy import sparse

    n = len(problem.u)
    norms = np.maximum(np.linalg.norm(problem.a, axis=1), 1e-300)
    blocks = [np.eye(n), -np.eye(n), problem.a / norms[:, None]]
    bounds = [problem.hi, -problem.lo, problem.b / norms]
    cones: list[Any] = [clarabel.NonnegativeConeT(2 * n + len(norms))]
    for q, c, r in zip(problem.q, problem.c, problem.r, strict=True):
        size = max(float(np.abs(q).max()), 1e-300)
        values, vectors = np.linalg.eigh(q / size)
        root = np.sqrt(np.maximum(values, 0))[:, None] * vectors.T
        # |root x|² ≤ t  with t = (r - c.x)/size:  |(2 root x, t - 1)| ≤ t + 1
        line, bound = c / size, r / size
        blocks += [line[None], -2 * root, line[None]]
        bounds += [np.array([bound + 1]), np.zeros(n), np.array([bound - 1])]
        cones.append(clarabel.SecondOrderConeT(n + 2))
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-12
    solution = clarabel.DefaultSolver(
        sparse.csc_matrix(np.eye(n)),
        -problem.u,
        sparse.csc_matrix(np.vstack(blocks)),
        np.concatenate(bounds),
        cones,
        settings,
    ).solve()
    if str(solution.status) not in {"Solved", "AlmostSolved"}:
        return None
    return np.asarray(solution.x), float(solution.obj_val_dual + problem.u @ problem.u / 2)
