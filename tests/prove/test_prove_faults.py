"""The fault machine against a model of it that keeps no counters: it looks back over the whole history each period."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kizzasi_edge.guardrails import faults
from kizzasi_edge.guardrails.faults import TABLE, Action, Event, FaultLimits, Memory, Row, State, advance

NONE = Event(0)
ESTOPS = Event.ESTOP
STOPS = Event.TRACKING_STOP | Event.ACTIVE_LONG | Event.EXCEPTION | Event.HEARTBEAT_LOSS
SENSOR = Event.SENSOR_NON_FINITE | Event.SENSOR_JUMP | Event.SENSOR_RANGE
CLOCKS = Event.STALE | Event.CLOCK_BACKWARD | Event.CLOCK_JUMP
BLIND = Event.LATE | CLOCKS
FAULTS = [event for event in Event if event not in (Event.CLEAR, Event.ZERO_COMMAND)]


class Model:
    """The rules of docs/faults.md, evaluated from the history of events and actions."""

    def __init__(self, limits: FaultLimits) -> None:
        self.limits = limits
        self.history: list[Event] = []
        self.actions: list[str] = []
        self.lock = ""

    def run(self, of: Event, *, unknown: Event = NONE, settle: int = 1) -> int:
        """Periods with one of the events, back to where the opposite was shown for `settle` periods; 0 if it is now."""
        count = gap = 0
        for events in reversed(self.history):
            if events & of:
                count, gap = count + 1, 0
            elif not events & unknown:
                gap += 1
                if gap == settle:
                    break
        return count

    def room_to_coast(self) -> bool:
        coasts = 0
        for action in reversed(self.actions):
            if action == "brake":
                return False
            if action != "coast":
                break
            coasts += 1
        return coasts < self.limits.miss_budget

    def step(self, events: Event, at_rest: bool) -> str:
        self.history = [*self.history[-300:], events]
        action = self.react(events, at_rest)
        self.actions = [*self.actions[-300:], action]
        return action

    def react(self, events: Event, at_rest: bool) -> str:
        limits = self.limits
        nan = self.run(Event.NON_FINITE, unknown=BLIND)
        late = self.run(Event.LATE, unknown=CLOCKS)
        clocks = self.run(CLOCKS)
        sensor = self.run(SENSOR, unknown=BLIND, settle=limits.settle_ticks)
        infeasible = self.run(Event.INFEASIBLE, unknown=BLIND | SENSOR | Event.NON_FINITE)
        if events & ESTOPS or nan >= limits.nan_ticks:
            self.lock = "estop"
            return "brake"
        if (
            events & STOPS
            or max(late, clocks) >= limits.hang_ticks
            or sensor >= limits.fault_ticks
            or infeasible >= limits.infeasible_ticks
        ):
            self.lock = self.lock if self.lock in ("stopped", "estop") else "stopped"
            return "brake"
        sound = not (nan or late or clocks or sensor or infeasible)
        if self.lock:
            key = Event.ZERO_COMMAND if self.lock == "rearm" else Event.CLEAR
            if not (at_rest and sound and events & key):
                return "brake"
            self.lock = "" if self.lock == "rearm" else "rearm"
            if self.lock:
                return "brake"
        if sensor or infeasible:
            return "brake"
        if clocks or ((late or nan) and not events & Event.TEMPORAL):
            doubtful = nan > 1 and not events & Event.TEMPORAL
            return "coast" if self.room_to_coast() and not doubtful else "brake"
        if events & Event.TEMPORAL:
            return "fallback"
        return "derated" if self.run(Event.TRACKING_WARN, settle=limits.settle_ticks) else "follow"


ACTION = {
    "follow": Action.FOLLOW,
    "derated": Action.FOLLOW_DERATED,
    "fallback": Action.FALLBACK,
    "coast": Action.COAST,
    "brake": Action.BRAKE,
}
LOCK = {State.STOPPED: "stopped", State.ESTOP: "estop", State.REARM: "rearm"}


class Pair:
    """The machine and the model, side by side."""

    def __init__(self, limits: FaultLimits) -> None:
        self.limits, self.memory, self.model = limits, Memory(), Model(limits)

    def step(self, events: Event, at_rest: bool) -> None:
        before = self.memory
        self.memory = advance(before, events, self.limits, at_rest=at_rest)
        action = self.model.step(events, at_rest)
        assert self.memory.action == ACTION[action], (before, events, at_rest, self.memory)
        assert LOCK.get(self.memory.state, "") == self.model.lock
        if action == "follow":
            assert (self.memory.state == State.RECOVERY) == bool(events & Event.OUTSIDE)


def some_limits(rng: random.Random) -> FaultLimits:
    return FaultLimits(rng.randrange(6), *(rng.randint(1, 9) for _ in range(5)))


def some_events(rng: random.Random, chance: float) -> Event:
    events = NONE
    while rng.random() < chance:
        events |= rng.choice(list(Event))
    return events


# ---- every row, many seeds ------------------------------------------------------------------------------------------


def table_row(row: Row, seed: int) -> None:
    """After any past: the row's event is answered in its period, lasts as the table says, and ends as it says."""
    rng = random.Random(seed)
    limits = some_limits(rng)
    pair = Pair(limits)
    for _ in range(rng.randrange(40)):
        pair.step(some_events(rng, 0.3), rng.random() < 0.5)
    for _ in range(limits.settle_ticks):  # what is not latched ends by itself
        pair.step(NONE, True)
    if pair.memory.state >= State.REARM:
        pair.step(Event.CLEAR, True)
        pair.step(Event.ZERO_COMMAND, True)
    assert pair.memory == Memory()

    lasting = getattr(limits, row.lasting) if row.lasting else 0
    bad = rng.randint(1, 12)
    for period in range(1, bad + 1):
        event = rng.choice(list(row.events))
        pair.step(event, rng.random() < 0.5)
        coasting = period <= min(row.coasts, limits.miss_budget)
        expected = row.latches if lasting and period >= lasting else State.HOLD if coasting else row.demands
        assert pair.memory.state == expected
        if period == 1:
            assert pair.memory.cause == event
    latched = pair.memory.state >= State.STOPPED
    for quiet in range(1, limits.settle_ticks + 1):
        held = latched or (row.settles and quiet < limits.settle_ticks)
        before = pair.memory.state
        pair.step(NONE, True)
        assert pair.memory.state == (before if held else State.NOMINAL)
    if latched:
        pair.step(Event.ZERO_COMMAND, True)  # not before CLEAR
        pair.step(Event.CLEAR, False)  # not in motion
        assert pair.memory.state == before
        pair.step(Event.CLEAR | Event.ZERO_COMMAND, True)
        assert pair.memory.state == State.REARM
        pair.step(NONE, True)
        assert pair.memory.state == State.REARM
        pair.step(Event.ZERO_COMMAND, True)
    assert pair.memory == Memory()


