"""The calibration table a device carries: names, units and the affine map between raw integers and SI.

It travels zlib-compressed in SCHEMA_DATA; its CRC-32 (over the compressed bytes) is part of the limits hash, so a
device with another calibration never accepts limits that were computed for this one.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass
from typing import Any

from .errors import WireError

__all__ = ["SCHEMA_VERSION", "Channel", "Schema", "Sensor"]

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Channel:
    """A command channel: SI = (raw - zero) * scale, in ``unit``."""

    name: str
    unit: str = "rad"
    zero: int = 0
    scale: float = 2.0**-21


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
    """What a board says about itself. The first ``len(channels)`` sensors measure the channels, in order."""

    board: str
    tick_us: int
    channels: tuple[Channel, ...]
    sensors: tuple[Sensor, ...]

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
            WireError: not zlib, not JSON, another schema version, or a field missing or of the wrong type.
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
                tuple(Channel(**_checked(c, Channel)) for c in table["channels"]),
                tuple(Sensor(**_checked(s, Sensor)) for s in table["sensors"]),
            )
        except KeyError as e:
            raise WireError(f"schema lacks the key {e}") from None
        except (TypeError, ValueError) as e:
            raise WireError(f"schema: {e}") from None


_KINDS: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "unit": (str,),
    "zero": (int,),
    "scale": (int, float),
    "channel": (int, type(None)),
}


def _checked(row: dict[str, Any], cls: type) -> dict[str, Any]:
    fields = cls.__dataclass_fields__  # type: ignore[attr-defined]
    for key in fields:
        if not isinstance(row[key], _KINDS[key]) or isinstance(row[key], bool):
            raise ValueError(f"{cls.__name__.lower()} {row.get('name')!r}: {key} = {row[key]!r}")
    return {key: row[key] for key in fields}
