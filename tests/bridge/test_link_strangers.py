"""Ports with something strange on the other end: nothing at all, another protocol, a damaged schema."""

from __future__ import annotations

import os
import threading
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from kizzasi_bridge import Decoder, LinkError, encode
from kizzasi_bridge.link import Link
from kizzasi_bridge.protocol import Hello, MsgType


@pytest.fixture
def bare_port(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A pty and the fd of its other end, where a strange device can be played."""
    master, slave = os.openpty()
    tty.setraw(slave)
    port = tmp_path / "bare"
    port.symlink_to(os.ttyname(slave))
    yield port, master
    os.close(master)
    os.close(slave)


def test_a_silent_port_is_named_so(bare_port: tuple[Path, int]):
    with pytest.raises(LinkError, match=r"no byte received in 0\.2 s"):
        Link(bare_port[0]).open(timeout_s=0.2)


@pytest.mark.parametrize(
    ("hello", "message"),
    [
        (Hello(2, 2, 0, 0, 9, 1, 1, 0, 1, 0, major=2), r"it speaks protocol 2\.0, this host 1\.x"),
        (Hello(2, 2, 0, 0, 9, 1, 1, 0, 1, 0), "does not match the hash in its HELLO"),
    ],
)
def test_a_board_that_cannot_be_used_is_refused(bare_port: tuple[Path, int], hello: Hello, message: str):
    port, master = bare_port
    stop = threading.Event()

    def device() -> None:
        decoder = Decoder()
        os.set_blocking(master, False)
        while not stop.is_set():
            try:
                frames = decoder.feed(os.read(master, 4096))
            except OSError:
                time.sleep(0.002)
                continue
            for frame in frames:
                if frame.type == MsgType.HELLO_REQ:
                    os.write(master, encode(MsgType.HELLO, hello.pack(), seq=0, t_us=0))
                elif frame.type == MsgType.SCHEMA_GET:
                    os.write(master, encode(MsgType.SCHEMA_DATA, b"\0\0not zlib!", seq=1, t_us=0))

    thread = threading.Thread(target=device)
    thread.start()
    try:
        with pytest.raises(LinkError, match=message):
            Link(port).open(timeout_s=1.0)
    finally:
        stop.set()
        thread.join()
