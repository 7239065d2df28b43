"""Velocities over a topic: the node in this process keeps the guard's limits on what is published, and ends at 0."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from kizzasi_edge.align import Align, Input
from kizzasi_edge.clock import DevicePace
from kizzasi_edge.errors import ConfigError, LinkError
from kizzasi_edge.frames import Command
from kizzasi_edge.guardrails import Guardrails
from kizzasi_edge.loop import Loop
from kizzasi_edge.recorder import Recorder
from kizzasi_edge.toml_file import validate

pytest.importorskip("cyclonedds", reason="the extra dds is not installed")

from ddsrig import MESSAGES, PATIENCE_S, Peer, fresh_domain, until
from devices import guard_of
from hostrig import (
    RATE_HZ,
    START,
    Joints,
    Sent,
    cleared,
    command,
    ends_quietly,
    in_quanta,
    node,
    velocity_guard,
    violations,
)
from robots import GUARD
from setpoint_model import write_policy

from kizzasi_edge.config import load_config
from kizzasi_edge.connectors.dds import DdsCommands, DdsTopic
from kizzasi_edge.connectors.host_node import HostNode
from kizzasi_edge.robot import Robot
from kizzasi_edge.ros2.dds import Dds
from kizzasi_edge.ros2.dds_domain import Domain
from kizzasi_edge.ros2.qos import QosProfile


def adversary(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Far too much, noise, bang-bang, or now and then something small."""
    kind = rng.integers(0, 6)
    noise: npt.NDArray[np.float64] = rng.normal(size=2) * (50.0, 3.0, 0.3)[kind % 3]
    return noise if kind < 3 else np.sign(noise) * (50.0, 1.5, 1e30)[kind % 3]


def drive(made: HostNode, guard: Guardrails, sent: Sent, periods: int, value: Sequence[float]) -> Joints:
    """A stream of one wish, with joints that follow."""
    joints = Joints(made, guard)
    joints.measure(sent.quanta)
    if not made.session:
        made.arm()
    for _ in range(periods):
        assert made.wait(5.0)
        joints.measure(sent.quanta)
        made.write(command(guard, *value))
    return joints


@pytest.mark.parametrize("turns", [False, True], ids=["ranges", "wheels"])
def test_velocities_stay_within_the_limits_whatever_is_asked(turns: bool) -> None:
    rng, g = np.random.default_rng(1), velocity_guard(turns=turns)
    sent = Sent(g)
    with node(g, sent) as made:
        joints = Joints(made, g)
        joints.measure(sent.quanta)
        made.arm()
        for _ in range(60):
            wish = adversary(rng)
            for _ in range(rng.integers(1, 15)):
                assert made.wait(5.0)
                joints.measure(sent.quanta)
                if rng.random() > 0.15:
                    made.write(command(g, *wish))
        assert made.state == "ARMED"
        assert made.counters["clamped"] > 50
        assert made.counters["misses"] > 10
        made.estop()
        ends_quietly(sent, made)
        rows = sent.quanta
        assert violations(g, rows, None if turns else START) == 0
        assert abs(rows).max() > max(cell.w for cell in g.node) // 2  # fast, if not as fast as it may
        assert (rows[-1] == 0).all()
        until(lambda: cleared(made))
        assert made.state == "READY"


@pytest.mark.parametrize("end", ["disarm", "close", "silence", "nan", "estop"])
def test_a_session_of_velocities_ends_at_rest(end: str) -> None:
    g = velocity_guard(turns=True, miss_budget=5)
    sent = Sent(g)
    with node(g, sent, ttl_s=0.5) as made:
        drive(made, g, sent, 30, [1.2, -0.6])
        assert abs(sent.quanta[-1]).min() > 0
        streamed = len(sent.rows)
        match end:
            case "disarm":
                made.disarm()
                until(lambda: made.state == "READY")
            case "close":
                made.close()
            case "silence":
                until(lambda: made.state == "FAILSAFE")
            case "nan":
                made.wait(5.0)
                until(lambda: made.write(command(g, np.nan, 0.0)) or made.state == "FAILSAFE")
            case "estop":
                made.estop()
                assert made.state == "ESTOP"
        if end != "close":
            ends_quietly(sent, made)
        assert made.session == 0
    rows = sent.quanta
    after, h = abs(rows[streamed - 1 :]), np.array([cell.h for cell in g.node])
    coasted = int((after == after[0]).all(axis=1).sum()) - 1
    assert coasted >= g.miss_budget if end == "silence" else coasted <= g.miss_budget + 1
    brake = after[coasted:]
    assert (brake[1:] == np.maximum(brake[:-1] - h, 0)).all()  # as fast as it may, and no faster
    assert (after[-1] == 0).all()  # the last thing that a controller hears
    assert len(after) > coasted + 5
    assert (rows[:-1] != 0).any(axis=1).all()  # once
    assert violations(g, rows) == 0


