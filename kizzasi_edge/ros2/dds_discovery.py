"""How a process appears in a ROS 2 graph: ``ros_discovery_info`` says which node owns which reader and writer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from cyclonedds.domain import DomainParticipant
from cyclonedds.pub import DataWriter, Publisher
from cyclonedds.sub import DataReader, Subscriber
from cyclonedds.topic import Topic
from rosbags.typesys import Stores, get_typestore

from kizzasi_edge.ros2.dds_domain import Domain
from kizzasi_edge.ros2.dds_qos import endpoint_qos
from kizzasi_edge.ros2.dds_types import carrier
from kizzasi_edge.ros2.messages import message_type
from kizzasi_edge.ros2.qos import QosProfile

TOPIC = "ros_discovery_info"
TYPE = "rmw_dds_common/msg/ParticipantEntitiesInfo"
PARTICIPANT_DATA = b"enclave=/;"
QOS = QosProfile(durability="transient_local", depth=1)
KEEP = QosProfile(durability="transient_local", history="keep_all")


@dataclass(frozen=True)
class NodeEntities:
    """One node: the GUID of its participant, its full name, and the GUIDs of its endpoints."""

    participant: bytes
    name: str
    endpoints: frozenset[bytes]


class _Format:
    """The message in the graph's own version: its Gid is 24 bytes before Iron, 16 since."""

    def __init__(self, participant: DomainParticipant, domain: Domain) -> None:
        self.store = get_typestore(Stores.ROS2_HUMBLE if domain.gid_bytes == 24 else Stores.ROS2_JAZZY)
        self.gid_bytes = domain.gid_bytes
        known = message_type(self.store, TYPE)
        # Nodes before Iron know no type hashes.
        self.kind = replace(known, hash="") if domain.gid_bytes == 24 else known
        self.topic: Topic[Any] = Topic(participant, TOPIC, carrier(self.kind))

    def gid(self, guid: bytes) -> Any:
        data = np.frombuffer(guid.ljust(self.gid_bytes, b"\0"), np.uint8)
        return self.store.types["rmw_dds_common/msg/Gid"](data)


class Introduction:
    """Tells the graph of one node with these endpoints, and whoever comes later too."""

    def __init__(self, participant: DomainParticipant, domain: Domain) -> None:
        self._format = _Format(participant, domain)
        self._domain, self._participant = domain, participant.guid.bytes
        self._writer: DataWriter[Any] = DataWriter(
            Publisher(participant), self._format.topic, qos=endpoint_qos(QOS, self._format.kind.hash)
        )
        self.update([], [])

    def update(self, readers: Iterable[bytes], writers: Iterable[bytes]) -> None:
        """GUIDs (16 bytes) of all the node's readers and writers."""
        types, gid = self._format.store.types, self._format.gid
        node = types["rmw_dds_common/msg/NodeEntitiesInfo"](
            self._domain.namespace, self._domain.node, [gid(r) for r in readers], [gid(w) for w in writers]
        )
        cdr = self._format.store.serialize_cdr(types[TYPE](gid(self._participant), [node]), TYPE)
        self._writer.write(self._format.topic.data_type(bytes(cdr)))


class Introductions:
    """What the others say of themselves."""

    def __init__(self, participant: DomainParticipant, domain: Domain) -> None:
        self._format = _Format(participant, domain)
        self._reader: DataReader[Any] = DataReader(
            Subscriber(participant), self._format.topic, qos=endpoint_qos(KEEP, self._format.kind.hash)
        )
        self._latest: dict[bytes, Sequence[NodeEntities]] = {}

    def read(self) -> list[NodeEntities]:
        """The nodes known by now."""
        for sample in self._reader.take(N=1000):
            if sample.sample_info.valid_data:
                said: Any = self._format.store.deserialize_cdr(sample.cdr, TYPE)
                participant = bytes(said.gid.data[:16])
                self._latest[participant] = [
                    NodeEntities(
                        participant,
                        f"{node.node_namespace.rstrip('/')}/{node.node_name}",
                        frozenset(bytes(g.data[:16]) for g in (*node.reader_gid_seq, *node.writer_gid_seq)),
                    )
                    for node in said.node_entities_info_seq
                ]
        return [node for nodes in self._latest.values() for node in nodes]
