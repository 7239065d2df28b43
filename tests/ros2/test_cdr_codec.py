"""The quick codecs: a form is learnt once, and every other form is noticed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from messages_in_use import HEADER, KINDS, MESSAGES, TREES, golden, joint_state

from kizzasi_edge.errors import ConfigError, WireError
from kizzasi_edge.ros2 import cdr
from kizzasi_edge.ros2.channels import Channel
from kizzasi_edge.ros2.codec import REMEMBERED, Decoder, Encoder, Sample
from kizzasi_edge.ros2.commands import command_encoder
from kizzasi_edge.ros2.offers import MOST_ELEMENTS
from kizzasi_edge.ros2.topics import topic_channels

JOINTS = "sensor_msgs/msg/JointState"
ARRAY = "std_msgs/msg/Float64MultiArray"


def decoder(name: str = JOINTS, topic: str = "/t", **channels: str) -> Decoder:
    return Decoder(KINDS[name], topic, topic_channels(channels, topic))


def numbers(sample: Sample) -> dict[str, float | None]:
    """Name → value, None where there is none."""
    return {
        name: float(value) if valid else None
        for name, value, valid in zip(sample.names, sample.values, sample.valid, strict=True)
    }


# ---- what a message offers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["<", ">"])
def test_joints_are_offered_by_name(order: str) -> None:
    sample = decoder().decode(golden(JOINTS, order), 17)
    assert numbers(sample) == {
        "shoulder/position": 0.5,
        "elbow/position": -1.0,
        "wrist_ö/position": math.inf,
        "shoulder/effort": 1e-3,
        "elbow/effort": 2.0,
        "wrist_ö/effort": 0.0,
    }
    assert (sample.recv_ns, sample.stamp_ns) == (17, 1_700_000_001_999_999_999)
    assert sample.values.dtype == np.float64


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "control_msgs/msg/DynamicJointState",
            {"elbow/position": 1.5, "elbow/velocity": -2.5, "gripper/width": 0.02},
        ),
        ("std_msgs/msg/Float32MultiArray", {"/t:data[0]": 1.0, "/t:data[1]": 2.0, "/t:data[2]": 3.0}),
        ("std_msgs/msg/Bool", {"/t:data": 1.0}),
        (
            "geometry_msgs/msg/Wrench",
            {
                f"/t:{of}.{axis}": v
                for of in ("force", "torque")
                for axis, v in zip("xyz", (0.25, -1e-300, 3.5), strict=True)
            },
        ),
        (
            "sensor_msgs/msg/Joy",
            {
                "/t:axes[0]": 0.5,
                "/t:axes[1]": -0.25,
                "/t:axes[2]": 1.0,
                "/t:buttons[0]": 0.0,
                "/t:buttons[1]": 1.0,
                "/t:buttons[2]": 2_147_483_647.0,
                "/t:buttons[3]": -1.0,
            },
        ),
    ],
)
def test_what_a_message_offers(name: str, expected: dict[str, float], order: str) -> None:
    reader = decoder(name)
    assert numbers(reader.decode(golden(name, order))) == expected
    assert list(reader.names) == list(expected)


def test_mixed_numbers_are_each_read_as_what_they_are() -> None:
    found = numbers(decoder("sensor_msgs/msg/BatteryState").decode(golden("sensor_msgs/msg/BatteryState", ">")))
    assert found["/t:voltage"] == 12.5
    assert found["/t:present"] == 1
    assert found["/t:power_supply_technology"] == 3
    assert found["/t:cell_voltage[1]"] == 4.25
    assert len(found) == 13


def test_points_are_counted_and_their_values_named() -> None:
    names = (
        decoder("trajectory_msgs/msg/JointTrajectory").decode(golden("trajectory_msgs/msg/JointTrajectory", "<")).names
    )
    assert names[:6] == (
        "/t:points[0].positions[a]",
        "/t:points[0].positions[b]",
        "/t:points[0].accelerations[a]",
        "/t:points[0].accelerations[b]",
        "/t:points[0].time_from_start.sec",
        "/t:points[0].time_from_start.nanosec",
    )


def test_as_many_points_as_joints_are_counted_all_the_same() -> None:
    name = "trajectory_msgs/msg/JointTrajectory"
    data = cdr.dumps(TREES[name], {"joint_names": ["a", "b"], "points": [{"effort": [1.0, 2.0]}] * 2})
    assert [key for key in decoder(name).decode(data).names if "effort" in key] == [
        f"/t:points[{point}].effort[{joint}]" for point in range(2) for joint in "ab"
    ]


def test_long_sequences_offer_nothing_but_can_be_asked() -> None:
    data = cdr.dumps(TREES[ARRAY], {"data": np.arange(MOST_ELEMENTS + 1.0)})
    with pytest.raises(WireError, match="without a number in it"):
        decoder(ARRAY).decode(data)
    assert numbers(decoder(ARRAY, last=f"/t:data[{MOST_ELEMENTS}]").decode(data)) == {"last": MOST_ELEMENTS}


def test_more_numbers_than_anybody_means_take_channels() -> None:
    name = "trajectory_msgs/msg/JointTrajectory"
    data = cdr.dumps(TREES[name], {"points": [{"positions": np.zeros(MOST_ELEMENTS)}] * 16})
    with pytest.raises(WireError, match="/t: found more than 65536 numbers in a message; expected channels"):
        decoder(name).decode(data)
    assert numbers(decoder(name, x="/t:points[15].positions[4095]").decode(data)) == {"x": 0}


def test_a_text_alone_offers_nothing() -> None:
    with pytest.raises(WireError, match="/t: std_msgs/msg/String without a number in it"):
        decoder("std_msgs/msg/String").decode(golden("std_msgs/msg/String", "<"))


# ---- forms ---------------------------------------------------------------------------------------------------


def test_the_same_form_is_parsed_once() -> None:
    reader = decoder()
    for i in range(50):
        sample = reader.decode(joint_state(["a", "b"], position=[i, 2.0 * i]))
        assert sample.values.tolist() == [i, 2 * i]
    assert reader.parsed == 1


def test_names_stay_when_the_order_changes() -> None:
    reader = decoder()
    for i in range(20):
        order = ["a", "b", "c"] if i % 2 else ["c", "a", "b"]
        values = {"a": 1.0 + i, "b": 2.0 + i, "c": 3.0 + i}
        sample = reader.decode(joint_state(order, position=[values[name] for name in order]))
        assert numbers(sample) == {f"{name}/position": value for name, value in values.items()}
    assert reader.parsed == 2


def test_a_joint_that_vanishes_is_not_valid_until_it_returns() -> None:
    reader = decoder()
    reader.decode(joint_state(["a", "b"], position=[1, 2], velocity=[3, 4]))
    gone = reader.decode(joint_state(["b", "new"], position=[5, 6]))
    assert numbers(gone) == {"a/position": None, "b/position": 5, "a/velocity": None, "b/velocity": None}
    assert np.isnan(gone.values[~gone.valid]).all()
    back = reader.decode(joint_state(["a", "b"], position=[7, 8], velocity=[9, 10]))
    assert back.values.tolist() == [7, 8, 9, 10]
    assert back.valid.all()


def test_only_names_of_equal_length_tell_two_forms_apart() -> None:
    reader = decoder(a="/t:position[a]")
    assert numbers(reader.decode(joint_state(["a", "b"], position=[1, 2]))) == {"a": 1}
    assert numbers(reader.decode(joint_state(["b", "a"], position=[1, 2]))) == {"a": 2}
    assert numbers(reader.decode(joint_state(["b", "c"], position=[1, 2]))) == {"a": None}


def test_counts_of_equal_total_tell_two_forms_apart() -> None:
    """One number in velocity, or in effort: as many bytes, another place for the count."""
    reader = decoder(v="/t:velocity[a]", e="/t:effort[a]")
    assert numbers(reader.decode(joint_state(["a"], velocity=[1.0]))) == {"v": 1, "e": None}
    assert numbers(reader.decode(joint_state(["a"], effort=[2.0]))) == {"v": None, "e": 2}


def test_byte_order_tells_two_forms_apart() -> None:
    reader = decoder()
    for order in "<><>":
        assert reader.decode(joint_state(["a"], order, position=[0.1])).values.tolist() == [0.1]
    assert reader.parsed == 2


def test_padding_left_as_it_was_costs_time_and_changes_nothing() -> None:
    """Some writers skip over padding: what was in the buffer before goes out with it."""
    reader, clean = decoder(), joint_state(["abc", "de"], position=[1, 2])
    at = clean.index(b"de\0") + 3
    assert clean[at] == 0
    for junk in range(2 * REMEMBERED):
        dirty = clean[:at] + bytes([junk]) + clean[at + 1 :]
        assert reader.decode(dirty).values.tolist() == [1, 2]
    assert reader.parsed == 2 * REMEMBERED
    for junk in range(REMEMBERED, 2 * REMEMBERED):
        reader.decode(clean[:at] + bytes([junk]) + clean[at + 1 :])
    assert reader.parsed == 2 * REMEMBERED, "the newest forms are remembered"


def test_stamps_options_and_values_are_no_form() -> None:
    reader = decoder()
    data = bytearray(joint_state(["a"], position=[1.0]))
    reader.decode(data)
    data[2:4], data[4:8] = b"\0\3", b"\xff\xff\xff\xff"
    assert reader.decode(data).stamp_ns == -1_000_000_000 + 999_999_999
    assert reader.parsed == 1


def test_a_sample_keeps_nothing_of_the_buffer() -> None:
    for name in (JOINTS, ARRAY, "std_msgs/msg/Bool", "sensor_msgs/msg/BatteryState"):
        reader, data = decoder(name), bytearray(golden(name, "<"))
        for _ in range(2):
            sample = reader.decode(memoryview(data))
            before = sample.values.copy()
            data[4:] = bytes(len(data) - 4)
            np.testing.assert_array_equal(sample.values, before)
            data = bytearray(golden(name, "<"))
        assert sample.values.flags.writeable


def test_not_a_number_passes_as_it_is() -> None:
    """The model's input gate refuses it; a codec that hid it would hide a broken sensor."""
    sample = decoder().decode(joint_state(["a", "b"], position=[math.nan, 1e300]))
    assert sample.valid.all()
    observation = sample.observation(3)
    assert math.isnan(observation.values[0])
    assert observation.values[1] == math.inf
    assert observation.values.dtype == np.float32
    assert (observation.seq, observation.stamp_ns, observation.names) == (3, 0, sample.names)


