"""The chunked scan against the sequential recurrence, and the recurrence against the definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kizzasi_export.models.ssd import segment_sum, ssd_chunked, ssd_sequential


def _inputs(b: int, t: int, h: int, p: int, n: int, seed: int) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(b, t, h, p, generator=g)
    decay = -torch.rand(b, t, h, generator=g) * 2
    B, C = torch.randn(b, t, n, generator=g), torch.randn(b, t, n, generator=g)
    return x, decay, B, C, torch.randn(b, h, n, p, generator=g)


@settings(max_examples=40, deadline=None)
@given(
    t=st.integers(1, 150), chunk=st.integers(1, 80), b=st.integers(1, 3), h=st.integers(1, 3), seed=st.integers(0, 99)
)
def test_chunked_equals_sequential(t: int, chunk: int, b: int, h: int, seed: int) -> None:
    args = _inputs(b, t, h, 4, 5, seed)
    torch.testing.assert_close(ssd_chunked(*args, chunk=chunk), ssd_sequential(*args), atol=2e-5, rtol=1e-4)


def test_sequential_is_the_semiseparable_matrix() -> None:
    x, decay, B, C, state = (v.double() for v in _inputs(1, 12, 1, 3, 4, 7))
    got, _ = ssd_sequential(x, decay, B, C, torch.zeros_like(state))
    # y_t = Σ_{s≤t} (C_t·B_s) exp(Σ_{k=s+1..t} decay_k) x_s   (Dao & Gu 2024, eq. 3)
    expected = torch.zeros(12, 3, dtype=torch.float64)
    for t in range(12):
        for s in range(t + 1):
            expected[t] += (C[0, t] @ B[0, s]) * decay[0, s + 1 : t + 1, 0].sum().exp() * x[0, s, 0]
    torch.testing.assert_close(got[0, :, 0], expected)


def test_segment_sum() -> None:
    got = segment_sum(torch.tensor([1.0, 2.0, 3.0]))
    inf = float("inf")
    torch.testing.assert_close(got, torch.tensor([[0, -inf, -inf], [2, 0, -inf], [5, 3, 0.0]]))


def test_strong_decay_and_gradients_stay_finite() -> None:
    x, decay, B, C, state = _inputs(1, 100, 2, 4, 3, 3)
    decay = (decay * 200).requires_grad_()
    y = ssd_chunked(x, decay, B, C, state, chunk=32)[0]
    y.sum().backward()
    assert torch.isfinite(y).all()
    assert decay.grad is not None
    assert torch.isfinite(decay.grad).all()


@pytest.mark.parametrize("chunk", [1, 64, 4096])
def test_causal(chunk: int) -> None:
    x, decay, B, C, state = _inputs(1, 90, 2, 4, 3, 4)
    before = ssd_chunked(x, decay, B, C, state, chunk=chunk)[0]
    x[:, 50:] += 10
    after = ssd_chunked(x, decay, B, C, state, chunk=chunk)[0]
    torch.testing.assert_close(before[:, :50], after[:, :50])
    assert (before[:, 50:] - after[:, 50:]).abs().max() > 0.1
