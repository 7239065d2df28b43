"""What the loop tells the guard when something is missing, lost, late or broken: real guard and node, virtual time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from looprig import INPUTS, Ramp, Rig, plant_bugs

from kizzasi_edge.bundle import Bundle, write_bundle
from kizzasi_edge.guardrails import Status
from kizzasi_edge.guardrails.faults import Event, State


@pytest.fixture
def rig() -> Rig:
    """On its way to a far target."""
    rig = Rig(Ramp(), stale_ms=200, nan_ticks=20)
    rig.run(5)
    rig.node.arm()
    rig.targets.values[:] = (0.25, -0.25)
    rig.run(50)
    assert state(rig) is State.NOMINAL
    assert np.abs(np.diff(rig.node.applied[-2:], axis=0)).min() > 100, "it does not move"
    return rig


def state(rig: Rig) -> State:
    return rig.guard.state


def at_rest(rig: Rig) -> bool:
    return not np.diff(rig.node.applied[-3:], axis=0).any()


@pytest.mark.parametrize(
    "broken",
    [
        np.zeros(3, np.float32),
        np.zeros((1, 2), np.float32),
        np.float32(0),
        "nothing",
        ZeroDivisionError("a bug of the model"),
        RuntimeError("a bug of its runtime"),
    ],
    ids=str,
)
def test_what_is_no_proposal_brakes_the_arm_and_latches_when_it_lasts(rig: Rig, broken: Any) -> None:
    rig.policy.broken = broken
    rig.run(19)
    assert rig.stats.bad_outputs == rig.guard.faults.events[Event.NON_FINITE] == 19
    assert rig.stats.last_error.startswith("model: ")
    assert state(rig) is State.BRAKE
    assert np.isnan(rig.recorder.history()["proposal"][-19:]).all()
    rig.run(1)
    assert state(rig) is State.ESTOP
    assert rig.node.estops == 1
    rig.run(60)
    assert rig.node.state == "ESTOP"
    assert at_rest(rig)
    rig.check_promise()


def test_a_stale_input_is_the_guards_fault_too(rig: Rig) -> None:
    sent = len(rig.node.sent)
    rig.node.mute = True
    rig.node.stamp_ns -= 300_000_000
    rig.run(2)
    assert state(rig) is State.HOLD
    rig.run(8)
    assert state(rig) is State.BRAKE
    assert rig.guard.faults.events[Event.STALE] == rig.stats.stale_ticks == 10
    assert len(rig.node.sent) == sent
    # It stands on what the node has made of the silence, not on what it would have sent.
    applied, step = rig.node.applied[-1], np.diff(rig.node.applied[-2:], axis=0)[0]
    assert np.array_equal(rig.guard.motion[0] - rig.guard.motion[1], applied)
    assert (np.abs(rig.guard.motion[1]) <= np.abs(step)).all()
    rig.node.mute = False
    rig.run(30)
    assert state(rig) is State.NOMINAL
    assert rig.node.state == "ARMED"
    rig.check_promise()


def test_silence_that_lasts_latches(rig: Rig) -> None:
    rig.node.mute, rig.node.stamp_ns = True, 0
    rig.run(200)
    assert rig.node.state == "FAILSAFE"  # its own TTL
    assert state(rig) is State.STOPPED
    assert at_rest(rig)


def test_before_the_start_nothing_latches() -> None:
    rig = Rig(Ramp(), stale_ms=200, nan_ticks=20)
    rig.run(5)
    rig.node.mute, rig.node.stamp_ns = True, 0
    rig.run(200)
    rig.node.mute, rig.policy.broken = False, RuntimeError()
    rig.run(200)
    assert state(rig) < State.STOPPED
    rig.policy.broken = None
    rig.run(2)
    rig.node.arm()
    rig.run(5)
    assert (state(rig), rig.node.state) == (State.NOMINAL, "ARMED")


@pytest.mark.parametrize("how", ["cut", "failsafe"])
def test_a_session_that_nobody_ended_stops_the_guard(rig: Rig, how: str) -> None:
    if how == "cut":
        rig.node.lost = True
    else:
        rig.node.node.inputs(2)  # actuator fault
    rig.run(3)
    assert state(rig) is State.STOPPED
    assert rig.guard.faults.memory.cause == Event.HEARTBEAT_LOSS
    assert rig.guard.faults.events[Event.HEARTBEAT_LOSS] == 1
    rig.node.lost = False
    rig.node.node.inputs(0)
    rig.node.node.tick(2 * 150)
    rig.run(5)
    assert rig.node.state == "FAILSAFE"
    clear(rig)
    resets = rig.policy.resets
    rig.node.arm()
    rig.run(50)
    assert rig.policy.resets > resets
    assert (state(rig), rig.node.state) == (State.NOMINAL, "ARMED")
    assert not at_rest(rig)
    # While the cable was cut or the test let time pass, nobody looked: the promise is about what is sent.
    assert rig.stats.sessions == 2


def clear(rig: Rig) -> None:
    """As the operator's `clear` does."""
    rig.node.clear()
    rig.guard.clear()
    rig.run(3)
    assert rig.node.state == "READY"
    assert state(rig) in (State.NOMINAL, State.REARM)


def test_an_operators_end_is_no_loss(rig: Rig) -> None:
    rig.node.disarm()
    rig.run(100)
    assert rig.node.state == "READY"
    assert state(rig) is State.NOMINAL
    assert Event.HEARTBEAT_LOSS not in rig.guard.faults.events


