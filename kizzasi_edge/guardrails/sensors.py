"""From measurements and stamps to events of the fault machine (faults.py): comparisons, and what they compare with.

Times are integers [ns], counts are command periods, positions are floats [rad or m]. Every comparison is written so
that a NaN fails it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.faults import Event


@dataclass(frozen=True, slots=True)
class JointWatch:
    """What is believable of one joint. Raises :class:`GuardrailError` for what cannot be compared with.

    ``lo``, ``hi`` [rad or m]: measured positions the mechanism can reach, tolerance included. ``speed`` [per second]:
    the fastest it can be moved by anything. ``allowance``: noise and quantisation of one sample. ``warn``, ``stop``:
    |applied − measured| beyond which to derate, and to stop; infinite: not watched.
    """

    lo: float
    hi: float
    speed: float
    allowance: float
    warn: float = math.inf
    stop: float = math.inf

    def __post_init__(self) -> None:
        _expect(-math.inf < self.lo < self.hi < math.inf, "lo, hi", (self.lo, self.hi), "finite, lo < hi")
        _expect(0 < self.speed < math.inf, "speed", self.speed, "a positive number")
        _expect(0 <= self.allowance < math.inf, "allowance", self.allowance, "a number >= 0")
        _expect(0 < self.warn <= self.stop, "warn, stop", (self.warn, self.stop), "0 < warn <= stop")


@dataclass(frozen=True, slots=True)
class TimeWatch:
    """What is believable of clocks, and how long is long. Raises :class:`GuardrailError` for what is no count.

    ``period_ns``: the command period. ``stale_ns``: a sample older than this is stale. ``jump_ns``: two checks
    further apart than this mean that the clock, or the whole gateway, jumped. ``active_ticks``: so many commands
    changed by the guard in a row are too many; 0: never.
    """

    period_ns: int
    stale_ns: int
    jump_ns: int
    active_ticks: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value, least = getattr(self, field.name), 0 if field.name == "active_ticks" else 1
            _expect(type(value) is int and value >= least, field.name, value, f"a whole number >= {least}")
        _expect(self.jump_ns >= self.period_ns, "jump_ns", self.jump_ns, f">= period_ns, {self.period_ns}")


class SensorWatch:
    """Checks one stream of samples, one a period; see :meth:`check`.

    Jumps are measured from the last good sample, over the periods since it was taken: a single wild sample is one
    event, not two, and an encoder that slipped stays a fault until the distance could have been travelled.
    """

    __slots__ = ("_active", "_age_ns", "_bounds", "_good", "_now_ns", "_reach", "_stamp_ns", "_steps", "_times")

    def __init__(self, joints: Sequence[JointWatch], times: TimeWatch) -> None:
        period_s = times.period_ns * 1e-9
        self._bounds = tuple([getattr(j, key) for j in joints] for key in ("lo", "hi", "warn", "stop"))
        self._steps = [(j.speed * period_s, j.allowance) for j in joints]
        self._reach = self._within(1)
        self._times = times
        self.reset()

    def reset(self) -> None:
        """Forget every sample: the next one is compared with nothing before it."""
        self._good: list[float] | None = None
        self._age_ns = self._active = 0
        self._now_ns: int | None = None
        self._stamp_ns = 0

    def check(
        self,
        position: Sequence[float],
        velocity: Sequence[float],
        applied: Sequence[float],
        stamp_ns: int,
        now_ns: int,
        *,
        active: bool = False,
    ) -> Event:
        """The events of one period.

        ``position``, ``velocity`` (n,) measured, ``applied`` (n,) the position last applied (the measured one where
        commands are no positions): floats, best as lists (``array.tolist()``). ``stamp_ns``: receive time of the
        sample; ``now_ns``: this check, on the same clock. ``active``: the guard changed the last command.
        Raises ValueError when the lengths differ from the number of joints.
        """
        times = self._times
        found = self._clocks(stamp_ns, now_ns)
        if now_ns - stamp_ns > times.stale_ns:
            found |= _STALE
        periods = -(-self._age_ns // times.period_ns)
        reaches = self._reach if periods == 1 else self._within(periods)
        good = position if self._good is None else self._good
        wrong, inf = 0, math.inf
        for lo, hi, warn, stop, reach, q, v, sent, last in zip(
            *self._bounds, reaches, position, velocity, applied, good, strict=True
        ):
            if lo <= q <= hi and -reach <= q - last <= reach and -warn <= sent - q <= warn and -inf < v < inf:
                continue
            problem = _classify(lo, hi, q, last, reach, v)
            wrong |= problem
            if not problem & _NON_FINITE and not -warn <= sent - q <= warn:
                found |= _TRACKING_WARN if -stop <= sent - q <= stop else _TRACKING_STOP
        if not wrong:
            self._good, self._age_ns = list(position), 0
        if times.active_ticks:
            self._active = min(self._active + 1, times.active_ticks) if active else 0
            if self._active == times.active_ticks:
                found |= _ACTIVE_LONG
        return _EVENTS[found | wrong]

    def _within(self, periods: int) -> list[float]:
        """How far each joint can have gone in so many periods."""
        return [step * periods + allowance for step, allowance in self._steps]

    def _clocks(self, stamp_ns: int, now_ns: int) -> int:
        """Clock events; ages the last good sample by what the stamps say, or by one period if they are not to be
        trusted."""
        times, before = self._times, self._now_ns
        taken = stamp_ns - self._stamp_ns
        self._now_ns, self._stamp_ns = now_ns, stamp_ns
        found = _CLOCK_JUMP if stamp_ns - now_ns > 0 else 0
        if before is None:
            return found
        if now_ns < before or taken < 0:
            found |= _CLOCK_BACKWARD
        if now_ns - before > times.jump_ns:
            found |= _CLOCK_JUMP
        self._age_ns += times.period_ns if found else taken
        return found


def _classify(lo: float, hi: float, q: float, last: float, reach: float, v: float) -> int:
    if not (math.isfinite(q) and math.isfinite(v)):
        return _NON_FINITE
    return (0 if lo <= q <= hi else _RANGE) | (0 if -reach <= q - last <= reach else _JUMP)


def _expect(holds: bool, key: str, found: object, expected: str) -> None:
    if not holds:
        raise GuardrailError(f"{key}: found {found}; expected {expected}")


class _Events(dict[int, Event]):
    """Event of an int, made once each: building an IntFlag costs more than a whole check."""

    def __missing__(self, bits: int) -> Event:
        event = self[bits] = Event(bits)
        return event


_EVENTS = _Events()
_STALE = int(Event.STALE)
_CLOCK_BACKWARD, _CLOCK_JUMP = int(Event.CLOCK_BACKWARD), int(Event.CLOCK_JUMP)
_NON_FINITE, _JUMP, _RANGE = int(Event.SENSOR_NON_FINITE), int(Event.SENSOR_JUMP), int(Event.SENSOR_RANGE)
_TRACKING_WARN, _TRACKING_STOP = int(Event.TRACKING_WARN), int(Event.TRACKING_STOP)
_ACTIVE_LONG = int(Event.ACTIVE_LONG)
