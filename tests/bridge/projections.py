"""Random projection problems, what DAQP and Clarabel make of them, and what no solver can do better than."""

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


def contradictory(rng: np.random.Generator, n: int, rows: int, quads: int) -> tuple[Problem, Projection]:
    """The hard rules, which have a feasible point, and a projection that also has soft ones of up to four classes, most
    of which cannot be met together."""
    problem = random_problem(rng, n, rows, quads)
    hard, curved_hard = rng.random(rows) < rng.random(), rng.random(quads) < 0.5
    b, r = problem.b.copy(), problem.r.copy()
    lengths = np.linalg.norm(problem.a, axis=1)
    b[~hard] -= (np.abs(rng.normal(size=rows)) * lengths * 10 ** rng.uniform(-3, 0))[~hard]
    r[~curved_hard] -= (np.abs(rng.normal(size=quads) * r) * 10 ** rng.uniform(-3, 0))[~curved_hard]
    projection = Projection(
        n,
        [Row(f"{j}", "position", problem.a[j], float(b[j]), int(rng.integers(4)), bool(hard[j])) for j in range(rows)],
        [
            Quadratic(f"{k}", "position", q, problem.c[k], float(r[k]), int(rng.integers(4)), bool(curved_hard[k]))
            for k, q in enumerate(problem.q)
        ],
    )
    kept = replace(
        problem,
        a=problem.a[hard],
        b=b[hard],
        q=problem.q[curved_hard],
        c=problem.c[curved_hard],
        r=r[curved_hard],
    )
    projection.u[:], projection.lo[:], projection.hi[:] = problem.u, problem.lo, problem.hi
    return kept, projection


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


def clarabel_solve(problem: Problem) -> F64 | None:
    """Clarabel's minimiser, or None. Quadratics as second-order cones."""
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
    return np.asarray(solution.x)


def lower_bound(problem: Problem, x: F64) -> float:
    """What no feasible point's cost is below: Lagrangian duality, with the multipliers that explain ``x`` best.

    For any multipliers m ≥ 0 of constraints g ≤ 0, a feasible z has cost(z) ≥ cost(z) + m·g(z) ≥ the minimum of that
    over all z. About x, with ρ the gradient there and H the Hessian, that minimum is cost(x) + m·g(x) − ½ ρ'H⁻¹ρ:
    cost(x) at an optimum, below it elsewhere. The multipliers are the least squares of ρ over the constraints that x
    is near to; what counts as near is tried out.
    """
    from scipy.optimize import nnls

    n, rows = len(x), len(problem.b)
    gradients = [2 * q @ x + c for q, c in zip(problem.q, problem.c, strict=True)]
    sizes = np.maximum([np.linalg.norm(g) for g in [*problem.a, *gradients]], 1e-300)
    normals = np.vstack([np.eye(n), -np.eye(n), np.vstack([problem.a, *gradients]) / sizes[:, None]])
    curved = [x @ q @ x + c @ x - r for q, c, r in zip(problem.q, problem.c, problem.r, strict=True)]
    values = np.concatenate([x - problem.hi, problem.lo - x, np.append(problem.a @ x - problem.b, curved) / sizes])
    bound, scale = 0.0, max(np.abs(problem.lo).max(), np.abs(problem.hi).max())
    for near in (1e-11, 1e-9, 1e-7, 1e-5):
        active = values >= -near * scale
        if active.any():
            m = np.zeros(len(values))
            m[active] = nnls(normals[active].T, problem.u - x, maxiter=1000)[0]
            rho = x - problem.u + m @ normals
            hessian = np.eye(n) + 2 * np.tensordot(m[2 * n + rows :] / sizes[rows:], problem.q, 1)
            bound = max(bound, problem.cost(x) + float(m @ values - rho @ np.linalg.solve(hessian, rho) / 2))
    return bound
