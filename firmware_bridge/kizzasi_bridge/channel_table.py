"""The monitor's table of channels, as wide as the terminal allows: what matters most comes first and goes last."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from .calibration import Calibration
from .schema import Schema
from .setpoints import setpoint_units, setpoints_si
from .states import State

__all__ = ["channel_table", "other_sensors", "sparkline"]

_BARS = "▁▂▃▄▅▆▇█"
_GAP = 2
_NAME = 28
_COLUMNS = {  # and the narrowest that each may be
    "applied": 9, "measured": 9, "error": 9, "guard": 7, "unit": 5, "speed /s": 9, "min": 9, "max": 9, "recent": 12,
}  # fmt: skip


def channel_table(schema: Schema, state: State, period_us: int, past: NDArray[np.int32], width: int) -> Table:
    """One row for each channel: setpoint, its speed, what the sensor says, how far apart they are, and where the
    setpoints in ``past`` (rows, n), raw, oldest first, have been."""
    rate_hz = 1e6 / period_us if period_us else 0.0
    applied = setpoints_si(schema, state.applied, period_us)
    moved = setpoints_si(schema, past, period_us) if len(past) else applied[None]
    speed = Calibration(schema.channels).delta_to_si(state.step) * rate_hz
    measured = Calibration(schema.sensors).to_si(state.sensors)
    units = setpoint_units(schema)
    source = {sensor.channel: i for i, sensor in enumerate(schema.sensors) if sensor.channel is not None}
    longest = max(len(channel.name) for channel in schema.channels)
    name_width = max(1, min(longest, _NAME, width - _COLUMNS["applied"] - 2 * _GAP))
    shown, bars = _fitting(width - name_width - _GAP)
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    table.add_column("channel", no_wrap=True, overflow="ellipsis", max_width=name_width)
    for title in shown:
        justify = "left" if title in ("unit", "guard", "recent") else "right"
        table.add_column(title, justify=justify, no_wrap=True, min_width=_COLUMNS[title])  # type: ignore[arg-type]
    for i, channel in enumerate(schema.channels):
        value = float(measured[source[i]]) if i in source else math.nan
        position = channel.type == "position"
        cells = {
            "applied": f"{applied[i]:+.4f}",
            "speed /s": f"{speed[i]:+.3f}" if position else "",
            "measured": f"{value:+.4f}",
            "error": f"{applied[i] - value:+.4f}" if position else "",
            "unit": units[i],
            "guard": Text("clamped", style="yellow") if state.clamp_mask >> i & 1 else "",
            "min": f"{moved[:, i].min():+.4f}",
            "max": f"{moved[:, i].max():+.4f}",
            "recent": sparkline(moved[:, i], bars),
        }
        table.add_row(channel.name, *(cells[title] for title in shown))
    return table


def _fitting(width: int) -> tuple[list[str], int]:
    """The columns that fit into ``width``, in order, and how many bars there is room for."""
    shown: list[str] = []
    for title, needs in _COLUMNS.items():
        if width < needs + _GAP:
            break
        width -= needs + _GAP
        shown.append(title)
    return shown, _COLUMNS["recent"] + max(0, width)


def sparkline(values: NDArray[np.float64], width: int) -> str:
    """``values``, oldest first, as at most ``width`` bars between their least and their greatest."""
    low, high = values.min(), values.max()
    pieces = np.array_split(values, min(width, len(values)))
    if high == low:
        return _BARS[0] * len(pieces)
    levels = [(piece.mean() - low) / (high - low) for piece in pieces]
    return "".join(_BARS[min(int(level * len(_BARS)), len(_BARS) - 1)] for level in levels)


def other_sensors(schema: Schema, state: State) -> Text:
    """The sensors that measure no channel, one after the other."""
    values = Calibration(schema.sensors).to_si(state.sensors)
    cells = [
        f"{sensor.name} {values[i]:+.4f} {sensor.unit}"
        for i, sensor in enumerate(schema.sensors)
        if sensor.channel is None
    ]
    return Text("   ".join(cells))
