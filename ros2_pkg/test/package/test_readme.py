"""README.md: its tables and its robot.toml are the code's; each command in it is run by a test, or compared with what
there is where it takes a ROS installation."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kizzasi_edge.config import RobotFile
from kizzasi_edge.connectors import connector_class
from kizzasi_edge.errors import ConfigError
from kizzasi_edge.toml_file import validate

PACKAGE = Path(__file__).resolve().parents[2]
PAGE = (PACKAGE / "README.md").read_text()
SERVICES = ("arm", "disarm", "estop", "clear_fault", "reset_state")


def rows(heading: str) -> dict[str, list[str]]:
    """The first cell of each row of a section's table → the others."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^\|.*\|$", section, re.M)[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {first.strip("`"): others for first, *others in cells}


def commands() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.S | re.M)
    lines = [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]
    return sorted({*lines, *re.findall(r"`((?:pytest|kizzasi-\w+ status) [^`]+)`", PAGE)} - {""})


def launched(command: str) -> None:
    """Files and arguments: test_launch.py::test_the_readme_lists_them."""


def called(command: str) -> None:
    name, kind = command.split()[3:5]
    assert name.removeprefix("/kizzasi_policy/") in SERVICES
    assert kind == "std_srvs/srv/Trigger"


def transition(command: str) -> None:
    assert command.split()[-1] in rows("Lifecycle")


def elsewhere(file: str, text: str) -> Callable[[str], None]:
    """A test beside this one runs it, or what it is made of."""

    def check(_: str) -> None:
        assert text in (PACKAGE.parent / file).read_text()

    return check


TESTS = "ros2_pkg/test/package"
TABLE: tuple[tuple[str, Callable[[str], None]], ...] = (
    (r"python3 -m venv --system-site-packages venv", elsewhere("Makefile", "-m venv ")),
    (r"touch venv/COLCON_IGNORE", lambda _: None),
    (r"\. venv/bin/activate", lambda _: None),
    (r"pip install '\.\[ros2\]'", elsewhere("ros2_pkg/setup.py", '"kizzasi-edge[ros2]"')),
    (r"colcon build --base-paths ros2_pkg", elsewhere(f"{TESTS}/test_colcon.py", '"build", "--base-paths"')),
    (r"\. install/local_setup\.sh", elsewhere(f"{TESTS}/test_colcon.py", "local_setup.sh")),
    (r"python make_policy\.py rrbot\.onnx", elsewhere(f"{TESTS}/test_example.py", '"make_policy.py"')),
    (r"pytest ros2_pkg/test --rclpy=real", elsewhere("ros2_pkg/test/conftest.py", '"--rclpy"')),
    (r"kizzasi-edge status --socket /tmp/arm\.sock", elsewhere("kizzasi_edge/cli.py", '"--socket"')),
    (r"ros2 launch kizzasi_ros .*", launched),
    (r"ros2 service call .*", called),
    (r"ros2 lifecycle set /kizzasi_policy \w+", transition),
    (
        r"ros2 topic echo /joint_states",
        elsewhere("ros2_pkg/config/rrbot/forward_command_controller.toml", "/joint_states"),
    ),
)


@pytest.mark.parametrize("command", commands())
def test_every_command_is_known(command: str) -> None:
    checks = [check for pattern, check in TABLE if re.fullmatch(pattern, command)]
    assert len(checks) == 1, command
    checks[0](command)


def test_the_robot_toml_is_one(tmp_path: Path) -> None:
    (text,) = re.findall(r"^```toml\n(.*?)^```", PAGE, re.S | re.M)
    file = validate(tomllib.loads(text), RobotFile, "README.md", ConfigError)
    for section, writes in ((file.input[0], False), (file.output[0], True)):
        kind = connector_class(section.connector, "README.md", writes=writes)
        made = kind(validate(section.options, kind.Options, "README.md", ConfigError), tmp_path)
        assert made.options.topic == section.options["topic"]
    assert file.control.socket == "/tmp/arm.sock"


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", PAGE):
        assert (PACKAGE / link).exists(), link


def test_what_is_said_of_python_is_so() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    least = project["requires-python"].removeprefix(">=")
    for python, said in rows("Install").values():
        enough = int(python.split(".")[1].split()[0]) >= int(least.split(".")[1])
        assert (said == "as above") == enough
        assert enough or f"kizzasi-edge needs Python {least} or later" in said


def test_the_parameters() -> None:
    pytest.importorskip("rclpy", reason="neither rclpy nor its double is there")
    from kizzasi_ros.parameters import PARAMETERS

    found = rows("Parameters")
    assert list(found) == [row.name for row in PARAMETERS]
    for row in PARAMETERS:
        default, span, when, _ = found[row.name]
        assert default == shown(row.default), row.name
        assert span == ("" if row.least is None else f"{row.least:g} to {row.most:g}"), row.name
        assert when == ("any time" if row.live else "before configure"), row.name


def shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value in ("", [""]) else f"{value:g}"


def test_services_and_topics(request: pytest.FixtureRequest) -> None:
    pytest.importorskip("rclpy", reason="neither rclpy nor its double is there")
    request.getfixturevalue("ros")
    from kizzasi_ros.policy_node import PolicyNode

    node = PolicyNode()
    try:
        whose = (node.get_name(), node.get_namespace())
        services = dict(node.get_service_names_and_types_by_node(*whose))
        triggers = [name.rpartition("/")[2] for name, kinds in services.items() if kinds == ["std_srvs/srv/Trigger"]]
        assert {f"~/{name}" for name in triggers} == set(rows("Services")) == {f"~/{name}" for name in SERVICES}
        topics = {
            name.replace(f"/{node.get_name()}/", "~/"): kinds
            for name, kinds in node.get_publisher_names_and_types_by_node(*whose)
            if not kinds[0].startswith(("rcl_interfaces/", "lifecycle_msgs/"))
        }
        assert {name: [kind.strip("`")] for name, (kind, _) in rows("Topics").items()} == topics
    finally:
        node.destroy_node()


def test_the_lifecycle_s_transitions() -> None:
    assert list(rows("Lifecycle")) == ["configure", "activate", "deactivate", "cleanup", "shutdown"]
