"""The figures of the explore page (explore.py)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from kizzasi_bridge._kz_core import lib

from kizzasi_edge import page
from kizzasi_edge.guardrails.explore_trial import F64, I64, Trial, excess
from kizzasi_edge.guardrails.faults import State
from kizzasi_edge.guardrails.lattice import LatticeLimits
from kizzasi_edge.guardrails.rows import Quadratic, Row
from kizzasi_edge.guardrails.stack import Guardrails

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BEFORE, _AFTER, _LIMIT, _VIABLE, _GRANTED = "0.75", "tab:green", "tab:red", "tab:orange", "tab:blue"
_STATES = {
    State.DERATED: "gold",
    State.FALLBACK: "tab:purple",
    State.HOLD: "tab:cyan",
    State.BRAKE: "tab:blue",
    State.REARM: "tab:olive",
    State.STOPPED: "tab:brown",
    State.ESTOP: "tab:red",
}
_LEGEND: dict[str, Any] = {"fontsize": 8, "loc": "outside lower center", "ncols": 4, "markerscale": 4}


def viable_boundary(cell: LatticeLimits, coast: int, points: int = 400) -> tuple[I64, I64]:
    """Upper boundary of the viable set: positions and the largest steps that may lead to them, in quanta.

    From each position the largest step that still leaves room for ``coast`` periods at that step and for braking
    (kz_reach), within the velocity limit; by symmetry (lo + hi − q, −v) is the lower boundary.
    """
    start = np.unique(np.linspace(cell.lo, cell.hi, points).round().astype(np.int64))
    step = np.array([min(lib.kz_reach(int(cell.hi - q), cell.h, coast), cell.w) for q in start], np.int64)
    return start + step, step


def phase_plane(guard: Guardrails, i: int, trial: Trial) -> Figure:
    """Joint ``i``, which has a range: positions against the velocities that led to them."""
    cell, unit, rate = trial.motion.cells[i], float(trial.motion.units[i]), guard.rate_hz
    figure = page.figure(5.2)
    axes = figure.subplots()
    before = trial.proposed[:, i]
    axes.plot(before[1:], np.diff(before) * rate, ".", ms=2, color=_BEFORE, label="proposed, where in the picture")
    axes.plot(
        trial.sent[1:, i] * unit, np.diff(trial.sent[:, i]) * unit * rate, color=_AFTER, lw=0.8, label="sent", zorder=3
    )
    for periods, colour, label in (
        (0, _VIABLE, "viable set: can still brake inside the range"),
        (guard.miss_budget, _GRANTED, f"granted: with room for {guard.miss_budget} missed periods"),
    ):
        position, step = viable_boundary(cell, periods)
        outline_q = np.concatenate([position, cell.lo + cell.hi - position, position[:1]])
        outline_v = np.concatenate([step, -step, step[:1]])
        axes.plot(outline_q * unit, outline_v * unit * rate, color=colour, lw=1.3, label=label)
    speed = cell.w * unit * rate
    _box(axes, (cell.lo * unit, cell.hi * unit), (-speed, speed))
    axes.set(xlabel="position [rad]", ylabel="velocity [rad/s]", title=f"{cell.name}: limits in red")
    figure.legend(*axes.get_legend_handles_labels(), **_LEGEND)
    return figure


def in_time(guard: Guardrails, i: int, trial: Trial) -> Figure:
    """Joint ``i``: position, velocity, acceleration (and jerk, where it is limited) over time, proposed and sent, with
    their limits; the fault machine's states behind them."""
    cell, unit, rate = trial.motion.cells[i], float(trial.motion.units[i]), guard.rate_hz
    jerk, time_s = trial.motion.jerks[i], np.arange(len(trial.sent)) / rate
    bounds = [(cell.lo * unit, cell.hi * unit), *((-x, x) for x in (cell.w * unit * rate, cell.h * unit * rate**2))]
    bounds += [(-jerk * unit * rate**3, jerk * unit * rate**3)] if jerk else []
    labels = ("position [rad]", "velocity [rad/s]", "acceleration [rad/s²]", "jerk [rad/s³], soft")
    figure = page.figure(2.5 * len(bounds))
    every = figure.subplots(len(bounds), 1, sharex=True)
    for order, (axes, (low, high)) in enumerate(zip(every, bounds, strict=True)):
        for values, colour, width, name in (
            (trial.proposed[:, i], _BEFORE, 0.5, "proposed"),
            (trial.sent[:, i] * unit, _AFTER, 1.0, "sent"),
        ):
            axes.plot(time_s[order:], np.diff(values, order) * rate**order, color=colour, lw=width, label=name)
        if order or trial.motion.ranged[i]:
            axes.axhline(low, color=_LIMIT, lw=1)
            axes.axhline(high, color=_LIMIT, lw=1)
        else:  # no range: look where it went
            low, high = trial.sent[:, i].min() * unit, trial.sent[:, i].max() * unit
        margin = (high - low) / 8 or 1.0
        axes.set(ylim=(low - margin, high + margin), ylabel=labels[order])
        axes.margins(x=0)
        for state, first, last in _stretches(trial):
            axes.axvspan(first / rate, last / rate, color=_STATES[state], alpha=0.2, lw=0)
        ends = [at for at, _ in trial.attacks[1:]] + [len(trial.sent)]
        for (at, name), end in zip(trial.attacks, ends, strict=True):
            axes.axvline(at / rate, color="0.3", lw=0.5, ls=":")
            if order == 0 and end - at > len(trial.sent) / 40:  # else too short to write on
                axes.text(at / rate, high + margin * 1.1, f" {name}", fontsize=6, rotation=20, va="bottom")
    for state in dict.fromkeys(state for state, _, _ in _stretches(trial)):
        every[0].fill_between([], [], color=_STATES[state], alpha=0.2, label=state.name)
    every[-1].set_xlabel("time [s]")
    figure.legend(*every[0].get_legend_handles_labels(), **{**_LEGEND, "ncols": 9})
    return figure


