"""Peers of the projection: QP solvers and np.clip on one problem each, set up once and only given the new command, warm
where they can."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Solve = Callable[[np.ndarray], np.ndarray]
JOINTS, ROWS = 7, 24


@dataclass(frozen=True, eq=False)
class Problem:
    """min |x − u|² over |x| ≤ ``half``, ``a`` x ≤ ``b``, x'``q``x ≤ 1 each."""

    half: np.ndarray
    a: np.ndarray
    b: np.ndarray
    q: list[np.ndarray]

    def excess(self, x: np.ndarray) -> float:
        parts = [np.abs(x) - self.half, self.a @ x - self.b, np.array([x @ q @ x - 1 for q in self.q])]
        return max(0.0, *(float(part.max()) for part in parts if part.size))


def rows_problem() -> Problem:
    a = np.random.default_rng(1).normal(size=(ROWS, JOINTS))
    a /= np.linalg.norm(a, axis=1)[:, None]
    return Problem(np.ones(JOINTS), a, np.full(ROWS, 0.8), [])


def quadratics_problem() -> Problem:
    rng = np.random.default_rng(2)
    factors = [rng.normal(size=(JOINTS, JOINTS)) / 2 for _ in range(2)]
    return Problem(np.ones(JOINTS), np.empty((0, JOINTS)), np.empty(0), [m.T @ m for m in factors])


def by_daqp(p: Problem) -> Solve:
    import daqp

    model = daqp.Model()
    upper, lower = np.concatenate([p.half, p.b]), np.concatenate([-p.half, np.full(len(p.b), -1e30)])
    model.setup(np.eye(JOINTS), np.zeros(JOINTS), np.ascontiguousarray(p.a), upper, lower)

    def solve(u: np.ndarray) -> np.ndarray:
        model.update(f=-u)
        return np.asarray(model.solve()[0])

    return solve


def by_osqp(p: Problem) -> Solve:
    import osqp
    from scipy import sparse

    matrix = sparse.csc_matrix(np.vstack([np.eye(JOINTS), p.a]))
    upper, lower = np.concatenate([p.half, p.b]), np.concatenate([-p.half, np.full(len(p.b), -np.inf)])
    solver = osqp.OSQP()
    identity = sparse.csc_matrix(np.eye(JOINTS))
    solver.setup(identity, np.zeros(JOINTS), matrix, lower, upper, verbose=False, eps_abs=1e-6, eps_rel=1e-6)

    def solve(u: np.ndarray) -> np.ndarray:
        solver.update(q=-u)
        return np.asarray(solver.solve().x)

    return solve


def by_proxsuite(p: Problem) -> Solve:
    from proxsuite import proxqp

    qp = proxqp.dense.QP(JOINTS, 0, JOINTS + len(p.b))
    upper, lower = np.concatenate([p.half, p.b]), np.concatenate([-p.half, np.full(len(p.b), -1e20)])
    qp.settings.initial_guess = proxqp.InitialGuess.WARM_START_WITH_PREVIOUS_RESULT
    qp.settings.eps_abs = 1e-6
    qp.init(np.eye(JOINTS), np.zeros(JOINTS), None, None, np.vstack([np.eye(JOINTS), p.a]), lower, upper)
    qp.solve()

    def solve(u: np.ndarray) -> np.ndarray:
        qp.update(g=-u)
        qp.solve()
        return np.asarray(qp.results.x)

    return solve


def by_clarabel(p: Problem) -> Solve:
    import clarabel
    from scipy import sparse

    box = np.vstack([np.eye(JOINTS), -np.eye(JOINTS), p.a])
    blocks, bounds = [box], [np.concatenate([p.half, p.half, p.b])]
    cones: list[Any] = [clarabel.NonnegativeConeT(len(box))]
    for q in p.q:  # |L'x| ≤ 1
        blocks.append(np.vstack([np.zeros((1, JOINTS)), -np.linalg.cholesky(q).T]))
        bounds.append(np.concatenate([[1.0], np.zeros(JOINTS)]))
        cones.append(clarabel.SecondOrderConeT(JOINTS + 1))
    settings = clarabel.DefaultSettings()
    settings.verbose = settings.presolve_enable = False
    matrix, identity = sparse.csc_matrix(np.vstack(blocks)), sparse.csc_matrix(np.eye(JOINTS))
    solver = clarabel.DefaultSolver(identity, np.zeros(JOINTS), matrix, np.concatenate(bounds), cones, settings)

    def solve(u: np.ndarray) -> np.ndarray:
        solver.update(q=-u)
        return np.asarray(solver.solve().x)

    return solve


def by_clip(p: Problem) -> Solve:
    return lambda u: np.clip(u, -p.half, p.half)


ROW_PEERS: dict[str, Callable[[Problem], Solve]] = {
    "DAQP": by_daqp,
    "OSQP": by_osqp,
    "ProxSuite": by_proxsuite,
    "Clarabel": by_clarabel,
}
CONIC_PEERS: dict[str, Callable[[Problem], Solve]] = {"Clarabel": by_clarabel}
