"""What the guard does when something is wrong: one pure state machine (docs/faults.md).

:func:`advance` takes what is remembered and the events of one period and returns what to remember; its ``action`` is
what the guard does in that very period. No clock, no I/O, no mutation. :data:`TABLE` is the machine: ``advance`` only
reads it. Thresholds are counted in command periods (:class:`FaultLimits`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields
from enum import IntEnum, IntFlag, auto
from typing import NamedTuple

from kizzasi_edge.errors import GuardrailError


class Event(IntFlag):
    """What happened in one period. All but CLEAR and ZERO_COMMAND are faults, and are reported as long as they last."""

    NON_FINITE = auto()
    """The model's proposal holds NaN or Inf, or has the wrong shape."""
    LATE = auto()
    """No new proposal: the model is late or hangs, or a write was dropped."""
    STALE = auto()
    """The newest measurement is too old."""
    CLOCK_BACKWARD = auto()
    CLOCK_JUMP = auto()
    SENSOR_NON_FINITE = auto()
    SENSOR_JUMP = auto()
    SENSOR_RANGE = auto()
    OUTSIDE = auto()
    """A joint stands outside its limits (found there at the start)."""
    TRACKING_WARN = auto()
    TRACKING_STOP = auto()
    INFEASIBLE = auto()
    """No admissible value but the brake was found."""
    ACTIVE_LONG = auto()
    """The guard has been changing the commands for too long."""
    EXCEPTION = auto()
    """The guard itself raised."""
    HEARTBEAT_LOSS = auto()
    TEMPORAL = auto()
    """A deadline shield is engaged."""
    ESTOP = auto()
    CLEAR = auto()
    """The operator releases a latched state."""
    ZERO_COMMAND = auto()
    """The proposal asks for no motion."""


class State(IntEnum):
    """In order of precedence: of several demands in one period, the largest wins."""

    NOMINAL = 0
    RECOVERY = 1
    """Outside the limits: the lattice admits inward motion only, at capped speed."""
    DERATED = 2
    FALLBACK = 3
    """The temporal rules' fallback controller drives."""
    HOLD = 4
    """Coasting: the last velocity is kept, as long as that is viable."""
    BRAKE = 5
    REARM = 6
    """Cleared, at rest, waiting for a proposal that asks for no motion."""
    STOPPED = 7
    """Latched: braking, then at rest."""
    ESTOP = 8
    """Latched: braking, then at rest."""


class Action(IntEnum):
    """What the guard does with this period's proposal."""

    FOLLOW = 0
    FOLLOW_DERATED = 1
    FALLBACK = 2
    COAST = 3
    BRAKE = 4


ACTIONS = {
    State.NOMINAL: Action.FOLLOW,
    State.RECOVERY: Action.FOLLOW,
    State.DERATED: Action.FOLLOW_DERATED,
    State.FALLBACK: Action.FALLBACK,
    State.HOLD: Action.COAST,
    State.BRAKE: Action.BRAKE,
    State.REARM: Action.BRAKE,
    State.STOPPED: Action.BRAKE,
    State.ESTOP: Action.BRAKE,
}


@dataclass(frozen=True, slots=True)
class FaultLimits:
    """Thresholds, in command periods. Raises :class:`GuardrailError` for what is no count.

    ``miss_budget``: periods that may be coasted in a row (the viable set keeps room for them); may be 0.
    ``settle_ticks``: good periods in a row that end a sensor fault or a derating. The others: how many periods of
    their event in a row latch.
    """

    miss_budget: int = 3
    nan_ticks: int = 50
    hang_ticks: int = 50
    fault_ticks: int = 25
    infeasible_ticks: int = 25
    settle_ticks: int = 10

    def __post_init__(self) -> None:
        for field in fields(self):
            value, least = getattr(self, field.name), 0 if field.name == "miss_budget" else 1
            if type(value) is not int or value < least:
                raise GuardrailError(f"{field.name}: found {value!r}; expected a whole number of periods >= {least}")


class Row(NamedTuple):
    """One row of the table. It *stands* from its first event until a period shows the opposite, and demands so long."""

    events: Event
    demands: State
    coasts: int = 0
    """So many periods are coasted first, if the budget allows it."""
    lasting: str = ""
    """Field of :class:`FaultLimits`: after so many periods of its events in a row ..."""
    latches: State = State.NOMINAL
    """... it demands this instead."""
    settles: bool = False
    """It ends after ``settle_ticks`` periods without its events, not after the first."""
    unknown: Event = Event(0)
    """Periods with these show nothing about it: they neither prolong nor end it."""
    spares_fallback: bool = False
    """Until it latches, it does not concern a fallback that drives: that one needs no proposal."""


_CLOCK = Event.STALE | Event.CLOCK_BACKWARD | Event.CLOCK_JUMP
_SENSOR = Event.SENSOR_NON_FINITE | Event.SENSOR_JUMP | Event.SENSOR_RANGE
_ALWAYS = 1 << 30

TABLE: tuple[Row, ...] = (
    Row(Event.ESTOP, State.ESTOP),
    Row(Event.TRACKING_STOP | Event.ACTIVE_LONG | Event.EXCEPTION | Event.HEARTBEAT_LOSS, State.STOPPED),
    Row(_SENSOR, State.BRAKE, 0, "fault_ticks", State.STOPPED, True, Event.LATE | _CLOCK),
    Row(
        Event.INFEASIBLE,
        State.BRAKE,
        0,
        "infeasible_ticks",
        State.STOPPED,
        unknown=Event.LATE | Event.NON_FINITE | _CLOCK | _SENSOR,
    ),
    Row(
        Event.NON_FINITE,
        State.BRAKE,
        1,
        "nan_ticks",
        State.ESTOP,
        unknown=Event.LATE | _CLOCK,
        spares_fallback=True,
    ),
    Row(Event.LATE, State.BRAKE, _ALWAYS, "hang_ticks", State.STOPPED, unknown=_CLOCK, spares_fallback=True),
    Row(_CLOCK, State.BRAKE, _ALWAYS, "hang_ticks", State.STOPPED),
    Row(Event.TEMPORAL, State.FALLBACK),
    Row(Event.TRACKING_WARN, State.DERATED, settles=True),
    Row(Event.OUTSIDE, State.RECOVERY),
)


