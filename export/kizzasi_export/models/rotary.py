"""Rotary position embedding (Su et al. 2021) whose angles stay exact for years of steps.

A robot's position counter has no end: at 1 kHz float32 stops counting after 4.7 hours and its angles have been wrong
for long before. Here positions are int64, angles float64 until their sine and cosine are taken (absolute error
≤ 2⁻⁵³·position rad: 1e-7 at 10⁹), and only those are float32.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from torch import Tensor

from kizzasi_export.graph import Graph

BASE = 10_000.0
"""The θ of Su et al., §3.2.2: wavelengths grow from 2π towards 2π·BASE steps."""


def frequencies(head_dim: int, base: float = BASE) -> NDArray[np.float64]:
    """Radians per step of each pair of channels, [head_dim / 2]: θ_i = base^(-2i / head_dim) (§3.2.2)."""
    return base ** -(np.arange(0, head_dim, 2) / head_dim)


def angles(position: Tensor, head_dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """position int64 [B, T] → (cos, sin), each [B, T, head_dim / 2] of `dtype`."""
    angle = position.double()[..., None] * torch.from_numpy(frequencies(head_dim)).to(position.device)
    return angle.cos().to(dtype), angle.sin().to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn channel pairs (i, i + D/2) by their angles, as Llama pairs them: x [B, H, T, D], cos and sin [B, T, D/2]."""
    a, b = x.chunk(2, -1)  # [B, H, T, D/2]
    cos, sin = cos[:, None], sin[:, None]  # [B, 1, T, D/2]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def emit_angles(g: Graph, position: str, rates: NDArray[np.float64]) -> tuple[str, str]:
    """Value `position` int64 [B, 1, …] times `rates` [n, D/2] rad → (cos, sin), each [B, …, n, D/2] float32.

    Whole turns are taken off in float64. Only then float32: its sine is vectorised, and older onnxruntimes have no
    cosine of doubles.
    """
    turned = g.op("Mul", [g.op("Cast", [position], to=TensorProto.DOUBLE), g.const("rates", rates)])
    within = g.op("Mod", [turned, g.const("turn", np.array([2 * math.pi]))], fmod=1)
    angle = g.op("Cast", [within], to=TensorProto.FLOAT)
    return g.op("Cos", [angle]), g.op("Sin", [angle])


def emit_rotate(g: Graph, x: str, cos: str, sin: str) -> str:
    """`rotate` as nodes: x [B, H, n, D] → [B, H, n, D]; cos and sin [B, n, D/2], for portable graphs [B, 1, n, D/2]."""
    if g.fast:
        return g.op("RotaryEmbedding", [x, cos, sin])
    a, b = g.ops("Split", [x], 2, axis=-1)  # [B, H, n, D/2]
    first = g.op("Sub", [g.op("Mul", [a, cos]), g.op("Mul", [b, sin])])
    second = g.op("Add", [g.op("Mul", [b, cos]), g.op("Mul", [a, sin])])
    return g.op("Concat", [first, second], axis=-1)
