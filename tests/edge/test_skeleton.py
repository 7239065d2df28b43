"""Skeletons from files, and poses that always are theirs: against an oracle in numpy, and brute force on the sphere."""

from __future__ import annotations

import math
import shutil
import subprocess
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize  # type: ignore[import-untyped]
from skeletons import cmu_human, two_bones

from kizzasi_edge.errors import GuardrailError, InputError
from kizzasi_edge.guardrails.bones import BonesGuard, channel_names
from kizzasi_edge.guardrails.skeleton import MAX_NODES, Skeleton
from kizzasi_edge.guardrails.verdict import Status

Array = npt.NDArray[np.float64]

SOURCES = Path(__file__).resolve().parents[2] / "firmware_bridge" / "c"


@pytest.fixture(scope="module")
def human(tmp_path_factory: pytest.TempPathFactory) -> Skeleton:
    return cmu_human(tmp_path_factory.mktemp("bvh"))


def rest_pose(skeleton: Skeleton) -> Array:
    pose = np.zeros((len(skeleton.names), 3))
    for i, p in enumerate(skeleton.parents[1:], 1):
        pose[i] = pose[p] + skeleton.lengths[i] * skeleton.rest_directions[i]
    return pose


def random_skeleton(rng: np.random.Generator, n: int, *, cones: bool = True) -> Skeleton:
    parents = [-1, *(int(rng.integers(0, i)) for i in range(1, n))]
    free = np.array([p <= 0 for p in parents]) | (rng.random(n) < 0.3)
    cone = np.where(free | (not cones), math.pi, rng.uniform(0.0, 3.1, n))
    names = tuple(f"n{i}" for i in range(n))
    return Skeleton(names, tuple(parents), 10 ** rng.uniform(-2, 1, n), rng.normal(size=(n, 3)), cone)


# ---- the oracle: written from the definitions, sharing no formula with kz_bones.c ------------------------------------


def unit(v: Array) -> Array:
    return np.asarray(v / np.linalg.norm(v))


def angle(a: Array, b: Array) -> float:
    """Kahan's: precise at all angles."""
    a, b = unit(a), unit(b)
    return 2 * math.atan2(float(np.linalg.norm(a - b)), float(np.linalg.norm(a + b)))


def turned(a: Array, b: Array, by: float) -> Array:
    """``a`` turned by an angle towards ``b`` (spherical interpolation)."""
    whole = angle(a, b)
    return unit((math.sin(whole - by) * unit(a) + math.sin(by) * unit(b)) / math.sin(whole))


def oracle(skeleton: Skeleton, want: Array) -> Array:
    """Lengths and cones, without speed limits; for proposals without degenerate bones."""
    pose = np.zeros_like(want)
    pose[0] = want[0]
    for i, p in enumerate(skeleton.parents[1:], 1):
        d = unit(want[i] - want[p])
        if p > 0:
            above = unit(pose[p] - pose[skeleton.parents[p]])
            if angle(above, d) > skeleton.cones[i]:
                d = turned(above, d, float(skeleton.cones[i]))
        pose[i] = pose[p] + skeleton.lengths[i] * d
    return pose


def length_error(skeleton: Skeleton, pose: Array) -> float:
    """Largest | |bone| - L | / max(1, L), without rounding of its own: |bone|² - L² in rational numbers."""
    worst = 0.0
    for i, p in enumerate(skeleton.parents[1:], 1):
        length = Fraction(float(skeleton.lengths[i]))
        square = sum((Fraction(float(a)) - Fraction(float(b))) ** 2 for a, b in zip(pose[i], pose[p], strict=True))
        worst = max(worst, abs(float(square - length**2)) / float(2 * length) / max(1.0, float(length)))
    return worst


def cone_excess(skeleton: Skeleton, pose: Array) -> float:
    pairs = [(i, p) for i, p in enumerate(skeleton.parents) if p > 0]
    return max(
        (angle(pose[p] - pose[skeleton.parents[p]], pose[i] - pose[p]) - skeleton.cones[i] for i, p in pairs), default=0
    )


