"""The screen of ``kizzasi-bridge monitor``: what a technician at the robot looks at. Read-only."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from .advice import FAULTS, RESETS, STATES
from .blackbox import BlackBox
from .channel_table import channel_table, other_sensors
from .link import Link
from .protocol import Fault, Hello, NodeState, ResetCause
from .request import code_name
from .schema import Schema
from .serial_port import port_findings
from .states import State

__all__ = ["latency", "screen"]

_STYLES = {
    NodeState.INIT: "yellow",
    NodeState.READY: "bold cyan",
    NodeState.ARMED: "bold green",
    NodeState.FAILSAFE: "bold red",
    NodeState.ESTOP: "bold white on red",
}
_STALE_S = 0.5
_TROUBLE = (
    "bad_crc", "bad_cobs", "too_long", "runt", "bad_payload", "unknown_rx", "lost_states", "disconnects",
    "reconnects", "device_resets", "schema_changes", "baud_suspects",
)  # fmt: skip


def screen(link: Link, box: BlackBox, width: int) -> RenderableType:
    """The whole screen as of now, at most ``width`` columns wide."""
    hello, schema, state, past = link.hello, link.schema, link.latest, link.history()["applied"]
    parts: list[RenderableType] = [_board(hello, schema)]
    if state is None:
        parts.append(Text("no STATE yet", style="yellow"))
    else:
        parts += [_status(state, link.connected), _next_step(state)]
    if link.connected:
        parts.append(_traffic(link))
    if state is not None and len(state.applied) == past.shape[1] == len(schema.channels):
        # else: of the board before this one
        parts.append(channel_table(schema, state, hello.period_us, past, width - 4))
        parts.append(other_sensors(schema, state))
    if len(box.rows):
        parts.append(_last_fault(box.rows, box.at))
    if state is not None:
        parts.append(_counts("board", _node_counters(state)))
    counters = link.counters
    parts.append(_counts("link", {name: counters[name] for name in _TROUBLE}))
    trouble = [link.diagnosis] if link.diagnosis is not None else []
    if link.connected:
        trouble += [*link.line.findings, *(text for _, text in port_findings(link.port))]
    parts += [Text(text, style="bold red") for text in trouble]
    parts += [Text(f"log {log.level}: {log.text}", style="dim") for log in link.logs[-5:]]
    return Panel(Group(*parts), title=f"{link.port}", title_align="left")


def latency(link: Link) -> str:
    """How long the board takes to answer, and how its clock runs, in words."""
    clock = link.clock
    if clock is None:
        return "no answer to TIME_REQ yet"
    drift = "" if clock.drift_ppm is None else f", its clock runs {clock.drift_ppm:+.0f} ppm"
    return f"answers in {clock.rtt_us / 1e3:.1f} ms (tick {link.schema.tick_us / 1e3:g} ms){drift}"


def _board(hello: Hello, schema: Schema) -> Text:
    limits = f"{hello.limits_hash:#010x}" if hello.limits_hash else "none"
    why = RESETS.get(hello.reset_cause, "")
    text = Text(
        f"board {schema.board}  boot {hello.boot_id:#010x}  schema {hello.schema_hash:#010x}  limits {limits}\n",
        style="dim",
    )
    style = "dim" if hello.reset_cause == ResetCause.POWER_ON else "yellow"
    return text.append(f"last reset: {code_name(ResetCause, hello.reset_cause)}, {why}", style=style)


def _status(state: State, connected: bool) -> Text:
    text = Text()
    text.append(f" {code_name(NodeState, state.state)} ", style=_style(state.state))
    if state.fault:
        text.append(f"  fault {code_name(Fault, state.fault)}", style="bold red")
    armed = state.state == NodeState.ARMED
    text.append(f"  session {state.session:#010x}" if armed else "  no session")
    text.append(f"  nonce {state.nonce:#010x}  t {state.t_us / 1e6:.3f} s", style="dim")
    age_s = (time.monotonic_ns() - state.recv_ns) * 1e-9
    if not connected:
        text.append("  DISCONNECTED", style="bold red")
    if age_s > _STALE_S:
        text.append(f"  last heard {age_s:.1f} s ago", style="bold red")
    return text


def _style(state: int) -> str:
    return next((style for known, style in _STYLES.items() if known == state), "magenta")


def _next_step(state: State) -> Text:
    if state.fault:
        return Text(FAULTS.get(state.fault, "a fault that this host does not know; update it"), style="bold")
    return Text(STATES.get(state.state, "a state that this host does not know; update it"), style="dim")


def _traffic(link: Link) -> Text:
    line, period_us = link.line, link.hello.period_us
    expected = f" of {1e6 / period_us:.0f}" if period_us else " (no limits committed: 100)"
    return Text(f"STATE {line.states_hz:.0f} Hz{expected}, {line.bytes_s / 1e3:.1f} kB/s; {latency(link)}")


def _last_fault(rows: NDArray[np.void], at: int) -> Text:
    """When, which, and what the board did until then."""
    row, before = rows[at], rows[at - 1]
    ago_s = (time.monotonic_ns() - int(row["recv_ns"])) * 1e-9
    when = time.strftime("%H:%M:%S", time.localtime(time.time() - ago_s))
    text = f"last fault {when}, {ago_s:.1f} s ago: {code_name(Fault, row['fault'])} in "
    text += f"{code_name(NodeState, before['state'])}, board t {row['t_us'] / 1e6:.3f} s"
    second = rows[np.searchsorted(rows["recv_ns"], row["recv_ns"] - 1_000_000_000) : at + 1]
    changed = []
    for name in ("misses", "stale", "ignored", "rx_errors"):
        more = (int(second[name][-1]) - int(second[name][0])) & 0xFFFF
        if more:
            changed.append(f"{name} +{more}")
    return Text(f"{text}; in the second before: {', '.join(changed) or 'nothing counted'}", style="yellow")


def _node_counters(state: State) -> dict[str, int]:
    return {
        "misses": state.misses,
        "stale": state.stale,
        "ignored": state.ignored,
        "rx_errors": state.rx_errors,
    }


def _counts(title: str, counts: dict[str, int]) -> Text:
    text = Text(f"{title}: ", style="dim")
    shown = [(name, count) for name, count in counts.items() if count]
    if not shown:
        text.append("nothing to report", style="green")
    for name, count in shown:
        text.append(f"{name} {count}  ", style="yellow")
    return text
