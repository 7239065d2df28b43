"""kz_project finds the nearest point: against DAQP, Clarabel and duality; degenerate and infeasible sets; never NaN."""

from __future__ import annotations

import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from projections import (
    F64,
    Problem,
    clarabel_solve,
    contradictory,
    daqp_solve,
    lower_bound,
    next_tick,
    random_problem,
)

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails import project as kz
from kizzasi_edge.guardrails.project import Projection
from kizzasi_edge.guardrails.rows import Quadratic, Row

C = Path(__file__).parents[2] / "firmware_bridge" / "c"
SUBOPTIMAL = 1e-7
MET = 1e-9
ANSWERED = {kz.PASS, kz.CLAMPED, kz.PROJECTED}

seeds = st.integers(0, 2**32 - 1)
sizes = st.tuples(seeds, st.integers(1, kz.MAX_N), st.integers(0, kz.MAX_ROWS))


def run(problem: Problem) -> tuple[int, F64]:
    projection = problem.load()
    status = projection.run()
    return status, projection.x.copy()


def checked(problem: Problem, x: F64) -> None:
    """Inside, the box exactly."""
    assert (problem.lo <= x).all()
    assert (x <= problem.hi).all()
    assert problem.excess(x) <= MET


def square(rows: list[Row], quads: list[Quadratic] | None = None, u: tuple[float, float] = (2.0, 2.0)) -> Projection:
    """Two joints within ±1 and a proposal."""
    projection = Projection(2, rows, quads or [])
    projection.lo[:], projection.hi[:], projection.u[:] = -1, 1, u
    return projection


def row(a: tuple[float, float], b: float, priority: int = 0, hard: bool = True) -> Row:
    return Row("r", "position", np.array(a), b, priority, hard)


# ---- against independent solvers ----------------------------------------------------------------------------------


@given(sizes)
@settings(max_examples=300, deadline=None)
def test_no_point_is_nearer_with_rows(size: tuple[int, int, int]) -> None:
    seed, n, rows = size
    problem = random_problem(np.random.default_rng(seed), n, rows, 0)
    status, x = run(problem)
    assert status in ANSWERED
    checked(problem, x)
    best = daqp_solve(problem)
    assert best is None or problem.cost(x) <= problem.cost(best) * (1 + SUBOPTIMAL) + 1e-24


def test_thousands_against_daqp() -> None:
    rng, compared, statuses = np.random.default_rng(1), 0, Counter[int]()
    for _ in range(3000):
        problem = random_problem(rng, int(rng.integers(1, 17)), int(rng.integers(0, 65)), 0)
        status, x = run(problem)
        statuses[status] += 1
        checked(problem, x)
        best = daqp_solve(problem)
        if best is None:
            continue
        compared += 1
        assert abs(problem.cost(x) - problem.cost(best)) <= SUBOPTIMAL * problem.cost(x) + 1e-24
    assert set(statuses) == ANSWERED
    assert compared > 2960


def test_hundreds_against_clarabel() -> None:
    """Where Clarabel's answer is outside the set, which it may be a little, there is nothing to compare."""
    rng, compared = np.random.default_rng(2), 0
    for _ in range(400):
        problem = random_problem(rng, int(rng.integers(1, 17)), int(rng.integers(0, 33)), int(rng.integers(1, 5)))
        status, x = run(problem)
        assert status in ANSWERED
        checked(problem, x)
        best = clarabel_solve(problem)
        if best is not None and problem.excess(best) <= 0:
            compared += 1
            assert problem.cost(x) <= problem.cost(best) * (1 + SUBOPTIMAL) + 1e-12
    assert compared > 100


@given(sizes, st.integers(0, 4))
@settings(max_examples=150, deadline=None)
def test_duality_leaves_no_room_below(size: tuple[int, int, int], quads: int) -> None:
    seed, n, rows = size
    problem = random_problem(np.random.default_rng(seed), n, rows, quads)
    status, x = run(problem)
    assert status in ANSWERED
    assert problem.cost(x) <= lower_bound(problem, x) * (1 + SUBOPTIMAL) + 1e-12


@given(sizes, st.integers(0, 4), st.floats(1e-6, 1e-2), st.booleans())
@settings(max_examples=150, deadline=None)
def test_duality_finds_a_worse_answer_out(size: tuple[int, int, int], quads: int, share: float, outside: bool) -> None:
    """A point that costs a little more, along the boundary, inwards or beyond it: no bound reaches up to it."""
    seed, n, rows = size
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, n, rows, quads)
    x = run(problem)[1]
    other = run(replace(problem, u=rng.uniform(problem.lo, problem.hi)))[1]
    worse = x + share * (x - other if outside else other - x)
    assume(problem.cost(worse) > problem.cost(x) * (1 + 10 * SUBOPTIMAL) + 1e-9)
    assert problem.cost(worse) > lower_bound(problem, worse) * (1 + SUBOPTIMAL) + 1e-12


