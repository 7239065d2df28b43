"""Joints that are moved by hand, and the encoders on them, behind the POSIX board's plant socket."""

from __future__ import annotations

import io
import math
import random
import socket
import struct
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from kizzasi_bridge.cli import app

_HEADER = 16
_PACE_S = 1e-4
"""Slow enough that the host reads each STATE as it comes, for a board that does not wait for real time."""


@dataclass
class Encoder:
    """What the file does not know: counts for each SI unit of the joint, signed, and the count at 0.

    ``at``: where the joint is, SI; ``noise``: largest error of a reading in counts; ``speed``: SI a second.
    """

    counts_per_unit: float
    offset: int
    at: float = 0.0
    noise: int = 0
    speed: float = 0.0

    def read(self, seconds: float, rng: random.Random) -> int:
        count = round((self.at + self.speed * seconds) * self.counts_per_unit) + self.offset
        return count + rng.randint(-self.noise, self.noise)


def rotary(counts: float, gear: float, offset: int, sign: int = 1, **more: float) -> Encoder:
    return Encoder(sign * counts * gear / math.tau, offset, **more)  # type: ignore[arg-type]


class EncoderPlant:
    """Serves ``encoders`` in the time of the firmware; they may be written at any time."""

    def __init__(self, path: Path, encoders: Sequence[Encoder], channels: int) -> None:
        self.encoders = list(encoders)
        self.ticks = 0
        self._room = _HEADER + 8 * channels
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen(1)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> EncoderPlant:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()
        self._thread.join(5)

    def settle(self, ticks: int = 200) -> None:
        """Let the firmware live through so many ticks, and the host read what was sent before."""
        end, deadline = self.ticks + ticks, time.monotonic() + 30
        time.sleep(0.1)
        while self.ticks < end:
            assert time.monotonic() < deadline, "the board stands still"
            time.sleep(0.01)

    def _serve(self) -> None:
        rng = random.Random(1)
        with suppress(OSError):
            connection, _ = self._server.accept()
            with connection:
                while len(head := connection.recv(self._room, socket.MSG_WAITALL)) == self._room:
                    seconds = struct.unpack_from("<I", head)[0] / 1e6
                    values = [encoder.read(seconds, rng) for encoder in self.encoders]
                    connection.sendall(struct.pack(f"<BBH{len(values)}i", 0, len(values), 0, *values))
                    self.ticks += 1
                    time.sleep(_PACE_S)


Line = str | tuple[int, float, str]
"""What is typed; or the joint, where it is moved to first, and what is typed then."""


class Technician(io.RawIOBase):
    """Standard input: each line comes once the joint has been moved to where it is to be."""

    def __init__(self, plant: EncoderPlant, *lines: Line) -> None:
        self._plant, self._lines = plant, list(lines)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        if not self._lines:
            return 0
        line = self._lines.pop(0)
        if not isinstance(line, str):
            index, place, line = line
            self._plant.encoders[index].at = place
            self._plant.settle()
        data = f"{line}\n".encode()
        buffer[: len(data)] = data
        return len(data)


def by_hand(words: Sequence[str], technician: Technician) -> str:
    """Output of ``kizzasi-bridge WORDS`` with the technician's input; its error if it fails."""
    shown = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(shown):
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(technician)))
        patch.setenv("COLUMNS", "150")
        app(list(words), standalone_mode=False)
    return shown.getvalue()
