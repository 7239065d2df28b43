"""``board.toml``: what a board drives and measures, as a technician thinks of it → the Schema that it carries."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StrictInt, StrictStr

from .errors import ConfigError
from .schema import Channel, ChannelType, Schema, Sensor
from .toml_file import MAX_LINES, Number, Section, read_toml, validate

__all__ = ["RAW_MAX", "BoardFile", "Counting", "Source", "load_board", "parse_board"]

RAW_MAX = 2**30 - 1
"""KZ_RAW_MAX: the node guards no range that reaches beyond."""

Source = tuple[Literal["channel", "sensor"], int]
"""A section of the file: ("sensor", 0) is the first ``[[sensor]]``."""

_INTERFACES: dict[str, ChannelType] = {"position": "position", "velocity": "velocity", "effort": "torque"}
_LENGTHS, _FORCES = ("rad", "m"), ("N·m", "N")
_SIZES = {"counts_per_turn": "rad", "counts_per_meter": "m", "quantum": None}


def _power_of_two(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"2\^(-?\d{1,3})", value)
    if not found:
        raise ValueError('a number, or a power of two written as "2^-21"')
    return math.ldexp(1.0, int(found[1]))


Size = Annotated[Number, Field(ge=1e-15, le=1e15, allow_inf_nan=False)]
# Names and units go into a C comment: nothing in them may end it.
Name = Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9_.+-]+(/[A-Za-z0-9_.+-]+)*$", max_length=64)]
Unit = Annotated[StrictStr, Field(pattern=r"^[^\s*?\\]{1,16}$")]


class BoardSection(Section):
    """``[board]``: its name, and the time between two ticks of its firmware."""

    name: Name
    tick_us: Annotated[StrictInt, Field(ge=10, le=1_000_000)]


class Counting(Section):
    """How raw counts become SI: (raw − zero)·scale. ``quantum`` is SI units per count; or ``counts_per_turn`` (rad) or
    ``counts_per_meter`` (m) of an encoder, which goes ``gear`` times as far as the joint. ``sign`` is −1 where the
    count grows against the joint."""

    unit: Unit | None = None
    counts_per_turn: Size | None = None
    counts_per_meter: Size | None = None
    quantum: Annotated[Size, BeforeValidator(_power_of_two)] | None = None
    gear: Size | None = None
    sign: Literal[1, -1] = 1
    zero: Annotated[StrictInt, Field(ge=-RAW_MAX, le=RAW_MAX)] = 0

    @property
    def size(self) -> str:
        """Which of the three keys says how large a count is."""
        return next((key for key in _SIZES if getattr(self, key) is not None), "quantum")

    @property
    def scale(self) -> float:
        """SI units per raw count, signed."""
        return self.sign * scale_of(self.size, getattr(self, self.size), self.gear)


def scale_of(size: str, value: float, gear: float | None) -> float:
    """SI units per count where the file's key ``size`` has this ``value``."""
    if size == "quantum":
        return value
    return (math.tau if size == "counts_per_turn" else 1.0) / (value * (gear or 1.0))


class ChannelSection(Counting):
    """``[[channel]]``: one value of a COMMAND. ``name`` is the joint and, as in ros2_control, its interface."""

    name: Name
    type: ChannelType = "position"


class SensorSection(Counting):
    """``[[sensor]]``: one value of a STATE; ``channel`` names the one that it measures."""

    name: Name
    channel: Name | None = None


class BoardSections(Section):
    """The whole file."""

    schema_: Annotated[Literal[1], Field(alias="schema")]
    board: BoardSection
    channel: Annotated[list[ChannelSection], Field(min_length=1, max_length=16)]
    sensor: Annotated[list[SensorSection], Field(max_length=200)] = []


@dataclass(frozen=True, slots=True)
class BoardFile:
    """A checked board.toml.

    Attributes:
        schema: what the board is to carry. Its first sensors measure the channels; the file's others follow in order.
        sources: for each sensor of ``schema``, the section that says how it counts.
    """

    where: str
    sections: BoardSections
    schema: Schema
    sources: tuple[Source, ...]

    def counting(self, sensor: int) -> Counting:
        """The section ``sources[sensor]``."""
        return _section(self.sections, self.sources[sensor])


def load_board(path: str | Path) -> BoardFile:
    """Read a board.toml.

    Raises:
        ConfigError: it cannot be read, or says something impossible; names file, section, key, found and expected.
    """
    return parse_board(read_toml(path, ConfigError), path)