def test_an_emergency_stop_elsewhere_latches_the_guard_and_a_proposal_at_rest_rearms_it(rig: Rig) -> None:
    rig.node.node.inputs(1)  # the button at the robot
    rig.run(3)
    assert rig.node.state == state(rig).name == "ESTOP"
    rig.run(150)
    rig.node.node.inputs(0)
    rig.run(2)
    assert state(rig) is State.ESTOP
    clear(rig)
    rig.node.arm()
    rig.run(60)
    assert state(rig) is State.NOMINAL
    assert not at_rest(rig)
    rig.check_promise()


def test_cleared_it_waits_for_a_proposal_that_asks_for_no_motion(bundle: Bundle) -> None:
    """This model wants to be far away at once, always: it is never followed again, and the arm holds."""
    rig = Rig(bundle)
    rig.targets.values[:] = (2.0, -2.0)
    rig.run(3)
    rig.node.arm()
    rig.run(40)
    rig.guard.estop()
    rig.run(150)
    clear(rig)
    rig.node.arm()
    rig.run(100)
    assert state(rig) is State.REARM
    assert rig.node.state == "ARMED"
    assert at_rest(rig)


def test_skipped_periods_are_told_to_the_guard(rig: Rig) -> None:
    class Late:
        overruns = 0

        def wait(self) -> int:
            for _ in range(4):
                rig.node.wait(1.0)
            return 4

    pace, rig.loop.pace = rig.loop.pace, Late()
    rig.run(5)
    assert rig.guard.faults.events[Event.LATE] == 15
    assert state(rig) is State.NOMINAL  # the newest state was answered in time
    rig.loop.pace = pace
    rig.run(10)
    rig.check_promise()


@pytest.fixture
def bugs(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    return plant_bugs(monkeypatch)


def test_a_guard_that_cannot_follow_but_brake_stops_the_arm(bugs: set[str], rig: Rig) -> None:
    bugs.add("follow")
    rig.run(3)
    bugs.clear()
    rig.run(150)
    assert state(rig) is State.STOPPED
    assert rig.guard.faults.memory.cause == Event.EXCEPTION
    assert rig.stats.guard_exceptions == 0  # it saw to it itself
    assert rig.node.state == "ARMED"
    assert at_rest(rig)
    record = rig.recorder.history()
    assert (record["state"][-150:] == State.STOPPED).all()
    assert record["status"][-1] in (Status.BRAKE, Status.HOLD)
    rig.check_promise()


def test_a_guard_that_raises_is_braked_by_the_loop(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: Any, **__: Any) -> Any:
        raise MemoryError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(rig.guard, "step_into", bug)
        rig.run(3)
    assert rig.stats.guard_exceptions == 3
    assert rig.stats.last_error == "guard: MemoryError: a bug"
    assert rig.recorder.history()["state"][-3:].tolist() == [State.STOPPED] * 3
    rig.run(150)
    assert state(rig) is State.STOPPED
    assert rig.guard.faults.events[Event.EXCEPTION] == 3
    assert (rig.node.state, rig.node.estops) == ("ARMED", 0)
    assert at_rest(rig)
    rig.check_promise()


def test_a_guard_that_cannot_even_brake_leaves_it_to_the_node(bugs: set[str], rig: Rig) -> None:
    bugs |= {"follow", "coast", "brake"}
    sent = len(rig.node.sent)
    rig.run(1)
    assert rig.node.estops == 1
    assert len(rig.node.sent) == sent
    assert rig.stats.guard_exceptions == 2  # of the step, and of the brake
    bugs.clear()
    rig.run(150)
    assert rig.node.state == "ESTOP"
    assert at_rest(rig)
    rig.check_promise()


def test_before_the_start_a_bug_of_the_guard_ends_the_run(bugs: set[str]) -> None:
    rig = Rig(Ramp())
    rig.run(3)
    bugs |= {"follow", "brake"}
    with pytest.raises(MemoryError):
        rig.run(1)


def test_a_measured_nan_before_the_start_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(Ramp())
    rig.run(3)
    read = rig.node.read

    def blind() -> Any:
        seen = read()
        assert seen is not None
        seen.values[:] = np.nan
        return seen

    with monkeypatch.context() as patch:
        patch.setattr(rig.node, "read", blind)
        rig.run(3)
    rig.run(3)
    assert state(rig) is State.NOMINAL


def test_a_dry_run_coasts_and_brakes_through_silence_on_its_own() -> None:
    rig = Rig(Ramp(), stale_ms=200, dry=True)
    rig.node.wait(1.0)
    rig.node.mute, rig.node.stamp_ns = True, 1
    rig.run(5)  # nothing was seen yet: there is nothing to brake
    assert Event.STALE not in rig.guard.faults.events
    rig.node.mute = False
    rig.targets.values[:] = 0.2
    rig.run(60)
    rig.node.mute = True
    rig.node.stamp_ns -= 300_000_000
    rig.run(20)
    assert rig.guard.faults.events[Event.STALE] == 20
    assert state(rig) is State.BRAKE


@pytest.fixture
def bundle(tmp_path: Any, build: Any, arm_core: bytes) -> Bundle:
    return write_bundle(tmp_path / "m.onnx", arm_core, build.manifest_for(arm_core, INPUTS, build.outputs))


def test_a_device_is_told_where_the_joints_are_each_period_also_when_the_guard_is_latched() -> None:
    rig = Rig(Ramp())
    rig.run(5)
    assert len(rig.node.placed) == 5
    rig.node.arm()
    rig.run(5)
    assert len(rig.node.placed) == 10
    ticks = rig.loop.stats.ticks
    rig.loop.attend()  # as at the end of a run
    assert len(rig.node.placed) == 11
    assert rig.loop.stats.ticks == ticks
    rig.node.estop()
    rig.run(20)
    assert rig.guard.state is State.ESTOP
    before = len(rig.node.placed)
    rig.run(5)
    assert len(rig.node.placed) == before + 5
