"""A million projections, warm-started as in a loop: none infeasible, none further away than DAQP, Clarabel and duality
have it. And soft rules that contradict each other: there is always an answer, within the hard ones."""

from __future__ import annotations

import numpy as np
import pytest
from projections import clarabel_solve, contradictory, daqp_solve, lower_bound, next_tick, random_problem

from kizzasi_edge.guardrails import project as kz

SUBOPTIMAL = 1e-7
MET = 1e-9
ANSWERED = {kz.PASS, kz.CLAMPED, kz.PROJECTED}
TICKS = 20


@pytest.mark.prove
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(9))
def test_a_hundred_thousand_against_daqp(seed: int) -> None:
    rng, compared = np.random.default_rng(100 + seed), 0
    for _ in range(100_000 // TICKS):
        problem = random_problem(rng, int(rng.integers(1, 17)), int(rng.integers(0, 65)), 0)
        projection = problem.load()
        for _ in range(TICKS):
            assert projection.run() in ANSWERED
            assert problem.excess(projection.x) <= MET
            best = daqp_solve(problem)
            if best is not None and problem.excess(best) <= MET:
                compared += 1
                mine = problem.cost(projection.x)
                assert mine <= problem.cost(best) * (1 + SUBOPTIMAL) + 1e-18
            problem = next_tick(rng, problem, 10 ** rng.uniform(-4, -1))
            problem.refresh(projection)
    assert compared > 98_000


@pytest.mark.prove
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(2))
def test_fifty_thousand_with_quadratics(seed: int) -> None:
    """Each against the bound from duality; against Clarabel where its answer is inside the set."""
    rng, compared = np.random.default_rng(200 + seed), 0
    for _ in range(50_000 // TICKS):
        quads = int(rng.integers(1, kz.MAX_QUADRATICS + 1))
        problem = random_problem(rng, int(rng.integers(1, 17)), int(rng.integers(0, 33)), quads)
        projection = problem.load()
        for _ in range(TICKS):
            assert projection.run() in ANSWERED
            assert problem.excess(projection.x) <= MET
            mine = problem.cost(projection.x)
            assert mine <= lower_bound(problem, projection.x) * (1 + SUBOPTIMAL) + 1e-12
            best = clarabel_solve(problem)
            if best is not None and problem.excess(best) <= 0:
                compared += 1
                assert mine <= problem.cost(best) * (1 + SUBOPTIMAL) + 1e-12
            problem = next_tick(rng, problem, 10 ** rng.uniform(-4, -1))
            problem.refresh(projection)
    assert compared > 20_000


@pytest.mark.prove
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(4))
def test_thirty_thousand_contradictions(seed: int) -> None:
    rng, relaxed = np.random.default_rng(300 + seed), 0
    for _ in range(30_000):
        quads = int(rng.integers(kz.MAX_QUADRATICS + 1)) * (seed % 2)
        hard, projection = contradictory(rng, int(rng.integers(1, 17)), int(rng.integers(1, 65)), quads)
        assert projection.run() in ANSWERED
        assert hard.excess(projection.x) <= MET
        relaxed += projection.relaxed != (0, 0)
    assert relaxed > 15_000
