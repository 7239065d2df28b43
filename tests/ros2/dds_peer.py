"""A process at the other end, written without our code: hand-declared types, Cyclone's own serialiser.

    python dds_peer.py DOMAIN_ID write|read TOPIC [best_effort] [lossy]

``write`` takes one JSON object per line and publishes JointStates: name, position, and optionally velocity, effort,
count, rate_hz. ``read`` prints each Float64MultiArray's data. Both print "matched" once there is another end.
``lossy``: every fifth packet it sends is lost.
"""

# Not from __future__ import annotations: Cyclone reads these types, not their names.
import json
import os
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from cyclonedds.core import Policy, Qos
from cyclonedds.domain import Domain, DomainParticipant
from cyclonedds.idl import IdlStruct
from cyclonedds.idl.types import array, bounded_str, float64, int32, sequence, uint8, uint32
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic

LOOPBACK = """<CycloneDDS><Domain><General><Interfaces><NetworkInterface name="lo"/></Interfaces>
<AllowMulticast>false</AllowMulticast></General><Discovery><ParticipantIndex>auto</ParticipantIndex>
<MaxAutoParticipantIndex>32</MaxAutoParticipantIndex><Peers><Peer address="127.0.0.1"/></Peers>
<SPDPInterval>100 ms</SPDPInterval></Discovery>
{more}</Domain></CycloneDDS>"""
LOSSY = "<Internal><Test><XmitLossiness>200</XmitLossiness></Test></Internal>"
XCDR1 = Policy.DataRepresentation(use_cdrv0_representation=True, use_xcdrv2_representation=False)


@dataclass
class Time(IdlStruct, typename="builtin_interfaces.msg.dds_.Time_"):
    sec: int32 = 0
    nanosec: uint32 = 0


@dataclass
class Header(IdlStruct, typename="std_msgs.msg.dds_.Header_"):
    stamp: Time = field(default_factory=Time)
    frame_id: str = ""


@dataclass
class JointState(IdlStruct, typename="sensor_msgs.msg.dds_.JointState_"):
    header: Header
    name: sequence[str]
    position: sequence[float64]
    velocity: sequence[float64]
    effort: sequence[float64]


@dataclass
class MultiArrayDimension(IdlStruct, typename="std_msgs.msg.dds_.MultiArrayDimension_"):
    label: str
    size: uint32
    stride: uint32


@dataclass
class MultiArrayLayout(IdlStruct, typename="std_msgs.msg.dds_.MultiArrayLayout_"):
    dim: sequence[MultiArrayDimension]
    data_offset: uint32


@dataclass
class Float64MultiArray(IdlStruct, typename="std_msgs.msg.dds_.Float64MultiArray_"):
    layout: MultiArrayLayout
    data: sequence[float64]


@dataclass
class KeyValue(IdlStruct, typename="diagnostic_msgs.msg.dds_.KeyValue_"):
    key: str
    value: str


@dataclass
class DiagnosticStatus(IdlStruct, typename="diagnostic_msgs.msg.dds_.DiagnosticStatus_"):
    level: uint8
    name: str
    message: str
    hardware_id: str
    values: sequence[KeyValue]


@dataclass
class Gid(IdlStruct, typename="rmw_dds_common.msg.dds_.Gid_"):
    data: array[uint8, 16]


@dataclass
class NodeEntitiesInfo(IdlStruct, typename="rmw_dds_common.msg.dds_.NodeEntitiesInfo_"):
    node_namespace: bounded_str[256]
    node_name: bounded_str[256]
    reader_gid_seq: sequence[Gid]
    writer_gid_seq: sequence[Gid]


@dataclass
class ParticipantEntitiesInfo(IdlStruct, typename="rmw_dds_common.msg.dds_.ParticipantEntitiesInfo_"):
    gid: Gid
    node_entities_info_seq: sequence[NodeEntitiesInfo]


def qos(reliable: bool) -> Qos:
    reliability = Policy.Reliability.Reliable(10**9) if reliable else Policy.Reliability.BestEffort
    return Qos(reliability, Policy.History.KeepLast(1000), XCDR1)


def write(participant: DomainParticipant, topic: str, policies: Qos) -> None:
    writer: DataWriter[Any] = DataWriter(participant, Topic(participant, f"rt/{topic}", JointState), qos=policies)
    matched(lambda: writer._dll_handle.dds_get_matched_subscriptions(writer._ref, None, 0))
    for line in sys.stdin:
        order = json.loads(line)
        period_ns, due = round(1e9 / order.get("rate_hz", 1000)), time.monotonic_ns()
        for i in range(order.get("count", 1)):
            stamp = Time(i // 1000, i % 1000)
            values = [[float(v) for v in order.get(key, [])] for key in ("position", "velocity", "effort")]
            writer.write(JointState(Header(stamp, "base"), order["name"], *values))
            due += period_ns
            time.sleep(max(due - time.monotonic_ns(), 0) * 1e-9)
        say("done")


def read(participant: DomainParticipant, topic: str, policies: Qos) -> None:
    reader: DataReader[Any] = DataReader(
        participant, Topic(participant, f"rt/{topic}", Float64MultiArray), qos=policies
    )
    matched(lambda: reader._dll_handle.dds_get_matched_publications(reader._ref, None, 0))
    while True:
        for sample in reader.take(N=100):
            if sample.sample_info.valid_data:
                say(json.dumps(list(sample.data)))
        time.sleep(0.002)


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def matched(ends: Any) -> None:
    while not ends():
        time.sleep(0.005)
        if os.getppid() == 1:
            sys.exit("the test is gone")
    say("matched")


def main() -> None:
    domain_id, role, topic, *more = sys.argv[1:]
    domain = Domain(int(domain_id), LOOPBACK.format(more=LOSSY if "lossy" in more else ""))
    {"write": write, "read": read}[role](DomainParticipant(int(domain_id)), topic, qos("best_effort" not in more))
    del domain


if __name__ == "__main__":
    main()
