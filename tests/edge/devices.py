"""Guards of positions, velocities and torques, and devices that take them and count in their own way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kizzasi_bridge.schema import Channel, Schema, Sensor
from kizzasi_edge.guardrails import Guardrails
from kizzasi_edge.guardrails.spec import parse_spec
from kizzasi_edge.joints import SUFFIX

ROOT = Path(__file__).parents[2]
RATE = 500.0
FINE = 2.0**-21  # rad of one count
JOINTS = ("lift", "pan", "roll")  # the device's order
QUANTUM = {"position": FINE, "velocity": FINE * RATE}


def guard_of(command: str, **joints: Any) -> Guardrails:
    table = {
        "names": ["pan", "roll", "lift"],
        "position": [[-0.4, 0.6], [-1.0, 1.0], [-0.3, 0.2]],
        "velocity": 1.5,
        "acceleration": 12.0,
        "quantum": QUANTUM[command],
        **joints,
    }
    guard = {"rate_hz": RATE, "command": command, "miss_budget": 2}
    return Guardrails(parse_spec({"schema": 1, "guard": guard, "joints": table}, "t"), "t.guard.toml")


def schema_of(command: str) -> Schema:
    """A device that counts pan backwards, and none of them from 0."""
    scales, zeros = (FINE, -FINE, FINE), (0, 12_345, -777)
    channels = tuple(
        Channel(f"{joint}{SUFFIX[command]}", "rad", zero, scale, command)  # type: ignore[arg-type]
        for joint, scale, zero in zip(JOINTS, scales, zeros, strict=True)
    )
    sensors = tuple(
        Sensor(f"{joint}/position", "rad", zero, scale, i)
        for i, (joint, scale, zero) in enumerate(zip(JOINTS, scales, zeros, strict=True))
    )
    return Schema("t", 1000, channels, sensors)


def torque_guard() -> Guardrails:
    """The demo arm's, through its inertias; skips the test without pinocchio."""
    pytest.importorskip("pinocchio")
    return Guardrails.load(ROOT / "examples" / "torque_arm" / "arm.guard.toml")


def torque_schema(guard: Guardrails, *backwards: int) -> Schema:
    """A device with the guard's joints in reverse; the encoders of some count ``backwards``."""
    joints = list(zip(guard.joints, guard.node, strict=True))[::-1]
    channels = tuple(Channel(f"{joint}/effort", "N·m", 0, cell.quantum, "torque") for joint, cell in joints)
    scales = [-FINE if i in backwards else FINE for i in range(len(joints))]
    sensors = (Sensor(f"{joint}/position", "rad", 0, scales[i], i) for i, (joint, _) in enumerate(joints))
    return Schema("t", 1000, channels, tuple(sensors))
