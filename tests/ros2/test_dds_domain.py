"""Domain settings: what the config says, what ROS's variables say, and what Cyclone is told."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from kizzasi_edge.errors import ConfigError, ConnectorError
from kizzasi_edge.ros2.dds_domain import Domain, DomainSection
from kizzasi_edge.ros2.names import dds_topic, dds_type, decode_hash, encode_hash, full_name, ros_topic, ros_type
from kizzasi_edge.toml_file import validate

pytest.importorskip("cyclonedds", reason="the extra dds is not installed")

from ddsrig import JOINT_STATE, fresh_domain

from kizzasi_edge.ros2.dds import Dds, release, shared
from kizzasi_edge.ros2.qos import QosProfile


def settings(options: dict[str, Any], **environ: str) -> Domain:
    return validate(options, DomainSection, "robot.toml: [[input]] 1", ConfigError).settings(environ)


@pytest.mark.parametrize(
    ("options", "environ", "expected"),
    [
        ({}, {}, Domain(0)),
        ({}, {"ROS_DOMAIN_ID": "42", "ROS_DISTRO": "humble"}, Domain(42, distro="humble")),
        ({"domain": 7}, {"ROS_DOMAIN_ID": "42"}, Domain(7)),
        ({}, {"ROS_LOCALHOST_ONLY": "1"}, Domain(discovery="localhost")),
        ({}, {"ROS_LOCALHOST_ONLY": "0"}, Domain()),
        ({}, {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}, Domain(discovery="localhost")),
        ({}, {"ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF", "ROS_STATIC_PEERS": "a"}, Domain(discovery="off")),
        ({"discovery": "subnet"}, {"ROS_LOCALHOST_ONLY": "1"}, Domain()),
        ({"peers": ["robot"]}, {"ROS_STATIC_PEERS": "10.0.0.2;b"}, Domain(peers=("robot", "10.0.0.2", "b"))),
        ({"interface": "eth0", "partition": "a", "node": "n", "namespace": "/arm"}, {},
         Domain(interface="eth0", partition="a", node="n", namespace="/arm")),
    ],
)  # fmt: skip
def test_where_a_process_belongs(options: dict[str, Any], environ: dict[str, str], expected: Domain) -> None:
    assert settings(options, **environ) == expected


@pytest.mark.parametrize(
    ("options", "environ", "said"),
    [
        ({"domain": 233}, {}, ["[[input]] 1", "domain", "found 233", "232"]),
        ({"namespace": "arm"}, {}, ["namespace", "'arm'"]),
        ({"node": "kizzasi-edge"}, {}, ["node", "'kizzasi-edge'"]),
        ({"peers": ["<x>"]}, {}, ["peers[0]", "'<x>'"]),
        ({"discovery": "everywhere"}, {}, ["discovery", "'everywhere'", "'localhost'"]),
        ({}, {"ROS_DOMAIN_ID": "x"}, ["domain", "ROS_DOMAIN_ID = 'x'", "0 to 232"]),
        ({}, {"ROS_DISTRO": "noetic"}, ["distro", "ROS_DISTRO = 'noetic'", "'jazzy'"]),
        ({}, {"ROS_AUTOMATIC_DISCOVERY_RANGE": "HERE"}, ["discovery", "'HERE'", "'LOCALHOST'"]),
    ],
)
def test_errors_name_the_key(options: dict[str, Any], environ: dict[str, str], said: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        settings(options, **environ)
    for text in said:
        assert text in str(error.value)


@pytest.mark.parametrize(
    ("domain", "present", "absent"),
    [
        (Domain(), ["<ParticipantIndex>auto"], ["Multicast", "Peer ", "Tag", "Interface"]),
        (Domain(discovery="localhost"), ["<AllowMulticast>false", '<Peer address="localhost"/>'], ["Tag"]),
        (Domain(discovery="off"), ["<AllowMulticast>false", "<ParticipantIndex>none", "<Tag>ros_discovery"], ["Peer "]),
        (Domain(peers=("a", "b")), ['<Peers><Peer address="a"/><Peer address="b"/></Peers>'], ["Multicast"]),
        (Domain(interface="eth0"), ['<NetworkInterface name="eth0"/>'], ["Multicast"]),
    ],
)
def test_cyclone_is_told_what_ros_would_tell_it(domain: Domain, present: list[str], absent: list[str]) -> None:
    config = domain.cyclone_config({"CYCLONEDDS_URI": "file:///x.xml"})
    assert config.endswith(",file:///x.xml")
    assert all(text in config for text in present)
    assert not any(text in config for text in absent)
    assert Domain(discovery="system_default").cyclone_config({}) == ""


def test_one_process_has_one_network_per_domain() -> None:
    with fresh_domain() as domain:
        transport = shared(domain)
        assert shared(domain) is transport
        with pytest.raises(ConnectorError, match=f"this process uses domain {domain.id} with other network settings"):
            Dds(replace(domain, discovery="subnet"))
        other = Dds(replace(domain, node="second"))  # the same network: another participant
        other.close()
        release(transport)
        transport.advertise("still_open", JOINT_STATE, QosProfile())
        release(transport)
        with pytest.raises(ConnectorError, match="closed"):
            transport.advertise("late", JOINT_STATE, QosProfile())
        Dds(replace(domain, discovery="subnet")).close()  # the last one took the settings with it


def test_an_interface_that_is_not_there() -> None:
    with fresh_domain() as domain, pytest.raises(ConnectorError, match=f"domain {domain.id}.*interface nowhere0"):
        Dds(replace(domain, interface="nowhere0"))


def test_names() -> None:
    assert full_name("joint_states", "/arm") == "/arm/joint_states"
    assert full_name("/joint_states", "/arm") == full_name("joint_states") == "/joint_states"
    assert dds_topic("joint_states", "/arm") == "rt/arm/joint_states"
    assert ros_topic("rt/a/b") == "/a/b"
    assert ros_topic("rq/a/bRequest") is None
    wire = "sensor_msgs::msg::dds_::JointState_"
    assert dds_type("sensor_msgs/msg/JointState") == wire
    assert ros_type(wire) == "sensor_msgs/msg/JointState"
    assert ros_type("Foo::Bar") == "Foo::Bar"
    assert re.fullmatch(rb"typehash=RIHS01_[0-9a-f]{64};", encode_hash(JOINT_STATE.hash))
    assert decode_hash(b"a=b;" + encode_hash(JOINT_STATE.hash)) == JOINT_STATE.hash
    assert decode_hash(b"mytypehash=RIHS01_00;") == decode_hash(b"") == decode_hash(encode_hash("")) == ""
