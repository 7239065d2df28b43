"""One message of every type that ships, and other people's serialisers to compare with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kizzasi_edge.ros2 import cdr, structure
from kizzasi_edge.ros2.messages import Messages
from kizzasi_edge.ros2.transport import MessageType

GOLDEN = Path(__file__).parents[1] / "golden" / "cdr"
HEADER = {"stamp": {"sec": 1_700_000_001, "nanosec": 999_999_999}, "frame_id": "base"}
XYZ = {"x": 0.25, "y": -1e-300, "z": 3.5}
GID = {"data": list(range(16))}

MESSAGES: dict[str, dict[str, Any]] = {
    "sensor_msgs/msg/JointState": {
        "header": HEADER,
        "name": ["shoulder", "elbow", "wrist_ö"],
        "position": [0.5, -1.0, float("inf")],
        "velocity": [],
        "effort": [1e-3, 2.0, -0.0],
    },
    "sensor_msgs/msg/Imu": {
        "header": HEADER,
        "orientation": {"x": 0.0, "y": 0.1, "z": 0.2, "w": 0.97},
        "orientation_covariance": [float(i) for i in range(9)],
        "angular_velocity": XYZ,
        "angular_velocity_covariance": [-1.0, *[0.0] * 8],
        "linear_acceleration": {"x": 0.0, "y": 0.0, "z": 9.81},
        "linear_acceleration_covariance": [0.5] * 9,
    },
    "sensor_msgs/msg/Joy": {"header": HEADER, "axes": [0.5, -0.25, 1.0], "buttons": [0, 1, 2_147_483_647, -1]},
    "sensor_msgs/msg/BatteryState": {
        "header": {**HEADER, "frame_id": ""},
        "voltage": 12.5,
        "temperature": 40.0,
        "current": -2.5,
        "charge": 1.0,
        "capacity": 2.0,
        "design_capacity": 2.5,
        "percentage": 0.5,
        "power_supply_status": 2,
        "power_supply_health": 1,
        "power_supply_technology": 3,
        "present": True,
        "cell_voltage": [4.125, 4.25],
        "cell_temperature": [],
        "location": "slot 1",
        "serial_number": "a",
    },
    "sensor_msgs/msg/LaserScan": {
        "header": HEADER,
        "angle_min": -1.5,
        "angle_max": 1.5,
        "angle_increment": 0.5,
        "time_increment": 0.0,
        "scan_time": 0.125,
        "range_min": 0.0625,
        "range_max": 30.0,
        "ranges": [1.0, 2.0, float("inf"), 4.0, 5.0],
        "intensities": [],
    },
    "std_msgs/msg/Float32": {"data": -0.375},
    "std_msgs/msg/Float64": {"data": 1e300},
    "std_msgs/msg/Float32MultiArray": {
        "layout": {"dim": [{"label": "joints", "size": 3, "stride": 3}], "data_offset": 0},
        "data": [1.0, 2.0, 3.0],
    },
    "std_msgs/msg/Float64MultiArray": {"layout": {"dim": [], "data_offset": 7}, "data": [0.25, -0.5, 1.0]},
    "std_msgs/msg/Bool": {"data": True},
    "std_msgs/msg/String": {"data": "grüß dich"},
    "geometry_msgs/msg/Twist": {"linear": XYZ, "angular": XYZ},
    "geometry_msgs/msg/TwistStamped": {"header": HEADER, "twist": {"linear": XYZ, "angular": XYZ}},
    "geometry_msgs/msg/Wrench": {"force": XYZ, "torque": XYZ},
    "trajectory_msgs/msg/JointTrajectory": {
        "header": HEADER,
        "joint_names": ["a", "b"],
        "points": [
            {
                "positions": [1.0, 2.0],
                "velocities": [],
                "accelerations": [0.5, 0.25],
                "effort": [],
                "time_from_start": {"sec": i, "nanosec": 5},
            }
            for i in range(3)
        ],
    },
    "control_msgs/msg/DynamicJointState": {
        "header": HEADER,
        "joint_names": ["elbow", "gripper"],
        "interface_values": [
            {"interface_names": ["position", "velocity"], "values": [1.5, -2.5]},
            {"interface_names": ["width"], "values": [0.02]},
        ],
    },
    "diagnostic_msgs/msg/DiagnosticArray": {
        "header": HEADER,
        "status": [
            {
                "level": 2,
                "name": "loop",
                "message": "late",
                "hardware_id": "hw",
                "values": [{"key": "p99", "value": "1"}, {"key": "", "value": "xyz"}],
            },
            {"level": 0, "name": "", "message": "", "hardware_id": "", "values": []},
        ],
    },
    "rmw_dds_common/msg/ParticipantEntitiesInfo": {
        "gid": GID,
        "node_entities_info_seq": [
            {
                "node_namespace": "/",
                "node_name": "kizzasi",
                "reader_gid_seq": [GID],
                "writer_gid_seq": [GID, GID],
            }
        ],
    },
}

KNOWN = Messages()
KINDS: dict[str, MessageType] = {name: KNOWN.type(name) for name in MESSAGES}
TREES: dict[str, structure.Struct] = {name: structure.tree(kind) for name, kind in KINDS.items()}


def golden(name: str, order: str) -> bytes:
    """The pinned bytes of the message of this type."""
    file = GOLDEN / f"{name.split('/')[-1]}.{'le' if order == '<' else 'be'}.hex"
    return bytes.fromhex(file.read_text())


def for_rosbags(name: str, value: Mapping[str, Any]) -> Any:
    """rosbags' object of a message."""
    store = KNOWN.store

    def convert(description: Any, given: Any) -> Any:
        form, inner = description
        if form == 2:
            return for_rosbags(inner, given)
        if form == 1:
            return given
        form, item = inner[0]
        if form == 1 and item[0] != "string":
            return np.array(given, {"bool": "?", "byte": "u1", "char": "u1"}.get(item[0], item[0]))
        return [convert(inner[0], one) for one in given]

    fields = store.fielddefs[name][1]
    return store.types[name](**{key: convert(description, value[key]) for key, description in fields})


def plain(value: Any) -> Any:
    """What `cdr.loads` or another reader gave, as mappings, lists and numbers."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "__dict__"):
        return {key: plain(item) for key, item in vars(value).items() if key.islower() and key[0] != "_"}
    return value


def joint_state(names: list[str], order: str = "<", **numbers: list[float]) -> bytes:
    """A JointState; ``stamp_ns`` 0."""
    return cdr.dumps(TREES["sensor_msgs/msg/JointState"], {"header": HEADER, "name": names, **numbers}, order)
