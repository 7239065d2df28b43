"""config/rrbot: one robot in four formats, which agree; a policy that leads it to its targets within its limits."""

from __future__ import annotations

import runpy
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from kizzasi_edge.config import load_config
from kizzasi_edge.connectors.waypoints import read_waypoints
from kizzasi_edge.guardrails import Guardrails
from kizzasi_edge.predictor import Predictor
from kizzasi_edge.robot import Robot

EXAMPLE = Path(__file__).resolve().parents[2] / "config" / "rrbot"
URDF = ET.parse(EXAMPLE / "rrbot.urdf").getroot()
CONTROLLERS: dict[str, Any] = yaml.safe_load((EXAMPLE / "controllers.yaml").read_text())
JOINTS = ["joint1", "joint2"]
TOPICS = {
    "forward_command_controller": ("forward_position_controller", "commands", "std_msgs/msg/Float64MultiArray"),
    "joint_trajectory_controller": (
        "joint_trajectory_controller", "joint_trajectory", "trajectory_msgs/msg/JointTrajectory"
    ),
}  # fmt: skip


def parameters(node: str) -> dict[str, Any]:
    found: dict[str, Any] = CONTROLLERS[node]["ros__parameters"]
    return found


def test_the_urdf_is_a_robot_on_mock_hardware() -> None:
    pin = pytest.importorskip("pinocchio", reason="the extra urdf-dynamics is not installed")
    model = pin.buildModelFromUrdf(str(EXAMPLE / "rrbot.urdf"))
    assert list(model.names)[1:] == JOINTS
    assert URDF.findtext("ros2_control/hardware/plugin") == "mock_components/GenericSystem"
    for joint in URDF.findall("ros2_control/joint"):
        for kind in ("command_interface", "state_interface"):
            assert [interface.get("name") for interface in joint.findall(kind)] == ["position"]
        start = float(joint.findtext("state_interface/param[@name='initial_value']", "nan"))
        guard = Guardrails.load(EXAMPLE / "rrbot.guard.toml")
        cell = guard.lattice[guard.joints.index(str(joint.get("name")))]
        assert cell.lo < start / guard.quanta[0] < cell.hi


def test_the_guard_keeps_the_urdf_s_limits() -> None:
    guard = Guardrails.load(EXAMPLE / "rrbot.guard.toml")
    assert list(guard.joints) == [joint.get("name") for joint in URDF.findall("ros2_control/joint")] == JOINTS
    for joint, cell, quantum in zip(guard.joints, guard.lattice, guard.quanta, strict=True):
        limit = URDF.find(f"joint[@name='{joint}']/limit")
        assert limit is not None
        interface = f"ros2_control/joint[@name='{joint}']/command_interface/param"
        least, most = (float(URDF.findtext(f"{interface}[@name='{end}']", "nan")) for end in ("min", "max"))
        assert float(limit.get("lower", "nan")) <= least < most <= float(limit.get("upper", "nan"))
        for found, declared in ((cell.lo, least), (cell.hi, most)):
            assert 0.019 < abs(declared) - abs(found * quantum) < 0.021  # the margin
        speed = cell.w * quantum * guard.rate_hz
        assert speed <= 0.9 * float(limit.get("velocity", "nan")) < speed + 1e-4
        assert cell.h * quantum * guard.rate_hz**2 <= 4.0


@pytest.mark.parametrize("name", TOPICS)
def test_the_robot_fits_its_controller(name: str) -> None:
    robot = Robot(load_config(EXAMPLE / f"{name}.toml"))
    assert [text for is_error, text in robot.findings() if is_error] == []
    (output,) = robot.config.file.output
    given = output.options
    controller, topic, kind = TOPICS[name]
    assert (output.connector, given["topic"], given["type"]) == ("ros2", f"/{controller}/{topic}", kind)
    assert parameters("controller_manager")[controller] == {
        "type": {
            "forward_position_controller": "forward_command_controller/ForwardCommandController",
            "joint_trajectory_controller": "joint_trajectory_controller/JointTrajectoryController",
        }[controller]
    }
    settings = parameters(controller)
    assert settings["joints"] == given["joints"] == JOINTS
    wanted = {"interface_name": "position"} if "interface_name" in settings else {"command_interfaces": ["position"]}
    assert wanted.items() <= settings.items()
    assert settings.get("state_interfaces", ["position"]) == ["position"]
    period_s = 1 / float(robot.config.file.loop.rate_hz)
    assert parameters("controller_manager")["update_rate"] >= 1 / period_s
    assert given.get("reach_s", 0.0) in (0.0, 2 * period_s)
    state, targets = robot.inputs
    assert (state.options.topic, state.options.type) == ("/joint_states", "sensor_msgs/msg/JointState")
    assert state.names == ()  # its first message tells
    assert targets.names == tuple(f"{joint}/target_position" for joint in JOINTS)


def test_the_script_writes_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README's command; what it writes is the model that comes with the package."""
    pytest.importorskip("torch", reason="the extra export is not installed")
    written = tmp_path / "rrbot.onnx"
    monkeypatch.setattr("sys.argv", ["make_policy.py", str(written)])
    runpy.run_path(str(EXAMPLE / "make_policy.py"), run_name="__main__")
    new, shipped = Predictor(written), Predictor(EXAMPLE / "rrbot.onnx")
    assert (new.input_names, new.output_names) == (shipped.input_names, shipped.output_names)
    assert new.sample_rate_hz == shipped.sample_rate_hz
    rng = np.random.default_rng(1)
    for _ in range(300):
        x = rng.uniform(-1, 1, 4).astype(np.float32)
        assert abs(new.step(x) - shipped.step(x)).max() < 1e-6


@pytest.mark.parametrize("lag", [0, 5])
def test_the_policy_leads_the_robot_to_its_targets(lag: int) -> None:
    """Joints that follow at once, as mock hardware does, or some periods later; the guard has nothing to correct."""
    policy = Predictor(EXAMPLE / "rrbot.onnx")
    guard = Guardrails.load(EXAMPLE / "rrbot.guard.toml")
    _, times, rows = read_waypoints(EXAMPLE / "targets.csv")
    rate = int(guard.rate_hz)
    sent = [np.zeros(2, np.float32)] * (lag + 1)
    guard.reset(sent[0])
    for start, end, target in zip(times, [*times[1:], times[-1] + 4], rows, strict=True):
        for _ in range(int(end - start) * rate):
            measured = sent[-1 - lag]
            command, verdict = guard.step(policy.step(np.concatenate([measured, target])), position=measured)
            assert verdict.status.name == "PASS"
            sent.append(command.copy())
        assert abs(sent[-1] - target).max() < 2e-3
    moved = np.abs(np.diff(sent, axis=0)).max() * rate
    assert 0.7 < moved < 1.6
