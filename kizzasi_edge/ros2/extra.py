"""Access to DDS and Zenoh. The modules that need their libraries are imported where they are used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from kizzasi_edge.errors import MissingExtra

if TYPE_CHECKING:
    from kizzasi_edge.ros2.dds_domain import Domain
    from kizzasi_edge.ros2.qos import QosProfile
    from kizzasi_edge.ros2.transport import MessageType, Transport
    from kizzasi_edge.ros2.zenoh_domain import ZenohDomain


class _Extra:
    """Whose transport and graph are modules with ``shared``, ``release`` and ``look``."""

    transport: ClassVar[str]
    graph: ClassVar[str]
    missing: ClassVar[str]

    def __init__(self, domain: Domain | ZenohDomain) -> None:
        self.domain = domain

    @property
    def types(self) -> str:
        return self.domain.types

    def join(self) -> Transport:
        transport: Transport = self._load(self.transport).shared(self.domain)
        return transport

    def leave(self, transport: Transport) -> None:
        self._load(self.transport).release(transport)

    def look(self, topic: str, kind: MessageType, qos: QosProfile, *, writes: bool) -> list[tuple[bool, str]]:
        found: list[tuple[bool, str]] = self._load(self.graph).look(self.domain, topic, kind, qos, writes=writes)
        return found

    def _load(self, module: str) -> Any:
        try:
            return import_module(f"kizzasi_edge.ros2.{module}")
        except ImportError as exc:
            raise MissingExtra(self.missing) from exc


class DdsAccess(_Extra):
    """The :class:`~kizzasi_edge.ros2.transport.Access` to one domain of DDS."""

    transport, graph = "dds", "graph"
    missing = "the dds connector needs Cyclone DDS: pip install 'kizzasi-edge[dds]'"


class ZenohAccess(_Extra):
    """The :class:`~kizzasi_edge.ros2.transport.Access` to one domain of Zenoh."""

    transport, graph = "zenoh", "zenoh_graph"
    missing = "the zenoh connector needs Eclipse Zenoh: pip install 'kizzasi-edge[zenoh]'"