# ---- channels ------------------------------------------------------------------------------------------------


def test_channels_choose_and_name() -> None:
    reader = decoder("sensor_msgs/msg/Imu", "/imu", yaw_rate="/imu:angular_velocity.z", up="/imu:linear_acceleration.z")
    assert reader.names == ("yaw_rate", "up")
    assert numbers(reader.decode(golden("sensor_msgs/msg/Imu", "<"))) == {"yaw_rate": 3.5, "up": 9.81}


@pytest.mark.parametrize(
    ("name", "channel", "match"),
    [
        (
            JOINTS,
            "/t:positoin[a]",
            "channel 'x' '/t:positoin.a.': found 'positoin' in .*; expected one of header, name",
        ),
        (JOINTS, "/t:position", "is no number; expected an element, such as"),
        (JOINTS, "/t:name[0]", "is no number; expected a number"),
        (JOINTS, "/t:header[0]", "found an element of 'header', which is no sequence"),
        (ARRAY, "/t:data[0].x", "found 'x' in .*; expected nothing further"),
    ],
)
def test_channels_that_a_type_cannot_hold_are_refused_at_once(name: str, channel: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        decoder(name, x=channel)


def test_joints_called_by_numbers_are_names() -> None:
    reader = decoder(x="/t:position[1]")
    assert numbers(reader.decode(joint_state(["1", "0"], position=[10, 20]))) == {"x": 10}
    assert numbers(reader.decode(joint_state(["a", "b"], position=[10, 20]))) == {"x": 20}


def test_names_that_come_twice_name_nothing() -> None:
    name = "trajectory_msgs/msg/JointTrajectory"
    data = cdr.dumps(TREES[name], {"joint_names": ["a", "a"], "points": [{"positions": [1.0, 2.0]}]})
    found = numbers(decoder(name).decode(data))
    assert (found["/t:points[0].positions[0]"], found["/t:points[0].positions[1]"]) == (1, 2)
    assert numbers(decoder(name, x="/t:points[0].positions[a]").decode(data)) == {"x": None}


# ---- refusals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [{}, {"x": "/t:position[a]"}])
@pytest.mark.parametrize(
    ("names", "fields", "match"),
    [
        (["a", "a"], {"position": [1, 2]}, "found the name 'a' twice"),
        (["a", "b"], {"position": [1]}, "found 1 of position for 2 names"),
        (["a"], {"velocity": [1, 2]}, "found 2 of velocity for 1 names"),
    ],
)
def test_joints_that_do_not_add_up_are_refused(
    names: list[str], fields: dict[str, list[float]], match: str, channels: dict[str, str]
) -> None:
    reader = decoder(**channels)
    reader.decode(joint_state(["a", "b"], position=[1, 2]))
    for _ in range(2):
        with pytest.raises(WireError, match=match):
            reader.decode(joint_state(names, **fields))
    assert reader.decode(joint_state(["a", "b"], position=[3, 4])).values[0] == 3


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ([{"interface_names": ["p"], "values": [1.0, 2.0]}], "found 2 values for 1 interface_names"),
        ([], "found 0 interface_values of 1 joints"),
        ([{"interface_names": ["p", "p"], "values": [1.0, 2.0]}], "the name 'p' twice"),
    ],
)
def test_dynamic_joints_that_do_not_add_up_are_refused(given: list[Any], match: str) -> None:
    name = "control_msgs/msg/DynamicJointState"
    with pytest.raises(WireError, match=match):
        decoder(name).decode(cdr.dumps(TREES[name], {"joint_names": ["a"], "interface_values": given}))


