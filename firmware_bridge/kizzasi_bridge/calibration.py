"""Raw integers ↔ SI values, vectorised over the channels or the sensors of a schema."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .protocol import INVALID
from .schema import Channel, Sensor

__all__ = ["Calibration"]

_RAW_MAX = 2**31 - 1


class Calibration:
    """The affine map SI = (raw − zero)·scale of one row of a schema.

    Attributes:
        names: interface names, in wire order.
        units: SI units, in wire order.
    """

    __slots__ = ("_scale", "_zero", "names", "units")

    def __init__(self, row: Sequence[Channel] | Sequence[Sensor]) -> None:
        self.names = tuple(item.name for item in row)
        self.units = tuple(item.unit for item in row)
        self._zero = np.array([item.zero for item in row], dtype=np.float64)
        self._scale = np.array([item.scale for item in row], dtype=np.float64)

    def to_si(self, raw: NDArray[np.int32]) -> NDArray[np.float64]:
        """int32 (n,) raw → float64 (n,) in the schema's units."""
        return (raw - self._zero) * self._scale

    def delta_to_si(self, raw: NDArray[np.int32]) -> NDArray[np.float64]:
        """int32 (n,) differences of raw values → float64 (n,): scaled, without the zero."""
        return raw * self._scale

    def to_raw(self, si: ArrayLike) -> NDArray[np.int32]:
        """float (n,) in the schema's units → int32 (n,), to the nearest quantum.

        Values beyond the integer range saturate; a non-finite one becomes INVALID, which the node answers
        with FAILSAFE rather than with a motion.
        """
        with np.errstate(invalid="ignore"):
            raw = np.asarray(si, dtype=np.float64) / self._scale
        raw += self._zero
        np.rint(raw, out=raw)
        finite = np.isfinite(raw)
        np.minimum(raw, _RAW_MAX, out=raw)
        np.maximum(raw, -_RAW_MAX, out=raw)
        if not finite.all():
            raw[~finite] = INVALID
        return raw.astype(np.int32)
