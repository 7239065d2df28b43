"""Recorded topics as inputs: bags written by rosbags' writer, in recorded time, at full speed, and for training."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recordings import MS, START, STORE, imu, joints, motion, numbers, open_, write_bag
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from kizzasi_edge import Predictor
from kizzasi_edge.config import load_config
from kizzasi_edge.connectors import connector_class
from kizzasi_edge.connectors.bag import Bag, BagOptions
from kizzasi_edge.errors import ConfigError, ConnectorError
from kizzasi_edge.frames import Observation
from kizzasi_edge.robot import Robot
from kizzasi_edge.ros2 import replay
from kizzasi_edge.ros2.topics import TopicOptions
from kizzasi_edge.toml_file import validate

both = pytest.mark.parametrize("plugin", list(StoragePlugin))
DEMO = Path(__file__).parents[2] / "kizzasi_edge" / "demo" / "assets"


def source(folder: Path, **options: Any) -> Bag:
    given = {"path": "bag", "topic": "/joint_states", "rate": 0.0, **options}
    return Bag(validate(given, BagOptions, "robot.toml: [[input]] 1", ConfigError), folder)


def steps(bag: Bag) -> list[Observation]:
    """All observations of an open bag at full speed, and close it."""
    found = list(iter(bag.read, None))
    bag.close()
    return found


# ---- full speed ----------------------------------------------------------------------------------------------


@both
def test_every_message_is_a_step(plugin: StoragePlugin, tmp_path: Path) -> None:
    folder = write_bag(tmp_path / "bag", motion(), plugin)
    (file,) = [path for path in folder.iterdir() if path.suffix != ".yaml"]
    for path in ("bag", f"bag/{file.name}"):
        bag = source(tmp_path, path=path)
        bag.open()
        assert bag.names == ("wrist/position", "elbow/position", "wrist/velocity", "elbow/velocity")
        before = time.monotonic_ns()
        found = steps(bag)
        assert [row.values.tolist() for row in found] == [
            [np.float32(v) for v in (i + 0.5, i + 0.25, (i + 0.5) / 10, (i + 0.25) / 10)] for i in range(40)
        ]
        assert all(row.valid.all() for row in found), "the joints' order changes every third message"
        stamps = [before, *(row.stamp_ns for row in found), time.monotonic_ns()]
        assert stamps == sorted(stamps)
        assert [row.seq for row in found] == list(range(1, 41))


def test_other_topics_hold_what_they_had(tmp_path: Path) -> None:
    """As training aligns them: the first input's topic gives the steps."""
    write_bag(tmp_path / "bag", motion(), StoragePlugin.MCAP)
    lead, commands = source(tmp_path), source(tmp_path, topic="/commands")
    unit = source(tmp_path, topic="/imu", channels={"yaw": "/imu:angular_velocity.z"})
    for bag in (lead, commands, unit):
        bag.open()
    rows = []
    while (row := lead.read()) is not None:
        rows.append((row.values[0], commands.read(), unit.read().values.tolist()))
    assert rows[0][1] is None, "at the first joints there was no command yet"
    for i, (wrist, command, yaw) in enumerate(rows):
        assert (wrist, yaw) == (i + 0.5, [100 + i])
        if i:
            assert command.values.tolist() == [i - 1, 2 * (i - 1)]
    assert len(rows) == 40
    assert commands.read() is unit.read() is None, "after the bag's end"
    assert lead.counters == {"received": 40, "refused": 0, "ended": True, "damaged": False}
    for bag in (lead, commands, unit):
        bag.close()


def test_a_deployments_names_of_joints_are_the_bags(tmp_path: Path) -> None:
    write_bag(tmp_path / "bag", motion(4), StoragePlugin.MCAP)
    plain, ours = source(tmp_path), source(tmp_path, rename={"forearm": "elbow"})
    plain.open()
    ours.open()
    assert set(ours.names) == {name.replace("elbow", "forearm") for name in plain.names} != set(plain.names)
    for _ in range(4):
        assert plain.read().values.tolist() == ours.read().values.tolist()
    plain.close()
    ours.close()


def test_two_inputs_may_read_one_topic(tmp_path: Path) -> None:
    write_bag(tmp_path / "bag", motion(10), StoragePlugin.MCAP)
    lead = source(tmp_path, channels={"e": "/joint_states:position[elbow]"})
    other = source(tmp_path, channels={"w": "/joint_states:position[wrist]"})
    lead.open()
    other.open()
    for i in range(10):
        assert (lead.read().values[0], other.read().values[0]) == (i + 0.25, i + 0.5)
    assert lead.read() is other.read() is None
    lead.close()
    other.close()


