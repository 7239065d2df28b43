"""Writes rrbot.onnx, the policy of the example: `python make_policy.py rrbot.onnx`.

A module of one's own with ``step`` and ``initial_state`` is all that an export needs; this one needs no training. It
leads each joint to its target like a critically damped spring, from where the joint is measured. Needs kizzasi-edge's
extra ``export``; the robot does not.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn

from kizzasi_export import export_step

JOINTS = ("joint1", "joint2")
RATE_HZ = 100.0
STIFFNESS, SPEED, ACCELERATION = 4.0, 1.5, 3.0  # rad/s, rad/s, rad/s²: within what the guard allows
LEAD = 0.1  # rad: how far the setpoint may be ahead of a joint that does not follow


class Spring(nn.Module):
    """x [B, 4]: measured positions, then targets [rad]; y [B, 2]: the joints' next setpoints [rad]."""

    def initial_state(self, batch: int) -> dict[str, Tensor]:
        return {"setpoint": torch.zeros(batch, len(JOINTS)), "speed": torch.zeros(batch, len(JOINTS))}

    def step(self, x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        measured, target = x.split(len(JOINTS), dim=-1)
        setpoint = torch.minimum(torch.maximum(state["setpoint"], measured - LEAD), measured + LEAD)
        pull = STIFFNESS**2 * (target - setpoint) - 2 * STIFFNESS * state["speed"]
        speed = state["speed"] + torch.clamp(pull, -ACCELERATION, ACCELERATION) / RATE_HZ
        speed = torch.clamp(speed, -SPEED, SPEED)
        setpoint = setpoint + speed / RATE_HZ
        return setpoint, {"setpoint": setpoint, "speed": speed}


if __name__ == "__main__":
    export_step(
        Spring(),
        sys.argv[1],
        sample_rate_hz=RATE_HZ,
        input_names=[f"{joint}/{what}" for what in ("position", "target_position") for joint in JOINTS],
        output_names=[f"{joint}/position" for joint in JOINTS],
    )