class Memory(NamedTuple):
    """What one period hands to the next. ``Memory()`` is the start: NOMINAL.

    ``cause``: the events behind ``state``, from the period it was entered; REARM keeps those of the latched state.
    ``coasted``: how much of the miss budget is used; braking uses up the rest of it. ``runs``, ``quiet``: per row of
    the table, periods of its events in a row (saturating at its limit) and good ones since.
    """

    state: State = State.NOMINAL
    cause: Event = Event(0)
    coasted: int = 0
    runs: tuple[int, ...] = (0,) * len(TABLE)
    quiet: tuple[int, ...] = (0,) * len(TABLE)

    @property
    def action(self) -> Action:
        return ACTIONS[self.state]


# Arithmetic on IntFlag is slow: everything below is done on ints.
_CLEAR, _ZERO, _TEMPORAL = int(Event.CLEAR), int(Event.ZERO_COMMAND), int(Event.TEMPORAL)
_FAULTS = ~(_CLEAR | _ZERO)
_ROWS = tuple(row._replace(events=int(row.events), unknown=int(row.unknown)) for row in TABLE)  # type: ignore[arg-type]


def advance(memory: Memory, events: Event, limits: FaultLimits, *, at_rest: bool) -> Memory:
    """One period: what to remember, and in its ``action`` what to do now.

    ``at_rest``: the applied command has stopped moving. In NOMINAL without a fault the memory itself is returned.
    """
    now = int(events)
    if memory.state == State.NOMINAL and not now & _FAULTS:
        return memory
    fallback = now & _TEMPORAL and memory.state < State.REARM
    may_coast = memory.coasted < limits.miss_budget
    demanded, by = State.NOMINAL, 0
    runs, quiet = list(memory.runs), list(memory.quiet)
    for i, row in enumerate(_ROWS):
        lasting = getattr(limits, row.lasting) if row.lasting else 1
        if now & row.events:
            runs[i], quiet[i] = min(runs[i] + 1, lasting), 0
        elif runs[i] and not now & row.unknown:
            quiet[i] += 1
            if quiet[i] >= (limits.settle_ticks if row.settles else 1):
                runs[i] = quiet[i] = 0
        if not runs[i]:
            continue
        if row.lasting and runs[i] >= lasting:
            demand = row.latches
        elif row.spares_fallback and fallback:
            continue
        else:
            demand = State.HOLD if runs[i] <= row.coasts and may_coast else row.demands
        if demand >= demanded:
            here = now & row.events or row.events
            demanded, by = demand, by | here if demand == demanded else here
    state = max(demanded, _floor(memory.state, now, free=at_rest and demanded < State.HOLD))
    action = ACTIONS[state]
    coasted = memory.coasted + 1 if action == Action.COAST else limits.miss_budget if action == Action.BRAKE else 0
    cause = memory.cause if state in (memory.state, State.REARM) else Event(by)
    return Memory(state, cause, coasted, tuple(runs), tuple(quiet))


def _floor(state: State, now: int, *, free: bool) -> State:
    """The least state that a latched one, or REARM, may turn into; ``free``: at rest, and no fault demands to coast,
    brake or latch. CLEAR and ZERO_COMMAND in one period count one after the other, not both."""
    if state >= State.STOPPED:
        return State.REARM if free and now & _CLEAR else state
    if state == State.REARM:
        return State.NOMINAL if free and now & _ZERO else state
    return State.NOMINAL


class FaultMachine:
    """The machine with a memory and with counters for telemetry; the counters decide nothing.

    ``events``: periods with each event; ``transitions``: (from, to) of every change of state.
    """

    __slots__ = ("events", "limits", "memory", "transitions")

    def __init__(self, limits: FaultLimits) -> None:
        self.limits = limits
        self.memory = Memory()
        self.events: Counter[Event] = Counter()
        self.transitions: Counter[tuple[State, State]] = Counter()

    def reset(self) -> None:
        """As new, but for the counters."""
        self.memory = Memory()

    def tick(self, events: Event, *, at_rest: bool) -> Action:
        """Advance by one period; what to do in it."""
        before = self.memory
        after = self.memory = advance(before, events, self.limits, at_rest=at_rest)
        if events:
            self.events.update(Event(events))
        if after.state != before.state:
            self.transitions[before.state, after.state] += 1
        return after.action


def table_markdown() -> str:
    """:data:`TABLE` for docs/faults.md; a test compares."""
    lines = ["| events | demands | lasting | ends |", "|---|---|---|---|"]
    for row in TABLE:
        coast = {0: "", 1: "HOLD 1 period, then "}.get(row.coasts, "HOLD ≤ `miss_budget` periods, then ")
        latched = row.demands >= State.STOPPED
        lasting = f"`{row.lasting}` → {row.latches.name}, latched" if row.lasting else "latched" if latched else "–"
        ends = "CLEAR" if latched else "`settle_ticks` good periods" if row.settles else "first good period"
        names = ", ".join(str(event.name) for event in row.events)
        extra = "; not while FALLBACK drives" if row.spares_fallback else ""
        lines.append(f"| {names} | {coast}{row.demands.name}{extra} | {lasting} | {ends} |")
    return "\n".join(lines) + "\n"
