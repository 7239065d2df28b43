"""What the network's last projection means: a point, a Gaussian, or a distribution over a tokenizer's vocabulary.

Every head yields ``y``, the point estimate in SI units, so that the loop on the robot needs to know nothing about it;
gaussian and categorical heads yield one more output, for losses, sampling and monitoring.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kizzasi_export.graph import Graph, as_array
from kizzasi_export.models.tokenizer import Tokenizer

LOGVAR_RANGE = (-14.0, 14.0)
"""Bounds of a gaussian head's log-variance in units of output_std²: it stays finite, and so does its exp."""


class Head(nn.Module):
    """continuous: y [.., out] = raw · std + mean.  The base class of the others."""

    kind = "continuous"
    extra: str | None = None

    def __init__(self, output_dim: int) -> None:
        super().__init__()
        self.output_dim = output_dim

    @property
    def raw_dim(self) -> int:
        """Channels that the network's output projection has."""
        return self.output_dim

    def forward(self, raw: Tensor, mean: Tensor, std: Tensor) -> dict[str, Tensor]:
        """raw [.., raw_dim], mean and std [out] of the normaliser → outputs by name, ``y`` [.., out] first."""
        return {"y": raw * std + mean}

    def emit(self, g: Graph, raw: str, mean: Tensor, std: Tensor) -> str:
        """Value raw [B, raw_dim] → the name of y [B, out]; declares the extra output."""
        return _emit_affine(g, raw, mean, std)


class GaussianHead(Head):
    """Mean and log-variance per output: y = mean, ``logvar`` [.., out] in SI units squared (natural log)."""

    kind = "gaussian"
    extra = "logvar"

    @property
    def raw_dim(self) -> int:
        return 2 * self.output_dim

    def forward(self, raw: Tensor, mean: Tensor, std: Tensor) -> dict[str, Tensor]:
        point, logvar = raw.chunk(2, -1)  # [.., out] [.., out]
        return {"y": point * std + mean, "logvar": logvar.clamp(*LOGVAR_RANGE) + 2 * std.log()}

    def emit(self, g: Graph, raw: str, mean: Tensor, std: Tensor) -> str:
        point, logvar = g.ops("Split", [raw, g.indices(self.output_dim, self.output_dim)], 2, axis=-1)
        low, high = (
            g.const(name, np.array(v, np.float32)) for name, v in zip(("low", "high"), LOGVAR_RANGE, strict=True)
        )
        logvar = g.op("Add", [g.op("Clip", [logvar, low, high]), g.const("log_var", as_array(2 * std.log()))])
        g.output("logvar", logvar, (self.output_dim,))
        return _emit_affine(g, point, mean, std)


class CategoricalHead(Head):
    """Logits over a tokenizer's vocabulary per output: y = the most likely level, ``logits`` [.., out, vocab].

    The levels are SI values, so the normaliser's mean and std play no part.
    """

    kind = "categorical"
    extra = "logits"
    codebook: Tensor

    def __init__(self, output_dim: int, tokenizer: Tokenizer) -> None:
        super().__init__(output_dim)
        self.tokenizer = tokenizer
        self.register_buffer("codebook", torch.from_numpy(tokenizer.codebook(output_dim)))  # [out, vocab]

    @property
    def vocab(self) -> int:
        return self.codebook.shape[1]

    @property
    def raw_dim(self) -> int:
        return self.output_dim * self.vocab

    def forward(self, raw: Tensor, mean: Tensor, std: Tensor) -> dict[str, Tensor]:
        logits = raw.reshape(*raw.shape[:-1], self.output_dim, self.vocab)  # [.., out, vocab]
        token = logits.argmax(-1, keepdim=True)  # [.., out, 1]
        y = self.codebook.expand(logits.shape).gather(-1, token)[..., 0]  # [.., out]
        return {"y": y, "logits": logits}

    def emit(self, g: Graph, raw: str, mean: Tensor, std: Tensor) -> str:
        logits = g.op("Reshape", [raw, g.indices(-1, self.output_dim, self.vocab)])  # [B, out, vocab]
        token = g.op("ArgMax", [logits], axis=-1, keepdims=0)  # [B, out]
        offset = np.arange(self.output_dim, dtype=np.int64) * self.vocab
        flat = g.op("Add", [token, g.const("offset", offset)])  # [B, out], into the codebooks back to back
        g.output("logits", logits, (self.output_dim, self.vocab))
        return g.op("Gather", [g.const("codebook", as_array(self.codebook).reshape(-1)), flat], axis=0)


def make_head(kind: str, output_dim: int, tokenizer: Mapping[str, Any] | None) -> Head:
    """The head called `kind`; `tokenizer` are `Tokenizer`'s arguments, for categorical heads only.

    Raises:
        ValueError: an unknown kind, or a tokenizer that is missing, superfluous or wrong.
    """
    if kind == "categorical":
        if tokenizer is None:
            raise ValueError("head = 'categorical' needs a tokenizer (kind, vocab, low, high)")
        return CategoricalHead(output_dim, Tokenizer.from_dict(tokenizer))
    if tokenizer is not None:
        raise ValueError(f"head = {kind!r} takes no tokenizer, only 'categorical' does")
    if kind not in ("continuous", "gaussian"):
        raise ValueError(f"head = {kind!r}, expected continuous, gaussian or categorical")
    return GaussianHead(output_dim) if kind == "gaussian" else Head(output_dim)


def _emit_affine(g: Graph, value: str, mean: Tensor, std: Tensor) -> str:
    scale, offset = as_array(std), as_array(mean)
    if np.any(scale != 1):
        value = g.op("Mul", [value, g.const("std", scale)])
    if np.any(offset != 0):
        value = g.op("Add", [value, g.const("mean", offset)])
    return value
