"""Long lives of a node in virtual time, behind a bad line and between careless people."""

from __future__ import annotations

import random
from collections import Counter, deque
from dataclasses import replace

import numpy as np
from bad_line import BadLine, Witness

from kizzasi_bridge import Decoder, encode
from kizzasi_bridge.frame import DEFAULT_FLAGS, Frame
from kizzasi_bridge.protocol import Arm, ChannelLimits, Clear, Command, Hello, Limits, MsgType, NodeState, State
from kizzasi_bridge.schema import Schema
from kizzasi_bridge.virtual import VirtualNode

SCHEMA = Schema.positions(("a", "b"), scale=2.0**-21)
LIMITS = Limits((ChannelLimits(-100_000, 100_000, 1000, 50),) * 2, 2000, 3, 60, 200)
OTHER = Limits((ChannelLimits(-2_000_000, 2_000_000, 90_000, 9000),) * 2, 2000, 3, 60, 200)  # never committed
FAR = (1_900_000, -1_900_000)


class Soak:
    """One patient host, who clears and arms whenever that is needed, and everything that can happen to him."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.to_board, self.to_host = BadLine(seed), BadLine(seed + 1000)
        self.witness = Witness(LIMITS)
        self.ears = Decoder()
        self.seq = self.rng.randrange(1 << 16)
        self.past: deque[bytes] = deque(maxlen=300)  # frames of the host, for replays
        self.held: list[bytes] = []  # a stopped host's, or a hub's, full buffer
        self.holding = self.stopping = self.boots = 0
        self.events: Counter[str] = Counter()
        self.boot(start_us=(1 << 32) - 3_000_000)

    def boot(self, start_us: int) -> None:
        self.boots += 1
        self.node = VirtualNode(SCHEMA, boot_id=self.boots * 7919, start_us=start_us)
        self.state: State | None = None
        self.hello: Hello | None = None
        self.witness.rebooted()

    # ---- the line --------------------------------------------------------------------------------

    def say(self, kind: MsgType, payload: bytes = b"", *, seq: int | None = None, other_host: bool = False) -> None:
        if seq is None:
            self.seq = seq = (self.seq + 1) & 0xFFFF
        frame = Frame(kind, DEFAULT_FLAGS, seq, 0, payload)
        data = encode(kind, payload, seq=seq, t_us=0)
        if not other_host:
            self.witness.host_frame(frame)
            self.past.append(data)
        self.held.append(data)
        if not self.holding:
            for waiting in self.held:
                self.hear(self.node.feed(self.to_board(waiting)))
            self.held.clear()

    def hear(self, frames: list[Frame]) -> None:
        for sent in frames:
            self.witness.board_frame(sent)
            line = encode(sent.type, sent.payload, seq=sent.seq, t_us=sent.t_us, flags=sent.flags)
            for frame in self.ears.feed(self.to_host(line)):
                if frame.type == MsgType.STATE:
                    self.state = State.unpack(frame.payload)
                elif frame.type == MsgType.HELLO:
                    self.hello = Hello.unpack(frame.payload)

    # ---- the host ----------------------------------------------------------------------------------

    def period(self) -> None:
        self.accidents()
        state = self.state
        if self.stopping:
            self.say(MsgType.ESTOP)
            if state is not None and state.state == NodeState.ESTOP:
                self.stopping = 0
        elif state is not None and state.state == NodeState.ARMED:
            t = state.sample_t_us * 1e-6
            wave = (int(8000 * np.sin(3 * t)), int(8000 * np.cos(2 * t)))
            self.say(MsgType.COMMAND, Command(state.session, state.sample_t_us, 40, wave).pack())
        elif self.rng.random() < 0.1:
            self.recover(state)
        self.holding -= self.holding > 0
        self.hear(self.node.tick(2))

    def recover(self, state: State | None) -> None:
        hello = self.hello
        if hello is None or state is None:
            self.say(MsgType.HELLO_REQ)
        elif state.state == NodeState.INIT:
            for payload in LIMITS.channel_payloads():
                self.say(MsgType.LIMITS, payload)
            self.say(MsgType.LIMITS_COMMIT, LIMITS.commit_payload(hello.schema_hash))
        elif state.state == NodeState.READY:
            self.say(MsgType.ARM, Arm(state.nonce, LIMITS.hash(hello.schema_hash)).pack())
        else:
            self.say(MsgType.CLEAR, Clear(state.nonce).pack())

    # ---- everything else ---------------------------------------------------------------------------

    def accidents(self) -> None:
        rng = self.rng
        if rng.random() > 0.03:
            return
        what = rng.choices(
            ["replay", "old host", "torn limits", "stopped", "local", "estop", "disarm", "fault", "brown-out", "late"],
            [20, 20, 10, 2, 1, 1, 1, 1, 0.3, 4],
        )[0]
        self.events[what] += 1
        match what:
            case "replay" if self.past and not self.holding:
                data = rng.choice(self.past)
                (frame,) = Decoder().feed(data)
                if frame.type == MsgType.DISARM:  # works from anyone, at any time
                    self.witness.host_frame(frame)
                self.hear(self.node.feed(data))
            case "old host":  # a second one on the port, with a session that is none or is over
                session = rng.choice([0, 1, rng.randrange(1 << 32)])
                command = Command(session, self.node.t_us, 60, FAR)
                self.say(MsgType.COMMAND, command.pack(), seq=rng.randrange(1 << 16), other_host=True)
            case "torn limits":
                self.say(MsgType.LIMITS, OTHER.channel_payloads()[rng.randrange(2)], other_host=True)
                if rng.random() < 0.5:
                    self.say(MsgType.LIMITS_COMMIT, LIMITS.commit_payload(1), other_host=True)
            case "stopped":
                self.holding = rng.randint(2, 80)
            case "local":
                self.node.inputs(rng.choice([1, 2, 4, 8]))
                self.hear(self.node.tick(2))
                self.node.inputs(0)
            case "estop":
                self.stopping = 1
            case "disarm":
                self.say(MsgType.DISARM)
            case "fault":
                self.say(MsgType.FAULT, b"\1")
            case "brown-out":
                self.boot(start_us=rng.randrange(1 << 32))
            case "late":
                self.node.stall(rng.randint(1, 30_000))


def soak(periods: int, seed: int) -> Soak:
    life = Soak(seed)
    for _ in range(periods):
        life.period()
        assert not life.witness.wrong, life.witness.wrong
    return life


def test_nothing_wrong_is_applied_behind_a_bad_line() -> None:
    life = soak(6000, 1)
    count = life.witness.count
    assert count["applied"] > 2000
    assert min(count["sessions"], count["latched"]) > 5
    assert min(count["misses"], count["exact"]) > 100
    assert min(life.to_board.damage[what] for what in ("flipped", "dropped", "bursts")) > 0
    assert life.events["replay"] > 20


def test_the_witness_sees_what_is_wrong() -> None:
    """The same life with a board that applies something else, or arms by itself."""
    life = soak(1500, 2)
    good = life.witness._was
    assert good is not None
    for change, complaint in (
        ({"state": NodeState.ARMED, "session": good.session ^ 5}, "armed without ARM"),
        ({"state": NodeState.READY, "values": (90_000, *good.values[1:])}, "step"),
        ({"state": NodeState.ARMED, "applied_seq": good.applied_seq ^ 0x4000}, "never sent"),
    ):
        witness = Witness(LIMITS)
        witness._was = replace(good, state=NodeState.READY if "session" in change else NodeState.ARMED)
        witness._judge(replace(good, sample_t_us=(good.sample_t_us + 2000) & 0xFFFFFFFF, **change))  # type: ignore[arg-type]
        assert any(complaint in text for text in witness.wrong), (complaint, witness.wrong)
