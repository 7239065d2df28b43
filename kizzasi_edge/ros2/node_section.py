"""What a ROS 2 node has on every transport: its domain, its name, and the distribution of the others."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Literal, get_args

from pydantic import Field, StrictInt, StrictStr

from kizzasi_edge.errors import ConfigError
from kizzasi_edge.ros2.names import NAMESPACE, PART
from kizzasi_edge.toml_file import Section

Distro = Literal["foxy", "galactic", "humble", "iron", "jazzy", "kilted", "lyrical", "rolling"]


class NodeSection(Section):
    """``domain`` (default ROS_DOMAIN_ID, else 0), ``node`` and ``namespace`` under which this process appears, and
    ``distro`` of the other nodes (default ROS_DISTRO)."""

    domain: Annotated[StrictInt, Field(ge=0, le=232)] | None = None
    node: Annotated[StrictStr, Field(pattern=rf"^{PART}$", max_length=255)] = "kizzasi_edge"
    namespace: Annotated[StrictStr, Field(pattern=NAMESPACE.pattern, max_length=255)] = "/"
    distro: Distro | None = None

    def domain_id(self, environ: Mapping[str, str] = os.environ) -> int:
        """Raises :class:`ConfigError` for a variable that ROS would not take; so does :meth:`distribution`."""
        if self.domain is not None:
            return self.domain
        text = environ.get("ROS_DOMAIN_ID") or "0"
        if not (text.isdecimal() and int(text) <= 232):
            raise ConfigError(f"domain: found ROS_DOMAIN_ID = {text!r}; expected 0 to 232")
        return int(text)

    def distribution(self, environ: Mapping[str, str] = os.environ) -> str:
        return self.distro or _distro(environ)


def ros_types(environ: Mapping[str, str] = os.environ) -> str:
    """The distribution whose message types are spoken in this process's ROS. Raises :class:`ConfigError` for a
    ROS_DISTRO that is not known."""
    return types_of(_distro(environ))


def types_of(distro: str) -> str:
    """The distribution whose message types are spoken there: a rolling one has its predecessor's."""
    return "lyrical" if distro == "rolling" else distro


def _distro(environ: Mapping[str, str]) -> str:
    text = environ.get("ROS_DISTRO") or "jazzy"
    if text not in get_args(Distro):
        raise ConfigError(f"distro: found ROS_DISTRO = {text!r}; expected one of {list(get_args(Distro))}")
    return text
