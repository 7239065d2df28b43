"""rosbag2: folders and single files, sqlite3 or MCAP. Messages count from when they were received."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kizzasi_edge.errors import ConfigError
from kizzasi_edge.ros2.channels import Channel, parse_channels
from kizzasi_export.datasets.clock import Clock, Track
from kizzasi_export.datasets.columns import require_finite
from kizzasi_export.datasets.files import library
from kizzasi_export.datasets.recordings import Channels, Part, from_tracks
from kizzasi_export.datasets.section import DataSection


@dataclass
class Topic:
    """What is taken from a topic's messages: the fields asked for, each as the channels it stands for.

    Attributes:
        asked: field → channels, which the first message tells.
        stamps, rows: a time (ns) and the values of all channels for each message.
    """

    asked: dict[Channel, list[Channel]]
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
    def channels(self) -> list[Channel]:
        """Each channel once."""
        return list(dict.fromkeys(channel for channels in self.asked.values() for channel in channels))


def read(path: Path, section: DataSection, clock: Clock) -> Part:
    """One bag; the first input's topic gives the steps unless resampled, the others' latest values are held.

    Raises:
        ConfigError: not a bag, topics or fields that are not there, other rates, or gaps.
    """
    assert section.inputs is not None  # open_streams sees to that
    assert section.outputs is not None
    asked = parse_channels([*section.inputs, *section.outputs], section.channels, path)
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

    def channels_of(texts: list[str]) -> dict[str, str]:
        """Our name → channel, in order."""
        pairs = [(t, str(channel)) for t in texts for channel in topics[asked[t].topic].asked[asked[t]]]
        found = [channel for _, channel in pairs]
        if len(set(found)) < len(found):
            raise ConfigError(f"{path}: a channel is chosen twice in {', '.join(found)}, expected each once")
        for text in set(texts) & set(section.channels):
            if str(asked[text]) not in found:
                raise ConfigError(f"{path}: channels: {text!r}: '{asked[text]}' is a sequence, expected one element")
        return {text if text in section.channels else channel: channel for text, channel in pairs}

    inputs, outputs = channels_of(section.inputs), channels_of(section.outputs)
    channels = Channels(tuple(inputs), tuple(outputs), None)
    order = [names.index(channel) for channel in (*inputs.values(), *outputs.values())]
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
