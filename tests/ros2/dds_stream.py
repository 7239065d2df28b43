"""A stream from another process, and what must be true of it."""

from __future__ import annotations

import threading
import time
from itertools import pairwise

from dds_peer import JointState
from ddsrig import JOINT_STATE, Peer, fresh_domain, until

from kizzasi_edge.ros2.dds import Dds
from kizzasi_edge.ros2.qos import QosProfile

RELIABLE = QosProfile(depth=2000)
TWO = {"name": ["a", "b"], "position": [1.0, -2.0]}


def numbers_of(got: list[tuple[bytes, int]]) -> list[int]:
    """The sequence that the peer hides in its stamps."""
    stamps = [JointState.deserialize(cdr).header.stamp for cdr, _ in got]
    return [stamp.sec * 1000 + stamp.nanosec for stamp in stamps]


def stream(seconds: float) -> None:
    """1 kHz from another process, reliable: all of it, in order, stamped in order, on the transport's thread alone."""
    n, got, threads = round(seconds * 1000), [], set()

    def on_message(cdr: bytes, recv_ns: int) -> None:
        got.append((cdr, recv_ns))
        threads.add(threading.current_thread().name)

    with fresh_domain() as domain, Peer(domain, "write", "joint_states") as peer:
        transport = Dds(domain)
        subscription = transport.subscribe("joint_states", JOINT_STATE, RELIABLE, on_message)
        peer.matched()
        until(lambda: subscription.counters["publishers"] == 1)
        start = time.monotonic_ns()
        peer.send(**TWO, count=n)
        longest, before = 0, start
        while len(got) < n:  # what a loop does meanwhile: it is never held up by the reader
            assert time.monotonic_ns() - start < (seconds + 20) * 1e9, len(got)
            subscription.counters  # noqa: B018
            time.sleep(0.001)
            now = time.monotonic_ns()
            longest, before = max(longest, now - before), now
        peer.done()
        time.sleep(0.05)
        assert subscription.counters == {"received": n, "failed": 0, "publishers": 1}
        transport.close()
    assert numbers_of(got) == list(range(n))
    assert all(earlier <= later for (_, earlier), (_, later) in pairwise(got))
    assert start < got[0][1] <= got[-1][1] <= time.monotonic_ns()
    assert threads == {f"dds-{domain.id}"}
    assert longest < 1e9, f"something held this thread for {longest * 1e-6:.0f} ms"
