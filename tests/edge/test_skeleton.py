"""Skeletons from files, and poses that always are theirs: against an oracle in numpy, and brute force on the sphere."""

from __future__ import annotations

import math
import struct
import subprocess
import tracemalloc
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize  # type: ignore[import-untyped]
from skeletons import angle, cmu_human, cone_excess, length_error, two_bones, unit

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.bones import RULES, PoseDrive, channel_names
from kizzasi_edge.guardrails.drive import Drive
from kizzasi_edge.guardrails.faults import Event, State
from kizzasi_edge.guardrails.skeleton import MAX_NODES, Skeleton
from kizzasi_edge.guardrails.verdict import HEADER, RULE_BITS, Status, Verdict

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


def follow(drive: PoseDrive, want: Array | list[list[float]]) -> tuple[Array, Verdict]:
    """The pose in float64 for a proposal, and the verdict."""
    proposed = np.asarray(want, np.float32).reshape(-1)
    sent = np.empty_like(proposed)
    assert drive.follow(proposed, sent) == 0
    np.testing.assert_array_equal(sent, drive.pose.reshape(-1).astype(np.float32))
    return drive.pose, Verdict(drive.layout, bytes(drive.record))


def single(want: npt.ArrayLike) -> Array:
    """What of a proposal arrives."""
    return np.asarray(want, np.float32).astype(np.float64)


# ---- the oracle: written from the definitions, sharing no formula with kz_bones.c ------------------------------------


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


# ---- the promise -----------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 40), exponent=st.integers(-3, 3))
def test_lengths_cones_and_the_oracle(seed: int, n: int, exponent: int) -> None:
    rng = np.random.default_rng(seed)
    drive = PoseDrive(skeleton := random_skeleton(rng, n), 30.0)
    want = single(rng.normal(scale=10.0**exponent, size=(n, 3)))
    pose, verdict = follow(drive, want)
    assert length_error(skeleton, pose) <= 1e-12
    assert cone_excess(skeleton, pose) <= 1e-9
    np.testing.assert_allclose(pose, oracle(skeleton, want), rtol=0, atol=1e-10 * (1 + 10.0**exponent))
    assert verdict.status is (Status.PASS if n == 1 else Status.PROJECTED)
    assert verdict.intervention == (0 if n == 1 else pytest.approx(np.linalg.norm(pose - want)))
    drive.seed(pose.reshape(-1))
    verdict = Verdict(drive.layout, drive.record)
    assert verdict.status is Status.PASS
    assert not verdict.rules
    np.testing.assert_allclose(drive.pose, pose, rtol=0, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), n=st.integers(2, 12), limited=st.booleans())
