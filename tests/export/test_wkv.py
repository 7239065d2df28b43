"""The parallel recurrences of RWKV-4 and RWKV-6 against their sequential oracles and the papers' sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from kizzasi_export.models.wkv4 import NEVER, WKV4State, wkv4_parallel, wkv4_sequential
from kizzasi_export.models.wkv6 import wkv6_chunked, wkv6_sequential

LENGTHS = [1, 2, 3, 31, 32, 33, 64, 100, 257]
B, C, H, K, V = 2, 6, 3, 4, 5


def wkv4_inputs(steps: int, *, spread: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """k, v [B, T, C], w, u [C]; keys of standard deviation `spread`, decays from none to 400 a step."""
    torch.manual_seed(steps)
    k, v = spread * torch.randn(B, steps, C), torch.randn(B, steps, C)
    w = -torch.tensor([0.0, 1e-4, 0.01, 1.0, 20.0, 400.0])
    return k.double(), v.double(), w.double(), torch.randn(C).double()


def nothing4(dtype: torch.dtype = torch.float64) -> WKV4State:
    zero = torch.zeros(B, C, dtype=dtype)
    return zero, zero, torch.full_like(zero, NEVER)


def something4(dtype: torch.dtype = torch.float64) -> WKV4State:
    torch.manual_seed(1)
    return torch.randn(B, C).to(dtype), torch.rand(B, C).to(dtype) + 0.1, 5 * torch.randn(B, C).to(dtype)


def wkv6_inputs(steps: int, *, strength: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """r, k [B, T, H, K], v [B, T, H, V], log-decay w = -e^(strength · noise), u [H, K], state [B, H, K, V]."""
    torch.manual_seed(steps)
    r, k, noise = torch.randn(3, B, steps, H, K, dtype=torch.float64)
    v, u, state = torch.randn(B, steps, H, V), torch.randn(H, K), torch.randn(B, H, K, V)
    return r, k, v.double(), -(strength * noise).exp(), u.double(), state.double()


def close(found: Any, expected: Any, *, rtol: float = 1e-9, atol: float = 1e-10) -> None:
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("steps", LENGTHS)
@pytest.mark.parametrize("before", [nothing4, something4])
def test_wkv4_parallel_is_sequential(steps: int, before: Callable[[], WKV4State]) -> None:
    inputs = wkv4_inputs(steps)
    close(wkv4_parallel(*inputs, before()), wkv4_sequential(*inputs, before()))


def test_wkv4_is_the_papers_weighted_mean() -> None:
    k, v, w, u = wkv4_inputs(12)
    y, _ = wkv4_sequential(k, v, w, u, nothing4())
    for t in range(12):
        logits = torch.stack([(t - 1 - i) * w + k[:, i] for i in range(t)] + [u + k[:, t]])  # [t+1, B, C]
        weights = logits.softmax(0)
        close(y[:, t], (weights * v[:, : t + 1].transpose(0, 1)).sum(0))


def test_wkv4_stays_finite_and_right_with_keys_of_hundreds() -> None:
    """e^k would overflow float32, and float64 too; single precision is compared with double."""
    inputs = wkv4_inputs(300, spread=500.0)
    exact, _ = wkv4_sequential(*inputs, nothing4())
    assert torch.isfinite(exact).all()
    k, v, w, u = (x.float() for x in inputs)
    y, state = wkv4_parallel(k, v, w, u, nothing4(torch.float32))
    assert all(torch.isfinite(x).all() for x in state)
    assert (y - exact).abs().max() < 1e-3
    close(wkv4_parallel(*inputs, nothing4())[0], exact, atol=1e-8)


@pytest.mark.parametrize("before", [nothing4, something4])
def test_wkv4_gradients(before: Callable[[], WKV4State]) -> None:
    def gradients(scan: Callable[..., Any]) -> list[Tensor]:
        inputs = [x.requires_grad_() for x in wkv4_inputs(70)]
        y, (aa, bb, pp) = scan(*inputs, before())
        weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
        ((weights * y).sum() + (aa / bb).sum() + (pp + bb.log()).sum()).backward()
        return [x.grad for x in inputs if x.grad is not None]

    expected, found = gradients(wkv4_sequential), gradients(wkv4_parallel)
    assert len(found) == len(expected) == 4
    assert all(torch.isfinite(x).all() for x in found)
    close(found, expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("steps", LENGTHS)
@pytest.mark.parametrize("chunk", [4, 32])
def test_wkv6_chunked_is_sequential(steps: int, chunk: int) -> None:
    inputs = wkv6_inputs(steps)
    close(wkv6_chunked(*inputs, chunk=chunk), wkv6_sequential(*inputs))


def test_wkv6_is_the_papers_sum() -> None:
    r, k, v, w, u, state = wkv6_inputs(9)
    y, last = wkv6_sequential(r, k, v, w, u, state)
    for t in range(9):
        seen = w[:, :t].sum(1).exp()[..., None] * state + u[..., None] * k[:, t, :, :, None] * v[:, t, :, None]
        for i in range(t):
            seen = seen + (w[:, i + 1 : t].sum(1).exp() * k[:, i])[..., None] * v[:, i, :, None]  # [B, H, K, V]
        close(y[:, t], torch.einsum("bhk,bhkv->bhv", r[:, t], seen))
    left = sum(((w[:, i + 1 :].sum(1).exp() * k[:, i])[..., None] * v[:, i, :, None] for i in range(9)), state * 0)
    close(last, w.sum(1).exp()[..., None] * state + left)


@pytest.mark.parametrize("strength", [0.01, 3.0, 8.0])
def test_wkv6_single_precision_with_weak_and_strong_decays(strength: float) -> None:
    """Log-decays from almost 0 to -e^24 side by side: cumulative decays underflow, their ratios must not matter."""
    inputs = wkv6_inputs(200, strength=strength)
    exact = wkv6_sequential(*inputs)
    r, k, v, w, u, state = (x.float() for x in inputs)
    found = wkv6_chunked(r, k, v, w, u, state)
    for a, b in zip(found, exact, strict=True):
        assert (a - b).abs().max() / b.std() < 2e-5


@pytest.mark.parametrize("strength", [1.0, 8.0])
def test_wkv6_gradients(strength: float) -> None:
    def gradients(scan: Callable[..., Any]) -> list[Tensor]:
        inputs = [x.requires_grad_() for x in wkv6_inputs(70, strength=strength)]
        y, state = scan(*inputs)
        weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
        ((weights * y).sum() + state.sum()).backward()
        return [x.grad for x in inputs if x.grad is not None]

    expected, found = gradients(wkv6_sequential), gradients(wkv6_chunked)
    assert len(found) == len(expected) == 6
    assert all(torch.isfinite(x).all() for x in found)
    close(found, expected, rtol=1e-8, atol=1e-9)