def pair_plane(
    guard: Guardrails,
    pair: tuple[int, int],
    trial: Trial,
    rows: Sequence[Row] = (),
    quadratics: Sequence[Quadratic] = (),
) -> Figure:
    """Joints ``pair``, which have ranges, against each other: their box, the sent trajectory, and the boundary of every
    rule on positions where the other joints stand as they began. Rules on velocities and accelerations have no place
    in this plane."""
    figure = page.figure(5.5)
    axes = figure.subplots()
    cells, units = [trial.motion.cells[i] for i in pair], trial.motion.units
    axes.plot(*(trial.proposed[:, i] for i in pair), ".", ms=2, color=_BEFORE, label="proposed, where in the picture")
    axes.plot(*(trial.sent[:, i] * units[i] for i in pair), color=_AFTER, lw=0.8, label="sent")
    box = [(cell.lo * units[i], cell.hi * units[i]) for i, cell in zip(pair, cells, strict=True)]
    _box(axes, box[0], box[1])
    grid = np.meshgrid(*(np.linspace(low, high, 200) for low, high in box))
    point: F64 = np.broadcast_to(trial.sent[0] * units, (200, 200, len(guard.joints))).copy()
    for i, values in zip(pair, grid, strict=True):
        point[..., i] = values
    rules: list[Row | Quadratic] = [*rows, *quadratics]
    for number, rule in enumerate(rule for rule in rules if rule.on == "position"):
        value = excess(rule, point)
        if value.min() < 0 < value.max():  # else its boundary does not cross the box
            colour = f"C{number % 10}"
            axes.contour(*grid, value, levels=[0.0], colors=[colour], linewidths=1.4)
            axes.contourf(*grid, value, levels=[0.0, np.inf], colors=[colour], alpha=0.12)
            axes.plot([], [], color=colour, label=rule.name)
    axes.set(xlabel=f"{cells[0].name} [rad]", ylabel=f"{cells[1].name} [rad]")
    axes.set_title("range in red; forbidden by coupled rules: shaded")
    figure.legend(*axes.get_legend_handles_labels(), **_LEGEND)
    return figure


def _stretches(trial: Trial) -> Iterator[tuple[State, int, int]]:
    """Stretches of periods in one state that is drawn."""
    ends = [0, *(np.flatnonzero(np.diff(trial.states)) + 1).tolist(), len(trial.states)]
    for first, last in pairwise(ends):
        if (state := State(trial.states[first])) in _STATES:
            yield state, first, last


def _box(axes: Any, x: tuple[float, float], y: tuple[float, float]) -> None:
    """Draw the limits, and look a little beyond them."""
    axes.plot([x[0], x[1], x[1], x[0], x[0]], [y[0], y[0], y[1], y[1], y[0]], color=_LIMIT, lw=1.2)
    axes.set(xlim=_wider(x), ylim=_wider(y))


def _wider(span: tuple[float, float]) -> tuple[float, float]:
    margin = (span[1] - span[0]) / 12
    return span[0] - margin, span[1] + margin
