"""One-way time of a 12-joint JointState at 1 kHz between two processes: our Zenoh transport against bare Zenoh.

Both run in the same two sessions, block by block in turn, so that they share every disturbance of the machine. "bare"
is `Publisher.put` with a ready attachment, and a callback on Zenoh's own thread; a second figure is of the callback as
the package runs it by default, on a Python thread.

    python benchmarks/bench_zenoh.py [--seconds 20] [--json PATH]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import socket
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from bench_dds import BLOCK, RATE_HZ, RELIABLE, STAMP, age_us, joint_state

from kizzasi_edge.bench import machine
from kizzasi_edge.ros2.zenoh_domain import ZenohDomain

WAYS = ("ours", "bare", "bare threaded")


def receiver(at: str, pipe: Connection) -> None:
    """Subscribe three ways, and collect what arrives on each until told to stop."""
    from zenoh.handlers import Callback

    from kizzasi_edge.ros2.zenoh import Zenoh

    kind, _ = joint_state()
    ages: dict[str, list[float]] = {way: [] for way in WAYS}
    transport = Zenoh(ZenohDomain(connect=(), listen=(at,)))
    transport.subscribe("ours", kind, RELIABLE, lambda cdr, _: ages["ours"].append(age_us(cdr)))
    bare = [
        transport.session.declare_subscriber(
            key, Callback(lambda sample, way=way: ages[way].append(age_us(bytes(sample.payload))), indirect=indirect)
        )
        for key, way, indirect in (("bare/0", "bare", False), ("bare/1", "bare threaded", True))
    ]
    pipe.send("ready")
    pipe.recv()
    for subscriber in bare:
        subscriber.undeclare()
    transport.close()
    pipe.send(ages)


def sender(at: str, seconds: float) -> None:
    """Publish at 1 kHz, block by block each way in turn."""
    from kizzasi_edge.ros2.zenoh import Zenoh

    kind, cdr = joint_state()
    transport = Zenoh(ZenohDomain(connect=(at,), listen=()))
    ours = transport.advertise("ours", kind, RELIABLE)
    publishers = [transport.session.declare_publisher(f"bare/{i}") for i in (0, 1)]
    attached = bytes(33)
    ways = [ours.publish, *(lambda data, p=p: p.put(data, attachment=attached) for p in publishers)]
    deadline = time.monotonic() + 10
    while not (ours.counters["subscribers"] and all(p.matching_status.matching for p in publishers)):
        if time.monotonic() > deadline:
            sys.exit("the two processes do not find each other")
        time.sleep(0.01)
    due = time.monotonic_ns()
    for i in range(round(seconds * RATE_HZ)):
        due += 1_000_000_000 // RATE_HZ
        if (rest := due - time.monotonic_ns()) > 0:
            time.sleep(rest * 1e-9)
        cdr[STAMP] = time.monotonic_ns().to_bytes(8, "little")
        ways[i // BLOCK % len(ways)](bytes(cdr))
    time.sleep(0.5)
    transport.close()


def measure(seconds: float) -> dict[str, Any]:
    """Run both processes; per way: messages lost, and percentiles of the one-way time [µs] without the first 5%."""
    with socket.socket() as claim:
        claim.bind(("127.0.0.1", 0))
        at = f"tcp/127.0.0.1:{claim.getsockname()[1]}"
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
    sent = np.bincount(np.arange(round(seconds * RATE_HZ)) // BLOCK % len(WAYS), minlength=len(WAYS))
    result: dict[str, Any] = {"machine": machine()}
    for way, n in zip(WAYS, sent.tolist(), strict=True):
        p50, p99 = np.percentile(ages[way][len(ages[way]) // 20 :], [50, 99])
        result[way] = {"p50_us": round(float(p50), 1), "p99_us": round(float(p99), 1), "lost": n - len(ages[way])}
    result["ratio_p50"] = round(result["ours"]["p50_us"] / result["bare"]["p50_us"], 3)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--json")
    options = parser.parse_args()
    result = measure(options.seconds)
    for way in WAYS:
        print(f"{way:14s} " + "  ".join(f"{key} {value}" for key, value in result[way].items()))
    print(f"ours / bare at p50: {result['ratio_p50']}")
    if options.json:
        with open(options.json, "w") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
