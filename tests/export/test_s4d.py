"""S4D: kernel and step against scipy's discretisation and simulation, and what it shares with S4 and S5."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from kizzasi_export import build_model
from kizzasi_export.models.diagonal import Powers, diagonal_scan, diagonal_scan_sequential, fft_convolve, zoh
from kizzasi_export.models.s4d import S4DConfig, S4DKernel, SisoMixer


def kernel(channels: int = 6, state_dim: int = 8, seed: int = 0, **options: Any) -> S4DKernel:
    torch.manual_seed(seed)
    made = S4DKernel(S4DConfig(1, 1, hidden_dim=channels, state_dim=state_dim, **options))
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return made


def complexes(seed: int, *shape: int, radius: float = 1.0) -> torch.Tensor:
    """Inside the circle of `radius`, double precision."""
    g = torch.Generator().manual_seed(seed)
    modulus, angle = torch.rand(*shape, generator=g, dtype=torch.float64), torch.rand(*shape, generator=g).double()
    return torch.polar(radius * modulus, 2 * torch.pi * angle)


def real_system(A: np.ndarray, C: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x' = A x + u, y = 2 Re(C x) with complex diagonal A, as a real system of twice the size."""
    a = np.block([[np.diag(A.real), -np.diag(A.imag)], [np.diag(A.imag), np.diag(A.real)]])
    b = np.concatenate([np.ones(len(A)), np.zeros(len(A))])[:, None]
    return a, b, 2 * np.concatenate([C.real, -C.imag])[None], np.zeros((1, 1))


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-11), (torch.float32, 1e-4)])
@pytest.mark.parametrize("init", ["lin", "inv", "legs"])
@torch.no_grad()
def test_kernel_is_scipys_zero_order_hold(init: str, dtype: torch.dtype, bound: float) -> None:
    """Same continuous matrices, discretised and simulated by scipy: same impulse response, same step."""
    made = kernel(init=init).to(dtype)
    steps = 400
    found = made.impulse(steps).numpy()  # [H, T]
    u = torch.zeros(1, 6, steps, dtype=dtype)
    u[..., 0] = 1
    x, stepped = torch.zeros(1, 6, made.modes, dtype=dtype.to_complex()), []
    for t in range(steps):
        y, x = made.step(u[..., t], x)
        stepped.append(y[0].numpy())
    for h in range(6):
        A = -np.exp(made.log_A_real[h].double().numpy()) + 1j * made.A_imag[h].double().numpy()
        C = made.C[h].double().numpy() @ np.array([1, 1j])
        dt = float(made.log_dt[h].double().exp())
        discrete = signal.cont2discrete(real_system(A, C), dt, method="zoh")
        # scipy's output is taken before its state update, ours after: shift by one.
        _, response, _ = signal.dlsim(discrete, np.eye(1, steps + 1)[0][:, None])
        expected = response[1:, 0]
        scale = np.abs(expected).max()
        assert np.abs(found[h] - expected).max() <= bound * scale
        assert np.abs(np.array(stepped)[:, h] - expected).max() <= bound * scale


@torch.no_grad()
def test_kernel_is_the_papers_vandermonde_sum() -> None:
    """2 Re Σ C (e^{dtA} − 1)/A e^{dtA t}, all exponentials written out (the reference's S4DKernel.forward)."""
    made = kernel(seed=3)
    A = (-made.log_A_real.double().exp()) + 1j * made.A_imag.double()  # [H, n]
    dtA = A * made.log_dt.double().exp()[:, None]
    C = torch.view_as_complex(made.C.double()) * (dtA.exp() - 1) / A
    t = torch.arange(2048)
    expected = 2 * torch.einsum("hn,hnt->ht", C, (dtA[..., None] * t).exp()).real
    assert (made.impulse(2048) - expected).abs().max() <= 1e-4 * expected.abs().max()


