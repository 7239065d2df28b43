"""What is seen on a graph, and what is said of two endpoints that do not find each other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from kizzasi_edge.ros2.qos import PRESETS, QosProfile
from kizzasi_edge.ros2.transport import MessageType

pytest.importorskip("cyclonedds", reason="the extra dds is not installed")

from ddsrig import ARRAY, JOINT_STATE, Peer, fresh_domain, until

from kizzasi_edge.ros2.dds import Dds
from kizzasi_edge.ros2.graph import Graph, GraphReader, explain, look

SENSOR, DEFAULT = PRESETS["sensor_data"], PRESETS["default"]


@pytest.fixture(scope="module")
def seen() -> Iterator[Graph]:
    """A robot with two nodes, and a third process that is no ROS node."""
    with fresh_domain() as domain, Peer(domain, "write", "raw") as peer:
        arm = Dds(replace(domain, node="joint_state_broadcaster", namespace="/arm"))
        arm.advertise("joint_states", JOINT_STATE, SENSOR)
        arm.subscribe("commands", ARRAY, DEFAULT, lambda *_: None)
        fenced = Dds(replace(domain, node="fenced", partition="other"))
        fenced.advertise("/fenced", JOINT_STATE, SENSOR)
        ours = Dds(replace(domain, node="ours"))
        ours.advertise("/own", JOINT_STATE, SENSOR)
        graph = GraphReader(ours).wait(lambda graph: len(graph.endpoints) == 4 and len(graph.nodes) == 2, 15)
        yield graph
        peer.kill()
        for transport in (arm, fenced, ours):
            transport.close()


def said(graph: Graph, topic: str, qos: QosProfile = SENSOR, *, kind: MessageType = JOINT_STATE, writes: bool = False):
    return explain(graph, topic, kind, qos, writes=writes)


def test_what_is_seen(seen: Graph) -> None:
    assert seen.participants == 3
    assert seen.nodes == ("/arm/joint_state_broadcaster", "/fenced")
    (states,) = seen.on("/arm/joint_states", writes=True)
    assert (states.type, states.hash, states.node) == (JOINT_STATE.name, JOINT_STATE.hash, seen.nodes[0])
    assert states.qos.reliability == "best_effort"
    assert seen.on("/arm/joint_states", writes=False) == []
    assert seen.on("/own", writes=True) == []
    (raw,) = seen.on("/raw", writes=True)
    assert (raw.node, raw.hash, raw.qos.reliability) == ("", "", "reliable")
    assert seen.on("/fenced", writes=True)[0].partition == "other"
    for text in (f"domain {seen.domain.id}", "3 other participant(s)", "/fenced (sensor_msgs/msg/JointState)"):
        assert text in str(seen)


def test_nothing_is_said_where_all_is_well(seen: Graph) -> None:
    assert said(seen, "/arm/joint_states") == []
    assert said(seen, "/arm/commands", DEFAULT, kind=ARRAY, writes=True) == []
    assert said(seen, "/raw", DEFAULT) == []  # no ROS node, no hash: DDS does not mind


@pytest.mark.parametrize(
    ("topic", "options", "texts"),
    [
        ("/arm/joint_states", {"qos": DEFAULT}, ["publisher of /arm/joint_state", "reliability", "best_effort"]),
        ("/arm/commands", {"qos": SENSOR, "kind": ARRAY, "writes": True}, ["subscription", "requests reliable"]),
        ("/arm/joint_states", {"kind": ARRAY}, [f"type: found {JOINT_STATE.name}; expected {ARRAY.name}"]),
        ("/arm/joint_states", {"kind": replace(JOINT_STATE, hash="RIHS01_00")}, ["type hash", "expected RIHS01_00"]),
        ("/fenced", {}, ["partition: found 'other'; expected ''"]),
        ("/raw", {"qos": PRESETS["latched"]}, ["a process without a ROS node", "durability"]),
    ],
)  # fmt: skip
def test_who_will_never_match_is_an_error(seen: Graph, topic: str, options: dict, texts: list[str]) -> None:
    ((is_error, text),) = said(seen, topic, **options)
    assert is_error
    assert text.startswith(f"{topic}: ")
    for part in texts:
        assert part in text


@pytest.mark.parametrize(
    ("topic", "options", "texts"),
    [
        ("joint_states", {}, ["/joint_states: nobody publishes it", "published on /arm/joint_states, /fenced, /raw"]),
        ("/arm/commands", {"kind": ARRAY}, ["nobody publishes it"]),
        ("/arm/comands", {"kind": ARRAY, "writes": True}, ["nobody subscribes to it", "subscribed on /arm/commands"]),
    ],
)
def test_nobody_there_is_a_hint(seen: Graph, topic: str, options: dict, texts: list[str]) -> None:
    ((is_error, text),) = said(seen, topic, **options)
    assert not is_error
    for part in (*texts, str(seen.domain)):
        assert part in text


def test_a_similar_name_is_named(seen: Graph) -> None:
    bumped = replace(JOINT_STATE, name="other_msgs/msg/Other")
    assert "there is /arm/joint_states" in said(seen, "/arm/joint_state", kind=bumped)[0][1]


def test_an_empty_domain_and_a_quick_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kizzasi_edge.ros2.graph.LOOK_S", 1.0)
    with fresh_domain() as domain:
        start = time.monotonic()
        (is_error, text), (_, graph) = look(domain, "joint_states", JOINT_STATE, SENSOR, writes=False)
        assert time.monotonic() - start >= 1.0
        assert not is_error
        for part in ("no other process is seen at all", f"domain {domain.id}", "ROS_DOMAIN_ID", "interface lo"):
            assert part in text
        assert graph.startswith("seen in ")
        robot = Dds(replace(domain, node="robot"))
        robot.advertise("joint_states", JOINT_STATE, SENSOR)
        start = time.monotonic()
        assert look(domain, "joint_states", JOINT_STATE, SENSOR, writes=False) == []
        assert time.monotonic() - start < 1.0  # as soon as it is seen
        robot.close()


def test_who_leaves_is_forgotten() -> None:
    with fresh_domain() as domain:
        ours, robot = Dds(domain), Dds(replace(domain, node="robot"))
        robot.advertise("joint_states", JOINT_STATE, SENSOR)
        reader = GraphReader(ours)
        until(lambda: reader.read().nodes == ("/robot",) and reader.read().endpoints)
        robot.close()
        until(lambda: reader.read().participants == 0)
        assert reader.read().nodes == reader.read().endpoints == ()
        ours.close()


def test_an_interface_that_is_not_there_is_an_error() -> None:
    with fresh_domain() as domain:
        ((is_error, text),) = look(replace(domain, interface="nowhere0"), "t", JOINT_STATE, SENSOR, writes=False)
        assert is_error
        assert "nowhere0" in text
