"""How a guard and a serial device count the same commands: order, sign, quanta, and the limits uploaded from the guard.

The guard's integers are the device's, but for its zero, and for its sign where the raw count grows against the joint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from kizzasi_bridge import protocol
from kizzasi_bridge.calibration import Calibration
from kizzasi_bridge.schema import Channel, Schema
from kizzasi_edge.errors import ConfigError
from kizzasi_edge.guardrails.lattice import RAW_MAX, LatticeLimits
from kizzasi_edge.joints import SUFFIX

if TYPE_CHECKING:
    from kizzasi_bridge.states import State
    from kizzasi_edge.guardrails import Guardrails

__all__ = ["DeviceMap", "Session", "channel_limits", "device_map", "is_endless", "require_session"]

I32 = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Session:
    """What a device is told beside the guard's limits. ``safe`` [rad] and ``damping`` [N·m·s/rad] by joint."""

    ttl_ms: int
    arm_ttl_ms: int
    stop: protocol.StopCategory
    safe: Mapping[str, float]
    damping: Mapping[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class DeviceMap:
    """``limits``: to upload. ``order``: the guard's joint of each of the device's channels."""

    limits: protocol.Limits
    order: npt.NDArray[np.intp]
    _commands: Calibration
    _sign: I32
    _zero: I32

    def to_raw(self, values: npt.NDArray[np.float32]) -> I32:
        """What the guard sent ``(n,)``, SI units in its order, as the device counts, in its order."""
        return self._commands.to_raw(values[self.order])

    def motion(self, state: State) -> tuple[I32, I32]:
        """What the device applied last and the step that led there ``(n,)``, as the guard counts."""
        applied, step = np.empty_like(self._zero), np.empty_like(self._zero)
        applied[self.order] = (state.applied - self._zero) * self._sign
        step[self.order] = state.step * self._sign
        return applied, step


def device_map(guard: Guardrails, schema: Schema, rate_hz: float, session: Session, where: str) -> DeviceMap:
    """Raises :class:`ConfigError` naming ``where`` (the port), what the device counts in and what the guard does."""
    for channel in schema.channels:
        if channel.type != guard.command:
            raise ConfigError(
                f"{where}: channel {channel.name!r} takes a {channel.type}; the guard {guard.where} commands "
                f"{guard.command} ([guard] command)"
            )
    suffix = SUFFIX[guard.command]
    joints = [channel.name.removesuffix(suffix) for channel in schema.channels]
    if sorted(joints) != sorted(guard.joints):
        raise ConfigError(f"{where}: the device drives {joints}; the guard {guard.where} guards {list(guard.joints)}")
    require_session(guard, session, where)
    period_us = 1e6 / rate_hz
    if period_us != int(period_us) or period_us % schema.tick_us:
        raise ConfigError(
            f"[loop] rate_hz: found {rate_hz:g}; the device {where} needs a period of whole ticks of "
            f"{schema.tick_us} µs, this one is {period_us:g} µs"
        )
    order = [guard.joints.index(joint) for joint in joints]
    rows = [
        _channel(guard, index, channel, schema.sensors[at].scale, rate_hz, session, where)
        for at, (channel, index) in enumerate(zip(schema.channels, order, strict=True))
    ]
    positions = guard.command == "position"
    counts = [
        channel if guard.command != "velocity" else replace(channel, zero=0, scale=channel.scale * rate_hz)
        for channel in schema.channels
    ]
    return DeviceMap(
        protocol.Limits(tuple(rows), int(period_us), guard.miss_budget, session.ttl_ms, session.arm_ttl_ms),
        np.array(order),
        Calibration(counts),
        np.array([_sign(channel) for channel in schema.channels], np.int32),
        np.array([channel.zero if positions else 0 for channel in schema.channels], np.int32),
    )


def require_session(guard: Guardrails, session: Session, where: str) -> None:
    """Raises :class:`ConfigError` for a joint that the guard does not have, and where its commands know no such end."""
    for key, table in (("goto_safe", session.safe), ("damping", session.damping)):
        if unknown := set(table) - set(guard.joints):
            raise ConfigError(f"{where}: {key}: found {sorted(unknown)}; the device drives {list(guard.joints)}")
    if session.safe and guard.command != "position":
        raise ConfigError(f"{where}: goto_safe: the guard {guard.where} commands {guard.command}; expected position")
    if session.damping and guard.command != "torque":
        raise ConfigError(f"{where}: damping: the guard {guard.where} commands {guard.command}; expected torque")


def channel_limits(
    guard: Guardrails, index: int, sensor_scale: float, rate_hz: float, session: Session, where: str, *, agree: bool
) -> protocol.ChannelLimits:
    """What a node is told to keep of one of the guard's joints, in the guard's integers; ``sensor_scale``: SI units of
    one count of its sensor; ``agree``: it counts in the direction of the commands. Raises :class:`ConfigError`."""
    cell = guard.node[index]
    limits = protocol.ChannelLimits(cell.lo, cell.hi, cell.w, cell.h, stop_category=session.stop)
    if guard.command != "torque":
        return limits
    moved = abs(sensor_scale) * rate_hz  # rad/s of one quantum of measured motion in a period
    rest = max(1, int(guard.limits[index].velocity / 8 / moved))  # a torque's h is the speed that counts as rest
    kd = _damping(session, guard.joints[index], moved / cell.quantum, agree, where)
    return replace(limits, h=rest, kd=kd)


def _channel(
    guard: Guardrails,
    index: int,
    channel: Channel,
    sensor_scale: float,
    rate_hz: float,
    session: Session,
    where: str,
) -> protocol.ChannelLimits:
    """One channel's limits in the device's raw integers. Raises :class:`ConfigError`."""
    joint, cell = guard.joints[index], guard.node[index]
    quantum = abs(channel.scale) * (rate_hz if guard.command == "velocity" else 1.0)
    if cell.quantum != quantum:
        raise ConfigError(
            f"{where}: channel {channel.name!r} counts in quanta of {quantum!r}, the guard in {cell.quantum!r}; "
            f"set [joints] quantum in {guard.where}"
        )
    low, high = _range(cell, channel)
    agree = (channel.scale > 0) == (sensor_scale > 0)
    limits = channel_limits(guard, index, sensor_scale, rate_hz, session, where, agree=agree)
    limits = replace(limits, lo=low, hi=high)
    if joint not in session.safe:
        return limits
    safe = round(session.safe[joint] / channel.scale) + channel.zero
    if not low <= safe <= high:
        raise ConfigError(
            f"{where}: goto_safe of {joint!r}: found {session.safe[joint]:g}; expected {cell.lo * cell.quantum:g} "
            f"to {cell.hi * cell.quantum:g}, the guard's range"
        )
    return replace(limits, safe=safe)


def _damping(session: Session, joint: str, per_quantum: float, agree: bool, where: str) -> float:
    """In quanta of torque per quantum of motion in a period; ``agree``: both count in one direction."""
    kd = session.damping.get(joint, 0.0) * per_quantum
    if kd < 2**24 and (agree or not kd):
        return kd
    raise ConfigError(
        f"{where}: damping of {joint!r}: found {session.damping[joint]:g} N·m·s/rad, {kd:g} quanta of torque per "
        f"quantum of motion; expected less than 2^24, and sensor and channel that count in one direction"
    )


def _range(cell: LatticeLimits, channel: Channel) -> tuple[int, int]:
    """``lo`` and ``hi`` in raw counts; a joint that turns without end has none, on either side."""
    if is_endless(cell):
        return cell.lo, cell.hi
    ends = (cell.lo * _sign(channel) + channel.zero, cell.hi * _sign(channel) + channel.zero)
    return min(ends), max(ends)


def is_endless(cell: LatticeLimits) -> bool:
    """Whether a joint turns without end, on any lattice."""
    return (cell.lo, cell.hi) == (-RAW_MAX, RAW_MAX)


def _sign(channel: Channel) -> int:
    return 1 if channel.scale > 0 else -1
