"""The host's end of a serial line to a kizzasi node: handshake, limits, arming, the command stream.

Threads: one reader thread (:mod:`.reader`) decodes into the latest-STATE slot; the control loop calls
``wait_state`` and ``command``; requests (limits, arm, clear, …) may come from any third thread. Nothing here
ever arms by itself: after a lost port, a reset of the board or a latched fault the session is forgotten, and
only an explicit :meth:`Link.arm` makes a new one.
"""

from __future__ import annotations

import os
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from .calibration import Calibration
from .clock import Clock
from .connection import Connection
from .errors import ConnectorError
from .line import Line
from .protocol import Arm, Clear, Hello, Limits, Log, MsgType
from .reader import PortReader
from .request import Requests
from .schema import Schema
from .serial_port import Dtr, SerialPort
from .states import State

__all__ = ["Link"]


class Link:
    """A node behind a serial port.

    Args:
        port: device file or a link to one (``/dev/serial/by-id/...``); reopened by this name when it vanishes.
        baud: bits per second.
        dtr: "auto" | "on" | "off", see :class:`.serial_port.SerialPort`.
        exclusive: keep other pyserial programs out (advisory).
        history: how many STATEs :meth:`history` remembers (8 s of them at 500 Hz).

    Raises:
        ConnectorError: ``history`` is less than 1.
    """

    def __init__(
        self,
        port: str | os.PathLike[str],
        *,
        baud: int = 1_000_000,
        dtr: Dtr = "auto",
        exclusive: bool = True,
        history: int = 4096,
    ) -> None:
        self.port = os.fspath(port)
        self._baud, self._dtr, self._exclusive = baud, dtr, exclusive
        if history < 1:
            raise ConnectorError(f"port {self.port}: history must be at least 1, found {history}")
        self._c = Connection(baud, history)
        self._requests = Requests(self._c, self.port)
        self._reader: PortReader | None = None
        self._limits_hash = 0

    def open(self, timeout_s: float = 3.0) -> Hello:
        """Open the port and introduce each other; the board's outputs are not touched.

        Raises:
            ConnectorError: the port cannot be opened (missing, in use, not a tty, no permission).
            LinkError: nobody usable answers within ``timeout_s``.
        """
        if self._reader is not None:
            raise self._requests.error("this link is already open")
        port = self._open_port()
        c = self._c
        self._reader = PortReader(self._reopen_port, c)
        self._reader.start(port)
        with c.news:
            c.news.wait_for(lambda: c.connected or c.handshake.problem is not None, timeout_s)
        if not c.connected:
            reason = self._why_no_handshake(timeout_s)
            self.close()
            raise self._requests.error(reason)
        return self.hello

    def close(self) -> None:
        """Let go of the port. An armed board is left to its TTL; :meth:`disarm` first to stop it sooner."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.stop()

    def __enter__(self) -> Link:
        if self._reader is None:
            self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- what is known -------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """The port is open and the board behind it has introduced itself."""
        return self._c.connected

    @property
    def latest(self) -> State | None:
        """The newest State, None before the first; needs no lock."""
        return self._c.latest

    @property
    def session(self) -> int:
        """The session that :meth:`arm` began, 0 when there is none (any more)."""
        return self._c.session

    @property
    def estop_pending(self) -> bool:
        """An :meth:`estop` that no STATE has confirmed yet."""
        return self._c.estop_pending

    @property
    def hello(self) -> Hello:
        """Newest HELLO of the board last seen. Raises LinkError if none has answered yet."""
        if self._c.hello is None:
            raise self._requests.error("no board has answered yet")
        return self._c.hello

    @property
    def schema(self) -> Schema:
        """Channels and sensors of the board last seen. Raises LinkError if none has answered yet."""
        if self._c.schema is None:
            raise self._requests.error("no board has answered yet")
        return self._c.schema

    @property
    def channels(self) -> Calibration:
        """Raw ↔ SI of the command channels (a new object; keep it)."""
        return Calibration(self.schema.channels)

    @property
    def sensors(self) -> Calibration:
        """Raw ↔ SI of the sensors (a new object; keep it)."""
        return Calibration(self.schema.sensors)

    @property
    def counters(self) -> dict[str, int]:
        """Everything that was sent, received, dropped or went wrong since this Link was made; a fresh dict."""
        return self._c.counters()

    @property
    def diagnosis(self) -> str | None:
        """What seems to be wrong with the line, in words; None while frames arrive."""
        return self._c.diagnosis

    @property
    def line(self) -> Line:
        """Rates, and sentences about a line that is too slow or holds bytes back; renewed about every 2 s."""
        return self._c.line.now

    @property
    def clock(self) -> Clock | None:
        """Where the board's clock stands, asked every second; None until it has answered. For logs only."""
        return self._c.clocks.clock

    def history(self, n: int | None = None) -> NDArray[np.void]:
        """The newest ``n`` STATEs (all that are remembered by default), oldest first: a copy, one row each.

        They outlive disconnects and resets, but not another number of channels or sensors. Columns:
        :class:`.history.History`.
        """
        return self._c.history.newest(n)

    @property
    def logs(self) -> tuple[Log, ...]:
        """The newest LOG messages of the board, oldest first."""
        return tuple(self._c.logs)

    # ---- the control loop's side ---------------------------------------------------------------

    def wait_state(self, after: int, timeout_s: float) -> State | None:
        """The newest State with ``count > after``, waiting at most ``timeout_s`` for it; else None.

        STATEs between ``after`` and the returned one are counted as ``skipped_states``.
        """
        state = self._requests.next_state(after, timeout_s)
        if state is not None and after > 0:
            self._c.n["skipped_states"] += state.count - after - 1
        return state

    def command(self, raw: NDArray[np.int32], obs_t_us: int, ttl_ms: int) -> bool:
        """Send setpoints, raw int32 (n,), computed from the STATE sampled at ``obs_t_us`` (node clock).

        Never blocks and never queues. False, and counted, when nothing was sent: not armed, the port is
        gone or full, ``obs_t_us`` went backwards, or an :meth:`estop` is being repeated instead.

        Raises:
            WireError: wrong dtype, shape or range.
        """
        c = self._c
        if c.estop_pending:
            c.tx.send(MsgType.ESTOP)
            return False
        session = c.session
        if not session:
            c.n["commands_not_armed"] += 1
            return False
        return c.tx.command(session, raw, obs_t_us, ttl_ms)

    def heartbeat(self) -> bool:
        """Show that the host is alive while not armed (repeats a pending :meth:`estop` instead)."""
        return self._c.tx.send(MsgType.ESTOP if self._c.estop_pending else MsgType.HEARTBEAT)

    def estop(self) -> None:
        """Emergency stop: sent at once and by every command()/heartbeat() until STATE shows ESTOP."""
        self._c.estop_pending = True
        self._c.tx.send(MsgType.ESTOP)

    # ---- requests ------------------------------------------------------------------------------

    def upload_limits(self, limits: Limits) -> int:
        """Make the board guard with ``limits``; returns their hash. Nothing is sent if it does already.

        Raises:
            LinkError: wrong number of channels, refused, unanswered or not connected.
        """
        hello = self._requests.hello()
        if len(limits.channels) != hello.n_channels:
            raise self._requests.error(f"limits for {len(limits.channels)} channels, the board has {hello.n_channels}")
        wanted = limits.hash(hello.schema_hash)
        if hello.limits_hash != wanted:
            for payload in limits.channel_payloads():
                self._requests.call(MsgType.LIMITS, payload)
            found = self._requests.call(MsgType.LIMITS_COMMIT, limits.commit_payload(hello.schema_hash)).value
            if found != wanted:
                raise self._requests.error(f"the board committed limits {found:#010x}, sent were {wanted:#010x}")
            self._requests.hello()
        self._limits_hash = wanted
        return wanted

    def arm(self) -> int:
        """Begin a session with the limits last uploaded (else those the board holds); returns its id.

        Raises:
            LinkError: refused (state, nonce, limits, no measurement, not at rest), unanswered, not connected,
                or an unconfirmed :meth:`estop`.
        """
        self._refuse_while_stopping()
        state = self._requests.settled_state()
        limits_hash = self._limits_hash or self.hello.limits_hash
        return self._requests.call(MsgType.ARM, Arm(state.nonce, limits_hash).pack()).value

    def disarm(self) -> None:
        """End the session: the board brakes to rest and becomes READY. Raises LinkError if unanswered."""
        self._c.session = 0  # first, so that no COMMAND of another thread argues with it
        self._requests.call(MsgType.DISARM)

    def clear(self) -> None:
        """Leave FAILSAFE or ESTOP for READY.

        Raises:
            LinkError: refused (state, nonce, e-stop input pressed, not at rest), unanswered, not connected,
                or an unconfirmed :meth:`estop`.
        """
        self._refuse_while_stopping()
        state = self._requests.settled_state()
        self._c.clearing = True
        try:
            self._requests.call(MsgType.CLEAR, Clear(state.nonce).pack())
        finally:
            self._c.clearing = False

    def _refuse_while_stopping(self) -> None:
        if self._c.estop_pending:
            raise self._requests.error("an emergency stop is not confirmed yet")

    # ---- the port ------------------------------------------------------------------------------

    def _open_port(self) -> SerialPort:
        return SerialPort(self.port, baud=self._baud, dtr=self._dtr, exclusive=self._exclusive)

    def _reopen_port(self) -> SerialPort:
        if not os.path.exists(self.port):  # the common case while unplugged; not worth an explanation
            raise ConnectorError(f"port {self.port} does not exist")
        return self._open_port()

    def _why_no_handshake(self, timeout_s: float) -> str:
        problem, counters = self._c.handshake.problem, self.counters
        if problem is not None:
            return f"the board cannot be used: {problem}"
        if self.diagnosis is not None:
            return self.diagnosis
        if not counters["bytes_rx"]:
            return (
                f"no byte received in {timeout_s:g} s: is the board powered, flashed, and on this port? "
                'Native-USB boards need dtr = "on"'
            )
        if not counters["frames_rx"]:
            return f"{counters['bytes_rx']} bytes but no valid frame in {timeout_s:g} s: is {self._baud} baud right?"
        return f"frames arrive, but no HELLO within {timeout_s:g} s"