def test_ranges_need_measured_positions_and_wheels_do_not() -> None:
    bounded, wheels = velocity_guard(), velocity_guard(turns=True)
    with node(bounded, Sent(bounded)) as made, pytest.raises(LinkError, match="no measured positions come"):
        made.arm()
    sent = Sent(wheels)
    with node(wheels, sent) as made:
        made.arm()
        until(lambda: made.write(command(wheels, 1.0, 1.0)) or len(sent.rows) > 20)
        made.place(np.array([1e9, -1e9], np.float32))  # and however far they have turned
        before = len(sent.rows)
        until(lambda: made.write(command(wheels, 1.0, 1.0)) or len(sent.rows) > before + 5)
        assert (sent.quanta[-1] == np.rint(1.0 / wheels.quanta)).all()


def test_a_joint_stops_at_its_end_where_it_is_measured() -> None:
    """It slips, and does half of what it is told: what is measured counts, not what was sent."""
    g = velocity_guard()
    sent = Sent(g)
    with node(g, sent) as made:
        made.place(np.zeros(2, np.float32))
        made.arm()
        at, done = np.zeros(2), 0
        while done < 10 or np.any(sent.rows[-1]):
            assert made.wait(5.0)
            rows = np.array(sent.rows[done:], np.float64).reshape(-1, 2)
            at, done = at + 0.5 * rows.sum(axis=0) / RATE_HZ, done + len(rows)
            made.place(at.astype(np.float32))
            made.write(command(g, 5.0, -5.0))
        assert abs(at - [0.4, -0.3]).max() < 0.02  # two late periods at full speed


def test_between_measurements_it_is_reckoned_from_what_was_sent() -> None:
    """Measured once, then no more, while the wish is to go on and on."""
    g = velocity_guard()
    sent = Sent(g)
    with node(g, sent) as made:
        made.place(START.astype(np.float32))
        made.arm()
        until(lambda: (made.wait(5.0), made.write(command(g, 9.0, 9.0))) and len(sent.rows) > 120)
        assert violations(g, sent.quanta, START) == 0
        unit = g.quanta / RATE_HZ
        reached = START + (sent.quanta * unit).sum(axis=0)
        assert (reached > [0.3, 0.2]).all()  # near the end, or (periods that came late count in full) not quite


