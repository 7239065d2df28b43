"""Robot descriptions for the tests of what is read from them, and a guard file around them."""

from __future__ import annotations

import tomllib
from pathlib import Path

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.bounds import JointBounds
from kizzasi_edge.guardrails.joint_limits import read_joint_limits
from kizzasi_edge.guardrails.lattice import JointLimits
from kizzasi_edge.guardrails.limits import joint_limits
from kizzasi_edge.guardrails.spec import GuardFile, check_keys
from kizzasi_edge.guardrails.urdf import read_urdf
from kizzasi_edge.toml_file import validate


def limits(folder: Path, joints: str, rest: str = "", command: str = "position") -> tuple[JointLimits, ...]:
    """The limits that follow from a guard file in ``folder``."""
    where = folder / "x.guard.toml"
    text = (
        f'schema = 1\n[guard]\nrate_hz = 500\ncommand = "{command}"\n[joints]\nvelocity_scale = 1.0\n{joints}\n{rest}'
    )
    spec = validate(tomllib.loads(text), GuardFile, where, GuardrailError)
    check_keys(spec, where)
    return joint_limits(spec, where)


def urdf(folder: Path, body: str) -> tuple[JointBounds, ...]:
    path = folder / "r.urdf"
    path.write_text(f'<robot name="r">{body}</robot>')
    return read_urdf(path)


def joint(name: str, attributes: str, inner: str = "", kind: str = "revolute") -> str:
    return f'<joint name="{name}" type="{kind}"><limit {attributes}/>{inner}</joint>'


YAML = """# MoveIt
default_velocity_scaling_factor: 0.1
default_acceleration_scaling_factor: 0.1
joint_limits:
  a:
    has_position_limits: true
    min_position: !degrees -90
    max_position: 1.25
    has_velocity_limits: true
    max_velocity: 2
    has_acceleration_limits: true
    max_acceleration: 8e0
    has_deceleration_limits: true
    max_deceleration: 6.5
    has_jerk_limits: true
    max_jerk: 50
    has_effort_limits: true
    max_effort: 20
  b:
    has_velocity_limits: false
    max_velocity: 0.001
    has_soft_limits: true
    soft_lower_limit: -0.5
    soft_upper_limit: 0.5
    k_position: 10
    k_velocity: 20
    angle_wraparound: false
"""


def yaml(folder: Path, text: str) -> dict[str, JointBounds]:
    (folder / "joint_limits.yaml").write_text(text)
    return {bound.name: bound for bound in read_joint_limits(folder / "joint_limits.yaml")}
