"""S4 (Gu et al. 2022, arXiv 2111.00396): per channel a state space whose matrix is diagonal plus rank one (DPLR).

    x' = (Λ − P P*) x + B u      y = 2 Re(C x) + D u

discretised bilinearly. `impulse` is Algorithm 1 (truncated generating function, Woodbury, Cauchy kernel, inverse FFT);
`step` uses that the bilinear transform of diagonal plus rank one is diagonal plus rank one again, so that a step costs
O(N), not O(N²). (Diagonalising Ā instead would be cheaper still and useless: the eigenvectors of HiPPO-LegS have a
condition number of 8e10 at N = 16. The DPLR basis is unitary and Ā a contraction in it, so float32 does.)

Names and shapes of ``layers.{i}.layer.kernel.*`` are those of SSMKernelDPLR in state-spaces/s4 v4 (models/s4/s4.py,
n_ssm = H, rank 1): ``C B P [1, H, N/2, 2]``, ``A_real A_imag [H, N/2]`` and ``inv_dt [H, 1]`` (the logarithm of dt).
``C`` is the true output matrix, which the reference holds while its ``l_kernel`` is 0: there, C is multiplied once by
I − Ā^L for one length L and trained so. Here that happens in every `impulse`, for its own length, so that the
convolution is the same system as the step at every length. ``D`` and ``output_linear`` are as in `S4D`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kizzasi_export.graph import Graph
from kizzasi_export.models.diagonal import (
    SSMConfig,
    complex_of,
    emit_dot,
    emit_rotation_of_rows,
    pairs_from,
    pairs_of,
    rows,
)
from kizzasi_export.models.hippo import legs_dplr
from kizzasi_export.models.s4d import SisoKernel, SisoNetwork


@dataclass(frozen=True)
class S4Config(SSMConfig):
    """Sizes of an S4 network."""


class Recurrence(NamedTuple):
    """x_t = z x_{t-1} − p·2 Re(q·x_{t-1}) + b u_t and y_t = 2 Re(C·x_t): all complex [H, n]."""

    z: Tensor
    p: Tensor
    q: Tensor
    b: Tensor
    C: Tensor

    def dense(self) -> tuple[Tensor, Tensor, Tensor]:
        """The same over real vectors [Re x | Im x], in double precision: Ā [H, N, N], B̄ [H, N], C̄ [H, N]."""
        z, p, q, b, C = (v.to(torch.complex128) for v in self)
        turn = torch.cat(
            [
                torch.cat([torch.diag_embed(z.real), torch.diag_embed(-z.imag)], -1),
                torch.cat([torch.diag_embed(z.imag), torch.diag_embed(z.real)], -1),
            ],
            -2,
        )  # [H, N, N]
        A = turn - _stack(p)[..., :, None] * _reader(q)[..., None, :]
        return A, _stack(b), _reader(C)


def _stack(z: Tensor) -> Tensor:
    """Complex [..., n] → real [..., 2n]."""
    return torch.cat([z.real, z.imag], -1)


def _reader(w: Tensor) -> Tensor:
    """The row r with r · _stack(x) = 2 Re(w · x)."""
    return 2 * torch.cat([w.real, -w.imag], -1)


def krylov(A: Tensor, b: Tensor, steps: int) -> Tensor:
    """A [H, N, N], b [H, N] → A^t b for t = 0 … steps-1, [H, N, steps], in log₂ steps products."""
    columns = b[..., None]  # [H, N, 1]
    while columns.shape[-1] < steps:
        columns = torch.cat([columns, A @ columns], -1)
        A = A @ A
    return columns[..., :steps]


class S4Kernel(SisoKernel):
    """H state spaces that start as HiPPO-LegS, each with its own time step."""

    def __init__(self, cfg: S4Config) -> None:
        super().__init__()
        channels, self.modes = cfg.hidden_dim, cfg.state_dim // 2
        start = legs_dplr(cfg.state_dim)
        per_channel = (1, channels, 1, 1)
        self.inv_dt = nn.Parameter(cfg.initial_log_dt(channels, 1))
        self.C = nn.Parameter(pairs_of(torch.randn(1, channels, self.modes, dtype=torch.complex64)))
        self.B = nn.Parameter(pairs_from(start.B).repeat(per_channel))
        self.P = nn.Parameter(pairs_from(start.P).repeat(per_channel))
        Lambda = torch.from_numpy(start.Lambda).repeat(channels, 1)  # [H, n]
        self.A_real = nn.Parameter((-Lambda.real).log().float())
        self.A_imag = nn.Parameter((-Lambda.imag).float())

    def continuous(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """(dt real [H, 1], Λ, P, B, C complex [H, n]) in double precision."""
        Lambda = -torch.complex(self.A_real.double().exp(), self.A_imag.double())
        P, B, C = (complex_of(v[0].double()) for v in (self.P, self.B, self.C))
        return self.inv_dt.double().exp(), Lambda, P, B, C

    def discretised(self) -> Recurrence:
        """The bilinear transform, rounded once to the parameters' precision.

        With D = 1/(2/dt − Λ) the two factors of Ā (S4, appendix C.2) are D − D P κ P* D, where κ = 1/(1 + P* D P) by
        Woodbury, and 2/dt + Λ − P P*. Multiplied out, everything but a diagonal has the same left vector D P.
        """
        dt, Lambda, P, B, C = self.continuous()
        D = 1 / (2 / dt - Lambda)  # [H, n]
        z = (2 / dt + Lambda) * D
        kappa = 1 / (1 + 2 * (P.abs().square() * D).sum(-1, keepdim=True).real)  # [H, 1]
        p = kappa * D * P
        b = 2 * D * B
        b = b - p * 2 * (P.conj() * b).sum(-1, keepdim=True).real
        dtype = self.C.dtype.to_complex()
        return Recurrence(*(v.to(dtype) for v in (z, p, P.conj() * (1 + z), b, C)))

    def impulse(self, steps: int) -> Tensor:
        """Algorithm 1: the kernel's generating function at the steps-th roots of unity, and its inverse FFT.

        At ζ = exp(−iθ) it is C (I − Ā^L) (I − Ā ζ)⁻¹ B̄ = e^{iθ/2} C̃ (iτ − c Λ + c P P*)⁻¹ B with c = cos(θ/2) and
        τ = 2/dt·sin(θ/2): the paper's 2/dt·(1−ζ)/(1+ζ), times (1+ζ)/2, which has no pole at ζ = −1.
        """
        dt, Lambda, P, B, _ = self.continuous()
        A, _, C = self.discretised().dense()  # [H, N, N] [H, N]
        C = C - (C[:, None] @ torch.linalg.matrix_power(A, steps))[:, 0]  # C̃ = C (I − Ā^L)
        half = self.modes
        C = torch.complex(C[:, :half], -C[:, half:]) / 2  # [H, n]
        theta = 2 * math.pi / steps * torch.arange(steps // 2 + 1, dtype=dt.dtype, device=dt.device)  # [F]
        c, tau = torch.cos(theta / 2), 2 / dt * torch.sin(theta / 2)  # [F] [H, F]
        products = torch.stack([C * B, C * P, P.conj() * B, P.conj() * P], 1)  # [H, 4, n]
        k = cauchy(products, Lambda, tau, c, self.C.dtype)  # [H, 4, F]
        turn, c = torch.polar(torch.ones_like(theta), theta / 2).to(k.dtype), c.to(self.C.dtype)
        spectrum = turn * (k[:, 0] - c * k[:, 1] * k[:, 2] / (1 + c * k[:, 3]))  # [H, F], Woodbury
        kernel: Tensor = torch.fft.irfft(spectrum, steps)
        return kernel

    def run(self, u: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        A, B, C = self.discretised().dense()
        steps = u.shape[-1]
        before = _stack(x).to(A.dtype)  # [B, H, N]
        readers = krylov(A.mT, (C[:, None] @ A)[:, 0], steps)  # [H, N, T]: C Ā^(t+1)
        free = (before[..., None, :] @ readers)[..., 0, :]  # [B, H, T]
        inputs = krylov(A, B, steps)  # [H, N, T]: Ā^t B̄
        driven = (inputs @ u.flip(-1).to(A.dtype)[..., None])[..., 0]  # [B, H, N]
        after = (torch.linalg.matrix_power(A, steps) @ before[..., None])[..., 0] + driven
        state = torch.complex(after[..., : self.modes], after[..., self.modes :])
        return free.to(u.dtype), state.to(x.dtype)

    def step(self, u: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        z, p, q, b, C = self.discretised()
        coupled = 2 * (q * x).sum(-1, keepdim=True).real  # [B, H, 1]
        x = z * x - p * coupled + b * u[..., None]  # [B, H, n]
        return 2 * (C * x).sum(-1).real, x

    def emit(self, g: Graph, u: str, x: str) -> tuple[str, str]:
        """Eleven nodes: the step in real arithmetic."""
        z, p, q, b, C = self.discretised()
        coupled = g.op("Mul", [emit_dot(g, "q", -q, x), g.const("p", rows(p))])  # [B, 2n, H]
        driven = g.op("Mul", [u, g.const("b", rows(b))])  # [B, 2n, H]
        turned = emit_rotation_of_rows(g, "z", x, z)  # [B, 2n, H]
        x = g.op("Add", [g.op("Add", [turned, coupled]), driven])
        return emit_dot(g, "C", C, x), x


def cauchy(v: Tensor, Lambda: Tensor, tau: Tensor, c: Tensor, dtype: torch.dtype) -> Tensor:
    """Σ over conjugate pairs of v/(iτ − c Λ), computed in the real `dtype` but for what cancels at resonances.

    v complex [H, R, n], Λ [H, n], τ [H, F], c [F], all double → complex [H, R, F]. A pair's two fractions share the
    real-coefficient denominator (iτ − cΛ)(iτ − cΛ̄), so that one reciprocal per frequency and mode and a real matrix
    product do for all R right-hand sides.
    """
    re = torch.addcmul(-tau[:, None].square(), Lambda.abs().square()[..., None], c.square())  # [H, n, F]: c²|Λ|² − τ²
    im = (-2 * Lambda.real.to(dtype))[..., None] * (tau * c).to(dtype)[:, None]  # [H, n, F]
    planes = torch.stack([re.to(dtype), -im], -2)  # [H, n, 2, F], the denominator's conjugate
    inverse = planes * planes.square().sum(-2, keepdim=True).reciprocal()
    weights = 2 * torch.cat([v.real, (v * Lambda[:, None].conj()).real], 1).to(dtype)  # [H, 2R, n]
    sums = (weights @ inverse.flatten(-2)).unflatten(-1, (2, -1))  # type: ignore[no-untyped-call]
    first, second = sums.chunk(2, 1)  # [H, R, 2, F] each: k = iτ·first − c·second
    tau, c = tau.to(dtype)[:, None], c.to(dtype)
    return torch.complex(
        -tau * first[..., 1, :] - c * second[..., 0, :], tau * first[..., 0, :] - c * second[..., 1, :]
    )


class S4(SisoNetwork):
    """A network of S4 layers."""

    def __init__(self, cfg: S4Config) -> None:
        super().__init__(cfg, [S4Kernel(cfg) for _ in range(cfg.num_layers)])
