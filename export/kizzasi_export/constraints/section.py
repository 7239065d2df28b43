"""``[constraints]`` of a train.toml: which guard, and how training learns to keep its rules."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kizzasi_edge.toml_file import Section


class PenaltySection(Section):
    """``method = "penalty"``: see `ConstraintAwareLoss`. `guard` is relative to the train.toml."""

    method: Literal["penalty"]
    guard: str
    penalty: Literal["hinge", "squared", "log_barrier"] = "squared"
    weight: float = Field(default=1.0, ge=0)
    weights: dict[str, float] = {}
    sharpness: float = Field(default=20.0, gt=0)


class LagrangianSection(Section):
    """``method = "lagrangian"``: see `LagrangianRelaxation`."""

    method: Literal["lagrangian"]
    guard: str
    rate: float = Field(default=0.1, gt=0)
    tolerance: float = Field(default=1e-3, gt=0)
    largest: float = Field(default=100.0, gt=0)


class ProjectionSection(Section):
    """``method = "projection"``: see `ProjectionLoss`."""

    method: Literal["projection"]
    guard: str
    distance: float = Field(default=1.0, gt=0)


ConstraintsSection = Annotated[PenaltySection | LagrangianSection | ProjectionSection, Field(discriminator="method")]
