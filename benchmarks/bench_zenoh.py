"""One-way time of a 12-joint JointState at 1 kHz between two processes: our Zenoh transport against bare Zenoh.

Both run in the same two sessions, block by block in turn, so that they share every disturbance of the machine. "bare"
is `Publisher.put` with a ready attachment, and a callback on Zenoh's own thread; a second figure is of the callback as
the package runs it by default, on a Python thread.

    python benchmarks/bench_zenoh.py [--seconds 20] [--json PATH]
"""

from __future__ import annotations

import argparse
import json
import socket
from multiprocessing.connection import Connection

from one_way import RELIABLE, age_us, joint_state, measure, send_in_turn, show

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
    send_in_turn(
        ways,
        cdr,
        seconds,
        lambda: ours.counters["subscribers"] > 0 and all(p.matching_status.matching for p in publishers),
    )
    transport.close()


def free_endpoint() -> str:
    with socket.socket() as claim:
        claim.bind(("127.0.0.1", 0))
        return f"tcp/127.0.0.1:{claim.getsockname()[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--json")
    options = parser.parse_args()
    result = measure(receiver, sender, free_endpoint(), options.seconds, WAYS)
    show(result, WAYS)
    print(f"ours / bare at p50: {result['ratio_p50']}")
    if options.json:
        with open(options.json, "w") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
