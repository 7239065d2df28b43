"""What the inputs of a period say, as events of the fault machine: sensors and clocks, and the temporal rules."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from kizzasi_edge.guardrails.core import CoreDrive
from kizzasi_edge.guardrails.faults import Event
from kizzasi_edge.guardrails.parts import Parts

if TYPE_CHECKING:
    from kizzasi_edge.guardrails.temporal.rules import TemporalRules

F64 = npt.NDArray[np.float64]
Floats = Sequence[float]

_TEMPORAL, _UNMEASURED = int(Event.TEMPORAL), int(Event.SENSOR_NON_FINITE)
_CLOCK = int(Event.CLOCK_BACKWARD | Event.CLOCK_JUMP)


class Senses:
    """Looks at one stream of inputs. ``needed``: whether there is anything to look at but the command."""

    def __init__(self, parts: Parts, rate_hz: float) -> None:
        self._drive, self._watch, self._rules = parts.drive, parts.watch, parts.temporal
        self._core = parts.drive if isinstance(parts.drive, CoreDrive) else None
        self._command_kind, self._stamped = parts.command, parts.stamped
        own = len(parts.rows) - (0 if self._rules is None else len(self._rules.rows))
        self._own_rows, self._own_mask = own, (1 << own) - 1
        self._still = [0.0] * len(parts.limits)
        self._samples, self._period_ns = 0, round(1e9 / rate_hz)
        self._signals: Mapping[str, float] | None = None  # the last: where only the proposal is late, they hold on
        watched = self._watch is not None or self._rules is not None
        self.needed = bool(parts.drive.measures) or watched
        self._uses_speed = "velocity" in parts.drive.measures or watched

    def reset(self) -> None:
        """Forget what was seen: the next inputs are compared with nothing before them."""
        if self._watch is not None:
            self._watch.reset()
        if self._rules is not None:
            self._rules.reset()

    def look(
        self,
        command: npt.NDArray[np.float32],
        q: F64 | None,
        v: F64 | None,
        signals: Mapping[str, float] | None,
        stamp_ns: int,
        *,
        active: bool,
    ) -> int:
        """Event bits of a period with a proposal; the drive takes the measurement. ``active``: the guard changed the
        last command."""
        self._signals = signals
        if not self._uses_speed:
            v = None  # hardware that measures none says NaN (joint_state_broadcaster): no fault where it is not used
        at, speed = None if q is None else q.tolist(), None if v is None else v.tolist()
        usable = (at is None or math.isfinite(sum(at))) and (speed is None or math.isfinite(sum(speed)))
        if usable and q is not None:
            self._drive.measure(q, v)
        watch, rules = self._watch, self._rules
        events = _UNMEASURED if watch is None and not usable else 0
        if watch is None and rules is None:
            return events
        applied = self._drive.applied()
        if watch is not None:
            events |= self._check(applied[0], at, speed, stamp_ns, active)
        if rules is not None:
            events |= self._update(rules, applied, command.tolist(), at, speed, signals)
        return events

    def miss(self, *, late: bool) -> int:
        """Event bits of a period without a proposal. ``late``: nothing else was wrong."""
        self._samples += 1
        if self._rules is None:
            return 0
        applied = self._drive.applied()
        return self._update(self._rules, applied, None, None, None, self._signals if late else None)

    def _check(self, applied: Floats, q: Floats | None, v: Floats | None, stamp_ns: int, active: bool) -> int:
        assert self._watch is not None
        if self._command_kind == "pose":
            q = v = None  # it has no joints to watch
        where = applied if q is None else q
        if not stamp_ns:  # one sample a period
            self._samples += 1
            stamp_ns = self._samples * self._period_ns
        events = self._watch.check(
            where,
            self._still if v is None else v,
            applied if self._command_kind == "position" else where,
            stamp_ns,
            time.monotonic_ns() if self._stamped else stamp_ns,
            active=active,
        )
        return int(events) if self._stamped else int(events) & ~_CLOCK

    def _update(
        self,
        rules: TemporalRules,
        applied: tuple[Floats, Floats],
        command: Floats | None,
        q: Floats | None,
        v: Floats | None,
        signals: Mapping[str, float] | None,
    ) -> int:
        engaged = rules.update(*applied, q, v, command, signals)
        if rules.rows and self._core is not None:
            self._core.enable(self._own_mask | rules.enabled_rows << self._own_rows)
        return _TEMPORAL if engaged else 0
