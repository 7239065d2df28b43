"""ROS 2 topics over DDS without ROS: Eclipse Cyclone DDS from PyPI, and the conventions of rmw_cyclonedds_cpp.

One thread per transport waits for all its readers. Cyclone's own threads never run Python code, so that nothing here
can be waited for by them; and no call of the loop's thread blocks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from cyclonedds.core import DDSException, GuardCondition, InstanceState, ReadCondition, SampleState, ViewState, WaitSet
from cyclonedds.domain import DomainParticipant
from cyclonedds.internal import dds_infinity
from cyclonedds.pub import DataWriter, Publisher
from cyclonedds.qos import Policy, Qos
from cyclonedds.sub import DataReader, Subscriber
from cyclonedds.topic import Topic

from kizzasi_edge.errors import ConnectorError
from kizzasi_edge.ros2 import dds_network
from kizzasi_edge.ros2.dds_discovery import PARTICIPANT_DATA, Introduction
from kizzasi_edge.ros2.dds_domain import Domain
from kizzasi_edge.ros2.dds_qos import endpoint_qos
from kizzasi_edge.ros2.dds_types import carrier
from kizzasi_edge.ros2.names import dds_topic
from kizzasi_edge.ros2.qos import QosProfile
from kizzasi_edge.ros2.shared import Shared
from kizzasi_edge.ros2.transport import MessageType, OnMessage

TAKE = 64
"""Messages taken from one reader before the next one has its turn."""


class Dds:
    """A :class:`~kizzasi_edge.ros2.transport.Transport`: one participant, one ROS node.

    Raises :class:`ConnectorError` if Cyclone cannot use the domain (no such interface, too many participants).
    """

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self._lock = threading.Lock()
        self._subscriptions: tuple[DdsSubscription, ...] = ()
        self._publications: tuple[DdsPublication, ...] = ()
        self._topics: dict[tuple[str, str], Topic[Any]] = {}
        self._closing = False
        dds_network.acquire(domain)
        try:
            self.participant = DomainParticipant(domain.id, qos=Qos(Policy.Userdata(data=PARTICIPANT_DATA)))
            partition = Qos(Policy.Partition(partitions=[domain.partition])) if domain.partition else None
            self._publisher = Publisher(self.participant, qos=partition)
            self._subscriber = Subscriber(self.participant, qos=partition)
            self._waitset = WaitSet(self.participant)
            self._end = GuardCondition(self.participant)
            self._waitset.attach(self._end)
            self._introduction = Introduction(self.participant, domain)
        except DDSException as exc:
            dds_network.release(domain)
            raise ConnectorError(f"{domain}: {exc}") from exc
        self._thread = threading.Thread(target=self._run, name=f"dds-{domain.id}", daemon=True)
        self._thread.start()

    def subscribe(self, topic: str, kind: MessageType, qos: QosProfile, on_message: OnMessage) -> DdsSubscription:
        with self._lock:
            self._require_open(topic)
            try:
                made = DdsSubscription(self, self._subscriber, self._topic(topic, kind), kind, qos, on_message)
                self._waitset.attach(made.condition)
            except DDSException as exc:
                raise ConnectorError(f"{topic} ({kind.name}): {exc}") from exc
            self._subscriptions += (made,)
            self._introduce()
        return made

    def advertise(self, topic: str, kind: MessageType, qos: QosProfile) -> DdsPublication:
        with self._lock:
            self._require_open(topic)
            try:
                made = DdsPublication(self, self._publisher, self._topic(topic, kind), kind, qos)
            except DDSException as exc:
                raise ConnectorError(f"{topic} ({kind.name}): {exc}") from exc
            self._publications += (made,)
            self._introduce()
        return made

    def close(self) -> None:
        with self._lock:
            if self._closing:
                return
            self._closing = True
        self._end.set(True)
        if threading.current_thread() is not self._thread:
            self._thread.join()
        ends: tuple[DdsSubscription | DdsPublication, ...] = (*self._subscriptions, *self._publications)
        for end in ends:
            end.close()
        self._topics.clear()
        self.participant._delete(self.participant._ref)  # now, and all that is below it, whoever still looks at it
        dds_network.release(self.domain)

    def remove(self, endpoint: DdsSubscription | DdsPublication) -> None:
        """Forget an endpoint that ends."""
        with self._lock:
            if isinstance(endpoint, DdsSubscription):
                self._waitset.detach(endpoint.condition)
            self._subscriptions = tuple(known for known in self._subscriptions if known is not endpoint)
            self._publications = tuple(known for known in self._publications if known is not endpoint)
            self._introduce()

    def _require_open(self, topic: str) -> None:
        if self._closing:
            raise ConnectorError(f"{topic}: the transport is closed")

    def _topic(self, name: str, kind: MessageType) -> Topic[Any]:
        wire = dds_topic(name, self.domain.namespace)
        key = (wire, kind.name)
        if key not in self._topics:
            self._topics[key] = Topic(self.participant, wire, carrier(kind))
        return self._topics[key]

    def _introduce(self) -> None:
        self._introduction.update(
            [subscription.guid for subscription in self._subscriptions],
            [publication.guid for publication in self._publications],
        )

    def _run(self) -> None:
        while not self._closing:
            self._waitset.wait(dds_infinity)
            now = time.monotonic_ns()
            for subscription in self._subscriptions:
                subscription.drain(now)


class DdsSubscription:
    """One reader; see :class:`~kizzasi_edge.ros2.transport.Subscription`."""

    def __init__(
        self,
        owner: Dds,
        subscriber: Subscriber,
        topic: Topic[Any],
        kind: MessageType,
        qos: QosProfile,
        on_message: OnMessage,
    ) -> None:
        self._owner = owner
        self._reader: DataReader[Any] | None = DataReader(subscriber, topic, qos=endpoint_qos(qos, kind.hash))
        everything = SampleState.Any | ViewState.Any | InstanceState.Any
        self.condition = ReadCondition(self._reader, everything)
        self.guid = self._reader.guid.bytes
        self._on_message = on_message
        self._received = self._failed = 0

    def drain(self, now_ns: int) -> None:
        """Hand on what has arrived. On the transport's thread only."""
        reader = self._reader
        if reader is None:
            return
        for sample in reader.take(N=TAKE):
            if not sample.sample_info.valid_data:
                continue  # a writer's end, not a message
            self._received += 1
            try:
                self._on_message(sample.cdr, now_ns)
            except Exception:
                self._failed += 1

    def close(self) -> None:
        if self._reader is not None:
            self._owner.remove(self)
            self._reader = None
            del self.condition

    @property
    def counters(self) -> Mapping[str, int]:
        reader = self._reader
        return {
            "received": self._received,
            "failed": self._failed,
            "publishers": 0 if reader is None else _matched(reader, "publications"),
        }


