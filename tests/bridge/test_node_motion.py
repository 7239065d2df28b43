"""The node in motion, in virtual time: COMMAND, misses, TTL and FAILSAFE (docs/protocol.md)."""

from __future__ import annotations

import numpy as np
import pytest
from nodes import CLOSE, FAR, arm_payload, motion

from kizzasi_bridge.protocol import (
    INVALID,
    AckResult,
    Fault,
    FaultReport,
    MsgType,
    NodeState,
)

# ---- COMMAND -------------------------------------------------------------------------------------------------


def test_commands_are_guarded_and_interpolated(node) -> None:
    node.armed()
    path, out = [node.applied.copy()], []
    for _ in range(250):
        node.command(FAR)
        for _ in range(2):
            node.tick()
            out.append(node.out.copy())
        path.append(node.applied.copy())
        assert (node.out == node.applied).all(), "reached on the last tick of the period"
    q = np.array(path, dtype=np.int64)
    assert np.abs(q[-1] - FAR).max() <= CLOSE
    assert np.abs(np.diff(q, axis=0)).max() == 1000
    assert np.abs(np.diff(q, 2, axis=0)).max() == 50
    ticks = np.array(out, dtype=np.int64)
    middle = (q[:-1] + q[1:]) / 2
    assert np.abs(ticks[0::2] - middle).max() <= 0.5
    assert node.now.misses == 0


def test_clamp_mask_names_the_channels(node) -> None:
    node.armed()
    node.command((90_000, 10))
    node.tick(2)
    assert node.now.clamp_mask == 1


def test_newest_wins_within_a_period(node) -> None:
    node.armed()
    node.command((50, 50), seq=100)
    node.command((20, -20), seq=101)
    node.tick(2)
    assert tuple(node.applied) == (20, -20)
    assert (node.now.applied_seq, node.now.misses, node.now.ignored) == (101, 0, 0)


def test_old_and_duplicate_seq_are_ignored_across_the_wrap(node) -> None:
    node.armed()
    node.command((10, 10), seq=0xFFFF)
    node.command((40, 40), seq=0xFFFF)
    node.command((40, 40), seq=0xFFFE)
    node.command((40, 40), seq=0x8000)
    node.tick(2)
    assert tuple(node.applied) == (10, 10)
    assert node.now.ignored == 3
    node.command((20, 20), seq=0)
    node.tick(2)
    assert tuple(node.applied) == (20, 20)
    assert node.now.ignored == 3


def test_observation_must_not_lie_in_the_future_nor_go_back(node) -> None:
    node.armed()
    node.tick(4)
    node.command((10, 10), obs=node.t_us + 1)
    node.command((10, 10), obs=node.t_us - 1000)
    node.command((20, 20), obs=node.t_us - 2000)
    node.tick(2)
    assert tuple(node.applied) == (10, 10)
    assert node.now.ignored == 2
    node.command((30, 30), obs=node.t_us - 3000)  # the same stamp again is fine: one observation, two commands
    node.tick(2)
    assert tuple(node.applied) == (30, 30)


def test_stale_on_arrival_is_counted_and_does_nothing(node) -> None:
    node.armed()
    node.tick(40)
    node.command(FAR, obs=node.t_us - 20_000, ttl_ms=20)
    node.command(FAR, ttl_ms=0)
    node.tick(2)
    assert (node.now.stale, node.now.ignored) == (2, 0)
    assert tuple(node.applied) == (0, 0)


def test_deadline_counts_from_the_observation_and_is_capped(node) -> None:
    node.armed()
    node.tick(50)
    seen = node.t_us - 40_000
    node.command((0, 0), obs=seen, ttl_ms=60_000)  # ttl_max is 100 ms
    while node.t_us - seen < 99_000:
        node.tick()
    assert node.now.state == NodeState.ARMED
    node.tick(2)
    assert (node.now.state, node.now.fault) == (NodeState.FAILSAFE, Fault.TTL)


def test_heartbeats_do_not_extend_a_command(node) -> None:
    node.armed()
    node.command((0, 0), ttl_ms=20)
    for _ in range(25):
        node.send(MsgType.HEARTBEAT)
        node.tick()
    assert node.now.fault == Fault.TTL


@pytest.mark.parametrize("before_wrap_us", [1000, 30_000, 100_000])
def test_a_session_across_the_wrap_of_the_clock(make_session, before_wrap_us: int) -> None:
    node = make_session(start_us=2**32 - before_wrap_us).armed()
    node.stream(FAR, 300)
    assert node.t_us < 2**31
    assert np.abs(node.applied - FAR).max() <= CLOSE
    assert (node.now.state, node.now.ignored, node.now.stale) == (NodeState.ARMED, 0, 0)
    node.tick(110)
    assert node.now.fault == Fault.TTL


