"""How a guard and the node in this process count the same commands: alike, for no drive or encoder has a say here."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kizzasi_bridge import protocol
from kizzasi_bridge.calibration import Calibration
from kizzasi_bridge.schema import CHANNEL_TYPES, Channel, Schema, Sensor
from kizzasi_edge.connectors.device_map import Session, channel_limits, is_endless, require_session
from kizzasi_edge.errors import ConfigError
from kizzasi_edge.guardrails import Guardrails
from kizzasi_edge.joints import SUFFIX

__all__ = ["HostMap"]

I32 = npt.NDArray[np.int32]

FINE = 2.0**-24
"""SI units of one count of a joint's position where commands are torques: below any sensor's noise."""
_I32_MAX, _WRAP = 2.0**31 - 1, 2.0**32
_SMALL = 2.0**60  # a sum of squares below it has no summand that an i32 does not hold


class HostMap:
    """``schema`` and ``limits`` of the node.

    Raises :class:`ConfigError` naming ``where``: no such commands, no such joints to damp.
    """

    def __init__(self, guard: Guardrails, rate_hz: float, session: Session, where: str) -> None:
        command = next((known for known in CHANNEL_TYPES if known == guard.command), None)
        if command is None:
            raise ConfigError(
                f"{where}: the guard {guard.where} commands {guard.command}; expected one of {CHANNEL_TYPES}"
            )
        require_session(guard, session, where)
        quanta = [cell.quantum for cell in guard.node]
        scales = {
            "position": quanta,
            "velocity": [quantum / rate_hz for quantum in quanta],  # what it makes in a period
            "torque": [FINE] * len(quanta),
        }[command]
        period_us = round(1e6 / rate_hz)
        channels = [
            Channel(f"{joint}{SUFFIX[command]}", scale=quantum if command == "torque" else scale, type=command)
            for joint, quantum, scale in zip(guard.joints, quanta, scales, strict=True)
        ]
        sensors = [
            Sensor(f"{joint}/position", scale=scale, channel=i)
            for i, (joint, scale) in enumerate(zip(guard.joints, scales, strict=True))
        ]
        self.schema = Schema("host", period_us, tuple(channels), tuple(sensors))
        self.limits = protocol.Limits(
            tuple(
                channel_limits(guard, i, scale, rate_hz, session, where, agree=True) for i, scale in enumerate(scales)
            ),
            period_us,
            guard.miss_budget,
            session.ttl_ms,
            session.arm_ttl_ms,
        )
        self._is_velocity = command == "velocity"
        self._commands = Calibration([Channel("", scale=quantum) for quantum in quanta])
        self._quanta = np.array(quanta)
        self._per_s = rate_hz if self._is_velocity else 1.0  # a velocity's position is rounded as the guard rounds it
        self._counts = np.array(quanta if self._is_velocity else scales)
        self._turns = np.array([command == "torque" or is_endless(cell) for cell in guard.node])

    def to_raw(self, values: npt.NDArray[np.float32]) -> I32:
        """What the guard sent ``(n,)``; what is not finite becomes INVALID, which ends a session."""
        raw: npt.NDArray[np.float64] = values / self._quanta
        np.rint(raw, out=raw)
        if raw.dot(raw) < _SMALL:  # as all that a guard sends; in a third of the time
            return raw.astype(np.int32)
        return self._commands.to_raw(values)

    def to_si(self, applied: I32) -> npt.NDArray[np.float32]:
        """What the node applied ``(n,)``, exactly."""
        sent: npt.NDArray[np.float32] = (applied * self._quanta).astype(np.float32)
        return sent

    def measured(self, position: npt.NDArray[np.float32]) -> I32:
        """What the node's sensors say of finite measured positions ``(n,)``; those of a joint that turns without end
        wrap."""
        exact = position.astype(np.float64) * self._per_s / self._counts
        counts = np.trunc(exact + np.copysign(0.5, exact))
        ends = np.clip(counts, -_I32_MAX, _I32_MAX)
        whole: npt.NDArray[np.int64] = np.where(self._turns, np.fmod(counts, _WRAP), ends).astype(np.int64)
        return whole.astype(np.int32)

    def reckon(self, sensors: I32, applied: I32, skipped: int) -> None:
        """Move ``sensors`` to where velocities have led in periods that nobody was there for; torques lead nowhere that
        is known, and positions are where they were told to be."""
        if self._is_velocity:
            sensors[:] = np.clip(sensors + applied * np.int64(skipped), -_I32_MAX, _I32_MAX)
