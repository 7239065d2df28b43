"""Connectors by name. Other packages add theirs through the entry-point group ``kizzasi_edge.connectors``."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from kizzasi_edge.errors import ConfigError

BUILT_IN = {
    "bag": "kizzasi_edge.connectors.bag:Bag",
    "dds": "kizzasi_edge.connectors.dds:DdsTopic",
    "ros2": "kizzasi_edge.connectors.ros2:RosTopic",
    "serial": "kizzasi_edge.connectors.serial:SerialDevice",
    "waypoints": "kizzasi_edge.connectors.waypoints:Waypoints",
    "zenoh": "kizzasi_edge.connectors.zenoh:ZenohTopic",
}
"""Name → ``module:class``, imported when a config asks for it."""


def available() -> dict[str, str]:
    """All connector names and where each comes from."""
    return {
        **{point.name: point.value for point in entry_points(group="kizzasi_edge.connectors")},
        **BUILT_IN,
    }


def connector_class(name: str, where: str, *, writes: bool = False) -> Any:
    """Import the class behind ``name``; for an ``[[output]]`` its ``Output``, where reading and writing are two.

    Raises :class:`ConfigError` for an unknown one.
    """
    table = available()
    if name not in table:
        raise ConfigError(f"{where} connector: found {name!r}; expected one of {sorted(table)}")
    module, _, attribute = table[name].partition(":")
    found = getattr(import_module(module), attribute)
    return getattr(found, "Output", found) if writes else found
