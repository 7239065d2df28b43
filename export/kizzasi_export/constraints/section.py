"""``[constraints]`` of a train.toml: which guard, and how training learns to keep its rules."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from kizzasi_edge.errors import ConfigError
from kizzasi_edge.toml_file import Section, validate


class PenaltySection(Section, allow_inf_nan=False):
    """``method = "penalty"``: see `ConstraintAwareLoss`. `guard` is relative to the train.toml."""

    method: Literal["penalty"]
    guard: str
    penalty: Literal["hinge", "squared", "log_barrier"] = "squared"
    weight: float = Field(default=1.0, ge=0)
    weights: dict[str, float] = {}
    sharpness: float = Field(default=20.0, gt=0)


class LagrangianSection(Section, allow_inf_nan=False):
    """``method = "lagrangian"``: see `LagrangianRelaxation`."""

    method: Literal["lagrangian"]
    guard: str
    rate: float = Field(default=0.1, gt=0)
    tolerance: float = Field(default=1e-3, gt=0)
    largest: float = Field(default=100.0, gt=0)


class ProjectionSection(Section, allow_inf_nan=False):
    """``method = "projection"``: see `ProjectionLoss`."""

    method: Literal["projection"]
    guard: str
    distance: float = Field(default=1.0, gt=0)


ConstraintsSection = PenaltySection | LagrangianSection | ProjectionSection

_METHODS: dict[str, type[ConstraintsSection]] = {
    "penalty": PenaltySection, "lagrangian": LagrangianSection, "projection": ProjectionSection
}  # fmt: skip


def constraints_section(values: Any, where: str) -> ConstraintsSection:
    """The section that its `method` asks for; `where` names file and section in errors.

    Raises:
        ConfigError: no such method, or keys and values that it does not have.
    """
    method = values.get("method") if isinstance(values, dict) else None
    if not isinstance(method, str) or method not in _METHODS:
        raise ConfigError(f"{where}: method: found {method!r}, expected one of {', '.join(_METHODS)}")
    return validate(values, _METHODS[method], where, ConfigError)
