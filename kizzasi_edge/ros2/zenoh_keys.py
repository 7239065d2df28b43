"""Topics and the ROS graph as keys of Zenoh: the conventions of rmw_zenoh_cpp, by its docs/design.md."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, get_args

from kizzasi_edge.ros2.names import dds_type, full_name, ros_type
from kizzasi_edge.ros2.qos import Durability, History, Liveliness, QosProfile, Reliability

ADMIN = "@ros2_lv"
NO_HASH = "TypeHashNotSupported"
"""Stands where a type's hash would, in Humble."""
NODE, PUBLISHER, SUBSCRIPTION = "NN", "MP", "MS"
_KINDS = (NODE, PUBLISHER, SUBSCRIPTION, "SS", "SC")

_DEFAULT = QosProfile(depth=42)
"""What is left out of a token."""
_NUMBERS: dict[str, dict[Any, int]] = {
    "reliability": dict(zip(get_args(Reliability), (1, 2), strict=True)),
    "durability": dict(zip(get_args(Durability), (2, 1), strict=True)),
    "history": dict(zip(get_args(History), (1, 2), strict=True)),
    "liveliness": dict(zip(get_args(Liveliness), (1, 3), strict=True)),
}
"""rmw/types.h's numbers."""


def topic_key(domain: int, topic: str, type_name: str, type_hash: str) -> str:
    """Where the messages of a topic (its full name) are put."""
    return f"{domain}/{topic.strip('/')}/{dds_type(type_name)}/{type_hash}"


@dataclass(frozen=True)
class Token:
    """A node (``kind`` "NN"), or an endpoint of one: its presence in the graph. Names as ROS has them; ``session``:
    Zenoh's id. Services ("SS", "SC") are known of and not spoken."""

    domain: str
    session: str
    node_id: str
    entity_id: str
    kind: str
    enclave: str
    namespace: str
    node: str
    topic: str = ""
    type: str = ""
    hash: str = ""
    qos: QosProfile = _DEFAULT

    @property
    def key(self) -> str:
        names = (self.enclave, self.namespace, self.node)
        parts = [ADMIN, self.domain, self.session, self.node_id, self.entity_id, self.kind, *map(_mangled, names)]
        if self.kind != NODE:
            parts += [_mangled(self.topic), dds_type(self.type), self.hash, encode_qos(self.qos)]
        return "/".join(parts)

    @property
    def full_node_name(self) -> str:
        return full_name(self.node, self.namespace)

    @classmethod
    def parse(cls, key: str) -> Token | None:
        """``None`` for what rmw_zenoh_cpp would not take either. Parts that a later version adds are not looked at."""
        parts = key.split("/")
        if parts[0] != ADMIN or len(parts) < 9 or not all(parts) or parts[5] not in _KINDS:
            return None
        domain, session, node_id, entity_id, kind, *more = parts[1:]
        enclave, namespace, name, *more = map(_demangled, more)
        node = cls(domain, session, node_id, entity_id, kind, enclave, namespace, name)
        if kind == NODE:
            return node
        qos = decode_qos(more[3]) if len(more) >= 4 else None
        return None if qos is None else replace(node, topic=more[0], type=ros_type(more[1]), hash=more[2], qos=qos)


def encode_qos(qos: QosProfile) -> str:
    """``reliability:durability:history,depth:deadline:lifespan:liveliness,lease``; what is default is left out."""
    number = {
        field.name: ""
        if (value := getattr(qos, field.name)) == getattr(_DEFAULT, field.name)
        else str(_NUMBERS[field.name][value])
        for field in fields(qos)
        if field.name in _NUMBERS
    }
    depth = "" if qos.depth == _DEFAULT.depth else str(qos.depth)
    return ":".join(
        [
            number["reliability"],
            number["durability"],
            f"{number['history']},{depth}",
            _seconds(qos.deadline_s),
            _seconds(qos.lifespan_s),
            f"{number['liveliness']},{_seconds(qos.lease_s)}",
        ]
    )


def decode_qos(text: str) -> QosProfile | None:
    """The inverse of :func:`encode_qos`; ``None`` if it is none."""
    try:
        reliability, durability, history, deadline, lifespan, liveliness, *_ = text.split(":")
        history, depth = history.split(",")
        liveliness, _, lease = liveliness.partition(",")
        return QosProfile(
            _policy("reliability", reliability),
            _policy("durability", durability),
            _policy("history", history),
            int(depth) if depth else _DEFAULT.depth,
            _duration(deadline),
            _duration(lifespan),
            _policy("liveliness", liveliness),
            _duration(lease),
        )
    except ValueError:
        return None


def _policy(name: str, number: str) -> Any:
    """Raises ValueError for a number that no policy has."""
    if not number or number == "0":
        return getattr(_DEFAULT, name)
    found = [value for value, known in _NUMBERS[name].items() if number == str(known)]
    if not found:
        raise ValueError(number)
    return found[0]


def _seconds(value: float | None) -> str:
    if value is None:
        return ","
    whole, rest = divmod(round(value * 1e9), 10**9)
    return f"{whole},{rest}"


def _duration(text: str) -> float | None:
    seconds, nanoseconds = text.split(",")
    value = int(seconds or 0) + int(nanoseconds or 0) * 1e-9
    return value or None


def _mangled(name: str) -> str:
    return name.replace("/", "%")


def _demangled(name: str) -> str:
    return name.replace("%", "/")