def test_wrong_length_and_wrong_major_are_ignored(node) -> None:
    node.armed()
    node.command((1, 2, 3))
    node.command((1,))
    node.command((1, 1), flags=0x20)
    node.tick(2)
    assert node.now.ignored == 3
    assert tuple(node.applied) == (0, 0)


@pytest.mark.parametrize("position", [0, 1])
def test_an_invalid_value_trips_failsafe(node, position: int) -> None:
    node.armed()
    node.stream(FAR, 10)
    values = list(FAR)
    values[position] = INVALID
    node.command(values)
    node.tick(2)
    assert (node.now.state, node.now.fault) == (NodeState.FAILSAFE, Fault.INVALID_VALUE)


def test_an_invalid_value_in_a_void_command_does_nothing(node) -> None:
    node.armed()
    node.command((0, 0), seq=10)
    node.command((INVALID, 0), session=node.session ^ 1, seq=11)
    node.command((INVALID, 0), seq=9)
    node.tick(2)
    assert node.now.state == NodeState.ARMED


# ---- miss, TTL, FAILSAFE -------------------------------------------------------------------------------------


def test_misses_coast_for_the_budget_then_brake(node) -> None:
    node.armed()
    node.stream(FAR, 15)
    v = np.abs(np.diff(motion(node, 2), axis=0))[-1][0]  # first miss
    steps = np.abs(np.diff(motion(node, 20), axis=0))[:, 0]
    assert v == 750
    assert list(steps[:4]) == [750, 750, 700, 650], "two more coasting periods of a budget of three, then brake"
    assert node.now.misses == 11


@pytest.mark.parametrize(("step", "coasts"), [(750, 3), (700, 1)])
def test_a_brake_does_not_renew_the_miss_budget(node, step: int, coasts: int) -> None:
    """Two misses of a budget of three, a command, and misses again: how often it coasts depends on the command."""
    node.armed()
    node.stream(FAR, 15)
    motion(node, 4)
    node.command(node.applied + np.sign(np.asarray(FAR) - node.applied) * step)
    node.tick(2)
    steps = np.abs(np.diff(motion(node, 16), axis=0))[:, 0]
    assert list(steps[:coasts] - steps[0]) == [0] * coasts
    assert steps[coasts] < steps[0]


def test_a_returning_stream_continues_from_the_applied_value(node) -> None:
    node.armed()
    node.stream(FAR, 15)
    node.tick(12)
    before = node.applied.copy()
    node.stream(FAR, 1)
    assert np.abs(node.applied - before).max() <= 750
    node.stream(FAR, 250)
    assert np.abs(node.applied - FAR).max() <= CLOSE
    assert node.now.state == NodeState.ARMED


def test_ttl_brakes_at_a_and_latches(node) -> None:
    node.armed()
    node.stream(FAR, 15)
    node.tick(100)
    assert (node.now.state, node.now.fault) == (NodeState.FAILSAFE, Fault.TTL)
    held = node.applied.copy()
    node.command(FAR)
    node.tick(100)
    assert (node.applied == held).all()
    assert node.enabled == 3, "FAILSAFE holds"
    assert node.request(MsgType.ARM, arm_payload(node)).result == AckResult.WRONG_STATE


@pytest.mark.parametrize(
    ("trip", "fault"),
    [("host", Fault.HOST), (2, Fault.ACTUATOR), (4, Fault.SENSOR), (8, Fault.SENSOR), ("value", Fault.INVALID_VALUE)],
)
def test_every_fault_brakes_within_limits_and_holds(node, trip, fault) -> None:
    node.armed()
    node.stream(FAR, 30)
    start = motion(node, 0)
    if trip == "host":
        node.send(MsgType.FAULT, FaultReport(7, "gripper hot").pack())
    elif trip == "value":
        node.command((INVALID, 0))
    else:
        node.inputs(trip)
    steps = np.abs(np.diff(np.vstack([start, motion(node, 80)[1:]]), axis=0))
    assert (node.now.state, node.now.fault) == (NodeState.FAILSAFE, fault)
    assert list(steps[:3, 0]) == [950, 900, 850]
    assert (steps[-1] == 0).all()
    assert node.enabled == 3


@pytest.mark.parametrize("trip", [2, 4])
def test_faults_latch_in_ready_too(node, trip) -> None:
    node.ready()
    node.inputs(trip)
    node.tick(2)
    node.inputs(0)
    node.tick(2)
    assert node.now.state == NodeState.FAILSAFE
