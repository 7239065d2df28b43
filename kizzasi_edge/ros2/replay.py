"""A recorded bag played back: a thread reads ahead and decodes, the loop takes what is due."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kizzasi_edge.errors import ConnectorError, KizzasiError, WireError
from kizzasi_edge.ros2.codec import Decoder, Sample
from kizzasi_edge.ros2.messages import Messages, rosbags

AHEAD = 1000
"""Messages decoded before they are due."""


class Track:
    """One topic of a replay: the newest sample that is due, and counters."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.latest: Sample | None = None
        self.received = self.refused = 0


class Replay:
    """One pass through a bag for all inputs that read from it, so that its topics keep their times to each other.

    ``rate`` 1.0 is the speed of recording; the first :meth:`take` opens the bag, and time begins with its first
    message. With 0 each take of the first track goes on to its next message, however long that took when recorded.
    """

    def __init__(self, path: Path, rate: float, definitions: Sequence[Path] = ()) -> None:
        self.path, self.rate, self.definitions = path, rate, definitions
        self.tracks: list[Track] = []
        self.started = self.damaged = False
        self._start_ns = self._first_ns = 0
        self._queue: deque[tuple[int, list[tuple[Track, Sample]]]] = deque()
        self._room = threading.Semaphore(AHEAD)
        self._read = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read_all, name=f"bag {path.name}", daemon=True)

    @property
    def ended(self) -> bool:
        """Everything was taken."""
        return self._read.is_set() and not self._queue

    def take(self, track: Track) -> Sample | None:
        """The newest sample of a track now; None before its first, and at full speed after the bag's end. At full
        speed it waits for the disk; otherwise for nothing."""
        if not self.started:
            self.started = True
            self._thread.start()
        if self.rate:
            self._take_due(time.monotonic_ns())
        elif track is self.tracks[0]:
            self._take_step()
        return track.latest

    def leave(self, track: Track) -> None:
        """A track is closed; with the last one the reading ends."""
        self.tracks.remove(track)
        if not self.tracks and self.started:
            self._stop.set()
            self._room.release()
            self._thread.join()

    def _take_due(self, now_ns: int) -> None:
        while self._queue:
            due_ns = self._start_ns + round((self._queue[0][0] - self._first_ns) / self.rate)
            if due_ns > now_ns:
                return
            self._give(due_ns)

    def _take_step(self) -> None:
        while not self.ended:
            if not self._queue:
                time.sleep(1e-4)
            elif self.tracks[0] in self._give(time.monotonic_ns()):
                return
        for other in self.tracks:
            other.latest = None

    def _give(self, stamp_ns: int) -> list[Track]:
        """The next message to the tracks that read its topic."""
        _, samples = self._queue.popleft()
        self._room.release()
        for track, sample in samples:
            track.latest = sample._replace(recv_ns=stamp_ns)
            track.received += 1
        return [track for track, _ in samples]

    def _read_all(self) -> None:
        try:
            topics = {track.decoder.topic for track in self.tracks}
            with opened(self.path, self.definitions) as bag:
                chosen = [connection for connection in bag.connections if connection.topic in topics]
                for connection, stamp_ns, raw in bag.messages(connections=chosen):
                    self._room.acquire()
                    if self._stop.is_set():
                        return
                    if not self._start_ns:
                        self._start_ns, self._first_ns = time.monotonic_ns(), stamp_ns
                    self._queue.append((stamp_ns, self._decoded(connection.topic, raw)))
        except ConnectorError:
            self.damaged = True
        finally:
            self._read.set()

    def _decoded(self, topic: str, raw: bytes) -> list[tuple[Track, Sample]]:
        found = []
        for track in self.tracks:
            if track.decoder.topic == topic:
                try:
                    found.append((track, track.decoder.decode(raw)))
                except WireError:
                    track.refused += 1
        return found


@contextmanager
def opened(path: Path, definitions: Sequence[Path] = ()) -> Iterator[Any]:
    """rosbags' reader of a rosbag2: a folder, a ``.mcap`` or a ``.db3`` file.

    Raises :class:`ConnectorError` for whatever goes wrong while it is open: also where the bag turns out damaged.
    """
    highlevel = rosbags("rosbags.highlevel")
    # Bags before Iron hold no definitions of their messages.
    store = Messages(definitions).store
    try:
        with highlevel.AnyReader([path], default_typestore=store) as reader:
            if not reader.is2:
                raise ConnectorError(f"{path}: is a bag of ROS 1; expected a rosbag2, sqlite3 or MCAP")
            yield reader
    except KizzasiError:
        raise
    except Exception as exc:  # the readers' own, and whatever damaged bytes lead them into
        raise ConnectorError(f"{path}: cannot be read as a rosbag2: {str(exc)[:300]}") from None
