"""Zenoh on ports of one's own on the loopback address, and processes at the other end."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from kizzasi_edge.ros2.messages import Messages
from kizzasi_edge.ros2.zenoh import Zenoh
from kizzasi_edge.ros2.zenoh_domain import ZenohDomain

PATIENCE_S = 20.0
PEER = Path(__file__).with_name("zenoh_peer.py")
MESSAGES = Messages()
JOINT_STATE = MESSAGES.type("sensor_msgs/msg/JointState")
ARRAY = MESSAGES.type("std_msgs/msg/Float64MultiArray")


def free() -> str:
    """A locator that nobody listens at."""
    with socket.socket() as claim:
        claim.bind(("127.0.0.1", 0))
        return f"tcp/127.0.0.1:{claim.getsockname()[1]}"


def listening(**settings: Any) -> ZenohDomain:
    """A place that others connect to; ``domain.listen[0]`` says where."""
    return ZenohDomain(**{"id": 7, "connect": (), "listen": (free(),), **settings})


def connecting(to: ZenohDomain | str, **settings: Any) -> ZenohDomain:
    """A place beside another, or at a router."""
    at = to if isinstance(to, str) else (to.listen or ())[0]
    return ZenohDomain(**{"id": 7, "connect": (at,), "listen": (), **settings})


@contextmanager
def opened(domain: ZenohDomain) -> Iterator[Zenoh]:
    transport = Zenoh(domain)
    try:
        yield transport
    finally:
        transport.close()


def until(condition: Callable[[], Any], timeout_s: float = PATIENCE_S) -> Any:
    """What ``condition`` says once it says anything."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)
    return found


def joint_state(names: Sequence[str], position: Sequence[float]) -> bytes:
    """A JointState by rosbags, which our codec has no part in."""
    types = MESSAGES.store.types
    header = types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](1, 2), "base")
    arrays = [np.array(values, np.float64) for values in (position, (), ())]
    return bytes(MESSAGES.store.serialize_cdr(types[JOINT_STATE.name](header, list(names), *arrays), JOINT_STATE.name))


def array_of(cdr: bytes) -> list[float]:
    """The numbers in a Float64MultiArray."""
    said: Any = MESSAGES.store.deserialize_cdr(cdr, ARRAY.name)
    return said.data.tolist()  # type: ignore[no-any-return]


class Peer:
    """``zenoh_peer.py`` as a child process, ready when made."""

    def __init__(self, *arguments: str) -> None:
        environ = {key: value for key, value in os.environ.items() if not key.startswith("ZENOH")}
        self.process = subprocess.Popen(
            [sys.executable, str(PEER), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._in, self._out = self.process.stdin, self.process.stdout
        self._rest = b""
        assert self.line() == "ready"

    @classmethod
    def beside(cls, role: str, ours: ZenohDomain, *more: str) -> Peer:
        """Connected to us, as a peer."""
        return cls(role, "peer", (ours.listen or ())[0], "none", str(ours.id), *more)

    def line(self) -> str:
        """The next line that it prints."""
        deadline = time.monotonic() + PATIENCE_S
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self._out], [], [], max(0, deadline - time.monotonic()))
            assert ready, "it said nothing in time"
            more = os.read(self._out.fileno(), 65536)
            assert more, "it ended"
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    def said(self) -> Any:
        return json.loads(self.line())

    def send(self, payload: bytes = b"", **order: Any) -> None:
        """Publish; see zenoh_peer.py."""
        self._in.write(json.dumps({"payload": payload.hex(), **order}).encode() + b"\n")
        self._in.flush()

    def done(self) -> None:
        assert self.line() == "done"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._in.close()
        self._out.close()
