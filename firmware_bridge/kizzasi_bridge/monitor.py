"""The screen of ``kizzasi-bridge monitor``: what a technician at the robot looks at. Read-only."""

from __future__ import annotations

import math
import time
from collections import deque

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from .calibration import Calibration
from .link import Link
from .protocol import Fault, Hello, NodeState, ResetCause
from .request import code_name
from .schema import Schema
from .states import State

__all__ = ["Monitor"]

_STYLES = {
    NodeState.INIT: "yellow",
    NodeState.READY: "bold cyan",
    NodeState.ARMED: "bold green",
    NodeState.FAILSAFE: "bold red",
    NodeState.ESTOP: "bold white on red",
}
_RATE_WINDOW_S = 2.0
_STALE_S = 0.5
_TROUBLE = (
    "bad_crc", "bad_cobs", "too_long", "runt", "bad_payload", "unknown_rx", "lost_states", "disconnects",
    "reconnects", "device_resets", "schema_changes", "baud_suspects",
)  # fmt: skip


class Monitor:
    """Renders a Link; a rich renderable is made by each call of :meth:`screen`."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._samples: deque[tuple[float, int, int]] = deque()  # time, STATEs, bytes

    def screen(self) -> RenderableType:
        """The whole screen as of now."""
        link = self._link
        counters = link.counters
        states_hz, bytes_s = self._rates(counters)
        parts: list[RenderableType] = [self._line(link.hello, link.schema)]
        state = link.latest
        if state is None:
            parts.append(Text("no STATE yet", style="yellow"))
        else:
            parts.append(_status(state, link.connected))
            period_us = link.hello.period_us
            expected = f" of {1e6 / period_us:.0f}" if period_us else " (no limits committed: 100)"
            parts.append(Text(f"STATE {states_hz:.0f} Hz{expected}, {bytes_s / 1e3:.1f} kB/s"))
            if len(state.applied) == len(link.schema.channels):  # else: of the board before this one
                parts.append(_channels(link.schema, state, period_us))
                parts.append(_other_sensors(link.schema, state))
            parts.append(_counts("board", _node_counters(state)))
        parts.append(_counts("link", {name: counters[name] for name in _TROUBLE}))
        if link.diagnosis is not None:
            parts.append(Text(link.diagnosis, style="bold red"))
        parts += [Text(f"log {log.level}: {log.text}", style="dim") for log in link.logs[-5:]]
        return Panel(Group(*parts), title=f"{link.port}", title_align="left")

    def _rates(self, counters: dict[str, int]) -> tuple[float, float]:
        """STATEs and bytes per second over the last two seconds."""
        samples = self._samples
        samples.append((time.monotonic(), counters["states_rx"], counters["bytes_rx"]))
        while samples[-1][0] - samples[0][0] > _RATE_WINDOW_S and len(samples) > 2:
            samples.popleft()
        elapsed = samples[-1][0] - samples[0][0]
        if elapsed <= 0:
            return 0.0, 0.0
        return (samples[-1][1] - samples[0][1]) / elapsed, (samples[-1][2] - samples[0][2]) / elapsed

    def _line(self, hello: Hello, schema: Schema) -> Text:
        limits = f"{hello.limits_hash:#010x}" if hello.limits_hash else "none"
        return Text(
            f"board {schema.board}  boot {hello.boot_id:#010x} ({code_name(ResetCause, hello.reset_cause)})  "
            f"schema {hello.schema_hash:#010x}  limits {limits}",
            style="dim",
        )


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


def _channels(schema: Schema, state: State, period_us: int) -> Table:
    """One row for each channel: setpoint, its speed, what the sensor says, and how far apart they are."""
    channels, sensors = Calibration(schema.channels), Calibration(schema.sensors)
    applied = channels.to_si(state.applied)
    speed = channels.delta_to_si(state.step) * (1e6 / period_us if period_us else 0.0)
    measured = sensors.to_si(state.sensors)
    source = {sensor.channel: i for i, sensor in enumerate(schema.sensors) if sensor.channel is not None}
    table = Table(box=None, pad_edge=False)
    table.add_column("channel")
    for title in ("applied", "speed /s", "measured", "error"):
        table.add_column(title, justify="right", min_width=10)
    table.add_column("unit")
    table.add_column("guard")
    for i, name in enumerate(channels.names):
        value = float(measured[source[i]]) if i in source else math.nan
        table.add_row(
            name,
            f"{applied[i]:+.4f}",
            f"{speed[i]:+.3f}",
            f"{value:+.4f}",
            f"{applied[i] - value:+.4f}",
            channels.units[i],
            Text("clamped", style="yellow") if state.clamp_mask >> i & 1 else "",
        )
    return table


def _other_sensors(schema: Schema, state: State) -> Table:
    """The sensors that measure no channel, several to a line."""
    sensors = Calibration(schema.sensors)
    values = sensors.to_si(state.sensors)
    table = Table(box=None, pad_edge=False, show_header=False)
    cells = [
        f"{sensor.name} {values[i]:+.4f} {sensor.unit}"
        for i, sensor in enumerate(schema.sensors)
        if sensor.channel is None
    ]
    for i in range(0, len(cells), 3):
        table.add_row(*cells[i : i + 3])
    return table


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