def test_closed_and_opened_it_begins_anew(tmp_path: Path) -> None:
    write_bag(tmp_path / "bag", motion(5), StoragePlugin.SQLITE3)
    bag = source(tmp_path)
    assert bag.read() is None
    for _ in range(2):
        bag.open()
        assert bag.read().values[0] == 0.5
        bag.read()
        bag.close()
        assert bag.read() is None
    other = source(tmp_path)
    bag.open()
    bag.read()
    other.open()
    assert other.read().values[0] == 0.5, "a replay that has begun takes no more inputs"
    bag.close()
    other.close()


def test_a_bag_longer_than_what_is_read_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "AHEAD", 10)
    write_bag(tmp_path / "bag", motion(60), StoragePlugin.MCAP)
    bag = source(tmp_path)
    bag.open()
    assert len(steps(bag)) == 60
    bag.open()
    bag.read()
    deadline = time.monotonic() + 20
    while len(bag._replay._queue) < 10:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    time.sleep(0.05)
    bag.close()  # while the reader waits for room
    assert not any(thread.name == "bag bag" for thread in threading.enumerate())


def test_the_demo_arm_steps_on_a_bag_as_it_does_by_hand(tmp_path: Path) -> None:
    """`kizzasi-edge run --dry-run` on a recorded topic: the same inputs and proposals as stepping the model on them."""
    predictor = Predictor(DEMO / "arm.onnx")
    rng = np.random.default_rng(3)
    rows = rng.uniform(-0.3, 0.3, (50, len(predictor.input_names))).astype(np.float32)
    measured = [name for name in predictor.input_names if name.endswith("/position")]
    targets = [name for name in predictor.input_names if name not in measured]
    column = {name: i for i, name in enumerate(predictor.input_names)}
    messages = []
    for i, row in enumerate(rows):
        stamp = START + i * 2 * MS
        values = {name.removesuffix("/position"): float(row[column[name]]) for name in measured}
        messages += [
            (stamp, numbers("/goal", *(float(row[column[name]]) for name in targets))),
            (stamp + 1000, joints(stamp, **values)),
        ]
    write_bag(tmp_path / "bag", messages, StoragePlugin.MCAP)
    channels = ", ".join(f'"{name}" = "/goal:data[{i}]"' for i, name in enumerate(targets))
    (tmp_path / "robot.toml").write_text(
        f"""schema = 1
[robot]
name = "t"
[model]
path = "{DEMO / "arm.onnx"}"
[guard]
path = "{DEMO / "arm.guard.toml"}"
[loop]
rate_hz = 500
[[input]]
connector = "bag"
path = "bag"
topic = "/joint_states"
type = "sensor_msgs/msg/JointState"
rate = 0
[[input]]
connector = "bag"
path = "bag"
topic = "/goal"
channels = {{ {channels} }}
rate = 0
[control]
socket = "s"
[record]
path = "r.npz"
"""
    )
    robot = Robot(load_config(tmp_path / "robot.toml"))
    assert robot.findings() == []
    robot.run(dry_run=True, ticks=len(rows))
    record = np.load(tmp_path / "r.npz")
    x = record["x"][:, : len(predictor.input_names)]
    assert len(x) == len(rows)
    np.testing.assert_array_equal(x, rows)
    predictor.reset()
    order = [list(predictor.output_names).index(f"{joint}/position") for joint in robot.guard.joints]
    if robot.operator.loop.pace.overruns == 0:  # a skipped period is one more step of the model
        expected = np.array([predictor.propose(row)[order] for row in rows])
        np.testing.assert_array_equal(record["proposal"], expected)


# ---- recorded speed ------------------------------------------------------------------------------------------


def test_messages_come_when_they_are_due(tmp_path: Path) -> None:
    messages = [(START + i * 50 * MS, joints(START, a=float(i))) for i in range(6)]
    write_bag(tmp_path / "bag", messages, StoragePlugin.MCAP)
    bag = source(tmp_path, rate=2.0)
    bag.open()
    begin = time.monotonic_ns()
    seen: dict[int, Observation] = {}
    while 5 not in seen:
        if (row := bag.read()) is not None:
            assert row.stamp_ns <= time.monotonic_ns(), "nothing comes before it is due"
            seen.setdefault(int(row.values[0]), row)
        time.sleep(0.001)
        assert time.monotonic_ns() < begin + 20e9
    assert time.monotonic_ns() >= begin + 125 * MS
    start = seen[5].stamp_ns - 125 * MS
    assert all(row.stamp_ns == start + i * 25 * MS for i, row in seen.items()), "due when recorded, twice as fast"
    assert start >= begin, "time begins with the first read"
    assert bag.read().values[0] == 5, "the last one stays, and grows old"
    assert bag.counters["ended"]
    bag.close()


