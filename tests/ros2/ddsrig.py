"""Domains of one's own on the loopback interface, and a process at the other end."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kizzasi_edge.ros2.dds_domain import Domain
from kizzasi_edge.ros2.messages import Messages
from kizzasi_edge.ros2.transport import MessageType

PATIENCE_S = 20.0
PEER = Path(__file__).with_name("dds_peer.py")
MESSAGES = Messages()
JOINT_STATE = MESSAGES.type("sensor_msgs/msg/JointState")
ARRAY = MESSAGES.type("std_msgs/msg/Float64MultiArray")


@contextmanager
def fresh_domain(**settings: Any) -> Iterator[Domain]:
    """A domain that no other job on this machine uses at the time; the socket says so."""
    while True:
        number = random.randint(100, 230)
        claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            claim.bind(("127.0.0.1", 5000 + number))
            break
        except OSError:
            claim.close()
    with claim:
        yield Domain(number, discovery="localhost", interface="lo", **settings)


def until(condition: Callable[[], Any], timeout_s: float = PATIENCE_S) -> Any:
    """What ``condition`` says once it says anything."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)
    return found


def joint_state(
    names: Sequence[str],
    position: Sequence[float],
    velocity: Sequence[float] = (),
    kind: MessageType = JOINT_STATE,
) -> bytes:
    """A JointState by rosbags, which our codec has no part in."""
    import numpy as np

    types = MESSAGES.store.types
    header = types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](1, 2), "base")
    arrays = [np.array(values, np.float64) for values in (position, velocity, ())]
    return bytes(MESSAGES.store.serialize_cdr(types[kind.name](header, list(names), *arrays), kind.name))


class Peer:
    """``dds_peer.py`` as a child process."""

    def __init__(self, domain: Domain, role: str, topic: str, *more: str) -> None:
        command = [sys.executable, str(PEER), str(domain.id), role, topic, *more]
        environ = {key: value for key, value in os.environ.items() if key != "CYCLONEDDS_URI"}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._in, self.out = self.process.stdin, self.process.stdout

    def matched(self) -> None:
        assert self.out.readline() == "matched\n"

    def send(self, **order: Any) -> None:
        """Publish; see dds_peer.py."""
        self._in.write(json.dumps(order) + "\n")
        self._in.flush()

    def done(self) -> None:
        assert self.out.readline() == "done\n"

    def arrays(self, count: int) -> list[list[float]]:
        """What a reader has received; if it does not come, the reader ends, and so does the test."""
        late = threading.Timer(PATIENCE_S, self.process.kill)
        late.start()
        try:
            return [json.loads(self.out.readline()) for _ in range(count)]
        finally:
            late.cancel()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.kill()
        self._in.close()
        self.out.close()
