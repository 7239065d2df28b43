"""A bare host: the steps of a session over anything that takes and gives bytes, and the trace of the outputs."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

from kizzasi_bridge import Decoder, Frame, encode
from kizzasi_bridge.handshake import Handshake
from kizzasi_bridge.protocol import Ack, Arm, ChannelLimits, Clear, Command, Hello, Limits, MsgType, SchemaData, State

CHANNELS = 6
LIMITS = Limits((ChannelLimits(-100_000, 100_000, 1000, 50),) * CHANNELS, 2000, 3, 250, 500)
PATIENCE = 4000  # exchanges without the answer that is waited for


class Host:
    """``exchange(data)`` hands bytes over, lets the firmware live on for a while and returns what it sent meanwhile."""

    def __init__(self, exchange: Callable[[bytes], bytes], limits: Limits = LIMITS) -> None:
        self._exchange = exchange
        self.limits = limits
        self.decoder = Decoder()
        self.raw = bytearray()
        self.seq = 0
        self.session = 0
        self.now: State | None = None
        self.hello: Hello | None = None
        self.hellos = 0
        self._out = bytearray()
        self._clock = 0.0
        self.handshake = Handshake(self.put)

    def put(self, kind: int, payload: bytes = b"", *, seq: int | None = None) -> None:
        """Queue a frame for the next ``live``."""
        if seq is None:
            self.seq = seq = (self.seq + 1) & 0xFFFF
        self._out += encode(kind, payload, seq=seq, t_us=0)

    def out(self) -> bytes:
        """The bytes of the queued frames, which then count as sent."""
        data = bytes(self._out)
        self._out.clear()
        return data

    def live(self, times: int = 1) -> list[Frame]:
        """Exchange so many times; the frames that came."""
        frames: list[Frame] = []
        for _ in range(times):
            data = self._exchange(self.out())
            self.raw += data
            frames += self.decoder.feed(data)
        for frame in frames:
            if frame.type == MsgType.STATE:
                self.now = State.unpack(frame.payload)
            elif frame.type == MsgType.HELLO:
                self.hello = Hello.unpack(frame.payload)
                self.hellos += 1
                self.handshake.on_hello(self.hello)
            elif frame.type == MsgType.SCHEMA_DATA:
                self.handshake.on_schema_data(SchemaData.unpack(frame.payload))
        return frames

    def until(self, condition: Callable[[], object]) -> None:
        """Live until ``condition()``."""
        for _ in range(PATIENCE):
            if condition():
                return
            self.live()
        raise AssertionError(f"waited in vain; last STATE {self.now}, HELLO {self.hello}")

    def request(self, kind: int, payload: bytes = b"") -> Ack:
        """Send a request and wait for its ACK."""
        self.put(kind, payload)
        for _ in range(PATIENCE):
            for frame in self.live():
                if frame.type == MsgType.ACK and (ack := Ack.unpack(frame.payload)).request_seq == self.seq:
                    return ack
        raise AssertionError(f"no ACK to {MsgType(kind).name}")

    def introduce(self) -> Hello:
        """HELLO and the schema, by the link's own handshake."""
        for _ in range(PATIENCE):
            if self.handshake.done:
                break
            self._clock += 0.01
            self.handshake.tick(self._clock)
            self.live()
        assert self.handshake.problem is None
        assert self.hello is not None
        return self.hello

    @property
    def limits_hash(self) -> int:
        assert self.hello is not None
        return self.limits.hash(self.hello.schema_hash)

    def upload(self) -> None:
        """LIMITS and COMMIT."""
        hello = self.introduce()
        for payload in self.limits.channel_payloads():
            assert self.request(MsgType.LIMITS, payload).result == 0
        assert self.request(MsgType.LIMITS_COMMIT, self.limits.commit_payload(hello.schema_hash)).result == 0

    def arm(self) -> Ack:
        """ARM with the newest nonce; remembers the session."""
        self.now = None
        self.until(lambda: self.now)
        assert self.now is not None
        ack = self.request(MsgType.ARM, Arm(self.now.nonce, self.limits_hash).pack())
        self.session = ack.value
        return ack

    def clear(self) -> Ack:
        """CLEAR with the newest nonce."""
        assert self.now is not None
        return self.request(MsgType.CLEAR, Clear(self.now.nonce).pack())

    def command(self, values: Sequence[int], *, seq: int | None = None) -> None:
        """Queue a COMMAND computed from the newest STATE."""
        assert self.now is not None
        self.put(
            MsgType.COMMAND, Command(self.session, self.now.sample_t_us, self.limits.ttl_max_ms, values).pack(), seq=seq
        )


class Tick(NamedTuple):
    """What the outputs were on one tick."""

    t_us: int
    dt_us: int
    enabled: int
    state: int
    boundary: int
    n: int
    session: int
    out: tuple[int, ...]
    applied: tuple[int, ...]


class Trace:
    """Reads the "Plant socket" messages that the board sends on its second UART."""

    _LAYOUT = struct.Struct(f"<IIBBBBI{2 * CHANNELS}i")

    def __init__(self, tick_us: int = 1000) -> None:
        self._tick_us = tick_us
        self._rest = b""
        self.ticks: list[Tick] = []

    def feed(self, data: bytes) -> None:
        """Append the complete ticks to ``ticks``."""
        data = self._rest + data
        whole = len(data) // self._LAYOUT.size * self._LAYOUT.size
        self._rest = data[whole:]
        for fields in self._LAYOUT.iter_unpack(data[:whole]):
            head, values = fields[:7], fields[7:]
            tick = Tick(*head, values[:CHANNELS], values[CHANNELS:])
            assert (tick.dt_us, tick.n) == (self._tick_us, CHANNELS), "the trace is out of step"
            self.ticks.append(tick)
