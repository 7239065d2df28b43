"""What one source (URDF, MJCF, joint_limits.yaml) says about one joint; several are merged, the tightest wins."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kizzasi_edge.errors import GuardrailError


@dataclass(frozen=True, slots=True)
class JointBounds:
    """Limits in rad, rad/s, rad/s², rad/s³, N·m (m and N for prismatic joints); infinite where the source is silent."""

    name: str
    lower: float = -math.inf
    upper: float = math.inf
    velocity: float = math.inf
    acceleration: float = math.inf
    jerk: float = math.inf
    effort: float = math.inf

    def tightened(self, other: JointBounds) -> JointBounds:
        """The tightest of both, under this one's name."""
        return JointBounds(
            self.name,
            max(self.lower, other.lower),
            min(self.upper, other.upper),
            min(self.velocity, other.velocity),
            min(self.acceleration, other.acceleration),
            min(self.jerk, other.jerk),
            min(self.effort, other.effort),
        )

    def checked(self, where: str) -> JointBounds:
        """Itself. Raises :class:`GuardrailError` if no position is left or a bound on motion is not above 0.

        An effort of 0 passes: many robot files say so and only torque guards read it.
        """
        if self.lower >= self.upper:
            raise GuardrailError(f"{where}: lower {self.lower:g} is not below upper {self.upper:g}")
        for key in ("velocity", "acceleration", "jerk"):
            if getattr(self, key) <= 0:
                raise GuardrailError(f"{where} {key}: found {getattr(self, key):g}; expected a value above 0")
        if self.effort < 0:
            raise GuardrailError(f"{where} effort: found {self.effort:g}; expected a value of at least 0")
        return self


def symmetric(lower: float, upper: float) -> float:
    """The bound on the size of a value that may go from ``lower`` to ``upper``."""
    return min(-lower, upper)
