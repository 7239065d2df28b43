"""A node in virtual time: the firmware's object code with no port, no clock and no process around it.

Time passes only in ``tick``, so that two seconds of firmware life take a millisecond and a test decides what
happens between any two ticks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ._kz_core import ffi, lib
from .codec import Decoder, encode
from .errors import WireError
from .frame import DEFAULT_FLAGS, Frame
from .protocol import Ack, Hello, MsgType, NodeState, State
from .schema import CHANNEL_TYPES, Schema

__all__ = ["VirtualNode"]

_U32 = 0xFFFFFFFF
_ROOM = 1 << 16


class VirtualNode:
    """A booted node on a virtual board with ideal actuators.

    Args:
        schema: channels, sensors and tick.
        boot_id: seeds nonces and sessions.
        start_us: firmware time of the first tick (u32, wraps).

    Attributes:
        sensors: int32 view of what the sense hook reports next; write it.
        out: int32 view of what the actuate hook was last given (interpolated).
        applied: int32 view of the setpoints of the current period.
        t_us: time of the last tick.
        hello: the newest HELLO.   state: the newest STATE page.
    """

    def __init__(self, schema: Schema, *, boot_id: int = 1, start_us: int = 0) -> None:
        self._h = ffi.new("kz_host_node *")
        data = schema.to_bytes()
        modes = bytes(CHANNEL_TYPES.index(channel.type) for channel in schema.channels)
        n, m = len(schema.channels), len(schema.sensors)
        if not lib.kz_host_node_init(self._h, n, m, modes, data, len(data), schema.tick_us, boot_id, 0):
            raise WireError(f"{n} channels and {m} sensors do not fit this build of the node")
        self._h.ideal = 1
        self._decoder = Decoder()
        self._buffer = bytearray(_ROOM)
        self._seq = 0
        self._next_us = start_us
        self.tick_us = schema.tick_us
        self.t_us = start_us
        self.sensors = self._view(self._h.sensors, m)
        self.out = self._view(self._h.out, n)
        self.applied = self._view(self._h.applied, n)
        self.hello: Hello | None = None
        self.state: State | None = None

    @staticmethod
    def _view(array: object, n: int) -> NDArray[np.int32]:
        return np.frombuffer(ffi.buffer(array), np.int32)[:n]

    @property
    def state_now(self) -> NodeState:
        """Where the node stands; ``state`` is of the last period's beginning."""
        return NodeState(lib.kz_host_node_state(self._h))

    @property
    def fault(self) -> int:
        """A Fault, as of the last tick; so are the next three."""
        return int(self._h.fault)

    @property
    def applied_seq(self) -> int:
        """Frame seq of the newest COMMAND that was applied."""
        return int(self._h.applied_seq)

    @property
    def clamped(self) -> int:
        """Bit per channel: whether the guard had to change what COMMAND asked."""
        return int(self._h.clamped)

    @property
    def counters(self) -> tuple[int, int, int]:
        """STATE's misses, ignored, stale: u16, wrapping."""
        h = self._h
        return h.misses, h.ignored, h.stale

    @property
    def enabled(self) -> int:
        """Bit per channel: whether it is driven."""
        return int(self._h.enabled)

    @property
    def boundary(self) -> bool:
        """Whether the last tick began a period."""
        return bool(self._h.boundary)

    def inputs(self, bits: int) -> None:
        """Set what the sense hook reports: 1 local e-stop, 2 actuator fault, 4 sensor fault, 8 no sample yet."""
        self._h.inputs = bits

    def ideal(self, on: bool) -> None:
        """Whether sensors follow the outputs of driven channels."""
        self._h.ideal = on

    def send(
        self, type: int, payload: bytes = b"", *, seq: int | None = None, flags: int = DEFAULT_FLAGS
    ) -> list[Frame]:
        """Give the node one frame (own running ``seq`` unless stated); what it answers at once."""
        if seq is None:
            self._seq = seq = (self._seq + 1) & 0xFFFF
        return self.feed(encode(type, payload, seq=seq, t_us=0, flags=flags))

    def feed(self, data: bytes) -> list[Frame]:
        """Give the node raw bytes; what it answers at once."""
        lib.kz_host_node_rx(self._h, data, len(data))
        return self._take()

    def request(self, type: int, payload: bytes = b"", *, seq: int | None = None, flags: int = DEFAULT_FLAGS) -> Ack:
        """Send a request and return its ACK; raises WireError if there is not exactly one answer."""
        frames = self.send(type, payload, seq=seq, flags=flags)
        if [f.type for f in frames] != [MsgType.ACK]:
            raise WireError(f"expected one ACK, found {frames}")
        return Ack.unpack(frames[0].payload)

    def tick(self, n: int = 1) -> list[Frame]:
        """``n`` ticks; everything the node sent meanwhile."""
        frames: list[Frame] = []
        for _ in range(n):
            self.t_us = self._next_us
            lib.kz_host_node_tick(self._h, self.t_us)
            self._next_us = (self.t_us + self.tick_us) & _U32
            frames += self._take()
        return frames

    def tick_at(self, t_us: int) -> list[Frame]:
        """One tick at the firmware time ``t_us`` (u32)."""
        self._next_us = t_us
        return self.tick()

    def run_at(self, t_us: int) -> None:
        """As :meth:`tick_at`, for who does not listen: what the node sent is dropped unread, and ``state`` stays."""
        self.t_us = t_us
        lib.kz_host_node_tick(self._h, t_us)
        lib.kz_host_node_take(self._h, ffi.NULL, 0)
        self._next_us = (t_us + self.tick_us) & _U32

    def stall(self, us: int) -> None:
        """Let ``us`` pass without a tick."""
        self._next_us = (self._next_us + us) & _U32

    def _take(self) -> list[Frame]:
        n = lib.kz_host_node_take(self._h, ffi.from_buffer(self._buffer), _ROOM)
        if not n:
            return []
        frames = self._decoder.feed(bytes(self._buffer[:n]))
        for frame in frames:
            if frame.type == MsgType.STATE:
                self.state = State.unpack(frame.payload)
            elif frame.type == MsgType.HELLO:
                self.hello = Hello.unpack(frame.payload)
        return frames
