"""ROS 2 topics over Zenoh without ROS: Eclipse Zenoh from PyPI, and the conventions of rmw_zenoh_cpp. Experimental.

Callbacks run on Zenoh's own receiving threads, one at a time for each subscription; nothing waits for them but the
connection they came on. Messages newer than the one at work wait in that connection, so no depth is kept here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import xxhash
import zenoh
from zenoh import ext

from kizzasi_edge.errors import ConnectorError
from kizzasi_edge.ros2.names import full_name
from kizzasi_edge.ros2.qos import QosProfile
from kizzasi_edge.ros2.shared import Shared
from kizzasi_edge.ros2.transport import MessageType, OnMessage
from kizzasi_edge.ros2.zenoh_attachment import Numbers, pack, unpack
from kizzasi_edge.ros2.zenoh_domain import ZenohDomain
from kizzasi_edge.ros2.zenoh_keys import NODE, PUBLISHER, SUBSCRIPTION, Token, topic_key
from kizzasi_edge.ros2.zenoh_session import Links, Tokens, direct, open_session, reason

E = TypeVar("E", "ZenohSubscription", "ZenohPublication")
HEARTBEAT_S = 0.5
"""How soon a reliable publisher for late joiners says which message was its last: rmw_zenoh_cpp's number."""


class Zenoh:
    """A :class:`~kizzasi_edge.ros2.transport.Transport`: one session, one ROS node.

    Raises :class:`ConfigError` for settings that Zenoh does not take, :class:`ConnectorError` where it cannot open.
    """

    def __init__(self, domain: ZenohDomain) -> None:
        self.domain = domain
        self._lock = threading.Lock()
        self._ends: list[ZenohSubscription | ZenohPublication] = []
        self._closed = False
        self.session = open_session(domain)
        self.id = str(self.session.zid())
        self.links = Links(self.session)
        self.tokens = Tokens(self.session, domain.id)
        self._node = Token(str(domain.id), self.id, "0", "0", NODE, domain.enclave, domain.namespace, domain.node)
        self._declared = self.session.liveliness().declare_token(self._node.key)
        self._entities = 0

    def subscribe(self, topic: str, kind: MessageType, qos: QosProfile, on_message: OnMessage) -> ZenohSubscription:
        return self._made(lambda token: ZenohSubscription(self, token, on_message), SUBSCRIPTION, topic, kind, qos)

    def advertise(self, topic: str, kind: MessageType, qos: QosProfile) -> ZenohPublication:
        return self._made(lambda token: ZenohPublication(self, token), PUBLISHER, topic, kind, qos)

    def close(self) -> None:
        with self._lock:
            self._closed = True
        for end in tuple(self._ends):
            end.close()
        self.session.close()

    def forget(self, end: ZenohSubscription | ZenohPublication) -> None:
        """An endpoint ends."""
        with self._lock:
            self._ends = [known for known in self._ends if known is not end]

    def _made(self, make: Callable[[Token], E], entity: str, topic: str, kind: MessageType, qos: QosProfile) -> E:
        type_hash = self.domain.wire_hash(kind.hash)
        if not type_hash:
            raise ConnectorError(f"{topic}: {kind.name} has no RIHS01 hash here; rmw_zenoh_cpp names topics by it")
        with self._lock:
            if self._closed:
                raise ConnectorError(f"{topic}: the transport is closed")
            self._entities += 1
            name = full_name(topic, self.domain.namespace)
            number = str(self._entities)
            token = replace(
                self._node, kind=entity, entity_id=number, topic=name, type=kind.name, hash=type_hash, qos=qos
            )
            try:
                made = make(token)
            except zenoh.ZError as exc:
                raise ConnectorError(f"{topic} ({kind.name}): {reason(exc)}") from exc
            self._ends.append(made)
        return made


class _End:
    """What both kinds of endpoints have: a place in the graph, and a time when that ends."""

    def __init__(self, owner: Zenoh, token: Token) -> None:
        self.token = token
        self.key = topic_key(owner.domain.id, token.topic, token.type, token.hash)
        self._owner = owner
        self._lock = threading.RLock()
        self._closed = False

    def _introduce(self) -> None:
        self._present = self._owner.session.liveliness().declare_token(self.token.key)

    def _leave(self, declared: Any) -> None:
        self._present.undeclare()
        declared.undeclare()

    def _seen(self, others: str) -> dict[str, int]:
        return {others: 0 if self._closed else self._owner.tokens.matched(self.token), **self._owner.links.counters}


