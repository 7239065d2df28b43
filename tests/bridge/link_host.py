"""``python link_host.py PORT TTL_MS [SLOW_FROM DELAY_MS SLOW_TTL_MS]``: a host on the real Link that arms and streams
until it is killed. Before each COMMAND it prints the stamp of the observation it is computed from. After SLOW_FROM
COMMANDs it takes its time over each."""

from __future__ import annotations

import os
import sys
import time

import numpy as np
from bare_host import CHANNELS

from kizzasi_bridge.link import Link
from kizzasi_bridge.protocol import ChannelLimits, Limits

W, H, PERIOD_US, BUDGET = 4000, 100, 2000, 3
FAR = 2**29  # minutes away: what stops it is not a limit


def limits(ttl_ms: int) -> Limits:
    return Limits((ChannelLimits(-FAR, FAR, W, H),) * CHANNELS, PERIOD_US, BUDGET, ttl_ms, 5000)


def main(port: str, ttl_ms: int, slow_from: int = sys.maxsize, delay_ms: int = 0, slow_ttl_ms: int = 0) -> None:
    target, count, sent = np.full(CHANNELS, FAR, dtype=np.int32), 0, 0
    with Link(port) as link:
        link.upload_limits(limits(ttl_ms))
        link.arm()
        while True:
            state = link.wait_state(count, 1.0)
            if state is None:
                continue
            count = state.count
            slow = sent >= slow_from
            os.write(1, b"%d %d\n" % (state.t_us, slow))
            if slow:
                time.sleep(delay_ms * 1e-3)
            sent += link.command(target, state.t_us, slow_ttl_ms if slow else ttl_ms)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
