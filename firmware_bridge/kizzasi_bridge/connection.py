"""What is known about the board right now: the reader thread's side of a :class:`.link.Link`.

All ``on_*`` methods run on the reader thread and nothing else writes what they write; other threads read
single attributes (replaced whole, so without a lock) or wait on ``news``. Nothing here ever arms: whatever
ends a session only forgets it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from .clock import ClockEstimator
from .codec import Decoder
from .errors import WireError
from .handshake import Handshake
from .history import History
from .line import Counts, LineWatch
from .protocol import Ack, AckResult, Hello, Log, MsgType, NodeState, SchemaData, TimeRequest, TimeResponse
from .schema import Schema
from .serial_port import SerialPort
from .states import State, StateAssembler
from .tx import Transmitter

__all__ = ["Connection"]

_BAUD_SUSPECT_S = 1.0

_REQUESTS = (MsgType.LIMITS, MsgType.LIMITS_COMMIT, MsgType.ARM, MsgType.DISARM, MsgType.CLEAR)
_COUNTED = (
    "bytes_rx", "bad_payload", "unknown_rx", "reconnects", "disconnects", "device_resets", "schema_changes",
    "sessions_lost", "baud_suspects", "skipped_states", "acks_timeout", "commands_not_armed",
)  # fmt: skip


class Connection:
    """Implements :class:`.reader.PortHandler`.

    Attributes:
        baud: for the diagnosis only.
        tx: the sending half.
        news: notified after every batch of frames and when the port is lost.
        connected: the board behind the open port has introduced itself.
        hello, schema: of the board last seen; they outlive a disconnect.
        latest: newest State, or None.
        session: begun by the ACK of our ARM, 0 when there is none (any more).
        estop_pending: an ESTOP that no STATE has confirmed.
        clearing: a CLEAR is under way: a STATE of the ESTOP it clears must not confirm a new one.
        pending, ack: (type, seq) of the request under way, and its ACK once it is here.
        logs: newest LOG messages of the board.
        diagnosis: what seems to be wrong with the line, in words; None while frames arrive.
        history: the newest STATEs, over all connections.
        clocks: estimates the board's clock.
        line: what the traffic says about the line.
        n: event counters.
    """

    def __init__(self, baud: int, history: int) -> None:
        self.baud = baud
        self.tx = Transmitter()
        self.news = threading.Condition()
        self.connected = False
        self.hello: Hello | None = None
        self.schema: Schema | None = None
        self.latest: State | None = None
        self.session = 0
        self.estop_pending = False
        self.clearing = False
        self.pending: tuple[int, int] | None = None
        self.ack: Ack | None = None
        self.logs: deque[Log] = deque(maxlen=20)
        self.diagnosis: str | None = None
        self.history = History(history)
        self.clocks = ClockEstimator()
        self.line = LineWatch(baud)
        self.n = dict.fromkeys(_COUNTED, 0)
        self.handshake = Handshake(self.tx.send)
        self.assembler = StateAssembler()
        self.decoder = Decoder()
        self._was_lost = False
        self._frames_at_s = 0.0  # when a valid frame last arrived
        self._garbage = 0  # bytes since then
        self._recv_ns = 0
        self._introductions = 0  # connections on which the board has said who it is
        self._reads = 0  # that brought a STATE
        self._handlers: dict[int, Callable[[bytes], None]] = {
            MsgType.HELLO: self._on_hello,
            MsgType.SCHEMA_DATA: self._on_schema_data,
            MsgType.STATE: self._on_state,
            MsgType.ACK: self._on_ack,
            MsgType.LOG: self._on_log,
            MsgType.TIME_RSP: self._on_time,
        }

    def counters(self) -> dict[str, int]:
        """A fresh dict of everything that was sent, received, dropped or went wrong."""
        tx, decoder = self.tx, self.decoder
        return {
            "frames_rx": decoder.ok,
            "states_rx": self.assembler.count,
            "lost_states": self.assembler.lost,
            "bad_crc": decoder.bad_crc,
            "bad_cobs": decoder.bad_cobs,
            "too_long": decoder.too_long,
            "runt": decoder.runt,
            "commands_tx": tx.sent[MsgType.COMMAND],
            "heartbeats_tx": tx.sent[MsgType.HEARTBEAT],
            "estops_tx": tx.sent[MsgType.ESTOP],
            "requests_tx": sum(tx.sent[kind] for kind in _REQUESTS),
            "tx_blocked": tx.blocked,
            "tx_dropped": tx.failed,
            "obs_backwards": tx.backwards,
            **self.n,
        }

    # ---- the port ------------------------------------------------------------------------------

    def on_connect(self, port: SerialPort) -> None:
        """The port is open (again): stop what must be stopped, then ask who is there."""
        self.tx.attach(port.fd)
        self._frames_at_s, self._garbage = time.monotonic(), 0
        self.handshake.restart()
        self.line.restart(self._frames_at_s)
        if self.estop_pending:
            self.tx.send(MsgType.ESTOP)

    def on_bytes(self, data: bytes, recv_ns: int) -> None:
        """Decode, dispatch, and wake whoever waits for the outcome."""
        self.n["bytes_rx"] += len(data)
        frames = self.decoder.feed(data)
        if not frames:
            self._garbage += len(data)
            return
        self._frames_at_s, self._garbage = recv_ns * 1e-9, 0
        self.diagnosis = None
        self._recv_ns = recv_ns
        before = self.assembler.count
        for frame in frames:
            handle = self._handlers.get(frame.type)
            if handle is None:
                self.n["unknown_rx"] += 1
                continue
            try:
                handle(frame.payload)
            except WireError:
                self.n["bad_payload"] += 1
        self._reads += self.assembler.count > before
        with self.news:
            self.news.notify_all()

    def on_tick(self, now_s: float) -> None:
        """Repeat unanswered introductions; ask for the time; notice what is wrong with the line."""
        self.handshake.tick(now_s)
        if self.connected:
            if self._rebooted_unseen():
                self.handshake.ask_hello()
            self._ask_time()
            self._look_at_line(now_s)
        if self._garbage and now_s - self._frames_at_s > _BAUD_SUSPECT_S:
            self.n["baud_suspects"] += 1
            self.diagnosis = (
                f"{self._garbage} bytes but no valid frame for {_BAUD_SUSPECT_S:g} s: "
                f"the board probably does not run at {self.baud} baud"
            )
            self._frames_at_s, self._garbage = now_s, 0

    def on_disconnect(self, reason: str | None) -> None:
        """The device is gone (or, without a reason, we let go of it): nothing agreed with it holds any more."""
        self.tx.detach()
        self.session = 0
        with self.news:
            self.connected = False
            if reason is not None:
                self._was_lost = True
                self.n["disconnects"] += 1
                self.diagnosis = f"the device is gone: {reason}"
            self.news.notify_all()

    def established(self) -> bool:
        """Whether this connection got as far as a HELLO with a known schema."""
        return self.handshake.done

    # ---- frames --------------------------------------------------------------------------------

    def _on_hello(self, payload: bytes) -> None:
        hello, previous = Hello.unpack(payload), self.hello
        self.handshake.on_hello(hello)
        rebooted = previous is not None and previous.boot_id != hello.boot_id
        if rebooted:
            self.n["device_resets"] += 1
            self.session = 0
        if rebooted or previous is None:
            self.clocks.restart(hello.boot_id)
        if previous is not None and previous.schema_hash != hello.schema_hash:
            self.n["schema_changes"] += 1
            self.session = 0
        if rebooted or not self.connected:
            self.assembler.restart(hello.n_channels, hello.n_sensors)
        self.assembler.set_period(hello.period_us)
        self.hello = hello
        self._follow_handshake()

    def _on_schema_data(self, payload: bytes) -> None:
        self.handshake.on_schema_data(SchemaData.unpack(payload))
        self._follow_handshake()

    def _follow_handshake(self) -> None:
        """Connected is: the handshake is done."""
        schema = self.handshake.schema
        if schema is None:
            self.connected = False
        elif not self.connected:
            self.schema = schema
            self.history.restart(len(schema.channels), len(schema.sensors))
            self.tx.set_channels(len(schema.channels))
            self.n["reconnects"] += self._was_lost
            self._was_lost = False
            self._introductions += 1
            self.connected = True

    def _on_state(self, payload: bytes) -> None:
        if not self.connected:
            return  # left over from before the port was opened, or from a board whose schema is unknown
        state = self.assembler.feed(payload, self._recv_ns)
        if state is None:
            return
        if self.session and (state.state != NodeState.ARMED or state.session != self.session):
            self.n["sessions_lost"] += 1
            self.session = 0
        if self.estop_pending and state.state == NodeState.ESTOP and not self.clearing:
            self.estop_pending = False
        self.latest = state
        assert self.hello is not None
        self.history.append(state, self.hello.boot_id, self._introductions)

    def _on_ack(self, payload: bytes) -> None:
        ack = Ack.unpack(payload)
        if self.pending != (ack.request_type, ack.request_seq):
            return  # of a request that was given up
        if ack.request_type == MsgType.ARM and ack.result == AckResult.OK:
            # Adopted here, not by the thread that asked: the STATEs behind this ACK are of the new session.
            self.tx.new_session()
            self.session = ack.value
        self.ack = ack

    def _on_log(self, payload: bytes) -> None:
        self.logs.append(Log.unpack(payload))

    def _on_time(self, payload: bytes) -> None:
        response = TimeResponse.unpack(payload)
        if self.schema is not None:
            self.clocks.answer(response.cookie, response.t_us, self._recv_ns, self.schema.tick_us)

    def _ask_time(self) -> None:
        now_ns = time.monotonic_ns()
        if self.clocks.due(now_ns) and not self.estop_pending:
            self.tx.offer(MsgType.TIME_REQ, TimeRequest(self.clocks.ask(now_ns)).pack())

    def _look_at_line(self, now_s: float) -> None:
        clock = self.clocks.clock
        if self.hello is None or self.schema is None:
            return
        counts = Counts(self.assembler.count, self.assembler.lost, self._reads, self.n["bytes_rx"])
        self.line.look(now_s, counts, self.hello, self.schema.tick_us, clock.rtt_us if clock else None)

    def _rebooted_unseen(self) -> bool:
        """STATE shows a board without limits, HELLO one with: it was reset and its HELLO got lost."""
        state, hello = self.latest, self.hello
        return bool(state and hello and state.state == NodeState.INIT and hello.limits_hash)
