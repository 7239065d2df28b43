"""A cable with a fault in it."""

from __future__ import annotations

import os
import threading
import time
import tty
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

__all__ = ["Tap", "nothing"]


def write_all(port: int, data: bytes) -> None:
    """A pty takes what it has room for; the rest must wait until the other side has read."""
    while data:
        try:
            data = data[os.write(port, data) :]
        except BlockingIOError:
            time.sleep(0.0005)


class Tap:
    """A pty for the host, wired byte by byte to the board's port."""

    def __init__(self, board_port: Path, directory: Path) -> None:
        self.to_board: Callable[[bytes], bytes] = bytes  # what becomes of the host's bytes
        self.to_host: Callable[[bytes], bytes] = bytes
        self.port = directory / "tap"
        self._near, slave = os.openpty()
        tty.setraw(slave)
        self.port.symlink_to(os.ttyname(slave))
        self._slave = slave
        self._far = os.open(board_port, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(self._far)
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._carry, args=(self._near, self._far, "to_board")),
            threading.Thread(target=self._carry, args=(self._far, self._near, "to_host")),
        ]
        for thread in self._threads:
            thread.start()

    def _carry(self, source: int, sink: int, what: str) -> None:
        os.set_blocking(source, False)
        while not self._stop.is_set():
            try:
                data = os.read(source, 4096)
            except BlockingIOError:
                time.sleep(0.0005)
                continue
            except OSError:
                return
            with suppress(OSError):
                os.write(sink, getattr(self, what)(data))

    def inject_to_host(self, data: bytes) -> None:
        write_all(self._near, data)

    def inject_to_board(self, data: bytes) -> None:
        write_all(self._far, data)

    def __enter__(self) -> Tap:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for fd in (self._near, self._far, self._slave):
            os.close(fd)


def nothing(data: bytes) -> bytes:
    return b""
