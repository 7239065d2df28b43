"""Torques over a topic: range and rate as sent, −K_d·v against what is measured, and 0 at the end."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kizzasi_edge.errors import ConfigError
from kizzasi_edge.guardrails import Guardrails
from kizzasi_edge.toml_file import validate

pytest.importorskip("cyclonedds", reason="the extra dds is not installed")

from ddsrig import MESSAGES, Peer, fresh_domain, until
from devices import torque_guard
from hostrig import I64, Sent, cleared, command, ends_quietly, in_quanta, node

from kizzasi_bridge.protocol import StopCategory
from kizzasi_edge.connectors.dds import DdsCommands, DdsTopic
from kizzasi_edge.connectors.device_map import Session
from kizzasi_edge.connectors.host_map import FINE, HostMap
from kizzasi_edge.connectors.host_node import HostNode
from kizzasi_edge.ros2.dds import Dds
from kizzasi_edge.ros2.dds_domain import Domain
from kizzasi_edge.ros2.qos import QosProfile

HOME = np.array([0.3, -1.4, 1.6, -1.5, -1.2, 0.5], np.float32)
DAMPING = 20.0


@pytest.fixture(scope="module")
def guard() -> Guardrails:
    return torque_guard()


def violations(guard: Guardrails, sent: I64) -> int:
    lo, hi, w = (np.array([getattr(cell, key) for cell in guard.node], np.int64) for key in ("lo", "hi", "w"))
    change = np.diff(np.vstack([np.zeros_like(sent[:1]), sent]), axis=0)
    return int((sent < lo).sum() + (sent > hi).sum() + (abs(change) > w).sum())


class Moving:
    """Joints that move on at one speed, whatever the torques: what each period adds, in counts of the node."""

    def __init__(self, made: HostNode, counts: int) -> None:
        self.made, self.step, self.at = made, counts, np.rint(HOME / FINE)

    def period(self, step: int | None = None) -> None:
        assert self.made.wait(5.0)
        self.at += self.step if step is None else step
        self.made.place((self.at * FINE).astype(np.float32))


def test_torques_stay_within_effort_whatever_is_asked(guard: Guardrails) -> None:
    rng, sent = np.random.default_rng(1), Sent(guard)
    with node(guard, sent, damping=dict.fromkeys(guard.joints, DAMPING)) as made:
        made.place(HOME)
        made.arm()
        arm = Moving(made, 0)
        for _ in range(300):
            arm.period(int(rng.integers(-5000, 5000)))
            if rng.random() > 0.15:
                made.write(command(guard, *rng.normal(size=6) * (1.0, 100.0, 1e9)[rng.integers(3)]))
        assert made.counters["clamped"] > 50
        assert made.counters["misses"] > 10
        made.disarm()
        until(lambda: arm.period(0) or made.state == "READY")
        assert violations(guard, sent.quanta) == 0
        assert (abs(sent.quanta).max(axis=0) == [cell.hi for cell in guard.node]).all()
        assert not sent.rows[-1].any()


@pytest.mark.parametrize("end", ["disarm", "estop", "silence", "nan"])
def test_a_session_of_torques_ends_in_damping_and_then_nothing(guard: Guardrails, end: str) -> None:
    sent, moved = Sent(guard), 20_000  # 0.6 rad/s: above the speed that counts as rest
    with node(guard, sent, ttl_s=0.5, damping=dict.fromkeys(guard.joints, DAMPING)) as made:
        made.place(HOME)
        made.arm()
        arm = Moving(made, moved)
        for _ in range(20):
            arm.period()
            made.write(command(guard, *np.full(6, 1.0)))
        match end:
            case "disarm":
                made.disarm()
            case "estop":
                made.estop()
            case "silence":
                until(lambda: arm.period() or made.state == "FAILSAFE")
            case "nan":
                until(lambda: made.write(command(guard, *np.full(6, np.nan))) or made.state == "FAILSAFE")
        for _ in range(60):  # longer than rest is watched
            arm.period()
        damped = sent.quanta[-20:]
        kd = np.array([np.float32(DAMPING * FINE * guard.rate_hz / cell.quantum) for cell in guard.node])
        least = [cell.lo for cell in guard.node]
        late = np.array([np.maximum(np.trunc(-kd * moved * n), least) for n in range(8)])  # a busy machine's periods
        assert all((row == late).all(axis=1).any() for row in damped)
        assert (damped[:, 0] < 0).any()
        if end == "disarm":
            assert made.state == "ARMED"  # as long as it moves
        else:
            found: list[bool] = []
            clearing = threading.Thread(target=lambda: found.append(cleared(made)))
            clearing.start()
            while clearing.is_alive():
                arm.period()
            assert found == [False]  # as long as it moves
        until(lambda: arm.period(0) or not (sent.rows[-1].any() or made.session or made.state == "ARMED"))
        ends_quietly(sent, made)
        assert not sent.rows[-1].any()
        assert violations(guard, sent.quanta) == 0
        until(lambda: cleared(made))
        assert made.state == "READY"


def test_torques_without_damping_go_to_nothing(guard: Guardrails) -> None:
    sent = Sent(guard)
    with node(guard, sent) as made:
        made.place(HOME)
        made.arm()
        arm = Moving(made, 0)
        for _ in range(10):
            arm.period()
            made.write(command(guard, *np.full(6, 2.0)))
        assert sent.rows[-1].any()
    assert not sent.rows[-1].any()  # the end of a run


def test_a_joint_may_turn_further_than_can_be_counted(guard: Guardrails) -> None:
    """Its count wraps, and what it moved in a period is what it is."""
    counts = HostMap(guard, guard.rate_hz, Session(100, 100, StopCategory.BRAKE_THEN_CUT, {}, {}), "t")
    end = FINE * 2.0**31  # 128 rad
    for at in (end, -end, 3 * end, 100 * end):
        before, after = (counts.measured(np.full(6, at + off, np.float32)) for off in (-0.25, 0.25))
        assert (after - before == round(0.5 / FINE)).all()  # in 32 bits, as the node counts


def output(domain: Domain, **options: Any) -> DdsCommands:
    guard = {
        "topic": "/forward_effort_controller/commands",
        "type": "std_msgs/msg/Float64MultiArray",
        "joints": list(torque_guard().joints)[::-1],
        "damping": dict.fromkeys(torque_guard().joints, DAMPING),
        "command_interface": "effort",
        "domain": domain.id,
        "discovery": "localhost",
        "interface": "lo",
        **options,
    }
    return DdsTopic.Output(validate(guard, DdsTopic.Output.Options, "robot.toml: [[output]] 1", ConfigError), Path())


def test_what_an_effort_controller_receives(guard: Guardrails) -> None:
    with fresh_domain() as domain, Peer(domain, "read", "forward_effort_controller/commands") as peer:
        out = output(domain, qos={"depth": 1000})  # a loss would look like a leap
        out.open()
        peer.matched()
        until(lambda: out.counters["subscribers"] == 1)
        out.prepare(guard, guard.rate_hz)
        out.place(HOME)
        out.arm()
        rng = np.random.default_rng(3)
        for _ in range(150):
            assert out.wait(5.0)
            out.place(HOME)
            out.write(command(guard, *rng.normal(size=6) * (1.0, 100.0)[rng.integers(2)]))
        motion = out.motion()
        assert motion is not None
        out.disarm()
        until(lambda: out.state == "READY")
        count = out.counters["sent"]
        got = in_quanta(guard, [row[::-1] for row in peer.arrays(count)])
        assert count > 100
        assert violations(guard, got) == 0
        assert not got[-1].any()
        out.close()


@pytest.mark.parametrize(
    ("type_name", "read"),
    [
        ("trajectory_msgs/msg/JointTrajectory", lambda said: said.points[0].effort),
        ("sensor_msgs/msg/JointState", lambda said: said.effort),
        ("control_msgs/msg/DynamicJointState", lambda said: [v.values[0] for v in said.interface_values]),
    ],
)
def test_messages_of_efforts(guard: Guardrails, type_name: str, read: Any) -> None:
    got: list[bytes] = []
    with fresh_domain() as domain:
        robot = Dds(Domain(domain.id, "localhost", "lo", node="robot"))
        robot.subscribe("/efforts", MESSAGES.type(type_name), QosProfile(), lambda cdr, _: got.append(cdr))
        out = output(domain, topic="/efforts", type=type_name)
        out.open()
        out.prepare(guard, guard.rate_hz)
        until(lambda: out.counters["subscribers"])
        out.place(HOME)
        out.arm()
        asked = (np.arange(1, 7) * 16 * guard.quanta).astype(np.float32)
        until(lambda: out.write(command(guard, *asked)) or got)
        assert list(read(MESSAGES.store.deserialize_cdr(got[0], type_name))) == asked[::-1].tolist()
        out.close()
        robot.close()


def test_damping_is_of_joints_that_there_are(guard: Guardrails) -> None:
    with pytest.raises(ConfigError, match=r"forward_effort_controller/commands: damping: found \['elbow'\]"):
        output(Domain(), damping={"elbow": 1.0}).prepare(guard, guard.rate_hz)
