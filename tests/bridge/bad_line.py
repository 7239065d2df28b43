"""A bad line, and a witness at the board's end of it who knows what was really sent and what was really applied."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from kizzasi_bridge import Decoder
from kizzasi_bridge.frame import Frame
from kizzasi_bridge.protocol import Command, Limits, MsgType, NodeState, State

__all__ = ["BadLine", "Witness"]


ACCIDENTS = {"flipped": 2e-3, "dropped": 1e-3, "bursts": 5e-5, "cuts": 2e-6}  # for each byte


class BadLine:
    """Of all bytes 0.2 % come with a bit flipped and 0.1 % not at all; now and then a burst of noise replaces up to
    200 of them, and sometimes the cable is out for up to 20 000."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._good = self._noise = self._cut = 0  # bytes until the next accident, or until the end of this one
        self.damage: Counter[str] = Counter()

    def __call__(self, data: bytes) -> bytes:
        if len(data) <= self._good and not self._noise and not self._cut:
            self._good -= len(data)
            return data
        out = bytearray()
        for byte in data:
            if self._cut:
                self._cut -= 1
            elif self._noise:
                self._noise -= 1
                out.append(self._rng.randrange(256))
            elif self._good:
                self._good -= 1
                out.append(byte)
            else:
                self._accident(byte, out)
        return bytes(out)

    def _accident(self, byte: int, out: bytearray) -> None:
        rng = self._rng
        (what,) = rng.choices(list(ACCIDENTS), list(ACCIDENTS.values()))
        self.damage[what] += 1
        self._good = int(rng.expovariate(sum(ACCIDENTS.values())))
        match what:
            case "flipped":
                out.append(byte ^ 1 << rng.randrange(8))
            case "bursts":
                self._noise = rng.randint(20, 200)
            case "cuts":
                self._cut = rng.randint(100, 20_000)


@dataclass
class Witness:
    """Checks every STATE against what the host sent; give it both streams as they are before the line damages them.

    A violation raises AssertionError, or is kept in ``wrong`` where an exception would end up in the wrong thread.
    """

    limits: Limits
    wrong: list[str] = field(default_factory=list)
    count: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._host, self._board = Decoder(), Decoder()
        self._sent: dict[tuple[int, int], Command] = {}
        self._was: State | None = None
        self._step: tuple[int, ...] | None = None
        self._may_arm = self._may_clear = self._live = False

    def rebooted(self) -> None:
        """The board lost its power; nothing that was agreed before may count."""
        self._was = self._step = None
        self._may_arm = self._may_clear = self._live = False

    def host_sends(self, data: bytes) -> None:
        for frame in self._host.feed(data):
            self.host_frame(frame)

    def host_frame(self, frame: Frame) -> None:
        self.count["host frames"] += 1
        if frame.type == MsgType.COMMAND:
            command = Command.unpack(frame.payload)
            self._sent[command.session, frame.seq] = command
        elif frame.type == MsgType.ARM:
            self._may_arm = True
        elif frame.type == MsgType.CLEAR:
            self._may_clear = True
        elif frame.type == MsgType.DISARM:  # if it arrives, the board brakes, and a missing COMMAND is no loss
            self._live = False

    def board_sends(self, data: bytes) -> None:
        for frame in self._board.feed(data):
            self.board_frame(frame)

    def board_frame(self, frame: Frame) -> None:
        self.count["board frames"] += 1
        if frame.type == MsgType.STATE:
            self.count["states"] += 1
            self._judge(State.unpack(frame.payload))

    def _must(self, holds: bool, what: str) -> None:
        if not holds:
            self.wrong.append(what)

    def _judge(self, now: State) -> None:
        was, self._was = self._was, now
        if was is None:
            self._must(now.state != NodeState.ARMED, "armed at once")
            return
        self._judge_state(was, now)
        n = len(self.limits.channels)
        period = (now.sample_t_us - was.sample_t_us) & 0xFFFFFFFF
        moving = (NodeState.ARMED, NodeState.READY, NodeState.FAILSAFE)
        if period != self.limits.period_us or was.state not in moving or now.state not in moving:
            self._step = None
            if now.applied_seq != was.applied_seq:
                self._live = True
            return
        step = tuple(b - a for a, b in zip(was.values[:n], now.values[:n], strict=True))
        self._judge_motion(now, step)
        if now.applied_seq != was.applied_seq:
            self._judge_command(was, now)
        elif now.state == NodeState.ARMED and self._live:
            missed = (now.misses - was.misses) & 0xFFFF
            self._must(missed == 1, f"a lost COMMAND was counted {missed} times")
            self.count["misses"] += missed
        self._step = step

    def _judge_state(self, was: State, now: State) -> None:
        if now.state == NodeState.ARMED and was.session != now.session:
            self._must(self._may_arm, "armed without ARM")
            self._may_arm = self._live = False
            self.count["sessions"] += 1
        latched = (NodeState.FAILSAFE, NodeState.ESTOP)
        if was.state in latched and now.state not in latched:
            self._must(self._may_clear, "left a latch without CLEAR")
            self._must(now.nonce != was.nonce, "the nonce was kept")
            self._may_clear = False
        if was.state not in latched and now.state in latched:
            self.count["latched"] += 1
            self._may_arm = self._may_clear = self._live = False

    def _judge_motion(self, now: State, step: tuple[int, ...]) -> None:
        for i, limit in enumerate(self.limits.channels):
            self._must(limit.lo <= now.values[i] <= limit.hi, f"{now.values[i]} is out of range")
            self._must(abs(step[i]) <= limit.w, f"step {step[i]}")
            if self._step is not None:
                self._must(abs(step[i] - self._step[i]) <= limit.h, f"step {self._step[i]} to {step[i]}")

    def _judge_command(self, was: State, now: State) -> None:
        command = self._sent.get((now.session, now.applied_seq))
        if command is None:
            self.wrong.append(f"applied seq {now.applied_seq}, never sent in session {now.session}")
            return
        self._live = True
        self.count["applied"] += 1
        age = (now.sample_t_us - command.obs_t_us) & 0xFFFFFFFF
        ttl = 1000 * min(command.ttl_ms, self.limits.ttl_max_ms)
        self._must(age < ttl, f"applied at an age of {age} µs")
        for i, wanted in enumerate(command.values):
            if now.clamp_mask >> i & 1:
                self.count["clamped"] += 1
            else:
                self.count["exact"] += 1
                self._must(now.values[i] == wanted, f"applied {now.values[i]}, sent was {wanted}")
