"""Writes recordings of every format, for the tests that read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from kizzasi_export.datasets import DataSection, Streams, open_streams

ROOT = Path(__file__).resolve().parents[2]


NAB = ROOT.parent / "shared/data/nab/data/realKnownCause"


RATE = 100.0


STORE = get_typestore(Stores.LATEST)


def open_(folder: Path, rate_hz: float | None = RATE, **keys: Any) -> Streams:
    return open_streams(DataSection(**keys), base=folder, rate_hz=rate_hz, where="train.toml: [data]")


def write_csv(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    pyarrow.csv.write_csv(pa.table({name: pa.array(values) for name, values in columns.items()}), path)
    return path


def drive(rows: int = 50, rate_hz: float = RATE) -> dict[str, Any]:
    """A drive's columns: every value tells its row."""
    t = np.arange(rows) / rate_hz
    return {"t": t, "q": np.arange(rows) * 1.0, "dq": np.arange(rows) + 0.5, "u": np.arange(rows) * 10.0}


QU = {"inputs": ["q"], "outputs": ["u"]}
"""Sections of the tests read these."""


STATE = ["shoulder.pos", "elbow.pos", "gripper.pos"]


def write_lerobot(folder: Path, lengths: tuple[int, ...] = (30, 20, 25), fps: int = 30, **info: Any) -> Path:
    """A dataset of version 3: the first two episodes in one data file, the rest in another."""
    frames = {
        "timestamp": "float32",
        "frame_index": "int64",
        "episode_index": "int64",
        "index": "int64",
        "task_index": "int64",
    }
    features = {
        "observation.state": {"dtype": "float32", "shape": [3], "names": STATE},
        "observation.effort": {"dtype": "float32", "shape": [2], "names": {"motors": ["shoulder", "elbow"]}},
        "observation.phase": {"dtype": "float32", "shape": [2], "names": ["dim"]},
        "action": {"dtype": "float32", "shape": [1], "names": ["gripper.pos"]},
        "observation.images.top": {"dtype": "video", "shape": [96, 96, 3], "names": ["height", "width", "channels"]},
        "observation.grid": {"dtype": "float32", "shape": [2, 2], "names": None},
    } | {name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in frames.items()}  # fmt: skip
    ends = np.cumsum(lengths)
    meta = {
        "codebase_version": "v3.0",
        "robot_type": "so101",
        "total_episodes": len(lengths),
        "total_frames": int(ends[-1]),
        "total_tasks": 1,
        "chunks_size": 1000,
        "fps": fps,
        "splits": {"train": f"0:{len(lengths)}"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": features,
    } | info  # fmt: skip
    (folder / "meta/episodes/chunk-000").mkdir(parents=True)
    (folder / "data/chunk-000").mkdir(parents=True)
    (folder / "meta/info.json").write_text(json.dumps(meta))
    (folder / "meta/stats.json").write_text("{}")
    pyarrow.parquet.write_table(pa.table({"task_index": [0], "task": ["stack"]}), folder / "meta/tasks.parquet")
    rows = np.arange(ends[-1])
    episode = np.searchsorted(ends, rows, side="right")
    frame = rows - np.r_[0, ends][episode]

    def vector(width: int) -> pa.Array:
        return pa.FixedSizeListArray.from_arrays(
            pa.array((rows[:, None] + np.arange(width) / 10).ravel(), "float32"), width
        )

    table = pa.table(
        {
            "observation.state": vector(3),
            "observation.effort": vector(2).cast(pa.list_(pa.float32())),
            "observation.phase": vector(2),
            "action": pa.array(rows * 2, "float32"),
            "timestamp": pa.array(frame / 30, "float32"),
            "frame_index": frame,
            "episode_index": episode,
            "index": rows,
            "task_index": np.zeros_like(rows),
        }
    )
    for number, span in enumerate((slice(0, int(ends[1])), slice(int(ends[1]), int(ends[-1])))):
        part = table.slice(span.start, span.stop - span.start)
        pyarrow.parquet.write_table(part, folder / f"data/chunk-000/file-{number:03d}.parquet")
    episodes = {
        "episode_index": list(range(len(lengths))),
        "tasks": [["stack"]] * len(lengths),
        "length": list(lengths),
        "data/chunk_index": [0] * len(lengths),
        "data/file_index": [min(1, i // 2) for i in range(len(lengths))],
        "dataset_from_index": (ends - lengths).tolist(),
        "dataset_to_index": ends.tolist(),
        "stats/action/min": [[0.0]] * len(lengths),
    }
    pyarrow.parquet.write_table(pa.table(episodes), folder / "meta/episodes/chunk-000/file-000.parquet")
    return folder


def message(kind: str, **fields: Any) -> Any:
    return STORE.types[kind](**fields)


def header(stamp: int) -> Any:
    return message(
        "std_msgs/msg/Header",
        stamp=message("builtin_interfaces/msg/Time", sec=stamp // 10**9, nanosec=stamp % 10**9),
        frame_id="",
    )


def joints(stamp: int, **positions: float) -> tuple[str, Any]:
    values = np.array(list(positions.values()), np.float64)
    empty = np.zeros(0)
    return "/joint_states", message(
        "sensor_msgs/msg/JointState",
        header=header(stamp),
        name=list(positions),
        position=values,
        velocity=values / 10,
        effort=empty,
    )  # fmt: skip


def numbers(topic: str, *values: float) -> tuple[str, Any]:
    layout = message("std_msgs/msg/MultiArrayLayout", dim=[], data_offset=0)
    return topic, message("std_msgs/msg/Float64MultiArray", layout=layout, data=np.array(values, np.float64))


def imu(stamp: int, z: float) -> tuple[str, Any]:
    def vector(**xyz: float) -> Any:
        return message("geometry_msgs/msg/Vector3", **xyz)

    return "/imu", message(
        "sensor_msgs/msg/Imu",
        header=header(stamp),
        orientation=message("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
        orientation_covariance=np.zeros(9),
        angular_velocity=vector(x=0.0, y=0.0, z=z),
        angular_velocity_covariance=np.zeros(9),
        linear_acceleration=vector(x=0.0, y=0.0, z=9.81),
        linear_acceleration_covariance=np.zeros(9),
    )  # fmt: skip


def write_bag(folder: Path, messages: list[tuple[int, tuple[str, Any]]], plugin: StoragePlugin) -> Path:
    """A bag of (received at ns, (topic, message))."""
    folder.parent.mkdir(exist_ok=True)
    with Writer(folder, version=9, storage_plugin=plugin) as writer:
        connections = {}
        for stamp, (topic, msg) in sorted(messages, key=lambda item: item[0]):
            kind = msg.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=STORE)
            writer.write(connections[topic], stamp, STORE.serialize_cdr(msg, kind))
    return folder


MS = 1_000_000


START = 1_700_000_000 * 10**9


def motion(count: int = 40) -> list[tuple[int, tuple[str, Any]]]:
    """100 Hz: joints whose order changes, commands 2 ms later that answer them, an inertial unit 1 ms before."""
    messages = []
    for i in range(count):
        stamp = START + i * 10 * MS
        elbow, wrist = {"elbow": i + 0.25}, {"wrist": i + 0.5}
        messages += [
            (stamp - MS, imu(stamp, 100.0 + i)),
            (stamp, joints(stamp, **(elbow | wrist if i % 3 else wrist | elbow))),
            (stamp + 2 * MS, numbers("/commands", i * 1.0, i * 2.0)),
        ]  # fmt: skip
    return messages


FIELDS: dict[str, Any] = {
    "inputs": ["/joint_states:position[elbow]", "/joint_states:velocity", "/imu:angular_velocity.z"],
    "outputs": ["/commands:data"],
}