def name(row: Row) -> str:
    return str(row.events)


@pytest.mark.parametrize("row", TABLE, ids=name)
def test_row_holds_for_300_seeds(row: Row) -> None:
    for seed in range(300):
        table_row(row, seed)


@pytest.mark.prove
@pytest.mark.parametrize("row", TABLE, ids=name)
def test_row_holds_for_10_000_seeds(row: Row) -> None:
    for seed in range(10_000):
        table_row(row, 1_000_000 + seed)


def storm(seed: int) -> None:
    """Bursts of several events at once, over limits so small that everything latches now and then."""
    rng = random.Random(seed)
    pair = Pair(some_limits(rng))
    for _ in range(40):
        burst = some_events(rng, 0.55)
        for _ in range(rng.randint(1, 6)):
            keys = rng.choice((NONE, NONE, Event.CLEAR, Event.ZERO_COMMAND))
            pair.step((burst if rng.random() < 0.8 else some_events(rng, 0.5)) | keys, rng.random() < 0.7)


def test_storms() -> None:
    for seed in range(150):
        storm(seed)


@pytest.mark.prove
def test_many_storms() -> None:
    for seed in range(10_000):
        storm(1_000_000 + seed)


# ---- all that can be reached ----------------------------------------------------------------------------------------


def explore(*rows: Row) -> int:
    """Every memory that events of these rows can lead to, every input in each: the promises hold on every step."""
    limits = FaultLimits(1, 3, 3, 2, 2, 2)
    singles = [next(iter(row.events)) for row in rows] + [Event.CLEAR, Event.ZERO_COMMAND]
    inputs = [NONE]
    for single in singles:
        inputs += [events | single for events in inputs]
    seen, todo = {Memory()}, [Memory()]
    while todo:
        memory = todo.pop()
        for events in inputs:
            for at_rest in (False, True):
                after = advance(memory, events, limits, at_rest=at_rest)
                promises(memory, events, at_rest, after, limits)
                if after not in seen:
                    seen.add(after)
                    todo.append(after)
    for memory in seen:
        recovers(memory, limits)
    return len(seen)


def promises(memory: Memory, events: Event, at_rest: bool, after: Memory, limits: FaultLimits) -> None:
    was, now, action = memory.state, after.state, after.action
    told = int(events)
    if told & (ESTOPS | STOPS | SENSOR | Event.INFEASIBLE).value:
        assert action == Action.BRAKE
    if told & ESTOPS.value or was == State.ESTOP != now:
        assert now == State.ESTOP or (now == State.REARM and told & Event.CLEAR.value and at_rest)
    if told & (STOPS | ESTOPS).value:
        assert now >= State.STOPPED
    if told & (CLOCKS | Event.NON_FINITE | Event.LATE).value:
        assert action in (Action.COAST, Action.BRAKE, Action.FALLBACK)
        assert action != Action.FALLBACK or (told & Event.TEMPORAL.value and not told & CLOCKS.value)
    if action == Action.COAST:
        assert memory.action != Action.BRAKE
        assert after.coasted == memory.coasted + 1 <= limits.miss_budget
    if action == Action.FOLLOW:
        assert not told & (Event.TEMPORAL | Event.TRACKING_WARN).value
    if was >= State.STOPPED and now < was:
        assert now == State.REARM
        assert told & Event.CLEAR.value
        assert at_rest
    if was == State.REARM and now < was:
        assert told & Event.ZERO_COMMAND.value
        assert at_rest
    if now == State.NOMINAL:
        assert after == Memory()


