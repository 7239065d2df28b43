"""``report.html``: one page with the run's figures, self-contained."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kizzasi_edge import page

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_report(path: Path, result: Mapping[str, Any], data: Mapping[str, Any], guard_text: str) -> None:
    """Write the page. ``data`` holds the arrays that ``demo.arm`` collects. Raises :class:`MissingExtra`."""
    violations = {**result["violations"], **{f"sent {name}": n for name, n in result["sent_violations"].items()}}
    clean = not any(violations.values())
    verdict = "no limit was violated" if clean else "limits were VIOLATED"
    rows = [
        ("policy", f"{result['model']} at {result['rate_hz']:.2f} Hz, adversary: {result['adversary'] or 'none'}"),
        ("ticks", f"{result['ticks']} armed, {result['overruns']} overruns"),
        ("model step", _us(result["step_us"])),
        ("tick (STATE received → COMMAND written)", _us(result["tick_us"])),
        (
            "tracking RMSE",
            f"policy {1e3 * result['rmse_policy']:.2f} mrad, expert {1e3 * result['rmse_expert']:.2f} mrad",
        ),
        ("guard interventions", _counts(result["interventions"])),
        ("violations", _counts(violations)),
        (
            "margins",
            f"position {result['margins']['position']} rad, velocity scale {result['margins']['velocity_scale']}",
        ),
        ("link", _counts(result["link"])),
    ]
    figures = [
        ("Joint angles against limits", _joints(data)),
        ("Joint speeds against limits", _speeds(data)),
        ("Commands before and after the guard", _commands(data)),
        ("Step latency and tick jitter", _latency(data)),
    ]
    body = [
        page.head("kizzasi_edge: arm demo"),
        f"<h1>Arm demo: <span class={'ok' if clean else 'bad'}>{verdict}</span></h1><table>",
        *(f"<tr><th>{html.escape(name)}<td>{html.escape(text)}" for name, text in rows),
        "</table>",
        *(page.section(title, figure) for title, figure in figures),
        f"<h2>What the guard promises</h2><pre>{html.escape(guard_text)}</pre>",
        f"<h2>Result</h2><pre>{html.escape(json.dumps(result, indent=2))}</pre></html>",
    ]
    path.write_text("\n".join(body))


def _us(figures: Mapping[str, float]) -> str:
    return f"p50 {figures['p50']:.0f} µs, p99 {figures['p99']:.0f} µs, max {figures['max']:.0f} µs"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items() if count) or "none"


def _joints(data: Mapping[str, Any]) -> Figure:
    figure = page.figure(6.9)
    for i, (axes, name) in enumerate(zip(figure.subplots(3, 2, sharex=True).flat, data["joints"], strict=True)):
        axes.plot(data["plant_s"], data["targets"][:, i], color="0.75", lw=0.8, label="target")
        axes.plot(data["plant_s"], data["reference"][:, i], color="tab:orange", lw=0.9, label="expert's reference")
        axes.plot(data["plant_s"], data["q"][:, i], color="tab:blue", lw=0.9, label="joint")
        low, high = data["raw_lower"][i], data["raw_upper"][i]
        seen = data["q"][:, i]
        for limit in (low, high):
            axes.axhline(limit, color="tab:red", lw=1)
        # Show the limits only when the motion comes near them: else they would squeeze it to a line.
        if seen.min() > low / 2 and seen.max() < high / 2:
            axes.set_ylim(
                min(seen.min(), data["targets"][:, i].min()) - 0.2, max(seen.max(), data["targets"][:, i].max()) + 0.2
            )
        axes.set_title(f"{name}  (limits {low:+.2f} … {high:+.2f} rad)", fontsize=9)
        axes.set_ylabel("rad")
    figure.axes[0].legend(fontsize=7, loc="upper right")
    figure.axes[-1].set_xlabel("device time [s]")
    return figure


def _speeds(data: Mapping[str, Any]) -> Figure:
    figure = page.figure(2.6)
    axes = figure.subplots()
    axes.plot(data["plant_s"], data["qvel"], lw=0.7, label=data["joints"])
    limit = float(np.max(data["raw_velocity"]))
    for value in (-limit, limit):
        axes.axhline(value, color="tab:red", lw=1)
    axes.set(xlabel="device time [s]", ylabel="rad/s (measured in the plant)")
    axes.legend(fontsize=7, ncols=3, loc="upper right")
    return figure


def _commands(data: Mapping[str, Any]) -> Figure:
    figure = page.figure(5.2)
    top, bottom = figure.subplots(2, 1, sharex=True)
    joint = int(np.argmax(np.nan_to_num(data["change"], posinf=0).sum(axis=0)))
    proposal, sent, time_s = data["proposal"][:, joint], data["sent"][:, joint], data["gateway_s"]
    finite = np.where(np.isfinite(proposal), proposal, np.nan)
    top.plot(time_s, finite, color="tab:gray", lw=0.7, label="before (model)")
    top.plot(time_s, sent, color="tab:green", lw=1.0, label="after (sent)")
    top.set(ylabel="rad", title=f"{data['joints'][joint]}: the joint the guard changed most")
    top.legend(fontsize=8, loc="upper right")
    for bit, name, colour in (
        (1, "position", "tab:red"),
        (2, "velocity", "tab:purple"),
        (4, "acceleration", "tab:blue"),
        (16, "non-finite", "k"),
    ):
        active = np.flatnonzero(((data["rules"] & bit) != 0).any(axis=1))
        bottom.plot(time_s[active], np.full(len(active), name), "|", color=colour, ms=9)
    bottom.set(xlabel="time [s]", title="ticks at which a rule shaped the command")
    return figure


def _latency(data: Mapping[str, Any]) -> Figure:
    figure = page.figure(4.8)
    axes: dict[str, Any] = figure.subplot_mosaic([["step", "tick"], ["time", "time"]])
    _histogram(axes["step"], data["step_us"], "model step [µs]")
    _histogram(axes["tick"], data["tick_us"], "STATE received → COMMAND written [µs]")
    time_s, jitter = data["gateway_s"], axes["time"]
    jitter.plot(time_s, data["tick_us"], ".", ms=1.5, color="tab:blue", label="tick")
    jitter.plot(time_s, data["late_us"], ".", ms=1.5, color="tab:orange", label="of it: before the tick started")
    jitter.set(xlabel="time [s]", ylabel="µs", yscale="log")
    jitter.legend(fontsize=8, markerscale=5, loc="upper right")
    return figure


def _histogram(axes: Any, values: npt.NDArray[np.float64], label: str) -> None:
    axes.hist(values, bins=np.geomspace(max(values.min(), 1), values.max() + 1, 80), color="tab:blue")
    axes.set(xscale="log", yscale="log", xlabel=label, ylabel="ticks")
