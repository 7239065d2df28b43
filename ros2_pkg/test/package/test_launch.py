"""The launch files: run by ROS's own launch where there is one; everywhere, what they start and take is what there is.

PyPI's `launch` is another program altogether: ROS's is known by launch_ros beside it.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest

PACKAGE = Path(__file__).resolve().parents[2]
LAUNCHING = PACKAGE / "kizzasi_ros" / "launching.py"
TREE = ast.parse(LAUNCHING.read_text())
TABLES: dict[str, Any] = {
    node.target.id: ast.literal_eval(node.value)
    for node in TREE.body
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(node.value, ast.Tuple)
}
FILES = sorted((PACKAGE / "launch").iterdir())
DEFAULTS = {
    "forward_command_controller": ("forward_position_controller", "forward_command_controller.toml"),
    "joint_trajectory_controller": ("joint_trajectory_controller", "joint_trajectory_controller.toml"),
}


def calls(name: str) -> list[ast.Call]:
    found = [node for node in ast.walk(TREE) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    return [node for node in found if isinstance(node.func, ast.Name) and node.func.id == name]


def keywords(call: ast.Call) -> dict[str, ast.expr]:
    return {str(key.arg): key.value for key in call.keywords}


def arguments(file: str) -> tuple[Any, ...]:
    """A launch file's rows."""
    return tuple(TABLES["POLICY"] + (() if file == "policy.launch.py" else TABLES["CONTROLLER"]))


def readme(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading of the README, without its head."""
    section = (PACKAGE / "README.md").read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^\|.*\|$", section, re.M)[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_there_are_three_and_each_is_one_call() -> None:
    names = [path.name for path in FILES if path.suffix == ".py"]
    assert names == [f"{name}.launch.py" for name in (*DEFAULTS, "policy")]
    for path in FILES:
        module = ast.parse(path.read_text())
        (function,) = [node for node in module.body if isinstance(node, ast.FunctionDef)]
        assert function.name == "generate_launch_description"
        (statement,) = function.body
        assert isinstance(statement, ast.Return)
        assert isinstance(statement.value, ast.Call)
        given = tuple(ast.literal_eval(value) for value in statement.value.args)
        assert given == DEFAULTS.get(path.name.removesuffix(".launch.py"), ())
        if given:
            assert (PACKAGE / "config" / "rrbot" / given[1]).is_file()


def test_they_need_nothing_that_ros2_launch_may_not_see() -> None:
    """`ros2 launch` runs in the system's Python, kizzasi_edge perhaps in a virtual environment."""
    imported = {str(node.module).partition(".")[0] for node in ast.walk(TREE) if isinstance(node, ast.ImportFrom)}
    assert not [node for node in ast.walk(TREE) if isinstance(node, ast.Import)]
    ros = {"launch", "launch_ros", "lifecycle_msgs", "ament_index_python"}
    assert imported - set(sys.stdlib_module_names) == ros
    assert [type(node) for node in ast.parse((PACKAGE / "kizzasi_ros" / "__init__.py").read_text()).body] == [ast.Expr]


def test_they_start_what_there_is() -> None:
    made = [keywords(call) for name in ("Node", "LifecycleNode") for call in calls(name)]
    started = {(ast.literal_eval(key["package"]), ast.literal_eval(key["executable"])) for key in made}
    assert started == {
        ("kizzasi_ros", "policy_node"),
        ("controller_manager", "ros2_control_node"),
        ("controller_manager", "spawner"),
        ("robot_state_publisher", "robot_state_publisher"),
    }
    assert "policy_node = {name}.policy_node:main" in (PACKAGE / "setup.py").read_text()


def test_who_deactivates_the_node_finds_it_inactive() -> None:
    """Whatever reaches `inactive` would be activated again, were it not for `configuring` and `once`."""
    (call,) = calls("OnStateTransition")
    given = {key: value.value for key, value in keywords(call).items() if isinstance(value, ast.Constant)}
    assert given == {"start_state": "configuring", "goal_state": "inactive", "handle_once": True}


def test_every_argument_is_used_and_none_other() -> None:
    declared = [name for table in TABLES.values() for name, *_ in table]
    assert len(declared) == len(set(declared))
    text = ast.unparse(TREE)
    asked = re.findall(r"_given\(context, '(\w+)'\)", text) + re.findall(r"given\['(\w+)'\]", text)
    assert set(asked) == set(declared)
    for table in TABLES.values():
        for _, default, choices, _ in table:
            assert choices is None or default in choices


def test_the_readme_lists_them() -> None:
    tables = {"policy.launch.py": TABLES["POLICY"], "The two with a controller": TABLES["CONTROLLER"]}
    for heading, table in tables.items():
        found = {cells[0].strip("`"): cells[1:] for cells in readme(heading)}
        assert list(found) == [name for name, *_ in table]
        for name, default, choices, _ in table:
            shown, meaning = found[name]
            assert shown.strip("`") == default or (shown and not default), name
            for choice in choices or ():
                assert f"`{choice}`" in meaning or choice in ("", "true", "false"), (name, choice)
    page = (PACKAGE / "README.md").read_text()
    for command in re.findall(r"ros2 launch kizzasi_ros (.*)", page):
        file, *given = command.strip("`").split("#")[0].split()
        assert (PACKAGE / "launch" / file).is_file(), command
        known = {
            name: choices for name, _, choices, _ in TABLES["POLICY"] + TABLES["CONTROLLER"] * ("policy" not in file)
        }
        for name, value in (argument.split(":=") for argument in given):
            assert name in known, command
            assert known[name] is None or value in known[name], command


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_ros_launch_takes_it(path: Path) -> None:
    """With ROS and the package installed: the description is made, its arguments are the table's, its actions too."""
    pytest.importorskip("launch_ros.actions", reason="ROS's launch is not installed")
    from launch import LaunchContext
    from launch.actions import DeclareLaunchArgument, OpaqueFunction
    from launch_ros.actions import LifecycleNode

    spec = importlib.util.spec_from_file_location("described", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    description, context = module.generate_launch_description(), LaunchContext()
    *declared, function = description.entities
    assert all(isinstance(entity, DeclareLaunchArgument) for entity in declared)
    assert isinstance(function, OpaqueFunction)
    assert [entity.name for entity in declared] == [name for name, *_ in arguments(path.name)]
    for entity in declared:
        entity.execute(context)
    for values in ({}, {"spawn": "none", "demo_robot": "true"}, {"spawn": "none", "autostart": "false"}):
        context.launch_configurations.update(values)
        actions = function.execute(context)
        nodes = [action for action in actions if isinstance(action, LifecycleNode)]
        assert len(nodes) == (1 if values or path.name.startswith("policy") else 0)  # else: once the spawners are done
