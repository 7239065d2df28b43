"""How the board's clock runs beside the host's, from TIME_REQ and TIME_RSP. For logs and diagnosis only: nothing that
moves depends on it (a COMMAND carries the board's own stamp of what it was computed from).

The board answers with its last tick and is read at some time up to a tick later, so each answer places its clock
within (round trip + tick) / 2. As in NTP, the answer that took the least time knows best; an older one loses by what
the clocks may have drifted apart since.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Clock", "ClockEstimator"]

_WINDOW = 16
_QUICK = 4  # the first few requests follow the answer to the one before, then
_EVERY_S = 1.0
_DRIFT_MAX_PPM = 200.0  # two crystals, with room; of a clock further off only the newest answer counts
_DRIFT_KNOWN_PPM = 20.0  # a drift is told once its own uncertainty is below this
_BASE_NS = 600_000_000_000  # over which drift is measured at most
_U32 = 1 << 32


@dataclass(frozen=True, slots=True)
class Clock:
    """An estimate of the board's clock; for logs only.

    Attributes:
        at_ns: the host's ``time.monotonic_ns()`` of the answer it rests on.
        t_us: the board's clock at that moment (u32).
        uncertainty_us: how far off that may be: (round trip + tick) / 2, and what may have been drifted since.
        rtt_us: shortest round trip of the last answers; it includes the wait for the board's next tick.
        drift_ppm: how much faster the board's clock runs; None until it is known to 20 ppm (minutes).
        boot_id: of the board whose clock it is.
    """

    at_ns: int
    t_us: int
    uncertainty_us: float
    rtt_us: float
    drift_ppm: float | None
    boot_id: int

    def host_ns(self, t_us: int) -> int:
        """``time.monotonic_ns()`` when the board's clock showed ``t_us`` (u32), within 35 minutes of ``at_ns``."""
        elapsed = (t_us - self.t_us + _U32 // 2) % _U32 - _U32 // 2
        return self.at_ns + round(elapsed * 1000 / (1 + (self.drift_ppm or 0.0) * 1e-6))


class _Sample(NamedTuple):
    at_ns: int  # middle of the round trip, host
    device_us: int  # board's clock then, without wraps
    bound_us: float  # (round trip + tick) / 2
    rtt_us: float

    def bound_at(self, now_ns: int) -> float:
        return self.bound_us + (now_ns - self.at_ns) * 1e-9 * _DRIFT_MAX_PPM


class ClockEstimator:
    """Asks now and then and keeps the best answers; all of it on one thread, but ``clock`` may be read from any.

    Attributes:
        clock: the newest estimate, None before the first answer.
    """

    def __init__(self) -> None:
        self.clock: Clock | None = None
        self._cookie = 0
        self.restart(0)

    def restart(self, boot_id: int) -> None:
        """Another boot: its clock began anew."""
        self.clock = None
        self._boot_id = boot_id
        self._window: deque[_Sample] = deque(maxlen=_WINDOW)
        self._anchor: _Sample | None = None  # where drift is measured from
        self._answers = 0
        self._asked_ns = 0
        self._waiting = False

    def due(self, now_ns: int) -> bool:
        """Whether it is time to ask."""
        if self._answers < _QUICK and not self._waiting:
            return True
        return (now_ns - self._asked_ns) * 1e-9 >= _EVERY_S

    def ask(self, now_ns: int) -> int:
        """The cookie of a TIME_REQ that is sent at ``now_ns``."""
        self._cookie = (self._cookie + 1) % _U32
        self._asked_ns = now_ns
        self._waiting = True
        return self._cookie

    def answer(self, cookie: int, t_us: int, recv_ns: int, tick_us: int) -> None:
        """TIME_RSP of a board with that tick came in at ``recv_ns``; one to an older request says nothing."""
        if not self._waiting or cookie != self._cookie:
            return
        self._waiting = False
        self._answers += 1
        sample = self._sample(t_us, recv_ns, tick_us)
        if self._window and not self._agrees(sample):  # a stalled simulation, a brown-out that nobody saw
            self._window.clear()
            self._anchor = None
        self._window.append(sample)
        best = min(self._window, key=lambda s: s.bound_at(recv_ns))
        self.clock = Clock(
            best.at_ns,
            best.device_us % _U32,
            best.bound_at(recv_ns),
            min(s.rtt_us for s in self._window),
            self._drift(best),
            self._boot_id,
        )

    def _sample(self, t_us: int, recv_ns: int, tick_us: int) -> _Sample:
        rtt_us = (recv_ns - self._asked_ns) * 1e-3
        at_ns = (self._asked_ns + recv_ns) // 2
        device_us = t_us + tick_us // 2
        if self._window:  # as near as possible to where the clock should be by now, however often it has wrapped
            last = self._window[-1]
            expected = last.device_us + (at_ns - last.at_ns) // 1000
            device_us = expected + (device_us - expected + _U32 // 2) % _U32 - _U32 // 2
        return _Sample(at_ns, device_us, (rtt_us + tick_us) / 2, rtt_us)

    def _agrees(self, new: _Sample) -> bool:
        last = self._window[-1]
        elapsed_us = (new.at_ns - last.at_ns) * 1e-3
        return abs(new.device_us - last.device_us - elapsed_us) <= last.bound_at(new.at_ns) + new.bound_us

    def _drift(self, best: _Sample) -> float | None:
        """From the anchor to the best answer of now, once they are far enough apart; what was known until then."""
        known = self.clock.drift_ppm if self.clock is not None else None
        anchor = self._anchor
        if anchor is None:
            known = None
        if anchor is None or best.at_ns - anchor.at_ns > _BASE_NS or best.bound_us < anchor.bound_us / 2:
            self._anchor = best
            return known
        span_us = (best.at_ns - anchor.at_ns) * 1e-3
        if best.bound_us + anchor.bound_us > span_us * _DRIFT_KNOWN_PPM * 1e-6:
            return known
        return (best.device_us - anchor.device_us - span_us) / span_us * 1e6
