"""Windows of input and target sequences, checked before any time is spent on training."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from kizzasi_edge.errors import ConfigError

Array = NDArray[np.float32]


class SequenceDataset(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """N windows of T steps: x [N, T, in], y [N, T, out] (SI units), weight [N, T] ≥ 0 (default 1).

    A weight of 0 takes a step out of the loss (padding, burn-in) while the model still sees it.

    Raises:
        ConfigError: wrong or unequal shapes, or NaN/Inf (names the array, sequence, row and column).
    """

    def __init__(self, x: Any, y: Any, weight: Any | None = None, *, source: str = "dataset") -> None:
        self.x, self.y = _checked("x", x, 3, source), _checked("y", y, 3, source)
        ones = np.ones(self.x.shape[:2], np.float32)
        self.weight = ones if weight is None else _checked("weight", weight, 2, source)
        for name, array in (("y", self.y), ("weight", self.weight)):
            if array.shape[:2] != self.x.shape[:2]:
                raise ConfigError(
                    f"{source}: {name} is {list(array.shape)}, expected [N, T] = {list(self.x.shape[:2])} as in x"
                )
        if (self.weight < 0).any() or not (self.weight > 0).any():
            raise ConfigError(f"{source}: weight must be ≥ 0 and somewhere > 0")

    @property
    def input_dim(self) -> int:
        return int(self.x.shape[2])

    @property
    def output_dim(self) -> int:
        return int(self.y.shape[2])

    @property
    def digest(self) -> str:
        """sha256 over the values, for provenance."""
        h = hashlib.sha256()
        for array in (self.x, self.y, self.weight):
            h.update(repr(array.shape).encode())
            h.update(array.tobytes())
        return h.hexdigest()

    def __len__(self) -> int:
        return int(self.x.shape[0])

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        return torch.from_numpy(self.x[index]), torch.from_numpy(self.y[index]), torch.tensor(self.weight[index])

    def __add__(self, other: Dataset[tuple[Tensor, Tensor, Tensor]]) -> SequenceDataset:  # type: ignore[override]
        """Both datasets' windows (equal T and dimensions), as rounds of data aggregation need."""
        if not isinstance(other, SequenceDataset):
            return NotImplemented
        for name in ("x", "y"):
            mine, theirs = getattr(self, name).shape, getattr(other, name).shape
            if mine[1:] != theirs[1:]:
                raise ConfigError(f"cannot join datasets: {name} is {list(mine)} and {list(theirs)}")
        return SequenceDataset(
            np.concatenate([self.x, other.x]),
            np.concatenate([self.y, other.y]),
            np.concatenate([self.weight, other.weight]),
        )

    def subset(self, indices: Sequence[int] | NDArray[np.int64]) -> SequenceDataset:
        """The windows at `indices`."""
        pick = np.asarray(indices, np.int64)
        return SequenceDataset(self.x[pick], self.y[pick], self.weight[pick])


def _checked(name: str, values: Any, ndim: int, source: str) -> Array:
    axes = "[N, T, channels]" if ndim == 3 else "[N, T]"
    found = np.asarray(values)
    if found.ndim != ndim or 0 in found.shape:
        raise ConfigError(f"{source}: {name} is {list(found.shape)}, expected {axes} with no empty axis")
    if found.dtype.kind not in "fiu":
        raise ConfigError(f"{source}: {name} has dtype {found.dtype}, expected numbers")
    with np.errstate(over="ignore"):  # what overflows float32 is reported below
        array = np.ascontiguousarray(found, np.float32)
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        where = ", ".join(f"{axis} {i}" for axis, i in zip(("sequence", "row", "column"), bad[0], strict=False))
        raise ConfigError(
            f"{source}: {name} holds {len(bad)} non-finite value(s) in float32, the first at {where}: "
            f"{found[tuple(bad[0])]}"
        )
    return array
