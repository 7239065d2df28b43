"""S4: the Cauchy-kernel convolution and the O(N) step against dense bilinear systems of scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import signal

from kizzasi_export import build_model
from kizzasi_export.models.hippo import legs
from kizzasi_export.models.s4 import S4Config, S4Kernel, cauchy, krylov


def kernel(channels: int = 5, state_dim: int = 8, seed: int = 0, noise: float = 0.2) -> S4Kernel:
    torch.manual_seed(seed)
    made = S4Kernel(S4Config(1, 1, hidden_dim=channels, state_dim=state_dim))
    with torch.no_grad():
        for p in made.parameters():
            p.add_(noise * torch.randn_like(p))
    return made


def dense(made: S4Kernel, h: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Channel h as the paper writes it: complex A = Λ − P P* [N, N], B, C over whole conjugate pairs, and dt."""
    Lambda = -np.exp(made.A_real[h].double().numpy()) - 1j * made.A_imag[h].double().numpy()
    P, B, C = (v[0, h].double().numpy() @ np.array([1, 1j]) for v in (made.P, made.B, made.C))
    Lambda, P, B, C = (np.concatenate([v, v.conj()]) for v in (Lambda, P, B, C))
    return np.diag(Lambda) - np.outer(P, P.conj()), B[:, None], C[None], float(made.inv_dt[h, 0].double().exp())


def oracle(made: S4Kernel, h: int, steps: int) -> np.ndarray:
    """C̄ Ā^t B̄ with scipy's bilinear transform in double precision, power by power.

    The two conventions for the bilinear transform share Ā; the paper's B̄ = (1 − dt/2 A)⁻¹ dt B is scipy's, and its C
    is not transformed.
    """
    A, B, C, dt = dense(made, h)
    Ad, Bd, *_ = signal.cont2discrete((A, B, C, np.zeros((1, 1))), dt, method="bilinear")
    response, x = np.empty(steps), Bd
    for t in range(steps):
        value = (C @ x)[0, 0]
        assert abs(value.imag) < 1e-9 * (1 + abs(value.real))
        response[t] = value.real
        x = Ad @ x
    return response


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.parametrize("state_dim", [2, 8, 64])
@torch.no_grad()
def test_cauchy_kernel_and_step_are_scipys_bilinear_system(state_dim: int, dtype: torch.dtype, bound: float) -> None:
    made = kernel(channels=3, state_dim=state_dim, noise=0.02).to(dtype)
    steps = 300
    found = made.impulse(steps).numpy()
    x, stepped = torch.zeros(1, 3, made.modes, dtype=dtype.to_complex()), []
    for t in range(steps):
        y, x = made.step(torch.full((1, 3), float(t == 0), dtype=dtype), x)
        stepped.append(y[0].numpy())
    for h in range(3):
        expected = oracle(made, h, steps)
        scale = np.abs(expected).max()
        assert np.abs(found[h] - expected).max() <= bound * scale
        assert np.abs(np.array(stepped)[:, h] - expected).max() <= bound * scale


@torch.no_grad()
def test_starts_as_the_hippo_system() -> None:
    """In HiPPO's own real basis, untouched by any diagonalisation: same map from u to the state's energy."""
    torch.manual_seed(0)
    made = S4Kernel(S4Config(1, 1, hidden_dim=2, state_dim=16)).double()
    A, B = legs(16)
    dt = float(made.inv_dt[0, 0].exp())
    Ad, Bd, *_ = signal.cont2discrete((A, B[:, None], np.eye(16), np.zeros((16, 1))), dt, method="bilinear")
    u = np.random.default_rng(0).standard_normal(200)
    x, state = np.zeros((16, 1)), torch.zeros(1, 2, 8, dtype=torch.complex128)
    for value in u:
        x = Ad @ x + Bd * value
        state = made.step(torch.full((1, 2), value, dtype=torch.float64), state)[1]
        # The change of basis is unitary and the stored half of the pairs has half of the energy.
        assert 2 * float(state[0, 0].abs().square().sum()) == pytest.approx(float((x**2).sum()), rel=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 3, 17, 64])
@torch.no_grad()
def test_kernel_does_not_depend_on_its_length(steps: int) -> None:
    made = kernel().double()
    torch.testing.assert_close(made.impulse(steps), made.impulse(200)[:, :steps], atol=1e-11, rtol=1e-9)


@pytest.mark.parametrize("steps", [1, 2, 63, 150])
@torch.no_grad()
def test_run_is_repeated_steps_from_any_state(steps: int) -> None:
    made = kernel(seed=2).double()
    u, start = torch.randn(2, 5, steps).double(), torch.randn(2, 5, made.modes, dtype=torch.complex128)
    free, after = made.run(u, start)
    x, silent = start, start
    for t in range(steps):
        _, x = made.step(u[..., t], x)
        y, silent = made.step(torch.zeros(2, 5).double(), silent)
        torch.testing.assert_close(free[..., t], y)
    torch.testing.assert_close(after, x)


@torch.no_grad()
def test_every_parameter_value_is_stable() -> None:
    """Λ − P P* is dissipative whatever is learnt, so Ā never enlarges a state."""
    made = kernel(noise=2.0)
    A, _, _ = made.discretised().dense()
    assert float(torch.linalg.matrix_norm(A, 2).max()) <= 1 + 1e-5


@torch.no_grad()
def test_cauchy_is_the_sum_of_fractions() -> None:
    v, Lambda = torch.randn(2, 4, 3, dtype=torch.complex128), torch.randn(2, 3, dtype=torch.complex128) - 3
    tau, c = torch.rand(2, 7).double() * 5, torch.rand(7).double()
    at = 1j * tau[:, None, :, None]  # [H, 1, F, 1]
    pairs = (v[:, :, None] / (at - c[:, None] * Lambda[:, None, None])) + v.conj()[:, :, None] / (
        at - c[:, None] * Lambda.conj()[:, None, None]
    )
    torch.testing.assert_close(cauchy(v, Lambda, tau, c, torch.float64), pairs.sum(-1))


@pytest.mark.parametrize("steps", [1, 2, 5, 16])
def test_krylov(steps: int) -> None:
    A, b = torch.randn(2, 3, 3).double() / 2, torch.randn(2, 3).double()
    expected = torch.stack([(torch.linalg.matrix_power(A, t) @ b[..., None])[..., 0] for t in range(steps)], -1)
    torch.testing.assert_close(krylov(A, b, steps), expected)


def test_parameter_names_and_shapes_are_the_reference_implementations() -> None:
    model = build_model("s4", input_dim=3, output_dim=2, hidden_dim=10, state_dim=6, num_layers=1)
    shapes = {name: tuple(p.shape) for name, p in model.network.layers[0].layer.named_parameters()}  # type: ignore[index,union-attr]
    assert shapes == {
        "D": (10,),
        "kernel.inv_dt": (10, 1),
        "kernel.C": (1, 10, 3, 2),
        "kernel.B": (1, 10, 3, 2),
        "kernel.P": (1, 10, 3, 2),
        "kernel.A_real": (10, 3),
        "kernel.A_imag": (10, 3),
        "output_linear.0.weight": (20, 10, 1),
        "output_linear.0.bias": (20,),
    }
