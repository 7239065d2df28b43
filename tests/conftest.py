"""What all tests share: patience. A busy machine is late, by its own measure, with the bytes of a pty above all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kizzasi_bridge import request


@pytest.fixture(scope="session", autouse=True)
def _patience() -> Iterator[None]:
    """Requests to a board get seconds for an answer, not half of one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request, "_TRIES", 10 * request._TRIES)
        yield