def test_whatever_is_proposed(data: st.DataObject, n: int, limited: bool) -> None:
    """Any float32 at all: huge, tiny, NaN, coinciding nodes."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    skeleton = random_skeleton(rng, n)
    drive = PoseDrive(skeleton, 50.0, root_speed=2.0 if limited else math.inf, turn_speed=5.0 if limited else math.inf)
    sent = np.empty(3 * n, np.float32)
    value = st.floats(width=32) | st.sampled_from([0.0, 1.0, 3e38])
    for _ in range(4):
        before, record = drive.pose, bytes(drive.record)
        want = np.array(data.draw(st.lists(value, min_size=3 * n, max_size=3 * n)), np.float32)
        found = drive.follow(want, sent)
        assert found == (0 if np.isfinite(want).all() else Event.NON_FINITE)
        if not found:
            assert np.isfinite(sent).all()
            assert length_error(skeleton, drive.pose) <= 1e-12
            # a coordinate in the thousands rounds a bone of 1 cm by 1e-10 rad
            assert cone_excess(skeleton, drive.pose) <= 1e-9
        else:
            np.testing.assert_array_equal(drive.pose, before)
            assert bytes(drive.record) == record


@settings(max_examples=60, deadline=None)
@given(data=st.data(), n=st.integers(2, 12))
def test_whatever_is_measured(data: st.DataObject, n: int) -> None:
    """Any finite float64, in which a pose is measured."""
    skeleton = random_skeleton(np.random.default_rng(data.draw(st.integers(0, 2**32 - 1))), n)
    value = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, 1.0, 1e308])
    drive = PoseDrive(skeleton, 50.0, root_speed=1.0)
    drive.seed(np.array(data.draw(st.lists(value, min_size=3 * n, max_size=3 * n))))
    assert length_error(skeleton, drive.pose) <= 1e-12
    assert cone_excess(skeleton, drive.pose) <= 1e-9
    assert drive.at_rest


def test_lengths_hold_at_the_edge_of_the_extent() -> None:
    rng = np.random.default_rng(5)
    n = MAX_NODES
    parents = (-1, *range(n - 1))
    skeleton = Skeleton(
        tuple(map(str, range(n))), parents, np.full(n, 4096 / n), rng.normal(size=(n, 3)), np.full(n, np.pi)
    )
    want = np.cumsum(np.tile([1.0, 1.0, 1.0], (n, 1)) + rng.normal(scale=0.1, size=(n, 3)), axis=0) + 1e5
    sent, verdict = follow(PoseDrive(skeleton, 30.0), want)
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
    drive = PoseDrive(skeleton, rate, root_speed=step * rate, turn_speed=turn * rate)
    drive.seed(rng.normal(size=3 * n))
    want = drive.pose
    for k in range(12):
        if k in (6, 9):
            drive.derate(k == 6)
            step, turn = (step / 2, turn / 2) if k == 6 else (2 * step, 2 * turn)
        before = drive.pose
        want = rng.normal(size=(n, 3)) if jump else want + rng.normal(scale=turn, size=(n, 3))
        sent, _ = follow(drive, want)
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
        drive = PoseDrive(two_bones(cone), 1.0, turn_speed={"b": turn, "c": turn})
        drive.seed(np.cumsum(rng.normal(size=(3, 3)), axis=0).reshape(-1))
        last = drive.pose[2] - drive.pose[1]
        want = single(np.cumsum(rng.normal(size=(3, 3)), axis=0))
        sent, verdict = follow(drive, want)
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
    drive = PoseDrive(two_bones(0.3), 1.0, turn_speed=0.3)
    drive.seed(np.array([0.0, 0, 0, 1, 0, 0, 2, 0, 0]))
    sent, _ = follow(drive, [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert angle(sent[2] - sent[1], np.array([1.0, 0, 0])) == pytest.approx(0.3, abs=1e-12)
    assert length_error(drive.skeleton, sent) <= 1e-12
    folded, _ = follow(PoseDrive(two_bones(0.0), 1.0), [[0.0, 0.0, 0.0], [0.0, 3.0, 0.0], [5.0, 3.0, 1.0]])
    np.testing.assert_allclose(folded, [[0, 0, 0], [0, 1, 0], [0, 2, 0]], atol=1e-15)


def test_continuity_in_the_proposal() -> None:
    """A small change of the proposal moves the pose by little, but for proposals opposite to a cone's axis."""
    rng = np.random.default_rng(3)
    skeleton = random_skeleton(rng, 10)
    for _ in range(200):
        want = rng.normal(size=30)
        nudged = want + rng.normal(scale=1e-9, size=30)
        a, b = PoseDrive(skeleton, 30.0), PoseDrive(skeleton, 30.0)
        a.seed(want)
        b.seed(nudged)
        assert 0 < np.abs(a.pose - b.pose).max() < 1e-4


# ---- what is missing is held -----------------------------------------------------------------------------------------


def test_degenerate_bones_keep_their_last_direction(human: Skeleton) -> None:
    drive = PoseDrive(human, 120.0)
    pose = rest_pose(human)
    first, verdict = follow(drive, np.zeros_like(pose))  # nothing to go by: the rest pose, within the cones
    assert set(verdict.by_joint["LLeg"]) >= {"length", "direction"}
    np.testing.assert_allclose(first, pose, atol=1e-12)
    pose = first @ np.array([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]])
    turned, verdict = follow(drive, pose)
    assert verdict.status is Status.PASS
    hand = human.names.index("LeftHand")
    pose[hand] = pose[human.parents[hand]]
    held, verdict = follow(drive, pose)
    assert "direction" in verdict.by_joint["LeftHand"]
    np.testing.assert_allclose(held[hand], turned[hand], atol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_coasting_and_braking_hold(human: Skeleton, bad: float) -> None:
    drive = PoseDrive(human, 120.0)
    rest = drive.pose
    np.testing.assert_allclose(rest, rest_pose(human), atol=1e-12)
    assert drive.at_rest
    pose, _ = follow(drive, rest + 0.5)
    assert not drive.at_rest
    broken, sent = pose.reshape(-1).astype(np.float32), np.empty(pose.size, np.float32)
    broken[22] = bad
    assert drive.follow(broken, sent) == Event.NON_FINITE
    assert not drive.at_rest
    for hold, rule in ((drive.coast, "non_finite"), (drive.brake, "miss")):
        hold(sent, {name: bit for bit, name in RULE_BITS.items()}[rule])
        verdict = Verdict(drive.layout, drive.record)
        assert (verdict.status, verdict.intervention, verdict.rules) == (Status.HOLD, math.inf, (rule,))
        assert set(verdict.by_joint) == set(human.names)
        np.testing.assert_array_equal(sent, pose.reshape(-1).astype(np.float32))
        assert drive.at_rest
    follow(drive, pose)
    assert drive.pose == pytest.approx(pose, abs=1e-5)


def test_the_rest_pose_once_held_is_left_at_the_speed_limits() -> None:
    """A pose that was sent counts, however it came about; one that was not does not."""
    far = np.array([[9.0, 0, 0], [9, 1, 0], [9, 2, 0]])
    held, fresh = (PoseDrive(two_bones(3.0), 10.0, root_speed=1.0) for _ in range(2))
    held.coast(np.empty(9, np.float32), 32)
    assert follow(held, far)[0][0].tolist() == pytest.approx([0.1, 0, 0])
    assert follow(fresh, far)[0].tolist() == far.tolist()


def test_what_asks_for_no_motion() -> None:
    free = PoseDrive(two_bones(3.0), 10.0)
    drive = PoseDrive(two_bones(3.0), 10.0, root_speed=1.0, turn_speed=2.0)
    at = np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]])
    for each in (free, drive):
        each.seed(at.reshape(-1))
    assert free.asks_no_motion(np.full(9, 100.0, np.float32))
    for root, turn, quiet in ((0.09, 0.19, True), (0.11, 0.0, False), (0.0, 0.21, False)):
        asked = at + np.array([0, 0, root])
        asked[2] = asked[1] + [3 * math.cos(turn), 3 * math.sin(turn), 0]  # however long the bone is drawn
        assert drive.asks_no_motion(asked.reshape(-1).astype(np.float32)) is quiet
        verdict = follow(drive, asked)[1]
        assert bool({"root", "turn"} & set(verdict.rules)) is not quiet
        drive.seed(at.reshape(-1))


