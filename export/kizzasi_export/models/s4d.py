"""S4D (Gu et al. 2022, arXiv 2206.11893): one small diagonal state space per channel, as a convolution or a step.

Names and shapes of ``layers.{i}.layer.*`` are those of the minimal reference (state-spaces/s4, models/s4/s4d.py):
``kernel.{C, log_dt, log_A_real, A_imag}``, ``D`` and ``output_linear.0`` (a convolution of width 1, then GLU).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kizzasi_export.graph import Graph, as_array
from kizzasi_export.models.base import State
from kizzasi_export.models.diagonal import (
    Powers,
    SSMConfig,
    complex_of,
    emit_dot,
    emit_rotation_of_rows,
    fft_convolve,
    pairs_of,
    zoh,
)
from kizzasi_export.models.hippo import S4D_INITS
from kizzasi_export.models.norm import RMSNorm
from kizzasi_export.models.stack import Branch, Mixer, ResidualNetwork, Shared


@dataclass(frozen=True)
class S4DConfig(SSMConfig):
    """Sizes of an S4D network; `init` is where the eigenvalues start: "lin" (as the reference), "inv" or "legs"."""

    init: str = "lin"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.init not in S4D_INITS:
            raise ValueError(f"init = {self.init!r}, expected one of {', '.join(S4D_INITS)}")


class SisoKernel(nn.Module):
    """H state spaces with one input and one output each, and a complex state [B, H, n] (n conjugate pairs)."""

    modes: int

    def impulse(self, steps: int) -> Tensor:
        """The impulse response [H, steps]."""
        raise NotImplementedError

    def run(self, u: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Input [B, H, T], state [B, H, n] → (what that state adds to the output [B, H, T], state after the input)."""
        raise NotImplementedError

    def step(self, u: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Input [B, H], state [B, H, n] → (output [B, H], next state)."""
        raise NotImplementedError

    def emit(self, g: Graph, u: str, x: str) -> tuple[str, str]:
        """Values u [B, 1, H] and x [B, 2n, H], the state in `rows` → (output [B, 1, H], next state)."""
        raise NotImplementedError


class S4DKernel(SisoKernel):
    """x' = A x + u, y = 2 Re(C x) per channel with diagonal A, discretised by zero-order hold."""

    def __init__(self, cfg: S4DConfig) -> None:
        super().__init__()
        channels, self.modes = cfg.hidden_dim, cfg.state_dim // 2
        A = torch.from_numpy(np.tile(S4D_INITS[cfg.init](cfg.state_dim), (channels, 1)))  # [H, n]
        self.log_dt = nn.Parameter(cfg.initial_log_dt(channels))
        self.C = nn.Parameter(pairs_of(torch.randn(channels, self.modes, dtype=torch.complex64)))
        self.log_A_real = nn.Parameter((-A.real).log().float())  # its exponential keeps A in the left half plane
        self.A_imag = nn.Parameter(A.imag.float())

    def discretised(self) -> tuple[Tensor, Tensor, Tensor]:
        """x_t = z x_{t-1} + b u_t, y_t = 2 Re(C x_t): z, b, C complex [H, n]."""
        z, b = zoh(torch.complex(-self.log_A_real.exp(), self.A_imag), self.log_dt.exp()[:, None])
        return z, b, complex_of(self.C)

    def impulse(self, steps: int) -> Tensor:
        z, b, C = self.discretised()
        return Powers(z, steps).series(C * b)

    def run(self, u: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        z, b, C = self.discretised()
        powers = Powers(z, u.shape[-1])
        return powers.series(C * z * x), powers.last() * x + b * powers.collect(u)

    def step(self, u: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        z, b, C = self.discretised()
        x = z * x + b * u[..., None]  # [B, H, n]
        return 2 * (C * x).sum(-1).real, x

    def emit(self, g: Graph, u: str, x: str) -> tuple[str, str]:
        """Six nodes. The graph's state is x·(1+i)/b: the input then enters every row unscaled, and b is in C."""
        z, b, C = self.discretised()
        x = g.op("Add", [emit_rotation_of_rows(g, "A", x, z), u])  # [B, 2n, H]
        return emit_dot(g, "C", C * b / (1 + 1j), x), x


class SisoMixer(Mixer):
    """GLU(W gelu(SSM(u) + D u) + bias).  State ``ssm`` [B, H, n, 2]: real and imaginary parts."""

    states = ("ssm",)

    def __init__(self, hidden_dim: int, kernel: SisoKernel) -> None:
        super().__init__()
        self.hidden = hidden_dim
        self.kernel = kernel
        self.D = nn.Parameter(torch.randn(hidden_dim))
        self.output_linear = nn.Sequential(nn.Conv1d(hidden_dim, 2 * hidden_dim, 1))  # [a | gate]

    def initial_state(self, batch: int) -> State:
        return {"ssm": self.D.new_zeros(batch, self.hidden, self.kernel.modes, 2)}

    def forward(self, u: Tensor, shared: Shared) -> Tensor:
        """u [B, T, hidden] → [B, T, hidden]; without a state to carry, one convolution."""
        channels = u.mT  # [B, H, T]
        y = fft_convolve(channels, self.kernel.impulse(u.shape[1]))  # [B, H, T]
        return self._output(y.mT, u)

    def scan(self, u: Tensor, state: State, shared: Shared) -> tuple[Tensor, State]:
        """u [B, T, hidden] → ([B, T, hidden], state after it)."""
        channels = u.mT  # [B, H, T]
        free, x = self.kernel.run(channels, complex_of(state["ssm"]))  # [B, H, T] [B, H, n]
        y = fft_convolve(channels, self.kernel.impulse(u.shape[1])) + free  # [B, H, T]
        return self._output(y.mT, u), {"ssm": pairs_of(x)}

    def step(self, u: Tensor, state: State, shared: Shared) -> tuple[Tensor, State]:
        """u [B, hidden] → ([B, hidden], next state)."""
        y, x = self.kernel.step(u, complex_of(state["ssm"]))  # [B, H] [B, H, n]
        return self._output(y, u), {"ssm": pairs_of(x)}

    def _output(self, y: Tensor, u: Tensor) -> Tensor:
        weight, bias = self._projection()
        return F.glu(F.linear(F.gelu(y + self.D * u), weight, bias), -1)

    def _projection(self) -> tuple[Tensor, Tensor]:
        projection = self.output_linear[0]
        assert isinstance(projection, nn.Conv1d)
        assert projection.bias is not None
        return projection.weight[..., 0], projection.bias  # [2·hidden, hidden] [2·hidden]

    def emit(self, g: Graph, u: str, index: int, shared: Shared) -> str:
        """The step as nodes. The graph's state ``ssm`` [B, 2n, H] has the long axis last (`rows`)."""
        name = f"ssm{index}"
        y, x = self.kernel.emit(g, u, g.state(name, np.zeros((1, 2 * self.kernel.modes, self.hidden), np.float32)))
        g.set_state(name, x)
        y = g.gelu(g.op("Add", [y, g.op("Mul", [u, g.const("D", as_array(self.D))])]))  # [B, 1, H]
        weight, bias = self._projection()
        # onnxruntime wraps MatMul + Add into Reshapes and a Gemm, but not where the bias has three axes.
        shift = g.const("output_linear.bias", as_array(bias)[None, None])
        both = g.op("Add", [g.matmul(y, "output_linear.weight", weight), shift])  # [B, 1, 2H]
        value, gate = g.ops("Split", [both, g.indices(self.hidden, self.hidden)], 2, axis=-1)
        return g.op("Mul", [value, g.op("Sigmoid", [gate])])


class SisoLayer(nn.Module):
    """Norm and mixer."""

    def __init__(self, hidden_dim: int, kernel: SisoKernel) -> None:
        super().__init__()
        self.norm = RMSNorm(hidden_dim)
        self.layer = SisoMixer(hidden_dim, kernel)


class SisoNetwork(ResidualNetwork):
    """input_projection → layers → norm → output_projection, on normalised values; one kernel a layer."""

    def __init__(self, cfg: SSMConfig, kernels: Sequence[SisoKernel]) -> None:
        super().__init__(cfg)
        self.cfg = cfg
        self.layers = nn.ModuleList(SisoLayer(cfg.hidden_dim, kernel) for kernel in kernels)
        self.norm = RMSNorm(cfg.hidden_dim)

    def branches(self) -> list[Branch]:
        layers = [layer for layer in self.layers if isinstance(layer, SisoLayer)]
        return [Branch(i, layer.norm, layer.layer) for i, layer in enumerate(layers)]

    def final_norm(self) -> RMSNorm:
        return self.norm


class S4D(SisoNetwork):
    """A network of S4D layers."""

    def __init__(self, cfg: S4DConfig) -> None:
        super().__init__(cfg, [S4DKernel(cfg) for _ in range(cfg.num_layers)])
