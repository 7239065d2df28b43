"""A robot in a ROS graph, and an operator: plain nodes of rclpy, as a robot's own stack would have them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState
from setpoint_model import write_policy
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from kizzasi_edge.guardrails import Guardrails

PATIENCE_S = 20.0
JOINTS = ("pan", "lift")
ORDER = ("lift", "pan")
"""The controller's, which is not the guard's."""
START = {"pan": 0.05, "lift": -0.1}
RATE_HZ = 100
QUANTUM = 2.0**-21
GUARD = f"""schema = 1
[guard]
rate_hz = {RATE_HZ}
[joints]
names = ["pan", "lift"]
position = [[-0.4, 0.4], [-0.3, 0.3]]
velocity = 1.5
acceleration = 10
quantum = {QUANTUM}
"""
ROBOT = """schema = 1
[robot]
name = "contract"
[model]
path = "m.onnx"
[guard]
path = "g.guard.toml"
[loop]
rate_hz = {rate}
pace = "device"
[[input]]
name = "arm"
connector = "ros2"
topic = "joint_states"
type = "sensor_msgs/msg/JointState"
stale_ms = {stale_ms}
[[input]]
name = "targets"
connector = "waypoints"
path = "t.csv"
[[output]]
connector = "ros2"
{output}
ttl_ms = 1000
arm_ttl_ms = 5000
[control]
socket = "s"
"""
FORWARD = f"""topic = "commands"
type = "std_msgs/msg/Float64MultiArray"
joints = {list(ORDER)}"""
TRAJECTORY = f"""topic = "trajectory"
type = "trajectory_msgs/msg/JointTrajectory"
reach_s = 0.02
joints = {list(ORDER)}"""


def write_robot(home: Path, *, output: str = FORWARD, targets: str = "0,2,-2", stale_ms: int = 500) -> Path:
    """A robot.toml and what it names; its model goes to targets outside the limits. Returns its path."""
    write_policy(home / "m.onnx", JOINTS, RATE_HZ)
    (home / "g.guard.toml").write_text(GUARD)
    (home / "t.csv").write_text(f"time_s,pan/target_position,lift/target_position\n{targets}\n")
    (home / "robot.toml").write_text(ROBOT.format(output=output, rate=RATE_HZ, stale_ms=stale_ms))
    return home / "robot.toml"


def until(condition: Callable[[], bool], what: str = "it") -> None:
    """Wait for what must happen; how long it takes is the machine's affair."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen in {PATIENCE_S:g} s"
        time.sleep(0.01)


class RobotNode(Node):
    """Its controllers follow every command at once, and its joints are published, 100 times a second.

    ``names``: the robot's own names of the joints; ``shuffled``: every message in another order; ``spoiled``: a joint
    that measures NaN; ``silent``: it publishes nothing.
    """

    def __init__(self, name: str = "robot", *, prefix: str = "", **options: Any) -> None:
        super().__init__(name, **options)
        self.at = dict(START)
        self.prefix, self.shuffled, self.spoiled, self.silent = prefix, False, "", False
        self.told: list[list[float]] = []
        """Every command, in the guard's order [rad]."""
        self.trajectories: list[Any] = []
        self._count = 0
        self._states = self.create_publisher(JointState, "joint_states", 10)
        everything = QoSProfile(depth=10_000)
        self.create_subscription(Float64MultiArray, "commands", self._follow, everything)
        self.create_subscription(JointTrajectory, "trajectory", self._follow_trajectory, everything)
        self.create_timer(0.01, self._publish)

    def _follow(self, message: Any) -> None:
        self._go(dict(zip(ORDER, message.data, strict=True)))

    def _follow_trajectory(self, message: Any) -> None:
        self.trajectories.append(message)
        names = [name.removeprefix(self.prefix) for name in message.joint_names]
        self._go(dict(zip(names, message.points[0].positions, strict=True)))

    def _go(self, to: Mapping[str, float]) -> None:
        self.told.append([to[joint] for joint in JOINTS])
        self.at.update(to)

    def _publish(self) -> None:
        if self.silent:
            return
        self._count += 1
        joints = list(JOINTS if self._count % 2 or not self.shuffled else reversed(JOINTS))
        message = JointState(name=[self.prefix + joint for joint in joints])
        message.header.stamp = self.get_clock().now().to_msg()
        message.position = [float("nan") if joint == self.spoiled else self.at[joint] for joint in joints]
        message.velocity = [float("nan")] * len(joints)  # as joint_state_broadcaster says that there is none
        self._states.publish(message)


