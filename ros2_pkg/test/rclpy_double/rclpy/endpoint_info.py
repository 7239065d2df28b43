"""What the graph knows of an endpoint."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from rosidl_double import store
from rosidl_double.distro import since

from rclpy._graph import Endpoint, Writer
from rclpy.qos import QoSProfile


class EndpointTypeEnum(IntEnum):
    INVALID = 0
    PUBLISHER = 1
    SUBSCRIPTION = 2


TopicEndpointTypeEnum = EndpointTypeEnum


@dataclass
class TopicEndpointInfo:
    node_name: str
    node_namespace: str
    topic_type: str
    endpoint_type: EndpointTypeEnum
    endpoint_gid: list[int]
    qos_profile: QoSProfile

    if since("jazzy"):

        @property
        def topic_type_hash(self) -> str:
            return store.kind(self.topic_type).hash


def info(endpoint: Endpoint) -> TopicEndpointInfo:
    publisher = isinstance(endpoint, Writer)
    return TopicEndpointInfo(
        endpoint.node.get_name(),
        endpoint.node.get_namespace(),
        endpoint.kind,
        EndpointTypeEnum.PUBLISHER if publisher else EndpointTypeEnum.SUBSCRIPTION,
        list(endpoint.gid.to_bytes(16, "little")),
        endpoint.qos,
    )
