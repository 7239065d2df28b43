"""Recordings as a model meets them: sequences of steps, never joined, cut into windows where training wants it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kizzasi_edge.errors import ConfigError
from kizzasi_export.datasets.sequence import SequenceDataset

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Recording:
    """One uninterrupted sequence: x [T, in], y [T, out], weight [T] ≥ 0 or None (all 1), float32, all finite.

    `source` names file and episode for error messages.
    """

    x: Array
    y: Array
    weight: Array | None
    source: str

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True)
class Streams:
    """Recordings of equal channels: iterate over them whole, or take `windows`.

    Attributes:
        recordings: at least one; lengths may differ.
        input_names, output_names: None where the source has no names (arrays x and y).
        sample_rate_hz: None where the source cannot know.
        source: provenance as JSON values: format, files (name → sha256), and measured timing.
    """

    recordings: tuple[Recording, ...]
    input_names: tuple[str, ...] | None = None
    output_names: tuple[str, ...] | None = None
    sample_rate_hz: float | None = None
    source: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        first = self.recordings[0]
        for other in self.recordings:
            for name, mine, theirs in (("x", first.x, other.x), ("y", first.y, other.y)):
                if mine.shape[1] != theirs.shape[1]:
                    raise ConfigError(
                        f"{other.source}: {name} has {theirs.shape[1]} channels, expected {mine.shape[1]} "
                        f"as in {first.source}"
                    )

    @property
    def input_dim(self) -> int:
        return int(self.recordings[0].x.shape[1])

    @property
    def output_dim(self) -> int:
        return int(self.recordings[0].y.shape[1])

    @property
    def steps(self) -> int:
        """Steps of all recordings together."""
        return sum(len(recording) for recording in self.recordings)

    def __len__(self) -> int:
        return len(self.recordings)

    def __iter__(self) -> Iterator[Recording]:
        return iter(self.recordings)

    def windows(self, window: int | None, stride: int | None = None) -> SequenceDataset:
        """Windows of `window` steps, each from one recording, starting `stride` steps apart (default: no overlap).

        What remains at a recording's end is left out. With None each recording is one window.

        Raises:
            ConfigError: no recording is as long as a window, or recordings differ in length and `window` is None.
        """
        lengths = [len(recording) for recording in self.recordings]
        if window is None and min(lengths) != max(lengths):
            raise ConfigError(
                f"{self.recordings[0].source}: recordings of {min(lengths)} to {max(lengths)} steps, "
                "expected equal lengths or a window"
            )
        size = lengths[0] if window is None else window
        step = size if stride is None else stride
        used = [recording for recording in self.recordings if len(recording) >= size]
        if not used:
            raise ConfigError(
                f"{self.recordings[0].source}: sequences of {max(lengths)} steps, expected at least window = {size}"
            )
        weights = [np.ones(len(r), np.float32) if r.weight is None else r.weight for r in used]
        return SequenceDataset(
            np.concatenate([_cut(r.x, size, step) for r in used]),
            np.concatenate([_cut(r.y, size, step) for r in used]),
            np.concatenate([_cut(w, size, step) for w in weights]),
            source=used[0].source,
        )


def _cut(values: Array, size: int, step: int) -> Array:
    """[T, ...] to [N, size, ...]."""
    view = np.lib.stride_tricks.sliding_window_view(values, size, axis=0)[::step]  # [N, ..., size]
    return np.moveaxis(view, -1, 1)
