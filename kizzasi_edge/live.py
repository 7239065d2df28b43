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
    view.add_row("ticks", _counts({key: status.get(key, 0) for key in ("ticks", "armed_ticks", "overruns", "silent")}))
    refused = {key: status.get(key, 0) for key in ("bad_inputs", "bad_outputs")}
    view.add_row("refused", _counts({**{f"stale {k}": n for k, n in _part(status, "stale").items()}, **refused}))
    view.add_row("guard", _counts(_part(status, "interventions")) or "no intervention")
    view.add_row("node", _counts(_part(device, "node")))
    view.add_row("link", _counts({key: n for key, n in _part(device, "counters").items() if n}))
    for text in [*(status.get("refused") or []), device.get("diagnosis")]:
        if text:
            view.add_row("note", escape(str(text)))
    return view


def _part(mapping: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = mapping.get(key) or {}
    return found


def _counts(counts: Mapping[str, Any]) -> str:
    return escape(", ".join(f"{name} {count}" for name, count in counts.items()))
