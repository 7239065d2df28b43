"""Recordings cut in time for truncated back-propagation: B parallel streams, one chunk of each at a time.

A stream plays whole recordings one after another; a recording always begins at a chunk's first step, so that a state is
reset between chunks and never inside one. What a chunk has beyond a recording's end repeats its last row and weighs
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from kizzasi_export.datasets import Recording
from kizzasi_export.models import State

Slot = tuple[int, int]
"""(recording, first step): what one stream plays in one chunk. Past the end it plays nothing, which weighs nothing."""

Chunk = tuple[Tensor, Tensor, Tensor, Tensor]
"""x [B, L, in], y [B, L, out], weight [B, L], and start [B]: whether the stream's recording begins here."""


class Chunks(Dataset[Chunk]):
    """The chunk of every stream that a list of slots asks for. L = `length`, or the longest recording if shorter."""

    def __init__(self, recordings: Sequence[Recording], length: int) -> None:
        self.recordings = recordings
        self.length = min(length, max(len(recording) for recording in recordings))

    def __getitem__(self, slots: Sequence[Slot]) -> Chunk:
        rows = [np.minimum(np.arange(first, first + self.length), len(self.recordings[i]) - 1) for i, first in slots]
        x = np.stack([self.recordings[i].x[row] for (i, _), row in zip(slots, rows, strict=True)])
        y = np.stack([self.recordings[i].y[row] for (i, _), row in zip(slots, rows, strict=True)])
        weight = np.stack([self._weight(i, first) for i, first in slots])
        start = [first == 0 for _, first in slots]
        return torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(weight), torch.tensor(start)

    def _weight(self, index: int, first: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        recording, weight = self.recordings[index], np.zeros(self.length, np.float32)
        left = min(self.length, max(0, len(recording) - first))
        weight[:left] = 1.0 if recording.weight is None else recording.weight[first : first + left]
        return weight


@dataclass
class Schedule(Sampler[list[Slot]]):
    """Which recording each stream plays when: one list of slots per chunk, of this process's streams alone.

    Recordings go to the least loaded stream, longest first (Graham 1969), so that streams end together; every epoch
    draws their order anew. All processes count the same number of chunks, in every epoch.

    Args:
        lengths: steps of each recording.
        chunk: steps of a chunk.
        streams: parallel streams of one process, at most as many as there are recordings.
        rank, processes: which of how many processes this is.
        seed: None keeps the same order in every epoch.
    """

    lengths: Sequence[int]
    chunk: int
    streams: int
    rank: int = 0
    processes: int = 1
    seed: int | None = None

    def __post_init__(self) -> None:
        self.streams = min(self.streams, -(-len(self.lengths) // self.processes))
        self._epoch = 0
        self._chunks = [-(-length // self.chunk) for length in self.lengths]
        self._count = max(sum(self._chunks[i] for i in stream) for stream in self._assigned())

    def set_epoch(self, epoch: int) -> None:
        """The epoch whose order comes next (the trainer calls this)."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[list[Slot]]:
        mine = self._assigned()[self.rank * self.streams : (self.rank + 1) * self.streams]
        played = [[(i, k * self.chunk) for i in stream for k in range(self._chunks[i])] for stream in mine]
        idle = (0, self._chunks[0] * self.chunk)
        for k in range(self._count):
            yield [slots[k] if k < len(slots) else idle for slots in played]

    def _assigned(self) -> list[list[int]]:
        """The recordings of every stream of every process."""
        order = np.arange(len(self.lengths))
        if self.seed is not None:
            order = np.random.default_rng((self.seed, self._epoch)).permutation(order)
        streams: list[list[int]] = [[] for _ in range(self.streams * self.processes)]
        load = np.zeros(len(streams), np.int64)
        for i in sorted(order.tolist(), key=lambda i: -self._chunks[i]):  # stable: equal ones stay shuffled
            stream = int(load.argmin())
            streams[stream].append(i)
            load[stream] += self._chunks[i]
        if self.seed is not None:
            rng = np.random.default_rng((self.seed, self._epoch, 1))
            streams = [rng.permutation(np.array(stream, np.int64)).tolist() for stream in streams]
        return streams


def carried(start: Tensor, initial: State, state: State | None) -> State:
    """The state that a chunk begins with: `initial` where `start` [B], else `state` without its history."""
    if state is None:
        return initial
    return {name: torch.where(_over(start, value), value, state[name].detach().to(value.dtype))
            for name, value in initial.items()}  # fmt: skip


def _over(start: Tensor, value: Tensor) -> Tensor:
    """start [B] as [B, 1, …] beside value [B, …]."""
    return start.reshape(-1, *[1] * (value.ndim - 1))
