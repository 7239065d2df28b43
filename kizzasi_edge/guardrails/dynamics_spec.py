"""From the ``[dynamics]`` section of a guard file to the model of the robot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.dynamics import Dynamics
from kizzasi_edge.guardrails.rows import F64
from kizzasi_edge.guardrails.spec import GuardFile, PerJoint

__all__ = ["each_joint", "robot_dynamics"]


def robot_dynamics(spec: GuardFile, joints: Sequence[str], where: str | Path) -> Dynamics:
    """The dynamics of ``joints``, in their order.

    Raises :class:`GuardrailError` naming file, section, key, found, expected; MissingExtra without pinocchio.
    """
    section = spec.dynamics
    if section is None:
        raise GuardrailError(f"{where}: [dynamics]: missing; torques and powers follow from the robot's inertias")
    urdf = section.urdf or spec.joints.from_urdf
    if urdf is None:
        raise GuardrailError(f"{where}: [dynamics] urdf: missing; expected the URDF with the robot's inertias")
    return Dynamics(
        Path(where).parent / urdf,
        joints,
        gravity=section.gravity,
        armature=each_joint(section.armature, len(joints), where, "armature"),
        mass_error=section.mass_error,
        fixed=section.fixed,
    )


def each_joint(value: PerJoint, n: int, where: str | Path, key: str) -> F64:
    """``[dynamics] key`` as (n,). Raises :class:`GuardrailError` for another number of values."""
    if isinstance(value, list) and len(value) != n:
        raise GuardrailError(f"{where}: [dynamics] {key}: found {len(value)} values; expected one, or {n}")
    return np.array(np.broadcast_to(value, (n,)), np.float64)
