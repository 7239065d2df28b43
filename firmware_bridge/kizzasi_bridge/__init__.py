"""The bottom layer: errors, frames, the C core (guard, wire, node) bound by cffi, and the host's link to a board.

``encode``, ``Decoder`` and ``Link`` are imported when they are first used: naming an error or a message type
needs neither the extension nor pyserial.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import ConnectorError, KizzasiError, LinkError, WireError
from .frame import Frame

if TYPE_CHECKING:
    from .board import posix_board
    from .codec import Decoder, encode
    from .link import Link

__all__ = [
    "ConnectorError",
    "Decoder",
    "Frame",
    "KizzasiError",
    "Link",
    "LinkError",
    "WireError",
    "encode",
    "posix_board",
]

_LAZY = {"Decoder": "codec", "encode": "codec", "Link": "link", "posix_board": "board"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_LAZY[name]}", __name__), name)
    globals()[name] = value
    return value
