"""docs/ros2-dds.md: its tables and its config are the code's."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, get_args

from kizzasi_edge.config import RobotFile
from kizzasi_edge.connectors.dds import DdsTopic
from kizzasi_edge.connectors.topic_commands import TopicCommandsOptions
from kizzasi_edge.errors import ConfigError
from kizzasi_edge.joints import SUFFIX
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


TOML = [tomllib.loads(text) for text in re.findall(r"^```(?:toml)?\n(.*?)^```$", PAGE, re.S | re.M)]


def connectors(kind: str, options: type, make: type, base: Path) -> list[Any]:
    """Those of the page's sections, built."""
    sections = [
        {key: value for key, value in section.items() if key not in ("connector", "stale_ms")}
        for text in TOML
        for section in text.get(kind, [])
    ]
    return [make(validate(section, options, "page", ConfigError), base) for section in sections]


def test_the_config(tmp_path: Path) -> None:
    validate(TOML[0], RobotFile, "page", ConfigError)
    source, renamed = connectors("input", DdsTopic.Options, DdsTopic, tmp_path)
    output, base = connectors("output", DdsTopic.Output.Options, DdsTopic.Output, tmp_path)
    assert source.options.qos.profile == PRESETS["sensor_data"]
    assert output.options.qos.profile.depth == 1
    assert output.commands == ("position", "velocity", "torque")
    assert base.commands == ("velocity",)
    assert renamed.options.rename
    assert DdsTopic.Options(topic="t", type="a/msg/B").qos.profile == PRESETS["default"]
    assert f"`wait_s`\n({DdsTopic.Options(topic='t', type='a/msg/B').wait_s:g})" in PAGE


def test_the_keys_of_commands() -> None:
    section = PAGE.partition("### Positions, velocities, efforts")[2].partition("\n## ")[0]
    keys = TopicCommandsOptions.model_fields
    for key in ("command_interface", "damping", "reach_s"):
        assert key in keys
        assert f"`{key}`" in section
    assert set(get_args(get_args(keys["command_interface"].annotation)[0])) <= set(codes(section))
    assert set(SUFFIX) <= set(codes(section))
    assert "`rename`" in PAGE.partition("## Other names")[2]
    assert "rename" in keys