# ---- the promise -----------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 40), exponent=st.integers(-3, 3))
def test_lengths_cones_and_the_oracle(seed: int, n: int, exponent: int) -> None:
    rng = np.random.default_rng(seed)
    skeleton = random_skeleton(rng, n)
    guard = BonesGuard(skeleton, 30.0)
    want = rng.normal(scale=10.0**exponent, size=(n, 3))
    sent, verdict = guard.step(want)
    assert length_error(skeleton, sent) <= 1e-12
    assert cone_excess(skeleton, sent) <= 1e-9
    np.testing.assert_allclose(sent, oracle(skeleton, want), rtol=0, atol=1e-10 * (1 + 10.0**exponent))
    moved = np.linalg.norm(sent - want)
    assert verdict.status is (Status.PASS if n == 1 else Status.PROJECTED)
    assert verdict.intervention == (0 if n == 1 else pytest.approx(moved))
    again, verdict = guard.step(sent)
    assert verdict.status is Status.PASS
    assert not verdict.rules
    np.testing.assert_allclose(again, sent, rtol=0, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), n=st.integers(2, 12), limited=st.booleans())
def test_whatever_is_proposed(data: st.DataObject, n: int, limited: bool) -> None:
    """Any doubles at all: huge, tiny, NaN, coinciding nodes."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    skeleton = random_skeleton(rng, n)
    guard = BonesGuard(skeleton, 50.0, root_speed=2.0 if limited else math.inf, turn_speed=5.0 if limited else math.inf)
    for _ in range(4):
        before = guard.pose
        flat = data.draw(st.lists(st.floats() | st.sampled_from([0.0, 1.0, 1e308]), min_size=3 * n, max_size=3 * n))
        want = np.array(flat)
        sent, verdict = guard.step(want)
        assert np.isfinite(sent).all()
        assert length_error(skeleton, sent.reshape(-1, 3)) <= 1e-12
        # a coordinate in the thousands rounds a bone of 1 cm by 1e-10 rad
        assert cone_excess(skeleton, sent.reshape(-1, 3)) <= 1e-9
        if not np.isfinite(want).all():
            assert verdict.status is Status.HOLD
            assert verdict.intervention == math.inf
            np.testing.assert_array_equal(sent, before.reshape(-1))


def test_lengths_hold_at_the_edge_of_the_extent() -> None:
    rng = np.random.default_rng(5)
    n = MAX_NODES
    parents = (-1, *range(n - 1))
    skeleton = Skeleton(
        tuple(map(str, range(n))), parents, np.full(n, 4096 / n), rng.normal(size=(n, 3)), np.full(n, np.pi)
    )
    want = np.cumsum(np.tile([1.0, 1.0, 1.0], (n, 1)) + rng.normal(scale=0.1, size=(n, 3)), axis=0) + 1e9
    sent, verdict = BonesGuard(skeleton, 30.0).step(want)
    assert sent[0].tolist() == [4096.0] * 3
    assert "root" in verdict.rules
    assert sent.max() > 6000
    assert length_error(skeleton, sent) <= 1e-12


# ---- speed limits, and both caps at once -----------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(3, 20), log_turn=st.floats(-6, 0.4), jump=st.booleans())
def test_speeds_and_cones_hold_together(seed: int, n: int, log_turn: float, jump: bool) -> None:
    """Every bone stays within its turn of where it was and within its cone: the two caps always meet."""
    rng = np.random.default_rng(seed)
    skeleton = random_skeleton(rng, n)
    rate, turn, step = 50.0, 10**log_turn, 0.02
    guard = BonesGuard(skeleton, rate, root_speed=step * rate, turn_speed=turn * rate)
    guard.seed(rng.normal(size=(n, 3)))
    want = guard.pose
    for _ in range(12):
        before = guard.pose
        want = rng.normal(size=(n, 3)) if jump else want + rng.normal(scale=turn, size=(n, 3))
        sent, _ = guard.step(want)
        assert length_error(skeleton, sent) <= 1e-12
        assert cone_excess(skeleton, sent) <= 1e-9
        assert np.linalg.norm(sent[0] - before[0]) <= step * (1 + 1e-12)
        for i, p in enumerate(skeleton.parents[1:], 1):
            assert angle(before[i] - before[p], sent[i] - sent[p]) <= turn + 1e-9


def best_on_sphere(u: Array, caps: list[tuple[Array, float]]) -> float:
    """Smallest angle to u over the caps, by a fine grid refined with SLSQP: it knows nothing of rims or crossings."""
    k = np.arange(20_000) + 0.5
    z, azimuth = 1 - 2 * k / k.size, np.pi * (1 + 5**0.5) * k
    grid = np.column_stack([np.sqrt(1 - z * z) * np.cos(azimuth), np.sqrt(1 - z * z) * np.sin(azimuth), z])
    slack = [grid @ a - math.cos(alpha) for a, alpha in caps]
    ok = np.min(slack, axis=0) >= -0.05
    starts = grid[ok][np.argsort(-(grid[ok] @ u))[:4]]
    found = math.inf
    constraints = [{"type": "eq", "fun": lambda x: x @ x - 1, "jac": lambda x: 2 * x}]
    for axis, alpha in caps:
        rim = np.append(axis, math.cos(alpha))
        constraints.append({"type": "ineq", "fun": lambda x, r=rim: x @ r[:3] - r[3], "jac": lambda x, r=rim: r[:3]})
    for start in starts:
        done = minimize(lambda x: -(x @ u), start, jac=lambda x: -u, method="SLSQP", constraints=constraints, tol=1e-14)
        if all(angle(done.x, a) <= alpha + 1e-7 for a, alpha in caps):
            found = min(found, angle(done.x, u))
    return found


def test_the_direction_is_the_nearest_within_both_caps() -> None:
    rng = np.random.default_rng(11)
    kinds: dict[tuple[str, ...], int] = {}
    for _ in range(100):
        cone, turn = rng.uniform(0.1, 2.8), rng.uniform(0.1, 2.8)
        guard = BonesGuard(two_bones(cone), 1.0, turn_speed={"b": turn, "c": turn})
        guard.seed(np.cumsum(rng.normal(size=(3, 3)), axis=0))
        last = guard.pose[2] - guard.pose[1]
        want = np.cumsum(rng.normal(size=(3, 3)), axis=0)
        sent, verdict = guard.step(want)
        u, x, above = unit(want[2] - want[1]), sent[2] - sent[1], unit(sent[1] - sent[0])
        caps = [(above, cone), (unit(last), turn)]
        assert all(angle(x, a) <= alpha + 1e-12 for a, alpha in caps)
        best = best_on_sphere(u, caps)
        assert best < math.inf, "the grid is too coarse for these caps"
        assert angle(x, u) <= best + 1e-6
        kinds[verdict.by_joint.get("c", ())] = kinds.get(verdict.by_joint.get("c", ()), 0) + 1
    assert {("length",), ("length", "cone"), ("length", "turn"), ("length", "cone", "turn")} <= kinds.keys()


def test_straight_limb_and_opposite_proposal() -> None:
    """Rims with one axis, and a proposal as far from all of the rim."""
    guard = BonesGuard(two_bones(0.3), 1.0, turn_speed=0.3)
    guard.seed(np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]))
    sent, _ = guard.step(np.array([[0.0, 0, 0], [1, 0, 0], [0, 0, 0]]))
    assert angle(sent[2] - sent[1], np.array([1.0, 0, 0])) == pytest.approx(0.3, abs=1e-12)
    assert length_error(guard.skeleton, sent) <= 1e-12
    folded, _ = BonesGuard(two_bones(0.0), 1.0).step(np.array([[0.0, 0, 0], [0, 3, 0], [5, 3, 1]]))
    np.testing.assert_allclose(folded, [[0, 0, 0], [0, 1, 0], [0, 2, 0]], atol=1e-15)


def test_continuity_in_the_proposal() -> None:
    """A small change of the proposal moves the pose by little, but for proposals opposite to a cone's axis."""
    rng = np.random.default_rng(3)
    skeleton = random_skeleton(rng, 10)
    for _ in range(200):
        want = rng.normal(size=(10, 3))
        nudged = want + rng.normal(scale=1e-9, size=(10, 3))
        a, b = BonesGuard(skeleton, 30.0).step(want)[0], BonesGuard(skeleton, 30.0).step(nudged)[0]
        assert np.abs(a - b).max() < 1e-4