# ---- commands ------------------------------------------------------------------------------------------------

VALUES = np.array([0.5, -1.25, 2.0], np.float32)
NAMES = ["a", "b", "c"]


@pytest.mark.parametrize("interface", ["position", "velocity", "effort"])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("std_msgs/msg/Float64MultiArray", lambda i: {"data": VALUES.tolist()}),
        ("std_msgs/msg/Float32MultiArray", lambda i: {"data": VALUES.tolist()}),
        (JOINTS, lambda i: {"name": NAMES, i: VALUES.tolist()}),
        (
            "trajectory_msgs/msg/JointTrajectory",
            lambda i: {
                "joint_names": NAMES,
                "points": [
                    {
                        {"position": "positions", "velocity": "velocities", "effort": "effort"}[i]: VALUES.tolist(),
                        "time_from_start": {"sec": 1, "nanosec": 500_000_000},
                    }
                ],
            },
        ),
        (
            "control_msgs/msg/DynamicJointState",
            lambda i: {
                "joint_names": NAMES,
                "interface_values": [{"interface_names": [i], "values": [v]} for v in VALUES.tolist()],
            },
        ),
    ],
)
def test_commands_are_the_messages_they_should_be(name: str, expected: Any, interface: str) -> None:
    names = [f"{joint}/{interface}" for joint in NAMES]
    encoder = command_encoder(KINDS[name], "/c", names, interface=interface, reach_s=1.5, frame_id="base")
    for stamp_ns in (0, 1_700_000_001_999_999_999):
        sec, nanosec = divmod(stamp_ns, 10**9)
        header = {"stamp": {"sec": sec, "nanosec": nanosec}, "frame_id": "base"}
        assert encoder.encode(VALUES, stamp_ns) == cdr.dumps(TREES[name], {"header": header, **expected(interface)})
    assert encoder.encode(VALUES) == encoder.encode(VALUES.astype(np.float64))
    with pytest.raises(WireError, match="found 1 values; expected 3"):
        encoder.encode(VALUES[:1])


