"""Targets from a CSV file."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from kizzasi_edge.connectors.waypoints import Waypoints, WaypointsOptions, read_waypoints
from kizzasi_edge.errors import ConfigError


def test_reads_names_times_and_rows(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("time_s,pan,lift\n0,1,-2\n0.5,3.25,4e-1\n")
    names, times, rows = read_waypoints(path)
    assert names == ("pan", "lift")
    assert times == [0.0, 0.5]
    assert [row.tolist() for row in rows] == [[1, -2], [3.25, np.float32(0.4)]]
    assert rows[0].dtype == np.float32


def test_a_row_holds_until_the_next(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("time_s,pan\n0.0,1\n0.15,2\n1000,3\n")
    source = Waypoints(WaypointsOptions(path="t.csv"), tmp_path)
    before = time.monotonic_ns()
    source.open()
    opened = time.monotonic_ns()
    first = source.read()
    assert first.names == ("pan",)
    assert before <= first.stamp_ns <= time.monotonic_ns()
    assert first.t_us == 0
    value, reads = first.values.tolist(), 1
    while value == [1]:
        assert time.monotonic_ns() < opened + 20e9
        asked = time.monotonic_ns()
        value, reads = source.read().values.tolist(), reads + 1
        # Due 0.15 s after the opening, between these two looks at the clock.
        assert value == [2] or asked < opened + 150_000_000
    assert value == [2]
    assert time.monotonic_ns() >= before + 150_000_000
    assert reads > 1 or first.stamp_ns >= before + 150_000_000
    source.close()


def test_before_its_time_the_first_row_holds(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("time_s,pan\n1000,7\n")
    source = Waypoints(WaypointsOptions(path="t.csv"), tmp_path)
    source.open()
    assert source.read().values.tolist() == [7]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["line 1", "time_s"]),
        ("pan\n1\n", ["line 1", "['pan']", "time_s"]),
        ("time_s\n1\n", ["line 1", "at least one signal"]),
        ("time_s,a,a\n0,1,1\n", ["line 1", "each name once"]),
        ("time_s,a\n", ["no rows"]),
        ("time_s,a\n0,1\n1\n", ["line 3", "found 1 columns", "expected 2"]),
        ("time_s,a\n0,x\n", ["line 2", "column 'a'", "'x'", "finite"]),
        ("time_s,a\n0,nan\n", ["line 2", "column 'a'", "'nan'"]),
        ("time_s,a\n0,1e39\n", ["line 2", "column 'a'", "'1e39'"]),
        ("time_s,a\ninf,1\n", ["line 2", "column 'time_s'", "'inf'"]),
        ("time_s,a\n1,1\n1,2\n", ["line 3", "'time_s'", "found 1", "more than 1"]),
        ("time_s,a\n0," + "1" * 200_000 + "\n", ["cannot be read"]),
    ],
)
def test_refusals_name_file_line_and_column(tmp_path: Path, text: str, words: list[str]) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_waypoints(path)
    for word in [str(path), *words]:
        assert word in str(error.value)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\xff")
    for name in ("gone.csv", "b.csv", ".", "a\0b"):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_waypoints(tmp_path / name)
