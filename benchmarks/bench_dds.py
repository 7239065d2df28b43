"""One-way time of a 12-joint JointState at 1 kHz between two processes: our DDS transport against bare Cyclone DDS.

Both run in the same two processes, block by block in turn, so that they share every disturbance of the machine. "bare"
is the least that the `cyclonedds` package needs to move ready CDR bytes: a read condition, a wait set, `take`. A second
figure is of bare Cyclone with a listener, whose callback runs on Cyclone's own thread. Then the CPU time of a whole
guarded loop beside that of a bare script (dds_load.py).

    python benchmarks/bench_dds.py [--seconds 20] [--json PATH]

Exit code 1 if ours takes more than 1.15 times as long at p50.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

import dds_load
from one_way import RELIABLE, age_us, joint_state, measure, send_in_turn, show

BOUND = 1.15
WAYS = ("ours", "bare", "bare listener")


def domain(domain_id: int) -> Any:
    from kizzasi_edge.ros2.dds_domain import Domain

    return Domain(domain_id, discovery="localhost", interface="lo")


def receiver(domain_id: int, pipe: Connection) -> None:
    """Subscribe three ways, and collect what arrives on each until told to stop."""
    from cyclonedds.core import InstanceState, Listener, ReadCondition, SampleState, ViewState, WaitSet
    from cyclonedds.sub import DataReader
    from cyclonedds.topic import Topic
    from cyclonedds.util import duration

    from kizzasi_edge.ros2.dds import Dds
    from kizzasi_edge.ros2.dds_qos import endpoint_qos
    from kizzasi_edge.ros2.dds_types import carrier

    kind, _ = joint_state()
    ages: dict[str, list[float]] = {way: [] for way in WAYS}
    transport = Dds(domain(domain_id))
    transport.subscribe("ours", kind, RELIABLE, lambda cdr, _: ages["ours"].append(age_us(cdr)))

    qos, done = endpoint_qos(RELIABLE, kind.hash), threading.Event()
    raw = carrier(kind)
    reader: DataReader[Any] = DataReader(transport.participant, Topic(transport.participant, "rt/bare", raw), qos=qos)

    def wait_and_take() -> None:
        waitset = WaitSet(transport.participant)
        waitset.attach(ReadCondition(reader, SampleState.Any | ViewState.Any | InstanceState.Any))
        while not done.is_set():
            waitset.wait(duration(milliseconds=500))
            ages["bare"].extend(age_us(sample.cdr) for sample in reader.take(N=64) if sample.sample_info.valid_data)

    class Taker(Listener):
        def on_data_available(self, reader: DataReader[Any]) -> None:
            taken = reader.take(N=64)
            ages["bare listener"].extend(age_us(sample.cdr) for sample in taken if sample.sample_info.valid_data)

    listened: DataReader[Any] = DataReader(
        transport.participant, Topic(transport.participant, "rt/bare_listener", raw), qos=qos, listener=Taker()
    )
    thread = threading.Thread(target=wait_and_take)
    thread.start()
    pipe.send("ready")
    pipe.recv()
    done.set()
    thread.join()
    del listened
    pipe.send(ages)


def sender(domain_id: int, seconds: float) -> None:
    """Publish at 1 kHz, block by block each way in turn."""
    from cyclonedds.pub import DataWriter
    from cyclonedds.topic import Topic

    from kizzasi_edge.ros2.dds import Dds
    from kizzasi_edge.ros2.dds_qos import endpoint_qos
    from kizzasi_edge.ros2.dds_types import carrier

    kind, cdr = joint_state()
    transport = Dds(domain(domain_id))
    ours = transport.advertise("ours", kind, RELIABLE)
    raw, qos = carrier(kind), endpoint_qos(RELIABLE, kind.hash)
    writers: list[DataWriter[Any]] = [
        DataWriter(transport.participant, Topic(transport.participant, f"rt/{name}", raw), qos=qos)
        for name in ("bare", "bare_listener")
    ]
    ways = [ours.publish, *(lambda data, w=writer: w.write(raw(data)) for writer in writers)]
    send_in_turn(
        ways,
        cdr,
        seconds,
        lambda: ours.counters["subscribers"] > 0 and all(writer.get_matched_subscriptions() for writer in writers),
    )
    transport.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--domain", type=int, default=97)
    parser.add_argument("--json")
    options = parser.parse_args()
    result = measure(receiver, sender, options.domain, options.seconds, WAYS)
    load = result["load"] = dds_load.measure(options.seconds, options.domain)
    show(result, WAYS)
    within = "within" if result["ratio_p50"] <= BOUND else "OVER"
    print(f"ours / bare at p50: {result['ratio_p50']} ({within} {BOUND})")
    for way in dds_load.WAYS:
        print(f"loop, {way:8s} " + "  ".join(f"{key} {value}" for key, value in load[way].items()))
    print(f"CPU time of a command, ours / bare: {load['ratio']}")
    if options.json:
        with open(options.json, "w") as file:
            json.dump(result, file, indent=1)
    sys.exit(within == "OVER")


if __name__ == "__main__":
    main()
