"""A ROS 2 domain in Cyclone DDS's terms: which network, which peers; from the config and ROS's own variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal
from xml.sax.saxutils import quoteattr

from pydantic import Field, StrictStr

from kizzasi_edge.errors import ConfigError
from kizzasi_edge.ros2.node_section import NodeSection, types_of

Discovery = Literal["subnet", "localhost", "off", "system_default"]
MAX_PARTICIPANTS = 32
"""Processes of one host that find each other by unicast: rmw_cyclonedds_cpp's number."""


class DomainSection(NodeSection):
    """Where a topic lives: besides the node, ``discovery`` (default ROS_LOCALHOST_ONLY and
    ROS_AUTOMATIC_DISCOVERY_RANGE, else "subnet"); ``peers`` besides ROS_STATIC_PEERS; ``interface``: a network
    interface's name; ``partition``: of DDS, for bridges that use them. ``distro`` decides how it introduces itself."""

    discovery: Discovery | None = None
    interface: Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9_.:-]+$")] | None = None
    peers: list[Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9_.:-]+$")]] = []
    partition: StrictStr = ""

    def settings(self, environ: Mapping[str, str] = os.environ) -> Domain:
        """With ROS's variables for what the config leaves open. Raises :class:`ConfigError` for a variable that ROS
        would not take."""
        ranged = self.discovery or _discovery(environ)
        static = [peer for peer in environ.get("ROS_STATIC_PEERS", "").split(";") if peer]
        peers = (*self.peers, *static) if ranged in ("subnet", "localhost") else ()
        return Domain(
            self.domain_id(environ),
            ranged,
            self.interface,
            peers,
            self.partition,
            self.node,
            self.namespace,
            self.distribution(environ),
        )


@dataclass(frozen=True)
class Domain:
    """One process's place in a ROS 2 graph. Equal ones share a participant."""

    id: int = 0
    discovery: Discovery = "subnet"
    interface: str | None = None
    peers: tuple[str, ...] = ()
    partition: str = ""
    node: str = "kizzasi_edge"
    namespace: str = "/"
    distro: str = "jazzy"

    @property
    def types(self) -> str:
        """The distribution whose message types are spoken here."""
        return types_of(self.distro)

    @property
    def gid_bytes(self) -> int:
        """A Gid grew short in Iron."""
        return 24 if self.distro in ("foxy", "galactic", "humble") else 16

    def cyclone_config(self, environ: Mapping[str, str] = os.environ) -> str:
        """Cyclone's configuration: what rmw_cyclonedds_cpp would make of the same settings, then CYCLONEDDS_URI, which
        has the last word."""
        general = discovery = ""
        if self.interface is not None:
            general += f"<Interfaces><NetworkInterface name={quoteattr(self.interface)}/></Interfaces>"
        if self.discovery in ("localhost", "off"):
            general += "<AllowMulticast>false</AllowMulticast>"
        peers = [*(["localhost"] if self.discovery == "localhost" else []), *self.peers]
        if self.discovery == "off":
            discovery += f"<ParticipantIndex>none</ParticipantIndex><Tag>ros_discovery_off_{os.getpid()}</Tag>"
        elif self.discovery != "system_default":
            discovery += "<ParticipantIndex>auto</ParticipantIndex>"
            discovery += f"<MaxAutoParticipantIndex>{MAX_PARTICIPANTS}</MaxAutoParticipantIndex>"
        if peers:
            discovery += "<Peers>" + "".join(f"<Peer address={quoteattr(peer)}/>" for peer in peers) + "</Peers>"
        ours = "".join(
            f"<{name}>{text}</{name}>" for name, text in (("General", general), ("Discovery", discovery)) if text
        )
        fragments = [f"<CycloneDDS><Domain>{ours}</Domain></CycloneDDS>"] if ours else []
        return ",".join([*fragments, *filter(None, [environ.get("CYCLONEDDS_URI")])])

    def __str__(self) -> str:
        return f"domain {self.id}, discovery {self.discovery}, interface {self.interface or 'any'}"


def _discovery(environ: Mapping[str, str]) -> Discovery:
    if environ.get("ROS_LOCALHOST_ONLY") == "1":
        return "localhost"
    text = environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE") or "SUBNET"
    ranges: dict[str, Discovery] = {
        "SUBNET": "subnet",
        "LOCALHOST": "localhost",
        "OFF": "off",
        "SYSTEM_DEFAULT": "system_default",
    }
    if text.upper() not in ranges:
        raise ConfigError(f"discovery: found ROS_AUTOMATIC_DISCOVERY_RANGE = {text!r}; expected one of {list(ranges)}")
    return ranges[text.upper()]
