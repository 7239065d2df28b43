"""What the one-way benchmarks of transports share: messages that carry their time, sent at 1 kHz, block by block each
way in turn, so that all ways share every disturbance of the machine."""

from __future__ import annotations

import multiprocessing as mp
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from rosbags.typesys import Stores, get_typestore

from kizzasi_edge.bench import machine
from kizzasi_edge.ros2.qos import QosProfile
from kizzasi_edge.ros2.transport import MessageType

RATE_HZ = 1000
BLOCK = 250
TYPE = "sensor_msgs/msg/JointState"
RELIABLE = QosProfile(depth=100)
STAMP = slice(4, 12)  # header.stamp: the sender's monotonic time, a nanosecond counter in 8 bytes
Place = Any


def joint_state() -> tuple[MessageType, bytearray]:
    """A 12-joint message as ros2_control's broadcaster sends it."""
    store = get_typestore(Stores.ROS2_JAZZY)
    types, n = store.types, 12
    header = types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](0, 0), "base_link")
    names = [f"joint_{i}" for i in range(n)]
    message = types[TYPE](header, names, np.linspace(0, 1, n), np.full(n, 0.2), np.full(n, 0.3))
    return MessageType(TYPE, store.hash_rihs01(TYPE), store.fielddefs), bytearray(store.serialize_cdr(message, TYPE))


def age_us(cdr: bytes) -> float:
    return (time.monotonic_ns() - int.from_bytes(cdr[STAMP], "little")) * 1e-3


def send_in_turn(
    ways: Sequence[Callable[[bytes], object]], cdr: bytearray, seconds: float, found: Callable[[], bool]
) -> None:
    """Publish, once both processes have ``found`` each other."""
    deadline = time.monotonic() + 10
    while not found():
        if time.monotonic() > deadline:
            sys.exit("the two processes do not find each other")
        time.sleep(0.01)
    time.sleep(0.3)
    due = time.monotonic_ns()
    for i in range(round(seconds * RATE_HZ)):
        due += 1_000_000_000 // RATE_HZ
        if (rest := due - time.monotonic_ns()) > 0:
            time.sleep(rest * 1e-9)
        cdr[STAMP] = time.monotonic_ns().to_bytes(8, "little")
        ways[i // BLOCK % len(ways)](bytes(cdr))
    time.sleep(0.5)


def measure(
    receiver: Callable[[Place, Connection], None],
    sender: Callable[[Place, float], None],
    at: Place,
    seconds: float,
    ways: Sequence[str],
) -> dict[str, Any]:
    """Run both processes; per way: messages lost, and percentiles of the one-way time [µs] without the first 5%. The
    first two ways are compared."""
    context = mp.get_context("spawn")
    here, there = context.Pipe()
    processes = [
        context.Process(target=receiver, args=(at, there)),
        context.Process(target=sender, args=(at, seconds)),
    ]
    processes[0].start()
    here.recv()
    processes[1].start()
    processes[1].join()
    here.send("stop")
    ages = here.recv()
    processes[0].join()
    sent = np.bincount(np.arange(round(seconds * RATE_HZ)) // BLOCK % len(ways), minlength=len(ways))
    result: dict[str, Any] = {"machine": machine()}
    for way, n in zip(ways, sent.tolist(), strict=True):
        p50, p99 = np.percentile(ages[way][len(ages[way]) // 20 :], [50, 99])
        result[way] = {"p50_us": round(float(p50), 1), "p99_us": round(float(p99), 1), "lost": n - len(ages[way])}
    result["ratio_p50"] = round(result[ways[0]]["p50_us"] / result[ways[1]]["p50_us"], 3)
    return result


def show(result: dict[str, Any], ways: Sequence[str]) -> None:
    for way in ways:
        print(f"{way:14s} " + "  ".join(f"{key} {value}" for key, value in result[way].items()))
