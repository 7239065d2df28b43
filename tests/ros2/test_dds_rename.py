"""``rename``: joints that the robot calls otherwise than the model and the guard do, in and out."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kizzasi_edge.align import Align, Input
from kizzasi_edge.errors import ConfigError
from kizzasi_edge.toml_file import validate

pytest.importorskip("cyclonedds", reason="the extra dds is not installed")

from ddsrig import JOINT_STATE, MESSAGES, Peer, fresh_domain, joint_state, until
from devices import guard_of
from hostrig import command

from kizzasi_edge.connectors.dds import DdsTopic
from kizzasi_edge.ros2.dds import Dds
from kizzasi_edge.ros2.dds_domain import Domain
from kizzasi_edge.ros2.qos import QosProfile
from kizzasi_edge.ros2.transport import Publication

JOINTS = {"names": ["pan", "lift"], "position": [[-0.4, 0.4], [-0.3, 0.3]]}
SWAP = {"pan": "lift", "lift": "pan"}
THEIRS = {"pan": "ur5_pan_joint", "lift": "ur5_lift_joint"}


def options(domain: Domain, **more: Any) -> dict[str, Any]:
    return {"domain": domain.id, "discovery": "localhost", "interface": "lo", **more}


def source(domain: Domain, **more: Any) -> DdsTopic:
    given = options(domain, topic="/joint_states", type=JOINT_STATE.name, **more)
    return DdsTopic(validate(given, DdsTopic.Options, "robot.toml: [[input]] 1", ConfigError), Path())


def output(domain: Domain, **more: Any) -> Any:
    given = options(domain, **{"topic": "/commands", "joints": ["lift", "pan"], **more})
    return DdsTopic.Output(validate(given, DdsTopic.Output.Options, "robot.toml: [[output]] 1", ConfigError), Path())


def publisher(domain: Domain) -> tuple[Dds, Publication]:
    robot = Dds(Domain(domain.id, "localhost", "lo", node="robot"))
    return robot, robot.advertise("/joint_states", JOINT_STATE, QosProfile(durability="transient_local"))


def test_joints_are_read_by_our_names() -> None:
    """Joints that ``rename`` does not speak of keep their names."""
    names = [*THEIRS.values(), "gripper"]
    with fresh_domain() as domain, Peer(domain, "write", "joint_states", "best_effort") as peer:
        one = source(domain, qos="sensor_data", rename=THEIRS)
        opening = threading.Thread(target=one.open)
        opening.start()
        peer.matched()
        until(lambda: one.counters["publishers"])
        peer.send(name=names, position=[1, 2, 3], velocity=[4, 5, 6])
        opening.join(20)
        assert one.names == tuple(
            f"{j}/{kind}" for kind in ("position", "velocity") for j in ("pan", "lift", "gripper")
        )
        align = Align(["lift/position", "pan/velocity"], [Input("joints", one, {}, None)])
        seen = align.read(time.monotonic_ns(), 1)
        assert seen is not None
        assert seen.values.tolist() == [2, 4]
        peer.send(name=names[::-1], position=[30, 20, 10], velocity=[60, 50, 40])
        until(lambda: one.counters["received"] == 2)
        seen = align.read(time.monotonic_ns(), 2)
        assert seen is not None
        assert seen.values.tolist() == [20, 40]
        one.close()


def test_two_joints_change_names() -> None:
    with fresh_domain() as domain:
        robot, states = publisher(domain)
        states.publish(joint_state(["pan", "lift"], [1, 2]))
        one = source(domain, qos="latched", rename=SWAP)
        one.open()
        seen = one.read()
        assert seen is not None
        assert dict(zip(seen.names, seen.values.tolist(), strict=True)) == {"lift/position": 1, "pan/position": 2}
        one.close()
        robot.close()


def test_a_joint_of_theirs_with_the_name_of_another_of_ours_is_not_that_one() -> None:
    with fresh_domain() as domain:
        robot, states = publisher(domain)
        states.publish(joint_state(["ur5_pan_joint", "lift"], [1, 2]))
        one = source(domain, qos="latched", rename={"pan": "ur5_pan_joint"})
        one.open()
        assert one.names == ("pan/position", "lift/position")
        states.publish(joint_state(["pan", "ur5_pan_joint", "lift"], [3, 4, 5]))
        until(lambda: one.counters["received"] == 2)
        seen = one.read()
        assert seen is not None
        assert seen.values.tolist() == [4, 5]
        states.publish(joint_state(["pan", "lift"], [6, 7]))  # none is ours
        until(lambda: one.counters["received"] == 3)
        seen = one.read()
        assert seen is not None
        assert seen.valid.tolist() == [False, True]
        one.close()
        robot.close()


@pytest.mark.parametrize("rename", [THEIRS, SWAP, {"pan": "ur5_pan_joint"}], ids=["all", "swapped", "one"])
@pytest.mark.parametrize("type_name", ["trajectory_msgs/msg/JointTrajectory", "sensor_msgs/msg/JointState"])
def test_commands_bear_the_robots_names(type_name: str, rename: dict[str, str]) -> None:
    guard, got = guard_of("position", **JOINTS), []
    with fresh_domain() as domain:
        robot = Dds(Domain(domain.id, "localhost", "lo", node="robot"))
        robot.subscribe("/commands", MESSAGES.type(type_name), QosProfile(), lambda cdr, _: got.append(cdr))
        out = output(domain, type=type_name, rename=rename)
        out.open()
        out.prepare(guard, guard.rate_hz)
        until(lambda: out.counters["subscribers"])
        out.place(np.array([0.25, -0.125], np.float32))
        out.arm()
        until(lambda: out.write(command(guard, 0.25, -0.125)) or got)
        said: Any = MESSAGES.store.deserialize_cdr(got[0], type_name)
        names, values = (
            (said.joint_names, said.points[0].positions) if "Traj" in type_name else (said.name, said.position)
        )
        assert dict(zip(names, values.tolist(), strict=True)) == {
            rename.get("pan", "pan"): 0.25,
            rename.get("lift", "lift"): -0.125,
        }
        out.close()
        robot.close()


def test_an_array_without_names_stays_in_the_order_of_joints() -> None:
    guard = guard_of("position", **JOINTS)
    with fresh_domain() as domain, Peer(domain, "read", "commands") as peer:
        out = output(domain, type="std_msgs/msg/Float64MultiArray", rename=SWAP)
        out.open()
        peer.matched()
        until(lambda: out.counters["subscribers"])
        out.prepare(guard, guard.rate_hz)
        out.place(np.array([0.25, -0.125], np.float32))
        out.arm()
        until(lambda: out.write(command(guard, 0.25, -0.125)) or out.counters["sent"])
        assert json.loads(peer.out.readline()) == [-0.125, 0.25]
        out.close()


CHANNELS = {"pan": "/commands:position[ur5_pan_joint]", "lift": "/commands:position[lift]"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"rename": {"pan": "a", "lift": "a"}}, ["rename", "another joint of the robot's for each of ours"]),
        ({"rename": {"pan": "lift"}}, ["/commands: rename", "['lift', 'pan'] would share names: ['lift', 'lift']"]),
        ({"rename": THEIRS, "channels": CHANNELS}, ["rename", "beside channels"]),
        ({"rename": {"pan": 1}}, ["rename", "found 1"]),
    ],
)
def test_what_cannot_be_told_apart_is_refused(more: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        output(Domain(), type="sensor_msgs/msg/JointState", **more)
    for text in said:
        assert text in str(error.value)


def test_an_input_takes_names_or_channels() -> None:
    with pytest.raises(ConfigError, match="rename: found beside channels"):
        source(Domain(), rename=THEIRS, channels={"pan/position": "/joint_states:position[ur5_pan_joint]"})
