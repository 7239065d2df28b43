"""Weights in fewer bits, exactly as the exported file holds them; the exporter and training share this arithmetic.

int8: each row is cut into blocks of `BLOCK` weights (the last one padded with zeros), and a block is stored as
q = round(w / s) + 128 with its own s = max|w| / 127: what onnxruntime's MatMulNBits reads. Symmetric, so that zero is
exact. f16: IEEE half precision, which a Cast restores at load.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Quantization = Literal["int8", "f16"]

BLOCK = 32
ZERO = 128
# Below this many weights a matrix is left in float32. int8: MatMulNBits costs 0.4 µs more to start than a float32
# product and gains from about 16 thousand weights on; f16: the Cast's node takes more room than it saves.
LEAST_WEIGHTS: dict[Quantization, int] = {"int8": 16384, "f16": 1024}


def applies(weight: Tensor, quantization: Quantization | None) -> bool:
    """Whether the exporter stores a weight matrix [N, K] in `quantization`."""
    return quantization is not None and weight.numel() >= LEAST_WEIGHTS[quantization]


def to_blocks(weight: Tensor) -> tuple[Tensor, Tensor]:
    """weight [N, K] → (q uint8 [N, ceil(K/BLOCK), BLOCK], scales float32 [N, ceil(K/BLOCK)])."""
    rows, columns = weight.shape
    padded = F.pad(weight.detach().float(), (0, -columns % BLOCK))
    blocks = padded.reshape(rows, -1, BLOCK)  # [N, blocks, BLOCK]
    largest = blocks.abs().amax(-1)  # [N, blocks]
    scales = torch.where(largest > 0, largest / 127, torch.ones_like(largest))
    return (torch.round(blocks / scales[..., None]) + ZERO).to(torch.uint8), scales


def from_blocks(q: Tensor, scales: Tensor, columns: int) -> Tensor:
    """The weights [N, columns] that the blocks stand for."""
    weight = (q.float() - ZERO) * scales[..., None]  # [N, blocks, BLOCK]
    return weight.reshape(len(q), -1)[:, :columns]


def rounded(weight: Tensor) -> Tensor:
    """weight [N, K] as int8 blocks hold it."""
    return from_blocks(*to_blocks(weight), weight.shape[1])
