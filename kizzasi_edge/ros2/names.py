"""ROS 2 names on the wire of DDS (REP-144, and what rmw_cyclonedds_cpp and rmw_fastrtps_cpp make of them)."""

from __future__ import annotations

import re

TOPIC_PREFIX = "rt/"
PART = r"[A-Za-z_][A-Za-z0-9_]*"
TOPIC = re.compile(rf"^/?{PART}(/{PART})*$")
NAMESPACE = re.compile(rf"^/({PART}(/{PART})*)?$")
TYPE = re.compile(r"^([A-Za-z][A-Za-z0-9_]*)/(msg|srv|action)/([A-Za-z][A-Za-z0-9_]*)$")


def full_name(topic: str, namespace: str = "/") -> str:
    """The absolute name: ``joint_states`` under ``/arm`` is ``/arm/joint_states``."""
    return topic if topic.startswith("/") else f"{namespace.rstrip('/')}/{topic}"


def dds_topic(topic: str, namespace: str = "/") -> str:
    """``joint_states`` → ``rt/joint_states``."""
    return TOPIC_PREFIX + full_name(topic, namespace)[1:]


def ros_topic(dds_name: str) -> str | None:
    """The topic behind a DDS name; ``None`` if it is not a ROS topic (a service, or no ROS at all)."""
    return "/" + dds_name[len(TOPIC_PREFIX) :] if dds_name.startswith(TOPIC_PREFIX) else None


def dds_type(name: str) -> str:
    """``sensor_msgs/msg/JointState`` → ``sensor_msgs::msg::dds_::JointState_``."""
    package, kind, message = name.split("/")
    return f"{package}::{kind}::dds_::{message}_"


def ros_type(dds_name: str) -> str:
    """The inverse of :func:`dds_type`; a name that is no ROS type comes back as it is."""
    package, _, rest = dds_name.partition("::")
    kind, middle, message = rest.partition("::dds_::")
    return f"{package}/{kind}/{message[:-1]}" if middle and message.endswith("_") else dds_name


def encode_hash(rihs: str) -> bytes:
    """An endpoint's USER_DATA: its type's hash, so that tools and bridges can tell versions of a type apart."""
    return f"typehash={rihs};".encode() if rihs else b""


def decode_hash(user_data: bytes) -> str:
    """The RIHS01 hash in an endpoint's USER_DATA; "" if there is none (ROS 2 before Iron, or no ROS)."""
    found = re.search(rb"(?:^|;)typehash=(RIHS01_[0-9a-f]{64});", user_data)
    return found[1].decode() if found else ""
