"""Recordings from the columns of a file, or from the tracks of a bag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kizzasi_edge.errors import ConfigError
from kizzasi_export.datasets.clock import Clock, Timing, Track, Values
from kizzasi_export.datasets.columns import Columns, episodes, require_finite
from kizzasi_export.datasets.section import DataSection
from kizzasi_export.datasets.streams import Recording


@dataclass(frozen=True)
class Part:
    """What one `path` gave: recordings, channel names, the timing of each track, and the files read."""

    recordings: list[Recording]
    input_names: tuple[str, ...] | None
    output_names: tuple[str, ...] | None
    timings: list[Timing]
    files: list[Path]


@dataclass(frozen=True)
class Channels:
    """The channels asked for; values [T, in + out (+ 1)] hold them in this order, the weight last."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weight: str | None

    @property
    def all(self) -> list[str]:
        return [*self.inputs, *self.outputs, *([] if self.weight is None else [self.weight])]

    def recording(self, values: Values, horizon: int, source: str) -> Recording | None:
        """x, y `horizon` steps later, and the weight of y; None where nothing remains."""
        steps = len(values) - horizon
        if steps < 1:
            return None
        v = values.astype(np.float32)
        n_in, n_out = len(self.inputs), len(self.outputs)
        y, weight = v[horizon:, n_in : n_in + n_out], None if self.weight is None else v[horizon:, -1]
        if weight is not None and len(negative := np.flatnonzero(weight < 0)):
            raise ConfigError(
                f"{source}: column {self.weight!r} is negative at row {negative[0] + horizon}, expected ≥ 0"
            )
        return Recording(v[:steps, :n_in], y, weight, source)


def needed(section: DataSection) -> set[str]:
    """The names of columns and elements that `section` uses."""
    names = [*(section.inputs or []), *(section.outputs or []), section.weight, section.time, section.episode]
    return {name for name in names if name is not None}


def from_tracks(
    tracks: Sequence[Track], order: Sequence[int], channels: Channels, clock: Clock, horizon: int, source: str
) -> tuple[list[Recording], list[Timing]]:
    """Recordings from stamped values: `order` gives each channel's column in the tracks side by side."""
    timings = [timing for track in tracks if (timing := clock.timing(track)) is not None]
    found = [channels.recording(values[:, order], horizon, source) for values in clock.align(tracks)]
    return [recording for recording in found if recording is not None], timings


def from_columns(
    columns: Columns, section: DataSection, clock: Clock, files: list[Path], *, time: str | None, episode: str | None
) -> Part:
    """Recordings of the columns that `section` names: one for each episode and stretch without a gap."""
    assert section.inputs is not None  # open_streams sees to that
    assert section.outputs is not None
    channels = Channels(
        tuple(columns.find(section.inputs)),
        tuple(columns.find(section.outputs)),
        None if section.weight is None else columns.find([section.weight])[0],
    )
    values = columns.values(channels.all)  # [T, in + out (+ 1)]
    rows = {columns.source: slice(0, len(values))}
    if episode is not None:
        of_row = columns.channels[columns.find([episode])[0]]  # [T]
        runs = episodes(of_row, columns.source)
        rows = {f"{columns.source}, {episode} {of_row[run.start]}": run for run in runs}
    stamps = None if time is None else columns.stamps(time, section.time_unit)
    recordings: list[Recording] = []
    timings: list[Timing] = []
    for source, run in rows.items():
        require_finite(values[run], channels.all, source)
        if stamps is None:
            whole = channels.recording(values[run], section.horizon, source)
            recordings += [] if whole is None else [whole]
            continue
        track = Track(source, stamps[run], values[run])
        order = range(values.shape[1])
        more, timed = from_tracks([track], order, channels, clock, section.horizon, source)
        recordings += more
        timings += timed
    return Part(recordings, channels.inputs, channels.outputs, timings, files)
