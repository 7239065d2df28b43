"""config/rrbot in the node, with its controller and joint_state_broadcaster as other nodes of the graph see them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="neither rclpy nor its double is there")

from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from kizzasi_ros.policy_node import PolicyNode

EXAMPLE = Path(__file__).resolve().parents[2] / "config" / "rrbot"
JOINTS = ["joint1", "joint2"]
TARGET = [0.08, -0.05]


class Controllers(Node):
    """What is told is where the joints are; their velocity and effort are measured by nobody."""

    def __init__(self) -> None:
        super().__init__("controllers")
        self.at = [0.0, 0.0]
        self.told: list[str] = []
        qos = QoSProfile(depth=1)
        self.create_subscription(Float64MultiArray, "/forward_position_controller/commands", self._values, qos)
        self.create_subscription(JointTrajectory, "/joint_trajectory_controller/joint_trajectory", self._point, qos)
        self._states = self.create_publisher(JointState, "/joint_states", 10)
        self.create_timer(0.005, self._publish)

    def _values(self, message: Any) -> None:
        self.told.append("forward_command_controller")
        self.at = list(message.data)

    def _point(self, message: Any) -> None:
        self.told.append("joint_trajectory_controller")
        (point,) = message.points
        time = point.time_from_start
        assert (message.joint_names, time.sec, time.nanosec) == (JOINTS, 0, 20_000_000)
        assert (message.header.stamp.sec, message.header.stamp.nanosec) == (0, 0)
        self.at = list(point.positions)

    def _publish(self) -> None:
        nobody = [float("nan")] * len(JOINTS)
        message = JointState(name=JOINTS, position=self.at, velocity=nobody, effort=nobody)
        message.header.stamp = self.get_clock().now().to_msg()
        self._states.publish(message)


@pytest.mark.usefixtures("ros")
@pytest.mark.parametrize("name", ["forward_command_controller", "joint_trajectory_controller"])
def test_the_policy_moves_the_robot(
    name: str, spinning: Any, until: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, file = shutil.copytree(EXAMPLE, tmp_path / "rrbot"), f"{name}.toml"
    (home / "targets.csv").write_text(
        f"time_s,{','.join(f'{joint}/target_position' for joint in JOINTS)}\n0,{TARGET[0]},{TARGET[1]}\n"
    )
    patient = {"ttl_ms = 200": "ttl_ms = 20000", "stale_ms = 100": "stale_ms = 20000"}  # with a busy machine
    text = (home / file).read_text()
    for said, instead in patient.items():
        assert said in text
        text = text.replace(said, instead)
    (home / file).write_text(text)
    with (home / "rrbot.guard.toml").open("a") as guard:
        guard.write("\n[faults]\nhang_ticks = 2000\nfault_ticks = 2000\n")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    node = PolicyNode(cli_args=["--ros-args", "-p", f"config:={home / file}"])
    controllers, operator = Controllers(), Node("operator")
    arm = operator.create_client(Trigger, "/kizzasi_policy/arm")
    with spinning(controllers, operator), spinning(node):
        try:
            node.trigger_configure()
            node.trigger_activate()
            assert arm.wait_for_service(30)
            assert controllers.told == []  # active, and not armed
            asked = arm.call_async(Trigger.Request())
            until(asked.done, 30)
            assert asked.result().success, asked.result().message
            until(lambda: abs(controllers.at[0] - TARGET[0]) + abs(controllers.at[1] - TARGET[1]) < 1e-3, 60)
            assert set(controllers.told) == {name}
        finally:
            node.end()