@given(sizes, st.integers(1, 4), st.floats(1e-6, 0.3))
@settings(max_examples=60, deadline=None)
def test_warm_and_cold_starts_agree(size: tuple[int, int, int], quads: int, amount: float) -> None:
    seed, n, rows = size
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, n, rows, quads * int(rng.integers(2)))
    warm = problem.load()
    for _ in range(8):
        problem = next_tick(rng, problem, amount)
        problem.refresh(warm)
        cold = problem.load()
        assert warm.run() == cold.run()
        far = np.linalg.norm(problem.u - cold.x)
        assert np.linalg.norm(warm.x - cold.x) <= 3e-4 * far + 1e-9  # strong convexity: 1e-7 of the squared distance


def test_a_sequence_of_like_problems_takes_few_steps() -> None:
    rng = np.random.default_rng(4)
    problem = random_problem(rng, 7, 24, 0, ugly=False)
    projection = problem.load()
    projection.run()
    cold = projection.iterations
    warm = []
    for _ in range(500):
        problem = next_tick(rng, problem, 1e-3)
        problem.refresh(projection)
        assert projection.run() in ANSWERED
        checked(problem, projection.x)
        warm.append(projection.iterations)
    assert cold > 1
    assert float(np.mean(warm)) < 0.2


# ---- by hand --------------------------------------------------------------------------------------------------------


def test_statuses_and_masks() -> None:
    projection = square([row((1, 1), 1), row((1, -1), 5)], u=(0.2, 0.3))
    assert projection.run() == kz.PASS
    assert projection.x.tolist() == [0.2, 0.3]
    projection.u[:] = (-0.5, 1.25)
    assert projection.run() == kz.CLAMPED
    assert projection.x.tolist() == [-0.5, 1.0]
    assert projection.at_bounds == (0, 2)
    projection.u[:] = (0.9, 0.7)
    assert projection.run() == kz.PROJECTED
    assert projection.x == pytest.approx([0.6, 0.4], abs=1e-12)
    assert projection.active == (1, 0)
    projection.enabled = 2
    assert projection.run() == kz.PASS


def test_clamping_first_would_be_wrong() -> None:
    """The nearest point of the box is not on the way to the nearest point of the set."""
    projection = square([row((1, 2), 0)], u=(3, 1))
    assert projection.run() == kz.PROJECTED
    assert projection.x == pytest.approx([1, -0.5], abs=1e-12)
    assert projection.at_bounds == (0, 1)


def test_a_disc() -> None:
    disc = Quadratic("disc", "position", np.eye(2), np.zeros(2), 0.25)
    projection = square([], [disc], u=(0.6, 0.8))
    assert projection.run() == kz.PROJECTED
    assert projection.x == pytest.approx([0.3, 0.4], abs=1e-9)
    assert projection.active == (0, 1)


@pytest.mark.parametrize("far", [1e3, 1e9, 1e100, 1e308])
def test_proposals_from_far_away(far: float) -> None:
    projection = square([row((1, 2), 1)], u=(far, far))
    assert projection.run() == kz.PROJECTED
    assert projection.x == pytest.approx([1, 0], abs=1e-9)


@pytest.mark.parametrize("copies", [2, 5, 60])
def test_duplicate_rows(copies: int) -> None:
    projection = square([row((s, s), s) for s in np.linspace(1, 7, copies)], u=(1, 0.8))
    assert projection.run() == kz.PROJECTED
    assert projection.x == pytest.approx([0.6, 0.4], abs=1e-12)


def test_an_equality_as_two_rows() -> None:
    projection = square([row((1, 1), 0.5), row((-1, -1), -0.5)], u=(1, 0.2))
    assert projection.run() == kz.PROJECTED
    assert projection.x == pytest.approx([0.65, -0.15], abs=1e-12)


@pytest.mark.parametrize("angle", [10.0**-e for e in range(2, 17)])
def test_nearly_parallel_rows(angle: float) -> None:
    """Whatever the angle: the answer meets both rows, and an anchor is never lost."""
    rng = np.random.default_rng(5)
    for _ in range(50):
        projection = square([row((1, 0), 0.1), row((1, angle), 0.1), row((-1, angle), -0.05)])
        projection.u[:] = rng.normal(size=2) * 2
        projection.anchor[:] = (0.075, 0)
        assert projection.run(anchored=True) in {*ANSWERED, kz.RETRACTED}
        assert (projection.a @ projection.x - projection.b).max() <= MET * 1.01


