"""package.xml: valid as ROS's own reader has it, and its dependencies are what the package's files use."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

from kizzasi_edge.ros2.commands import _FORMS

catkin_pkg = pytest.importorskip("catkin_pkg.package", reason="catkin_pkg is not installed")

PACKAGE = Path(__file__).resolve().parents[2]
SOURCES = [*(PACKAGE / "kizzasi_ros").glob("*.py"), *(PACKAGE / "launch").glob("*.py")]
PIP = {"kizzasi_edge", "kizzasi_bridge", "numpy", "pydantic"}  # what pip brings, with kizzasi-edge
PLUGINS = {"mock_components": "hardware_interface", "ros2launch": "ros2launch"}


def depends() -> set[str]:
    return {found.name for found in parsed().exec_depends}


def parsed() -> catkin_pkg.Package:
    text = (PACKAGE / "package.xml").read_text()
    return catkin_pkg.parse_package_string(text, "package.xml", warnings=[])


def imports(path: Path) -> set[str]:
    """The packages that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(str(node.module).partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"kizzasi_ros"} - PIP


def launched() -> set[str]:
    """The packages of the programs that the launch files start."""
    calls = [node for path in SOURCES for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    names = [ast.literal_eval(key.value) for call in calls for key in call.keywords if key.arg == "package"]
    return {str(name) for name in names} - {"kizzasi_ros"}


def configured() -> set[str]:
    """The packages of the plugins in the example: controllers, and the hardware of its robot."""
    text = "".join(path.read_text() for path in (PACKAGE / "config").rglob("*") if path.suffix in (".yaml", ".urdf"))
    plugins = re.findall(r"(?:type: |<plugin>)(\w+)/\w+", text)
    return {PLUGINS.get(name, name) for name in plugins}


def messages() -> set[str]:
    """The packages of the messages that a robot.toml may name, as docs/ros2-messages.md lists them."""
    rows = re.findall(r"^\| (`\w+/msg/.*?) \|", (PACKAGE.parent / "docs" / "ros2-messages.md").read_text(), re.M)
    named = {name for row in rows for name in re.findall(r"`(\w+)/msg/", row)}
    assert {name.partition("/")[0] for name in _FORMS} <= named
    return named - {"rmw_dds_common"}  # whom the DDS connector tells that it is there; a ROS node needs none


def test_it_is_valid() -> None:
    warnings: list[str] = []
    text = (PACKAGE / "package.xml").read_text()
    package = catkin_pkg.parse_package_string(text, "package.xml", warnings=warnings)
    package.validate(warnings=warnings)
    assert warnings == []
    assert package.package_format == 3
    assert package.get_build_type() == "ament_python"
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    assert (package.name, package.version, package.licenses) == (
        "kizzasi_ros", project["version"], [project["license"]]
    )  # fmt: skip


def test_its_dependencies_are_what_its_files_use() -> None:
    used = {name for path in SOURCES for name in imports(path)} | launched() | configured() | messages()
    missing, unused = used - depends(), depends() - used - {"ros2launch"}
    if not (PACKAGE / "kizzasi_ros" / "policy_node.py").exists():
        unused -= {"rclpy", "rcl_interfaces", "std_srvs"}
    assert (missing, unused) == (set(), set())


def test_nothing_is_built_against_or_depended_on_twice() -> None:
    package = parsed()
    names = [found.name for found in package.exec_depends]
    assert len(names) == len(set(names))
    assert [found.name for found in package.test_depends] == ["python3-pytest"]
    assert package.build_depends == package.buildtool_depends == []
