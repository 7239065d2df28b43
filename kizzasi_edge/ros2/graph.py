"""What is on a ROS 2 graph, seen from DDS's own discovery, and why two endpoints of it do not find each other."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from cyclonedds.builtin import (
    BuiltinDataReader,
    BuiltinTopicDcpsParticipant,
    BuiltinTopicDcpsPublication,
    BuiltinTopicDcpsSubscription,
)
from cyclonedds.core import InstanceState

from kizzasi_edge.errors import ConnectorError
from kizzasi_edge.ros2.dds import Dds, release, shared
from kizzasi_edge.ros2.dds_discovery import Introductions
from kizzasi_edge.ros2.dds_domain import Domain
from kizzasi_edge.ros2.dds_qos import profile_of
from kizzasi_edge.ros2.names import decode_hash, full_name, ros_topic, ros_type
from kizzasi_edge.ros2.qos import QosProfile, mismatches
from kizzasi_edge.ros2.transport import MessageType

LOOK_S = 2.0
"""How long :func:`look` waits for the other end before it says that there is none."""
TAKE = 500
SHOWN = 12
"""Names listed in one line: a robot's graph has hundreds."""


@dataclass(frozen=True)
class Endpoint:
    """A publisher (``writes``) or subscription of another process. ``hash``: "" if it does not say; ``node``: "" until
    it has introduced itself; ``partition``: "" the usual one."""

    topic: str
    type: str
    hash: str
    qos: QosProfile
    writes: bool
    node: str
    partition: str


@dataclass(frozen=True)
class Graph:
    """The other processes of a domain: how many participants, their nodes' full names, their ROS endpoints."""

    domain: Domain
    participants: int
    nodes: tuple[str, ...]
    endpoints: tuple[Endpoint, ...]

    def on(self, topic: str, *, writes: bool) -> list[Endpoint]:
        """The publishers, or the subscriptions, of a topic."""
        return [end for end in self.endpoints if end.topic == topic and end.writes == writes]

    def __str__(self) -> str:
        topics = sorted({f"{end.topic} ({end.type})" for end in self.endpoints})
        return (
            f"{self.domain}: {self.participants} other participant(s), nodes {_listed(self.nodes)}, "
            f"topics {_listed(topics)}"
        )