def test_periods_that_nobody_was_there_for_are_reckoned_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each period lasts four: a controller holds a velocity for as long as it is told nothing else."""
    g = velocity_guard()
    sent = Sent(g)
    with node(g, sent) as made:
        wait = made._clock.wait
        monkeypatch.setattr(made._clock, "wait", lambda: sum(wait() for _ in range(4)))
        made.place(START.astype(np.float32))
        made.arm()
        until(lambda: (made.wait(5.0), made.write(command(g, 9.0, 9.0))) and len(sent.rows) > 40)
        held = sent.quanta
        q = np.rint(START.astype(np.float32) * RATE_HZ / g.quanta) + np.cumsum(4 * held, axis=0)
    hi, w, h = (np.array([getattr(cell, key) for cell in g.node]) for key in ("hi", "w", "h"))
    stopping = w * (w // h + 1) // 2
    assert (q <= hi + 3 * stopping).all()  # that it stops later cannot be helped; that it begins in time can
    assert (abs(q[-1] - hi) <= 3 * stopping).all()


def output(domain: Domain, **options: Any) -> DdsCommands:
    given = {
        "topic": "/commands",
        "type": "std_msgs/msg/Float64MultiArray",
        "joints": ["lift", "pan"],
        "domain": domain.id,
        "discovery": "localhost",
        "interface": "lo",
        **options,
    }
    return DdsTopic.Output(validate(given, DdsTopic.Output.Options, "robot.toml: [[output]] 1", ConfigError), Path())


def test_what_a_velocity_controller_receives() -> None:
    """Another process, which knows nothing of us, sees nothing but what the limits allow; the last value is 0."""
    rng, g = np.random.default_rng(2), velocity_guard()
    with fresh_domain() as domain, Peer(domain, "read", "commands") as peer:
        out = output(
            domain, command_interface="velocity", qos={"depth": 1000}
        )  # none is lost: a loss looks like a leap
        out.open()
        peer.matched()
        until(lambda: out.counters["subscribers"] == 1)
        out.prepare(g, RATE_HZ)
        node_ = out._prepared
        joints = Joints(node_, g)
        sent = Sent(g)
        publish, node_._send = node_._send, lambda values: (sent(values), publish(values))[1]
        joints.measure(sent.quanta)
        out.arm()
        for _ in range(30):
            wish = adversary(rng)
            for _ in range(rng.integers(1, 15)):
                assert out.wait(5.0)
                joints.measure(sent.quanta)
                if rng.random() > 0.15:
                    out.write(command(g, *wish))
        out.close()  # what the end of a run does
        count = len(sent.rows)
        assert count > 100
        got = in_quanta(g, [row[::-1] for row in peer.arrays(count)])  # its order is lift, pan
        assert (got == sent.quanta).all()
        assert violations(g, got, START) == 0
        assert (got[-1] == 0).all()


@pytest.mark.parametrize(
    ("type_name", "options", "read"),
    [
        ("std_msgs/msg/Float64MultiArray", {}, lambda said: said.data),
        ("trajectory_msgs/msg/JointTrajectory", {"reach_s": 0.25}, lambda said: said.points[0].velocities),
        ("sensor_msgs/msg/JointState", {}, lambda said: said.velocity),
        ("control_msgs/msg/DynamicJointState", {}, lambda said: [v.values[0] for v in said.interface_values]),
        (
            "geometry_msgs/msg/Twist",
            {"channels": {"pan": "/commands:linear.x", "lift": "/commands:angular.z"}},
            lambda said: [said.angular.z, said.linear.x],
        ),
        (
            "geometry_msgs/msg/TwistStamped",
            {"channels": {"pan": "/commands:twist.linear.x", "lift": "/commands:twist.angular.z"}},
            lambda said: [said.twist.angular.z, said.twist.linear.x],
        ),
    ],
)
def test_messages_of_velocities(type_name: str, options: dict[str, Any], read: Any) -> None:
    g, got = velocity_guard(turns=True), []
    with fresh_domain() as domain:
        robot = Dds(Domain(domain.id, "localhost", "lo", node="robot"))
        robot.subscribe("/commands", MESSAGES.type(type_name), QosProfile(depth=1000), lambda cdr, _: got.append(cdr))
        out = output(domain, type=type_name, **options)
        out.open()
        out.prepare(g, RATE_HZ)
        until(lambda: out.counters["subscribers"])
        out.arm()
        slow = np.array([0.01, -0.02], np.float32)
        until(lambda: out.write(command(g, *slow)) or got)
        said: Any = MESSAGES.store.deserialize_cdr(got[0], type_name)
        assert list(read(said)) == (np.rint(slow[::-1] / g.quanta[::-1]) * g.quanta[::-1]).tolist()
        for empty in ("position", "effort"):
            assert len(getattr(said, empty, ())) == 0
        if type_name.startswith("control"):
            assert said.joint_names == ["lift", "pan"]
            assert said.interface_values[0].interface_names == ["velocity"]
        if type_name.startswith("geometry"):
            twist = getattr(said, "twist", said)
            assert [twist.linear.y, twist.linear.z, twist.angular.x, twist.angular.y] == [0.0] * 4
        if type_name.endswith(("Stamped", "JointState")) and hasattr(said, "header"):
            assert type_name.startswith("control") or abs(said.header.stamp.sec - time.time()) < 60
        out.close()
        until(lambda: len(got) == len(in_quanta(g, [read(MESSAGES.store.deserialize_cdr(c, type_name)) for c in got])))
        until(lambda: not any(read(MESSAGES.store.deserialize_cdr(got[-1], type_name))))
        robot.close()


TWIST = {"type": "geometry_msgs/msg/Twist", "channels": {"pan": "/commands:linear.x", "lift": "/commands:angular.z"}}
EFFORTS = {
    "type": "sensor_msgs/msg/JointState",
    "channels": {"pan": "/commands:effort[pan]", "lift": "/commands:effort[lift]"},
}
MIXED = {**EFFORTS, "channels": {"pan": "/commands:effort[pan]", "lift": "/commands:velocity[lift]"}}
DYNAMIC = {
    "type": "control_msgs/msg/DynamicJointState",
    "channels": {joint: f"/commands:interface_values[{joint}].values[position]" for joint in ("pan", "lift")},
}


@pytest.mark.parametrize(
    ("command_kind", "options", "said"),
    [
        ("velocity", {"command_interface": "position"}, ["/commands: takes position;", "commands velocity"]),
        ("position", {"command_interface": "velocity"}, ["/commands: takes velocity;", "commands position"]),
        ("velocity", {"command_interface": "effort"}, ["/commands: takes torque;", "commands velocity"]),
        ("velocity", {"command_interface": "speed"}, ["command_interface", "'speed'", "'velocity'"]),
        ("position", TWIST, ["/commands: takes velocity;", "commands position"]),
        ("velocity", {**TWIST, "command_interface": "position"}, ["command_interface of /commands: found 'position'"]),
        ("velocity", EFFORTS, ["effort"]),
        ("velocity", MIXED, ["channels of /commands: found effort and velocity", "of one kind"]),
        ("velocity", DYNAMIC, ["position"]),
        ("velocity", {"damping": {"pan": 1.0}}, ["/commands: damping", "expected torque"]),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_moves(
    command_kind: str, options: dict[str, Any], said: list[str]
) -> None:
    joints = {"names": ["pan", "lift"], "position": [[-0.4, 0.4], [-0.3, 0.3]]}
    with pytest.raises(ConfigError) as error:
        output(Domain(), **options).prepare(guard_of(command_kind, **joints), 500.0)
    for text in said:
        assert text in str(error.value)


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
[[output]]
connector = "dds"
topic = "/velocity_controller/commands"
type = "std_msgs/msg/Float64MultiArray"
joints = ["lift", "pan"]
command_interface = "velocity"
"""


