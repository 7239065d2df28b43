"""rosbag2 folders and MCAP files, written by rosbags' own writer."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recordings import FIELDS, MS, START, motion, numbers, open_, write_bag
from rosbags.rosbag2 import StoragePlugin

from kizzasi_edge.errors import ConfigError


@pytest.mark.parametrize("plugin", list(StoragePlugin))
def test_damaged_rosbags_are_named(plugin: StoragePlugin, tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", motion(10), plugin)
    (file,) = [path for path in bag.iterdir() if path.suffix != ".yaml"]
    whole = file.read_bytes()
    for seed in range(6):
        rng = np.random.default_rng(seed)
        damaged = bytearray(whole)
        for at in rng.integers(100, len(whole) - 100, 40):
            damaged[at] = rng.integers(128, 256)
        file.write_bytes(damaged)
        with suppress(ConfigError):  # damage can also be to a byte that nobody reads; no other error may come
            open_(tmp_path, path="bag", **FIELDS)
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match="bag"):
        open_(tmp_path, path="bag", **FIELDS)


@pytest.mark.parametrize("plugin", list(StoragePlugin))
def test_rosbags(plugin: StoragePlugin, tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", motion(), plugin)
    (file,) = [path for path in bag.iterdir() if path.suffix != ".yaml"]
    for path in ("bag", f"bag/{file.name}"):
        (recording,) = streams = open_(tmp_path, path=path, **FIELDS)
        assert streams.input_names == (
            "/joint_states:position[elbow]",
            "/joint_states:velocity[wrist]",  # as in the first message
            "/joint_states:velocity[elbow]",
            "/imu:angular_velocity.z",
        )
        assert streams.output_names == ("/commands:data[0]", "/commands:data[1]")
        rows = np.arange(1, 40)[:, None]  # at the first joints there was no command yet
        expected = rows * [1, 0.1, 0.1, 1] + [0.25, 0.05, 0.025, 100]
        np.testing.assert_allclose(recording.x, expected, rtol=1e-6)
        np.testing.assert_array_equal(recording.y, (rows - 1) * [1, 2])  # the command that was in force, not its answer
        assert streams.sample_rate_hz == pytest.approx(100)
        assert f"bag/{file.name}" in streams.source["files"]
    (answered,) = open_(tmp_path, path="bag", **FIELDS, horizon=1)
    np.testing.assert_array_equal(answered.y[:, 0], np.arange(1, 39))


def test_rosbags_without_message_definitions(tmp_path: Path) -> None:
    """As recorded before ROS 2 Iron: the standard messages are known."""
    bag = write_bag(tmp_path / "bag", motion(), StoragePlugin.SQLITE3)
    before = open_(tmp_path, path="bag", **FIELDS)
    with closing(sqlite3.connect(bag / "bag.db3")) as database, database:
        database.execute("DELETE FROM message_definitions")
    after = open_(tmp_path, path="bag", **FIELDS)
    np.testing.assert_array_equal(before.recordings[0].x, after.recordings[0].x)
    assert before.source["files"]["bag/bag.db3"] != after.source["files"]["bag/bag.db3"]


def test_rosbag_topics_of_several_rates(tmp_path: Path) -> None:
    goals = [(START + 55 * MS, numbers("/goal", 7.0)), (START + 250 * MS, numbers("/goal", 8.0))]
    write_bag(tmp_path / "bags/a", motion() + goals, StoragePlugin.MCAP)
    keys: dict[str, Any] = {
        "inputs": ["/joint_states:position[wrist]", "/goal:data[0]"],
        "outputs": ["/commands:data[0]"],
    }
    with pytest.raises(ConfigError, match=r"bags/a, /goal: found 5.12821 Hz .*; or set resample = true"):
        open_(tmp_path, path="bags/*", **keys)
    (recording,) = open_(tmp_path, path="bags/*", **keys, resample=True, max_gap_s=0.2)
    ticks = 55 + 10 * np.arange(len(recording))  # ms; the last message came at 392 ms
    assert ticks[-1] == 385
    np.testing.assert_array_equal(recording.x[:, 0], ticks // 10 + 0.5)
    np.testing.assert_array_equal(recording.x[:, 1], np.where(ticks < 250, 7, 8))
    np.testing.assert_array_equal(recording.y[:, 0], (ticks - 2) // 10)
    first, second = open_(tmp_path, path="bags/*", **keys, resample=True, max_gap_s=0.1)
    assert (len(first), len(second)) == (11, 10)  # 55 … 155 ms, 255 … 345 ms: no goal is older than 100 ms


def test_rosbag_gaps(tmp_path: Path) -> None:
    messages = [(t, m) for t, m in motion() if m[0] != "/commands" or not 100 * MS <= t - START < 230 * MS]
    write_bag(tmp_path / "bag", messages, StoragePlugin.SQLITE3)
    write_bag(
        tmp_path / "died", [(t, m) for t, m in motion() if m[0] != "/imu" or t < START + 50 * MS], StoragePlugin.MCAP
    )
    with pytest.raises(ConfigError, match=r"died, /imu: nothing came for 0.341 s after row 5, expected at most 0.1 s"):
        open_(tmp_path, path="died", **FIELDS)
    (short,) = open_(tmp_path, path="died", **FIELDS, max_gap_s=0.1)
    np.testing.assert_array_equal(short.x[:, 3], np.minimum(100 + np.arange(1, 15), 105))
    with pytest.raises(
        ConfigError, match=r"bag, /commands: nothing came for 0.14 s after row 9, expected at most 0.1 s"
    ):
        open_(tmp_path, path="bag", **FIELDS)
    first, second = open_(tmp_path, path="bag", **FIELDS, max_gap_s=0.03)
    np.testing.assert_array_equal(first.x[:, 3], 100 + np.arange(1, 13))  # held for 28 ms after 92 ms
    np.testing.assert_array_equal(second.x[:, 3], 100 + np.arange(24, 40))


@pytest.mark.parametrize(
    ("field", "match"),
    [
        ("joint_states.position", "found 'joint_states.position', expected /topic:field"),
        ("/joints:position", "no messages on /joints; found /commands, /imu, /joint_states"),
        ("/imu:gyro", "/imu, message 0: /imu:gyro is not there: no 'gyro'; found header, orientation"),
        ("/imu:header", "/imu:header is a .*Header.*, expected a number; found stamp, frame_id"),
        ("/joint_states:position[knee]", r"position\[knee\] is not there; found 2 element\(s\) wrist, elbow"),
        ("/joint_states:effort[elbow]", r"effort\[elbow\] is not there; found 0 element"),
        ("/commands:data[2]", r"data\[2\] is not there; found 2 element"),
        ("/nan:data[0]", r"bag, /nan: column '/nan:data\[0\]' holds nan at row 0"),
        ("/growing:data", "/growing, message 1: /growing:data has 2 elements, expected 1 as in message 0"),
    ],
)
def test_what_is_wrong_in_a_bag_is_named(field: str, match: str, tmp_path: Path) -> None:
    extra = [(START, numbers("/growing", 1)), (START + 1, numbers("/growing", 1, 2)), (START, numbers("/nan", np.nan))]
    if "nan" not in field and "growing" not in field:
        extra = []
    write_bag(tmp_path / "bag", motion(3) + extra, StoragePlugin.MCAP)
    with pytest.raises(ConfigError, match=match):
        open_(tmp_path, path="bag", inputs=[field], outputs=["/commands:data[0]"])
