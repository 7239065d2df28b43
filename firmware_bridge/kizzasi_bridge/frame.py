"""One frame of the wire, as both sides see it once COBS and CRC have been checked."""

from __future__ import annotations

import struct
from typing import NamedTuple

__all__ = ["DEFAULT_FLAGS", "HEADER", "MAX_PAYLOAD", "OVERHEAD", "PROTOCOL_MAJOR", "PROTOCOL_MINOR", "Frame"]

PROTOCOL_MAJOR = 1
PROTOCOL_MINOR = 0
DEFAULT_FLAGS = PROTOCOL_MAJOR << 4
HEADER = struct.Struct("<BBHI")  # type, flags, seq, t_us
MAX_PAYLOAD = 240
OVERHEAD = 15  # two delimiters, one COBS code, 8 bytes of header, 4 of CRC


class Frame(NamedTuple):
    """A checked frame: ``type``, ``flags`` (mode | major << 4), ``seq`` (u16), ``t_us`` (u32), ``payload``."""

    type: int
    flags: int
    seq: int
    t_us: int
    payload: bytes

    @property
    def major(self) -> int:
        """Protocol major of the sender."""
        return self.flags >> 4

    @property
    def mode(self) -> int:
        """Low four flag bits: the node's state on frames from the device, 0 on frames from the host."""
        return self.flags & 0x0F
