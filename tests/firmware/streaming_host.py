"""``python streaming_host.py SOCKET``: a host that arms and streams until it is killed. Before each COMMAND it prints
the stamp of the observation it is computed from. From SIGUSR1 on it is slow, beyond the TTL, and prints nothing."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from pathlib import Path

from bare_host import Host
from qemu import ALWAYS_ON, TTL_US, WIDE, connect


def main(path: str) -> None:
    slow: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, _: slow.append(number))
    link = connect(Path(path))

    def exchange(data: bytes) -> bytes:
        if data:
            link.sendall(data)
        return link.recv(1 << 16) if select.select([link], [], [], 0.1)[0] else b""

    host = Host(exchange, WIDE)
    host.upload()
    assert host.arm().result == 0
    while True:
        host.now = None
        host.until(lambda: host.now)
        assert host.now is not None
        if slow:
            time.sleep(1.2e-6 * TTL_US)
        else:
            os.write(1, b"%d\n" % host.now.sample_t_us)
        host.command(ALWAYS_ON)
        link.sendall(host.out())


if __name__ == "__main__":
    main(sys.argv[1])