@settings(max_examples=40, deadline=None)
@given(steps=st.integers(1, 200), seed=st.integers(0, 99))
def test_powers(steps: int, seed: int) -> None:
    z, w = complexes(seed, 3, 4), complexes(seed + 1, 2, 3, 4)
    u = torch.randn(2, 3, steps, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    powers = Powers(z, steps)
    table = torch.stack([z**t for t in range(steps)], -1)  # [3, 4, T]
    torch.testing.assert_close(powers.last(), z**steps, atol=1e-13, rtol=1e-12)
    torch.testing.assert_close(powers.series(w), 2 * torch.einsum("bhn,hnt->bht", w, table).real)
    expected = torch.einsum("bht,hnt->bhn", u.flip(-1).to(table.dtype), table)
    torch.testing.assert_close(powers.collect(u), expected)


def test_powers_of_nothing_have_gradients() -> None:
    """A decay that underflows to 0 must not turn a gradient into NaN."""
    z = torch.tensor([[0j, 0.5 + 0.5j]], requires_grad=True)
    Powers(z, 50).series(torch.ones(1, 2, dtype=z.dtype)).square().sum().backward()
    assert z.grad is not None
    assert torch.isfinite(torch.view_as_real(z.grad)).all()
    assert z.grad[0, 1].abs() > 0


@settings(max_examples=40, deadline=None)
@given(steps=st.integers(1, 130), seed=st.integers(0, 99))
def test_parallel_scan_is_the_recurrence(steps: int, seed: int) -> None:
    z, v, state = complexes(seed, 5), complexes(seed + 1, 2, steps, 5), complexes(seed + 2, 2, 5)
    torch.testing.assert_close(diagonal_scan(z, v, state), diagonal_scan_sequential(z, v, state))
    slow = z.to(torch.complex64) / z.abs() * (1 - 1e-4)  # remembers all of it, in single precision
    found, expected = (
        f(slow.to(torch.complex64), v.to(torch.complex64), state.to(torch.complex64))
        for f in (diagonal_scan, diagonal_scan_sequential)
    )
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("steps", [1, 2, 31, 64, 1021])
def test_fft_convolution_is_causal_and_does_not_wrap(steps: int) -> None:
    u, k = torch.randn(2, 3, steps, dtype=torch.float64), torch.randn(3, steps, dtype=torch.float64)
    found = fft_convolve(u, k)
    for b in range(2):
        for h in range(3):
            np.testing.assert_allclose(found[b, h], np.convolve(u[b, h], k[h])[:steps], atol=1e-10)


def test_zero_order_hold_keeps_its_digits_at_small_steps() -> None:
    A = torch.tensor([-0.5 + 3j, -1e-4 + 0j], dtype=torch.complex64)
    z, gain = zoh(A, torch.tensor(1e-5))
    exact = 1e-5 * (1 + 1e-5 * A.to(torch.complex128) / 2)  # (e^{dt A} − 1)/A to second order
    assert ((gain - exact).abs() / exact.abs()).max() < 1e-7
    assert z.dtype == torch.complex64


def test_parameter_names_and_shapes_are_the_reference_implementations() -> None:
    model = build_model("s4d", input_dim=3, output_dim=2, hidden_dim=10, state_dim=6, num_layers=1)
    shapes = {name: tuple(p.shape) for name, p in model.network.named_parameters()}
    assert shapes == {
        "input_projection.weight": (10, 3),
        "input_projection.bias": (10,),
        "layers.0.norm.weight": (10,),
        "layers.0.layer.D": (10,),
        "layers.0.layer.kernel.C": (10, 3, 2),
        "layers.0.layer.kernel.log_dt": (10,),
        "layers.0.layer.kernel.log_A_real": (10, 3),
        "layers.0.layer.kernel.A_imag": (10, 3),
        "layers.0.layer.output_linear.0.weight": (20, 10, 1),
        "layers.0.layer.output_linear.0.bias": (20,),
        "norm.weight": (10,),
        "output_projection.weight": (2, 10),
        "output_projection.bias": (2,),
    }


@torch.no_grad()
def test_layer_is_the_references_forward() -> None:
    """Convolution, skip, GELU, width-1 convolution, GLU over channels: written as the reference orders them."""
    torch.manual_seed(1)
    mixer = SisoMixer(6, kernel())
    u = torch.randn(2, 50, 6)
    y = fft_convolve(u.mT, mixer.kernel.impulse(50)) + mixer.D[:, None] * u.mT  # [B, H, T]
    expected = torch.nn.functional.glu(mixer.output_linear(torch.nn.functional.gelu(y)), dim=-2).mT
    torch.testing.assert_close(mixer(u, {}), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"state_dim": 7}, "state_dim = 7, expected an even number"),
        ({"init": "hippo"}, "init = 'hippo', expected one of lin, inv, legs"),
        ({"dt_min": 0.0}, "dt_min = 0.0"),
        ({"dt_min": 1.0}, "dt_min = 1.0"),
    ],
)
def test_wrong_sizes_are_named(change: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        build_model("s4d", input_dim=1, output_dim=1, **change)
