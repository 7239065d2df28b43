"""What tests do through a Link."""

from __future__ import annotations

import time

from kizzasi_bridge import Link
from kizzasi_bridge.errors import LinkError


def clear_at_rest(link: Link, timeout_s: float = 3.0) -> None:
    """CLEAR as soon as the board has seen itself at rest for long enough to allow it."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return link.clear()
        except LinkError as error:
            if "NOT_AT_REST" not in str(error) or time.monotonic() > deadline:
                raise
