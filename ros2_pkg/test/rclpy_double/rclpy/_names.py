"""Names of nodes, topics, services and parameters: what is allowed, and what they expand to."""

from __future__ import annotations

import re

from rclpy.exceptions import (
    InvalidNamespaceException,
    InvalidNodeNameException,
    InvalidParameterException,
    InvalidServiceNameException,
    InvalidTopicNameException,
)

_PART = r"[A-Za-z_][A-Za-z0-9_]*"


def validate_node_name(node_name: str) -> bool:
    """Raises InvalidNodeNameException."""
    if not node_name:
        raise InvalidNodeNameException(node_name, "node name must not be empty", 0)
    if bad := re.search(r"[^A-Za-z0-9_]", node_name):
        text = "node name must not contain characters other than alphanumerics or '_'"
        raise InvalidNodeNameException(node_name, text, bad.start())
    if node_name[0].isdigit():
        raise InvalidNodeNameException(node_name, "node name must not start with a number", 0)
    return True


def validate_namespace(namespace: str) -> bool:
    """An absolute one. Raises InvalidNamespaceException."""
    if not re.fullmatch(rf"/|(/{_PART})+", namespace):
        bad = re.search(r"[^A-Za-z0-9_/]|(?<=/)\d|/(?=/)|(?<=.)/$", namespace)
        text = "namespace must consist of '/' and names of alphanumerics and '_' that start with no number"
        raise InvalidNamespaceException(namespace, text, bad.start() if bad else 0)
    return True


def validate_topic_name(name: str, *, is_service: bool = False) -> bool:
    """Before expansion. Raises InvalidTopicNameException or InvalidServiceNameException."""
    raises = InvalidServiceNameException if is_service else InvalidTopicNameException
    what = "service name" if is_service else "topic name"
    if not name:
        raise raises(name, f"{what} must not be empty string", 0)
    faults = (
        (r"/$", f"{what} must not end with a forward slash '/'"),
        (r"[^A-Za-z0-9_/~{}]", f"{what} must not contain characters other than alphanumerics, '_', '~', '{{', or '}}'"),
        (r"(?<=.)~", f"{what} has '~' (tilde) that is not the first character"),
        (r"(?<=^~)[^/]", f"{what} has '~' (tilde) that is not followed by a forward slash '/'"),
        (r"(?:^|(?<=/))\d", f"{what} token must not start with a number"),
        (r"//", f"{what} must not contain repeated '/'"),
    )
    for pattern, text in faults:
        if bad := re.search(pattern, name):
            raise raises(name, text, bad.start())
    return True


def validate_parameter_name(name: str) -> bool:
    """Raises InvalidParameterException."""
    if not name:
        raise InvalidParameterException(name)
    return True


def expand_topic_name(topic_name: str, node_name: str, node_namespace: str) -> str:
    """The absolute name. Raises ValueError for an unknown ``{substitution}``."""
    own = f"{node_namespace.rstrip('/')}/{node_name}"
    known = {"node": node_name, "ns": node_namespace.rstrip("/"), "namespace": node_namespace.rstrip("/")}

    def substitute(match: re.Match[str]) -> str:
        if match[1] not in known:
            raise ValueError(f"unknown substitution {match[0]!r} in topic name {topic_name!r}")
        return known[match[1]]

    if topic_name == "~" or topic_name.startswith("~/"):
        topic_name = own + topic_name[1:]
    expanded = re.sub(r"\{([^}]*)\}", substitute, topic_name)
    return expanded if expanded.startswith("/") else f"{node_namespace.rstrip('/')}/{expanded}"
