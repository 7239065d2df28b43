"""Steps from stamped values: the sampling rate is checked, gaps split, and nothing comes from the future."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kizzasi_edge.errors import ConfigError

Values = NDArray[np.float64]
Stamps = NDArray[np.int64]

RATE_TOLERANCE = 0.01
"""Share by which a measured sampling rate may differ from the expected one."""
GAP_PERIODS = 10
"""Periods without a value that are an error unless `max_gap_s` says what to do about them."""


@dataclass(frozen=True)
class Track:
    """What arrived together: values [n, k] at stamps [n] (ns); `name` is for error messages (file, episode, topic)."""

    name: str
    stamps: Stamps
    values: Values


@dataclass(frozen=True)
class Timing:
    """Measured on the stamps: rate of the median step, 95th percentile of |step - median|, and the longest step."""

    rate_hz: float
    jitter_s: float
    longest_s: float

    def __str__(self) -> str:
        jitter, longest = self.jitter_s * 1e3, self.longest_s * 1e3
        return f"{self.rate_hz:.6g} Hz (steps vary by {jitter:.3g} ms, the longest is {longest:.3g} ms)"


def hold(track: Track, ticks: Stamps) -> tuple[Values, Stamps]:
    """Zero-order hold: the latest value at or before each tick [T, k], and its age [T] in ns.

    No tick may precede the first stamp.
    """
    latest = np.searchsorted(track.stamps, ticks, side="right") - 1  # [T]
    return track.values[latest], ticks - track.stamps[latest]


@dataclass(frozen=True)
class Clock:
    """How stamps become steps.

    Attributes:
        rate_hz: steps per second that the model is exported for; None: unknown.
        resample: step on a regular grid of `rate_hz`; else the first track's stamps are the steps.
        max_gap_s: no value is held for longer: a recording is split there. None: 10 periods, and more is an error.
    """

    rate_hz: float | None
    resample: bool
    max_gap_s: float | None

    def timing(self, track: Track) -> Timing | None:
        """Check one track's stamps; None where there are fewer than two.

        Raises:
            ConfigError: stamps that run backwards, or (unless resampled) stand still or have another rate.
        """
        steps = np.diff(track.stamps)
        wrong = np.flatnonzero(steps < (0 if self.resample else 1))
        if len(wrong):
            row = wrong[0] + 1
            raise ConfigError(
                f"{track.name}: time at row {row} is {steps[row - 1] / 1e9:+.9g} s after the row before, expected "
                f"{'no step back' if self.resample else 'increasing times'} ({len(wrong)} such row(s))"
            )
        median = float(np.median(steps)) if len(steps) else 0.0
        if median == 0:  # less than two stamps, or all at once
            return None
        jitter = float(np.percentile(np.abs(steps - median), 95)) / 1e9
        timing = Timing(1e9 / median, jitter, float(steps.max()) / 1e9)
        if not self.resample and self.rate_hz and abs(timing.rate_hz / self.rate_hz - 1) > RATE_TOLERANCE:
            raise ConfigError(
                f"{track.name}: found {timing}, expected {self.rate_hz:g} Hz ± {RATE_TOLERANCE:.0%} as in "
                "[export] sample_rate_hz; or set resample = true"
            )
        return timing

    def align(self, tracks: Sequence[Track]) -> list[Values]:
        """All tracks' values side by side [T, Σk], one array for each stretch without a gap.

        Tracks hold at least one row each and have passed `timing`.

        Raises:
            ConfigError: a gap, where `max_gap_s` is not set.
        """
        ticks = self._ticks(tracks)  # [T]
        if not len(ticks):
            return []
        limit = self._limit_ns(tracks[0])
        held = [hold(track, ticks) for track in tracks]
        fresh = np.all([age <= limit for _, age in held], axis=0)  # [T]
        after_gap = np.concatenate([[True], ~fresh[:-1] | (np.diff(ticks) > limit)])  # [T]
        starts = np.flatnonzero(fresh & after_gap)
        if self.max_gap_s is None and (len(starts) > 1 or not fresh.all()):
            end = ticks[starts[1]] if len(starts) > 1 else ticks[-1]
            raise ConfigError(_describe_gap(tracks, int(end), limit))
        values = np.concatenate([value for value, _ in held], axis=1)  # [T, Σk]
        pieces = zip(np.split(values, starts)[1:], np.split(fresh, starts)[1:], strict=True)
        return [piece[kept] for piece, kept in pieces]

    def _ticks(self, tracks: Sequence[Track]) -> Stamps:
        """The steps' times: from when every track has a value, to the last stamp."""
        start = max(int(track.stamps[0]) for track in tracks)
        if not self.resample:
            return tracks[0].stamps[tracks[0].stamps >= start]
        assert self.rate_hz is not None  # open_streams sees to that
        periods = (max(int(track.stamps[-1]) for track in tracks) - start) * self.rate_hz / 1e9
        offsets = np.arange(int(periods + 1e-6) + 1) * 1e9 / self.rate_hz  # [T] ns
        return np.asarray(start + np.rint(offsets).astype(np.int64))

    def _limit_ns(self, clock: Track) -> float:
        if self.max_gap_s is not None:
            return self.max_gap_s * 1e9
        if self.rate_hz:
            return GAP_PERIODS * 1e9 / self.rate_hz
        return GAP_PERIODS * float(np.median(np.diff(clock.stamps))) if len(clock.stamps) > 1 else 0.0


def _describe_gap(tracks: Sequence[Track], end: int, limit: float) -> str:
    """The longest gap up to `end` (ns)."""
    steps = [np.diff(np.append(track.stamps[track.stamps <= end], end)) for track in tracks]
    longest, row, name = max(
        (int(s.max()), int(s.argmax()), track.name) for s, track in zip(steps, tracks, strict=True)
    )
    return (
        f"{name}: nothing came for {longest / 1e9:.6g} s after row {row}, expected at most {limit / 1e9:.6g} s; "
        "set max_gap_s (how old a held value may be) to split the recording there"
    )
