"""The modules that need Cyclone DDS, imported where they are used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kizzasi_edge.errors import MissingExtra

if TYPE_CHECKING:
    from kizzasi_edge.ros2.dds import Dds
    from kizzasi_edge.ros2.dds_domain import Domain
    from kizzasi_edge.ros2.qos import QosProfile
    from kizzasi_edge.ros2.transport import MessageType


def shared(domain: Domain) -> Dds:
    """:func:`kizzasi_edge.ros2.dds.shared`. Raises :class:`MissingExtra` without Cyclone DDS."""
    transport: Dds = _load("dds").shared(domain)
    return transport


def release(transport: Dds) -> None:
    _load("dds").release(transport)


def look(domain: Domain, topic: str, kind: MessageType, qos: QosProfile, *, writes: bool) -> list[tuple[bool, str]]:
    """:func:`kizzasi_edge.ros2.graph.look`."""
    found: list[tuple[bool, str]] = _load("graph").look(domain, topic, kind, qos, writes=writes)
    return found


def _load(module: str) -> Any:
    try:
        return import_module(f"kizzasi_edge.ros2.{module}")
    except ImportError as exc:
        raise MissingExtra("the dds connector needs Cyclone DDS: pip install 'kizzasi-edge[dds]'") from exc
