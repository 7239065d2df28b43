"""A verdict reads what the guard's core wrote: each number from its place, each bit by its name."""

from __future__ import annotations

import math

import pytest

from kizzasi_edge.guardrails.faults import Event, State
from kizzasi_edge.guardrails.verdict import HEADER, Layout, Status, Verdict

LAYOUT = Layout(
    ("a", "b", "c"),
    ({1: "wall", 2: "velocity", 4: "acceleration"}, {1: "position", 4: "acceleration"}, {128: "coupled"}),
    coupled=("row", "bend", "wall", "load"),
    deadlines=("stop", "home", "rest"),
    watched=("calm", "lost", "late"),
)


def record(
    status: int = 0,
    state: int = 0,
    cause: int = 0,
    *,
    jerk: int = 0,
    moved: float = 0.0,
    shaped: int = 0,
    relaxed: int = 0,
    bits: bytes = b"\0\0\0",
) -> bytes:
    return HEADER.pack(status, state, cause, jerk, moved, shaped, relaxed) + bits


def test_nothing_happened() -> None:
    verdict = Verdict(LAYOUT, record(), 7, (math.inf,) * 3)
    assert (verdict.status, verdict.state, verdict.cause) == (Status.PASS, State.NOMINAL, Event(0))
    assert (verdict.intervention, verdict.shaped, verdict.relaxed, verdict.bits) == (0.0, 0, 0, b"\0\0\0")
    assert (verdict.rules, verdict.given_up, verdict.by_joint, verdict.remaining, verdict.violated) == (
        (),
        (),
        {},
        {},
        (),
    )
    assert repr(verdict) == "Verdict(PASS, NOMINAL, intervention=0, rules=(), stamp_ns=7)"
    assert Verdict(LAYOUT, record()).stamp_ns == 0
    assert Verdict(LAYOUT, record()).violated == ()


def test_each_number_has_its_place() -> None:
    cause = Event.STALE | Event.LATE
    verdict = Verdict(LAYOUT, record(3, 5, cause, jerk=0, moved=0.12345678, shaped=1 << 40, relaxed=1 << 63))
    assert (verdict.status, verdict.state, verdict.cause) == (Status.RETRACTED, State.BRAKE, cause)
    assert (verdict.intervention, verdict.shaped, verdict.relaxed) == (0.12345678, 1 << 40, 1 << 63)
    assert verdict.given_up == ()
    assert repr(verdict) == "Verdict(RETRACTED, BRAKE, intervention=0.123457, rules=('miss', 'stale'), stamp_ns=0)"


def test_it_reads_the_memory_as_it_is_now() -> None:
    memory = bytearray(record())
    verdict = Verdict(LAYOUT, memoryview(memory))
    memory[:] = record(1, bits=b"\x02\0\0")
    assert (verdict.status, verdict.rules, verdict.bits) == (Status.CLAMPED, ("velocity",), b"\x02\0\0")


def test_rules_in_order_and_each_once() -> None:
    """Joints' own, then coupled ones, then the faults behind the state; each where it is first."""
    verdict = Verdict(LAYOUT, record(2, 3, Event.TEMPORAL | Event.OUTSIDE, shaped=0b1101, bits=bytes([5, 4, 128])))
    assert verdict.rules == ("wall", "acceleration", "coupled", "row", "load", "recovery", "temporal")
    assert verdict.by_joint == {"a": ("wall", "acceleration"), "b": ("acceleration",), "c": ("coupled",)}
    assert Verdict(LAYOUT, record(cause=Event.TEMPORAL)).rules == ()  # a cause counts only where there is a state
    assert Verdict(LAYOUT, record(bits=bytes([0, 0, 128]))).by_joint == {"c": ("coupled",)}


def test_what_was_given_up() -> None:
    assert Verdict(LAYOUT, record(relaxed=0b1010)).given_up == ("bend", "load")
    assert Verdict(LAYOUT, record(relaxed=0b1, jerk=1)).given_up == ("row", "jerk")
    named = Layout(LAYOUT.channels, LAYOUT.names, ("jerk", "jerk", "row"))
    assert Verdict(named, record(relaxed=0b111, jerk=1)).given_up == ("jerk", "row")


def test_deadlines_and_violations() -> None:
    verdict = Verdict(LAYOUT, record(), 0, (0.5, math.inf, -0.25), 0b101)
    assert verdict.remaining == {"stop": 0.5, "rest": -0.25}
    assert verdict.violated == ("calm", "late")


def test_a_record_of_another_guard_is_no_verdict() -> None:
    with pytest.raises(ValueError, match=r"shorter|longer"):
        _ = Verdict(LAYOUT, record(bits=b"\1\1")).rules
    with pytest.raises(ValueError, match=r"shorter|longer"):
        _ = Verdict(LAYOUT, record(bits=b"\1\1")).by_joint
    with pytest.raises(ValueError, match=r"shorter|longer"):
        _ = Verdict(LAYOUT, record(), 0, (0.5,)).remaining
