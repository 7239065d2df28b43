"""The fault machine, row by row and pair by pair, as docs/faults.md tells it; the search is in tests/prove."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.faults import (
    TABLE,
    Action,
    Event,
    FaultLimits,
    FaultMachine,
    Memory,
    State,
    advance,
    table_markdown,
)

LIMITS = FaultLimits(
    miss_budget=3, nan_ticks=6, hang_ticks=8, fault_ticks=5, infeasible_ticks=4, settle_ticks=3
)  # fmt: skip
NONE = Event(0)
NOMINAL = Memory()
DOCS = Path(__file__).parents[2] / "docs" / "faults.md"
PAUSE = [NONE]


def run(
    events: Iterable[Event], *, start: Memory = NOMINAL, at_rest: bool = False, limits: FaultLimits = LIMITS
) -> list[Memory]:
    """The memory after each period."""
    memories = []
    for event in events:
        start = advance(start, event, limits, at_rest=at_rest)
        memories.append(start)
    return memories


def actions(events: Iterable[Event], *, limits: FaultLimits = LIMITS) -> str:
    """F(ollow), D(erated), T(emporal fallback), C(oast), B(rake), one letter a period."""
    letters = {
        Action.FOLLOW: "F", Action.FOLLOW_DERATED: "D", Action.FALLBACK: "T", Action.COAST: "C", Action.BRAKE: "B",
    }  # fmt: skip
    return "".join(letters[memory.action] for memory in run(events, limits=limits))


def latched(event: Event) -> Memory:
    return run([event])[0]


def test_the_page_shows_the_table_of_the_code() -> None:
    assert table_markdown() in DOCS.read_text()


def test_the_table_speaks_of_every_fault_once() -> None:
    faults = [event for row in TABLE for event in row.events]
    assert sorted(faults) == sorted(set(Event) - {Event.CLEAR, Event.ZERO_COMMAND})


def test_nominal_costs_no_new_object() -> None:
    memory = Memory()
    for events in (NONE, Event.CLEAR, Event.ZERO_COMMAND, Event.CLEAR | Event.ZERO_COMMAND):
        assert advance(memory, events, LIMITS, at_rest=True) is memory
    assert memory.action == Action.FOLLOW


# ---- one after the other ---------------------------------------------------------------------------------------------


def test_non_finite_coasts_once_then_brakes_then_latches_estop() -> None:
    states = [memory.state for memory in run([Event.NON_FINITE] * 7)]
    assert states == [State.HOLD] + [State.BRAKE] * 4 + [State.ESTOP] * 2
    assert actions([Event.NON_FINITE, NONE] * 5) == "CF" * 5


@pytest.mark.parametrize("event", [Event.LATE, Event.STALE, Event.CLOCK_BACKWARD, Event.CLOCK_JUMP])
def test_without_news_it_coasts_within_the_budget_then_brakes_then_latches(event: Event) -> None:
    states = [memory.state for memory in run([event] * 9)]
    assert states == [State.HOLD] * 3 + [State.BRAKE] * 4 + [State.STOPPED] * 2
    assert actions([event] * 5 + [NONE, event, NONE]) == "CCCBBFCF"
    assert actions([event] * 2, limits=replace(LIMITS, miss_budget=0)) == "BB"
    assert actions([Event.NON_FINITE], limits=replace(LIMITS, miss_budget=0)) == "B"


@pytest.mark.parametrize("event", [Event.SENSOR_NON_FINITE, Event.SENSOR_JUMP, Event.SENSOR_RANGE])
def test_a_sensor_brakes_at_once_settles_and_latches(event: Event) -> None:
    assert actions([event, *PAUSE * 4]) == "BBBFF"
    states = [memory.state for memory in run([event] * 6)]
    assert states == [State.BRAKE] * 4 + [State.STOPPED] * 2
    flicker = run([event, NONE, NONE] * 5)  # never settles: the bad periods add up
    assert [memory.state for memory in flicker[10:]] == [State.BRAKE] * 2 + [State.STOPPED] * 3


def test_infeasible() -> None:
    states = [memory.state for memory in run([Event.INFEASIBLE] * 3 + [NONE] + [Event.INFEASIBLE] * 4)]
    assert states == [State.BRAKE] * 3 + [State.NOMINAL] + [State.BRAKE] * 3 + [State.STOPPED]


def test_tracking_warning_derates_and_settles() -> None:
    found = run([Event.TRACKING_WARN, *PAUSE * 3])
    assert [memory.state for memory in found] == [State.DERATED] * 3 + [State.NOMINAL]
    assert found[2].cause == Event.TRACKING_WARN
    assert actions([Event.TRACKING_WARN] * 100)[-1] == "D"


def test_outside_and_fallback_last_as_long_as_their_events() -> None:
    assert [m.state for m in run([Event.OUTSIDE] * 99 + PAUSE)] == [State.RECOVERY] * 99 + [State.NOMINAL]
    assert [m.state for m in run([Event.TEMPORAL] * 99 + PAUSE)] == [State.FALLBACK] * 99 + [State.NOMINAL]


@pytest.mark.parametrize(
    "event", [Event.TRACKING_STOP, Event.ACTIVE_LONG, Event.EXCEPTION, Event.HEARTBEAT_LOSS, Event.ESTOP]
)
def test_latched_at_once_and_released_in_three_steps(event: Event) -> None:
    state = State.ESTOP if event == Event.ESTOP else State.STOPPED
    memory = latched(event)
    assert (memory.state, memory.cause, memory.action) == (state, event, Action.BRAKE)

    def then(events: Event, at_rest: bool = True) -> State:
        nonlocal memory
        memory = advance(memory, events, LIMITS, at_rest=at_rest)
        assert memory.action == (Action.FOLLOW if memory.state == State.NOMINAL else Action.BRAKE)
        return memory.state

    assert [then(NONE), then(Event.ZERO_COMMAND), then(Event.CLEAR, at_rest=False)] == [state] * 3
    assert then(Event.CLEAR | event) == state  # the cause has not ended
    assert then(Event.CLEAR | Event.ZERO_COMMAND) == State.REARM
    assert memory.cause == event  # still of interest
    assert [then(NONE), then(Event.CLEAR), then(Event.ZERO_COMMAND, at_rest=False)] == [State.REARM] * 3
    assert then(Event.ZERO_COMMAND | Event.LATE) == State.REARM
    assert then(Event.ZERO_COMMAND) == State.NOMINAL
    assert memory == Memory()


@pytest.mark.parametrize("event", [Event.LATE, Event.SENSOR_JUMP, Event.INFEASIBLE, Event.NON_FINITE, Event.STALE])
def test_what_latched_by_lasting_is_cleared_only_when_it_has_ended(event: Event) -> None:
    memory = run([event] * 9)[-1]
    assert memory.state >= State.STOPPED
    assert memory.cause == event
    assert run([event | Event.CLEAR], start=memory, at_rest=True)[0].state == memory.state
    settle = 3 if event == Event.SENSOR_JUMP else 1
    found = run([Event.CLEAR] * settle, start=memory, at_rest=True)
    assert [m.state for m in found] == [memory.state] * (settle - 1) + [State.REARM]


def test_estop_outranks_a_stop_and_never_becomes_one() -> None:
    stopped = latched(Event.EXCEPTION)
    estop = run([Event.ESTOP], start=stopped)[0]
    assert (estop.state, estop.cause) == (State.ESTOP, Event.ESTOP)
    assert run([Event.EXCEPTION] * 99, start=estop)[-1][:2] == (State.ESTOP, Event.ESTOP)
    rearm = run([Event.CLEAR], start=estop, at_rest=True)[0]
    assert rearm.state == State.REARM
    again = run([Event.HEARTBEAT_LOSS | Event.ZERO_COMMAND], start=rearm, at_rest=True)[0]
    assert (again.state, again.cause) == (State.STOPPED, Event.HEARTBEAT_LOSS)


# ---- several at once -------------------------------------------------------------------------------------------------


def test_of_two_at_once_the_stronger_wins() -> None:
    for first, second in combinations(TABLE, 2):
        both = next(iter(first.events)) | next(iter(second.events))
        alone = [run([next(iter(row.events))])[0].state for row in (first, second)]
        expected = max(alone)
        if Event.TEMPORAL in both and both & (Event.NON_FINITE | Event.LATE):
            expected = State.FALLBACK  # it needs no proposal
        found = run([both])[0]
        assert found.state == expected, both
        if alone[0] == alone[1]:
            assert found.cause == both


def test_braking_uses_up_the_budget() -> None:
    for event in (Event.SENSOR_JUMP, Event.INFEASIBLE):
        assert actions([Event.LATE, event, *[Event.LATE] * 4])[2:] == "BBBB"
    assert actions([Event.NON_FINITE, Event.LATE, Event.NON_FINITE, Event.LATE, NONE, Event.LATE]) == "CCBBFC"


def test_a_period_that_shows_nothing_ends_nothing() -> None:
    assert run([Event.LATE, Event.STALE] * 8)[-1].state == State.STOPPED
    assert run([Event.NON_FINITE, Event.LATE] * 6)[-2].state == State.ESTOP
    assert run([Event.INFEASIBLE, Event.NON_FINITE] * 4)[-2].state == State.STOPPED
    assert run([Event.SENSOR_JUMP, Event.STALE, NONE, NONE, Event.LATE])[-1].state == State.BRAKE
    assert run([Event.SENSOR_JUMP, Event.STALE, NONE, NONE, Event.LATE, NONE])[-1].state == State.NOMINAL


def test_a_driving_fallback_does_not_miss_the_model_but_needs_time_and_sensors() -> None:
    assert actions([Event.TEMPORAL | Event.LATE] * 7) == "T" * 7
    assert run([Event.TEMPORAL | Event.LATE] * 8)[-1].state == State.STOPPED  # a hanging model latches all the same
    assert run([Event.TEMPORAL | Event.NON_FINITE] * 6)[-1].state == State.ESTOP
    assert actions([Event.TEMPORAL | Event.STALE] * 4) == "CCCB"
    assert actions([Event.TEMPORAL | Event.SENSOR_RANGE]) == "B"
    assert actions([Event.TEMPORAL | Event.LATE, Event.LATE]) == "TC"
    stopped = run([Event.TEMPORAL | Event.LATE | Event.CLEAR], start=latched(Event.EXCEPTION), at_rest=True)[0]
    assert stopped.state == State.STOPPED


def test_cause_is_that_of_the_state_not_of_the_last_event() -> None:
    found = run([Event.LATE, Event.LATE, Event.STALE | Event.LATE, Event.SENSOR_JUMP, Event.EXCEPTION, Event.LATE])
    assert [memory.cause for memory in found] == [
        Event.LATE, Event.LATE, Event.LATE, Event.SENSOR_JUMP, Event.EXCEPTION, Event.EXCEPTION,
    ]  # fmt: skip


def test_the_cause_of_a_stronger_state_is_what_demanded_it() -> None:
    both = Event.SENSOR_JUMP | Event.INFEASIBLE
    causes = [(memory.state, memory.cause) for memory in run([both] * 4)]
    assert causes == [(State.BRAKE, both)] * 3 + [(State.STOPPED, Event.INFEASIBLE)]  # the sensor has a period left


def test_no_fallback_spares_what_waits_for_its_rearming() -> None:
    rearm = run([Event.CLEAR], start=latched(Event.EXCEPTION), at_rest=True)[0]
    for event in (Event.LATE, Event.NON_FINITE):
        events = Event.TEMPORAL | Event.ZERO_COMMAND | event
        assert run([events], start=rearm, at_rest=True)[0].state == State.REARM
    assert run([Event.TEMPORAL | Event.ZERO_COMMAND], start=rearm, at_rest=True)[0].state == State.FALLBACK


def test_a_lasting_event_leads_to_no_new_memory() -> None:
    for row in TABLE:
        event = next(iter(row.events))
        first, *_, before, last = run([event] * 20)
        assert last == before, event
        assert row.lasting or last == first, event


# ---- totality --------------------------------------------------------------------------------------------------------


def test_every_state_answers_every_set_of_events() -> None:
    starts = [
        Memory(),
        *(latched(e) for e in (Event.OUTSIDE, Event.TRACKING_WARN, Event.TEMPORAL, Event.LATE, Event.INFEASIBLE)),
        latched(Event.EXCEPTION),
        latched(Event.ESTOP),
        run([Event.CLEAR], start=latched(Event.ESTOP), at_rest=True)[0],
    ]
    assert {memory.state for memory in starts} == set(State)
    reduced = [next(iter(row.events)) for row in TABLE] + [Event.CLEAR, Event.ZERO_COMMAND]
    sets = [NONE]
    for event in reduced:
        sets += [events | event for events in sets]
    for memory in starts:
        before = tuple(memory)
        for events in sets:
            for at_rest in (False, True):
                after = advance(memory, events, LIMITS, at_rest=at_rest)
                assert isinstance(after.state, State)
                assert isinstance(after.action, Action)
                assert isinstance(after.cause, Event)
                if events & (Event.ESTOP | Event.EXCEPTION | Event.SENSOR_NON_FINITE | Event.INFEASIBLE):
                    assert after.action == Action.BRAKE
        assert tuple(memory) == before


# ---- limits and counters ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FaultLimits.__dataclass_fields__)
def test_limits_are_counts(name: str) -> None:
    least = 0 if name == "miss_budget" else 1
    assert getattr(replace(LIMITS, **{name: least}), name) == least
    for value in (least - 1, 1.5, True, "3"):
        with pytest.raises(GuardrailError, match=rf"^{name}: found {value!r}; expected a whole number .* >= {least}$"):
            replace(LIMITS, **{name: value})  # type: ignore[arg-type]


def test_limits_of_one_latch_in_the_first_period() -> None:
    ones = FaultLimits(3, 1, 1, 1, 1, 1)
    for event, state in (
        (Event.NON_FINITE, State.ESTOP),
        (Event.LATE, State.STOPPED),
        (Event.SENSOR_JUMP, State.STOPPED),
        (Event.INFEASIBLE, State.STOPPED),
    ):
        assert run([event], limits=ones)[0].state == state


def test_defaults() -> None:
    assert FaultLimits() == FaultLimits(3, 50, 50, 25, 25, 10)


def test_counters_count_periods_and_changes() -> None:
    machine = FaultMachine(LIMITS)
    events = [NONE, Event.LATE, Event.LATE | Event.OUTSIDE, NONE, Event.LATE, Event.ESTOP, Event.ESTOP]
    assert [machine.tick(event, at_rest=False) for event in events] == [memory.action for memory in run(events)]
    assert machine.events == {Event.LATE: 3, Event.OUTSIDE: 1, Event.ESTOP: 2}
    assert machine.transitions == {
        (State.NOMINAL, State.HOLD): 2, (State.HOLD, State.NOMINAL): 1, (State.HOLD, State.ESTOP): 1,
    }  # fmt: skip
    assert machine.memory == run(events)[-1]


def test_the_machine_hears_whether_the_robot_is_at_rest() -> None:
    machine = FaultMachine(LIMITS)
    machine.tick(Event.ESTOP, at_rest=False)
    assert machine.tick(Event.CLEAR, at_rest=False) == Action.BRAKE
    assert machine.memory.state == State.ESTOP
    assert machine.tick(Event.CLEAR, at_rest=True) == Action.BRAKE
    assert machine.memory.state == State.REARM
    assert machine.tick(Event.ZERO_COMMAND, at_rest=True) == Action.FOLLOW


def test_a_reset_machine_is_new_but_for_its_counters() -> None:
    machine = FaultMachine(FaultLimits())
    machine.tick(Event.ESTOP, at_rest=False)
    machine.reset()
    assert machine.memory == Memory()
    assert machine.events[Event.ESTOP] == 1
