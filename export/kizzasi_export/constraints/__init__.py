"""Constraint-aware training: rules of the deployed guard as losses, and the guard itself as a layer."""

from __future__ import annotations

from kizzasi_export.constraints.penalty import ConstraintAwareLoss, LagrangianRelaxation
from kizzasi_export.constraints.projection import GuardProjection, ProjectionLoss
from kizzasi_export.constraints.rules import GuardRules

__all__ = ["ConstraintAwareLoss", "GuardProjection", "GuardRules", "LagrangianRelaxation", "ProjectionLoss"]
