"""A transport inside one process: what is published is delivered at once, on the publisher's thread."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping

from kizzasi_edge.errors import ConnectorError
from kizzasi_edge.ros2.names import full_name
from kizzasi_edge.ros2.qos import QosProfile, mismatches
from kizzasi_edge.ros2.transport import MessageType, OnMessage


class InProc:
    """A :class:`~kizzasi_edge.ros2.transport.Transport` between parts of this process that share the object. Endpoints
    match by topic, type and QoS as in DDS; transient_local publications keep their last ``depth`` messages."""

    def __init__(self, namespace: str = "/") -> None:
        self.namespace = namespace
        self.subscriptions: list[InProcSubscription] = []
        self.publications: list[InProcPublication] = []

    def subscribe(self, topic: str, kind: MessageType, qos: QosProfile, on_message: OnMessage) -> InProcSubscription:
        made = InProcSubscription(self, full_name(topic, self.namespace), kind, qos, on_message)
        self.subscriptions.append(made)
        if qos.durability == "transient_local":
            for publication in made.matched:
                for cdr in publication.kept:
                    made.deliver(cdr)
        return made

    def advertise(self, topic: str, kind: MessageType, qos: QosProfile) -> InProcPublication:
        made = InProcPublication(self, full_name(topic, self.namespace), kind, qos)
        self.publications.append(made)
        return made

    def close(self) -> None:
        self.subscriptions.clear()
        self.publications.clear()


class InProcSubscription:
    """One reader; see :class:`~kizzasi_edge.ros2.transport.Subscription`."""

    def __init__(self, owner: InProc, topic: str, kind: MessageType, qos: QosProfile, on_message: OnMessage) -> None:
        self.topic, self.kind, self.qos = topic, kind, qos
        self._owner, self._on_message = owner, on_message
        self._received = self._failed = 0

    @property
    def matched(self) -> list[InProcPublication]:
        return [publication for publication in self._owner.publications if matches(publication, self)]

    def deliver(self, cdr: bytes) -> None:
        self._received += 1
        try:
            self._on_message(cdr, time.monotonic_ns())
        except Exception:
            self._failed += 1

    def close(self) -> None:
        if self in self._owner.subscriptions:
            self._owner.subscriptions.remove(self)

    @property
    def counters(self) -> Mapping[str, int]:
        return {
            "received": self._received,
            "failed": self._failed,
            "publishers": len(self.matched),
        }


class InProcPublication:
    """One writer; see :class:`~kizzasi_edge.ros2.transport.Publication`."""

    def __init__(self, owner: InProc, topic: str, kind: MessageType, qos: QosProfile) -> None:
        self.topic, self.kind, self.qos = topic, kind, qos
        self._owner = owner
        self.kept: deque[bytes] = deque(maxlen=qos.depth if qos.durability == "transient_local" else 0)
        self._sent = 0

    def publish(self, cdr: bytes) -> bool:
        if self not in self._owner.publications:
            raise ConnectorError(f"{self.topic}: it was closed")
        self._sent += 1
        self.kept.append(cdr)
        for subscription in self._matched():
            subscription.deliver(cdr)
        return True

    def close(self) -> None:
        if self in self._owner.publications:
            self._owner.publications.remove(self)

    def _matched(self) -> list[InProcSubscription]:
        return [subscription for subscription in self._owner.subscriptions if matches(self, subscription)]

    @property
    def counters(self) -> Mapping[str, int]:
        return {"sent": self._sent, "dropped": 0, "subscribers": len(self._matched())}


def matches(publication: InProcPublication, subscription: InProcSubscription) -> bool:
    """Same topic, same type, and the offer satisfies the request."""
    return (
        publication.topic == subscription.topic
        and publication.kind.name == subscription.kind.name
        and not mismatches(publication.qos, subscription.qos)
    )