def test_no_room_at_all() -> None:
    """lo = hi in every joint: there is one point, and it is either allowed or not."""
    projection = square([row((1, 1), 0.5)])
    projection.lo[:] = projection.hi[:] = (0.25, 0.25)
    assert projection.run() == kz.CLAMPED
    assert projection.x.tolist() == [0.25, 0.25]
    projection.b[0] = 0.4
    assert projection.run() == kz.INFEASIBLE
    assert projection.x.tolist() == [0.25, 0.25]


def test_a_row_of_zeros() -> None:
    projection = square([row((0, 0), 1)], u=(0, 0))
    assert projection.run() == kz.PASS
    projection.b[0] = -1
    assert projection.run() == kz.INFEASIBLE


# ---- what cannot be met, or understood ------------------------------------------------------------------------------


@given(sizes, st.floats(1e-6, 1))
@settings(max_examples=100, deadline=None)
def test_infeasible_sets_are_found_out(size: tuple[int, int, int], gap: float) -> None:
    seed, n, rows = size
    problem = random_problem(np.random.default_rng(seed), n, min(rows, 62), 0)
    a = np.random.default_rng(seed + 1).normal(size=n)
    middle = float(a @ (problem.lo + problem.hi) / 2)
    gap *= float(np.linalg.norm(a)) * max(float(np.abs(problem.lo).max()), float(np.abs(problem.hi).max()))
    problem = replace(
        problem, a=np.vstack([problem.a, a, -a]), b=np.concatenate([problem.b, [middle - gap, -middle - gap]])
    )
    status, x = run(problem)
    assert status == kz.INFEASIBLE
    assert x.tolist() == np.clip(problem.u, problem.lo, problem.hi).tolist()


def test_an_impossible_disc() -> None:
    disc = Quadratic("disc", "position", np.eye(2), np.zeros(2), 0.25)
    projection = square([row((-1, 0), -0.6)], [disc], u=(0.6, 0.8))
    assert projection.run() == kz.INFEASIBLE
    assert projection.x.tolist() == [0.6, 0.8]


@given(sizes, st.integers(0, 4), st.booleans())
@settings(max_examples=150, deadline=None)
def test_an_anchor_makes_sure(size: tuple[int, int, int], quads: int, from_afar: bool) -> None:
    """With a feasible anchor the answer is feasible, however far the proposal."""
    seed, n, rows = size
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, n, rows, quads)
    status, x = run(replace(problem, u=rng.uniform(problem.lo, problem.hi)))
    assert status in ANSWERED
    projection = problem.load()
    projection.anchor[:] = x
    projection.u[:] = problem.u * (1e6 if from_afar else 1)
    assert projection.run(anchored=True) in {*ANSWERED, kz.RETRACTED}
    checked(problem, projection.x)


def test_retraction_stops_at_the_first_rule() -> None:
    """Rows the solver must call dependent and opposed: it finds no way, the anchor does."""
    angle = 1e-8
    rows = [row((1, 0), 0), row((-1, angle), -1e-9)]
    projection = square(rows, u=(0.5, 0.5))
    projection.anchor[:] = (-0.0, -1)
    assert projection.run() == kz.INFEASIBLE
    assert projection.run(anchored=True) == kz.RETRACTED
    assert (projection.a @ projection.x - projection.b).max() <= MET


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("field", ["u", "lo", "hi", "b", "r", "anchor"])
def test_non_finite_input_is_refused(field: str, bad: float) -> None:
    disc = Quadratic("disc", "position", np.eye(2), np.zeros(2), 0.25)
    projection = square([row((1, 1), 1)], [disc])
    projection.x[:] = 7
    getattr(projection, field)[-1] = bad
    assert projection.run(anchored=True) == kz.BAD_INPUT
    assert projection.x.tolist() == [7, 7]


