"""rosbag2: folders and single files, sqlite3 or MCAP. Messages count from when they were received."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kizzasi_edge.errors import ConfigError
from kizzasi_export.datasets.clock import Clock, Track
from kizzasi_export.datasets.columns import require_finite
from kizzasi_export.datasets.files import library
from kizzasi_export.datasets.recordings import Channels, Part, from_tracks
from kizzasi_export.datasets.section import DataSection

_PART = r"\w+(?:\[[^\[\]]+\])?"
_FIELD = re.compile(rf"(?P<topic>/[^:]+):(?P<path>{_PART}(?:\.{_PART})*)")


@dataclass(frozen=True)
class Field:
    """One channel: a topic, and the way into its messages: field names, each with an element or None."""

    topic: str
    path: tuple[tuple[str, str | None], ...]

    def __str__(self) -> str:
        return f"{self.topic}:" + ".".join(name if e is None else f"{name}[{e}]" for name, e in self.path)

    @classmethod
    def parse(cls, text: str, source: Path) -> Field:
        """``/topic:field``, ``/topic:field.field``, with ``[name]`` or ``[number]`` after a sequence."""
        match = _FIELD.fullmatch(text)
        if match is None:
            raise ConfigError(f"{source}: found {text!r}, expected /topic:field, such as /joint_states:position[elbow]")
        parts = (re.fullmatch(r"(\w+)(?:\[(.+)\])?", part) for part in re.findall(_PART, match["path"]))
        return cls(match["topic"], tuple((part[1], part[2]) for part in parts if part is not None))

    def expand(self, message: Any, source: str) -> list[Field]:
        """Itself, or a field for each element where the message holds a sequence there."""
        value, names = self._follow(message, source)
        if not hasattr(value, "__len__") or isinstance(value, str):
            return [self]
        elements = names if len(names) == len(value) else [str(i) for i in range(len(value))]
        *way, (last, _) = self.path
        return [Field(self.topic, (*way, (last, element))) for element in elements]

    def read(self, message: Any, source: str) -> float:
        """The number in a message."""
        value, _ = self._follow(message, source)
        if not isinstance(value, (int, float, np.number, np.bool_)):
            raise ConfigError(f"{source}: {self} is a {type(value).__name__}, expected a number{_fields(value)}")
        return float(value)

    def _follow(self, message: Any, source: str) -> tuple[Any, list[str]]:
        """The value, and its elements' names: `name` (JointState) or `joint_names` beside or above it."""
        value: Any = message
        names: list[str] = []
        for name, element in self.path:
            names = next((list(n) for key in ("name", "joint_names") if (n := getattr(value, key, None))), names)
            if not hasattr(value, name):
                raise ConfigError(f"{source}: {self} is not there: no {name!r}{_fields(value)}")
            value = getattr(value, name)
            if element is not None:
                at = names.index(element) if element in names else int(element) if element.isdecimal() else -1
                if not 0 <= at < len(value):
                    raise ConfigError(
                        f"{source}: {self} is not there; found {len(value)} element(s) {', '.join(names)}"
                    )
                value = value[at]
        return value, names


@dataclass
class Topic:
    """What is taken from a topic's messages: the fields asked for, each as the channels it stands for.

    Attributes:
        asked: field → channels, which the first message tells.
        stamps, rows: a time (ns) and the values of all channels for each message.
    """

    asked: dict[Field, list[Field]]
    stamps: list[int]
    rows: list[list[float]]

    def take(self, stamp: int, message: Any, source: str) -> None:
        """Add a message.

        Raises:
            ConfigError: a field that it does not have, or a sequence of another length than in the first message.
        """
        for field, known in self.asked.items():
            found = field.expand(message, source)
            if known and len(found) != len(known):
                raise ConfigError(f"{source}: {field} has {len(found)} elements, expected {len(known)} as in message 0")
            self.asked[field] = known or found
        self.rows.append([channel.read(message, source) for channel in self.channels])
        self.stamps.append(stamp)

    @property
    def channels(self) -> list[Field]:
        """Each channel once."""
        return list(dict.fromkeys(channel for channels in self.asked.values() for channel in channels))


def read(path: Path, section: DataSection, clock: Clock) -> Part:
    """One bag; the first input's topic gives the steps unless resampled, the others' latest values are held.

    Raises:
        ConfigError: not a bag, topics or fields that are not there, other rates, or gaps.
    """
    assert section.inputs is not None  # open_streams sees to that
    assert section.outputs is not None
    asked = {text: Field.parse(text, path) for text in [*section.inputs, *section.outputs]}
    topics = {field.topic: Topic({}, [], []) for field in asked.values()}
    for field in asked.values():
        topics[field.topic].asked[field] = []
    _take_all(topics, path)

    names = [str(channel) for topic in topics.values() for channel in topic.channels]
    tracks = []
    for name, topic in topics.items():
        track = Track(f"{path}, {name}", np.array(topic.stamps, np.int64), np.array(topic.rows, np.float64))
        require_finite(track.values, [str(channel) for channel in topic.channels], track.name)
        tracks.append(track)

    def channels_of(texts: list[str]) -> tuple[str, ...]:
        found = [str(c) for text in texts for c in topics[asked[text].topic].asked[asked[text]]]
        if len(set(found)) < len(found):
            raise ConfigError(f"{path}: a channel is chosen twice in {', '.join(found)}, expected each once")
        return tuple(found)

    channels = Channels(channels_of(section.inputs), channels_of(section.outputs), None)
    order = [names.index(name) for name in channels.all]
    recordings, timings = from_tracks(tracks, order, channels, clock, section.horizon, str(path))
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return Part(recordings, channels.inputs, channels.outputs, timings, files)


def _take_all(topics: dict[str, Topic], path: Path) -> None:
    """Read every message of these topics."""
    highlevel, typesys = library("rosbags.highlevel", path), library("rosbags.typesys", path)
    # Bags before Iron hold no message definitions: the standard messages are those of the newest LTS then.
    store = typesys.get_typestore(typesys.Stores.LATEST)
    try:
        with highlevel.AnyReader([path], default_typestore=store) as reader:
            there = {connection.topic for connection in reader.connections if connection.msgcount}
            if missing := [name for name in topics if name not in there]:
                raise ConfigError(f"{path}: no messages on {', '.join(missing)}; found {', '.join(sorted(there))}")
            connections = [connection for connection in reader.connections if connection.topic in topics]
            for connection, stamp, raw in reader.messages(connections=connections):
                topic = topics[connection.topic]
                message = reader.deserialize(raw, connection.msgtype)
                topic.take(stamp, message, f"{path}, {connection.topic}, message {len(topic.rows)}")
    except ConfigError:
        raise
    except Exception as error:  # the readers' own, and whatever damaged bytes lead them into
        raise ConfigError(f"{path}: cannot be read as a rosbag2: {str(error)[:300]}") from None


def _fields(message: Any) -> str:
    """Its fields, for an error message."""
    names = [name for name in getattr(message, "__dataclass_fields__", ()) if not name.startswith("_")]
    return f"; found {', '.join(names)}" if names else ""
