"""A ROS 2 topic as an input, over any transport: what the robot publishes."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from kizzasi_edge.errors import ConnectorError, WireError
from kizzasi_edge.frames import Observation
from kizzasi_edge.ros2.codec import Decoder
from kizzasi_edge.ros2.messages import Messages
from kizzasi_edge.ros2.topics import TopicOptions, topic_channels
from kizzasi_edge.ros2.transport import Access, Subscription, Transport
from kizzasi_edge.toml_file import Number


class TopicSourceOptions(TopicOptions):
    """A topic, and ``wait_s``: how long ``open`` waits for the first message where only that says what the topic offers
    (no ``channels``)."""

    wait_s: Annotated[Number, Field(gt=0, le=3600)] = 10.0


class TopicSource:
    """A :class:`~kizzasi_edge.connectors.base.Source` of one topic's newest message. Messages are decoded as they come,
    on the transport's thread; one that cannot be decoded is counted and changes nothing."""

    def __init__(self, options: TopicSourceOptions, base: Path, access: Access) -> None:
        self.options, self.access = options, access
        self.kind = Messages([base / path for path in options.definitions], access.types).type(options.type)
        channels = topic_channels(options.channels, options.topic)
        self._decoder = Decoder(self.kind, options.topic, channels, options.rename)
        self._transport: Transport | None = None
        self._subscription: Subscription | None = None
        self._latest: Observation | None = None
        self._first = threading.Event()
        self._seq = self._refused = 0
        self._last_error = ""

    @property
    def names(self) -> tuple[str, ...]:
        return self._decoder.names

    def open(self) -> None:
        if self._transport is not None:
            return
        self._transport = self.access.join()
        try:
            self._subscription = self._transport.subscribe(
                self.options.topic, self.kind, self.options.qos.profile, self._on_message
            )
            if not self.names and not self._first.wait(self.options.wait_s):
                raise ConnectorError(self._nothing_came())
        except ConnectorError:
            self.close()
            raise

    def close(self) -> None:
        if self._transport is not None:
            if self._subscription is not None:
                self._subscription.close()
            self.access.leave(self._transport)
            self._transport = self._latest = None

    def read(self) -> Observation | None:
        return self._latest

    @property
    def counters(self) -> Mapping[str, int]:
        """``received``, ``refused`` (could not be decoded), ``forms`` (how often names or lengths were new),
        ``publishers`` (there now), and what else the transport counts."""
        known = {} if self._subscription is None else self._subscription.counters
        return {
            "received": 0,
            "publishers": 0,
            **{key: count for key, count in known.items() if key != "failed"},
            "refused": self._refused,
            "forms": self._decoder.parsed,
        }

    def findings(self, rate_hz: float, joints: int) -> list[tuple[bool, str]]:
        """What is on the graph, and whether the topic's publishers and this subscription match."""
        return self.access.look(self.options.topic, self.kind, self.options.qos.profile, writes=False)

    def _on_message(self, cdr: bytes, recv_ns: int) -> None:
        try:
            sample = self._decoder.decode(cdr, recv_ns)
        except WireError as exc:
            self._refused += 1
            self._last_error = str(exc)
            return
        self._seq += 1
        self._latest = sample.observation(self._seq)
        if self._seq == 1:
            self._first.set()

    def _nothing_came(self) -> str:
        waited = f"{self.options.topic}: nothing to read within {self.options.wait_s:g} s"
        if self._refused:
            return f"{waited}: {self._refused} message(s) refused, the last one: {self._last_error}"
        return "; ".join([waited, *(text for _, text in self.findings(0, 0))])