def test_joints_called_by_numbers_get_their_own_values() -> None:
    for name in (JOINTS, "trajectory_msgs/msg/JointTrajectory", "control_msgs/msg/DynamicJointState"):
        data = command_encoder(KINDS[name], "/c", ["2", "0", "1"]).encode(VALUES)
        values = [value for key, value in numbers(decoder(name).decode(data)).items() if "position" in key]
        assert values == VALUES.tolist()


def test_commands_by_channels() -> None:
    name = "geometry_msgs/msg/TwistStamped"
    channels = topic_channels({"turn": "/c:twist.angular.z", "go": "/c:twist.linear.x"}, "/c")
    encoder = command_encoder(KINDS[name], "c", ["go", "turn"], channels=channels, frame_id="base")
    message = cdr.loads(TREES[name], encoder.encode(np.array([1.5, -2.0], np.float32), 5))
    assert (message.twist.linear.x, message.twist.angular.z, message.twist.linear.y) == (1.5, -2, 0)
    assert (message.header.frame_id, message.header.stamp.nanosec) == ("base", 5)


def test_integers_and_bools_are_rounded_and_never_from_nan() -> None:
    name = "sensor_msgs/msg/Joy"
    skeleton = {"axes": [0.0], "buttons": [0, 0]}
    places = [Channel.parse(text, "") for text in ("/c:buttons[1]", "/c:axes[0]", "/c:buttons[0]")]
    encoder = Encoder(KINDS[name], skeleton, places)
    message = cdr.loads(TREES[name], encoder.encode(np.array([0.9, 0.25, -3.2])))
    assert (message.axes.tolist(), message.buttons.tolist()) == ([0.25], [-3, 1])
    with pytest.raises(WireError, match="not finite"):
        encoder.encode(np.array([math.nan, 0.25, 1.0]))
    flag = command_encoder(KINDS["std_msgs/msg/Bool"], "/c", ["go"], channels=topic_channels({"go": "/c:data"}, "/c"))
    assert [cdr.loads(TREES["std_msgs/msg/Bool"], flag.encode(np.array([v]))).data for v in (0.2, 0.8)] == [False, True]


