"""Who publishes, subscribes, serves and calls in this process, by domain: matching, and moving the bytes.

Discovery takes no time here; a program must not count on that. Nothing is called on the sender's thread but the
receiver's ``wake``: what was sent waits in the receiver's queue for its executor.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import RLock
from typing import Any

from rclpy._rclpy_pybind11 import Destroyable
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSPolicyKind, QoSProfile, incompatible_policy

EVENTS = ("deadline", "incompatible_qos", "liveliness", "matched")
_ids = itertools.count(1)


@dataclass
class Status:
    """An event's counters; ``fresh`` until a handler has taken them."""

    total: int = 0
    change: int = 0
    current: int = 0
    current_change: int = 0
    policy: QoSPolicyKind = QoSPolicyKind.INVALID
    fresh: bool = False

    def count(self, current: int | None = None, policy: QoSPolicyKind = QoSPolicyKind.INVALID) -> None:
        """One more; or, with ``current``, how many there are now."""
        if current is None or current > self.current:
            self.total += 1
            self.change += 1
        if current is not None:
            self.current_change += current - self.current
            self.current = current
        self.policy, self.fresh = policy, True


@dataclass(eq=False)
class Endpoint(Destroyable):
    """One end of a topic or a service; ``kind`` is the type's ROS name."""

    node: Any
    name: str
    kind: str
    qos: QoSProfile
    wake: Callable[[], None]
    gid: int = field(default_factory=lambda: next(_ids))
    statuses: dict[str, Status] = field(default_factory=lambda: {kind: Status() for kind in EVENTS})
    last_ns: int | None = None

    def matches(self, current: int) -> None:
        """How many ends it has now. The liveliness of its publishers is told to a subscription."""
        for kind in ("matched", "liveliness") if isinstance(self, Reader) else ("matched",):
            self.statuses[kind].count(current=current)


@dataclass(eq=False)
class Writer(Endpoint):
    readers: list[Reader] = field(default_factory=list)
    sent: int = 0

    def __post_init__(self) -> None:
        latched = self.qos.durability == DurabilityPolicy.TRANSIENT_LOCAL
        self.history: deque[tuple[bytes, dict[str, Any]]] = deque(maxlen=_depth(self.qos) if latched else 0)

    def write(self, data: bytes) -> None:
        with LOCK:
            self.sent += 1
            self.last_ns = time.monotonic_ns()
            info = {"source_timestamp": time.time_ns(), "publication_sequence_number": self.sent}
            self.history.append((data, info))
            for reader in self.readers:
                reader.receive(data, info)


@dataclass(eq=False)
class Reader(Endpoint):
    """``queue``: what no executor has taken yet; the oldest goes when it is full."""

    writers: list[Writer] = field(default_factory=list)
    received: int = 0

    def __post_init__(self) -> None:
        self.queue: deque[tuple[bytes, dict[str, Any]]] = deque(maxlen=_depth(self.qos))

    def receive(self, data: bytes, info: dict[str, Any]) -> None:
        self.received += 1
        self.last_ns = time.monotonic_ns()
        arrived = {"received_timestamp": time.time_ns(), "reception_sequence_number": self.received}
        self.queue.append((data, info | arrived))
        self.wake()


@dataclass(eq=False)
class Server(Endpoint):
    """``queue``: requests, with the client and its number of the request."""

    def __post_init__(self) -> None:
        self.queue: deque[tuple[bytes, Caller, int]] = deque()


@dataclass(eq=False)
class Caller(Endpoint):
    """A service's client. ``queue``: responses, with the numbers of their requests."""

    def __post_init__(self) -> None:
        self.queue: deque[tuple[bytes, int]] = deque()


class Domain:
    """The endpoints and nodes of one domain."""

    def __init__(self) -> None:
        self.endpoints: list[Endpoint] = []
        self.nodes: list[Any] = []

    def of(self, kind: type, name: str | None = None) -> list[Any]:
        with LOCK:
            return [each for each in self.endpoints if isinstance(each, kind) and name in (None, each.name)]

    def add(self, new: Endpoint) -> None:
        with LOCK:
            self.endpoints.append(new)
            if isinstance(new, Writer):
                for reader in self.of(Reader, new.name):
                    _meet(new, reader)
            elif isinstance(new, Reader):
                for writer in self.of(Writer, new.name):
                    _meet(writer, new)

    def remove(self, old: Endpoint) -> None:
        with LOCK:
            if old in self.endpoints:
                self.endpoints.remove(old)
            if isinstance(old, Writer):
                for reader in old.readers:
                    _part(reader, reader.writers, old)
            elif isinstance(old, Reader):
                for writer in old.writers:
                    _part(writer, writer.readers, old)

    def forget_the_ended(self) -> None:
        """The nodes of contexts that have ended; of the real ones the garbage collector makes an end."""
        with LOCK:
            for each in [each for each in self.endpoints if not each.node.context.ok()]:
                self.remove(each)
            self.nodes = [node for node in self.nodes if node.context.ok()]

    def servers(self, caller: Caller) -> list[Server]:
        return [each for each in self.of(Server, caller.name) if each.kind == caller.kind]


LOCK = RLock()
_domains: dict[int, Domain] = {}


def domain(number: int) -> Domain:
    return _domains.setdefault(number, Domain())


def _meet(writer: Writer, reader: Reader) -> None:
    if writer.kind != reader.kind:
        return
    if (policy := incompatible_policy(writer.qos, reader.qos)) is not None:
        for end in (writer, reader):
            end.statuses["incompatible_qos"].count(policy=policy)
            end.wake()
        return
    writer.readers.append(reader)
    reader.writers.append(writer)
    writer.matches(len(writer.readers))
    reader.matches(len(reader.writers))
    if reader.qos.durability == DurabilityPolicy.TRANSIENT_LOCAL:
        for data, info in writer.history:
            reader.receive(data, info)
    writer.wake()
    reader.wake()


def _part(end: Endpoint, others: list[Any], old: Endpoint) -> None:
    others.remove(old)
    end.matches(len(others))
    end.wake()


def _depth(qos: QoSProfile) -> int | None:
    """Depth 0 is the middleware's own, one."""
    return None if qos.history == HistoryPolicy.KEEP_ALL else max(1, qos.depth)
