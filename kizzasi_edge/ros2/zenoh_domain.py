"""Where rmw_zenoh_cpp's nodes are found: which router or peers; from the config and rmw_zenoh_cpp's own variables."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StrictStr

from kizzasi_edge.errors import ConfigError
from kizzasi_edge.ros2.names import NAMESPACE
from kizzasi_edge.ros2.node_section import NodeSection, types_of
from kizzasi_edge.ros2.zenoh_keys import NO_HASH

Mode = Literal["peer", "client"]
Locator = Annotated[StrictStr, Field(pattern=r"^[a-z0-9_-]+/\S+$")]
ROUTER = "tcp/localhost:7447"
OURS = {
    "scouting/multicast/enabled": False,
    "scouting/gossip/target": {"router": ["router", "peer"], "peer": ["router"]},
    "timestamping/enabled": True,  # a late joiner's history needs it
    "queries_default_timeout": 60_000,
    "transport/link/tx/queue/congestion_control/drop/wait_before_drop": 0,  # publish never waits,
    "transport/link/tx/queue/size/data": 16,  # nor drops because the sending thread was held up for a moment
}
"""What differs from Zenoh's own defaults: as in rmw_zenoh_cpp's session config, but for the last two."""


class ZenohSection(NodeSection):
    """Where a topic lives: besides the node, its ``enclave``; ``mode``; ``connect`` and ``listen``: locators
    ("tcp/192.168.1.5:7447"), by default those of an rmw_zenoh_cpp node: a router on this host; ``config``: a file of
    Zenoh's (JSON5; default ZENOH_SESSION_CONFIG_URI) that takes the place of all those defaults."""

    mode: Mode | None = None
    connect: list[Locator] | None = None
    listen: list[Locator] | None = None
    config: StrictStr | None = None
    enclave: Annotated[StrictStr, Field(pattern=NAMESPACE.pattern, max_length=255)] = "/"

    def settings(self, base: Path, environ: Mapping[str, str] = os.environ) -> ZenohDomain:
        """``base``: the robot.toml's folder. Raises :class:`ConfigError` for a variable that ROS would not take, a file
        that is not there, a distribution without rmw_zenoh_cpp."""
        distro = self.distribution(environ)
        if distro in ("foxy", "galactic"):
            raise ConfigError(f"distro: found {distro!r}; expected 'humble' or later: rmw_zenoh_cpp begins there")
        name = environ.get("ZENOH_SESSION_CONFIG_URI") or None if self.config is None else str(base / self.config)
        if name is not None and not Path(name).is_file():
            raise ConfigError(f"config: found {name!r}; expected a file of Zenoh's configuration")
        return ZenohDomain(
            self.domain_id(environ),
            self.mode,
            None if self.connect is None else tuple(self.connect),
            None if self.listen is None else tuple(self.listen),
            name,
            self.node,
            self.namespace,
            distro,
            self.enclave,
        )


@dataclass(frozen=True)
class ZenohDomain:
    """One process's place among the nodes of rmw_zenoh_cpp. Equal ones share a session. ``None``: as the file says, or
    without one, as rmw_zenoh_cpp does."""

    id: int = 0
    mode: Mode | None = None
    connect: tuple[str, ...] | None = None
    listen: tuple[str, ...] | None = None
    file: str | None = None
    node: str = "kizzasi_edge"
    namespace: str = "/"
    distro: str = "jazzy"
    enclave: str = "/"

    @property
    def types(self) -> str:
        """The distribution whose message types are spoken here."""
        return types_of(self.distro)

    def wire_hash(self, rihs: str) -> str:
        """A type's hash in keys: Humble has none."""
        return NO_HASH if self.distro == "humble" else rihs

    def overrides(self, environ: Mapping[str, str] = os.environ) -> list[tuple[str, str]]:
        """(key, JSON5) on top of the file, or of Zenoh's own defaults; ZENOH_CONFIG_OVERRIDE (``key=value;key=value``)
        has the last word. Raises :class:`ConfigError` where that is not of this form."""
        ours: dict[str, object] = {}
        if self.file is None:
            listen = [] if self.mode == "client" else ["tcp/localhost:0"]
            ours = {**OURS, "mode": "peer", "connect/endpoints": [ROUTER], "listen/endpoints": listen}
        given = {"mode": self.mode, "connect/endpoints": self.connect, "listen/endpoints": self.listen}
        ours |= {key: value for key, value in given.items() if value is not None}
        found = [(key, json.dumps(value)) for key, value in ours.items()]
        for pair in filter(None, environ.get("ZENOH_CONFIG_OVERRIDE", "").split(";")):
            key, equals, value = pair.partition("=")
            if not (key and equals and value):
                raise ConfigError(f"found ZENOH_CONFIG_OVERRIDE with {pair!r}; expected key=value;key=value")
            found.append((key, value))
        return found

    def __str__(self) -> str:
        given = {"mode": self.mode, "connect": self.connect, "listen": self.listen, "config": self.file}
        texts = [
            f"{key} {', '.join(value) or 'none' if isinstance(value, tuple) else value}"
            for key, value in given.items()
            if value is not None
        ]
        if self.connect is None and self.file is None:
            texts.append(f"connect {ROUTER}")
        return ", ".join([f"domain {self.id}, Zenoh", *texts])
