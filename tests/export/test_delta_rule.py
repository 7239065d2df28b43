"""The chunked delta rule against the recurrence, the recurrence against the definition, and both at their extremes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from kizzasi_export.models.delta_rule import CHUNK, delta_chunked, delta_sequential

STRONGEST = -math.exp(-0.5)  # log w at its bound in RWKV-7


def _inputs(b: int, t: int, h: int, n: int, p: int, seed: int) -> list[torch.Tensor]:
    """r, log_w, k, v, a, b, state in float64, as an RWKV-7 layer makes them: a = −κ̂, b = rate ⊙ κ̂."""
    g = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=g, dtype=torch.float64)

    removal = F.normalize(normal(b, t, h, n), dim=-1)
    log_w, rate = STRONGEST * torch.sigmoid(3 * normal(b, t, h, n)), torch.sigmoid(normal(b, t, h, n))
    r, k, v, state = normal(b, t, h, n), normal(b, t, h, n), normal(b, t, h, p), normal(b, h, p, n)
    return [r, log_w, k, v, -removal, removal * rate, state]


@settings(max_examples=40, deadline=None)
@given(
    t=st.integers(1, 100), chunk=st.integers(1, 40), b=st.integers(1, 3), h=st.integers(1, 3), seed=st.integers(0, 99)
)
def test_chunked_equals_sequential(t: int, chunk: int, b: int, h: int, seed: int) -> None:
    args = _inputs(b, t, h, 5, 4, seed)
    torch.testing.assert_close(delta_chunked(*args, chunk=chunk), delta_sequential(*args), atol=1e-10, rtol=1e-9)


def test_sequential_is_the_product_of_transition_matrices() -> None:
    r, log_w, k, v, a, b, state = _inputs(1, 9, 1, 4, 3, 7)
    got, last = delta_sequential(r, log_w, k, v, a, b, state)
    A = [torch.diag(log_w[0, t, 0].exp()) + torch.outer(a[0, t, 0], b[0, t, 0]) for t in range(9)]
    # S_t = S_0 A_1 … A_t + Σ_s v_s k_s^T A_{s+1} … A_t
    for t in range(9):
        terms = [state[0, 0], *(torch.outer(v[0, s, 0], k[0, s, 0]) for s in range(t + 1))]
        S = torch.zeros(3, 4, dtype=torch.float64)
        for start, term in enumerate(terms):
            for transition in A[start : t + 1]:
                term = term @ transition
            S += term
        torch.testing.assert_close(got[0, t, 0], S @ r[0, t, 0])
    torch.testing.assert_close(last[0, 0], S)


@pytest.mark.parametrize("log_w", [0.0, STRONGEST])
@pytest.mark.parametrize("steady", [False, True])
def test_float32_at_the_extremes(log_w: float, steady: bool) -> None:
    """No forgetting and the strongest; keys that never change, whose triangular systems are the worst conditioned."""
    exact = _inputs(1, 500, 2, 64, 64, 1)
    exact[1] = torch.full_like(exact[1], log_w)
    if steady:
        removal = exact[4][:, :1].expand_as(exact[4])
        exact[2], exact[4], exact[5] = exact[2][:, :1].expand_as(exact[2]), removal, -removal  # in-context rate 1
    expected = delta_sequential(*exact)
    found = delta_chunked(*(x.float() for x in exact))
    for value, reference in zip(found, expected, strict=True):
        assert float((value - reference).abs().max() / reference.std()) < 5e-5


def test_gradients_are_those_of_the_recurrence() -> None:
    def gradients(function: object, dtype: torch.dtype) -> list[torch.Tensor]:
        args = [x.to(dtype).requires_grad_() for x in _inputs(2, CHUNK + 21, 2, 8, 6, 3)]
        y, state = function(*args)  # type: ignore[operator]
        (y.sin().sum() + state.cos().sum()).backward()
        return [x.grad for x in args if x.grad is not None]

    expected = gradients(delta_sequential, torch.float64)
    assert len(expected) == 7
    for dtype, bound in ((torch.float64, 1e-9), (torch.float32, 2e-4)):
        for found, reference in zip(gradients(delta_chunked, dtype), expected, strict=True):
            assert float((found - reference).abs().max() / reference.std()) < bound


def test_causal() -> None:
    args = _inputs(1, 90, 2, 4, 3, 4)
    before = delta_chunked(*args)[0]
    for x in args[:-1]:
        x[:, 50:] *= 0.5
    after = delta_chunked(*args)[0]
    torch.testing.assert_close(before[:, :50], after[:, :50])
    assert (before[:, 50:] - after[:, 50:]).abs().max() > 0.1
