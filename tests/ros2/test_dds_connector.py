"""The input connector "dds": options, values, and what happens when the robot's side is not as expected."""

from __future__ import annotations

import json
import math
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kizzasi_edge.align import Align, Input
from kizzasi_edge.connectors import connector_class
from kizzasi_edge.errors import ConfigError, ConnectorError, MissingExtra
from kizzasi_edge.toml_file import validate

pytest.importorskip("cyclonedds", reason="the extra dds is not installed")

from ddsrig import JOINT_STATE, Peer, fresh_domain, joint_state, until
from robots import GUARD
from setpoint_model import write_policy

from kizzasi_edge.cli import main
from kizzasi_edge.connectors.dds import DdsTopic
from kizzasi_edge.ros2.dds import Dds
from kizzasi_edge.ros2.dds_domain import Domain
from kizzasi_edge.ros2.qos import QosProfile

TYPE = "sensor_msgs/msg/JointState"


def connector(base: Path = Path(), **options: Any) -> DdsTopic:
    options = {"topic": "/joint_states", "type": TYPE, **options}
    made = connector_class("dds", "robot.toml: [[input]] 1")
    return made(validate(options, made.Options, "robot.toml: [[input]] 1", ConfigError), base)


def on_loopback(domain: Domain) -> dict[str, Any]:
    return {"domain": domain.id, "discovery": "localhost", "interface": "lo"}


@contextmanager
def publisher(domain: Domain, **qos: Any) -> Iterator[Any]:
    """Another process's end, as far as DDS is concerned."""
    other = Dds(Domain(domain.id, "localhost", "lo", node="robot"))
    yield other.advertise("/joint_states", JOINT_STATE, QosProfile(**qos))
    other.close()


@contextmanager
def opened(domain: Domain, **options: Any) -> Iterator[DdsTopic]:
    source = connector(**on_loopback(domain), **options)
    source.open()
    try:
        yield source
    finally:
        source.close()


