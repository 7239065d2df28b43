"""Requests that a board acknowledges: repeated until answered, refusals turned into sentences."""

from __future__ import annotations

import threading
import time
from enum import IntEnum

from .connection import Connection
from .errors import LinkError
from .protocol import Ack, AckResult, Fault, Hello, MsgType, NodeState
from .states import State

__all__ = ["Requests", "code_name"]

_TRIES = 5
_TIMEOUT_S = 0.1
_SETTLE_S = 1.0

_REFUSED = {
    AckResult.WRONG_STATE: "its state does not allow that",
    AckResult.WRONG_NONCE: "the nonce is out of date; ask again",
    AckResult.WRONG_LIMITS_HASH: "it holds other limits than this host; upload them again",
    AckResult.BAD_LIMITS: "it finds the limits inconsistent",
    AckResult.HASH_MISMATCH: "the limits were damaged on the way or belong to another schema",
    AckResult.NO_MEASUREMENT: "it has no measured position yet",
    AckResult.BAD_LENGTH: "it expects another payload length",
    AckResult.NOT_AT_REST: "it is still moving",
    AckResult.ESTOP_INPUT: "its local emergency-stop input is pressed",
}


class Requests:
    """Request/acknowledge on top of a Connection; any thread may call, one request is under way at a time."""

    def __init__(self, connection: Connection, port: str) -> None:
        self._c = connection
        self._port = port
        self._turn = threading.Lock()

    def error(self, message: str) -> LinkError:
        """A LinkError that names the port."""
        return LinkError(f"port {self._port}: {message}")

    def require_connection(self) -> None:
        """Raises LinkError unless the board has introduced itself on an open port."""
        if not self._c.connected:
            raise self.error(f"not connected{self._because()}")

    def call(self, kind: MsgType, payload: bytes = b"") -> Ack:
        """Send ``kind`` until it is acknowledged, with one seq, so that the board can tell a repetition.

        Raises:
            LinkError: refused, unanswered, or the port is lost.
        """
        c = self._c
        with self._turn:
            self.require_connection()
            seq = c.tx.next_seq()
            c.ack, c.pending = None, (kind, seq)
            try:
                for _ in range(_TRIES):
                    c.tx.send(kind, payload, seq)
                    with c.news:
                        c.news.wait_for(lambda: c.ack is not None or not c.connected, _TIMEOUT_S)
                    if c.ack is not None:
                        return self._accepted(kind, c.ack)
                    self.require_connection()
                    c.n["acks_timeout"] += 1
            finally:
                c.pending = None
        raise self._silent(kind)

    def hello(self) -> Hello:
        """A HELLO younger than this call. Raises LinkError if none comes."""
        c = self._c
        before = c.handshake.hellos
        for _ in range(_TRIES):
            self.require_connection()
            c.handshake.ask_hello()
            with c.news:
                c.news.wait_for(lambda: c.handshake.hellos > before or not c.connected, _TIMEOUT_S)
            hello = c.hello
            if c.handshake.hellos > before and c.connected and hello is not None:
                return hello
            self.require_connection()
            c.n["acks_timeout"] += 1
        raise self._silent(MsgType.HELLO_REQ)

    def settled_state(self) -> State:
        """A State younger than this call, past INIT if that comes in time: its nonce is the valid one.

        Raises:
            LinkError: no STATE arrives.
        """
        self.require_connection()
        deadline = time.monotonic() + _SETTLE_S
        state: State | None = None
        after = self._c.assembler.count
        while (left := deadline - time.monotonic()) > 0:
            newer = self.next_state(after, left)
            if newer is None:
                break
            state, after = newer, newer.count
            if state.state != NodeState.INIT:
                break
        if state is None:
            raise self._silent(MsgType.STATE)
        return state

    def next_state(self, after: int, timeout_s: float) -> State | None:
        """The newest State with ``count > after``, or None after ``timeout_s``."""
        c = self._c
        state = c.latest
        if state is None or state.count <= after:
            with c.news:
                c.news.wait_for(lambda: c.latest is not None and c.latest.count > after, timeout_s)
                state = c.latest
        return state if state is not None and state.count > after else None

    def _accepted(self, kind: MsgType, ack: Ack) -> Ack:
        if ack.result == AckResult.OK:
            return ack
        state = self._c.latest
        shown = f"; it is in {code_name(NodeState, state.state)}" if state else ""
        if state and state.fault:
            shown += f", fault {code_name(Fault, state.fault)}"
        why = next((text for code, text in _REFUSED.items() if code == ack.result), "no reason known to this host")
        raise self.error(f"the board refuses {kind.name}: {code_name(AckResult, ack.result)}: {why}{shown}")

    def _silent(self, kind: MsgType) -> LinkError:
        if kind == MsgType.STATE:
            return self.error(f"no STATE for {_SETTLE_S:g} s{self._because()}")
        return self.error(f"no answer to {kind.name} after {_TRIES} tries{self._because()}")

    def _because(self) -> str:
        return f" ({self._c.diagnosis})" if self._c.diagnosis else ""


def code_name(kind: type[IntEnum], value: int) -> str:
    """The name of a wire code, or its number when this host does not know it."""
    return next((member.name for member in kind if member == value), str(value))
