"""1 kHz from another process for a minute, reliable: nothing is lost, and nothing waits."""

from __future__ import annotations

import pytest

pytest.importorskip("cyclonedds", reason="the extra dds is not installed")

from dds_stream import stream

pytestmark = pytest.mark.prove


def test_a_kilohertz_for_a_minute() -> None:
    stream(60.0)