def parse_board(data: dict[str, Any], where: str | Path) -> BoardFile:
    """The same of a table that has been read already; ``where`` is for messages."""
    file = validate(data, BoardSections, where, ConfigError)
    if problems := [f"{where}: {problem}" for problem in _problems(file)]:
        raise ConfigError("\n".join(problems[:MAX_LINES]))
    own = {row.channel: index for index, row in enumerate(file.sensor)}
    channels = tuple(Channel(row.name, _unit(row), row.zero, row.scale, row.type) for row in file.channel)
    sensors, sources = [], list[Source]()
    for index, channel in enumerate(channels):
        at = own.get(channel.name)
        sources.append(("sensor", at) if channel.type == "torque" and at is not None else ("channel", index))
        row = _section(file, sources[-1])
        name = _measured_name(channel.name) if at is None else file.sensor[at].name
        sensors.append(Sensor(name, _unit(row), row.zero, row.scale, index))
    for index, other in enumerate(file.sensor):
        if other.channel is None:
            sensors.append(Sensor(other.name, _unit(other), other.zero, other.scale))
            sources.append(("sensor", index))
    schema = Schema(file.board.name, file.board.tick_us, channels, tuple(sensors))
    return BoardFile(str(where), file, schema, tuple(sources))


def _section(file: BoardSections, source: Source) -> Counting:
    kind, index = source
    return file.channel[index] if kind == "channel" else file.sensor[index]


def _measured_name(channel: str) -> str:
    """What the sensor of a channel is called that the file does not mention."""
    return f"{channel.rpartition('/')[0]}/position"


def _unit(row: Counting) -> str:
    """As the file says, else what the size implies; a bare ``quantum`` is of an angle, or of a torque."""
    torque = isinstance(row, ChannelSection) and row.type == "torque"
    return row.unit or _SIZES[row.size] or ("N·m" if torque else "rad")


def _problems(file: BoardSections) -> Iterator[str]:
    """What each value for itself does not show, as ``[[section]] number key: found …; expected …``."""
    channels = {row.name: row for row in file.channel}
    measured = [row.channel for row in file.sensor if row.channel is not None]
    for number, row in enumerate(file.channel, 1):
        for problem in (*_channel(row), *_counting(row)):
            yield f"[[channel]] {number} {problem}"
        if row.type == "torque" and row.name not in measured:
            yield f"[[sensor]] channel: found none that measures the torque channel {row.name!r}; expected one"
    for number, sensor in enumerate(file.sensor, 1):
        for problem in _sensor(sensor, channels, measured):
            yield f"[[sensor]] {number} {problem}"
    implied = [_measured_name(row.name) for row in file.channel if row.type != "torque" and row.name not in measured]
    sensors = [*implied, *(row.name for row in file.sensor)]
    for kind, names in (("channel", [row.name for row in file.channel]), ("sensor", sensors)):
        for name, times in Counter(names).items():
            if times > 1:
                also = f", {implied.count(name)} of them implied by channels" if name in implied else ""
                yield f"[[{kind}]] name: found {name!r} {times} times{also}; expected it once"


def _channel(row: ChannelSection) -> Iterator[str]:
    joint, _, interface = row.name.rpartition("/")
    fits = _INTERFACES.get(interface)
    if not joint or fits is None:
        yield f"name: found {row.name!r}; expected the joint's name and /position, /velocity or /effort"
    elif fits != row.type:
        yield f"type: found {row.type!r} for {row.name!r}; expected {fits!r}"
    units = _FORCES if row.type == "torque" else _LENGTHS
    if row.unit is not None and row.unit not in units:
        yield f"unit: found {row.unit!r}; expected {' or '.join(map(repr, units))}"
    if row.type == "torque":
        for key in ("counts_per_turn", "counts_per_meter"):
            if getattr(row, key) is not None:
                yield f"{key}: found {getattr(row, key)!r}; expected quantum, in N·m or N per count"
        if row.zero:
            yield f"zero: found {row.zero}; expected 0: no torque is no torque"


def _sensor(row: SensorSection, channels: dict[str, ChannelSection], measured: list[str]) -> Iterator[str]:
    if row.channel is None:
        yield from _counting(row)
        if row.quantum is not None and row.unit is None:
            yield "unit: missing; expected one beside quantum"
        return
    channel = channels.get(row.channel)
    if channel is None:
        yield f"channel: found {row.channel!r}; expected one of {list(channels)}"
    elif measured.count(row.channel) > 1:
        yield f"channel: found {row.channel!r} in {measured.count(row.channel)} sensors; expected it in one"
    elif channel.type == "torque":
        yield from _counting(row)
        if row.unit not in (None, *_LENGTHS):
            yield f"unit: found {row.unit!r}; expected {' or '.join(map(repr, _LENGTHS))}"
    else:
        for key in sorted(row.model_fields_set & Counting.model_fields.keys()):
            yield f"{key}: found {getattr(row, key)!r}; expected nothing: it counts as its {channel.type} channel does"


def _counting(row: Counting) -> Iterator[str]:
    sizes = [key for key in _SIZES if getattr(row, key) is not None]
    if len(sizes) != 1:
        found = " and ".join(sizes) or "none"
        yield f"{sizes[-1] if sizes else 'quantum'}: found {found}; expected one of {', '.join(_SIZES)}"
    elif sizes == ["quantum"]:
        if row.gear is not None:
            yield f"gear: found {row.gear!r}; expected none beside quantum, which is that of the joint"
    elif row.unit not in (None, _SIZES[sizes[0]]):
        yield f"unit: found {row.unit!r}; expected {_SIZES[sizes[0]]!r} with {sizes[0]}"
