"""A recorded topic as an input: rosbag2, sqlite3 or MCAP, decoded as a subscribed topic is."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from weakref import WeakValueDictionary

from pydantic import Field, StrictStr

from kizzasi_edge.errors import ConfigError, ConnectorError, WireError
from kizzasi_edge.frames import Observation
from kizzasi_edge.ros2.codec import Decoder
from kizzasi_edge.ros2.messages import message_type
from kizzasi_edge.ros2.names import TYPE
from kizzasi_edge.ros2.replay import Replay, Track, opened
from kizzasi_edge.ros2.topics import TopicChannels, topic_channels
from kizzasi_edge.toml_file import Number

_waiting: WeakValueDictionary[tuple[Path, float], Replay] = WeakValueDictionary()
"""Replays whose inputs are being opened: sections of one bag and rate share one, until its time begins."""
_lock = threading.Lock()


class BagOptions(TopicChannels):
    """Besides the topic: ``path`` of the bag (a folder, or one file), relative to the robot.toml; ``rate`` of its time
    to ours, 0: each read of the first such input goes on to that topic's next message; ``type``: what the bag must say
    it is, if given."""

    path: StrictStr
    rate: Annotated[Number, Field(ge=0, le=1000)] = 1.0
    type: Annotated[StrictStr, Field(pattern=TYPE.pattern)] | None = None


class Bag:
    """A :class:`~kizzasi_edge.connectors.base.Source`; its stamps are when a message was due, on our clock.
    At the bag's end the last one grows old (``stale_ms``); at full speed there is none any more."""

    Options = BagOptions

    def __init__(self, options: BagOptions, base: Path) -> None:
        self.options = options
        self.path = (base / options.path).resolve()
        self.names: tuple[str, ...] = ()
        self._definitions = [base / name for name in options.definitions]
        self._channels = topic_channels(options.channels, options.topic)
        self._replay: Replay | None = None

    def open(self) -> None:
        """Look into the bag and join its replay. Raises :class:`ConnectorError`, or :class:`ConfigError` for channels
        that the topic's type does not have."""
        self._track = Track(self._decoder())
        self.names = self._track.decoder.names
        key = (self.path, self.options.rate)
        with _lock:
            replay = _waiting.get(key)
            if replay is None or replay.started or not replay.tracks:
                replay = _waiting[key] = Replay(self.path, self.options.rate, self._definitions)
            replay.tracks.append(self._track)
        self._replay = replay

    def close(self) -> None:
        if self._replay is not None:
            self._replay.leave(self._track)
            self._replay = None

    def read(self) -> Observation | None:
        if self._replay is None:
            return None
        sample = self._replay.take(self._track)
        return None if sample is None else sample.observation(self._track.received)

    @property
    def counters(self) -> Mapping[str, int]:
        if self._replay is None:
            return {}
        track, replay = self._track, self._replay
        return {
            "received": track.received,
            "refused": track.refused,
            "ended": replay.ended,
            "damaged": replay.damaged,
        }

    def findings(self, rate_hz: float, joints: int) -> list[tuple[bool, str]]:
        try:
            self.names = self._decoder().names
        except (ConfigError, ConnectorError) as exc:
            return [(True, f"path: {exc}")]
        return []

    def _decoder(self) -> Decoder:
        """For this topic, having seen its first message."""
        topic, asked = self.options.topic, self.options.type
        with opened(self.path, self._definitions) as bag:
            there = {connection.topic: connection for connection in bag.connections if connection.msgcount}
            if topic not in there:
                raise ConnectorError(f"{self.path}: no messages on {topic}; found {', '.join(sorted(there)) or 'none'}")
            chosen = [connection for connection in bag.connections if connection.topic == topic]
            if len(types := {connection.msgtype for connection in chosen} | ({asked} if asked else set())) > 1:
                raise ConnectorError(f"{self.path}: {topic}: found the types {sorted(types)}; expected one")
            kind = message_type(bag.typestore, there[topic].msgtype)
            decoder = Decoder(kind, topic, self._channels, self.options.rename)
            try:
                decoder.decode(next((raw for _, _, raw in bag.messages(connections=chosen)), b""))
            except WireError as exc:
                raise ConnectorError(f"{self.path}: {topic}, first message: {exc}") from exc
            return decoder