class ZenohSubscription(_End):
    """One reader; see :class:`~kizzasi_edge.ros2.transport.Subscription`."""

    def __init__(self, owner: Zenoh, token: Token, on_message: OnMessage) -> None:
        super().__init__(owner, token)
        self._on_message = on_message
        self._received = self._failed = self._malformed = 0
        self._numbers = Numbers()
        self._subscriber = self._declare(token.qos)
        self._introduce()

    def _declare(self, qos: QosProfile) -> Any:
        if qos.durability == "volatile":
            return self._owner.session.declare_subscriber(self.key, direct(self._take))
        return ext.declare_advanced_subscriber(
            self._owner.session,
            self.key,
            direct(self._take),
            history=ext.HistoryConfig(detect_late_publishers=True, max_samples=qos.depth),
            recovery=ext.RecoveryConfig(periodic_queries=None, heartbeat=True)
            if qos.reliability == "reliable"
            else None,
            subscriber_detection=True,
        )

    def _take(self, sample: Any) -> None:
        attachment = sample.attachment
        said = None if attachment is None else unpack(bytes(attachment))
        with self._lock:
            if self._closed:
                return
            if said is None:
                self._malformed += 1
                return
            number, _, gid = said
            self._received += 1
            self._numbers.take(gid, number)
            try:
                self._on_message(bytes(sample.payload), time.monotonic_ns())
            except Exception:
                self._failed += 1

    def close(self) -> None:
        with self._lock:  # and no callback runs
            if self._closed:
                return
            self._closed = True
        self._leave(self._subscriber)
        self._owner.forget(self)

    @property
    def counters(self) -> Mapping[str, int]:
        """Besides, ``lost`` (never came, by the publishers' numbers), ``malformed`` (without rmw_zenoh_cpp's
        attachment, and so not taken), ``connected`` and ``disconnected``, of the session."""
        return {
            "received": self._received,
            "failed": self._failed,
            "malformed": self._malformed,
            "lost": self._numbers.lost,
            **self._seen("publishers"),
        }


class ZenohPublication(_End):
    """One writer; see :class:`~kizzasi_edge.ros2.transport.Publication`. What a slow connection has no room for, Zenoh
    drops without a word; the other end counts it."""

    def __init__(self, owner: Zenoh, token: Token) -> None:
        super().__init__(owner, token)
        self.gid = xxhash.xxh3_128_intdigest(token.key.encode()).to_bytes(16, "little")
        self._sent = 0
        self._publisher = self._declare(token.qos)
        self._introduce()

    def _declare(self, qos: QosProfile) -> Any:
        reliable = qos.reliability == "reliable"
        options: dict[str, Any] = {
            "congestion_control": zenoh.CongestionControl.DROP,
            "reliability": zenoh.Reliability.RELIABLE if reliable else zenoh.Reliability.BEST_EFFORT,
        }
        if qos.durability == "volatile":
            return self._owner.session.declare_publisher(self.key, **options)
        detection = ext.MissDetectionConfig(heartbeat=None, sporadic_heartbeat=HEARTBEAT_S) if reliable else None
        return ext.declare_advanced_publisher(
            self._owner.session,
            self.key,
            cache=ext.CacheConfig(qos.depth),
            sample_miss_detection=detection,
            publisher_detection=True,
            **options,
        )

    def publish(self, cdr: bytes) -> bool:
        """Raises :class:`ConnectorError` after the end."""
        with self._lock:
            if self._closed:
                raise ConnectorError(f"{self.token.topic}: the transport is closed")
            try:
                self._publisher.put(cdr, attachment=pack(self._sent + 1, time.time_ns(), self.gid))
            except zenoh.ZError as exc:
                raise ConnectorError(f"{self.token.topic}: {reason(exc)}") from exc
            self._sent += 1
        return True

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._leave(self._publisher)
        self._owner.forget(self)

    @property
    def counters(self) -> Mapping[str, int]:
        """``connected`` and ``disconnected`` are the session's."""
        return {"sent": self._sent, "dropped": 0, **self._seen("subscribers")}


_transports: Shared[ZenohDomain, Zenoh] = Shared(Zenoh)
shared, release = _transports.acquire, _transports.release
"""The process's transport for a domain and node, and its end."""
