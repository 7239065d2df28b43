"""What the launch files are put together from. It runs in the process of `ros2 launch`, which needs no kizzasi_edge."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeAlias

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import DeclareLaunchArgument, EmitEvent, LogInfo, OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.events import matches_action
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.parameter_descriptions import ParameterValue
from lifecycle_msgs.msg import Transition

Argument: TypeAlias = "tuple[str, str, list[str] | None, str]"

POLICY: tuple[Argument, ...] = (
    ("config", "", None, "path of the robot.toml"),
    ("arm_on_activate", "", ["", "true", "false"], "whether activating arms as well"),
    ("params_file", "", None, "parameters of the node in a file; the two arguments above go before it"),
    ("name", "kizzasi_policy", None, "the node's name"),
    ("namespace", "", None, "the node's namespace"),
    ("autostart", "true", ["true", "false"], "configure and activate: it reads and steps, and waits to be armed"),
    ("log_level", "info", None, "the node's log level"),
)
"""Name, default, choices and meaning."""

CONTROLLER: tuple[Argument, ...] = (
    ("controller", "", None, "the controller's name"),
    ("spawn", "all", ["all", "controller", "none"], "what is not running yet: the controller, joint_state_broadcaster"),
    ("controllers", "", None, "the controllers' parameters in a file; not needed where controller_manager has them"),
    ("controller_manager", "/controller_manager", None, "the controller_manager's name"),
    ("demo_robot", "false", ["true", "false"], "start the example's robot, on mock hardware, as well"),
)

EXAMPLE = "config/rrbot"


def policy_alone() -> LaunchDescription:
    """The node, for a robot whose controllers run already."""
    return LaunchDescription([*_declared(POLICY), OpaqueFunction(function=_policy)])


def policy_with_controller(controller: str, config: str) -> LaunchDescription:
    """A controller of ros2_control, and the node once that is active; by default those of the example."""
    example = Path(get_package_share_directory("kizzasi_ros")) / EXAMPLE
    arguments = _declared((*POLICY, *CONTROLLER), config=str(example / config), controller=controller)
    return LaunchDescription([*arguments, OpaqueFunction(function=_controlled, kwargs={"example": example})])


def _declared(arguments: Iterable[Argument], **defaults: str) -> list[Action]:
    return [
        DeclareLaunchArgument(name, default_value=defaults.get(name, default), choices=choices, description=meaning)
        for name, default, choices, meaning in arguments
    ]


def _given(context: LaunchContext, name: str) -> str:
    return str(LaunchConfiguration(name).perform(context))


def _policy(context: LaunchContext) -> list[Action]:
    given = {name: _given(context, name) for name, *_ in POLICY}
    parameters: list[str | dict[str, object]] = []
    if given["params_file"]:
        parameters.append(given["params_file"])
    if given["config"]:
        path = str(Path(given["config"]).expanduser().resolve())
        parameters.append({"config": ParameterValue(path, value_type=str)})  # a path is text, whatever it looks like
    if given["arm_on_activate"]:
        parameters.append({"arm_on_activate": given["arm_on_activate"] == "true"})
    node = LifecycleNode(
        package="kizzasi_ros",
        executable="policy_node",
        name=given["name"],
        namespace=given["namespace"],
        parameters=parameters,
        ros_arguments=["--log-level", given["log_level"]],
        output="screen",
        sigkill_timeout="20",  # s: it brakes to rest before it ends
    )
    return _started(node) if given["autostart"] == "true" else [node]


def _started(node: LifecycleNode) -> list[Action]:
    """The node, configured and then activated, once: whoever deactivates it later finds it inactive."""

    def change(transition: int) -> EmitEvent:
        return EmitEvent(event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition))

    configured = OnStateTransition(
        target_lifecycle_node=node,
        start_state="configuring",
        goal_state="inactive",
        entities=[change(Transition.TRANSITION_ACTIVATE)],
        handle_once=True,
    )
    return [RegisterEventHandler(configured), node, change(Transition.TRANSITION_CONFIGURE)]


def _controlled(context: LaunchContext, *, example: Path) -> list[Action]:
    with_robot = _given(context, "demo_robot") == "true"
    controllers = _given(context, "controllers") or (str(example / "controllers.yaml") if with_robot else "")
    wanted = {
        "all": ["joint_state_broadcaster", _given(context, "controller")],
        "controller": [_given(context, "controller")],
        "none": [],
    }[_given(context, "spawn")]
    actions = _policy(context)
    for name in reversed(wanted):
        spawner = _spawner(name, _given(context, "controller_manager"), controllers)
        handler = OnProcessExit(target_action=spawner, on_exit=_if_it_succeeded(name, actions))
        actions = [RegisterEventHandler(handler), spawner]
    return [*_robot(example / "rrbot.urdf", controllers), *actions] if with_robot else actions


def _spawner(name: str, manager: str, controllers: str) -> Node:
    # Since Jazzy controllers do not see the controller_manager's own files: the spawner hands them over.
    file = ["--param-file", controllers] if controllers else []
    return Node(
        package="controller_manager",
        executable="spawner",
        arguments=[name, "--controller-manager", manager, "--controller-manager-timeout", "30", *file],
        output="screen",
    )


def _if_it_succeeded(name: str, actions: list[Action]) -> Callable[[ProcessExited, LaunchContext], list[Action]]:
    def then(event: ProcessExited, _: LaunchContext) -> list[Action]:
        if event.returncode == 0:
            return actions
        return [LogInfo(msg=f"{name} could not be started (exit code {event.returncode}): the policy is not either")]

    return then


def _robot(urdf: Path, controllers: str) -> list[Action]:
    """A robot of this URDF, as the other nodes see it: ros2_control takes the description from the topic."""
    description = {"robot_description": ParameterValue(urdf.read_text(encoding="utf-8"), value_type=str)}
    return [
        Node(package="robot_state_publisher", executable="robot_state_publisher", parameters=[description]),
        Node(
            package="controller_manager",
            executable="ros2_control_node",
            parameters=[controllers],
            remappings=[("~/robot_description", "/robot_description")],  # its name before Jazzy
            output="screen",
        ),
    ]
