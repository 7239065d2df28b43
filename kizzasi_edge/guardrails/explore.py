"""One page that shows what a guard file permits, and what it makes of a saboteur's commands.

    python -m kizzasi_edge.guardrails.explore arm.guard.toml --joint elbow_joint --pair elbow_joint wrist_1_joint

The position-velocity plane of a joint with the exact boundary of its viable set, a sabotaged trajectory before and
after the guard, and the plane of a pair of joints with the rules that couple them.
"""

from __future__ import annotations

import argparse
import html
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from kizzasi_bridge._kz_core import lib

from kizzasi_edge import page
from kizzasi_edge.errors import GuardrailError, KizzasiError
from kizzasi_edge.guardrails.lattice import LatticeLimits
from kizzasi_edge.guardrails.rows import Quadratic, Row
from kizzasi_edge.guardrails.stack import Guardrails

if TYPE_CHECKING:
    from matplotlib.figure import Figure

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

CROSSINGS = 8
"""Length of the sabotage, in crossings of the slowest joint's range …"""
MAX_PERIODS = 30_000
"""… but no more periods than this."""
ATTACKS = ("limit to limit", "noise", "bang-bang", "stuck", "not a number")
_BEFORE, _AFTER, _LIMIT, _VIABLE, _GRANTED = "0.75", "tab:green", "tab:red", "tab:orange", "tab:blue"


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """A sabotaged run. ``proposed`` (periods, n) SI, may hold NaN; ``sent`` (periods, n) quanta;
    ``attacks``: (first period, name) of each stretch."""

    proposed: F64
    sent: I64
    attacks: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class Count:
    """How many periods of a trajectory broke each limit of one joint."""

    position: int
    velocity: int
    acceleration: int


def viable_boundary(cell: LatticeLimits, coast: int, points: int = 400) -> tuple[I64, I64]:
    """Upper boundary of the viable set: positions and the largest steps that may lead to them, in quanta.

    From each position the largest step that still leaves room for ``coast`` periods at that step and for braking
    (kz_reach), within the velocity limit; by symmetry (lo + hi − q, −v) is the lower boundary.
    """
    start = np.unique(np.linspace(cell.lo, cell.hi, points).round().astype(np.int64))
    step = np.array([min(lib.kz_reach(int(cell.hi - q), cell.h, coast), cell.w) for q in start], np.int64)
    return start + step, step


def sabotage(guard: Guardrails, seed: int) -> Trial:
    """Run a seeded saboteur against a fresh ``guard``: jumps between the limits, noise, bang-bang, a stuck value,
    NaN (in runs shorter than those that latch). Starts at rest in the middle of the range."""
    rng = np.random.default_rng(seed)
    lo = np.array([limit.lower for limit in guard.limits])
    hi = np.array([limit.upper for limit in guard.limits])
    crossing_s = max((b.upper - b.lower) / b.velocity + b.velocity / b.acceleration for b in guard.limits)
    periods = min(int(CROSSINGS * crossing_s * guard.rate_hz) + 1, MAX_PERIODS)
    proposed = np.empty((periods, len(lo)))
    attacks: list[tuple[int, str]] = []
    at = 0
    while at < periods:
        for name in ATTACKS if at == 0 else rng.permutation(ATTACKS):
            length = int(rng.uniform(0.2, 1.0) * periods / CROSSINGS) + 1
            if name == "not a number":
                length = min(length, guard.spec.guard.nan_ticks - 1)
            if length and at < periods:
                attacks.append((at, str(name)))
                stretch = proposed[at : at + length]
                stretch[:] = _attack(str(name), len(stretch), lo, hi, rng)
                at += length
    guard.reset((lo + hi) / 2)
    sent = np.array([guard.step(row)[0] for row in proposed], np.float64)
    return Trial(proposed, np.rint(sent / guard.quanta).astype(np.int64), tuple(attacks))


