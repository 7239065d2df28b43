"""The one thread that reads the port: poll, read, notice that the device is gone, open it again.

It knows nothing of frames. ``select.poll`` + ``os.read`` wakes some ten times faster than pyserial's
``read(1)`` loop; everything a connection means (decoding, handshake, sessions) is the handler's.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from .errors import ConnectorError
from .serial_port import SerialPort

__all__ = ["PortHandler", "PortReader"]

_BACKOFF_FIRST_S = 0.020
_BACKOFF_MAX_S = 1.0
_TICK_S = 0.05
_READ_SIZE = 4096  # of a Linux tty, read() returns at most one less,
_N_TTY = 4095  # and that many mean that more is waiting
_REFILL_MS = 1
_BACKLOG_READS = 64
_GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL


class PortHandler(Protocol):
    """What the reader thread calls; all of it from that one thread."""

    def on_connect(self, port: SerialPort) -> None:
        """The port is open; nothing has been read from it yet."""

    def on_bytes(self, data: bytes, recv_ns: int) -> None:
        """``data`` arrived; ``recv_ns`` is ``time.monotonic_ns()`` right after the read."""

    def on_tick(self, now_s: float) -> None:
        """About every 50 ms, bytes or none (``time.monotonic()``)."""

    def on_disconnect(self, reason: str | None) -> None:
        """The device is gone, or stop() was called (None). The port is closed when this returns."""

    def established(self) -> bool:
        """Whether the device has proved itself on this connection (only then does the backoff restart)."""


class PortReader:
    """Runs the reader thread from :meth:`start` to :meth:`stop`.

    Args:
        reopen: opens the port again; a ConnectorError means "not yet".
        handler: receives bytes and events on the reader thread.
    """

    def __init__(self, reopen: Callable[[], SerialPort], handler: PortHandler) -> None:
        self._reopen = reopen
        self._handler = handler
        self._stopping = False
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread: threading.Thread | None = None

    def start(self, port: SerialPort) -> None:
        """Start reading the already open ``port``."""
        self._thread = threading.Thread(target=self._run, args=(port,), name="kizzasi-link", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and close the port; must not be called from the reader thread."""
        self._stopping = True
        os.eventfd_write(self._wake, 1)
        if self._thread is not None:
            self._thread.join()
        os.close(self._wake)

    def _run(self, first: SerialPort) -> None:
        port: SerialPort | None = first
        backoff = _BACKOFF_FIRST_S
        while port is not None:
            self._handler.on_connect(port)
            try:
                reason = self._serve(port.fd)
                if self._handler.established():
                    backoff = _BACKOFF_FIRST_S
                self._handler.on_disconnect(reason)
            finally:
                port.close()
            port, backoff = self._open_again(backoff)

    def _serve(self, fd: int) -> str | None:
        """Read until the device is gone (returns why) or stop() is called (None)."""
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        poller.register(self._wake, select.POLLIN)
        next_tick = 0.0
        while not self._stopping:
            for ready, events in poller.poll(_TICK_S * 1e3):
                if ready != fd:
                    continue
                if not events & select.POLLIN:
                    return "hang-up" if events & _GONE else f"poll reported {events:#x}"
                try:
                    data = _read_all(fd)
                except BlockingIOError:
                    continue
                except OSError as error:
                    return f"read failed: {error.strerror}"
                if not data:
                    return "end of file"
                self._handler.on_bytes(data, time.monotonic_ns())
            now = time.monotonic()
            if now >= next_tick:
                next_tick = now + _TICK_S
                self._handler.on_tick(now)
        return None

    def _open_again(self, backoff: float) -> tuple[SerialPort | None, float]:
        """Retry with exponential backoff; (None, _) once stop() was called."""
        waiter = select.poll()
        waiter.register(self._wake, select.POLLIN)
        while not self._stopping:
            waiter.poll(backoff * 1e3)
            backoff = min(2 * backoff, _BACKOFF_MAX_S)
            if self._stopping:
                break
            with suppress(ConnectorError):
                return self._reopen(), backoff
        return None, backoff


def _read_all(fd: int) -> bytes:
    """What is waiting on ``fd``. After a pause that is a backlog: read it whole, so that only its newest STATE
    is acted on. The kernel refills the tty's buffer with a short delay, hence the patience between reads."""
    data = os.read(fd, _READ_SIZE)
    if len(data) < _N_TTY:
        return data
    parts = [data]
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    with suppress(OSError):  # a real failure shows again at the next read
        while len(parts) < _BACKLOG_READS and poller.poll(_REFILL_MS):
            more = os.read(fd, _READ_SIZE)
            if not more:
                break
            parts.append(more)
    return b"".join(parts)