class GraphReader:
    """Follows the graph through a transport's participant, whose own endpoints are left out."""

    def __init__(self, transport: Dds) -> None:
        self._domain = transport.domain
        self._own = transport.participant.guid
        self._readers = [
            BuiltinDataReader(transport.participant, topic)
            for topic in (BuiltinTopicDcpsParticipant, BuiltinTopicDcpsPublication, BuiltinTopicDcpsSubscription)
        ]
        self._alive: list[dict[Any, Any]] = [{} for _ in self._readers]
        self._introductions = Introductions(transport.participant, transport.domain)

    def read(self) -> Graph:
        """The graph as it is known by now."""
        for reader, alive in zip(self._readers, self._alive, strict=True):
            while samples := reader.take(N=TAKE):
                for sample in samples:
                    if sample.sample_info.instance_state == InstanceState.Alive:
                        alive[sample.key] = sample
                    else:
                        alive.pop(sample.key, None)
        nodes = self._introductions.read()
        owner = {guid: node.name for node in nodes for guid in node.endpoints}
        participants, *endpoints = self._alive
        found = [
            _endpoint(sample, topic, writes, owner.get(key.bytes, ""))
            for writes, ends in zip((True, False), endpoints, strict=True)
            for key, sample in ends.items()
            if sample.participant_key != self._own and (topic := ros_topic(sample.topic_name)) is not None
        ]
        others = {key.bytes for key in participants if key != self._own}
        names = sorted({node.name for node in nodes if node.participant in others})
        return Graph(self._domain, len(others), tuple(names), tuple(found))

    def wait(self, enough: Callable[[Graph], bool], timeout_s: float) -> Graph:
        """The graph as soon as there is ``enough`` of it, or after ``timeout_s``."""
        deadline = time.monotonic() + timeout_s
        while not enough(graph := self.read()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return graph


def _endpoint(sample: Any, topic: str, writes: bool, node: str) -> Endpoint:
    policies = {policy.__scope__: policy for policy in sample.qos}
    said = policies.get("Userdata")
    partitions = policies.get("Partition")
    return Endpoint(
        topic,
        ros_type(sample.type_name),
        "" if said is None else decode_hash(said.data),
        profile_of(sample.qos),
        writes,
        node,
        "" if partitions is None else ",".join(partitions.partitions),
    )


def look(domain: Domain, topic: str, kind: MessageType, qos: QosProfile, *, writes: bool) -> list[tuple[bool, str]]:
    """Join the domain for a moment: (is an error, text) of why our end of ``topic`` matches nobody there, and what is
    there instead; [] if all is well."""
    try:
        transport = shared(domain)
    except ConnectorError as exc:
        return [(True, str(exc))]
    try:
        problems: list[tuple[bool, str]] = []

        def well(graph: Graph) -> bool:
            problems[:] = explain(graph, topic, kind, qos, writes=writes)
            return not problems

        graph = GraphReader(transport).wait(well, LOOK_S)
    finally:
        release(transport)
    return [*problems, (False, f"seen in {graph}")] if problems else []


def explain(graph: Graph, topic: str, kind: MessageType, qos: QosProfile, *, writes: bool) -> list[tuple[bool, str]]:
    """Who is at the other end of our publication (``writes``) or subscription: (is an error, text). Nobody yet is no
    error: they may come later. If none of those who are there will ever match, that is one."""
    topic = full_name(topic, graph.domain.namespace)
    others = graph.on(topic, writes=not writes)
    if not others:
        return [(False, _nobody(graph, topic, kind, writes))]
    reasons = [(end, _reasons(end, graph.domain, kind, qos, writes)) for end in others]
    nobody = all(why for _, why in reasons)
    return [(nobody, f"{topic}: {_who(end)} does not match: {one}") for end, why in reasons for one in why]


def _reasons(end: Endpoint, domain: Domain, kind: MessageType, qos: QosProfile, writes: bool) -> list[str]:
    """Why this endpoint and ours are kept apart; [] if they are not."""
    if end.type != kind.name:
        return [f"type: found {end.type}; expected {kind.name}"]
    reasons = []
    if end.hash and kind.hash and end.hash != kind.hash:
        reasons.append(f"type hash: found {end.hash}, another version of {kind.name}; expected {kind.hash}")
    if end.partition != domain.partition:
        reasons.append(f"partition: found {end.partition!r}; expected {domain.partition!r}")
    return reasons + (mismatches(qos, end.qos) if writes else mismatches(end.qos, qos))


def _who(end: Endpoint) -> str:
    return f"the {'publisher' if end.writes else 'subscription'} of {end.node or 'a process without a ROS node'}"


def _nobody(graph: Graph, topic: str, kind: MessageType, writes: bool) -> str:
    verb = "subscribes to" if writes else "publishes"
    if not graph.participants:
        return (
            f"{topic}: nobody {verb} it: no other process is seen at all in {graph.domain}; expected the robot's "
            "ROS_DOMAIN_ID, an interface they share, multicast let through or peers, and the same localhost-only"
        )
    hints = []
    across = sorted({end.topic for end in graph.endpoints if end.type == kind.name and end.writes != writes})
    if across:
        hints.append(f"{kind.name} is {'subscribed' if writes else 'published'} on {_listed(across)}")
    elif near := get_close_matches(topic, {end.topic for end in graph.endpoints if end.writes != writes}):
        hints.append(f"there is {_listed(near)}")
    return "; ".join([f"{topic}: nobody {verb} it in {graph.domain}", *hints])


def _listed(names: list[str] | tuple[str, ...]) -> str:
    more = f" … and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) or "none") + more