def test_topics_keep_their_times_to_each_other(tmp_path: Path) -> None:
    messages = [
        (START, joints(START, a=0.0)),
        (START + 30 * MS, imu(START, 1.0)),
        (START + 60 * MS, joints(START, a=1.0)),
    ]
    write_bag(tmp_path / "bag", messages, StoragePlugin.SQLITE3)
    bags = [source(tmp_path, rate=1.0), source(tmp_path, rate=1.0, topic="/imu", channels={"w": "/imu:orientation.w"})]
    for bag in bags:
        bag.open()
    seen: list[set[int]] = [set(), set()]
    deadline = time.monotonic() + 20
    while not (seen[1] and any(stamp > max(seen[1]) for stamp in seen[0])):
        for bag, stamps in zip(bags, seen, strict=True):
            if (row := bag.read()) is not None:
                stamps.add(row.stamp_ns)
        time.sleep(0.001)
        assert time.monotonic() < deadline
    (middle,), last = seen[1], max(seen[0])
    assert last - middle == 30 * MS
    assert seen[0] <= {last, last - 60 * MS}, "the first may have been missed, on a busy machine"
    for bag in bags:
        bag.close()


# ---- what is in the bag --------------------------------------------------------------------------------------


def raw_bag(folder: Path, topic: str, kind: str, payloads: list[bytes]) -> None:
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection(topic, kind, typestore=STORE)
        for i, payload in enumerate(payloads):
            writer.write(connection, START + i, payload)


def test_damaged_messages_are_counted_and_passed_over(tmp_path: Path) -> None:
    good = [bytes(STORE.serialize_cdr(joints(0, a=float(i))[1], "sensor_msgs/msg/JointState")) for i in range(3)]
    raw_bag(tmp_path / "bag", "/joint_states", "sensor_msgs/msg/JointState", [good[0], good[1][:30], b"\0\7", good[2]])
    bag = source(tmp_path)
    bag.open()
    assert [row.values[0] for row in iter(bag.read, None)] == [0, 2]
    assert bag.counters["refused"] == 2
    bag.close()
    raw_bag(tmp_path / "worse", "/joint_states", "sensor_msgs/msg/JointState", [good[1][:30]])
    with pytest.raises(
        ConnectorError, match=r"worse: /joint_states, first message: sensor_msgs/msg/JointState: .* ends"
    ):
        source(tmp_path, path="worse").open()


@both
def test_a_damaged_bag_is_refused_or_ends(plugin: StoragePlugin, tmp_path: Path) -> None:
    folder = write_bag(tmp_path / "bag", motion(500), plugin)
    (file,) = [path for path in folder.iterdir() if path.suffix != ".yaml"]
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2 : len(damaged) // 2 + 20_000] = b"\xa5" * 20_000
    bag = source(tmp_path)
    bag.open()
    file.write_bytes(damaged)  # between a look into it and the run
    assert bag.read() is None
    assert bag.counters == {"received": 0, "refused": 0, "ended": True, "damaged": True}
    bag.close()
    with pytest.raises(ConnectorError, match="cannot be read as a rosbag2"):
        bag.open()


def test_bags_without_definitions(tmp_path: Path) -> None:
    """As recorded before ROS 2 Iron: the standard messages are known."""
    folder = write_bag(tmp_path / "bag", motion(3), StoragePlugin.SQLITE3)
    with closing(sqlite3.connect(folder / "bag.db3")) as database, database:
        database.execute("DELETE FROM message_definitions")
    bag = source(tmp_path)
    bag.open()
    assert len(steps(bag)) == 3


def test_bags_of_ros_1_are_refused_by_name(tmp_path: Path) -> None:
    store = get_typestore(Stores.ROS1_NOETIC)
    with Writer1(tmp_path / "old.bag") as writer:
        connection = writer.add_connection("/flag", "std_msgs/msg/Bool", typestore=store)
        writer.write(
            connection, START, store.serialize_ros1(store.types["std_msgs/msg/Bool"](data=True), "std_msgs/msg/Bool")
        )
    with pytest.raises(ConnectorError, match=r"old\.bag: is a bag of ROS 1; expected a rosbag2"):
        source(tmp_path, path="old.bag", topic="/flag").open()


