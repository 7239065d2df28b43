"""docs/ros2-dds.md: its tables and its config are the code's."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import get_args

import pytest

from kizzasi_edge.config import RobotFile
from kizzasi_edge.connectors.dds import DdsTopic
from kizzasi_edge.errors import ConfigError
from kizzasi_edge.ros2.commands import _FORMS
from kizzasi_edge.ros2.dds_domain import Discovery, DomainSection
from kizzasi_edge.ros2.qos import PRESETS, QosSection
from kizzasi_edge.toml_file import validate

PAGE = (Path(__file__).parents[2] / "docs" / "ros2-dds.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^\|.*\|$", section, re.M)[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def codes(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def test_the_presets() -> None:
    table = {name: row[1:] for row in rows("QoS") for name in codes(row[0])}
    assert table == {name: [qos.reliability, qos.durability, str(qos.depth)] for name, qos in PRESETS.items()}


def test_the_keys() -> None:
    assert {key for row in rows("Where") for key in codes(row[0])} == set(DomainSection.model_fields)
    keys = codes(PAGE.partition("Keys: ")[2].partition(".\n")[0])
    assert set(QosSection.model_fields) <= set(keys)
    ranges = codes(rows("Where")[1][2])
    assert set(get_args(Discovery)) <= set(ranges)


def test_the_config(tmp_path: Path) -> None:
    (text,) = re.findall(r"^```toml\n(.*?)^```", PAGE, re.S | re.M)
    file = validate(tomllib.loads(text), RobotFile, "page", ConfigError)
    source = DdsTopic(validate(file.input[0].options, DdsTopic.Options, "page", ConfigError), tmp_path)
    output = DdsTopic.Output(validate(file.output[0].options, DdsTopic.Output.Options, "page", ConfigError), tmp_path)
    assert source.options.qos.profile == PRESETS["sensor_data"]
    assert output.options.qos.profile.depth == 1
    assert DdsTopic.Options(topic="t", type="a/msg/B").qos.profile == PRESETS["default"]
    assert f"`wait_s`\n({DdsTopic.Options(topic='t', type='a/msg/B').wait_s:g})" in PAGE


@pytest.mark.parametrize("name", [name for name in _FORMS if not name.startswith(("control", "std_msgs/msg/Float32"))])
def test_the_command_messages(name: str) -> None:
    assert f"`{name}`" in PAGE.partition("## An output")[2]
