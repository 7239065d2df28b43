"""What the guard decided about one command."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from kizzasi_edge.guardrails.faults import Event, State

Record = Any
"""Bytes, or a buffer over the core's own memory (collections.abc.Buffer, which Python 3.11 does not have)."""

RULE_BITS = {
    1: "position",
    2: "velocity",
    4: "acceleration",
    8: "recovery",
    16: "non_finite",
    32: "miss",
    64: "approach",
    128: "coupled",
}
"""Bits of :attr:`Verdict.bits`, as kz_guard.h and guard_glue.h number them."""

HEADER = struct.Struct("=iIIIdQQ")
"""The head of a verdict's record: status, state, cause, jerk_relaxed, intervention, shaped, relaxed; a byte of rule
bits for each channel follows. ``kzh_verdict`` of guard_glue.h is the same in C."""


class Status(IntEnum):
    """How the sent value relates to the proposed one (DESIGN order: the larger, the stronger)."""

    PASS = 0
    """Sent as proposed, rounded to the lattice (at most half a quantum)."""
    CLAMPED = 1
    """Moved to the nearest admissible value, joint by joint."""
    PROJECTED = 2
    """Projected onto rows that couple joints."""
    RETRACTED = 3
    """Pulled toward the brake command, because the projection could not be admitted."""
    BRAKE = 4
    """No usable proposal, or none that is admissible: braking at the acceleration limit."""
    HOLD = 5
    """No usable proposal: repeating the last step, or at rest."""
    ESTOP = 6
    """Latched: braking or at rest until :meth:`Guardrails.clear`."""


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """What the numbers of a guard's verdicts stand for; one object for all of them.

    ``channels``: joints, or the nodes of a skeleton. ``names``: for each, the rule names behind its bits (a declared
    constraint's own name where it is the tightest). ``coupled``: names of the rules that couple joints, a bit each.
    ``deadlines``: names of the temporal rules that have one, ``watched``: of all that have a monitor.
    """

    channels: tuple[str, ...]
    names: tuple[Mapping[int, str], ...]
    coupled: tuple[str, ...] = ()
    deadlines: tuple[str, ...] = ()
    watched: tuple[str, ...] = ()


class Verdict:
    """The guard's decision about one command, read from the record that the guard's core wrote.

    ``layout``: what its numbers stand for. ``record``: :data:`HEADER` and a byte for each channel; a copy, or the
    core's own memory. ``stamp_ns``: receive time of the oldest input used, as given to ``step``. ``times``: seconds
    left until each of the layout's deadlines (``inf``: none pending; negative: passed). ``violated_bits``: a bit for
    each watched temporal rule that has been violated.
    """

    __slots__ = ("layout", "record", "stamp_ns", "times", "violated_bits")

    def __init__(
        self,
        layout: Layout,
        record: Record,
        stamp_ns: int = 0,
        times: tuple[float, ...] = (),
        violated_bits: int = 0,
    ) -> None:
        self.layout = layout
        self.record = record
        self.stamp_ns = stamp_ns
        self.times = times
        self.violated_bits = violated_bits

    @property
    def status(self) -> Status:
        return _STATUS[int(HEADER.unpack_from(self.record)[0])]

    @property
    def state(self) -> State:
        """Where the fault machine stands (docs/faults.md)."""
        return _STATE[int(HEADER.unpack_from(self.record)[1])]

    @property
    def cause(self) -> Event:
        """The events behind ``state``; none in NOMINAL."""
        return Event(HEADER.unpack_from(self.record)[2])

    @property
    def intervention(self) -> float:
        """Euclidean norm of (sent − proposed), SI units; 0 on PASS, infinite when there was no finite proposal."""
        return float(HEADER.unpack_from(self.record)[4])

    @property
    def shaped(self) -> int:
        """A bit for each coupled rule that moved this command."""
        return int(HEADER.unpack_from(self.record)[5])

    @property
    def relaxed(self) -> int:
        """A bit for each coupled rule that was soft and given up for this command."""
        return int(HEADER.unpack_from(self.record)[6])

    @property
    def bits(self) -> bytes:
        """One byte of rule bits per channel."""
        return bytes(memoryview(self.record)[HEADER.size :])

    @property
    def rules(self) -> tuple[str, ...]:
        """Names of the rules that shaped this command, each once: joints' own in their order, then coupled ones, then
        the faults behind a state that is not NOMINAL."""
        found: dict[str, None] = {}
        for bits, names in zip(self.bits, self.layout.names, strict=True):
            if bits:
                found.update((name, None) for bit, name in names.items() if bits & bit)
        found.update((name, None) for name in self._of(self.shaped))
        if self.state:
            found.update((_CAUSES.get(event, str(event.name).lower()), None) for event in self.cause)
        return tuple(found)

    @property
    def given_up(self) -> tuple[str, ...]:
        """Names of the soft rules that were relaxed for this command, each once."""
        jerk = ("jerk",) if HEADER.unpack_from(self.record)[3] else ()
        return tuple(dict.fromkeys((*self._of(self.relaxed), *jerk)))

    @property
    def by_joint(self) -> dict[str, tuple[str, ...]]:
        """The rules of each joint (or node) that was touched."""
        return {
            channel: tuple(name for bit, name in names.items() if bits & bit)
            for channel, bits, names in zip(self.layout.channels, self.bits, self.layout.names, strict=True)
            if bits
        }

    @property
    def remaining(self) -> dict[str, float]:
        """Seconds left of each pending deadline."""
        return {name: left for name, left in zip(self.layout.deadlines, self.times, strict=True) if left < _NEVER}

    @property
    def violated(self) -> tuple[str, ...]:
        """Names of the temporal rules that have been violated since the last reset."""
        return tuple(name for i, name in enumerate(self.layout.watched) if self.violated_bits >> i & 1)

    def _of(self, mask: int) -> list[str]:
        return [name for i, name in enumerate(self.layout.coupled) if mask >> i & 1] if mask else []

    def __repr__(self) -> str:
        return (
            f"Verdict({self.status.name}, {self.state.name}, intervention={self.intervention:.6g}, rules={self.rules}, "
            f"stamp_ns={self.stamp_ns})"
        )


_STATUS = tuple(Status)
_STATE = tuple(State)
_CAUSES = {Event.LATE: "miss", Event.OUTSIDE: "recovery"}
_NEVER = float("inf")
