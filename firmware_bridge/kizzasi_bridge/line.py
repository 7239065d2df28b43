"""What the traffic says about the line it runs on: too slow for what is sent, or bytes held back on the way."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from .frame import MAX_PAYLOAD, OVERHEAD
from .protocol import VALUES_PER_PAGE, Hello

__all__ = ["Counts", "Line", "LineWatch", "baud_needed", "state_bytes"]

_STATE_HEAD = MAX_PAYLOAD - 4 * VALUES_PER_PAGE
_COMMAND_HEAD = 10
_BITS = 10  # a byte on a UART: start, eight, stop
_FIRST_S, _EVERY_S = 0.5, 2.0
_LOST_SHARE = 0.02
_USABLE = 0.9  # of the baud rate
_HELD_STATES = 3.0  # a read, on average
_SLOW_US = 10_000  # beyond two ticks: a fair machine's worst is a few ms, a latency timer's default 16


def state_bytes(channels: int, sensors: int) -> int:
    """Bytes of one STATE on the wire, over all its pages."""
    pages = max(1, -(-(channels + sensors) // VALUES_PER_PAGE))
    return pages * (OVERHEAD + _STATE_HEAD) + 4 * (channels + sensors)


def baud_needed(rate_hz: float, channels: int, sensors: int) -> float:
    """Bits per second of STATE and COMMAND together, at 10 bits a byte."""
    return rate_hz * (state_bytes(channels, sensors) + OVERHEAD + _COMMAND_HEAD + 4 * channels) * _BITS


@dataclass(frozen=True, slots=True)
class Line:
    """What a second or two of traffic were like.

    Attributes:
        states_hz: STATEs received per second.
        bytes_s: bytes received per second.
        states_per_read: how many STATEs came at once, on average; far more than 1 where bytes are held back.
        lost_share: share of the periods of which no STATE came.
        findings: sentences about what is not as it should be.
    """

    states_hz: float = 0.0
    bytes_s: float = 0.0
    states_per_read: float = 1.0
    lost_share: float = 0.0
    findings: tuple[str, ...] = ()


class Counts(NamedTuple):
    """Since ever: STATEs received, STATEs lost, reads that brought at least one STATE, bytes received."""

    states: int
    lost: int
    reads: int
    size: int


class LineWatch:
    """Compares counts over a second or two; one thread looks, any may read ``now``.

    Attributes:
        now: the newest result.
    """

    def __init__(self, baud: int) -> None:
        self._baud = baud
        self.restart(0.0)

    def restart(self, now_s: float) -> None:
        """The port was opened at ``now_s`` (``time.monotonic()``)."""
        self.now = Line()
        self._since_s = now_s
        self._next_s = now_s + _FIRST_S
        self._before: Counts | None = None

    def look(self, now_s: float, counts: Counts, hello: Hello, tick_us: int, rtt_us: float | None) -> None:
        """Every now and then: ``counts`` as of ``now_s``, and the shortest round trip that is known."""
        before = self._before
        if before is None:
            self._before, self._since_s = counts, now_s
        elif now_s >= self._next_s:
            states, lost, reads, size = (new - old for new, old in zip(counts, before, strict=True))
            elapsed_s = now_s - self._since_s
            line = Line(
                states / elapsed_s,
                size / elapsed_s,
                states / reads if reads else 1.0,
                lost / (states + lost) if lost else 0.0,
            )
            self.now = replace(line, findings=tuple(self._find(line, hello, tick_us, rtt_us)))
            self._before, self._since_s, self._next_s = counts, now_s, now_s + _EVERY_S

    def _find(self, line: Line, hello: Hello, tick_us: int, rtt_us: float | None) -> list[str]:
        found = []
        if line.lost_share > _LOST_SHARE and hello.period_us:
            rate_hz = 1e6 / hello.period_us
            need = rate_hz * state_bytes(hello.n_channels, hello.n_sensors) * _BITS
            text = f"{line.lost_share:.0%} of the STATEs do not arrive; {rate_hz:g} Hz of them are {need:.0f} bit/s"
            if need > _USABLE * self._baud:
                found.append(f"{text}, too many for {self._baud} baud")
            else:
                found.append(
                    f"{text}, fewer than {self._baud} baud: noise, a slow adapter, or this machine is too busy"
                )
        if rtt_us is not None and rtt_us > 2 * tick_us + _SLOW_US:
            found.append(
                f"the board answers after {rtt_us / 1e3:.0f} ms at best, at a tick of {tick_us / 1e3:g} ms: something "
                "holds bytes back (an adapter's latency timer, a hub)"
            )
        if line.states_per_read >= _HELD_STATES:
            found.append(
                f"STATEs arrive {line.states_per_read:.0f} at a time: an adapter's latency timer, or this machine is "
                "too busy to read"
            )
        return found
