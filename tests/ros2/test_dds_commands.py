"""The output: a node in this process that keeps the guard's limits on what is published, and the topic it goes to."""

from __future__ import annotations

import json
import threading
import time
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
from kizzasi_edge.predictor import Predictor
from kizzasi_edge.recorder import Recorder
from kizzasi_edge.toml_file import validate

pytest.importorskip("cyclonedds", reason="the extra dds is not installed")

from ddsrig import ARRAY, JOINT_STATE, MESSAGES, Peer, fresh_domain, joint_state, until
from hostrig import RATE_HZ, Sent, cleared, command, in_quanta, node, quiet
from robots import GUARD
from setpoint_model import write_policy

from kizzasi_edge.connectors.dds import DdsCommands, DdsTopic
from kizzasi_edge.connectors.host_node import HostNode
from kizzasi_edge.ros2.dds import Dds
from kizzasi_edge.ros2.dds_domain import Domain
from kizzasi_edge.ros2.qos import QosProfile

JOINTS = ["pan", "lift"]
OPTIONS = {"topic": "/commands", "type": "std_msgs/msg/Float64MultiArray", "joints": ["lift", "pan"]}


def guard(tmp_path: Path) -> Guardrails:
    (tmp_path / "g.guard.toml").write_text(GUARD)
    return Guardrails.load(tmp_path / "g.guard.toml")


def keeps_the_promise(
    guard: Guardrails, rows: list[npt.NDArray[Any]], start: npt.NDArray[np.float64] | None = None
) -> bool:
    """CONTRACT §1 on consecutive sent values, from rest where the joints were measured to rest."""
    at = np.zeros(2) if start is None else start
    q = np.vstack([np.rint(at.astype(np.float32) / guard.quanta).astype(np.int64), in_quanta(guard, rows)])
    step = np.diff(q, axis=0)
    change = np.diff(step, axis=0, prepend=np.zeros((1, 2), np.int64), append=np.zeros((1, 2), np.int64))
    lo, hi, w, h = (np.array([getattr(cell, key) for cell in guard.lattice]) for key in ("lo", "hi", "w", "h"))
    return bool(((lo <= q) & (q <= hi)).all() and (abs(step) <= w).all() and (abs(change) <= h).all())


def arm(made: HostNode, sent: Sent) -> None:
    """Arm where the robot is: where it was told to be last."""
    made.place(sent.rows[-1] if sent.rows else np.zeros(2, np.float32))
    made.arm()


def drive(made: HostNode, guard: Guardrails, periods: int, speed: float = 1.0) -> None:
    """A stream that speeds up: one command at the start of each period, from where the node stands."""
    wanted = np.zeros(2)
    for _ in range(periods):
        assert made.wait(5.0) > 0
        wanted += speed / RATE_HZ
        made.write(command(guard, *wanted))


def test_nothing_is_sent_before_the_first_command_of_a_session(tmp_path: Path) -> None:
    g = guard(tmp_path)
    sent = Sent(g)
    with node(g, sent) as made:
        assert (made.state, made.session, made.motion()) == ("READY", 0, None)
        made.write(command(g, 0.0, 0.0))
        assert made.counters["ignored"] == 1
        arm(made, sent)
        assert made.state == "ARMED"
        assert made.session > 0
        assert quiet(sent, made)
        with pytest.raises(LinkError, match="refused in state ARMED"):
            made.arm()
        made.disarm()
        until(lambda: made.state == "READY")
        assert sent.rows == []


def test_a_stream_is_sent_once_a_period_and_kept_within_the_limits(tmp_path: Path) -> None:
    g = guard(tmp_path)
    sent = Sent(g)
    with node(g, sent) as made:
        arm(made, sent)
        drive(made, g, 60, speed=50.0)  # far faster than allowed, and past the end
        motion = made.motion()
        assert motion is not None
        assert motion[0].tolist() == in_quanta(g, sent.rows[-1:])[0].tolist()
        assert made.counters["clamped"] > 10
        session = made.session
        made.disarm()
        assert made.session == 0
        made.write(command(g, 0.3, 0.3))
        until(lambda: made.state == "READY")
        assert quiet(sent, made)
        assert keeps_the_promise(g, sent.rows)
        arm(made, sent)
        assert made.session not in (0, session)


def test_a_stream_that_stops_coasts_brakes_and_fails_safe(tmp_path: Path) -> None:
    g = guard(tmp_path)
    sent = Sent(g)
    with node(g, sent, ttl_s=0.3) as made:
        arm(made, sent)
        drive(made, g, 30)
        streamed = len(sent.rows)
        step = np.diff(in_quanta(g, sent.rows), axis=0)[-1]
        until(lambda: made.state == "FAILSAFE")
        until(lambda: quiet(sent, made))
        after = np.diff(in_quanta(g, sent.rows), axis=0)[streamed - 1 :]
        assert (after[: g.miss_budget] == step).all()  # coasts
        assert (np.diff(abs(after[g.miss_budget :]).max(axis=1)) <= 0).all()  # and brakes
        assert (after[-1] <= [cell.h for cell in g.lattice]).all()
        assert keeps_the_promise(g, sent.rows)
        assert (made.session, made.status["fault"]) == (0, "TTL")
        with pytest.raises(LinkError, match="FAILSAFE"):
            made.arm()
        made.clear()
        assert made.state == "READY"


