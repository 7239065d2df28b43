"""The demo's simulated arm as a robot on a DDS graph, written without our transport: JointStates go out at 200 Hz, and
its servos go to what a forward_command_controller is told, and stay there when nobody tells them anything.

    python dds_plant.py DOMAIN_ID LOG P1,P2,...

The positions [rad] are where it starts, in the order of the model file. LOG gets a JSON object a line: of each command
received and of each period. The physics are advanced to the time at which a command was written (both ends are
on one machine), so that a plant that is late is late, but no other robot. SIGUSR1: it publishes no more states.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from cyclonedds.core import InstanceState, ReadCondition, SampleState, ViewState, WaitSet
from cyclonedds.domain import Domain, DomainParticipant
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from dds_peer import LOOPBACK, Float64MultiArray, Header, JointState, Time, qos

from kizzasi_edge.demo.physics import ASSETS, QUANTUM, ArmPhysics

PERIOD_NS = 5_000_000
STATE_ORDER = (2, 1, 0, 3, 4, 5)
"""Of the names in a JointState: elbow, lift, pan, wrists, as joint_state_broadcaster sorts them."""
CONTROLLER_ORDER = (5, 3, 1, 0, 2, 4)
"""Of the values that the controller takes, which bear no names."""


class Robot:
    """The arm in time [ns since the epoch], and its log."""

    def __init__(self, start: list[float], log: Path) -> None:
        # Without noise: an arm at rest is measured at one place, and the first command can be judged exactly.
        self.arm = ArmPhysics(ASSETS / "arm.xml", noise=0.0, seed=0)
        self.arm.reset(start)
        self._command = np.array(start)
        self._now_ns = time.time_ns()
        self._log = log.open("a")

    def go_on(self, to_ns: int) -> None:
        dt_us = max(to_ns - self._now_ns, 0) // 1000
        self.arm.step(self._command, dt_us, True)
        self._now_ns += dt_us * 1000

    def told(self, values: list[float], at_ns: int) -> None:
        self.go_on(at_ns)
        self._note(t_ns=at_ns, got_ns=time.time_ns(), command=values)
        self._command[list(CONTROLLER_ORDER)] = values

    def state(self, at_ns: int, published: bool) -> JointState:
        self.go_on(at_ns)
        arm = self.arm
        measured, velocity = (arm.measure() * QUANTUM).tolist(), arm.qvel.tolist()
        self._note(t_ns=time.time_ns(), published=published, measured=measured, q=arm.q.tolist(), qvel=velocity)
        ordered = [[values[i] for i in STATE_ORDER] for values in (arm.joints, measured, velocity)]
        return JointState(Header(Time(*divmod(at_ns, 10**9)), "base_link"), *ordered, [])

    def _note(self, **row: Any) -> None:
        self._log.write(json.dumps(row) + "\n")
        self._log.flush()


def live(robot: Any, participant: DomainParticipant, controller: str) -> None:
    states: DataWriter[Any] = DataWriter(participant, Topic(participant, "rt/joint_states", JointState), qos=qos(True))
    topic = Topic(participant, f"rt/{controller}/commands", Float64MultiArray)
    commands: DataReader[Any] = DataReader(participant, topic, qos=qos(True))
    waitset = WaitSet(participant)
    waitset.attach(ReadCondition(commands, SampleState.Any | ViewState.Any | InstanceState.Any))
    mute = threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: mute.set())
    due_ns = time.time_ns()
    while os.getppid() != 1:  # as long as the test is there
        if (left_ns := due_ns - time.time_ns()) > 0:
            waitset.wait(left_ns)
        for sample in commands.take(N=100):
            if sample.sample_info.valid_data:
                robot.told(list(sample.data), sample.sample_info.source_timestamp)
        if (now_ns := time.time_ns()) >= due_ns:
            state = robot.state(due_ns, published := not mute.is_set())
            if published:
                states.write(state)
            due_ns = max(due_ns + PERIOD_NS, now_ns)


def main() -> None:
    domain_id, log, start = sys.argv[1:]
    domain = Domain(int(domain_id), LOOPBACK.format(more=""))
    robot = Robot([float(value) for value in start.split(",")], Path(log))
    live(robot, DomainParticipant(int(domain_id)), "forward_position_controller")
    del domain


if __name__ == "__main__":
    main()
