"""What the tests of the node in virtual time share."""

from __future__ import annotations

import numpy as np

from kizzasi_bridge.frame import Frame
from kizzasi_bridge.protocol import (
    Arm,
    MsgType,
    State,
)

FAR = (100_000, -100_000)  # the limits themselves: the guard brakes before them, not before any other target
CLOSE = 3  # quanta: the coasting room of the miss budget may stay unused


def states(frames: list[Frame]) -> list[State]:
    return [State.unpack(f.payload) for f in frames if f.type == MsgType.STATE]


def arm_payload(node) -> bytes:
    return Arm(node.now.nonce, node.limits_hash).pack()


def motion(node, ticks: int) -> np.ndarray:
    """Setpoints of each period during ``ticks``."""
    rows = [node.applied.copy()]
    for _ in range(ticks):
        node.tick()
        if node.boundary:
            rows.append(node.applied.copy())
    return np.array(rows, dtype=np.int64)


def run_to_rest(node) -> None:
    for _ in range(1000):
        before = node.applied.copy()
        node.tick(2)
        if (node.applied == before).all():
            return
    raise AssertionError("never came to rest")
