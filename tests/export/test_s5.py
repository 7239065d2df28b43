"""S5: one shared system against scipy's discretisation and simulation of the dense one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import signal

from kizzasi_export import build_model
from kizzasi_export.models.hippo import legs, legs_low_rank
from kizzasi_export.models.s5 import SLOWEST, S5Config, S5Layer


def layer(hidden: int = 6, state_dim: int = 4, blocks: int | None = 2, noise: float = 0.1) -> S5Layer:
    torch.manual_seed(0)
    made = S5Layer(S5Config(1, 1, hidden_dim=hidden, state_dim=state_dim, blocks=blocks))
    with torch.no_grad():
        for p in made.parameters():
            p.add_(noise * torch.randn_like(p))
    return made


def complex_of(p: torch.Tensor) -> np.ndarray:
    return p.detach().double().numpy() @ np.array([1, 1j])  # type: ignore[no-any-return]


def impulse(made: S5Layer, steps: int) -> np.ndarray:
    """Response of the linear part to an impulse on each channel: [T, H out, H in], by its own recurrence."""
    z, B, C = made.seq.discretised()
    x, rows = B, []
    for _ in range(steps):
        rows.append(2 * (C @ x).real.numpy())
        x = z[:, None] * x
    return np.stack(rows)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-11), (torch.float32, 1e-4)])
@torch.no_grad()
def test_linear_part_is_scipys_zero_order_hold(dtype: torch.dtype, bound: float) -> None:
    """Each state has its own time step, which is the same as dt = 1 with rows of A and B scaled by it."""
    made = layer().to(dtype)
    ssm = made.seq
    dt = ssm.log_step[:, 0].double().exp().numpy()
    Lambda = (ssm.Lambda_re.double().numpy() + 1j * ssm.Lambda_im.double().numpy()) * dt
    B, C = complex_of(ssm.B) * dt[:, None], complex_of(ssm.C)
    A = np.block([[np.diag(Lambda.real), -np.diag(Lambda.imag)], [np.diag(Lambda.imag), np.diag(Lambda.real)]])
    real = (A, np.concatenate([B.real, B.imag]), 2 * np.concatenate([C.real, -C.imag], 1), np.zeros((6, 6)))
    discrete = signal.cont2discrete(real, 1.0, method="zoh")
    steps, found = 200, impulse(made, 200)
    for channel in range(6):
        u = np.zeros((steps + 1, 6))
        u[0, channel] = 1
        _, expected, _ = signal.dlsim(discrete, u)  # its output comes before the state's update: shift by one
        assert np.abs(found[..., channel] - expected[1:]).max() <= bound * np.abs(expected).max()


@pytest.mark.parametrize("steps", [1, 2, 77])
@torch.no_grad()
def test_scan_is_the_system_then_gate(steps: int) -> None:
    """out = g·sigmoid(W g + b) with g = gelu(K * u + D u): the convolution written out (reference: half_glu1)."""
    made = layer().double()
    u = torch.randn(2, steps, 6, dtype=torch.float64)
    response = torch.from_numpy(impulse(made, steps))  # [T, H, H]
    y = made.seq.D * u
    for t in range(steps):
        for s in range(t + 1):
            y[:, t] += u[:, s] @ response[t - s].T
    g = torch.nn.functional.gelu(y)
    torch.testing.assert_close(made(u, {}), g * torch.sigmoid(g @ made.out2.weight.T + made.out2.bias))


def test_starts_as_blocks_of_hippo_normal() -> None:
    """Λ are the eigenvalues of HiPPO-N, once a block, and B, C those of a real system in its eigenbasis."""
    made = layer(hidden=8, state_dim=6, blocks=3, noise=0.0).seq
    A, _ = legs(6)
    P = legs_low_rank(6)
    expected = np.linalg.eigvals(A + np.outer(P, P))
    expected = np.sort_complex(expected[expected.imag < 0])
    found = (made.Lambda_re + 1j * made.Lambda_im).detach().numpy().reshape(3, 3)
    for block in found:
        np.testing.assert_allclose(np.sort(block.imag), np.sort(expected.imag), rtol=1e-5)
        np.testing.assert_allclose(block.real, -0.5, rtol=1e-6)
    spread = complex_of(made.B).std()
    assert 0.5 < spread * np.sqrt(2 * made.P) < 1.5


@pytest.mark.parametrize(
    ("hidden", "state_dim", "blocks", "pairs"),
    [(64, 16, None, 32), (128, 8, None, 64), (8, 64, None, 32), (64, 16, 2, 16)],
)
def test_size_of_the_state(hidden: int, state_dim: int, blocks: int | None, pairs: int) -> None:
    made = layer(hidden, state_dim, blocks)
    assert len(made.seq.Lambda_re) == pairs


@torch.no_grad()
def test_no_eigenvalue_can_grow() -> None:
    made = layer()
    made.seq.Lambda_re.fill_(3.0)
    z, _, _ = made.seq.discretised()
    assert (z.abs() < 1).all()
    torch.testing.assert_close(z.abs(), torch.exp(SLOWEST * made.seq.log_step[:, 0].exp()))


def test_parameter_names_and_shapes_are_the_reference_implementations() -> None:
    model = build_model("s5", input_dim=3, output_dim=2, hidden_dim=12, state_dim=6, num_layers=1)
    shapes = {name: tuple(p.shape) for name, p in model.network.layers[0].named_parameters()}  # type: ignore[index]
    assert shapes == {
        "norm.weight": (12,),
        "seq.Lambda_re": (6,),
        "seq.Lambda_im": (6,),
        "seq.B": (6, 12, 2),
        "seq.C": (12, 6, 2),
        "seq.D": (12,),
        "seq.log_step": (6, 1),
        "out2.weight": (12, 12),
        "out2.bias": (12,),
    }


def test_wrong_blocks_are_named() -> None:
    with pytest.raises(ValueError, match="blocks = 0"):
        build_model("s5", input_dim=1, output_dim=1, blocks=0)