# ---- what the stack relies on ----------------------------------------------------------------------------------------


def test_it_is_a_drive(human: Skeleton) -> None:
    drive: Drive = PoseDrive(human, 120.0)
    n = len(human.names)
    assert drive.shape == (3 * n,) == (len(channel_names(human)),)
    assert drive.layout.channels == human.names
    assert drive.measures == ()
    text = "\n".join(PoseDrive(human, 120.0).explain())
    assert "LLeg: 0.403941 from LUpLeg, within 0.9 rad of its parent's bone, turns as fast as it is told" in text


def test_the_record_leaves_the_stacks_fields_alone(human: Skeleton) -> None:
    drive = PoseDrive(human, 120.0)
    assert len(drive.record) == HEADER.size + len(human.names)
    struct.pack_into("=II", drive.record, 4, State.HOLD, 2)
    sent = np.empty(drive.shape, np.float32)
    drive.follow(np.ones(drive.shape, np.float32), sent)
    drive.coast(sent, 16)
    status, state, cause, relaxed_jerk, intervention, shaped, relaxed = HEADER.unpack_from(drive.record)
    assert (status, state, cause, intervention) == (Status.HOLD, State.HOLD, 2, math.inf)
    assert (relaxed_jerk, shaped, relaxed) == (0, 0, 0)


def test_the_bits_have_names_and_the_stacks_keep_theirs() -> None:
    assert len(set(RULES.values())) == len(RULES) == 7
    assert {bit: name for bit, name in RULES.items() if name in RULE_BITS.values()} == {16: "non_finite", 32: "miss"}


def test_float32_costs_its_rounding(human: Skeleton) -> None:
    drive = PoseDrive(human, 120.0)
    pose, _ = follow(drive, np.random.default_rng(0).normal(size=(len(human.names), 3)))
    sent = pose.astype(np.float32)
    assert length_error(human, pose) <= 1e-12
    assert 1e-12 < length_error(human, sent.astype(np.float64)) <= 2.0**-23 * (1 + np.abs(pose).max())
    for _ in range(1000):  # fed back again and again, the rounding does not build up
        back, verdict = follow(drive, drive.pose)
        assert verdict.status is Status.PASS
    assert length_error(human, back) <= 1e-12


def test_following_does_not_allocate(human: Skeleton) -> None:
    drive = PoseDrive(human, 120.0)
    want = rest_pose(human).astype(np.float32).reshape(-1)
    out = np.empty_like(want)
    for _ in range(10):
        drive.follow(want, out)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(200):
        drive.follow(want, out)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 500


def test_refusals(human: Skeleton) -> None:
    with pytest.raises(GuardrailError, match=r"'LLeg'.*its cone follows 'LUpLeg'"):
        PoseDrive(human, 120.0, turn_speed={"LLeg": 1.0})
    with pytest.raises(
        GuardrailError, match=r"turn_speed: found \['LHipJoint'\]; expected nodes.*merged: {'LHipJoint'"
    ):
        PoseDrive(human, 120.0, turn_speed={"LHipJoint": 1.0})
    with pytest.raises(GuardrailError, match="cannot be guarded"):
        PoseDrive(human, 1e6, root_speed=5e-324)


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
    if (!kz_bones_step(&b, want[0], 0)) kz_bones_hold(&b, 16);
    held += b.verdict.status == KZ_BONES_HOLD && b.verdict.rules[b.n - 1] == 16;
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