class DdsPublication:
    """One writer; see :class:`~kizzasi_edge.ros2.transport.Publication`."""

    def __init__(self, owner: Dds, publisher: Publisher, topic: Topic[Any], kind: MessageType, qos: QosProfile) -> None:
        self._owner = owner
        self._writer: DataWriter[Any] | None = DataWriter(publisher, topic, qos=endpoint_qos(qos, kind.hash))
        self._carrier, self._name = topic.data_type, kind.name
        self.guid = self._writer.guid.bytes
        self._sent = self._dropped = 0

    def publish(self, cdr: bytes) -> bool:
        """Raises :class:`ConnectorError` for bytes that are no message of this type, and after the end."""
        if self._writer is None:
            raise ConnectorError(f"{self._name}: the transport is closed")
        try:
            self._writer.write(self._carrier(cdr))
        except DDSException as exc:
            if exc.code != DDSException.DDS_RETCODE_TIMEOUT:
                raise ConnectorError(f"{self._name}: {exc}") from exc
            self._dropped += 1
            return False
        self._sent += 1
        return True

    def close(self) -> None:
        if self._writer is not None:
            self._owner.remove(self)
            self._writer = None

    @property
    def counters(self) -> Mapping[str, int]:
        matched = 0 if self._writer is None else _matched(self._writer, "subscriptions")
        return {"sent": self._sent, "dropped": self._dropped, "subscribers": matched}


def _matched(endpoint: DataReader[Any] | DataWriter[Any], others: str) -> int:
    """How many other ends there are now. The package of Cyclone 0.10 has no method for it."""
    count: int = getattr(endpoint._dll_handle, f"dds_get_matched_{others}")(endpoint._ref, None, 0)
    return max(0, count)


_transports: Shared[Domain, Dds] = Shared(Dds)
shared, release = _transports.acquire, _transports.release
"""The process's transport for a domain and node, and its end."""
