"""A guard declared in code instead of a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from kizzasi_edge.guardrails.spec import GuardFile, parse_spec

if TYPE_CHECKING:
    from kizzasi_edge.guardrails.stack import Guardrails


class Builder:
    """Declare joints and constraints in code; :meth:`build` checks them as a file would be checked."""

    def __init__(
        self, make: Callable[[GuardFile], Guardrails], rate_hz: float, miss_budget: int, velocity_scale: float
    ) -> None:
        self._make = make
        self._guard: dict[str, Any] = {"rate_hz": rate_hz, "miss_budget": miss_budget}
        self._joints: dict[str, Any] = {"velocity_scale": velocity_scale}
        self._columns: dict[str, list[Any]] = {
            "names": [],
            "position": [],
            "velocity": [],
            "acceleration": [],
            "margin": [],
        }
        self._constraints: list[dict[str, Any]] = []

    def joint(
        self,
        name: str,
        *,
        position: Sequence[float],
        velocity: float,
        acceleration: float,
        margin: float = 0.0,
    ) -> Builder:
        """Add a joint: ``position`` (lo, hi), ``margin`` [rad], ``velocity`` [rad/s], ``acceleration`` [rad/s²]."""
        for key, value in zip(self._columns, (name, list(position), velocity, acceleration, margin), strict=True):
            self._columns[key].append(value)
        return self

    def constraint(self, kind: str, name: str, joint: str | None = None, **keys: Any) -> Builder:
        """Add a constraint: the keys of ``[[constraint]]``."""
        where = {} if joint is None else {"joint": joint}
        self._constraints.append({"kind": kind, "name": name, **where, **keys})
        return self

    def build(self) -> Guardrails:
        """The guard. Raises :class:`GuardrailError` as loading a file does."""
        data = {
            "schema": 1,
            "guard": self._guard,
            "joints": {**self._joints, **self._columns},
            "constraint": self._constraints,
        }
        return self._make(parse_spec(data, "builder"))