CHANNELS = {"a/position": "/joint_states:position[a]", "b/position": "/joint_states:position[b]"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"type": "JointState"}, ["type", "'JointState'"]),
        ({"type": "sensor_msgs/msg/Joint"}, ["'sensor_msgs/msg/Joint'"]),
        ({"topic": "joint states"}, ["topic", "'joint states'"]),
        ({"qos": "quick"}, ["[qos] preset", "'quick'"]),
        ({"wait_s": 0}, ["wait_s", "found 0"]),
        ({"rate": 3}, ["rate", "unknown key", "'topic'"]),
        ({"channels": {"x": "/joint_states:torque[a]"}}, ["'torque'", "effort"]),
    ],
)
def test_options_are_checked(options: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        connector(**options)
    for text in said:
        assert text in str(error.value)


def test_the_first_message_tells_the_names_and_the_newest_counts() -> None:
    with fresh_domain() as domain, Peer(domain, "write", "joint_states", "best_effort") as peer:
        source = connector(**on_loopback(domain), qos="sensor_data")
        assert source.read() is None
        opening = threading.Thread(target=source.open)
        opening.start()  # waits for the publisher, which is late
        peer.matched()
        until(lambda: source.counters["publishers"])  # both ends know each other now
        peer.send(name=["a", "b"], position=[1, 2], velocity=[3, 4])
        opening.join(20)
        assert source.names == ("a/position", "b/position", "a/velocity", "b/velocity")
        first = source.read()
        assert first is not None
        assert first.values.tolist() == [1, 2, 3, 4]
        assert first.values.dtype == np.float32
        assert 0 <= time.monotonic_ns() - first.stamp_ns < 20e9
        assert source.read() is first  # nothing new, nothing made
        peer.send(name=["a", "b"], position=[5, 6], velocity=[7, 8], count=50)
        peer.done()
        peer.done()
        peer.send(name=["a", "b"], position=[9, 10], velocity=[11, 12])
        newest = until(lambda: (seen := source.read()) and seen.values[0] == 9 and seen)
        assert newest.values.tolist() == [9, 10, 11, 12]
        assert newest.stamp_ns > first.stamp_ns
        counters = dict(source.counters)
        assert counters == {"received": newest.seq, "refused": 0, "forms": 1, "publishers": 1}
        assert newest.seq > 2
        source.close()
        source.close()


def test_names_may_change_order_go_and_come_back() -> None:
    with fresh_domain() as domain, publisher(domain) as robot, opened(domain, channels=CHANNELS) as source:
        until(lambda: robot.counters["subscribers"])

        def after(names: list[str], position: list[float]) -> Any:
            seq = source.counters["received"]
            robot.publish(joint_state(names, position))
            until(lambda: source.counters["received"] > seq)
            return source.read()

        assert after(["a", "b"], [1, 2]).values.tolist() == [1, 2]
        assert after(["c", "b", "a"], [0, 2, 1]).values.tolist() == [1, 2]
        gone = after(["a"], [3])
        assert gone.valid.tolist() == [True, False]
        assert gone.values[0] == 3
        assert after(["b", "a"], [5, 4]).valid.all()
        assert source.counters["forms"] == 4
        nan = after(["a", "b"], [math.nan, 2])
        assert math.isnan(nan.values[0])  # told as it is: the model's input gate refuses it
        assert nan.valid.all()


def test_what_is_no_message_changes_nothing() -> None:
    with fresh_domain() as domain, publisher(domain) as robot, opened(domain, channels=CHANNELS) as source:
        until(lambda: robot.counters["subscribers"])
        robot.publish(joint_state(["a", "b"], [1, 2]))
        kept = until(source.read)
        robot.publish(joint_state(["a", "b"], [1, 2, 3]))  # DDS finds nothing wrong with it
        robot.publish(joint_state(["a", "a"], [1, 2]))
        until(lambda: source.counters["refused"] == 2)
        assert source.read() is kept
        assert source.counters["received"] == 3


def test_a_publisher_that_dies_makes_the_input_stale() -> None:
    with fresh_domain() as domain, Peer(domain, "write", "joint_states") as peer:
        source = connector(**on_loopback(domain), channels=CHANNELS)
        source.open()
        align = Align(list(CHANNELS), [Input("joints", source, {}, 100_000_000)])
        assert align.read(time.monotonic_ns(), 1) is None
        peer.matched()
        peer.send(name=["a", "b"], position=[1, 2], count=100_000, rate_hz=500)
        until(lambda: align.read(time.monotonic_ns(), 1))
        peer.kill()
        last = until(source.read)
        until(lambda: align.read(time.monotonic_ns(), 1) is None)
        last = source.read()
        assert align.read(last.stamp_ns + 100_000_000, 1) is not None
        assert align.read(last.stamp_ns + 100_000_001, 1) is None
        source.close()


@pytest.fixture
def quick_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kizzasi_edge.ros2.graph.LOOK_S", 0.7)


@pytest.mark.usefixtures("quick_look")
def test_nothing_comes() -> None:
    with fresh_domain() as domain:
        with pytest.raises(ConnectorError) as error, opened(domain, wait_s=0.1):
            pass
        for text in ("/joint_states: nothing to read within 0.1 s", "no other process", f"domain {domain.id}"):
            assert text in str(error.value)
        with publisher(domain, reliability="best_effort"), pytest.raises(ConnectorError) as error:
            connector(**on_loopback(domain), wait_s=0.1).open()
        assert "the publisher of /robot does not match: reliability" in str(error.value)
        assert not any(thread.name.startswith("dds-") for thread in threading.enumerate())


def test_what_came_was_refused() -> None:
    with fresh_domain() as domain, publisher(domain, durability="transient_local") as robot:
        robot.publish(joint_state(["a", "a"], [1, 2]))
        with pytest.raises(ConnectorError, match=r"1 message\(s\) refused, the last one: .*'a' twice"):
            connector(**on_loopback(domain), qos="latched", wait_s=0.5).open()


def test_two_topics_are_one_node() -> None:
    with fresh_domain() as domain, opened(domain, channels=CHANNELS) as one:
        with opened(domain, topic="/more", channels={"m": "/more:position[m]"}) as two:
            assert one._transport is two._transport
        assert one._transport is not None
        assert one._transport.participant  # still open


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    source = connector(channels=CHANNELS)
    monkeypatch.delitem(sys.modules, "kizzasi_edge.ros2.dds")
    monkeypatch.setitem(sys.modules, "cyclonedds.core", None)
    with pytest.raises(MissingExtra, match=r"pip install 'kizzasi-edge\[dds\]'"):
        source.open()


ROBOT = """schema = 1
[robot]
name = "t"
[model]
path = "m.onnx"
[guard]
path = "g.guard.toml"
[loop]
rate_hz = 200
[[input]]
connector = "dds"
topic = "/joint_states"
type = "sensor_msgs/msg/JointState"
domain = {domain}
discovery = "localhost"
interface = "lo"
stale_ms = 100
qos = "{qos}"
[input.channels]
{channels}
"""


@pytest.mark.usefixtures("quick_look")
def test_check_lists_the_graph_and_says_why_nothing_matches(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_policy(tmp_path / "m.onnx", ["pan", "lift"], 200)
    (tmp_path / "g.guard.toml").write_text(GUARD)
    names = ["pan/position", "lift/position", "pan/target_position", "lift/target_position"]
    channels = "\n".join(f'"{name}" = "/joint_states:position[{name[:4]}]"' for name in names)

    def check(qos: str, domain: Domain) -> dict[str, Any]:
        (tmp_path / "robot.toml").write_text(ROBOT.format(domain=domain.id, qos=qos, channels=channels))
        arguments = ["kizzasi-edge", "check", str(tmp_path / "robot.toml"), "--json", str(tmp_path / "out.json")]
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit):
            main()
        capsys.readouterr()
        found: dict[str, Any] = json.loads((tmp_path / "out.json").read_text())
        return found

    with fresh_domain() as domain, publisher(domain, reliability="best_effort"):
        well = check("sensor_data", domain)
        assert (well["ok"], well["errors"], well["warnings"]) == (True, [], [])
        badly = check("default", domain)
    assert not badly["ok"]
    (error,) = badly["errors"]
    assert "robot.toml: [[input]] 1 /joint_states: the publisher of /robot does not match: reliability" in error
    (graph,) = badly["warnings"]
    assert "nodes /robot, topics /joint_states (sensor_msgs/msg/JointState)" in graph
