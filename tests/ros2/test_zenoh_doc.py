"""docs/ros2-zenoh.md: its tables, its config and its worked example are the code's."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import get_args

import pytest

from kizzasi_edge.config import RobotFile
from kizzasi_edge.connectors.zenoh import ZenohTopic
from kizzasi_edge.errors import ConfigError
from kizzasi_edge.ros2.messages import Messages
from kizzasi_edge.ros2.qos import PRESETS
from kizzasi_edge.ros2.zenoh_attachment import pack, unpack
from kizzasi_edge.ros2.zenoh_domain import ROUTER, Mode, ZenohDomain, ZenohSection
from kizzasi_edge.ros2.zenoh_keys import NO_HASH, NODE, Token, topic_key
from kizzasi_edge.toml_file import validate

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "ros2-zenoh.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^\|.*\|$", section, re.M)[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def codes(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def test_the_keys_and_their_defaults() -> None:
    table = {key: row for row in rows("Where") for key in codes(row[0])}
    assert set(table) == set(ZenohSection.model_fields)
    assert codes(table["mode"][2]) == list(get_args(Mode))
    told = dict(ZenohDomain().overrides({}))
    assert codes(table["connect"][1]) == [ROUTER]
    assert told["connect/endpoints"] == f'["{ROUTER}"]'
    assert told["listen/endpoints"] == f'["{codes(table["listen"][1])[0]}"]'
    assert told["mode"] == f'"{codes(table["mode"][1])[0]}"'
    fields = ZenohSection.model_fields
    names = ("node", "namespace", "enclave")
    assert codes(table["node"][1]) == [fields[name].default for name in names]


def test_the_config(tmp_path: Path) -> None:
    (text,) = re.findall(r"^```toml\n(.*?)^```", PAGE, re.S | re.M)
    file = validate(tomllib.loads(text), RobotFile, "page", ConfigError)
    source = ZenohTopic(validate(file.input[0].options, ZenohTopic.Options, "page", ConfigError), tmp_path)
    options = validate(file.output[0].options, ZenohTopic.Output.Options, "page", ConfigError)
    output = ZenohTopic.Output(options, tmp_path)
    assert source.access.domain == output.access.domain


def test_the_worked_example() -> None:
    wire = {row[0]: codes(row[1])[0] for row in rows("On the wire") if codes(row[1])}
    kind = Messages().type("sensor_msgs/msg/JointState")
    assert wire["topic"] == topic_key(0, "/joint_states", kind.name, kind.hash)
    node, publisher = (Token.parse(wire[what]) for what in ("its node in the graph", "itself in the graph"))
    assert node is not None
    assert publisher is not None
    assert (node.kind, node.full_node_name, node.key) == (NODE, "/arm/gateway", wire["its node in the graph"])
    assert publisher.key == wire["itself in the graph"]
    assert (publisher.topic, publisher.qos) == ("/joint_states", PRESETS["sensor_data"])
    assert f"`{NO_HASH}`" in PAGE
    attached = bytes.fromhex(wire["attachment of message 1"])
    read = unpack(attached)
    assert read is not None
    number, stamp, gid = read
    assert (number, stamp) == (1, 10**9)
    assert pack(number, stamp, gid) == attached
    xxhash = pytest.importorskip("xxhash", reason="the extra zenoh is not installed")
    assert gid == xxhash.xxh3_128_intdigest(publisher.key.encode()).to_bytes(16, "little")


def test_the_counters() -> None:
    pytest.importorskip("zenoh", reason="the extra zenoh is not installed")
    from zenohrig import ARRAY, listening, opened

    with opened(listening()) as ours:
        reads = ours.subscribe("t", ARRAY, PRESETS["default"], lambda *_: None).counters
        writes = ours.advertise("t", ARRAY, PRESETS["default"]).counters
    named = {key for row in rows("What is counted") for key in codes(row[0])}
    assert named == (set(reads) | set(writes)) - {"received", "failed", "sent", "dropped"}


def test_the_commands() -> None:
    assert (ROOT / "benchmarks" / "bench_zenoh.py").is_file()
    assert "zenoh = [" in (ROOT / "pyproject.toml").read_text()
