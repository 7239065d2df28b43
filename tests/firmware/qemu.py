"""QEMU's model of the board in real time, with its two UARTs on Unix sockets.

A busy machine wakes it late and takes its bytes one by one: it is built with a slow tick and a patient watchdog, and
gets a COMMAND every 20 ms only.
"""

from __future__ import annotations

import select
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

from bare_host import CHANNELS, Host, Trace

from kizzasi_bridge.protocol import ChannelLimits, Limits

WATCHDOG_MS = 1000
TICK_US = 5000
W, H = 1000, 50
WIDE = Limits((ChannelLimits(-(2**29), 2**29, W, H),) * CHANNELS, 20_000, 3, 1000, 5000)
ALWAYS_ON = (2**29,) * CHANNELS  # many minutes away: what stops it is not a limit
TTL_US = 1000 * WIDE.ttl_max_ms


class Qemu:
    """A running board. ``link``: path of the host's socket; ``trace``: every tick's outputs, as they come."""

    def __init__(self, elf: Path, machine: str, directory: Path) -> None:
        self.link, outputs = directory / "link", directory / "outputs"
        command = ["qemu-system-arm", "-M", f"mps2-{machine}", "-kernel", str(elf), "-display", "none"]
        command += ["-monitor", "none"]
        for name, path in (("link", self.link), ("outputs", outputs)):
            command += ["-chardev", f"socket,id={name},path={path},server=on,wait=off", "-serial", f"chardev:{name}"]
        self._log = (directory / "qemu.log").open("wb")
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)
        self.trace = Trace(TICK_US)
        self._outputs = connect(outputs)

    def watch(self, seconds: float) -> None:
        """Read the trace for so long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self._outputs], [], [], left)[0]:
                self.trace.feed(self._outputs.recv(1 << 16))

    def plug(self) -> tuple[Host, socket.socket]:
        """A host on the link; close the socket to pull the cable."""
        link = connect(self.link)

        def exchange(data: bytes) -> bytes:
            if data:
                link.sendall(data)
            while True:
                ready, _, _ = select.select([link, self._outputs], [], [], 0.1)
                if self._outputs in ready:
                    self.trace.feed(self._outputs.recv(1 << 16))
                if link in ready:
                    return link.recv(1 << 16)
                if not ready:
                    return b""

        return Host(exchange, WIDE), link

    def __enter__(self) -> Qemu:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._outputs.close()
        self.process.kill()
        self.process.wait()
        self._log.close()


def connect(path: Path) -> socket.socket:
    """A client of the socket, as soon as it is there."""
    deadline = time.monotonic() + 10
    while True:
        client = socket.socket(socket.AF_UNIX)
        try:
            client.connect(str(path))
            return client
        except OSError:
            client.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
