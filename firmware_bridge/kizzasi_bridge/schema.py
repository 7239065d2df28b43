"""The calibration table a device carries: names, units and the affine map between raw integers and SI.

It travels zlib-compressed in SCHEMA_DATA; its CRC-32 (over the compressed bytes) is part of the limits hash, so a
device with another calibration never accepts limits that were computed for this one. The hash is taken over what is
in flash and read back from there: two zlibs that pack one table into different bytes do no harm.
"""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from .errors import WireError

__all__ = ["CHANNEL_TYPES", "SCHEMA_VERSION", "Channel", "ChannelType", "Schema", "Sensor"]

SCHEMA_VERSION = 1

ChannelType = Literal["position", "velocity", "torque"]
CHANNEL_TYPES: tuple[ChannelType, ...] = get_args(ChannelType)
"""In the order of the node's codes: KZ_MODE_POSITION is 0."""

_I32 = range(-(2**31), 2**31)


@dataclass(frozen=True, slots=True)
class Channel:
    """A command channel: SI = (raw - zero) * scale, in ``unit``; a negative scale counts against the joint.

    type: what a COMMAND's value is. "position"; "velocity": a step of the position per command period, with the scale
    and the zero of that position; "torque": value * scale, zero is 0.
    """

    name: str
    unit: str = "rad"
    zero: int = 0
    scale: float = 2.0**-21
    type: ChannelType = "position"


@dataclass(frozen=True, slots=True)
class Sensor:
    """A sensor: as a channel, plus the index of the channel it measures (None for the others)."""

    name: str
    unit: str = "rad"
    zero: int = 0
    scale: float = 2.0**-21
    channel: int | None = None


@dataclass(frozen=True, slots=True)
class Schema:
    """What a board says about itself. The first ``len(channels)`` sensors measure the channels, in order: those of
    position and velocity channels in the channel's own counts, for the node takes its setpoint from them.

    Raises:
        WireError: rows that contradict each other or that no board can count in.
    """

    board: str
    tick_us: int
    channels: tuple[Channel, ...]
    sensors: tuple[Sensor, ...]

    def __post_init__(self) -> None:
        for kind, row in (("channel", self.channels), ("sensor", self.sensors)):
            for item in row:
                if not (math.isfinite(item.scale) and item.scale and item.zero in _I32):
                    raise WireError(f"{kind} {item.name!r}: zero = {item.zero!r}, scale = {item.scale!r}")
        for index, (channel, sensor) in enumerate(zip(self.channels, self.sensors, strict=False)):
            if sensor.channel not in (None, index):
                raise WireError(
                    f"sensor {sensor.name!r} measures channel {sensor.channel}; expected {index}, its own place"
                )
            if channel.type == "torque":
                if channel.zero:
                    raise WireError(f"torque channel {channel.name!r}: zero = {channel.zero}, expected 0")
            elif (channel.zero, channel.scale) != (sensor.zero, sensor.scale):
                raise WireError(
                    f"sensor {sensor.name!r}: zero = {sensor.zero}, scale = {sensor.scale!r}; expected "
                    f"{channel.zero} and {channel.scale!r} of the {channel.type} channel {channel.name!r} it measures"
                )

    @classmethod
    def positions(cls, joints: tuple[str, ...], *, scale: float, board: str = "posix", tick_us: int = 1000) -> Schema:
        """One position channel and one position sensor, in rad, for each joint."""
        return cls(
            board,
            tick_us,
            tuple(Channel(f"{name}/position", scale=scale) for name in joints),
            tuple(Sensor(f"{name}/position", scale=scale, channel=i) for i, name in enumerate(joints)),
        )

    def to_bytes(self) -> bytes:
        """zlib-compressed JSON, as the device stores and sends it."""
        text = json.dumps({"schema": SCHEMA_VERSION, **asdict(self)}, separators=(",", ":"))
        return zlib.compress(text.encode(), 9)

    @classmethod
    def from_bytes(cls, data: bytes) -> Schema:
        """Read what ``to_bytes`` wrote.

        Raises:
            WireError: not zlib, not JSON, another schema version, or a field missing, of the wrong type or impossible.
        """
        try:
            table: dict[str, Any] = json.loads(zlib.decompress(data))
        except (zlib.error, ValueError) as e:
            raise WireError(f"schema of {len(data)} bytes is not zlib-compressed JSON: {e}") from None
        if not isinstance(table, dict) or table.get("schema") != SCHEMA_VERSION:
            found = table.get("schema") if isinstance(table, dict) else type(table).__name__
            raise WireError(f"schema version {found!r}, expected {SCHEMA_VERSION}")
        try:
            return cls(
                str(table["board"]),
                int(table["tick_us"]),
                tuple(Channel(**_checked({"type": "position", **c}, Channel)) for c in table["channels"]),
                tuple(Sensor(**_checked(s, Sensor)) for s in table["sensors"]),
            )
        except KeyError as e:
            raise WireError(f"schema lacks the key {e}") from None
        except (TypeError, ValueError, OverflowError) as e:
            raise WireError(f"schema: {e}") from None

    def differences(self, other: Schema) -> list[str]:
        """What ``self`` has and what ``other`` has instead, a line each; empty if they are equal."""
        found = [
            f"{key}: {mine!r}, not {theirs!r}"
            for key in ("board", "tick_us")
            if (mine := getattr(self, key)) != (theirs := getattr(other, key))
        ]
        for kind in ("channels", "sensors"):
            ours, others = getattr(self, kind), getattr(other, kind)
            if [row.name for row in ours] != [row.name for row in others]:
                found.append(f"{kind}: {[row.name for row in ours]}, not {[row.name for row in others]}")
                continue
            for row, instead in zip(ours, others, strict=True):
                found += [
                    f"{kind[:-1]} {row.name!r}: {key} {mine!r}, not {theirs!r}"
                    for key in _KINDS
                    if (mine := getattr(row, key, None)) != (theirs := getattr(instead, key, None))
                ]
        return found


_KINDS: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "type": (str,),
    "unit": (str,),
    "zero": (int,),
    "scale": (int, float),
    "channel": (int, type(None)),
}


def _checked(row: dict[str, Any], cls: type) -> dict[str, Any]:
    fields = cls.__dataclass_fields__  # type: ignore[attr-defined]
    for key in fields:
        known = row[key] in CHANNEL_TYPES if key == "type" else isinstance(row[key], _KINDS[key])
        if not known or isinstance(row[key], bool):
            raise ValueError(f"{cls.__name__.lower()} {row.get('name')!r}: {key} = {row[key]!r}")
    return {key: row[key] for key in fields}
