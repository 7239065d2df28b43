"""The path of a command, tick by tick: a real bundle, the real guard, and the firmware's node in virtual time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from looprig import INPUTS, JOINTS, QUANTUM, Node, Pace, Rig

from kizzasi_edge.align import Align
from kizzasi_edge.bundle import Bundle, write_bundle
from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.frames import Observation
from kizzasi_edge.guardrails import Guardrails, Status, Verdict
from kizzasi_edge.guardrails.faults import Event, State
from kizzasi_edge.guardrails.verdict import HEADER, Layout
from kizzasi_edge.loop import Loop
from kizzasi_edge.predictor import Predictor
from kizzasi_edge.recorder import Recorder


@pytest.fixture
def bundle(tmp_path: Path, build: Any, arm_core: bytes) -> Bundle:
    return write_bundle(tmp_path / "m.onnx", arm_core, build.manifest_for(arm_core, INPUTS, build.outputs))


@pytest.fixture
def rig(bundle: Bundle) -> Rig:
    return Rig(bundle)


def test_not_armed_it_steps_and_guards_but_sends_no_command(rig: Rig) -> None:
    rig.run(30)
    assert rig.node.sent == []
    assert rig.node.arms == 0
    assert rig.node.idles == 30
    assert rig.node.state == "READY"
    assert (rig.stats.ticks, rig.stats.armed_ticks, rig.stats.sessions) == (30, 0, 0)
    assert rig.stats.interventions == {}
    assert not rig.recorder.history()["armed"].any()


def test_armed_it_sends_what_the_guard_admits_and_the_node_applies_just_that(rig: Rig) -> None:
    rig.run(3)
    rig.node.arm()
    rig.targets.values[:] = (2.0, -2.0)  # far beyond what the joints may do
    rig.run(400)
    assert rig.node.state == "ARMED"
    assert len(rig.node.sent) == rig.stats.armed_ticks == 400
    sent = np.array([np.rint(command.values / QUANTUM) for command in rig.node.sent], np.int64)
    applied = np.array(rig.node.applied[-399:], np.int64)
    assert (applied == sent[:-1]).all()  # sent in one period, applied in the next: the node's guard changed nothing
    assert np.ptp(applied, axis=0).min() > 1000
    rig.check_promise()
    rules = rig.stats.interventions
    assert rules["acceleration"] > 0
    assert set(rules) <= {"position", "velocity", "acceleration"}
    record = rig.recorder.history()
    touched = record["armed"] & (record["status"] != Status.PASS)
    assert max(rules.values()) <= touched.sum() <= sum(rules.values())


def test_commands_carry_the_observations_own_stamps_and_joint_names(rig: Rig) -> None:
    rig.run(2)
    rig.node.arm()
    for _ in range(20):
        rig.loop.tick()
        command = rig.node.sent[-1]
        assert command.t_us == rig.node.sample.sample_t_us
        assert command.stamp_ns == rig.node.stamp_ns
        assert command.names == JOINTS
    record = rig.recorder.history()
    assert record["t_us"][-1] == rig.node.sample.sample_t_us
    assert (record["tick_ns"] >= record["late_ns"]).all()
    assert (record["model_ns"] > 0).all()


def test_the_models_outputs_reach_the_joints_of_their_names(rig: Rig) -> None:
    rig.run(1)
    record = rig.recorder.history()
    fresh = Predictor(rig.policy.bundle)
    y = fresh.step(record["x"][0])
    assert record["proposal"][0].tolist() == [y[1], y[0]]  # the guard says lift, pan; the model pan, lift


def test_a_new_session_resets_the_policy(rig: Rig) -> None:
    rig.targets.values[:] = 0.5
    rig.run(50)
    rig.node.arm()
    rig.run(1)
    record = rig.recorder.history()
    fresh = Predictor(rig.policy.bundle)
    assert record["proposal"][50].tolist() == fresh.step(record["x"][50])[::-1].tolist()
    rig.run(20)
    rig.node.disarm()
    rig.run(100)
    assert rig.node.state == "READY"
    rig.node.arm()
    rig.run(1)
    fresh.reset()
    record = rig.recorder.history()
    assert record["proposal"][-1].tolist() == fresh.step(record["x"][-1])[::-1].tolist()
    assert rig.stats.sessions == 2
    rig.check_promise()


def test_stale_input_sends_no_command_and_steps_no_model(bundle: Bundle) -> None:
    rig = Rig(bundle, stale_ms=200)
    rig.run(2)
    rig.node.arm()
    rig.run(30)
    sent, state = len(rig.node.sent), rig.policy.snapshot().state["h"].copy()
    rig.node.mute = True
    rig.node.stamp_ns -= 300_000_000
    rig.run(10)
    assert len(rig.node.sent) == sent
    assert (rig.policy.snapshot().state["h"] == state).all()
    assert rig.stats.stale_ticks == 10
    assert rig.loop.align.stale == {"arm": 10, "targets": 0}
    assert rig.node.idles >= 10
    rig.node.mute = False
    rig.run(100)  # it returns: from where the node has gone meanwhile
    assert rig.node.state == "ARMED"
    rig.check_promise()
    rig.node.mute, rig.node.stamp_ns = True, 0
    rig.run(100)
    assert rig.node.state == "FAILSAFE"  # its own TTL
    rig.check_promise()


def test_a_failing_model_brakes_the_arm_and_the_run_goes_on(rig: Rig) -> None:
    rig.run(2)
    rig.node.arm()
    rig.targets.values[:] = (2.0, -2.0)
    rig.run(40)
    rig.targets.values[0] = 10.0  # the model computes 1/0
    rig.run(20)
    assert rig.stats.bad_outputs == 20
    assert rig.node.state == "ARMED"
    assert rig.recorder.history()["status"][-20:].tolist().count(Status.BRAKE) > 3
    assert rig.stats.interventions["non_finite"] == 20
    assert np.isnan(rig.recorder.history()["proposal"][-1]).all()
    rig.targets.values[0] = 0.1
    rig.run(20)
    assert rig.stats.bad_outputs == 20
    assert rig.recorder.history()["status"][-1] in (Status.PASS, Status.CLAMPED)
    rig.check_promise()


def test_a_bad_input_never_reaches_the_model(rig: Rig) -> None:
    rig.run(2)
    rig.node.arm()
    rig.run(10)
    state = rig.policy.snapshot().state["h"].copy()
    rig.targets.values[1] = np.nan
    rig.run(5)
    assert rig.stats.bad_inputs == 5
    assert (rig.policy.snapshot().state["h"] == state).all()
    assert rig.node.state == "ARMED"


def test_a_model_that_fails_for_good_stops_the_arm(bundle: Bundle) -> None:
    rig = Rig(bundle, nan_ticks=15)
    rig.run(2)
    rig.node.arm()
    rig.targets.values[:] = (2.0, -2.0)
    rig.run(60)
    sent = len(rig.node.sent)
    rig.targets.values[0] = 10.0
    rig.run(14)
    assert rig.node.state == "ARMED"
    rig.run(2)
    assert rig.node.estops >= 1
    assert len(rig.node.sent) == sent + 14  # and not one command after the latch
    rig.run(60)
    assert rig.node.state == "ESTOP"
    rig.check_promise()
    # CLEAR takes both the node and the guard; ARM is a wish of its own.
    rig.targets.values[0] = 0.0
    rig.node.clear()
    rig.guard.clear()
    rig.run(3)
    assert rig.node.state == "READY"
    rig.node.arm()
    rig.run(20)
    assert rig.node.state == "ARMED"
    assert len(rig.node.sent) > sent + 14


def test_a_dry_run_reads_steps_guards_and_records_only(bundle: Bundle) -> None:
    rig = Rig(bundle, dry=True)
    rig.targets.values[:] = (2.0, -2.0)
    rig.run(100)
    assert rig.node.arms == rig.node.idles == rig.node.estops == len(rig.node.sent) == 0
    assert rig.node.state == "READY"
    record = rig.recorder.history()
    assert len(record["sent"]) == 100
    sent = np.rint(record["sent"] / QUANTUM).astype(np.int64)
    for i, cell in enumerate(rig.guard.lattice):
        assert np.abs(np.diff(sent[:, i], 2)).max() <= cell.h
    assert np.ptp(sent[:, 0]) > 0


def test_a_silent_device_is_counted(rig: Rig) -> None:
    class Silent:
        overruns = 0

        def wait(self) -> bool:
            return False

    rig.run(1)
    rig.loop.pace = Silent()
    rig.run(3)
    assert rig.stats.silent == 3


def test_model_and_guard_must_agree_about_the_joints(bundle: Bundle) -> None:
    guard = Guardrails.builder(rate_hz=500).joint("pan", position=(-1, 1), velocity=1, acceleration=9).build()
    with pytest.raises(GuardrailError, match=r"builder: guard joints \['pan'\] and model outputs \['pan"):
        Loop(Predictor(bundle), guard, Align((), ()), None, Pace(Node()), Recorder(1, 4, 1, 1))


def test_the_recorder_keeps_the_newest_in_order_of_time(tmp_path: Path) -> None:
    recorder = Recorder(4, 1, 1, 1)
    one = np.zeros(1, np.float32)
    record = HEADER.pack(Status.CLAMPED, State.HOLD, Event.LATE, 0, 0.5, 0, 0) + b"\x04"
    verdict = Verdict(Layout(("a",), ({},)), record)
    for k in range(6):
        recorder.add(Observation(k, k, ("a",), one, np.ones(1, np.bool_)), verdict, proposal=one + k, armed=True)
    assert recorder.history()["proposal"][:, 0].tolist() == [2, 3, 4, 5]
    assert recorder.history()["rules"][:, 0].tolist() == [4, 4, 4, 4]
    assert recorder.history()["state"].tolist() == [State.HOLD] * 4
    assert recorder.history()["stamp_ns"].tolist() == [2, 3, 4, 5]
    recorder.save(tmp_path / "r.npz", joints=["a"])
    with np.load(tmp_path / "r.npz") as file:
        assert file["stamp_ns"].tolist() == [2, 3, 4, 5]
        assert file["joints"].tolist() == ["a"]
