"""CPU time of a 1 kHz loop over DDS: 12 joints read as JointState, a step, 12 commands written as Float64MultiArray.

"ours" is the loop as `kizzasi-edge run` runs it: aligned, guarded, recorded, through the node that keeps sessions and
limits. "bare" is what one writes with the `cyclonedds` package and nothing else: hand-declared types, a wait set,
`take`, `write`, and no guard. Both run at the same time, each in its process, on the same messages, with the same step.
"""

# Not from __future__ import annotations: Cyclone reads these types, not their names.
import math
import multiprocessing as mp
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from cyclonedds.core import InstanceState, Policy, Qos, ReadCondition, SampleState, ViewState, WaitSet
from cyclonedds.idl import IdlStruct
from cyclonedds.idl.types import float64, int32, sequence, uint32
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration

RATE_HZ, N = 1000, 12
JOINTS = [f"joint_{i}" for i in range(N)]
WAYS = ("ours", "bare")


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


class Step:
    """The policy of both: setpoints that swing slowly."""

    output_names = tuple(JOINTS)

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._steps = 0

    def propose(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        self._steps += 1
        return x * np.float32(0.0) + np.float32(0.2 * math.sin(self._steps / RATE_HZ))


def settings(domain_id: int) -> dict[str, Any]:
    return {"domain": domain_id, "discovery": "localhost", "interface": "lo"}


def robot(domain_id: int, pipe: Connection) -> None:
    """Publish the joints until told to stop."""
    from kizzasi_edge.connectors.dds import DdsTopic
    from kizzasi_edge.ros2.codec import Encoder
    from kizzasi_edge.ros2.dds import Dds
    from kizzasi_edge.ros2.dds_domain import Domain
    from kizzasi_edge.ros2.qos import PRESETS

    options = DdsTopic.Options(topic="/joint_states", type="sensor_msgs/msg/JointState", **settings(domain_id))
    kind = DdsTopic(options, Path()).kind
    zeros = [0.0] * N
    states = {"header": {}, "name": JOINTS, "position": zeros, "velocity": zeros, "effort": zeros}
    message = Encoder(kind, states, []).encode(np.zeros(0))
    transport = Dds(Domain(domain_id, "localhost", "lo", node="robot"))
    publication = transport.advertise("/joint_states", kind, PRESETS["default"])
    due = time.monotonic_ns()
    while not pipe.poll():
        due = max(due + 1_000_000_000 // RATE_HZ, time.monotonic_ns() - 10_000_000)
        time.sleep(max(due - time.monotonic_ns(), 0) * 1e-9)
        publication.publish(message)
    transport.close()


def ours(domain_id: int, pipe: Connection) -> None:
    from kizzasi_edge.align import Align, Input
    from kizzasi_edge.clock import DevicePace, low_jitter
    from kizzasi_edge.connectors.dds import DdsTopic
    from kizzasi_edge.guardrails import Guardrails
    from kizzasi_edge.loop import Loop
    from kizzasi_edge.recorder import Recorder

    builder = Guardrails.builder(rate_hz=RATE_HZ)
    for joint in JOINTS:
        builder.joint(joint, position=(-1.0, 1.0), velocity=2.0, acceleration=20.0)
    guard, where = builder.build(), settings(domain_id)
    source = DdsTopic(DdsTopic.Options(topic="/joint_states", type="sensor_msgs/msg/JointState", **where), Path())
    options = {"topic": "/ours", "type": "std_msgs/msg/Float64MultiArray", "joints": JOINTS, "ttl_ms": 1000}
    output = DdsTopic.Output(DdsTopic.Output.Options(**options, **where), Path())
    source.open()
    output.open()
    output.prepare(guard, RATE_HZ)
    names = [f"{joint}/position" for joint in JOINTS]
    align = Align(names, [Input("joints", source, {}, 500_000_000)])
    loop = Loop(Step(), guard, align, output, DevicePace(output, RATE_HZ), Recorder(10 * RATE_HZ, N, N, N))
    with low_jitter(False):
        for _ in range(200):
            loop.tick()
        output.arm()
        for _ in range(200):
            loop.tick()
        seconds, before = start(pipe), output.counters["sent"]
        began, cpu = time.monotonic(), time.process_time()
        while time.monotonic() < began + seconds:
            loop.tick()
        report(pipe, began, cpu, output.counters["sent"] - before)
    output.close()
    source.close()


def bare(domain_id: int, pipe: Connection) -> None:
    from cyclonedds.domain import DomainParticipant

    from kizzasi_edge.ros2 import dds_network
    from kizzasi_edge.ros2.dds_domain import Domain

    dds_network.acquire(Domain(domain_id, "localhost", "lo"))  # nothing but Cyclone's own configuration
    participant = DomainParticipant(domain_id)
    xcdr1 = Policy.DataRepresentation(use_cdrv0_representation=True, use_xcdrv2_representation=False)
    qos = Qos(Policy.Reliability.Reliable(10**8), Policy.History.KeepLast(10), xcdr1)
    states: DataReader[Any] = DataReader(participant, Topic(participant, "rt/joint_states", JointState), qos=qos)
    commands: DataWriter[Any] = DataWriter(participant, Topic(participant, "rt/bare", Float64MultiArray), qos=qos)
    waitset = WaitSet(participant)
    waitset.attach(ReadCondition(states, SampleState.Any | ViewState.Any | InstanceState.Any))
    step, sent = Step(), 0

    def run(until: float) -> int:
        count = 0
        while time.monotonic() < until:
            waitset.wait(duration(milliseconds=100))
            for sample in states.take(N=10):
                if sample.sample_info.valid_data:
                    y = step.propose(np.array(sample.position, np.float32))
                    commands.write(Float64MultiArray(MultiArrayLayout([], 0), y.tolist()))
                    count += 1
        return count

    while sent == 0:
        sent = run(time.monotonic() + 0.4)
    seconds = start(pipe)
    began, cpu = time.monotonic(), time.process_time()
    report(pipe, began, cpu, run(began + seconds))


def start(pipe: Connection) -> float:
    """Ready; how long to run."""
    pipe.send("ready")
    seconds: float = pipe.recv()
    return seconds


def report(pipe: Connection, began: float, cpu: float, sent: int) -> None:
    spent, took = time.process_time() - cpu, time.monotonic() - began
    pipe.send({"cpu": round(spent / took, 3), "us_per_command": round(spent / sent * 1e6, 1), "hz": round(sent / took)})


def measure(seconds: float, domain_id: int) -> dict[str, Any]:
    """CPU seconds per second of each way, of one core; ``ratio``: ours to bare, per command."""
    context = mp.get_context("spawn")
    pipes = {name: context.Pipe() for name in ("robot", *WAYS)}
    targets = {"robot": robot, "ours": ours, "bare": bare}
    processes = [context.Process(target=targets[name], args=(domain_id, pipes[name][1])) for name in targets]
    for process in processes:
        process.start()
    found: dict[str, Any] = {}
    for name in WAYS:
        assert pipes[name][0].recv() == "ready"
    for name in WAYS:
        pipes[name][0].send(seconds)
    for name in WAYS:
        found[name] = pipes[name][0].recv()
    pipes["robot"][0].send("stop")
    for process in processes:
        process.join()
    found["ratio"] = round(found["ours"]["us_per_command"] / found["bare"]["us_per_command"], 2)
    return found
