"""Types by name, their hashes, and types from a project's own files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from messages_in_use import KINDS, KNOWN, MESSAGES

from kizzasi_edge.errors import ConfigError, MissingExtra
from kizzasi_edge.ros2 import cdr, structure
from kizzasi_edge.ros2.codec import Decoder
from kizzasi_edge.ros2.messages import Messages, message_type

HASHES = {
    # From C code that rosidl generated (`…__TYPE_HASH`, `…__get_type_hash`) in public micro-ROS and ROS 2 builds.
    "sensor_msgs/msg/JointState": "a13ee3a330e346c9d87b5aa18d24e11690752bd33a0350f11c5882bc9179260e",
    "sensor_msgs/msg/Imu": "7d9a00ff131080897a5ec7e26e315954b8eae3353c3f995c55faf71574000b5b",
    "sensor_msgs/msg/Joy": "0d356c79cad3401e35ffeb75a96a96e08be3ef896b8b83841d73e890989372c5",
    "sensor_msgs/msg/BatteryState": "4bee5dfce981c98faa6828b868307a0a73f992ed0789f374ee96c8f840e69741",
    "sensor_msgs/msg/LaserScan": "64c191398013af96509d518dac71d5164f9382553fce5c1f8cca5be7924bd828",
    "std_msgs/msg/Float32": "7170d3d8f841f7be3172ce5f4f59f3a4d7f63b0447e8b33327601ad64d83d6e2",
    "std_msgs/msg/Float64": "705ba9c3d1a09df43737eb67095534de36fd426c0587779bda2bc51fe790182a",
    "std_msgs/msg/Float32MultiArray": "0599f6f85b4bfca379873a0b4375a0aca022156bd2d7021275d116ed1fa8bfe0",
    "std_msgs/msg/Float64MultiArray": "1025ddc6b9552d191f89ef1a8d2f60f3d373e28b283d8891ddcc974e8c55397f",
    "std_msgs/msg/Bool": "feb91e995ff9ebd09c0cb3d2aed18b11077585839fb5db80193b62d74528f6c9",
    "std_msgs/msg/String": "df668c740482bbd48fb39d76a70dfd4bd59db1288021743503259e948f6b1a18",
    "geometry_msgs/msg/Twist": "9c45bf16fe0983d80e3cfe750d6835843d265a9a6c46bd2e609fcddde6fb8d2a",
    "geometry_msgs/msg/TwistStamped": "5f0fcd4f81d5d06ad9b4c4c63e3ea51b82d6ae4d0558f1d475229b1121db6f64",
    "geometry_msgs/msg/Wrench": "018e8519d57c16adbe97c9fe1460ef21fec7e31bc541de3d653a35895677ce52",
    "trajectory_msgs/msg/JointTrajectory": "179b33eba59d676f6d967ac71fe35e7ca2f64b2f3928f4a018cec115e213796e",
    "control_msgs/msg/DynamicJointState": "18024c98a62697680f581108eeed40b28fb4542fa0ac5a8e36f56c62b6813d26",
    "diagnostic_msgs/msg/DiagnosticArray": "5a8a36efb05fb25070fa0fb3810290c0e6cd4862b54a8fb975a1ee8dc55a333e",
    # Found nowhere else: pinned as rosbags computes it.
    "rmw_dds_common/msg/ParticipantEntitiesInfo": "e725f4a506958c79f95dd693b965722c57b19cd18e7eff984f49561b93dc985d",
}


def test_hashes_are_those_ros_publishes() -> None:
    assert {name: kind.hash for name, kind in KINDS.items()} == {n: f"RIHS01_{h}" for n, h in HASHES.items()}
    assert set(HASHES) == set(MESSAGES)


@pytest.mark.parametrize("distro", ["humble", "kilted", "lyrical"])
def test_types_are_the_same_in_every_release(distro: str) -> None:
    """But for the participant's introduction: an endpoint's id had 24 bytes up to Humble."""
    known = Messages(distro=distro)
    differ = [name for name in MESSAGES if known.type(name).hash != KINDS[name].hash]
    assert differ == (["rmw_dds_common/msg/ParticipantEntitiesInfo"] if distro == "humble" else [])


def test_a_type_knows_what_it_is_made_of() -> None:
    kind = KINDS["control_msgs/msg/DynamicJointState"]
    assert set(kind.fields) == {
        "control_msgs/msg/DynamicJointState",
        "control_msgs/msg/InterfaceValue",
        "std_msgs/msg/Header",
        "builtin_interfaces/msg/Time",
    }
    assert KNOWN.type("sensor_msgs/JointState") == KINDS["sensor_msgs/msg/JointState"]


def definition(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_own_types_from_msg_files(tmp_path: Path) -> None:
    definition(tmp_path, "arm_msgs/msg/Finger.msg", "float32 force\nbool touches\n")
    definition(
        tmp_path,
        "arm_msgs/msg/Hand.msg",
        "uint8 LEFT=0\nstd_msgs/Header header\nFinger[2] fingers\nint16[<=3] codes\nstring<=5 label\nbyte[] raw\n",
    )
    kind = Messages([tmp_path]).type("arm_msgs/Hand")
    assert kind.hash.startswith("RIHS01_")
    node = structure.tree(kind)
    value = {"fingers": [{"force": 1.5, "touches": True}] * 2, "codes": [1, -2], "label": "left", "raw": [1, 2]}
    data = cdr.dumps(node, value)
    back = cdr.loads(node, data)
    assert [finger.force for finger in back.fingers] == [1.5, 1.5]
    assert (back.fingers[0].touches, back.codes.tolist(), back.label, back.raw.tolist()) == (
        True,
        [1, -2],
        "left",
        [1, 2],
    )
    sample = Decoder(kind, "/hand").decode(data)
    assert dict(zip(sample.names, sample.values.tolist(), strict=True)) == {
        "/hand:fingers[0].force": 1.5,
        "/hand:fingers[0].touches": 1.0,
        "/hand:fingers[1].force": 1.5,
        "/hand:fingers[1].touches": 1.0,
        "/hand:codes[0]": 1.0,
        "/hand:codes[1]": -2.0,
        "/hand:raw[0]": 1.0,
        "/hand:raw[1]": 2.0,
    }


def test_one_name_is_no_list_of_names(tmp_path: Path) -> None:
    """As in DiagnosticStatus: `name` may be a text."""
    definition(tmp_path, "arm_msgs/msg/Tagged.msg", "string name\nfloat64[] values\n")
    kind = Messages([tmp_path]).type("arm_msgs/Tagged")
    data = cdr.dumps(structure.tree(kind), {"name": "ab", "values": [1, 2]})
    assert Decoder(kind, "/t").decode(data).names == ("/t:values[0]", "/t:values[1]")


def test_own_types_from_idl_files(tmp_path: Path) -> None:
    text = "module arm_msgs { module msg { struct Pinch { double width; sequence<float, 4> forces; octet kind; }; }; };"
    kind = Messages([definition(tmp_path, "any/where.idl", text)]).type("arm_msgs/msg/Pinch")
    node = structure.tree(kind)
    assert cdr.loads(node, cdr.dumps(node, {"width": 0.25, "forces": [1, 2], "kind": 3})).kind == 3


def test_an_own_definition_takes_the_place_of_a_shipped_one(tmp_path: Path) -> None:
    definition(tmp_path, "sensor_msgs/msg/JointState.msg", "float32 only\n")
    kind = Messages([tmp_path]).type("sensor_msgs/msg/JointState")
    assert list(cdr.loads(structure.tree(kind), cdr.dumps(structure.tree(kind), {"only": 1})).__dict__) == ["only"]
    assert kind.hash != KINDS["sensor_msgs/msg/JointState"].hash


def test_empty_types_have_a_byte() -> None:
    node = structure.tree(KNOWN.type("std_msgs/Empty"))
    assert cdr.dumps(node, {}) == b"\0\1\0\0\0"


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("loose.msg", "float32 a", "found a message outside a folder 'msg'; expected <package>/msg/loose.msg"),
        ("p/msg/A.msg", "float32 = = 3", "A.msg: cannot be read as a .msg file"),
        ("p/msg/A.idl", "struct {", "A.idl: cannot be read as a .idl file"),
        ("p/msg/A.txt", "float32 a", "found '.txt'; expected a .msg or .idl file"),
        ("p/msg/A.msg", "q_msgs/Missing m", "type 'q_msgs/msg/Missing' in p/msg/A: not known"),
        (
            "p/msg/A.idl",
            "module p { module msg { struct A { long double m; }; }; };",
            "field 'm' is a float128; expected",
        ),
        ("p/msg/A.msg", "A[] a", "type 'p/msg/A' in p/msg/A: holds itself"),
    ],
)
def test_what_is_wrong_with_a_definition_is_named(name: str, text: str, match: str, tmp_path: Path) -> None:
    path = definition(tmp_path, name, text)
    with pytest.raises(ConfigError, match=match):
        structure.tree(Messages([path]).type("p/msg/A"))


def test_missing_definitions_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no \.msg or \.idl file in this folder"):
        Messages([tmp_path])
    with pytest.raises(ConfigError, match=r"gone\.msg: cannot be read"):
        Messages([tmp_path / "gone.msg"])
    with pytest.raises(ConfigError, match="type 'sensor_msgs/msg/Nothing': not known"):
        message_type(KNOWN.store, "sensor_msgs/msg/Nothing")


def test_nothing_is_imported_before_it_is_used() -> None:
    code = (
        "import sys\n"
        "import kizzasi_edge.connectors.bag, kizzasi_edge.ros2.commands, kizzasi_edge.ros2.topics\n"
        "assert not {'rosbags', 'cyclonedds'} & set(sys.modules), sorted(sys.modules)\n"
        "sys.modules['rosbags.typesys'] = None\n"
        "from kizzasi_edge.errors import MissingExtra\n"
        "from kizzasi_edge.ros2.messages import Messages\n"
        "try:\n    Messages()\nexcept MissingExtra as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "pip install 'kizzasi-edge[dds]'" in done.stdout
    assert issubclass(MissingExtra, ImportError)