def test_a_stream_that_comes_back_goes_on_from_where_the_node_is(tmp_path: Path) -> None:
    g = guard(tmp_path)
    sent = Sent(g)
    with node(g, sent) as made:
        arm(made, sent)
        drive(made, g, 30)
        until(lambda: made.counters["misses"] > g.miss_budget + 40)
        assert made.state == "ARMED"
        assert quiet(sent, made)  # at rest, held by the robot's controller
        drive(made, g, 30)
        assert len(sent.rows) > 50
        start = time.monotonic()
        made.close()  # brakes, at once
        assert time.monotonic() - start < 3
    assert keeps_the_promise(g, sent.rows)


@pytest.mark.parametrize("stop", ["estop", "nan", "stale", "wire"])
def test_what_stops_it(tmp_path: Path, stop: str) -> None:
    g = guard(tmp_path)
    sent = Sent(g)
    with node(g, sent, ttl_s=1.0) as made:
        arm(made, sent)
        drive(made, g, 30)
        match stop:
            case "estop":
                made.estop()
            case "nan":
                made.wait(5.0)
                until(lambda: made.write(command(g, np.nan, 0.0)) or made.state != "ARMED")
            case "stale":
                made.wait(5.0)
                made.write(command(g, 0.1, 0.1, age_s=1.1))
                until(lambda: made.counters["stale"] + made.counters["ignored"] == 1)
            case "wire":
                sent.broken = True
        until(lambda: made.state in ("ESTOP", "FAILSAFE"))
        sent.broken = False
        assert made.session == 0
        until(lambda: made.motion() is None)
        assert quiet(sent, made)
        if stop != "wire":  # what the wire lost was not sent
            assert keeps_the_promise(g, sent.rows)
        until(lambda: cleared(made))
        arm(made, sent)
        assert made.state == "ARMED"


def test_clear_waits_for_rest_and_arm_for_a_command(tmp_path: Path) -> None:
    g = guard(tmp_path)
    sent = Sent(g)
    with node(g, sent, arm_ttl_s=0.05) as made:
        arm(made, sent)
        drive(made, g, 60, speed=1.3)
        made.estop()
        assert made.motion() is not None
        until(lambda: cleared(made))
        assert made.motion() is None
        arm(made, sent)
        until(lambda: made.state == "FAILSAFE")
        assert made.status["fault"] == "ARM_TTL"


def output(domain: Domain, **options: Any) -> DdsCommands:
    where = {"domain": domain.id, "discovery": "localhost", "interface": "lo"}
    made = validate({**OPTIONS, **where, **options}, DdsTopic.Output.Options, "robot.toml: [[output]] 1", ConfigError)
    return DdsTopic.Output(made, Path())


