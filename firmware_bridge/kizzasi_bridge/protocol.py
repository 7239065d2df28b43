"""Message types, result codes and payload layouts (docs/protocol.md); everything is little-endian.

The layouts live here once for the host. The firmware has the same tables in ``c/kz_node.c``; the tests of
``docs/protocol.md`` hold the two and the page together.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from .errors import WireError

__all__ = [
    "INVALID",
    "VALUES_PER_PAGE",
    "Ack",
    "AckResult",
    "Arm",
    "ChannelLimits",
    "Clear",
    "Command",
    "Fault",
    "FaultReport",
    "Hello",
    "Limits",
    "Log",
    "MsgType",
    "NodeState",
    "ResetCause",
    "SchemaData",
    "SchemaGet",
    "State",
    "StopCategory",
    "TimeRequest",
    "TimeResponse",
]

INVALID = -(2**31)
"""COMMAND value that says "no valid value": the node goes to FAILSAFE."""

NO_SAFE = -(2**31)
"""``safe`` of a channel that FAILSAFE leaves where it came to rest."""

VALUES_PER_PAGE = 53
"""How many i32 fit behind the 28-byte STATE header."""


class MsgType(IntEnum):
    """Frame types."""

    HELLO_REQ = 1
    HELLO = 2
    SCHEMA_GET = 3
    SCHEMA_DATA = 4
    LIMITS = 5
    LIMITS_COMMIT = 6
    ACK = 7
    ARM = 8
    DISARM = 9
    CLEAR = 10
    STATE = 11
    COMMAND = 12
    HEARTBEAT = 13
    ESTOP = 14
    FAULT = 15
    LOG = 16
    TIME_REQ = 17
    TIME_RSP = 18


class NodeState(IntEnum):
    """States of the node; FAILSAFE and ESTOP are latched."""

    INIT = 0
    READY = 1
    ARMED = 2
    FAILSAFE = 3
    ESTOP = 4


class Fault(IntEnum):
    """Why the node is in FAILSAFE or ESTOP (the first cause is kept until CLEAR)."""

    NONE = 0
    TTL = 1
    ARM_TTL = 2
    INVALID_VALUE = 3
    ACTUATOR = 4
    SENSOR = 5
    HOST = 6
    ESTOP_HOST = 7
    ESTOP_LOCAL = 8


class AckResult(IntEnum):
    """Answers to a request; everything but OK is a refusal without effect."""

    OK = 0
    WRONG_STATE = 1
    WRONG_NONCE = 2
    WRONG_LIMITS_HASH = 3
    BAD_LIMITS = 4
    HASH_MISMATCH = 5
    NO_MEASUREMENT = 6
    BAD_LENGTH = 7
    NOT_AT_REST = 8
    ESTOP_INPUT = 9


class ResetCause(IntEnum):
    """Why the device booted."""

    POWER_ON = 0
    WATCHDOG = 1
    SOFTWARE = 2
    BROWN_OUT = 3


class StopCategory(IntEnum):
    """What ESTOP does to a channel."""

    CUT = 0
    BRAKE_THEN_CUT = 1


def _pack(layout: struct.Struct, what: str, *values: object) -> bytes:
    try:
        return layout.pack(*values)
    except struct.error as e:
        raise WireError(f"{what}: {e}; found {values}") from None


def _unpack(layout: struct.Struct, what: str, payload: bytes) -> tuple[int, ...]:
    if len(payload) != layout.size:
        raise WireError(f"{what}: payload of {len(payload)} bytes, expected {layout.size}")
    return layout.unpack(payload)


_HELLO = struct.Struct("<BBBBBBHIIIII")
_SCHEMA_GET = struct.Struct("<HH")
_LIMITS = struct.Struct("<BBHiiiiiI")
_COMMIT = struct.Struct("<IBBHHHI")
_ACK = struct.Struct("<BBHI")
_ARM = struct.Struct("<II")
_U32 = struct.Struct("<I")
_STATE = struct.Struct("<BBBBIIHHIHHHH")
_COMMAND = struct.Struct("<IIH")
_TIME_RSP = struct.Struct("<II")


@dataclass(frozen=True, slots=True)
class Hello:
    """HELLO: who is there, and the nonce that ARM and CLEAR must echo."""

    n_channels: int
    n_sensors: int
    reset_cause: int
    state: int
    schema_len: int
    boot_id: int
    schema_hash: int
    limits_hash: int
    nonce: int
    period_us: int
    major: int = 1
    minor: int = 0

    def pack(self) -> bytes:
        """28 bytes."""
        return _pack(
            _HELLO, "HELLO", self.major, self.minor, self.n_channels, self.n_sensors, self.reset_cause,
            self.state, self.schema_len, self.boot_id, self.schema_hash, self.limits_hash, self.nonce,
            self.period_us,
        )  # fmt: skip

    @classmethod
    def unpack(cls, payload: bytes) -> Hello:
        """Raises WireError on a wrong length."""
        versions_first = _unpack(_HELLO, "HELLO", payload)
        fields = (*versions_first[2:], *versions_first[:2])
        return cls(*fields)


@dataclass(frozen=True, slots=True)
class SchemaGet:
    """SCHEMA_GET: ask for ``length`` bytes of the compressed schema from ``offset``."""

    offset: int
    length: int

    def pack(self) -> bytes:
        """4 bytes."""
        return _pack(_SCHEMA_GET, "SCHEMA_GET", self.offset, self.length)

    @classmethod
    def unpack(cls, payload: bytes) -> SchemaGet:
        """Raises WireError on a wrong length."""
        return cls(*_unpack(_SCHEMA_GET, "SCHEMA_GET", payload))


@dataclass(frozen=True, slots=True)
class SchemaData:
    """SCHEMA_DATA: a chunk; it may be shorter than what was asked for (small boards), and empty at the end."""

    offset: int
    data: bytes

    def pack(self) -> bytes:
        """2 + len(data) bytes."""
        return self.offset.to_bytes(2, "little") + self.data

    @classmethod
    def unpack(cls, payload: bytes) -> SchemaData:
        """Raises WireError if there is no offset."""
        if len(payload) < 2:
            raise WireError(f"SCHEMA_DATA: payload of {len(payload)} bytes, expected at least 2")
        return cls(int.from_bytes(payload[:2], "little"), payload[2:])


@dataclass(frozen=True, slots=True)
class ChannelLimits:
    """Limits of one channel in quanta, by the mode of its drive (docs/protocol.md, "Channels"): range [lo, hi], step w
    per period, change of step h per period².

    ``safe``: where FAILSAFE takes a position, once at rest; NO_SAFE: it holds. ``kd``: damping of a torque channel, in
    quanta of torque per quantum of motion measured in a period, below 2²⁴.
    """

    lo: int
    hi: int
    w: int
    h: int
    safe: int = NO_SAFE
    kd: float = 0.0
    stop_category: int = StopCategory.BRAKE_THEN_CUT

    def pack(self, channel: int) -> bytes:
        """LIMITS payload, 28 bytes. Raises WireError if a value does not fit."""
        kd = _U32.unpack(struct.pack("<f", self.kd))[0]
        return _pack(
            _LIMITS, f"LIMITS of channel {channel}", channel, self.stop_category, 0, self.lo, self.hi,
            self.w, self.h, self.safe, kd,
        )  # fmt: skip

    @classmethod
    def unpack(cls, payload: bytes) -> tuple[int, ChannelLimits]:
        """(channel, limits). Raises WireError on a wrong length."""
        channel, category, _, lo, hi, w, h, safe, kd = _unpack(_LIMITS, "LIMITS", payload)
        return channel, cls(lo, hi, w, h, safe, struct.unpack("<f", _U32.pack(kd))[0], category)


@dataclass(frozen=True, slots=True)
class Limits:
    """Everything LIMITS and LIMITS_COMMIT carry: the integers that both guards are built from."""

    channels: tuple[ChannelLimits, ...]
    period_us: int
    miss_budget: int
    ttl_max_ms: int
    arm_ttl_ms: int

    def commit_head(self) -> bytes:
        """The 12 bytes of LIMITS_COMMIT before the hash."""
        return _pack(
            _COMMIT, "LIMITS_COMMIT", self.period_us, self.miss_budget, len(self.channels), self.ttl_max_ms,
            self.arm_ttl_ms, 0, 0,
        )[:12]  # fmt: skip

    def canonical(self, schema_hash: int) -> bytes:
        """The bytes that are hashed: schema hash, the LIMITS payloads in channel order, the commit head."""
        body = b"".join(limit.pack(i) for i, limit in enumerate(self.channels))
        return _pack(_U32, "schema hash", schema_hash) + body + self.commit_head()

    def hash(self, schema_hash: int) -> int:
        """CRC-32 over ``canonical``; the node shows it in HELLO once it has adopted these limits."""
        return zlib.crc32(self.canonical(schema_hash))

    def channel_payloads(self) -> list[bytes]:
        """One LIMITS payload for each channel, in order."""
        return [limit.pack(i) for i, limit in enumerate(self.channels)]

    def commit_payload(self, schema_hash: int) -> bytes:
        """LIMITS_COMMIT payload, 16 bytes."""
        return self.commit_head() + _U32.pack(self.hash(schema_hash))


@dataclass(frozen=True, slots=True)
class Ack:
    """ACK: ``value`` is the session (ARM), the hash (LIMITS_COMMIT), the new nonce (CLEAR), else 0."""

    request_type: int
    result: int
    request_seq: int
    value: int

    def pack(self) -> bytes:
        """8 bytes."""
        return _pack(_ACK, "ACK", self.request_type, self.result, self.request_seq, self.value)

    @classmethod
    def unpack(cls, payload: bytes) -> Ack:
        """Raises WireError on a wrong length."""
        return cls(*_unpack(_ACK, "ACK", payload))


@dataclass(frozen=True, slots=True)
class Arm:
    """ARM: the current nonce and the hash of the limits that the host guards with."""

    nonce: int
    limits_hash: int

    def pack(self) -> bytes:
        """8 bytes."""
        return _pack(_ARM, "ARM", self.nonce, self.limits_hash)

    @classmethod
    def unpack(cls, payload: bytes) -> Arm:
        """Raises WireError on a wrong length."""
        return cls(*_unpack(_ARM, "ARM", payload))


@dataclass(frozen=True, slots=True)
class Clear:
    """CLEAR: leaves FAILSAFE or ESTOP, given the current nonce."""

    nonce: int

    def pack(self) -> bytes:
        """4 bytes."""
        return _pack(_U32, "CLEAR", self.nonce)

    @classmethod
    def unpack(cls, payload: bytes) -> Clear:
        """Raises WireError on a wrong length."""
        return cls(*_unpack(_U32, "CLEAR", payload))


@dataclass(frozen=True, slots=True)
class State:
    """One STATE page: header, then the values [53·page, 53·page + 53) of applied ++ sensors (raw i32)."""

    state: int
    fault: int
    page: int
    n_pages: int
    nonce: int
    session: int
    applied_seq: int
    clamp_mask: int
    sample_t_us: int
    rx_errors: int
    ignored: int
    misses: int
    stale: int
    values: tuple[int, ...] = ()

    def pack(self) -> bytes:
        """28 + 4·len(values) bytes."""
        head = _pack(
            _STATE, "STATE", self.state, self.fault, self.page, self.n_pages, self.nonce, self.session,
            self.applied_seq, self.clamp_mask, self.sample_t_us, self.rx_errors, self.ignored, self.misses,
            self.stale,
        )  # fmt: skip
        return head + struct.pack(f"<{len(self.values)}i", *self.values)

    @classmethod
    def unpack(cls, payload: bytes) -> State:
        """Raises WireError on a wrong length."""
        tail = len(payload) - _STATE.size
        if tail < 0 or tail % 4:
            raise WireError(f"STATE: payload of {len(payload)} bytes, expected {_STATE.size} + 4·values")
        values = struct.unpack_from(f"<{tail // 4}i", payload, _STATE.size)
        fields = (*_STATE.unpack_from(payload), values)
        return cls(*fields)


@dataclass(frozen=True, slots=True)
class Command:
    """COMMAND: setpoints (raw i32, INVALID = none) computed from the observation stamped ``obs_t_us``."""

    session: int
    obs_t_us: int
    ttl_ms: int
    values: Sequence[int]

    def pack(self) -> bytes:
        """10 + 4·n bytes."""
        head = _pack(_COMMAND, "COMMAND", self.session, self.obs_t_us, self.ttl_ms)
        try:
            return head + struct.pack(f"<{len(self.values)}i", *self.values)
        except struct.error as e:
            raise WireError(f"COMMAND: {e}; found {list(self.values)}") from None

    @classmethod
    def unpack(cls, payload: bytes) -> Command:
        """Raises WireError on a wrong length."""
        tail = len(payload) - _COMMAND.size
        if tail < 0 or tail % 4:
            raise WireError(f"COMMAND: payload of {len(payload)} bytes, expected {_COMMAND.size} + 4·channels")
        values = struct.unpack_from(f"<{tail // 4}i", payload, _COMMAND.size)
        fields = (*_COMMAND.unpack_from(payload), values)
        return cls(*fields)


@dataclass(frozen=True, slots=True)
class FaultReport:
    """FAULT, host → node: trips FAILSAFE. ``text`` is for people who read a capture."""

    code: int
    text: str = ""

    def pack(self) -> bytes:
        """1 + len(text) bytes (UTF-8)."""
        return bytes([self.code]) + self.text.encode()


@dataclass(frozen=True, slots=True)
class Log:
    """LOG: a line of text from the device; level as in syslog (0 emergency … 7 debug)."""

    level: int
    text: str

    def pack(self) -> bytes:
        """1 + len(text) bytes (UTF-8)."""
        return bytes([self.level]) + self.text.encode()

    @classmethod
    def unpack(cls, payload: bytes) -> Log:
        """Raises WireError on an empty payload."""
        if not payload:
            raise WireError("LOG: empty payload")
        return cls(payload[0], payload[1:].decode(errors="replace"))


@dataclass(frozen=True, slots=True)
class TimeRequest:
    """TIME_REQ: the node answers at once with its clock."""

    cookie: int

    def pack(self) -> bytes:
        """4 bytes."""
        return _pack(_U32, "TIME_REQ", self.cookie)


@dataclass(frozen=True, slots=True)
class TimeResponse:
    """TIME_RSP: the cookie of the request and the node's clock; the offset is for logs only."""

    cookie: int
    t_us: int

    @classmethod
    def unpack(cls, payload: bytes) -> TimeResponse:
        """Raises WireError on a wrong length."""
        return cls(*_unpack(_TIME_RSP, "TIME_RSP", payload))

    def pack(self) -> bytes:
        """8 bytes."""
        return _pack(_TIME_RSP, "TIME_RSP", self.cookie, self.t_us)
