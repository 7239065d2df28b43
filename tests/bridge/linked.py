"""What tests do through a Link, with patience: how long a thing takes is the machine's affair."""

from __future__ import annotations

import time
from collections.abc import Callable

from kizzasi_bridge import Link
from kizzasi_bridge.errors import LinkError

PATIENT_MS = 10_000
"""TTL of sessions in which no TTL is to pass, however long a busy machine forgets the host."""


def until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Wait for what must happen."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.002)


def clear_at_rest(link: Link, timeout_s: float = 20.0) -> None:
    """CLEAR as soon as the board has seen itself at rest for long enough to allow it."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return link.clear()
        except LinkError as error:
            if "NOT_AT_REST" not in str(error) or time.monotonic() > deadline:
                raise
