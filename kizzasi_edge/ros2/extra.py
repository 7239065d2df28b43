"""Access to DDS. The modules that need Cyclone are imported where they are used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kizzasi_edge.errors import MissingExtra

if TYPE_CHECKING:
    from kizzasi_edge.ros2.dds_domain import Domain
    from kizzasi_edge.ros2.qos import QosProfile
    from kizzasi_edge.ros2.transport import MessageType, Transport


class DdsAccess:
    """The :class:`~kizzasi_edge.ros2.transport.Access` to one domain."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain

    @property
    def types(self) -> str:
        return self.domain.types

    def join(self) -> Transport:
        transport: Transport = _load("dds").shared(self.domain)
        return transport

    def leave(self, transport: Transport) -> None:
        _load("dds").release(transport)

    def look(self, topic: str, kind: MessageType, qos: QosProfile, *, writes: bool) -> list[tuple[bool, str]]:
        """:func:`kizzasi_edge.ros2.graph.look`."""
        found: list[tuple[bool, str]] = _load("graph").look(self.domain, topic, kind, qos, writes=writes)
        return found


def _load(module: str) -> Any:
    try:
        return import_module(f"kizzasi_edge.ros2.{module}")
    except ImportError as exc:
        raise MissingExtra("the dds connector needs Cyclone DDS: pip install 'kizzasi-edge[dds]'") from exc
