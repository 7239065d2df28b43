"""XCDR1 against pinned bytes, rosbags and Cyclone DDS, in both directions."""

from __future__ import annotations

import struct
from typing import Any

import cyclone
import numpy as np
import pytest
from messages_in_use import KNOWN, MESSAGES, TREES, for_rosbags, golden, plain

from kizzasi_edge.errors import WireError
from kizzasi_edge.ros2 import cdr

JOINTS = TREES["sensor_msgs/msg/JointState"]
both = pytest.mark.parametrize("order", ["<", ">"])
every = pytest.mark.parametrize("name", list(MESSAGES))


def same(found: Any, expected: Any) -> None:
    """Equal but for float32 and −0.0 (which must be −0.0)."""
    if isinstance(expected, dict):
        assert set(found) == set(expected)
        for key, value in expected.items():
            same(found[key], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            same(a, b)
    elif isinstance(expected, float):
        assert struct.pack("d", float(found)) == struct.pack("d", expected)
    else:
        assert found == expected


@every
@both
def test_bytes_are_the_pinned_ones(name: str, order: str) -> None:
    data = cdr.dumps(TREES[name], MESSAGES[name], order)
    assert data == golden(name, order)
    same(plain(cdr.loads(TREES[name], data)), MESSAGES[name])


@every
@both
def test_rosbags_and_cyclone_write_the_same_bytes(name: str, order: str) -> None:
    pinned = golden(name, order)
    store = KNOWN.store
    assert bytes(store.serialize_cdr(for_rosbags(name, MESSAGES[name]), name, little_endian=order == "<")) == pinned
    assert cyclone.serialize(name, MESSAGES[name], order) == pinned


@every
@both
def test_rosbags_and_cyclone_read_ours(name: str, order: str) -> None:
    ours = cdr.dumps(TREES[name], MESSAGES[name], order)
    same(plain(KNOWN.store.deserialize_cdr(ours, name)), MESSAGES[name])
    same(plain(cyclone.deserialize(name, ours)), MESSAGES[name])


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        # As another project published them, from rosbags 0.11.5 and ROS 2 Kilted.
        ("std_msgs/msg/String", {"data": "hello"}, "000100000600000068656c6c6f00"),
        ("std_msgs/msg/String", {}, "000100000100000000"),
        (
            "sensor_msgs/msg/JointState",
            {
                "header": {"stamp": {"sec": 1, "nanosec": 2}, "frame_id": "base"},
                "name": ["j1", "j2"],
                "position": [0.5, -1.0],
            },
            "00010000010000000200000005000000626173650000000002000000030000006a310000030000006a320000"
            "0200000000000000000000000000e03f000000000000f0bf0000000000000000",
        ),
        (
            "std_msgs/msg/Float64MultiArray",
            {"data": [0.25, -0.5, 1.0]},
            "0001000000000000000000000300000000000000000000000000d03f000000000000e0bf000000000000f03f",
        ),
    ],
)
def test_bytes_that_others_published(name: str, value: dict[str, Any], expected: str) -> None:
    assert cdr.dumps(TREES[name], value).hex() == expected


def test_written_from_objects_and_arrays() -> None:
    """What rosbags' messages are: dataclasses with numpy arrays."""
    for name, value in MESSAGES.items():
        assert cdr.dumps(TREES[name], for_rosbags(name, value)) == golden(name, "<")


def test_alignment_counts_from_behind_the_header() -> None:
    """float64 after a text of any length, its sequence empty or not; an empty one has no padding."""
    for length in range(9):
        for count in (0, 1, 2):
            value = {"name": ["x" * length], "position": [1.5] * count}
            data = cdr.dumps(JOINTS, value)
            assert data == bytes(
                KNOWN.store.serialize_cdr(
                    for_rosbags(
                        "sensor_msgs/msg/JointState",
                        {
                            "header": {"stamp": {"sec": 0, "nanosec": 0}, "frame_id": ""},
                            "velocity": [],
                            "effort": [],
                            **value,
                        },
                    ),
                    "sensor_msgs/msg/JointState",
                )
            )
            assert cdr.loads(JOINTS, data).position.tolist() == [1.5] * count


def test_any_buffer_is_read_and_nothing_of_it_is_kept() -> None:
    data = bytearray(golden("sensor_msgs/msg/JointState", "<"))
    message = cdr.loads(JOINTS, memoryview(data))
    data[:] = bytes(len(data))
    assert message.position.tolist() == [0.5, -1.0, np.inf]
    assert message.name == ["shoulder", "elbow", "wrist_ö"]


def test_padding_at_the_end_is_no_part_of_the_message() -> None:
    data = golden("std_msgs/msg/Bool", "<")
    for padding in range(4):
        assert cdr.loads(TREES["std_msgs/msg/Bool"], data + bytes(padding)).data is True
    with pytest.raises(WireError, match="4 bytes left behind the last field; another version of the type"):
        cdr.loads(TREES["std_msgs/msg/Bool"], data + bytes(4))


def test_an_empty_text_may_lack_its_nul() -> None:
    """As Fast CDR accepts it."""
    assert cdr.loads(TREES["std_msgs/msg/String"], bytes.fromhex("0001000000000000")).data == ""


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("std_msgs/msg/String", {"data": "a\0b"}, r"String: data: found 'a\\x00b'; expected a text without NUL"),
        ("std_msgs/msg/String", {"data": 3}, "data: found 3; expected a text"),
        ("sensor_msgs/msg/Joy", {"buttons": [1 << 31]}, r"Joy: buttons\[0\]: found 2147483648"),
        ("sensor_msgs/msg/Joy", {"axes": ["x"]}, r"axes\[0\]: found 'x'"),
        (
            "sensor_msgs/msg/Imu",
            {"orientation_covariance": [1.0]},
            "orientation_covariance: found 1 elements; expected 9",
        ),
        ("sensor_msgs/msg/Joy", {"buttons": np.array([0.5])}, "buttons: found .*float64.* to .*int32"),
        ("sensor_msgs/msg/Joy", {"axes": 3}, "axes: found 3; expected a sequence"),
    ],
)
def test_values_that_do_not_fit_are_refused(name: str, value: dict[str, Any], match: str) -> None:
    with pytest.raises(WireError, match=match):
        cdr.dumps(TREES[name], value)
