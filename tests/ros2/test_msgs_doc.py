"""docs/ros2-messages.md against the code: every type, every name, every key, and the figures."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path

from messages_in_use import MESSAGES, TREES, joint_state
from test_cdr_codec import decoder

from kizzasi_edge.connectors.bag import BagOptions
from kizzasi_edge.errors import ConfigError
from kizzasi_edge.ros2.channels import Channel
from kizzasi_edge.ros2.commands import _FORMS
from kizzasi_edge.ros2.offers import MOST_ELEMENTS, MOST_NUMBERS, require_number
from kizzasi_edge.toml_file import validate

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "ros2-messages.md").read_text()


def rows(heading: str) -> list[tuple[list[str], str]]:
    """(what the first column names, the rest) of the table under a heading."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line.strip("|").split("|", 1) for line in section.splitlines() if line.startswith("| `")]
    return [(re.findall(r"`([^`]+)`", first), rest) for first, rest in lines]


def test_every_type_is_listed_with_names_it_has() -> None:
    listed = rows("What a topic offers")
    assert sorted(kind for kinds, _ in listed for kind in kinds) == sorted(MESSAGES)
    named = 0
    for kinds, rest in listed:
        for name in re.findall(r"`(/[^`]+)`", rest):
            for kind in kinds:
                require_number(TREES[kind], Channel.parse(name, kind), PAGE[:20])
                named += 1
    assert named > 15
    assert f"{MOST_ELEMENTS} elements" in PAGE
    assert f"{MOST_NUMBERS} numbers" in PAGE
    offered = decoder().decode(joint_state(["elbow"], position=[1], velocity=[2], effort=[3])).names
    assert "`, `".join(offered) in PAGE


def test_every_command_type_is_listed() -> None:
    assert sorted(kind for kinds, _ in rows("Commands") for kind in kinds) == sorted(_FORMS)


def test_every_key_is_listed_and_the_example_is_valid() -> None:
    listed = {key for keys, _ in rows("robot.toml") for key in keys}
    assert listed == set(BagOptions.model_fields)
    (example,) = (text for text in re.findall(r"```toml\n(.*?)```", PAGE, re.S) if "[robot]" in text)
    for section in tomllib.loads(example)["input"]:
        given = {key: value for key, value in section.items() if key not in ("connector", "stale_ms")}
        assert section["connector"] == "bag"
        validate(given, BagOptions, "docs/ros2-messages.md", ConfigError)


def test_figures_are_the_measured_ones() -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        from bench_cdr import table
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    results = json.loads((ROOT / "benchmarks" / "results" / "cdr.json").read_text())
    shown = PAGE.split("<!-- cdr table -->\n")[1].split("<!-- end -->")[0]
    assert shown == table(results) + "\n"
