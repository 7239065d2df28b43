"""Normalisation inside the model, so that graphs take and give raw SI units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Normalizer:
    """Per-channel affine maps: network input = (x − input_mean) / input_std, y = output · output_std + output_mean.

    Tuples of floats in SI units; every std is finite and > 0.
    """

    input_mean: tuple[float, ...]
    input_std: tuple[float, ...]
    output_mean: tuple[float, ...]
    output_std: tuple[float, ...]

    def __post_init__(self) -> None:
        for side in ("input", "output"):
            mean, std = getattr(self, f"{side}_mean"), getattr(self, f"{side}_std")
            if len(mean) != len(std):
                raise ValueError(f"normalizer: {side}_mean has {len(mean)} values, {side}_std has {len(std)}")
            for i, (m, s) in enumerate(zip(mean, std, strict=True)):
                if not math.isfinite(m):
                    raise ValueError(f"normalizer: {side}_mean[{i}] = {m}, expected a finite number")
                if not (math.isfinite(s) and s > 0):
                    raise ValueError(f"normalizer: {side}_std[{i}] = {s}, expected a finite number > 0")

    @classmethod
    def identity(cls, input_dim: int, output_dim: int) -> Normalizer:
        return cls((0.0,) * input_dim, (1.0,) * input_dim, (0.0,) * output_dim, (1.0,) * output_dim)

    @classmethod
    def fit(cls, x: NDArray[np.floating], y: NDArray[np.floating]) -> Normalizer:
        """Means and standard deviations of x [..., in] and y [..., out]; a constant channel gets std 1."""
        return cls(*_moments(x), *_moments(y))


def _moments(values: NDArray[np.floating]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    flat = np.asarray(values, np.float64).reshape(-1, values.shape[-1])
    mean, std = flat.mean(0), flat.std(0)
    # Below float32 resolution of the channel's own magnitude a spread is rounding, not signal.
    std = np.where(std > 1e-6 * np.maximum(1.0, np.abs(mean)), std, 1.0)
    return _floats(mean), _floats(std)


def _floats(values: Sequence[float] | NDArray[np.floating]) -> tuple[float, ...]:
    return tuple(float(v) for v in values)