# ---- what is missing is held -----------------------------------------------------------------------------------------


def test_degenerate_bones_keep_their_last_direction(human: Skeleton) -> None:
    guard = BonesGuard(human, 120.0)
    pose = rest_pose(human)
    first, verdict = guard.step(np.zeros_like(pose))  # nothing to go by: the rest pose, within the cones
    assert set(verdict.by_joint["LLeg"]) >= {"length", "direction"}
    np.testing.assert_allclose(first, pose, atol=1e-12)
    pose = first @ np.array([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]])
    turned, verdict = guard.step(pose)
    assert verdict.status is Status.PASS
    hand = human.names.index("LeftHand")
    pose[hand] = pose[human.parents[hand]]
    held, verdict = guard.step(pose)
    assert "direction" in verdict.by_joint["LeftHand"]
    np.testing.assert_allclose(held[hand], turned[hand], atol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_holds(human: Skeleton, bad: float) -> None:
    guard = BonesGuard(human, 120.0)
    pose, _ = guard.step(rest_pose(human) + 0.5)
    broken = pose.copy()
    broken[7, 1] = bad
    held, verdict = guard.step(broken, stamp_ns=12)
    assert (verdict.status, verdict.intervention, verdict.stamp_ns) == (Status.HOLD, math.inf, 12)
    assert verdict.rules == ("non_finite",)
    np.testing.assert_array_equal(held, pose)


# ---- arrays in and out -----------------------------------------------------------------------------------------------


def test_float32_passes_and_costs_its_rounding(human: Skeleton) -> None:
    guard = BonesGuard(human, 120.0)
    rng = np.random.default_rng(0)
    pose, _ = guard.step(rng.normal(size=(len(human.names), 3)))
    single = pose.astype(np.float32)
    out = np.empty_like(single)
    assert guard.step_into(single, out).status is Status.PASS
    assert 1e-12 < length_error(human, out.astype(np.float64)) <= 2.0**-23 * (1 + np.abs(out).max())


def test_channels_in_any_order(human: Skeleton) -> None:
    names = list(channel_names(human))
    shuffle = np.random.default_rng(1).permutation(len(names))
    guard = BonesGuard(human, 120.0, channels=[names[i] for i in shuffle])
    want = np.random.default_rng(2).normal(size=len(names))
    expected, _ = BonesGuard(human, 120.0).step(want)
    sent, _ = guard.step(want[shuffle])
    np.testing.assert_array_equal(sent, expected[shuffle])
    with pytest.raises(GuardrailError, match=r"unknown \['tail/x'\], missing \['Hips/x'\].*LHipJoint"):
        BonesGuard(human, 120.0, channels=["tail/x", *names[1:]])


def test_step_into_does_not_allocate(human: Skeleton) -> None:
    guard = BonesGuard(human, 120.0)
    want = rest_pose(human).astype(np.float32)
    out = np.empty_like(want)
    for _ in range(10):
        guard.step_into(want, out)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(200):
        guard.step_into(want, out)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 500


def test_refusals_of_the_guard(human: Skeleton) -> None:
    guard = BonesGuard(human, 120.0)
    with pytest.raises(InputError, match=r"pose: found float64 \(3,\); expected float32 or float64 \(\d+, 3\)"):
        guard.step(np.zeros(3))
    with pytest.raises(InputError, match="found int64"):
        guard.step(np.zeros((len(human.names), 3), np.int64))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="out: found"):
        guard.step_into(rest_pose(human), np.zeros(3))
    with pytest.raises(GuardrailError, match=r"'LLeg'.*its cone follows 'LUpLeg'"):
        BonesGuard(human, 120.0, turn_speed={"LLeg": 1.0})
    with pytest.raises(GuardrailError, match="expected an angular speed above 0"):
        BonesGuard(human, 120.0, turn_speed=math.nan)
    with pytest.raises(GuardrailError, match=r"found \['tail'\]"):
        BonesGuard(human, 120.0, turn_speed={"tail": 1.0})
    with pytest.raises(GuardrailError, match="rate_hz"):
        BonesGuard(human, 0.0)
    with pytest.raises(GuardrailError, match="root_speed"):
        BonesGuard(human, 1.0, root_speed=-1.0)


