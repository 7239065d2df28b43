"""Cyclone configures a domain's network once in a process, so all of its participants there must want the same."""

from __future__ import annotations

import threading

from cyclonedds.core import DDSException
from cyclonedds.domain import Domain as CycloneDomain

from kizzasi_edge.errors import ConnectorError
from kizzasi_edge.ros2.dds_domain import Domain

_open: dict[int, tuple[str, CycloneDomain, int]] = {}
"""Domain id → its configuration, Cyclone's entity, and how many use it."""
_lock = threading.Lock()


def acquire(domain: Domain) -> None:
    """Raises :class:`ConnectorError` where Cyclone cannot have these settings, or has others already."""
    config = domain.cyclone_config()
    with _lock:
        known, entity, users = _open.get(domain.id) or (config, None, 0)
        if known != config:
            raise ConnectorError(f"{domain}: this process uses domain {domain.id} with other network settings already")
        try:
            _open[domain.id] = (config, entity or CycloneDomain(domain.id, config), users + 1)
        except DDSException as exc:
            raise ConnectorError(f"{domain}: {exc}") from exc


def release(domain: Domain) -> None:
    """One user fewer; the last one takes the settings with it."""
    with _lock:
        config, entity, users = _open.pop(domain.id)
        if users > 1:
            _open[domain.id] = (config, entity, users - 1)