def test_what_is_not_there_is_said_before_anything_runs(tmp_path: Path) -> None:
    write_bag(tmp_path / "bag", motion(3), StoragePlugin.MCAP)
    (tmp_path / "rubbish.mcap").write_bytes(b"rubbish" * 100)
    for options, match in (
        ({"topic": "/joints"}, "no messages on /joints; found /commands, /imu, /joint_states"),
        ({"path": "gone"}, "gone: cannot be read as a rosbag2"),
        ({"path": "rubbish.mcap"}, "rubbish.mcap: cannot be read as a rosbag2"),
        ({"type": "sensor_msgs/msg/Imu"}, "/joint_states: found the types .*Imu.*JointState.*; expected one"),
        ({"channels": {"x": "/joint_states:torque[a]"}}, "found 'torque' in sensor_msgs/msg/JointState"),
    ):
        bag = source(tmp_path, **options)
        ((is_error, text),) = bag.findings(100, 2)
        assert is_error
        with pytest.raises(ConfigError if "channels" in options else ConnectorError, match=match) as error:
            bag.open()
        assert str(error.value) in text
        assert bag.counters == {}
    bag = source(tmp_path)
    assert bag.findings(100, 2) == []
    assert "elbow/position" in bag.names, "known to `check` before it runs"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"rate": -1.0}, "rate: found -1.0"),
        ({"topic": "joint states"}, "topic: found 'joint states'"),
        ({"type": "JointState"}, "type: found 'JointState'"),
        ({"channels": {"a": "position[a]"}}, "found 'position.a.', expected /topic:field"),
        ({"channels": {"a": "/imu:data"}}, "channels of topic '/joint_states'; found '/imu:data' for 'a'"),
        ({"speed": 1}, "speed: unknown key"),
    ],
)
def test_options_are_checked(options: dict[str, Any], match: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=match):
        source(tmp_path, **options)


def test_the_connector_has_a_name() -> None:
    assert connector_class("bag", "") is Bag
    assert set(TopicOptions.model_fields) - set(BagOptions.model_fields) == {"qos"}


# ---- training reads the same ---------------------------------------------------------------------------------


@both
def test_one_table_for_training_and_for_running(plugin: StoragePlugin, tmp_path: Path) -> None:
    """The table of a train.toml, given to the inputs of a robot.toml: the same names, and the same numbers."""
    table = {
        "elbow/position": "/joint_states:position[elbow]",
        "wrist/velocity": "/joint_states:velocity[wrist]",
        "yaw": "/imu:angular_velocity.z",
        "elbow": "/commands:data[0]",
        "wrist": "/commands:data[1]",
    }
    write_bag(tmp_path / "bag", motion(), plugin)
    inputs, outputs = ["elbow/position", "wrist/velocity", "yaw"], ["elbow", "wrist"]
    streams = open_(tmp_path, path="bag", inputs=inputs, outputs=outputs, channels=table)
    assert (streams.input_names, streams.output_names) == (tuple(inputs), tuple(outputs))
    (recording,) = streams

    lead = source(tmp_path, channels={name: table[name] for name in inputs[:2]})
    unit = source(tmp_path, topic="/imu", channels={"yaw": table["yaw"]})
    commands = source(tmp_path, topic="/commands", channels={name: table[name] for name in outputs})
    for bag in (lead, unit, commands):
        bag.open()
    assert lead.names + unit.names == streams.input_names
    assert commands.names == streams.output_names
    rows = []
    while (row := lead.read()) is not None:
        if (command := commands.read()) is not None:  # training begins when every topic has had a message
            rows.append(np.concatenate([row.values, unit.read().values, command.values]))
    np.testing.assert_array_equal(np.array(rows), np.hstack([recording.x, recording.y]))
    for bag in (lead, unit, commands):
        bag.close()


def test_a_table_entry_of_training_is_one_number(tmp_path: Path) -> None:
    write_bag(tmp_path / "bag", motion(5), StoragePlugin.MCAP)
    keys: dict[str, Any] = {"path": "bag", "outputs": ["/commands:data[0]"]}
    with pytest.raises(
        ConfigError, match=r"channels: 'q': '/joint_states:position' is a sequence, expected one element"
    ):
        open_(tmp_path, **keys, inputs=["q"], channels={"q": "/joint_states:position"})
    with pytest.raises(ConfigError, match="found 'q', expected /topic:field"):
        open_(tmp_path, **keys, inputs=["q"], channels={"p": "/joint_states:position"})
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match="channels: not used by format 'csv'"):
        open_(tmp_path, path="a.csv", inputs=["a"], outputs=["b"], channels={"a": "b"})
