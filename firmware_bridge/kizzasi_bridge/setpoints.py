"""Setpoints in SI, whatever the channels are: positions, velocities (sent as steps of a period) or torques."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .calibration import Calibration
from .schema import Schema

__all__ = ["setpoint_units", "setpoints_si"]


def setpoints_si(schema: Schema, raw: NDArray[np.int32], period_us: int) -> NDArray[np.float64]:
    """int32 (…, n) of COMMAND or STATE → float64 (…, n); a velocity is NaN while no period is committed (0)."""
    calibration = Calibration(schema.channels)
    rate_hz = 1e6 / period_us if period_us else np.nan
    velocity = [channel.type == "velocity" for channel in schema.channels]
    return np.where(velocity, calibration.delta_to_si(raw) * rate_hz, calibration.to_si(raw))


def setpoint_units(schema: Schema) -> list[str]:
    """The unit of each channel's setpoint."""
    return [f"{channel.unit}/s" if channel.type == "velocity" else channel.unit for channel in schema.channels]