@pytest.mark.parametrize(
    ("name", "names", "more", "match"),
    [
        ("geometry_msgs/msg/Twist", ["a"], {}, r"channels of /c: missing; expected where in geometry_msgs/msg/Twist"),
        (JOINTS, ["a"], {"interface": "jerk"}, "interface of /c: found 'jerk'; expected one of"),
        (ARRAY, ["a", "b"], {"channels": {"a": "/c:data[0]"}}, r"found \['a'\]; expected one for each of \['a', 'b'\]"),
        (ARRAY, ["a"], {"channels": {"a": "/c:data[0]"}}, r"channel '/c:data\[0\]': not in the message"),
        (JOINTS, ["a", "a"], {}, "channel '/c:position.a.': not in the message"),
        ("std_msgs/msg/Bool", ["a", "b"], {"channels": {"a": "/c:data", "b": "/c:data"}}, "two go to the same place"),
    ],
)
def test_commands_that_have_no_place_are_refused(name: str, names: list[str], more: dict[str, Any], match: str) -> None:
    if "channels" in more:
        more = {**more, "channels": topic_channels(more["channels"], "/c")}
    with pytest.raises(ConfigError, match=match):
        command_encoder(KINDS[name], "/c", names, **more)


def test_every_type_round_trips_through_the_quick_way() -> None:
    """Every number of every message: decoded, encoded at the same channels, the same bytes."""
    for name, value in MESSAGES.items():
        data = golden(name, "<")
        shown = cdr.parse(TREES[name], data)
        reader = decoder(name)
        if name == "std_msgs/msg/String":
            continue
        sample = reader.decode(data)
        if any("/t:" not in key for key in sample.names):
            continue  # joints by name: above
        places = [Channel.parse(key, "") for key in sample.names]
        encoder = Encoder(KINDS[name], value, places)
        out = encoder.encode(sample.values, sample.stamp_ns if "header" in value else 0)
        assert out == data, name
        assert shown.order == "<"
    assert HEADER["frame_id"] == "base"