def _attack(name: str, periods: int, lo: F64, hi: F64, rng: np.random.Generator) -> F64:
    """Proposals (periods, n) of one kind, up to half a range beyond the limits."""
    n, beyond = len(lo), (hi - lo) / 2
    low, high = lo - beyond, hi + beyond
    match name:
        case "limit to limit":
            side = rng.random(n) < 0.5
            first, then = np.where(side, low, high), np.where(side, high, low)
            return np.where(np.arange(periods)[:, None] < periods // 2, first, then)
        case "noise":
            return rng.uniform(low, high, (periods, n))
        case "bang-bang":
            each = max(periods // 12, 1)
            return np.where((np.arange(periods)[:, None] // each + rng.integers(0, 2, n)) % 2, high, low)
        case "stuck":
            return np.tile(rng.uniform(lo, hi), (periods, 1))
        case _:
            return np.full((periods, n), np.nan)


def count(position: F64 | I64, lo: float, hi: float, w: float, h: float) -> Count:
    """Violations in a trajectory (periods,), in whatever unit the limits have; a NaN breaks every limit it touches."""
    step, change = np.diff(position), np.diff(position, 2)
    inside = (lo <= position) & (position <= hi)
    return Count(int((~inside).sum()), int((~(np.abs(step) <= w)).sum()), int((~(np.abs(change) <= h)).sum()))


def write_page(
    guard: Guardrails, path: Path, joint: str | None = None, pair: tuple[str, str] | None = None, seed: int = 1
) -> None:
    """Write the page for ``joint`` (default: the first) and ``pair`` (default: the first two, if there are two).

    Raises :class:`GuardrailError` for a joint that the guard does not have, :class:`MissingExtra` without matplotlib.
    """
    chosen = _index(guard, joint or guard.joints[0])
    both = pair or (guard.joints[:2] if len(guard.joints) > 1 else None)
    couple = None if both is None else (_index(guard, both[0]), _index(guard, both[1]))
    trial = sabotage(guard, seed)
    counts = [
        (
            name,
            count(trial.proposed[:, i] / cell.quantum, cell.lo, cell.hi, cell.w, cell.h),
            count(trial.sent[:, i], cell.lo, cell.hi, cell.w, cell.h),
        )
        for i, (name, cell) in enumerate(zip(guard.joints, guard.lattice, strict=True))
    ]
    clean = all(after == Count(0, 0, 0) for _, _, after in counts)
    name = guard.joints[chosen]
    body = [
        page.head(f"guard {guard.where}"),
        f"<h1>{html.escape(guard.where)}: <span class={'ok' if clean else 'bad'}>"
        f"{'no limit was violated' if clean else 'limits were VIOLATED'}</span></h1>",
        f"<p>A saboteur (seed {seed}) sends {len(trial.sent)} commands; violations, counted in quanta:</p>",
        "<table><tr><th>joint<th>position<br>proposed<th>→ sent<th>velocity<br>proposed<th>→ sent"
        "<th>acceleration<br>proposed<th>→ sent",
        *(
            f"<tr><td>{html.escape(joint_name)}<td>{before.position}<td>{after.position}<td>{before.velocity}"
            f"<td>{after.velocity}<td>{before.acceleration}<td>{after.acceleration}"
            for joint_name, before, after in counts
        ),
        "</table>",
        page.section(f"{name}: safe set and trajectory", phase_plane(guard, chosen, trial)),
        page.section(f"{name}: before and after the guard", in_time(guard, chosen, trial)),
    ]
    if couple is not None:
        title = f"{guard.joints[couple[0]]} and {guard.joints[couple[1]]}"
        body.append(page.section(title, pair_plane(guard, couple, trial, guard.rows, guard.quadratics)))
    body.append(f"<h2>What the guard promises</h2><pre>{html.escape(guard.explain())}</pre></html>")
    path.write_text("\n".join(body))


def phase_plane(guard: Guardrails, i: int, trial: Trial) -> Figure:
    """Joint ``i``: positions against the velocities that led to them."""
    cell, rate = guard.lattice[i], guard.rate_hz
    figure = page.figure(5.2)
    axes = figure.subplots()
    q, v = trial.sent[1:, i] * cell.quantum, np.diff(trial.sent[:, i]) * cell.quantum * rate
    before = trial.proposed[:, i]
    axes.plot(before[1:], np.diff(before) * rate, ".", ms=2, color=_BEFORE, label="proposed, where in the picture")
    axes.plot(q, v, color=_AFTER, lw=0.8, label="sent")
    coast = guard.miss_budget
    for periods, colour, label in (
        (0, _VIABLE, "viable set: can still brake inside the range"),
        (coast, _GRANTED, f"granted: with room for {coast} missed periods"),
    ):
        position, step = viable_boundary(cell, periods)
        outline_q = np.concatenate([position, cell.lo + cell.hi - position, position[:1]])
        outline_v = np.concatenate([step, -step, step[:1]])
        axes.plot(outline_q * cell.quantum, outline_v * cell.quantum * rate, color=colour, lw=1.3, label=label)
    _box(axes, (cell.lo * cell.quantum, cell.hi * cell.quantum), (-_speed(cell, rate), _speed(cell, rate)))
    axes.set(xlabel="position", ylabel="velocity [1/s]", title=f"{cell.name}: limits in red")
    figure.legend(*axes.get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=4, markerscale=4)
    return figure


def in_time(guard: Guardrails, i: int, trial: Trial) -> Figure:
    """Joint ``i``: position, velocity and acceleration over time, proposed and sent, with their limits."""
    cell, rate = guard.lattice[i], guard.rate_hz
    time_s = np.arange(len(trial.sent)) / rate
    speed, acceleration = _speed(cell, rate), cell.h * cell.quantum * rate**2
    ranges = ((cell.lo * cell.quantum, cell.hi * cell.quantum), (-speed, speed), (-acceleration, acceleration))
    figure = page.figure(7.5)
    labels = ("position", "velocity [1/s]", "acceleration [1/s²]")
    for order, (axes, (low, high), label) in enumerate(
        zip(figure.subplots(3, 1, sharex=True), ranges, labels, strict=True)
    ):
        for values, colour, width, name in (
            (trial.proposed[:, i], _BEFORE, 0.5, "proposed"),
            (trial.sent[:, i] * cell.quantum, _AFTER, 1.0, "sent"),
        ):
            axes.plot(time_s[order:], np.diff(values, order) * rate**order, color=colour, lw=width, label=name)
        for limit in (low, high):
            axes.axhline(limit, color=_LIMIT, lw=1)
        margin = (high - low) / 8
        axes.set(ylim=(low - margin, high + margin), ylabel=label)
        axes.margins(x=0)
        ends = [at for at, _ in trial.attacks[1:]] + [len(trial.sent)]
        for (at, name), end in zip(trial.attacks, ends, strict=True):
            axes.axvline(at / rate, color="0.3", lw=0.5, ls=":")
            if order == 0 and end - at > len(trial.sent) / 40:  # else too short to write on
                axes.text(at / rate, high + margin * 1.1, f" {name}", fontsize=6, rotation=20, va="bottom")
    figure.axes[-1].set_xlabel("time [s]")
    figure.axes[0].legend(fontsize=8, loc="upper right")
    return figure


def pair_plane(
    guard: Guardrails,
    pair: tuple[int, int],
    trial: Trial,
    rows: Sequence[Row] = (),
    quadratics: Sequence[Quadratic] = (),
) -> Figure:
    """Joints ``pair`` against each other: their box, the sent trajectory, and the boundary of every rule on positions
    where the other joints stand as they began. Rules on velocities and accelerations have no place in this plane."""
    figure = page.figure(5.5)
    axes = figure.subplots()
    cells = [guard.lattice[i] for i in pair]
    x, y = (trial.sent[:, i] * guard.quanta[i] for i in pair)
    axes.plot(*(trial.proposed[:, i] for i in pair), ".", ms=2, color=_BEFORE, label="proposed, where in the picture")
    axes.plot(x, y, color=_AFTER, lw=0.8, label="sent")
    box = [(cell.lo * cell.quantum, cell.hi * cell.quantum) for cell in cells]
    _box(axes, box[0], box[1])
    grid = np.meshgrid(*(np.linspace(low, high, 200) for low, high in box))
    point = np.broadcast_to(trial.sent[0] * guard.quanta, (200, 200, len(guard.joints))).copy()
    for i, values in zip(pair, grid, strict=True):
        point[..., i] = values
    excess: list[tuple[str, F64]] = [(row.name, point @ row.a - row.b) for row in rows if row.on == "position"]
    excess += [
        (rule.name, np.einsum("...i,ij,...j", point, rule.q, point) + point @ rule.c - rule.r)
        for rule in quadratics
        if rule.on == "position"
    ]
    for number, (name, value) in enumerate(excess):
        if value.min() < 0 < value.max():  # else its boundary does not cross the box
            colour = f"C{number % 10}"
            axes.contour(*grid, value, levels=[0.0], colors=[colour], linewidths=1.4)
            axes.contourf(*grid, value, levels=[0.0, np.inf], colors=[colour], alpha=0.12)
            axes.plot([], [], color=colour, label=name)
    axes.set(xlabel=cells[0].name, ylabel=cells[1].name, title="range in red; forbidden by coupled rules: shaded")
    figure.legend(*axes.get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=4, markerscale=4)
    return figure


def _speed(cell: LatticeLimits, rate_hz: float) -> float:
    return cell.w * cell.quantum * rate_hz


def _box(axes: Any, x: tuple[float, float], y: tuple[float, float]) -> None:
    """Draw the limits, and look a little beyond them."""
    axes.plot([x[0], x[1], x[1], x[0], x[0]], [y[0], y[0], y[1], y[1], y[0]], color=_LIMIT, lw=1.2)
    axes.set(xlim=_wider(x), ylim=_wider(y))


def _wider(span: tuple[float, float]) -> tuple[float, float]:
    margin = (span[1] - span[0]) / 12
    return span[0] - margin, span[1] + margin


def _index(guard: Guardrails, joint: str) -> int:
    if joint not in guard.joints:
        raise GuardrailError(f"{guard.where}: joint: found {joint!r}; expected one of {list(guard.joints)}")
    return guard.joints.index(joint)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m kizzasi_edge.guardrails.explore", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("file", type=Path, help="the guard file (*.guard.toml)")
    parser.add_argument("--joint", help="default: the first")
    parser.add_argument("--pair", nargs=2, metavar=("J1", "J2"), help="default: the first two")
    parser.add_argument("--seed", type=int, default=1, help="of the saboteur")
    parser.add_argument("--out", type=Path, default=Path("explore.html"))
    options = parser.parse_args(argv)
    try:
        pair = None if options.pair is None else (options.pair[0], options.pair[1])
        write_page(Guardrails.load(options.file), options.out, options.joint, pair, options.seed)
    except KizzasiError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{options.out}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