def test_a_guard_of_positions_is_refused_for_a_velocity_controller_before_anything_is_opened(tmp_path: Path) -> None:
    (tmp_path / "robot.toml").write_text(ROBOT)
    (tmp_path / "g.guard.toml").write_text(GUARD)
    write_policy(tmp_path / "m.onnx", ["pan", "lift"], 200)
    with pytest.raises(ConfigError, match=r"command of .*: found 'position'; .* driven by 'velocity' only"):
        Robot(load_config(tmp_path / "robot.toml"))


class Wish:
    """Where the policy is told to go; a base that senses nothing of itself."""

    names = ("forward", "turn")

    def __init__(self) -> None:
        self.values = np.array([0.8, -1.5], np.float32)

    def read(self) -> Any:
        return Command(time.monotonic_ns(), 1, self.names, self.values, np.ones(2, np.bool_))


class Repeater:
    """A policy that wants what it is told."""

    output_names = ("x/velocity", "yaw/velocity")

    def propose(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return x.copy()

    def reset(self) -> None:
        pass


def test_a_mobile_base_by_twist() -> None:
    """The loop as it is, over axes that have no range and are not measured: from rest to speed, and to rest again."""
    builder = Guardrails.builder(rate_hz=RATE_HZ, velocity_scale=1.0, command="velocity")
    g = builder.joint("x", velocity=0.5, acceleration=5.0).joint("yaw", velocity=1.0, acceleration=10.0).build()
    got: list[bytes] = []
    with fresh_domain() as domain:
        robot = Dds(Domain(domain.id, "localhost", "lo", node="robot"))
        kind = MESSAGES.type("geometry_msgs/msg/Twist")
        robot.subscribe("/cmd_vel", kind, QosProfile(depth=1000), lambda cdr, _: got.append(cdr))
        out = output(
            domain,
            topic="/cmd_vel",
            type=kind.name,
            joints=["x", "yaw"],
            channels={"x": "/cmd_vel:linear.x", "yaw": "/cmd_vel:angular.z"},
        )
        out.open()
        out.prepare(g, RATE_HZ)
        until(lambda: out.counters["subscribers"])
        wish = Wish()
        align = Align(Wish.names, [Input("wish", wish, {}, None)])  # type: ignore[arg-type]
        loop = Loop(Repeater(), g, align, out, DevicePace(out, RATE_HZ), Recorder(10, 2, 2, 2))
        for _ in range(5):
            loop.tick()
        assert got == []
        out.arm()
        deadline = time.monotonic() + PATIENCE_S

        def told() -> npt.NDArray[np.float64]:
            said: list[Any] = [MESSAGES.store.deserialize_cdr(cdr, kind.name) for cdr in got]
            return np.array([[one.linear.x, one.angular.z] for one in said]).reshape(-1, 2)

        while not (len(got) and (abs(told()[-1]) == [0.5, 1.0]).all()):
            loop.tick()
            assert time.monotonic() < deadline, (out.status, loop.stats)
        wish.values = np.array([-9.0, np.nan], np.float32)  # the guard coasts, then brakes
        while told()[-1].any():
            loop.tick()
            assert time.monotonic() < deadline, (out.status, loop.stats)
        wish.values = np.array([0.2, 0.2], np.float32)
        before = len(got)
        while len(got) < before + 10:
            loop.tick()
            assert time.monotonic() < deadline, (out.status, loop.stats)
        out.disarm()
        until(lambda: out.state == "READY")
        count = out.counters["sent"]
        until(lambda: len(got) == count)
        assert violations(g, in_quanta(g, told())) == 0
        assert not told()[-1].any()
        out.close()
        robot.close()
