"""Scalar quantisers: the levels that a categorical head chooses from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kizzasi_export.models.stack import check_size


@dataclass(frozen=True)
class Tokenizer:
    """`vocab` levels between `low` and `high` (SI units, one per output or one for all).

    kind: "uniform" = equidistant levels; "mulaw" = μ-law companded about the middle of the range (ITU-T G.711,
    μ = vocab - 1), finer near the middle.
    """

    kind: str
    vocab: int
    low: float | tuple[float, ...]
    high: float | tuple[float, ...]

    def __post_init__(self) -> None:
        if self.kind not in ("uniform", "mulaw"):
            raise ValueError(f"tokenizer kind = {self.kind!r}, expected uniform or mulaw")
        check_size("tokenizer vocab", self.vocab, 2)
        try:
            pairs = np.broadcast(np.asarray(self.low, float), np.asarray(self.high, float))
        except (TypeError, ValueError):
            raise ValueError(
                f"tokenizer: found low = {self.low!r} and high = {self.high!r}, expected numbers, one each or one per "
                "output"
            ) from None
        for low, high in pairs:
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ValueError(f"tokenizer range {low} … {high}, expected finite low < high")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Tokenizer:
        """From JSON or TOML values.

        Raises:
            ValueError: keys or values that do not fit.
        """
        arguments: dict[str, Any] = {
            k: tuple(np.ravel(v).tolist()) if isinstance(v, (list, tuple, np.ndarray)) else v for k, v in values.items()
        }
        try:
            return cls(**arguments)
        except TypeError as error:
            raise ValueError(f"tokenizer: {error}") from None

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def codebook(self, channels: int) -> NDArray[np.float32]:
        """The levels, ascending, [channels, vocab]. Raises ValueError where the ranges are not one per channel."""
        position = np.linspace(-1.0, 1.0, self.vocab)  # [vocab]
        if self.kind == "mulaw":
            mu = self.vocab - 1
            position = np.sign(position) * ((1.0 + mu) ** np.abs(position) - 1.0) / mu  # G.711 expansion
        try:
            low, high = (np.broadcast_to(v, channels).astype(np.float64)[:, None] for v in (self.low, self.high))
        except ValueError:
            raise ValueError(f"tokenizer: found {np.shape(self.low)} lows, expected one or {channels}") from None
        return (low + (high - low) * (position + 1.0) / 2.0).astype(np.float32)


def tokens(values: Tensor, codebook: Tensor) -> Tensor:
    """The nearest level's index: values [.., out], codebook [out, vocab] ascending → int64 [.., out].

    Values outside the range take the outermost level.
    """
    middle = (codebook[:, 1:] + codebook[:, :-1]) / 2  # [out, vocab-1]
    flat = values.reshape(-1, values.shape[-1]).T.contiguous()  # [out, n]
    return torch.searchsorted(middle, flat).T.reshape(values.shape)
