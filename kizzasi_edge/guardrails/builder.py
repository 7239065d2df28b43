"""A guard declared in code instead of a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kizzasi_edge.guardrails.spec import GuardFile, parse_spec

if TYPE_CHECKING:
    from kizzasi_edge.guardrails.stack import Guardrails

_COLUMNS = ("names", "position", "velocity", "acceleration", "margin", "jerk", "effort")


class Builder:
    """Declare joints and rules in code; :meth:`build` checks them as a file would be checked."""

    def __init__(
        self, make: Callable[[GuardFile], Guardrails], guard: Mapping[str, Any], velocity_scale: float
    ) -> None:
        """``guard``: the keys of ``[guard]``."""
        self._make = make
        self._data: dict[str, Any] = {"schema": 1, "guard": dict(guard), "constraint": [], "temporal": []}
        self._scale = velocity_scale
        self._joints: list[tuple[Any, ...]] = []

    def joint(
        self,
        name: str,
        *,
        position: Sequence[float] | None = None,
        velocity: float,
        acceleration: float,
        margin: float = 0.0,
        jerk: float | None = None,
        effort: float | None = None,
    ) -> Builder:
        """Add a joint: ``position`` (lo, hi) and ``margin`` [rad], ``velocity`` [rad/s], ``acceleration`` [rad/s²],
        ``jerk`` [rad/s³], ``effort`` [N·m]. Of ``position``, ``jerk``, ``effort`` all joints have one, or none."""
        span = None if position is None else list(position)
        self._joints.append((name, span, velocity, acceleration, margin, jerk, effort))
        return self

    def constraint(self, kind: str, name: str, joint: str | None = None, **keys: Any) -> Builder:
        """Add a constraint: the keys of ``[[constraint]]``."""
        where = {} if joint is None else {"joint": joint}
        self._data["constraint"].append({"kind": kind, "name": name, **where, **keys})
        return self

    def temporal(self, name: str, formula: str, **keys: Any) -> Builder:
        """Add a temporal rule: the keys of ``[[temporal]]``."""
        self._data["temporal"].append({"name": name, "formula": formula, **keys})
        return self

    def faults(self, **keys: Any) -> Builder:
        """The keys of ``[faults]``."""
        self._data["faults"] = keys
        return self

    def dynamics(self, **keys: Any) -> Builder:
        """The keys of ``[dynamics]``."""
        self._data["dynamics"] = keys
        return self

    def build(self) -> Guardrails:
        """The guard. Raises :class:`GuardrailError` as loading a file does."""
        data = dict(self._data)
        if self._joints:
            columns = zip(_COLUMNS, zip(*self._joints, strict=True), strict=True)
            given = {key: list(column) for key, column in columns if any(value is not None for value in column)}
            data["joints"] = {"velocity_scale": self._scale, **given}
        return self._make(parse_spec(data, "builder"))
