"""ROS 2 topics through the ROS node that this process is: the lifecycle node of `kizzasi_ros` lends its own graph."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from kizzasi_edge.connectors.topic_commands import TopicCommands, TopicCommandsOptions
from kizzasi_edge.connectors.topic_source import TopicSource, TopicSourceOptions
from kizzasi_edge.errors import ConnectorError
from kizzasi_edge.ros2.node_section import ros_types
from kizzasi_edge.ros2.qos import QosProfile
from kizzasi_edge.ros2.transport import Access, MessageType, Transport


class NodeAccess:
    """An :class:`~kizzasi_edge.ros2.transport.Access` to the graph of a node, once there is one. ``node``: set by
    :func:`lend`."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self.types = ros_types(environ)
        self.node: Access | None = None

    def join(self) -> Transport:
        if self.node is None:
            raise ConnectorError(
                "connector 'ros2': found no ROS node in this process; expected `ros2 launch kizzasi_ros "
                'policy.launch.py`, or connector = "dds", which needs no ROS'
            )
        return self.node.join()

    def leave(self, transport: Transport) -> None:
        if self.node is not None:
            self.node.leave(transport)

    def look(self, topic: str, kind: MessageType, qos: QosProfile, *, writes: bool) -> list[tuple[bool, str]]:
        return [] if self.node is None else self.node.look(topic, kind, qos, writes=writes)


class RosCommands(TopicCommands):
    """``connector = "ros2"`` of an ``[[output]]``."""

    Options = TopicCommandsOptions

    def __init__(self, options: TopicCommandsOptions, base: Path) -> None:
        super().__init__(options, base, NodeAccess())


class RosTopic(TopicSource):
    """``connector = "ros2"`` of an ``[[input]]``."""

    Options = TopicSourceOptions
    Output = RosCommands

    def __init__(self, options: TopicSourceOptions, base: Path) -> None:
        super().__init__(options, base, NodeAccess())


def lend(node: Access, connectors: list[object]) -> None:
    """Give those of the connectors that are of a ROS node's graph this node's."""
    for connector in connectors:
        if isinstance(connector, RosTopic | RosCommands) and isinstance(connector.access, NodeAccess):
            connector.access.node = node