class OperatorNode(Node):
    """Calls services as an operator's terminal would, from any thread but an executor's."""

    def __init__(self, of: str = "kizzasi_policy", **options: Any) -> None:
        super().__init__("operator", **options)
        self.of = of
        self.verdicts: list[Any] = []
        self.diagnostics: list[Any] = []
        self._seen = threading.Lock()
        self.create_subscription(DiagnosticStatus, f"{of}/verdict", self.verdicts.append, 100)
        self.create_subscription(DiagnosticArray, "/diagnostics", self.diagnostics.append, 100)
        self._change = self.create_client(ChangeState, f"{of}/change_state")
        self._state = self.create_client(GetState, f"{of}/get_state")
        self._set = self.create_client(SetParameters, f"{of}/set_parameters")
        names = ("arm", "disarm", "estop", "clear_fault", "reset_state")
        self._triggers = {name: self.create_client(Trigger, f"{of}/{name}") for name in names}

    def start(self, client: Any, request: Any) -> Any:
        """The future of a call."""
        assert client.wait_for_service(PATIENCE_S), client.srv_name
        return client.call_async(request)

    def call(self, client: Any, request: Any) -> Any:
        future = self.start(client, request)
        until(future.done, client.srv_name)
        return future.result()

    def change(self, transition: int) -> bool:
        return bool(self.call(self._change, self.to(transition)).success)

    def changing(self, transition: int) -> Any:
        return self.start(self._change, self.to(transition))

    @staticmethod
    def to(transition: int) -> Any:
        return ChangeState.Request(transition=Transition(id=transition))

    def configure(self) -> bool:
        return self.change(Transition.TRANSITION_CONFIGURE)

    def activate(self) -> bool:
        return self.change(Transition.TRANSITION_ACTIVATE)

    def deactivate(self) -> bool:
        return self.change(Transition.TRANSITION_DEACTIVATE)

    def cleanup(self) -> bool:
        return self.change(Transition.TRANSITION_CLEANUP)

    def state(self) -> str:
        return str(self.call(self._state, GetState.Request()).current_state.label)

    def ask(self, name: str) -> str:
        """ "" if it was done; else why not."""
        answer = self.call(self._triggers[name], Trigger.Request())
        assert answer.success != bool(answer.message)
        return str(answer.message)

    def asking(self, name: str) -> Any:
        return self.start(self._triggers[name], Trigger.Request())

    def set(self, **values: Any) -> str:
        """ "" if they were set; else why not."""
        parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        answer = self.call(self._set, SetParameters.Request(parameters=parameters))
        return "; ".join(result.reason for result in answer.results if not result.successful)

    def diagnosis(self, part: str) -> Any:
        """The newest status of "loop", "guard" or "device"; one without contents before the first."""
        for message in reversed(self.diagnostics):
            for status in message.status:
                if status.name == f"{self.of}: {part}":
                    return status
        return DiagnosticStatus()


def values(status: Any) -> dict[str, str]:
    return {pair.key: pair.value for pair in status.values}


def assert_inside(told: list[list[float]], guard: Guardrails) -> npt.NDArray[np.int64]:
    """Every command within range, velocity and acceleration, exactly, from rest on; in quanta ``(n, joints)``."""
    start = [START[joint] for joint in guard.joints]
    quanta = np.rint(np.array([start, start, *told]) / [cell.quantum for cell in guard.lattice]).astype(np.int64)
    for i, cell in enumerate(guard.lattice):
        q = quanta[:, i]
        assert q.min() >= cell.lo
        assert q.max() <= cell.hi
        assert np.abs(np.diff(q)).max() <= cell.w
        assert np.abs(np.diff(q, 2)).max() <= cell.h
    return quanta
