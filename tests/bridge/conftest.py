"""A small arm for the tests of node and board, and the steps of a session on a virtual node."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from kizzasi_bridge.protocol import Arm, ChannelLimits, Command, Limits, MsgType, NodeState
from kizzasi_bridge.schema import Schema
from kizzasi_bridge.virtual import VirtualNode

SCHEMA = Schema.positions(("shoulder", "elbow"), scale=2.0**-21)


class Session(VirtualNode):
    """A virtual node with the usual steps of a host; period 2 ms, ttl_max 100 ms, arm_ttl 500 ms, budget 3."""

    def __init__(self, *, limits: Limits | None = None, start_us: int = 0, boot_id: int = 1) -> None:
        super().__init__(SCHEMA, start_us=start_us, boot_id=boot_id)
        self.limits = limits or Limits((ChannelLimits(-100_000, 100_000, 1000, 50),) * 2, 2000, 3, 100, 500)
        self.session = 0
        self.limits_hash = 0

    def upload(self) -> None:
        """LIMITS for each channel, COMMIT."""
        assert self.hello is not None
        for payload in self.limits.channel_payloads():
            assert self.request(MsgType.LIMITS, payload).result == 0
        ack = self.request(MsgType.LIMITS_COMMIT, self.limits.commit_payload(self.hello.schema_hash))
        assert ack.result == 0
        self.limits_hash = ack.value

    def ready(self) -> Session:
        """Boot and upload limits."""
        self.tick(2)
        self.upload()
        self.tick(2)
        assert self.now.state == NodeState.READY
        return self

    def armed(self) -> Session:
        """... and ARM."""
        self.ready()
        ack = self.request(MsgType.ARM, Arm(self.now.nonce, self.limits_hash).pack())
        assert ack.result == 0
        self.session = ack.value
        return self

    @property
    def now(self):  # type: ignore[no-untyped-def]
        """The newest STATE."""
        assert self.state is not None
        return self.state

    def command(
        self,
        values: Sequence[int],
        *,
        ttl_ms: int = 100,
        obs: int | None = None,
        seq: int | None = None,
        session: int | None = None,
        flags: int = 0x10,
    ) -> None:
        """One COMMAND computed from the newest tick, unless stated otherwise."""
        stamp = self.t_us if obs is None else obs & 0xFFFFFFFF
        payload = Command(self.session if session is None else session, stamp, ttl_ms, values).pack()
        assert self.send(MsgType.COMMAND, payload, seq=seq, flags=flags) == []

    def stream(self, values: Sequence[int], periods: int) -> None:
        """A COMMAND and a period, so many times."""
        for _ in range(periods):
            self.command(values)
            self.tick(2)


@pytest.fixture
def make_session() -> Callable[..., Session]:
    return Session


@pytest.fixture
def node() -> Session:
    return Session()