@given(st.integers(1, 16), st.integers(0, 8), st.integers(0, 2), st.data())
@settings(max_examples=100, deadline=None)
def test_any_floats_at_all(n: int, rows: int, quads: int, data: st.DataObject) -> None:
    """Whatever is written into the struct: an answer inside the box, or a refusal."""
    value = st.floats() | st.floats(-10, 10) | st.sampled_from([0.0, 1.0, -1.0, 1e-300, 1e99, -1e99])
    projection = random_problem(np.random.default_rng(0), n, rows, quads).load()
    projection.x[:] = 7
    for field in ("u", "b", "r", "lo", "hi", "a", "c", "anchor"):
        flat = getattr(projection, field)
        if flat.size and data.draw(st.booleans()):
            flat[...] = np.array(data.draw(st.lists(value, min_size=flat.size, max_size=flat.size))).reshape(flat.shape)
    try:
        projection.prepare()
    except GuardrailError:
        assert projection.run() == kz.BAD_INPUT
        return
    status = projection.run(anchored=data.draw(st.booleans()))
    if status == kz.BAD_INPUT:
        assert projection.x.tolist() == [7] * n
    else:
        assert (projection.lo <= projection.x).all()
        assert (projection.x <= projection.hi).all()


def test_inverted_bounds_are_refused() -> None:
    projection = square([])
    projection.lo[0], projection.hi[0] = 1, -1
    assert projection.run() == kz.BAD_INPUT


@pytest.mark.parametrize(
    ("n", "rows", "quads", "text"),
    [
        (0, [], [], "found 0"),
        (17, [], [], "found 17"),
        (2, [row((1, 1), 0)] * 65, [], "found 65"),
        (3, [row((1, 1), 0)], [], "shape"),
        (2, [row((1, 1), 0, priority=256)], [], "priority"),
        (2, [row((np.nan, 1), 0)], [], "finite"),
        (2, [], [Quadratic("q", "position", -np.eye(2), np.zeros(2), 1)], "eigenvalue"),
        (2, [], [Quadratic("q", "position", np.array([[1.0, 1], [0, 1]]), np.zeros(2), 1)], "symmetric"),
        (2, [], [Quadratic("q", "position", np.eye(2), np.zeros(3), 1)], "shape"),
    ],
)
def test_what_cannot_be_built(n: int, rows: list[Row], quads: list[Quadratic], text: str) -> None:
    with pytest.raises(GuardrailError, match=text):
        Projection(n, rows, quads)


# ---- soft rules -----------------------------------------------------------------------------------------------------


def test_the_least_important_row_gives_way() -> None:
    rows = [row((1, 0), 0), row((-1, 0), -0.2, 1, False), row((-1, 0), -0.5, 2, False)]
    projection = square(rows, u=(0.9, 0.3))
    assert projection.run() == kz.PROJECTED
    assert projection.x == pytest.approx([0, 0.3], abs=1e-7)
    assert projection.relaxed == (0b110, 0)
    projection.b[0] = 0.3
    assert projection.run() == kz.PROJECTED
    assert projection.x == pytest.approx([0.3, 0.3], abs=1e-7)
    assert projection.relaxed == (0b100, 0)
    projection.b[0] = 0.6
    assert projection.run() == kz.PROJECTED
    assert projection.relaxed == (0, 0)


def test_equals_share_the_violation() -> None:
    """Two soft rows of one class that contradict each other by 1: each gives way by a half."""
    projection = square([row((1, 0), -0.4, 3, False), row((-1, 0), -0.6, 3, False)], u=(0.9, 0.3))
    assert projection.run() == kz.PROJECTED
    assert projection.x == pytest.approx([0.1, 0.3], abs=1e-7)


def test_a_soft_disc() -> None:
    disc = Quadratic("disc", "position", np.eye(2), np.zeros(2), 0.25, 1, False)
    projection = square([row((-1, 0), -0.6)], [disc], u=(0.8, 0.8))
    assert projection.run() == kz.PROJECTED
    assert projection.x == pytest.approx([0.6, 0], abs=1e-4)
    assert projection.relaxed == (0, 1)


@given(sizes)
@settings(max_examples=100, deadline=None)
def test_more_important_rules_never_pay(size: tuple[int, int, int]) -> None:
    """Hard rows hold; each class is as well met as it would be without those below it."""
    seed, n, rows = size
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, n, rows, 0)
    hard, priority = rng.random(rows) < 0.5, rng.integers(0, 3, rows)
    loose = problem.b.copy()
    loose[~hard] -= np.abs(rng.normal(size=rows))[~hard] * np.linalg.norm(problem.a, axis=1)[~hard] * 0.3

    def load(count: int) -> Projection:
        """With the hard rows and the first ``count`` classes."""
        kept = [j for j in range(rows) if hard[j] or priority[j] < count]
        rules = [Row(f"{j}", "position", problem.a[j], loose[j], int(priority[j]), bool(hard[j])) for j in kept]
        projection = Projection(n, rules)
        projection.lo[:], projection.hi[:], projection.u[:] = problem.lo, problem.hi, problem.u
        return projection

    norms = np.linalg.norm(problem.a, axis=1)
    norms[norms == 0] = 1

    def violations(projection: Projection, count: int) -> F64:
        kept = hard | (priority < count)
        return np.maximum((problem.a @ projection.x - loose) / norms, 0)[kept]

    full = load(3)
    assert full.run() in ANSWERED
    scale = max(np.abs(problem.lo).max(), np.abs(problem.hi).max())
    assert violations(full, 0).max(initial=0) <= MET * scale
    for count in (1, 2):
        part = load(count)
        assert part.run() in ANSWERED
        mine, best = violations(full, count), violations(part, count)
        assert np.linalg.norm(mine) <= np.linalg.norm(best) * (1 + 1e-3) + 1e-5 * scale