def recovers(memory: Memory, limits: FaultLimits) -> None:
    """Without faults every state ends: by itself, or by CLEAR at rest and then ZERO_COMMAND."""
    for _ in range(limits.settle_ticks):
        memory = advance(memory, NONE, limits, at_rest=True)
    if memory.state >= State.STOPPED:
        memory = advance(memory, Event.CLEAR, limits, at_rest=True)
    assert memory.state in (State.NOMINAL, State.REARM)
    assert advance(memory, Event.ZERO_COMMAND, limits, at_rest=True) == Memory()


@pytest.mark.parametrize("first", range(len(TABLE)))
def test_every_pair_of_rows_exhaustively(first: int) -> None:
    for other in TABLE[first + 1 :]:
        assert explore(TABLE[first], other) >= 4


@pytest.mark.prove
@pytest.mark.parametrize("first", range(len(TABLE)))
def test_every_three_rows_exhaustively(first: int) -> None:
    for second in range(first + 1, len(TABLE)):
        for third in TABLE[second + 1 :]:
            assert explore(TABLE[first], TABLE[second], third) >= 8


# ---- hypothesis looks for a way round -------------------------------------------------------------------------------

COUNT = st.integers(1, 6)


class Operator(RuleBasedStateMachine):
    @initialize(budget=st.integers(0, 4), counts=st.tuples(COUNT, COUNT, COUNT, COUNT, COUNT))
    def start(self, budget: int, counts: tuple[int, int, int, int, int]) -> None:
        self.pair = Pair(FaultLimits(budget, *counts))
        self.coasted = 0
        self.keys: list[Event] = []

    def step(self, events: Event, at_rest: bool) -> None:
        was = self.pair.memory.state
        self.pair.step(events, at_rest)
        state, action = self.pair.memory.state, self.pair.memory.action
        self.coasted = self.coasted + 1 if action == Action.COAST else 0
        if state >= State.STOPPED:
            self.keys = []
        elif was >= State.REARM:  # what let it go, and in which order
            self.keys += [key for key in (Event.CLEAR, Event.ZERO_COMMAND) if events & key and at_rest]

    @rule(faults=st.sets(st.sampled_from(FAULTS), max_size=3), periods=st.integers(1, 8), at_rest=st.booleans())
    def fault(self, faults: set[Event], periods: int, at_rest: bool) -> None:
        events = NONE
        for event in faults:
            events |= event
        for _ in range(periods):
            self.step(events, at_rest)

    @rule(at_rest=st.booleans())
    def clear(self, at_rest: bool) -> None:
        self.step(Event.CLEAR, at_rest)

    @rule(at_rest=st.booleans())
    def zero(self, at_rest: bool) -> None:
        self.step(Event.ZERO_COMMAND, at_rest)

    @invariant()
    def never_coasts_beyond_the_budget(self) -> None:
        assert self.coasted <= self.pair.limits.miss_budget

    @invariant()
    def counters_are_bounded(self) -> None:
        assert max(self.pair.memory.runs) <= 6
        assert max(self.pair.memory.quiet) < 6
        assert self.pair.memory.coasted <= self.pair.limits.miss_budget


TestOperator = Operator.TestCase
TestOperator.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


# ---- every branch is taken ------------------------------------------------------------------------------------------


def test_all_branches_of_the_machine_are_covered(tmp_path: Path) -> None:
    pytest.importorskip("coverage")
    source = Path(faults.__file__)
    tests = Path(__file__).parents[1]
    env = {**os.environ, "COVERAGE_FILE": str(tmp_path / "coverage")}
    coverage = [sys.executable, "-m", "coverage"]
    run = ["run", "--branch", f"--include={source}", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k"]
    chosen = "storms or test_faults"
    cwd = tests.parent
    done = subprocess.run(
        [*coverage, *run, chosen, str(tests / "edge" / "test_faults.py"), __file__],
        capture_output=True, text=True, env=env, cwd=cwd, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    report = subprocess.run(
        [*coverage, "report", "--fail-under=100", "-m"], capture_output=True, text=True, env=env, cwd=cwd, check=False
    )
    assert report.returncode == 0, report.stdout
    assert "faults.py" in report.stdout
