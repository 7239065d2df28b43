"""The live table: what it shows of a status."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from kizzasi_edge.live import table

STATUS: dict[str, Any] = {
    "robot": "arm",
    "state": "ARMED",
    "ticks": 10,
    "hangs": 1,
    "interventions": {"velocity": 3},
    "relaxed": {"soft[1]": 2},
    "last_error": "model: y[0]: found nan",
    "guard": {
        "state": "STOPPED",
        "cause": ["TRACKING_STOP"],
        "events": {"LATE": 4},
        "violated": ["slow"],
        "remaining": {"reach": 0.25},
    },
}


def drawn(status: dict[str, Any]) -> str:
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(table(status))
    return console.export_text()


def test_it_shows_the_guard_its_faults_and_its_deadlines() -> None:
    text = drawn(STATUS)
    for words in (
        "STOPPED TRACKING_STOP", "LATE 4", "slow", "reach 0.25 s", "soft[1] 2", "velocity 3", "hangs 1",
        "model: y[0]: found nan",
    ):  # fmt: skip
        assert words in text


def test_a_robot_that_is_starting_has_little_to_show() -> None:
    text = drawn({"robot": "arm", "state": "STARTING"})
    assert "STARTING" in text
    assert "no intervention" in text
    assert "violated" not in text
