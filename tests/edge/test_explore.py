"""The explore page: its boundary is the viable set's, its counts are right, its figures are there."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails import Guardrails
from kizzasi_edge.guardrails.explore import main, write_page
from kizzasi_edge.guardrails.explore_plots import in_time, pair_plane, phase_plane, viable_boundary
from kizzasi_edge.guardrails.explore_trial import ATTACKS, Count, broken, count, counts, sabotage
from kizzasi_edge.guardrails.faults import State
from kizzasi_edge.guardrails.lattice import LatticeLimits
from kizzasi_edge.guardrails.rows import Quadratic, Row

pytest.importorskip("matplotlib")

ARM = Path(__file__).parents[2] / "kizzasi_edge" / "demo" / "assets" / "arm.guard.toml"


@pytest.fixture
def small() -> Guardrails:
    """Two joints that cross their range in a second, at a low rate, so that a run is short."""
    builder = Guardrails.builder(rate_hz=100, miss_budget=2, velocity_scale=1.0)
    builder.joint("a", position=(-1.0, 2.0), velocity=4.0, acceleration=20.0)
    builder.joint("b", position=(0.0, 1.0), velocity=2.0, acceleration=15.0)
    return builder.build()


def _way_to_rest(step: int, h: int, coast: int) -> int:
    """Distance from before `step` on: the step, `coast` more of them, then braking. Independent of kz_reach."""
    gone = (1 + coast) * step
    while step > h:
        step -= h
        gone += step
    return gone


@settings(max_examples=100, deadline=None)
@given(
    lo=st.integers(-(10**6), 10**6),
    span=st.integers(0, 10**6),
    w=st.integers(1, 3000),
    h=st.integers(1, 500),
    coast=st.integers(0, 10),
)
def test_the_boundary_is_exact(lo: int, span: int, w: int, h: int, coast: int) -> None:
    cell = LatticeLimits("j", 1.0, lo, lo + span, w, min(h, 2 * w), 0.0)
    after, step = viable_boundary(cell, coast, 40)
    assert step[-1] == 0
    assert after[-1] == cell.hi
    for q, v in zip((after - step).tolist(), step.tolist(), strict=True):
        assert _way_to_rest(v, cell.h, coast) <= cell.hi - q
        assert v == w or _way_to_rest(v + 1, cell.h, coast) > cell.hi - q


def test_count_sees_each_limit() -> None:
    assert count(np.array([0, 3, 6, 9]), 0, 9, 3, 0) == Count(0, 0, 0)
    assert count(np.array([0, 3, 7, 10]), 0, 9, 3, 0) == Count(1, 1, 2)
    assert count(np.array([0.0, np.nan, 0.0, 0.0]), 0, 9, 3, 0) == Count(1, 2, 2)


def test_the_saboteur_tries_everything_and_the_guard_holds(small: Guardrails) -> None:
    trial = sabotage(small, seed=3)
    assert {name for _, name in trial.attacks} == set(ATTACKS)
    assert len(trial.sent) == len(trial.proposed)
    assert np.isnan(trial.proposed).any()
    for i, cell in enumerate(small.lattice):
        limits = (cell.lo, cell.hi, cell.w, cell.h)
        before, after = count(trial.proposed[:, i] / cell.quantum, *limits), count(trial.sent[:, i], *limits)
        assert after == Count(0, 0, 0)
        assert min(before.position, before.velocity, before.acceleration) > 20
        assert np.ptp(trial.sent[:, i]) > 0.9 * (cell.hi - cell.lo)


def test_the_seed_decides(small: Guardrails) -> None:
    first, again, other = (sabotage(small, seed) for seed in (1, 1, 2))
    assert np.array_equal(first.sent, again.sent)
    assert not np.array_equal(first.sent[:50], other.sent[:50])


def test_a_guard_that_latches_on_one_nan_gets_none(tmp_path: Path) -> None:
    file = tmp_path / "strict.guard.toml"
    file.write_text(
        "schema = 1\n[guard]\nrate_hz = 100\nnan_ticks = 1\n"
        '[joints]\nnames = ["a"]\nposition = [[-1.0, 1.0]]\nvelocity = 2.0\nacceleration = 9.0\n'
    )
    assert np.isfinite(sabotage(Guardrails.load(file), 1).proposed).all()


def test_page_of_the_demo_guard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "page.html"
    assert main([str(ARM), "--joint", "elbow_joint", "--pair", "elbow_joint", "wrist_1_joint", "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    text = out.read_text()
    images = re.findall(r"<img alt='([^']+)' src='data:image/png;base64,([^']+)'>", text)
    assert [title for title, _ in images] == [
        "elbow_joint: safe set and trajectory",
        "elbow_joint: before and after the guard",
        "elbow_joint and wrist_1_joint",
    ]
    for _, data in images:
        assert base64.b64decode(data).startswith(b"\x89PNG")
    assert "no limit was violated" in text
    assert "http" not in text, "self-contained"
    guard = Guardrails.load(ARM)
    trial = sabotage(guard, seed=1)
    assert f"sends {len(trial.sent)} commands" in text
    cell = guard.lattice[2]
    before = count(trial.proposed[:, 2] / cell.quantum, cell.lo, cell.hi, cell.w, cell.h)
    row = f"<tr><td>elbow_joint<td>{before.position}<td>0<td>{before.velocity}<td>0<td>{before.acceleration}<td>0"
    assert row in text
    assert "lattice lo=-6546454 hi=6546454 w=11859 h=100" in text  # explain()


def test_the_plane_draws_the_exact_boundary_and_the_limits(small: Guardrails) -> None:
    axes = phase_plane(small, 0, sabotage(small, 1)).axes[0]
    lines = {line.get_label(): np.asarray(line.get_xydata()) for line in axes.lines}
    cell = small.lattice[0]
    position, step = viable_boundary(cell, small.miss_budget)
    granted = lines["granted: with room for 2 missed periods"]
    assert np.allclose(granted[: len(position), 0], position * cell.quantum)
    assert np.allclose(granted[: len(position), 1], step * cell.quantum * 100)
    assert granted[:, 1].max() == pytest.approx(4.0, rel=1e-4)
    assert np.all(lines["sent"][:, 0] <= 2.0)
    assert np.all(np.abs(lines["sent"][:, 1]) <= 4.0)


def test_coupled_rules_are_drawn_where_they_cut_the_box(small: Guardrails) -> None:
    rules = [Row("cut", "position", np.array([1.0, 1.0]), 1.5), Row("far", "position", np.array([1.0, 1.0]), 99.0)]
    rules.append(Row("speed", "velocity", np.array([1.0, 1.0]), 0.0))
    round_ = [Quadratic("round", "position", np.eye(2), np.zeros(2), 1.0)]
    axes = pair_plane(small, (0, 1), sabotage(small, 1), rules, round_).axes[0]
    labels = {line.get_label() for line in axes.lines}
    assert {"cut", "round"} <= labels
    assert not {"far", "speed"} & labels


@pytest.mark.parametrize("arguments", [["--joint", "knee"], ["--pair", "elbow_joint", "knee"]])
def test_an_unknown_joint_is_named(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "page.html"
    assert main([str(ARM), *arguments, "--out", str(out)]) == 1
    message = capsys.readouterr().err
    assert "'knee'" in message
    assert "elbow_joint" in message
    assert not out.exists()


def test_a_single_joint_has_no_pair(tmp_path: Path) -> None:
    builder = Guardrails.builder(rate_hz=100)
    guard = builder.joint("only", position=(-1.0, 1.0), velocity=2.0, acceleration=10.0).build()
    write_page(guard, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text().count("<img") == 2
    with pytest.raises(GuardrailError, match="'other'"):
        write_page(guard, tmp_path / "page.html", pair=("only", "other"))


GUARD = """schema = 1
[guard]
rate_hz = 100
command = "{command}"
[joints]
names = ["a", "b"]
position = [[-1.0, 2.0], [0.0, 1.0]]
velocity = [4.0, 2.0]
acceleration = [20.0, 15.0]
"""
RULES = """jerk = 1200.0
[[constraint]]
kind = "linear"
name = "corner"
a = { a = 1.0, b = 1.0 }
max = 0.4
[[temporal]]
name = "stop"
formula = "always(near -> eventually[0,0.6] stopped)"
atoms = { near = "distance < 0.3", stopped = "max(abs(velocity)) < 0.01" }
[faults]
stale_ms = 10000.0
jump = 0.1
tracking_stop = 0.5
active_ms = 700.0
"""


def load(tmp_path: Path, text: str) -> Guardrails:
    file = tmp_path / "x.guard.toml"
    file.write_text(text)
    return Guardrails.load(file)


def test_velocities_and_the_robot_behind_them(tmp_path: Path) -> None:
    guard = load(tmp_path, GUARD.format(command="velocity"))
    trial = sabotage(guard, 2)
    for (_, before, after), joint in zip(counts(trial), (0, 1), strict=True):
        assert after == Count(0, 0, 0)
        assert min(before.velocity, before.acceleration) > 20
        assert np.ptp(trial.sent[:, joint]) > 0.5 * (trial.motion.cells[joint].hi - trial.motion.cells[joint].lo)
    assert sum(before.position for _, before, _ in counts(trial)) > 20
    # An independent look, in SI units: measured positions inside what the file says, velocities too.
    q = trial.sent * trial.motion.units
    assert (q >= [-1.0, 0.0]).all()
    assert (q <= [2.0, 1.0]).all()
    assert (np.abs(np.diff(q, axis=0)) * 100 <= np.array([4.0, 2.0]) * 0.9 + 1e-9).all()
    write_page(guard, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "no limit was violated" in text
    assert text.count("<img") == 3


def test_velocities_without_a_range_have_no_plane(tmp_path: Path) -> None:
    text = GUARD.format(command="velocity").replace("position = [[-1.0, 2.0], [0.0, 1.0]]\n", "")
    guard = load(tmp_path, text)
    write_page(guard, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text().count("<img") == 1
    position, velocity = in_time(guard, 0, sabotage(guard, 1)).axes[:2]
    assert not [line for line in position.lines if line.get_color() == "tab:red"]
    assert "no limit was violated" in (tmp_path / "page.html").read_text()
    assert len([line for line in velocity.lines if line.get_color() == "tab:red"]) == 2


def test_rules_faults_and_formulas_are_tried_too(tmp_path: Path) -> None:
    """The middle of the range breaks the rule: it starts beside it. What latches is cleared, and the run goes on."""
    guard = load(tmp_path, GUARD.format(command="position") + RULES)
    trial = sabotage(guard, 1)
    assert all(after == Count(0, 0, 0) for _, _, after in counts(trial))
    row = guard.rows[0]
    sent = trial.sent * trial.motion.units
    assert broken(row, sent, 100.0) == 0
    assert broken(row, trial.proposed, 100.0) > 100
    assert (sent @ [1.0, 1.0]).max() <= 0.4
    assert (sent @ [1.0, 1.0]).max() > 0.38
    states = {State(state) for state in np.unique(trial.states)}
    assert {State.NOMINAL, State.FALLBACK, State.STOPPED, State.REARM} <= states
    assert trial.violated == ()
    axes = in_time(guard, 0, trial).axes
    assert len(axes) == 4
    assert axes[3].get_ylabel() == "jerk [rad/s³], soft"
    write_page(guard, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    for part in ("no limit was violated", "<td>corner<td>position, hard", "Temporal rules violated: none", "FALLBACK"):
        assert part in text


def test_broken_counts_what_breaks_a_rule() -> None:
    row = Row("r", "velocity", np.array([1.0, -1.0]), 1.0)
    q = np.array([[0.0, 0.0], [0.01, 0.0], [0.03, 0.0], [0.03, 0.02], [np.nan, 0.02]])
    assert broken(row, q, 100.0) == 2  # 2/s in the second step, a NaN in the last
    bowl = Quadratic("q", "position", np.eye(2), np.zeros(2), 0.03**2)
    assert broken(bowl, q, 100.0) == 2


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("torque_arm/arm.guard.toml", ["found 'torque'", "run.py"]),
        ("skeleton/skeleton.guard.toml", ["poses", "show.py"]),
    ],
)
def test_what_it_does_not_draw(path: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if "torque" in path:
        pytest.importorskip("pinocchio")
    out = tmp_path / "page.html"
    assert main([str(ARM.parents[3] / "examples" / path), "--out", str(out)]) == 1
    message = capsys.readouterr().err
    assert all(word in message for word in words)
    assert not out.exists()
