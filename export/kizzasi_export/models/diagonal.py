"""What S4, S4D and S5 share: complex diagonal recurrences x_t = z ∘ x_{t-1} + v_t, and their real ONNX form.

Complex values stand for conjugate pairs: a real output is 2 Re(w · x). Discretised coefficients are computed in double
precision and rounded once: a step that runs for an hour multiplies by the same rounded number each time, and the
parallel forms take powers of that same number, so that they describe the same system.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from kizzasi_export.graph import CONTRIB, Graph, as_array
from kizzasi_export.models.stack import NetworkConfig


@dataclass(frozen=True)
class SSMConfig(NetworkConfig):
    """Sizes of a network of complex state spaces; time steps start log-uniform in [dt_min, dt_max] (in samples)."""

    dt_min: float = 1e-3
    dt_max: float = 1e-1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.state_dim % 2:
            raise ValueError(f"state_dim = {self.state_dim}, expected an even number (conjugate pairs)")
        if not 0 < self.dt_min <= self.dt_max < math.inf:
            raise ValueError(f"dt_min = {self.dt_min}, expected > 0 and ≤ dt_max = {self.dt_max}, both finite")

    def initial_log_dt(self, *shape: int) -> Tensor:
        """log dt of `shape`, drawn as the references do."""
        return torch.rand(*shape) * math.log(self.dt_max / self.dt_min) + math.log(self.dt_min)


def complex_of(pairs: Tensor) -> Tensor:
    """[..., 2] real and imaginary parts → complex [...]; the references keep complex parameters so."""
    return torch.view_as_complex(pairs.contiguous())


def pairs_of(z: Tensor) -> Tensor:
    """Complex [...] → [..., 2]."""
    return torch.view_as_real(z.resolve_conj())


def pairs_from(array: NDArray[np.complex128]) -> Tensor:
    """A numpy complex array as the float32 pairs of a parameter, [..., 2]."""
    return pairs_of(torch.from_numpy(np.ascontiguousarray(array)).to(torch.complex64)).clone()


def zoh(A: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    """Zero-order hold of x' = A x + u: (exp(dt A), (exp(dt A) − 1) / A); complex A and real dt, broadcast.

    (S4D, §2.1; S5, §2.1.)
    """
    wide = A.to(torch.complex128)
    z = torch.exp(dt.double() * wide)
    return z.to(A.dtype), ((z - 1) / wide).to(A.dtype)


def geometric(z: Tensor, count: int) -> Tensor:
    """z [...] → [..., count]: z⁰ … z^(count-1), by doubling (no logarithm: z may be 0)."""
    powers, leap = torch.ones_like(z)[..., None], z[..., None]
    while powers.shape[-1] < count:
        powers, leap = torch.cat([powers, powers * leap], -1), leap * leap
    return powers[..., :count]


class Powers:
    """z^t for t = 0 … steps, complex z [..., n], kept as z^(a·L) · z^b with about √steps values of a and of b.

    Every power is one product of two correctly rounded numbers, and sums over n or t become small matrix products: the
    Vandermonde matrix of S4D's kernel is never written out.
    """

    def __init__(self, z: Tensor, steps: int) -> None:
        self.steps, self.block = steps, math.isqrt(steps) + 1
        fine = geometric(z.to(torch.complex128), self.block + 1)  # [..., n, L+1]
        self.blocks = steps // self.block + 1
        self.coarse = geometric(fine[..., -1], self.blocks).to(z.dtype)  # [..., n, blocks]
        self.fine = fine[..., :-1].to(z.dtype)  # [..., n, L]

    def last(self) -> Tensor:
        """z^steps, [..., n]."""
        return self.coarse[..., self.steps // self.block] * self.fine[..., self.steps % self.block]

    def series(self, w: Tensor) -> Tensor:
        """w [..., n] → 2 Re Σ_n w_n z_n^t, [..., steps]."""
        table = (w[..., None] * self.coarse).mT @ self.fine  # [..., blocks, L]
        return 2 * table.flatten(-2)[..., : self.steps].real

    def collect(self, u: Tensor) -> Tensor:
        """u [..., steps] real → Σ_t z^(steps-1-t) u_t, [..., n]: what an input leaves in a state."""
        padded = F.pad(u.flip(-1), (0, self.blocks * self.block - self.steps))
        by_block = padded.reshape(*u.shape[:-1], self.blocks, self.block).to(self.fine.dtype)  # [..., blocks, L]
        return torch.sum((by_block @ self.fine.mT) * self.coarse.mT, -2)


def fft_convolve(u: Tensor, kernel: Tensor) -> Tensor:
    """u, kernel [..., T] → their causal convolution [..., T], through the FFT, zero-padded against wrapping."""
    steps = u.shape[-1]
    size = 1 << (2 * steps - 1).bit_length()  # a power of two ≥ 2T − 1
    y: Tensor = torch.fft.irfft(torch.fft.rfft(u, size) * torch.fft.rfft(kernel, size), size)
    return y[..., :steps]


def diagonal_scan(z: Tensor, v: Tensor, state: Tensor) -> Tensor:
    """x_t = z ∘ x_{t-1} + v_t for all t in log₂ T passes: z [P], v [B, T, P], x before [B, P] → x [B, T, P], complex.

    Pass k adds what happened 2^k steps ago (Hillis & Steele 1986): the parallel scan of S5, whose
    operator's first part needs no array because z is the same at every step.
    """
    x = torch.cat([v[:, :1] + (z * state)[:, None], v[:, 1:]], 1)  # [B, T, P]
    leap, reach = z.to(torch.complex128), 1
    while reach < x.shape[1]:
        x = torch.cat([x[:, :reach], x[:, reach:] + leap.to(z.dtype) * x[:, :-reach]], 1)
        leap, reach = leap * leap, 2 * reach
    return x


def diagonal_scan_sequential(z: Tensor, v: Tensor, state: Tensor) -> Tensor:
    """`diagonal_scan`, one step after another."""
    xs = []
    for row in v.unbind(1):
        state = z * state + row  # [B, P]
        xs.append(state)
    return torch.stack(xs, 1)


def emit_rotation(g: Graph, name: str, x: str, z: Tensor) -> str:
    """z ∘ x as nodes: x [B, M, 2W] holds real parts, then imaginary parts; z complex [M, W].

    A rotary embedding of the M "positions" is exactly this product, in one node, whatever the modulus of z.
    """
    re, im = as_array(z.real), as_array(z.imag)  # [M, W]
    if g.fast:
        cos, sin = g.const(f"{name}.re", re), g.const(f"{name}.im", im)
        return g.op("RotaryEmbedding", [x, g.indices(0), cos, sin], domain=CONTRIB, num_heads=1)
    width = re.shape[-1]
    first, second = g.ops("Split", [x, g.indices(width, width)], 2, axis=-1)  # [B, M, W] each
    swapped = g.op("Concat", [second, first], axis=-1)  # [B, M, 2W]
    along = g.op("Mul", [x, g.const(f"{name}.along", np.concatenate([re, re], -1))])
    across = g.op("Mul", [swapped, g.const(f"{name}.across", np.concatenate([-im, im], -1))])
    return g.op("Add", [along, across])


def rows(z: Tensor) -> NDArray[np.float32]:
    """Complex [H, n] → [2n, H], real and imaginary parts in alternating rows: the layout of emitted SISO states."""
    return np.ascontiguousarray(as_array(pairs_of(z)).reshape(len(z), -1).T)


def emit_rotation_of_rows(g: Graph, name: str, x: str, z: Tensor) -> str:
    """`emit_rotation` of states in `rows`: x [B, 2n, H], z [H, n] → [B, 2n, H]."""
    channels, modes = z.shape
    x = g.op("Reshape", [x, g.indices(-1, modes, 2 * channels)])  # [B, n, 2H]
    return g.op("Reshape", [emit_rotation(g, name, x, z.T), g.indices(-1, 2 * modes, channels)])


def emit_dot(g: Graph, name: str, w: Tensor, x: str) -> str:
    """2 Re Σ_n w_n x_n as nodes: w complex [H, n], x [B, 2n, H] in `rows` → [B, 1, H]."""
    weights = 2 * rows(w.conj())  # [2n, H]
    ones = g.const("ones", np.ones((1, 1, len(weights)), np.float32))
    # A product with ones is several times faster than ReduceSum over any but the last axis.
    return g.op("MatMul", [ones, g.op("Mul", [x, g.const(name, weights)])])