def test_what_a_controller_receives(tmp_path: Path) -> None:
    """In its own order, and nothing but a session's."""
    g = guard(tmp_path)
    with fresh_domain() as domain, Peer(domain, "read", "commands") as peer:
        out = output(domain)
        out.open()
        peer.matched()
        until(lambda: out.counters["subscribers"] == 1)
        assert out.state == "INIT"
        with pytest.raises(ConfigError, match="no guard was prepared"):
            out.arm()
        out.prepare(g, RATE_HZ)
        with pytest.raises(LinkError, match="no measured positions come"):
            out.arm()
        out.place(np.array([0.25, -0.125], np.float32))
        out.write(command(g, 0.1, -0.1))
        out.arm()
        out.wait(5.0)
        until(lambda: out.write(command(g, 0.25, -0.125)) or out.counters["sent"])
        assert json.loads(peer.out.readline()) == [-0.125, 0.25]  # lift, pan
        assert out.motion() is not None
        status = out.status
        assert (status["topic"], status["fault"]) == ("/commands", "NONE")
        out.close()
        out.close()
        assert out.state == "INIT"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"joints": ["pan"]}, ["/commands: joints: found ['pan']", "['pan', 'lift']"]),
        ({"joints": []}, ["joints", "at least 1"]),
        ({"type": "sensor_msgs/msg/Imu"}, ["channels of /commands: missing"]),
        ({"ttl_ms": 0}, ["ttl_ms", "found 0"]),
    ],
)
def test_options_are_checked(tmp_path: Path, options: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        output(Domain(), **options).prepare(guard(tmp_path), RATE_HZ)
    for text in said:
        assert text in str(error.value)


@pytest.mark.parametrize("type_name", ["trajectory_msgs/msg/JointTrajectory", "sensor_msgs/msg/JointState"])
def test_messages_with_names(tmp_path: Path, type_name: str) -> None:
    g, got = guard(tmp_path), []
    with fresh_domain() as domain:
        robot = Dds(Domain(domain.id, "localhost", "lo", node="robot"))
        robot.subscribe("/commands", MESSAGES.type(type_name), QosProfile(), lambda cdr, _: got.append(cdr))
        out = output(domain, type=type_name, **({"reach_s": 0.25} if "Trajectory" in type_name else {}))
        out.open()
        out.prepare(g, RATE_HZ)
        until(lambda: out.counters["subscribers"])
        out.place(np.array([0.25, -0.125], np.float32))
        out.arm()
        until(lambda: out.write(command(g, 0.25, -0.125)) or got)
        said: Any = MESSAGES.store.deserialize_cdr(got[0], type_name)
        if "Trajectory" in type_name:
            assert said.joint_names == ["lift", "pan"]
            (point,) = said.points
            assert point.positions.tolist() == [-0.125, 0.25]
            assert (point.time_from_start.sec, point.time_from_start.nanosec) == (0, 250_000_000)
            assert (said.header.stamp.sec, said.header.stamp.nanosec) == (0, 0)  # begin on arrival
        else:
            assert said.name == ["lift", "pan"]
            assert said.position.tolist() == [-0.125, 0.25]
            assert abs(said.header.stamp.sec - time.time()) < 60
        out.close()
        robot.close()


class Arm:
    """A robot on the graph: publishes its joints at 200 Hz, and moves to whatever its controller is told."""

    def __init__(self, domain: Domain) -> None:
        self.transport = Dds(Domain(domain.id, "localhost", "lo", node="robot"))
        self.told: list[npt.NDArray[np.float64]] = []
        self.position = np.array([0.05, -0.05])
        self.alive = True
        self.states = self.transport.advertise("/joint_states", JOINT_STATE, QosProfile(reliability="best_effort"))
        self.transport.subscribe("/commands", ARRAY, QosProfile(depth=1000), self._on_command)
        self._thread = threading.Thread(target=self._publish)
        self._thread.start()

    def _on_command(self, cdr: bytes, _: int) -> None:
        said: Any = MESSAGES.store.deserialize_cdr(cdr, ARRAY.name)
        self.position = said.data[::-1].copy()  # its controller's order is lift, pan
        self.told.append(self.position)

    def _publish(self) -> None:
        while self.alive:
            self.states.publish(joint_state(["lift", "pan"], self.position[::-1].tolist()))
            time.sleep(1 / RATE_HZ)

    def dies(self) -> None:
        self.alive = False
        self._thread.join()


class Targets:
    """Where the policy is to go."""

    names = ("pan/target_position", "lift/target_position")
    values = np.array([0.3, -0.2], np.float32)

    def read(self) -> Any:
        return Command(time.monotonic_ns(), 1, self.names, self.values, np.ones(2, np.bool_))


def test_a_loop_from_topic_to_topic(tmp_path: Path) -> None:
    """The loop as it is, a real model, a real guard: it goes to the targets, and stops when the joints fall silent."""
    g = guard(tmp_path)
    write_policy(tmp_path / "m.onnx", JOINTS, RATE_HZ)
    policy = Predictor(tmp_path / "m.onnx")
    with fresh_domain() as domain:
        arm = Arm(domain)
        where = {"domain": domain.id, "discovery": "localhost", "interface": "lo", "qos": "sensor_data"}
        source_options = {"topic": "/joint_states", "type": JOINT_STATE.name, **where}
        source = DdsTopic(validate(source_options, DdsTopic.Options, "robot.toml", ConfigError), Path())
        out = output(domain, ttl_ms=400)
        source.open()
        out.open()
        out.prepare(g, RATE_HZ)
        inputs = [Input("joints", source, {}, 200_000_000), Input("targets", Targets(), {}, None)]  # type: ignore[arg-type]
        align = Align(policy.input_names, inputs)
        loop = Loop(policy, g, align, out, DevicePace(out, RATE_HZ), Recorder(10, len(align.names), 2, 2))
        for _ in range(20):
            loop.tick()
        assert arm.told == []
        start = arm.position
        out.arm()
        deadline = time.monotonic() + 20
        while not arm.told or abs(arm.told[-1] - Targets.values).max() > 1e-3:
            loop.tick()
            assert time.monotonic() < deadline, (arm.told[-3:], loop.stats.last_error, out.status)
        assert abs(arm.told[0] - start).max() < 0.01
        Targets.values = -Targets.values
        for _ in range(30):
            loop.tick()  # on its way back, at speed
        arm.dies()
        while out.session:
            loop.tick()
            assert time.monotonic() < deadline, out.status
        assert (out.state, out.status["fault"]) == ("FAILSAFE", "TTL")
        assert align.stale["joints"] > 0
        until(lambda: out.motion() is None)
        count = out.counters["sent"]
        for _ in range(10):
            loop.tick()
        assert out.counters["sent"] == count
        until(lambda: len(arm.told) == count)
        assert keeps_the_promise(g, arm.told, start)
        source.close()
        out.close()
        arm.transport.close()
