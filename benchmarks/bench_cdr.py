"""Our CDR codecs beside rosbags' and Cyclone DDS's own, on messages of 12 joints.

    python benchmarks/bench_cdr.py [--json PATH] [--rounds N]

One process on one pinned core, interleaved rounds, the best of many batches of 100 calls: what the code takes,
whatever else the machine does. Decoding is bytes → numbers by name: ours gives an array of doubles, rosbags and
Cyclone (cyclonedds.idl) objects whose numbers still have to be brought into an order. Encoding is numbers → bytes of
a command: 12 positions of a JointState, one interface of each joint. "other form": two messages with different joint
orders in turn, of which ours remembers both; "unknown form": each message is parsed. docs/ros2-messages.md shows the
table; --json puts it there too.

Exit code 1 if decoding a known JointState takes more than 2 µs, or encoding one more than 1 µs.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from racing import pin, race

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "ros2"))

import cyclone
from messages_in_use import KINDS, KNOWN, TREES, for_rosbags

from kizzasi_edge.bench import machine
from kizzasi_edge.ros2 import cdr
from kizzasi_edge.ros2.channels import Channel
from kizzasi_edge.ros2.codec import Decoder, Encoder

PAGE = Path(__file__).resolve().parents[1] / "docs" / "ros2-messages.md"
BATCH, JOINTS = 100, [f"joint_{i}" for i in range(12)]
STATE = "sensor_msgs/msg/JointState"
LIMITS_US = {"decode": 2.0, "encode": 1.0}

HEADER = {"stamp": {"sec": 1, "nanosec": 2}, "frame_id": "base"}
XYZ = {"x": 0.1, "y": 0.2, "z": 0.3}
NUMBERS = [0.1 * i for i in range(12)]
MESSAGES: dict[str, dict[str, Any]] = {
    STATE: {"header": HEADER, "name": JOINTS, "position": NUMBERS, "velocity": NUMBERS, "effort": NUMBERS},
    "std_msgs/msg/Float64MultiArray": {"layout": {"dim": [], "data_offset": 0}, "data": NUMBERS},
    "control_msgs/msg/DynamicJointState": {
        "header": HEADER,
        "joint_names": JOINTS,
        "interface_values": [{"interface_names": ["position", "velocity"], "values": [0.1, 0.2]}] * 12,
    },
    "trajectory_msgs/msg/JointTrajectory": {
        "header": HEADER,
        "joint_names": JOINTS,
        "points": [
            {
                "positions": NUMBERS,
                "velocities": [],
                "accelerations": [],
                "effort": [],
                "time_from_start": {"sec": 0, "nanosec": 2_000_000},
            }
        ],
    },
    "sensor_msgs/msg/Imu": {
        "header": HEADER,
        "orientation": {**XYZ, "w": 0.9},
        "orientation_covariance": [0.0] * 9,
        "angular_velocity": XYZ,
        "angular_velocity_covariance": [0.0] * 9,
        "linear_acceleration": XYZ,
        "linear_acceleration_covariance": [0.0] * 9,
    },
    "geometry_msgs/msg/Twist": {"linear": XYZ, "angular": XYZ},
}
COMMANDS: dict[str, dict[str, Any]] = {
    STATE: {"header": HEADER, "name": JOINTS, "position": NUMBERS, "velocity": [], "effort": []},
    "control_msgs/msg/DynamicJointState": {
        "header": HEADER,
        "joint_names": JOINTS,
        "interface_values": [{"interface_names": ["position"], "values": [0.1]}] * 12,
    },
}
"""Where what is sent is another message than what is read."""
CHANNELS = {
    STATE: [((field, joint),) for field in ("position", "velocity", "effort") for joint in JOINTS],
    "std_msgs/msg/Float64MultiArray": [(("data", str(i)),) for i in range(12)],
    "control_msgs/msg/DynamicJointState": [
        (("interface_values", joint), ("values", name)) for joint in JOINTS for name in ("position", "velocity")
    ],
    "trajectory_msgs/msg/JointTrajectory": [(("points", "0"), ("positions", joint)) for joint in JOINTS],
    "sensor_msgs/msg/Imu": [
        ((field, None), (axis, None))
        for field in ("orientation", "angular_velocity", "linear_acceleration")
        for axis in ("xyzw" if field == "orientation" else "xyz")
    ],
    "geometry_msgs/msg/Twist": [((field, None), (axis, None)) for field in ("linear", "angular") for axis in "xyz"],
}


def contenders(name: str) -> dict[str, Callable[[], object]]:
    """Decoders and encoders of one type by name; what they give is compared here, once."""
    value, node, kind, store = MESSAGES[name], TREES[name], KINDS[name], KNOWN.store
    command = COMMANDS.get(name, value)
    data, sent = cdr.dumps(node, value), cdr.dumps(node, command)
    theirs, cyclones = for_rosbags(name, command), cyclone.for_cyclone(name, command)
    places = {str(i): Channel("/t", way) for i, way in enumerate(CHANNELS[name])}
    decoder = Decoder(kind, "/t", places)
    there = Decoder(kind, "/t", places).decode(sent)
    encoder = Encoder(
        kind, command, [place for place, valid in zip(places.values(), there.valid, strict=True) if valid]
    )
    numbers = there.values[there.valid]
    floats = numbers.astype(np.float32)
    stamp_ns = 1_000_000_002
    calls: dict[str, Callable[[], object]] = {
        "decode ours": lambda: decoder.decode(data, 1),
        "decode rosbags": lambda: store.deserialize_cdr(data, name),
        "decode cyclone": lambda: cyclone.deserialize(name, data),
        "encode ours": lambda: encoder.encode(floats, stamp_ns),
        "encode rosbags": lambda: store.serialize_cdr(theirs, name),
        "encode cyclone": lambda: cyclones.serialize(use_version_2=False),
    }
    if name == STATE:
        other = {**value, "name": JOINTS[::-1]}
        both = cycle((data, cdr.dumps(node, other))).__next__
        calls["decode ours, other form"] = lambda: decoder.decode(both())
        calls["decode ours, unknown form"] = lambda: Decoder.decode(_fresh(decoder), data)
    assert bytes(store.serialize_cdr(theirs, name)) == cyclones.serialize(use_version_2=False) == sent
    assert encoder.encode(numbers, stamp_ns) == sent
    return calls


def _fresh(decoder: Decoder) -> Decoder:
    """The same decoder, with nothing remembered."""
    decoder._latest, decoder._layouts = None, []
    return decoder


def batch(call: Callable[[], object]) -> Callable[[], None]:
    repeats = range(BATCH)

    def calls() -> None:
        for _ in repeats:
            call()

    return calls


def measure(rounds: int) -> dict[str, dict[str, float]]:
    """Type → contender → µs."""
    found: dict[str, dict[str, float]] = {}
    for name in MESSAGES:
        times = race({key: batch(call) for key, call in contenders(name).items()}, rounds)
        found[name] = {key: float(values.min()) / BATCH for key, values in times.items()}
    return found


def table(found: Mapping[str, Any]) -> str:
    """What docs/ros2-messages.md shows."""
    results, machine_name = found["us"], found["machine"]["cpu"]
    lines = [
        f"µs on {machine_name}, 12 joints; beside them how many times as long rosbags and Cyclone take.",
        "",
        "| message | decode µs | rosbags | Cyclone | encode µs | rosbags | Cyclone |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in results.items():
        cells = []
        for what in ("decode", "encode"):
            ours = row[f"{what} ours"]
            cells += [f"{ours:.2f}", *(f"{row[f'{what} {peer}'] / ours:.0f}×" for peer in ("rosbags", "cyclone"))]
        lines.append(f"| {name.split('/')[-1]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    pin()
    found = {"machine": machine(), "batch": BATCH, "us": measure(arguments.rounds)}
    results = found["us"]
    print(table(found))
    for key in ("other form", "unknown form"):
        print(f"JointState, {key}: {results[STATE][f'decode ours, {key}']:.1f} µs")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
        PAGE.write_text(
            re.sub(r"(?<=<!-- cdr table -->\n).*?(?=<!-- end -->)", f"{table(found)}\n", PAGE.read_text(), flags=re.S)
        )
    slow = [what for what, limit in LIMITS_US.items() if results[STATE][f"{what} ours"] > limit]
    for what in slow:
        print(f"{what}: found {results[STATE][f'{what} ours']:.2f} µs; expected at most {LIMITS_US[what]} µs")
    return bool(slow)


if __name__ == "__main__":
    sys.exit(main())
