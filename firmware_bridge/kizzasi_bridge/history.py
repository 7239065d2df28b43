"""The newest STATEs of a link, for whoever asks afterwards what led to a fault."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from .states import State

__all__ = ["History"]

_HEAD: tuple[tuple[str, str], ...] = (
    ("count", "<u8"), ("recv_ns", "<i8"), ("t_us", "<u4"), ("session", "<u4"), ("boot_id", "<u4"),
    ("connection", "<u4"), ("clamp_mask", "<u2"), ("applied_seq", "<u2"), ("rx_errors", "<u2"), ("ignored", "<u2"),
    ("misses", "<u2"), ("stale", "<u2"), ("state", "u1"), ("fault", "u1"),
)  # fmt: skip
_ROW = struct.Struct("<" + "".join({"u8": "Q", "i8": "q", "u4": "I", "u2": "H", "u1": "B"}[t[-2:]] for _, t in _HEAD))
_SPARE = 64  # rows that may be written while a reader copies; it never waits, nor does the writer


class History:
    """A ring of rows, written in place by one thread and copied by any other.

    A row has the columns count, recv_ns, t_us, session, clamp_mask, applied_seq, rx_errors, ignored, misses, stale,
    state, fault, applied (n,) and sensors (m,), int32 raw, as in :class:`.states.State`; and boot_id and connection
    (from 1, by how often the board has introduced itself on a newly opened port): where one of these two changes
    there is a gap.

    Args:
        size: how many STATEs are kept.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._ring = _Ring(size + _SPARE, 0, 0)

    def restart(self, n_channels: int, n_sensors: int) -> None:
        """Rows will have these shapes; what there is stays unless its rows have others."""
        if self._ring.shape != (n_channels, n_sensors):
            self._ring = _Ring(self._size + _SPARE, n_channels, n_sensors)

    def append(self, state: State, boot_id: int, connection: int) -> None:
        """Keep one more, in the place of the oldest."""
        self._ring.append(state, boot_id, connection)

    def newest(self, n: int | None = None) -> NDArray[np.void]:
        """A copy of the newest ``n`` rows (all by default), oldest first: a structured array (at most n,)."""
        return self._ring.copy(self._size if n is None else min(max(n, 0), self._size))


class _Ring:
    def __init__(self, room: int, n_channels: int, n_sensors: int) -> None:
        self.shape = n_channels, n_sensors
        columns = [*_HEAD, ("applied", "<i4", (n_channels,)), ("sensors", "<i4", (n_sensors,))]
        self._rows = np.zeros(room, dtype=np.dtype(columns))
        self._bytes = self._rows.view(np.uint8).data
        self._applied, self._sensors = self._rows["applied"], self._rows["sensors"]
        self._width = self._rows.itemsize
        self._written = 0  # rows so far; set once a row is whole

    def append(self, s: State, boot_id: int, connection: int) -> None:
        at = self._written % len(self._rows)
        _ROW.pack_into(
            self._bytes, at * self._width, s.count, s.recv_ns, s.t_us, s.session, boot_id, connection, s.clamp_mask,
            s.applied_seq, s.rx_errors, s.ignored, s.misses, s.stale, s.state, s.fault,
        )  # fmt: skip
        self._applied[at] = s.applied
        self._sensors[at] = s.sensors
        self._written += 1

    def copy(self, n: int) -> NDArray[np.void]:
        room = len(self._rows)
        end = self._written
        begin = max(0, end - n)
        rows = self._rows.take(np.arange(begin, end) % room)
        # The writer may be in the row after its newest one: that of the same place, one round ago, is torn.
        torn = self._written + 1 - room - begin
        return rows[max(0, torn) :]
