"""The lifecycle node among other nodes: it runs unchanged on the double and on a real rclpy (``--rclpy=real``)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from rclpy.executors import MultiThreadedExecutor
from robot_in_ros import (
    FORWARD,
    JOINTS,
    ORDER,
    START,
    TRAJECTORY,
    OperatorNode,
    RobotNode,
    assert_inside,
    until,
    values,
    write_robot,
)

from kizzasi_edge.guardrails import Guardrails
from kizzasi_edge.loop import Loop
from kizzasi_edge.robot import Robot
from kizzasi_ros.callbacks import spin
from kizzasi_ros.parameters import PARAMETERS
from kizzasi_ros.policy_node import THREADS, PolicyNode

pytestmark = pytest.mark.usefixtures("ros")


@contextmanager
def spinning(*nodes: Any) -> Iterator[None]:
    executor = MultiThreadedExecutor(THREADS)
    for node in nodes:
        executor.add_node(node)
    thread = threading.Thread(target=spin, args=(executor, nodes[0]), daemon=True)
    thread.start()
    try:
        yield
    finally:
        executor.shutdown()
        thread.join(5)
        for node in nodes:
            node.destroy_node()


class Stack:
    """The node under test, the robot and an operator, each with threads of its own."""

    def __init__(self, stack: ExitStack, config: Path | None, *, prefix: str = "", **parameters: Any) -> None:
        arguments = ["--ros-args"]
        for name, value in {"config": str(config), **parameters}.items() if config else []:
            text = str(value).lower() if isinstance(value, bool) else f"{value}"
            arguments += ["-p", f"{name}:={text}"]
        self.node = PolicyNode(cli_args=arguments)
        self.robot, self.operator = RobotNode(prefix=prefix), OperatorNode()
        self.guard = Guardrails.load(config.parent / "g.guard.toml") if config else None
        stack.enter_context(spinning(self.robot, self.operator))
        stack.enter_context(spinning(self.node))
        stack.callback(self.node.end)

    def up(self) -> OperatorNode:
        assert self.operator.configure()
        assert self.operator.activate()
        return self.operator

    def moving(self, more: int = 30) -> None:
        count = len(self.robot.told)
        until(lambda: len(self.robot.told) > count + more, "commands")

    def at_rest(self) -> np.ndarray[Any, Any]:
        """All commands so far, [quanta], once the robot has been braked."""
        assert self.guard is not None

        def still() -> bool:
            quanta = assert_inside(self.robot.told, self.guard)
            return len(quanta) > 3 and not np.diff(quanta[-2:], axis=0).any()

        until(still, "rest")
        return assert_inside(self.robot.told, self.guard)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_robot(tmp_path_factory.mktemp("r"))  # short: there is a socket in it


def test_a_whole_life(stack: ExitStack, config: Path) -> None:
    ros = Stack(stack, config)
    operator = ros.operator
    assert operator.state() == "unconfigured"
    assert operator.configure()
    assert operator.state() == "inactive"
    assert "found the node inactive; expected it active" in operator.ask("arm")
    assert ros.node.count_publishers(ros.node.resolve_topic_name("commands")) == 0  # nothing is opened yet
    assert operator.activate()
    assert operator.state() == "active"
    until(lambda: bool(operator.verdicts), "a verdict")
    assert ros.robot.told == []  # it reads and steps, and nothing moves
    assert operator.ask("arm") == ""
    ros.moving()
    assert operator.deactivate()
    assert operator.state() == "inactive"
    ros.at_rest()
    count = len(ros.robot.told)
    assert operator.activate()
    ros.node.get_clock().sleep_for(_seconds(0.3))
    assert len(ros.robot.told) == count  # armed again by nobody
    assert operator.ask("arm") == ""
    ros.moving()
    assert operator.ask("disarm") == ""
    quanta = ros.at_rest()
    assert np.abs(np.diff(quanta, axis=0)).max() > 1000  # it did move
    assert operator.deactivate()
    assert operator.cleanup()
    assert operator.state() == "unconfigured"
    assert operator.configure()
    assert operator.state() == "inactive"


def _seconds(s: float) -> Any:
    from rclpy.duration import Duration

    return Duration(seconds=s)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("rate_hz = 100", "rate_hz = 99"), "rate_hz"),
        (('connector = "ros2"', 'connector = "ros3"'), "ros3"),
        (("JointState", "NoSuchState"), "NoSuchState"),
        (("'lift', 'pan'", "'lift', 'roll'"), "roll"),
    ],
)
def test_what_is_wrong_with_the_files_is_said_and_nothing_is_configured(
    stack: ExitStack, config: Path, change: tuple[str, str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    text = config.read_text()
    assert change[0] in text
    config.write_text(text.replace(*change))
    operator = Stack(stack, config).operator
    if said == "roll":  # only an open device can be compared with the guard
        assert operator.configure()
        assert not operator.activate()
        assert operator.state() == "inactive"
    else:
        assert not operator.configure()
        assert operator.state() == "unconfigured"
    out, err = capfd.readouterr()
    assert said in out + err
    config.write_text(text)
    if said == "roll":
        assert operator.cleanup()
    assert operator.configure()
    assert operator.activate()


def test_no_config_is_an_error(stack: ExitStack, capfd: pytest.CaptureFixture[str]) -> None:
    operator = Stack(stack, None).operator
    assert not operator.configure()
    out, err = capfd.readouterr()
    assert "config: found none; expected the path of a robot.toml" in out + err


def test_it_arms_at_activation_only_where_that_was_asked_for(stack: ExitStack, config: Path) -> None:
    ros = Stack(stack, config, arm_on_activate=True)
    ros.up()
    ros.moving()
    assert ros.operator.set(arm_on_activate=False) == ""
    assert ros.operator.deactivate()
    ros.at_rest()
    count = len(ros.robot.told)
    assert ros.operator.activate()
    ros.node.get_clock().sleep_for(_seconds(0.3))
    assert len(ros.robot.told) == count


def test_an_emergency_stop_is_latched_until_it_is_cleared(stack: ExitStack, config: Path) -> None:
    ros = Stack(stack, config)
    operator = ros.up()
    assert operator.ask("arm") == ""
    ros.moving()
    assert operator.ask("estop") == ""
    ros.at_rest()
    until(lambda: operator.diagnosis("device").message.startswith("ESTOP"), "ESTOP in /diagnostics")
    assert operator.diagnosis("device").level == DiagnosticStatus.ERROR
    assert operator.diagnosis("guard").level == DiagnosticStatus.ERROR
    assert operator.ask("arm") != ""
    assert operator.ask("clear_fault") == ""
    assert operator.ask("arm") == ""
    ros.moving()
    assert operator.ask("disarm") == ""
    ros.at_rest()


def test_an_emergency_stop_of_an_inactive_node_outlives_the_activation(stack: ExitStack, config: Path) -> None:
    ros = Stack(stack, config, arm_on_activate=True)
    operator = ros.operator
    assert operator.configure()
    assert operator.ask("estop") == ""
    assert not operator.activate()  # it would have armed
    assert operator.state() == "inactive"
    assert operator.set(arm_on_activate=False) == ""
    assert operator.activate()
    assert "expected ~/clear_fault" in operator.ask("arm")
    assert ros.robot.told == []
    assert operator.ask("clear_fault") == ""
    assert operator.ask("arm") == ""
    ros.moving()


def test_an_emergency_stop_during_an_activation_is_kept(stack: ExitStack, config: Path) -> None:
    ros = Stack(stack, config, arm_on_activate=True)
    assert ros.operator.configure()
    ros.robot.silent = True
    activating = ros.operator.changing(Transition.TRANSITION_ACTIVATE)
    ros.node.get_clock().sleep_for(_seconds(0.5))
    assert ros.operator.ask("estop") == ""
    assert not activating.done()
    ros.robot.silent = False
    until(activating.done, "the answer to activate")
    assert not activating.result().success
    assert ros.operator.state() == "inactive"
    assert ros.robot.told == []


def test_an_emergency_stop_waits_neither_for_an_arming_nor_for_a_transition(stack: ExitStack, config: Path) -> None:
    ros = Stack(stack, config)
    ros.up()
    ros.robot.spoiled = "pan"  # arming waits for measured positions
    ros.node.get_clock().sleep_for(_seconds(1.5))
    arming = ros.operator.asking("arm")
    assert ros.operator.ask("estop") == ""
    assert not arming.done()
    until(arming.done, "the answer to arm")
    assert not arming.result().success
    ros.robot.spoiled, ros.robot.silent = "", True
    assert ros.operator.deactivate()
    assert ros.robot.told == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # its traceback is in the log
def test_an_error_ends_in_a_safe_stop(stack: ExitStack, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ros = Stack(stack, config)
    operator = ros.up()
    assert operator.ask("arm") == ""
    ros.moving()
    tick = Loop.tick

    def broken(self: Loop) -> None:
        tick(self)
        raise OSError("the loop broke")

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "tick", broken)
        until(lambda: operator.state() == "unconfigured", "the end of the activation")
    ros.at_rest()
    count = len(ros.robot.told)
    assert operator.configure()
    assert operator.activate()
    assert len(ros.robot.told) == count
    assert operator.ask("arm") == ""
    ros.moving()


def test_a_transition_from_the_wrong_state_changes_nothing(stack: ExitStack, config: Path) -> None:
    ros = Stack(stack, config)
    operator = ros.up()
    assert operator.ask("arm") == ""
    ros.moving()
    operator.changing(Transition.TRANSITION_CONFIGURE)  # before Kilted nobody answers
    ros.moving()
    assert operator.state() == "active"
    assert operator.ask("disarm") == ""
    ros.at_rest()


def test_what_a_transition_raises_is_in_the_log(
    stack: ExitStack, config: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    operator = Stack(stack, config).operator

    def broken(self: Robot, *_: Any, **__: Any) -> None:
        raise RuntimeError("a fault of ours")

    with monkeypatch.context() as patch:
        patch.setattr(Robot, "findings", broken)
        assert not operator.configure()
    assert operator.state() == "unconfigured"
    out, err = capfd.readouterr()
    assert "RuntimeError: a fault of ours" in out + err
    assert operator.configure()


def test_parameters_are_described_ranged_and_checked(stack: ExitStack, config: Path) -> None:
    ros = Stack(stack, config)
    for row in PARAMETERS:
        described = ros.node.describe_parameter(row.name)
        assert described.description == row.description
        spans = [(span.from_value, span.to_value) for span in described.floating_point_range]
        assert spans == ([] if row.least is None else [(row.least, row.most)])
    operator = ros.operator
    assert operator.set(verdict_rate_hz=1000.0) != ""
    assert operator.set(start_s=0.0) != ""
    assert operator.set(verdict_rate_hz="often") != ""
    assert "expected ours:=theirs" in operator.set(joint_remap=["pan=p"])
    assert "twice" in operator.set(joint_remap=["pan:=p", "pan:=q"])
    assert "another joint" in operator.set(joint_remap=["pan:=p", "lift:=p"])
    assert operator.set(joint_remap=[""]) == ""
    ros.up()
    for name, value in (("config", "elsewhere"), ("joint_remap", ["pan:=p"]), ("start_s", 1.0)):
        assert "found the node configured; expected it unconfigured" in operator.set(**{name: value})
    assert operator.set(verdict_rate_hz=100.0) == ""
    count = len(operator.verdicts)
    until(lambda: len(operator.verdicts) > count + 50, "verdicts")
    assert ros.node.get_parameter("config").value == str(config)


@pytest.mark.parametrize("output", [FORWARD, TRAJECTORY], ids=["forward_command_controller", "joint_trajectory"])
def test_joints_by_other_names(stack: ExitStack, config: Path, output: str) -> None:
    write_robot(config.parent, output=output)
    rules = "[" + ", ".join(f"'{joint}:=left_{joint}'" for joint in JOINTS) + "]"
    ros = Stack(stack, config, prefix="left_", joint_remap=rules)
    ros.robot.shuffled = True
    ros.up()
    assert ros.operator.ask("arm") == ""
    ros.moving()
    assert ros.operator.ask("disarm") == ""
    quanta = ros.at_rest()
    assert quanta[-1][0] > quanta[0][0]  # pan goes up, lift down: nothing is mixed up
    assert quanta[-1][1] < quanta[0][1]
    if output == TRAJECTORY:
        (point,) = ros.robot.trajectories[-1].points
        assert ros.robot.trajectories[-1].joint_names == [f"left_{joint}" for joint in ORDER]
        assert point.time_from_start.nanosec == 20_000_000


def test_a_wrong_remap_fails_before_anything_moves(stack: ExitStack, config: Path) -> None:
    ros = Stack(stack, config, joint_remap="['pan:=waist']", start_s=5.0)
    assert ros.operator.configure()
    assert not ros.operator.activate()
    assert ros.operator.state() == "inactive"


def test_names_that_change_their_order_and_joints_that_measure_nothing(stack: ExitStack, config: Path) -> None:
    ros = Stack(stack, config)
    operator = ros.up()
    assert operator.ask("arm") == ""
    ros.moving()
    ros.robot.shuffled = True
    ros.moving()
    ros.robot.spoiled = "pan"
    ros.node.get_clock().sleep_for(_seconds(0.3))
    ros.robot.spoiled = ""
    quanta = assert_inside(ros.robot.told, ros.guard)
    assert (quanta[-1][0] > quanta[0][0], quanta[-1][1] < quanta[0][1]) == (True, True)


def test_a_silent_robot_is_stopped_and_reported(stack: ExitStack, config: Path) -> None:
    ros = Stack(stack, config)
    operator = ros.up()
    assert operator.ask("arm") == ""
    ros.moving()
    assert operator.set(diagnostics_rate_hz=20.0) == ""
    ros.robot.silent = True
    until(lambda: "stale (arm)" in operator.diagnosis("loop").message, "stale in /diagnostics")
    assert operator.diagnosis("loop").level == DiagnosticStatus.WARN
    until(lambda: "FAILSAFE" in operator.diagnosis("device").message, "FAILSAFE in /diagnostics")
    ros.at_rest()
    assert operator.diagnosis("device").level == DiagnosticStatus.ERROR
    ros.robot.silent = False
    until(lambda: operator.ask("clear_fault") == "", "the fault's end")
    assert operator.ask("arm") == ""
    ros.moving()


def test_verdicts_and_the_models_state(stack: ExitStack, config: Path) -> None:
    ros = Stack(stack, config)
    operator = ros.up()
    assert operator.ask("arm") == ""
    until(lambda: any(values(verdict).get("status") == "CLAMPED" for verdict in operator.verdicts), "a clamp")
    clamped = next(verdict for verdict in operator.verdicts if values(verdict)["status"] == "CLAMPED")
    assert clamped.level == DiagnosticStatus.WARN
    assert set(values(clamped)) & set(JOINTS)
    assert float(values(clamped)["intervention"]) > 0
    counted = [int(count) for key, count in values(operator.verdicts[-1]).items() if key.startswith("changed by ")]
    assert sum(counted) > 0
    assert operator.ask("reset_state") == ""
    until(lambda: values(operator.diagnosis("loop")).get("resets") == "1", "the model's new start")
    assert operator.diagnosis("loop").hardware_id == "contract"


def test_ours_ends_when_its_own_socket_says_so(stack: ExitStack, config: Path) -> None:
    from kizzasi_edge.control import request

    ros = Stack(stack, config)
    operator = ros.up()
    assert operator.ask("arm") == ""
    ros.moving()
    request(config.parent / "s", "stop")
    until(lambda: operator.state() == "inactive", "the end of the activation")
    ros.at_rest()


def test_what_does_not_match_is_said_at_configure(
    stack: ExitStack, config: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from sensor_msgs.msg import JointState

    config.write_text(config.read_text().replace("stale_ms = 500", 'stale_ms = 500\nqos = "latched"'))
    ros = Stack(stack, config)
    ros.robot.create_publisher(JointState, "commands", 10)
    topic = ros.node.resolve_topic_name("joint_states")
    until(lambda: ros.node.count_publishers(topic) == 1, "discovery")
    assert ros.operator.configure()
    out, err = capfd.readouterr()
    assert "the publisher of /robot does not match: QoS" in out + err
    assert not {START["pan"]} & set(ros.robot.told[0] if ros.robot.told else [])
