"""What a step is given, checked before anything moves: errors name the argument, what was found, what was expected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kizzasi_edge.errors import GuardrailError, InputError

F64 = npt.NDArray[np.float64]
FloatArray = npt.NDArray[np.float32]
F32 = np.dtype(np.float32)  # comparing with the type itself would build this at each step
SHOWN = 16


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """What a guard takes.

    ``shape`` of a command, of what is sent, and of measurements; ``names``: of its elements; ``measures``: of
    "position" and "velocity", what every step needs; ``signals``: names that rules read; ``stamped``: whether a step
    needs a stamp.
    """

    where: str
    shape: tuple[int, ...]
    names: tuple[str, ...]
    measures: tuple[str, ...]
    signals: frozenset[str]
    stamped: bool

    def command(self, value: npt.ArrayLike) -> FloatArray:
        """A command as float32; what that cannot hold becomes infinite. Raises :class:`InputError`."""
        try:
            with np.errstate(over="ignore"):
                array = np.asarray(value, np.float32)
        except (TypeError, ValueError) as exc:
            raise InputError(f"command: {exc}; expected numbers") from None
        if array.shape != self.shape:
            raise InputError(f"command: found shape {array.shape}; expected {self.shape}, for {self._some()}")
        return array

    def out(self, out: FloatArray) -> None:
        """Refuse what cannot be written into. Raises :class:`InputError`."""
        if out.shape != self.shape or out.dtype != F32 or not out.flags.writeable:
            kind = "" if out.flags.writeable else "read-only "
            raise InputError(f"out: found {kind}{out.dtype} {out.shape}; expected float32 {self.shape}")

    def measured(
        self,
        position: npt.ArrayLike | None,
        velocity: npt.ArrayLike | None,
        signals: Mapping[str, float] | None,
        stamp_ns: int,
    ) -> tuple[F64 | None, F64 | None]:
        """Position and velocity, which may hold NaN, after all has been checked. Raises :class:`GuardrailError` for
        what is missing, :class:`InputError`."""
        q, v = self._vector(position, "position"), self._vector(velocity, "velocity")
        if signals is not None and not self.signals.issuperset(signals):
            used = f"; the rules read {sorted(self.signals)}" if self.signals else ", but no rule reads a signal"
            raise GuardrailError(f"{self.where}: signals {sorted(signals.keys() - self.signals)} are given{used}")
        if self.stamped and not stamp_ns:
            raise InputError("stamp_ns: missing; [faults] stale_ms and clock_jump_ms need the inputs' receive time")
        return q, v

    def place(self, position: npt.ArrayLike) -> F64:
        """A position to stand at: finite. Raises :class:`InputError`."""
        array = self._vector(position, "position")
        assert array is not None
        if not np.isfinite(array).all():
            bad = int(np.flatnonzero(~np.isfinite(array))[0])
            raise InputError(f"position[{bad}] ({self.names[bad]}): found {array[bad]}; expected a finite number")
        return array

    def _vector(self, value: npt.ArrayLike | None, name: str) -> F64 | None:
        if value is None:
            if name in self.measures:
                raise GuardrailError(f"{self.where}: {name}=: missing; this guard needs it every period")
            return None
        try:
            array = np.asarray(value, np.float64)
        except (TypeError, ValueError) as exc:
            raise InputError(f"{name}: {exc}; expected numbers") from None
        if array.shape != self.shape:
            raise InputError(f"{name}: found shape {array.shape}; expected {self.shape}, for {self._some()}")
        return array

    def _some(self) -> list[str]:
        return list(self.names)[:SHOWN]
