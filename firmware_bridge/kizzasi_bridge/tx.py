"""Numbers, encodes and writes the host's frames; nothing else writes to the port.

A frame is written at once or dropped and counted: there is no queue, so a process that was stopped for a
while has nothing old to send, and a device that no longer drains its port cannot block the control loop.
"""

from __future__ import annotations

import os
import struct
import termios
import threading
import time
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from ._kz_core import ffi, lib
from .errors import WireError
from .frame import DEFAULT_FLAGS, HEADER, MAX_PAYLOAD, OVERHEAD
from .protocol import MsgType

__all__ = ["Transmitter"]

_COMMAND_HEAD = struct.Struct("<IIH")  # session, obs_t_us, ttl_ms
_U16, _U32 = 0xFFFF, 0xFFFFFFFF
_HALF_U32 = 1 << 31
_INT32 = np.dtype(np.int32)


class Transmitter:
    """The sending half of a link; every method may be called from any thread.

    Attributes:
        sent: frames written so far, by MsgType.
        blocked: writes that found the output buffer full; its stale content was thrown away.
        failed: frames dropped because there was no port, or because it took none or only a part of them.
        backwards: COMMANDs dropped because their obs_t_us was older than the one before.
    """

    def __init__(self) -> None:
        self.sent = [0] * (max(MsgType) + 1)
        self.blocked = self.failed = self.backwards = 0
        self._lock = threading.Lock()
        self._fd = -1
        # Not from 0: a board takes an ARM with the seq and nonce of the last one for its repetition.
        self._seq = int.from_bytes(os.urandom(2))
        self._out = ffi.new("uint8_t[]", MAX_PAYLOAD + OVERHEAD)
        self._payload = ffi.new("uint8_t[]", MAX_PAYLOAD)
        self._head = memoryview(ffi.buffer(self._payload))
        self._last_obs_us: int | None = None
        self.set_channels(0)

    def attach(self, fd: int) -> None:
        """Write to ``fd`` (non-blocking) from now on."""
        with self._lock:
            self._fd = fd

    def detach(self) -> None:
        """Stop using the fd: after this returns, it may be closed."""
        with self._lock:
            self._fd = -1

    def set_channels(self, n: int) -> None:
        """COMMANDs carry ``n`` values from now on."""
        with self._lock:
            self._shape = (n,)
            self._command_size = _COMMAND_HEAD.size + 4 * n
            buffer = ffi.buffer(self._payload)
            self._values = np.frombuffer(buffer, dtype="<i4", count=n, offset=_COMMAND_HEAD.size)

    def new_session(self) -> None:
        """Sessions do not share observation times: the next COMMAND may carry any."""
        with self._lock:
            self._last_obs_us = None

    def next_seq(self) -> int:
        """Reserve a sequence number for a request that may be sent more than once."""
        with self._lock:
            self._seq = (self._seq + 1) & _U16
            return self._seq

    def send(self, kind: int, payload: bytes = b"", seq: int | None = None) -> bool:
        """Encode and write one frame (with a reserved ``seq``, or the next one). False: dropped and counted."""
        with self._lock:
            return self._frame(kind, payload, len(payload), seq)

    def offer(self, kind: int, payload: bytes) -> bool:
        """As send(), but of no importance: it never takes the place of what waits in a full output buffer."""
        with self._lock:
            return self._frame(kind, payload, len(payload), None, give_way=True)

    def command(self, session: int, raw: NDArray[np.int32], obs_t_us: int, ttl_ms: int) -> bool:
        """Write one COMMAND. False: dropped and counted.

        Raises:
            WireError: ``raw`` is not int32 of shape (channels,), or a header field is out of its range.
        """
        if raw.dtype != _INT32 or raw.shape != self._shape:
            raise WireError(f"COMMAND: values of {raw.dtype}{raw.shape}, expected int32{self._shape}")
        with self._lock:
            last = self._last_obs_us
            if last is not None and (obs_t_us - last) & _U32 >= _HALF_U32:
                self.backwards += 1
                return False
            try:
                _COMMAND_HEAD.pack_into(self._head, 0, session, obs_t_us, ttl_ms)
            except struct.error as error:
                raise WireError(f"COMMAND: {error}; obs_t_us {obs_t_us}, ttl_ms {ttl_ms}") from None
            self._values[:] = raw
            self._last_obs_us = obs_t_us
            return self._frame(MsgType.COMMAND, self._payload, self._command_size, None)

    def _frame(self, kind: int, payload: object, length: int, seq: int | None, give_way: bool = False) -> bool:
        if self._fd < 0:
            self.failed += 1
            return False
        if seq is None:
            self._seq = seq = (self._seq + 1) & _U16
        t_us = time.monotonic_ns() // 1000 & _U32
        n = lib.kz_host_encode(self._out, HEADER.pack(kind, DEFAULT_FLAGS, seq, t_us), payload, length)
        if not self._write(ffi.buffer(self._out, n), n, give_way):
            self.failed += 1
            return False
        self.sent[kind] += 1
        return True

    def _write(self, data: object, n: int, give_way: bool) -> bool:
        try:
            try:
                return os.write(self._fd, data) == n  # type: ignore[arg-type]  # cffi's buffer is a Buffer
            except BlockingIOError:
                if give_way:
                    return False
                # What fills the buffer is older than this frame: let that go rather than this.
                self.blocked += 1
                with suppress(termios.error):
                    termios.tcflush(self._fd, termios.TCOFLUSH)
                return os.write(self._fd, data) == n  # type: ignore[arg-type]
        except OSError:  # still full, or gone: the reader thread notices the latter
            return False
