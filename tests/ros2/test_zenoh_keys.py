"""Keys, tokens, QoS, attachments and settings by the text of rmw_zenoh's design document; nothing is opened here."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kizzasi_edge.errors import ConfigError
from kizzasi_edge.ros2.qos import PRESETS, QosProfile
from kizzasi_edge.ros2.zenoh_attachment import PUBLISHERS, Numbers, pack, unpack
from kizzasi_edge.ros2.zenoh_domain import ROUTER, ZenohDomain, ZenohSection
from kizzasi_edge.ros2.zenoh_keys import NO_HASH, Token, decode_qos, encode_qos, topic_key
from kizzasi_edge.toml_file import validate

STRING = "RIHS01_df668c740482bbd48fb39d76a70dfd4bd59db1288021743503259e948f6b1a18"
TALKER = (
    "@ros2_lv/2/8b20917502ee955ac4476e0266340d5c/0/10/MP/%/%/talker/%chatter/"
    f"std_msgs::msg::dds_::String_/{STRING}/::,7:,:,:,,"
)
LISTENER = "@ros2_lv/2/aac3178e146ba6f1fc6e6a4085e77f21/0/0/NN/%/%/listener"
SERVER = (
    "@ros2_lv/2/f9980ee0495eaafb3e38f0d19e2eae12/0/10/SS/%/%/add_two_ints_server/%add_two_ints/"
    "example_interfaces::srv::dds_::AddTwoInts_/"
    "RIHS01_e118de6bf5eeb66a2491b5bda11202e7b68f198d6f67922cf30364858239c81a/::,10:,:,:,,"
)


def test_the_documents_topics() -> None:
    assert topic_key(0, "/chatter", "std_msgs/msg/String", STRING) == f"0/chatter/std_msgs::msg::dds_::String_/{STRING}"
    assert topic_key(0, "/robot1/chatter", "std_msgs/msg/String", NO_HASH) == (
        "0/robot1/chatter/std_msgs::msg::dds_::String_/TypeHashNotSupported"
    )


@pytest.mark.parametrize("key", [TALKER, LISTENER, SERVER])
def test_the_documents_tokens(key: str) -> None:
    token = Token.parse(key)
    assert token is not None
    assert token.key == key
    assert (token.domain, token.enclave, token.namespace) == ("2", "/", "/")


def test_what_a_token_says() -> None:
    token = Token.parse(TALKER.replace("/%/%/talker", "/%a%b/%arm%left/talker").replace("%chatter", "%arm%chatter"))
    assert token is not None
    assert (token.enclave, token.full_node_name, token.topic) == ("/a/b", "/arm/left/talker", "/arm/chatter")
    assert (token.kind, token.type, token.hash) == ("MP", "std_msgs/msg/String", STRING)
    assert token.qos == QosProfile(depth=7)
    assert Token.parse(TALKER + "/later") == Token.parse(TALKER)


@pytest.mark.parametrize(
    "key",
    ["", "@ros2_lv", LISTENER.replace("@", ""), LISTENER.replace("NN", "XX"), "@ros2_lv/2/a/0/0/NN/%/%",
     TALKER.replace("talker", ""), TALKER.rpartition("/")[0], TALKER.replace(",7:", ",x:"),
     TALKER.replace("::,7", ":,7")],
)  # fmt: skip
def test_what_is_no_token(key: str) -> None:
    assert Token.parse(key) is None


@pytest.mark.parametrize(
    ("qos", "text"),
    [
        (QosProfile(depth=42), "::,:,:,:,,"),
        (PRESETS["default"], "::,10:,:,:,,"),
        (PRESETS["sensor_data"], "2::,5:,:,:,,"),
        (PRESETS["latched"], ":1:,1:,:,:,,"),
        (QosProfile(history="keep_all", depth=42), "::2,:,:,:,,"),
        (PRESETS["rosout"], ":1:,1000:,:10,0:,,"),
        (QosProfile(depth=42, deadline_s=5.0, lifespan_s=60.000003, liveliness="manual_by_topic", lease_s=0.5),
         "::,:5,0:60,3000:3,0,500000000"),
    ],
)  # fmt: skip
def test_qos(qos: QosProfile, text: str) -> None:
    assert encode_qos(qos) == text
    assert decode_qos(text) == qos


def test_qos_written_out_in_full() -> None:
    assert decode_qos("1:2:1,10:0,0:0,0:1,0,0") == PRESETS["default"]
    for text in ("", "::,10:,:,:", "9::,10:,:,:,,", "::9,10:,:,:,,", "::10:,:,:,,", "::,10:,:,:,", ":::::"):
        assert decode_qos(text) is None, text


def test_attachments() -> None:
    gid = bytes(range(16))
    data = pack(-1, 5, gid)
    assert data == b"\xff" * 8 + b"\5" + bytes(7) + b"\x10" + gid
    assert unpack(data) == unpack(data + b"more") == (-1, 5, gid)
    for bad in (b"", data[:-1], data[:16] + b"\x11" + gid, b"\x0fsequence_number" + bytes(40), bytes(1 << 20)):
        assert unpack(bad) is None


def test_lost_messages_are_those_the_numbers_leave_out() -> None:
    numbers = Numbers()
    for number in (5, 6, 9, 9, 8, 10):
        numbers.take(b"a", number)
    assert numbers.lost == 2
    numbers.take(b"b", 1)
    assert numbers.lost == 2
    for index in range(PUBLISHERS):  # nobody's many names use up memory
        numbers.take(struct.pack("q", index), 1)
    numbers.take(b"a", 100)
    assert numbers.lost == 2
    assert len(numbers._last) == PUBLISHERS


def settings(options: dict[str, Any], base: Path = Path(), **environ: str) -> ZenohDomain:
    return validate(options, ZenohSection, "robot.toml: [[input]] 1", ConfigError).settings(base, environ)


def test_where_a_process_belongs(tmp_path: Path) -> None:
    (tmp_path / "z.json5").write_text("{}")
    assert settings({}) == ZenohDomain()
    assert settings({}, ROS_DOMAIN_ID="3", ROS_DISTRO="humble") == ZenohDomain(3, distro="humble")
    everything = {"domain": 4, "mode": "client", "connect": ["tcp/10.0.0.1:7447"], "listen": [], "config": "z.json5",
                  "node": "n", "namespace": "/arm", "distro": "kilted", "enclave": "/a"}  # fmt: skip
    file = str(tmp_path / "z.json5")
    assert settings(everything, tmp_path, ROS_DOMAIN_ID="3", ZENOH_SESSION_CONFIG_URI="/nowhere") == ZenohDomain(
        4, "client", ("tcp/10.0.0.1:7447",), (), file, "n", "/arm", "kilted", "/a"
    )
    assert settings({}, ZENOH_SESSION_CONFIG_URI=file).file == file


@pytest.mark.parametrize(
    ("options", "environ", "said"),
    [
        ({"mode": "router"}, {}, ["mode", "'router'", "'client'"]),
        ({"connect": ["10.0.0.1"]}, {}, ["connect[0]", "'10.0.0.1'"]),
        ({"enclave": "a"}, {}, ["enclave", "'a'"]),
        ({"config": "no.json5"}, {}, ["config", "no.json5"]),
        ({}, {"ZENOH_SESSION_CONFIG_URI": "/no/such.json5"}, ["config", "/no/such.json5"]),
        ({"distro": "foxy"}, {}, ["distro", "'foxy'", "'humble'"]),
    ],
)
def test_settings_are_checked(options: dict[str, Any], environ: dict[str, str], said: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        settings(options, **environ)
    for text in said:
        assert text in str(error.value)


def test_what_zenoh_is_told() -> None:
    told = {key: json.loads(value) for key, value in ZenohDomain().overrides({})}
    assert (told["mode"], told["connect/endpoints"]) == ("peer", [ROUTER])
    assert told["listen/endpoints"] == ["tcp/localhost:0"]
    assert told["scouting/multicast/enabled"] is False
    assert told["timestamping/enabled"] is True
    assert ("listen/endpoints", "[]") in ZenohDomain(mode="client").overrides({})
    mine = ZenohDomain(mode="client", connect=("tcp/a:1",), file="z.json5").overrides({})
    assert mine == [("mode", '"client"'), ("connect/endpoints", '["tcp/a:1"]')]
    last = ZenohDomain().overrides({"ZENOH_CONFIG_OVERRIDE": 'listen/endpoints=["tcp/a:1"];mode="client"'})[-2:]
    assert last == [("listen/endpoints", '["tcp/a:1"]'), ("mode", '"client"')]
    with pytest.raises(ConfigError, match="ZENOH_CONFIG_OVERRIDE with 'mode'"):
        ZenohDomain().overrides({"ZENOH_CONFIG_OVERRIDE": "mode"})
    assert str(ZenohDomain(3)) == f"domain 3, Zenoh, connect {ROUTER}"
    assert str(ZenohDomain(connect=(), listen=("tcp/a:1",))) == "domain 0, Zenoh, connect none, listen tcp/a:1"


def test_humble_knows_no_hashes() -> None:
    assert ZenohDomain(distro="humble").wire_hash(STRING) == ZenohDomain(distro="humble").wire_hash("") == NO_HASH
    assert replace(ZenohDomain(), distro="kilted").wire_hash(STRING) == STRING
