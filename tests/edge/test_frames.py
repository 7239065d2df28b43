"""Observation and Command carry stamps unchanged and refuse arrays that do not fit their names."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from kizzasi_edge.errors import InputError
from kizzasi_edge.frames import Command, Observation


def observation(**changes: object) -> Observation:
    fields: dict[str, object] = {
        "stamp_ns": 123,
        "seq": 7,
        "names": ("a", "b"),
        "values": np.zeros(2, np.float32),
        "valid": np.array([True, False]),
        "t_us": 4_000_000_000,
    }
    return Observation(**(fields | changes))  # type: ignore[arg-type]


def test_stamps_travel_from_observation_to_command() -> None:
    command = observation().command(("c",), np.ones(1, np.float32))
    assert isinstance(command, Command)
    assert (command.stamp_ns, command.seq, command.t_us) == (123, 7, 4_000_000_000)
    assert command.names == ("c",)
    assert command.valid.all()


def test_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        observation().stamp_ns = 1  # type: ignore[misc]
    with pytest.raises((AttributeError, TypeError)):
        observation().other = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"values": np.zeros(3, np.float32)},
            r"Observation\.values: found float32 \(3,\), expected float32 \(2,\)",
        ),
        ({"values": np.zeros(2)}, r"Observation\.values: found float64 \(2,\)"),
        ({"valid": np.zeros(2)}, r"Observation\.valid: found float64 \(2,\), expected bool"),
        ({"t_us": -1}, r"Observation\.t_us: found -1"),
        ({"t_us": 1 << 32}, r"Observation\.t_us: found 4294967296"),
    ],
)
def test_arrays_that_do_not_fit(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        observation(**changes)
    with pytest.raises(InputError, match=r"Command\.values"):
        observation().command(("c",), np.ones(2, np.float32))