@pytest.mark.parametrize("seed", [14, 15])
def test_there_is_always_an_answer_to_contradictions(seed: int) -> None:
    rng, relaxed = np.random.default_rng(seed), 0
    for _ in range(300):
        quads = int(rng.integers(3)) * (seed % 2)
        hard, projection = contradictory(rng, int(rng.integers(1, 17)), int(rng.integers(1, 65)), quads)
        assert projection.run() in ANSWERED
        checked(hard, projection.x)
        relaxed += projection.relaxed != (0, 0)
    assert relaxed > 150


# ---- the C itself ---------------------------------------------------------------------------------------------------

HARNESS = r"""
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "kz_project.h"
static double pick(void) {
  static const double odd[] = {0, 1, -1, 1e-300, 1e99, -1e99, 1e308, INFINITY, -INFINITY, NAN};
  return rand() % 40 ? rand() / (RAND_MAX / 4.0) - 2 : odd[rand() % 10];
}
int main(void) {
  static kz_projection p;
  long answers = 0, call, i, j, k, m;
  for (call = 0; call < 8000; call++) {
    double u[KZ_PROJECT_N], x[KZ_PROJECT_N], anchor[KZ_PROJECT_N];
    if (call % 8 == 0) {
      p.n = 1 + rand() % KZ_PROJECT_N, p.rows = rand() % (KZ_PROJECT_ROWS + 1);
      p.quads = rand() % (KZ_PROJECT_QUADS + 1);
      for (j = 0; j < p.rows; j++) {
        p.priority[j] = rand() % 4;
        for (i = 0; i < p.n; i++) p.a[j][i] = rand() % 3 ? rand() % 7 - 3.0 : call % 400 ? pick() / 1e9 : pick();
      }
      for (k = 0; k < p.quads; k++)
        for (i = 0; i < p.n; i++) {
          p.c[k][i] = rand() % 5 - 2;
          for (m = 0; m < p.n; m++) p.q[k][i][m] = i == m ? rand() % 4 : 0;
        }
      kz_project_prepare(&p);
    }
    p.enabled = (uint64_t)rand() << 40 ^ (uint64_t)rand() << 20 ^ (uint64_t)rand();
    p.soft = (uint64_t)rand() << 33 ^ (uint64_t)rand();
    p.quads_enabled = (uint32_t)rand(), p.quads_soft = (uint32_t)rand();
    for (j = 0; j < p.rows; j++) p.b[j] = call % 3 ? rand() % 3 : pick();
    for (k = 0; k < p.quads; k++) p.r[k] = call % 5 ? rand() % 3 : pick();
    for (i = 0; i < p.n; i++) {
      p.lo[i] = call % 50 ? -(rand() % 3) : pick(), p.hi[i] = call % 50 ? rand() % 3 : pick();
      u[i] = rand() % 200 ? 3 * (rand() / (RAND_MAX / 2.0) - 1) : pick();
      anchor[i] = 0;
    }
    if (kz_project(&p, u, call % 2 ? anchor : NULL, x) == KZ_PROJECT_BAD_INPUT) continue;
    answers++;
    for (i = 0; i < p.n; i++)
      if (!(x[i] >= p.lo[i] && x[i] <= p.hi[i])) return puts("outside the box"), 1;
  }
  return printf("%ld\n", answers), answers < 1000;
}
"""


def test_no_undefined_behaviour(tmp_path: Path) -> None:
    (tmp_path / "harness.c").write_text(HARNESS)
    flags = ["-std=c99", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pedantic", "-ffp-contract=off"]
    sanitize = ["-fsanitize=undefined,address", "-fno-sanitize-recover=all"]
    target = tmp_path / "harness"
    sources = [str(tmp_path / "harness.c"), *map(str, C.glob("kz_project*.c"))]
    subprocess.run(["cc", *flags, *sanitize, "-I", str(C), *sources, "-o", str(target), "-lm"], check=True)
    done = subprocess.run([str(target)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
