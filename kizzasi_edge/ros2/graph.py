"""A ROS 2 graph as DDS's own discovery shows it, and why two endpoints of it do not find each other."""

from __future__ import annotations

import time
from collections.abc import Callable
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
from kizzasi_edge.ros2.matching import LOOK_S, Endpoint, Findings, Graph, judge, look_until, other_version
from kizzasi_edge.ros2.names import decode_hash, ros_topic, ros_type
from kizzasi_edge.ros2.qos import QosProfile, mismatches
from kizzasi_edge.ros2.transport import MessageType

TAKE = 500
EXPECTED = (
    "the robot's ROS_DOMAIN_ID, an interface they share, multicast let through or peers, and the same localhost-only"
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


def look(domain: Domain, topic: str, kind: MessageType, qos: QosProfile, *, writes: bool) -> Findings:
    """Join the domain for a moment: (is an error, text) of why our end of ``topic`` matches nobody there, and what is
    there instead; [] if all is well."""
    try:
        transport = shared(domain)
    except ConnectorError as exc:
        return [(True, str(exc))]
    try:
        reader = GraphReader(transport)
        return look_until(reader.read, lambda graph: explain(graph, topic, kind, qos, writes=writes), LOOK_S)
    finally:
        release(transport)


def explain(graph: Graph, topic: str, kind: MessageType, qos: QosProfile, *, writes: bool) -> Findings:
    """:func:`~kizzasi_edge.ros2.matching.judge` by the rules of DDS."""

    def apart(end: Endpoint) -> list[str]:
        reasons = other_version(end, kind)
        if end.partition != domain.partition:
            reasons.append(f"partition: found {end.partition!r}; expected {domain.partition!r}")
        return reasons + (mismatches(qos, end.qos) if writes else mismatches(end.qos, qos))

    domain: Any = graph.domain
    return judge(graph, topic, kind, apart, writes=writes, expected=EXPECTED)
