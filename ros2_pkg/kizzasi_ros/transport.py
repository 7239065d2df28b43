"""ROS 2 topics through a node of rclpy: serialized bytes in and out, which the same codecs read as without ROS."""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib import import_module
from typing import Any
from weakref import WeakSet

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    LivelinessPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)

from kizzasi_edge.errors import ConnectorError
from kizzasi_edge.ros2.node_section import ros_types
from kizzasi_edge.ros2.qos import QosProfile
from kizzasi_edge.ros2.transport import MessageType, OnMessage


class NodeTransport:
    """A :class:`~kizzasi_edge.ros2.transport.Transport` over one node, which is everybody's
    :class:`~kizzasi_edge.ros2.transport.Access` to it. The node's executor must be spinning."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.types = ros_types()
        self._ends: WeakSet[NodeSubscription | NodePublication] = WeakSet()

    def join(self) -> NodeTransport:
        return self

    def leave(self, transport: object) -> None:
        """Nothing: subscriptions and publications are closed one by one, and the node lives on."""

    def subscribe(self, topic: str, kind: MessageType, qos: QosProfile, on_message: OnMessage) -> NodeSubscription:
        made = NodeSubscription(self.node, topic, kind, qos, on_message)
        self._ends.add(made)
        return made

    def advertise(self, topic: str, kind: MessageType, qos: QosProfile) -> NodePublication:
        made = NodePublication(self.node, topic, kind, qos)
        self._ends.add(made)
        return made

    def close(self) -> None:
        for end in list(self._ends):
            end.close()

    def look(self, topic: str, kind: MessageType, qos: QosProfile, *, writes: bool) -> list[tuple[bool, str]]:
        """Why nobody matches, as far as the node has discovered the others: (is an error, text). They may still come,
        so that nothing here is an error."""
        name = self.node.resolve_topic_name(topic)
        who = "subscription" if writes else "publisher"
        ask = self.node.get_subscriptions_info_by_topic if writes else self.node.get_publishers_info_by_topic
        others = ask(name)
        if not others:
            return [(False, f"{name}: no {who} is there yet")]
        mine = ros_qos(qos)
        return [
            (False, f"{name}: the {who} of {other.node_namespace.rstrip('/')}/{other.node_name} does not match: {why}")
            for other in others
            for why in _reasons(kind, mine, other, writes=writes)
        ]


class NodeSubscription:
    """One topic that is read; see :class:`~kizzasi_edge.ros2.transport.Subscription`. A publisher with other QoS is
    named in the node's log, by rclpy."""

    def __init__(self, node: Node, topic: str, kind: MessageType, qos: QosProfile, on_message: OnMessage) -> None:
        self._node, self._on_message = node, on_message
        self._received = self._failed = 0
        # One message at a time, in order; beside whatever else the node does.
        self._subscription: Any = node.create_subscription(
            message_class(kind),
            topic,
            self._receive,
            ros_qos(qos),
            callback_group=MutuallyExclusiveCallbackGroup(),
            raw=True,
        )
        self._name = self._subscription.topic_name

    def _receive(self, cdr: bytes) -> None:
        now_ns = time.monotonic_ns()
        if self._subscription is None:
            return
        self._received += 1
        try:
            self._on_message(cdr, now_ns)
        except Exception:
            self._failed += 1

    def close(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            self._node.destroy_subscription(subscription)

    @property
    def counters(self) -> Mapping[str, int]:
        return {
            "received": self._received,
            "failed": self._failed,
            "publishers": 0 if self._subscription is None else self._node.count_publishers(self._name),
        }


class NodePublication:
    """One topic that is written; see :class:`~kizzasi_edge.ros2.transport.Publication`. A plain publisher, not one that
    the lifecycle silences: the braking steps after a deactivation must come through."""

    def __init__(self, node: Node, topic: str, kind: MessageType, qos: QosProfile) -> None:
        self._node, self._topic = node, topic
        self._publisher: Any = node.create_publisher(message_class(kind), topic, ros_qos(qos))
        self._sent = 0

    def publish(self, cdr: bytes) -> bool:
        """Raises :class:`ConnectorError` after the end, and when ROS was shut down."""
        publisher = self._publisher
        if publisher is None:
            raise ConnectorError(f"{self._topic}: the publisher is closed")
        try:
            publisher.publish(cdr)
        except Exception as exc:  # rclpy's own classes have moved from release to release
            raise ConnectorError(f"{self._topic}: {exc}") from exc
        self._sent += 1
        return True

    def close(self) -> None:
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            self._node.destroy_publisher(publisher)

    @property
    def counters(self) -> Mapping[str, int]:
        publisher = self._publisher
        return {
            "sent": self._sent,
            "dropped": 0,
            "subscribers": 0 if publisher is None else publisher.get_subscription_count(),
        }


def message_class(kind: MessageType) -> Any:
    """The installed Python class. Raises :class:`ConnectorError` where there is none, or one with other fields than
    those that our codec reads."""
    package, _, name = kind.name.split("/")
    try:
        found = getattr(import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError):
        raise ConnectorError(
            f"{kind.name}: found no such message in this ROS; expected package {package} installed and sourced"
        ) from None
    ours = [field for field, _ in kind.fields[kind.name][1]]
    theirs = list(found.get_fields_and_field_types())
    if ours != theirs:
        raise ConnectorError(f"{kind.name}: found the fields {theirs} in this ROS; expected {ours}")
    return found


def ros_qos(qos: QosProfile) -> QoSProfile:
    """The same policies as rclpy has them."""
    asked: dict[str, Any] = {
        "deadline": qos.deadline_s,
        "lifespan": qos.lifespan_s,
        "liveliness_lease_duration": qos.lease_s,
    }
    return QoSProfile(
        history=HistoryPolicy[qos.history.upper()],
        depth=qos.depth,
        reliability=ReliabilityPolicy[qos.reliability.upper()],
        durability=DurabilityPolicy[qos.durability.upper()],
        liveliness=LivelinessPolicy[qos.liveliness.upper()],
        **{name: Duration(nanoseconds=round(s * 1e9)) for name, s in asked.items() if s is not None},
    )


def _reasons(kind: MessageType, mine: QoSProfile, other: Any, *, writes: bool) -> list[str]:
    if other.topic_type != kind.name:
        return [f"type: found {other.topic_type}; expected {kind.name}"]
    reasons = []
    found = str(getattr(other, "topic_type_hash", ""))  # from Iron on
    if found.startswith("RIHS01_") and kind.hash and found != kind.hash:
        reasons.append(f"type hash: found {found}, another version of {kind.name}; expected {kind.hash}")
    offer, request = (mine, other.qos_profile) if writes else (other.qos_profile, mine)
    fits, why = qos_check_compatible(offer, request)
    if fits == QoSCompatibility.ERROR:
        reasons.append(f"QoS: {why}")
    return reasons