# ---- in C: many poses, under the sanitizers --------------------------------------------------------------------------

HARNESS = r"""
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "kz_bones.h"
static uint64_t s = 88172645463325252ULL;
static double uniform(void) {
  s ^= s << 13;
  s ^= s >> 7;
  s ^= s << 17;
  return (double)(s >> 11) / 9007199254740992.0;
}
static double gap(const double *a, const double *b) {
  double x = a[0] - b[0], y = a[1] - b[1], z = a[2] - b[2];
  return sqrt(x * x + y * y + z * z);
}
int main(int argc, char **argv) {
  static kz_bones b;
  static double rest[KZ_BONES_MAX][3], want[KZ_BONES_MAX][3];
  double worst = 0, bend = 0;
  long poses = argc > 1 ? atol(argv[1]) : 0, held = 0;
  for (long k = 0; k < poses; k++) {
    if (k % 500 == 0) {
      double turn = k % 1000 ? 4 : pow(10, -4 * uniform());
      b.n = k % 3000 ? 25 : KZ_BONES_MAX;
      b.root_step = k % 1000 ? INFINITY : 0.1;
      for (int i = 0; i < b.n; i++) {
        double r = 0;
        b.parent[i] = i ? (int32_t)(uniform() * i) : -1;
        b.length[i] = pow(10, 2 * uniform() - 1);
        b.cone[i] = i && b.parent[i] > 0 ? 3.5 * uniform() : 4;
        b.turn[i] = turn;
        for (int j = 0; j < 3; j++) {
          rest[i][j] = uniform() - 0.5;
          r += rest[i][j] * rest[i][j];
        }
        for (int j = 0; j < 3; j++) rest[i][j] /= sqrt(r);
      }
      if (!kz_bones_init(&b, rest[0])) return 2;
    }
    for (int i = 0; i < b.n; i++)
      for (int j = 0; j < 3; j++) want[i][j] = k % 7 ? 8 * uniform() - 4 : b.pose[i][j] + 0.01 * uniform();
    if (k % 97 == 0) want[b.n / 2][1] = NAN;
    kz_bones_step(&b, want[0], 0);
    held += b.status == KZ_BONES_HOLD;
    for (int i = 1; i < b.n; i++) {
      int p = b.parent[i];
      double e = fabs(gap(b.pose[i], b.pose[p]) - b.length[i]) / fmax(1, b.length[i]);
      worst = e <= worst ? worst : e;
      if (p && b.cone[i] < 3.14) { /* chord against the chord of the cone: not the code's arctangent */
        double excess = 2 * asin(fmin(1, gap(b.direction[i], b.direction[p]) / 2)) - b.cone[i];
        bend = excess <= bend ? bend : excess;
      }
    }
  }
  printf("%ld %.3g %.3g %d\n", held, worst, bend, (int)isnan(worst + bend));
  return 0;
}
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.parametrize(
    ("flags", "poses"), [("-O2", 120_000), ("-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all", 10_000)]
)
def test_many_poses_in_c(tmp_path: Path, flags: str, poses: int) -> None:
    (tmp_path / "h.c").write_text(HARNESS)
    command = ["cc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", *flags.split(), f"-I{SOURCES}"]
    command += ["h.c", str(SOURCES / "kz_bones.c"), "-lm", "-o", "h"]
    subprocess.run(command, cwd=tmp_path, check=True)
    out = subprocess.run([tmp_path / "h", str(poses)], capture_output=True, text=True, check=True).stdout.split()
    assert int(out[0]) == -(-poses // 97)
    assert float(out[1]) <= 1e-12
    assert float(out[2]) <= 1e-9
    assert out[3] == "0"
