"""Real sessions, recorded as firmware_bridge/c/prove/fuzz_node.c reads them: its corpus begins with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kizzasi_bridge.frame import Frame
from kizzasi_bridge.protocol import Arm, ChannelLimits, Clear, Command, Limits, MsgType
from kizzasi_bridge.schema import Schema
from kizzasi_bridge.virtual import VirtualNode

__all__ = ["SESSIONS", "Recorder"]

BOOT = 1


@dataclass(frozen=True)
class _Fuzzed(Schema):
    """The schema of the fuzzed board, so that the limits' hash is right there too."""

    def to_bytes(self) -> bytes:
        return b"watch"


class Recorder(VirtualNode):
    """A node with two channels that writes down its events."""

    def __init__(self) -> None:
        self.log = bytes([1]) + BOOT.to_bytes(4, "little") + bytes(4)
        super().__init__(_Fuzzed.positions(("a", "b"), scale=1.0), boot_id=BOOT)
        self._next_us = self.tick_us  # the fuzzed node's first tick
        self.session = 0

    def feed(self, data: bytes) -> list[Frame]:
        for at in range(0, len(data), 32):
            chunk = data[at : at + 32]
            self.log += bytes([(len(chunk) - 1) << 3 | 2]) + chunk
        return super().feed(data)

    def tick(self, n: int = 1) -> list[Frame]:
        for at in range(0, n, 32):
            self.log += bytes([(min(32, n - at) - 1) << 3])
        return super().tick(n)

    def inputs(self, bits: int) -> None:
        self.log += bytes([5, bits])
        super().inputs(bits)

    def nonce(self) -> int:
        self.send(MsgType.HELLO_REQ, b"\1\0")
        assert self.hello is not None
        return self.hello.nonce

    def arm(self) -> None:
        limits = Limits((ChannelLimits(-100_000, 100_000, 1000, 50),) * 2, 2000, 3, 100, 500)
        self.tick(2)
        self.nonce()
        assert self.hello is not None
        for payload in limits.channel_payloads():
            assert self.request(MsgType.LIMITS, payload).result == 0
        assert self.request(MsgType.LIMITS_COMMIT, limits.commit_payload(self.hello.schema_hash)).result == 0
        self.tick()
        ack = self.request(MsgType.ARM, Arm(self.nonce(), limits.hash(self.hello.schema_hash)).pack())
        assert ack.result == 0
        self.session = ack.value

    def stream(self, periods: int, value: int = 90_000) -> None:
        for _ in range(periods):
            self.send(MsgType.COMMAND, Command(self.session, self.t_us, 100, (value, -value)).pack())
            self.tick(2)


def _disarm(node: Recorder) -> None:
    node.stream(8)
    node.send(MsgType.DISARM)
    node.tick(32)


def _silence(node: Recorder) -> None:
    node.stream(4)
    node.tick(160)
    assert node.request(MsgType.CLEAR, Clear(node.nonce()).pack()).result == 0


def _estop(node: Recorder) -> None:
    node.stream(4)
    node.send(MsgType.ESTOP)
    node.tick(100)
    assert node.request(MsgType.CLEAR, Clear(node.nonce()).pack()).result == 0


def _button(node: Recorder) -> None:
    node.stream(2)
    node.inputs(1)
    node.tick(2)
    node.inputs(0)
    node.tick(2)


SESSIONS: dict[str, Callable[[Recorder], None]] = {
    "disarm": _disarm,
    "silence": _silence,
    "estop": _estop,
    "button": _button,
}
