"""The live table of a run, drawn from what its control socket says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

_COLOURS = {
    "ARMED": "bold green",
    "READY": "cyan",
    "DRY_RUN": "cyan",
    "FAILSAFE": "bold red",
    "ESTOP": "bold red",
}


def table(status: Mapping[str, Any], title: str = "") -> Table:
    """One screen of a robot's status."""
    view = Table(title=title or str(status.get("robot", "")), show_header=False, min_width=60)
    view.add_column(style="dim")
    view.add_column()
    state, device = str(status.get("state", "?")), _part(status, "device")
    style = _COLOURS.get(state, "yellow")
    view.add_row("state", f"[{style}]{state}[/]  fault {device.get('fault', '–')}  session {device.get('session', 0)}")
    ticks = ("ticks", "armed_ticks", "overruns", "silent", "overtaken")
    view.add_row("ticks", _counts({key: status.get(key, 0) for key in ticks}))
    refused = {key: status.get(key, 0) for key in ("bad_inputs", "bad_outputs", "guard_exceptions", "hangs")}
    view.add_row("refused", _counts({**{f"stale {k}": n for k, n in _part(status, "stale").items()}, **refused}))
    guard = _part(status, "guard")
    now, cause = str(guard.get("state", "?")), ", ".join(guard.get("cause") or ())
    style = "green" if now == "NOMINAL" else "bold red" if now in ("STOPPED", "ESTOP") else "yellow"
    view.add_row("guard", f"[{style}]{now}[/] {escape(cause)}")
    view.add_row("rules", _counts(_part(status, "interventions")) or "no intervention")
    for label, counts in (("events", _part(guard, "events")), ("relaxed", _part(status, "relaxed"))):
        if counts:
            view.add_row(label, _counts(counts))
    if deadlines := _part(guard, "remaining"):
        view.add_row("deadlines", escape(", ".join(f"{name} {left:.2f} s" for name, left in deadlines.items())))
    if violated := guard.get("violated"):
        view.add_row("violated", f"[bold red]{escape(', '.join(violated))}[/]")
    view.add_row("node", _counts(_part(device, "node")))
    view.add_row("link", _counts({key: n for key, n in _part(device, "counters").items() if n}))
    for text in [*(status.get("refused") or []), device.get("diagnosis"), status.get("last_error")]:
        if text:
            view.add_row("note", escape(str(text)))
    return view


def _part(mapping: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = mapping.get(key) or {}
    return found


def _counts(counts: Mapping[str, Any]) -> str:
    return escape(", ".join(f"{name} {count}" for name, count in counts.items()))
