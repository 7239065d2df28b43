"""The blocked selective scan against the sequential recurrence: values, gradients, strong decays, all segmentations."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kizzasi_export.models import selective_scan as module
from kizzasi_export.models.selective_scan import selective_scan, selective_scan_sequential


def _inputs(b: int, t: int, d: int, n: int, seed: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """x, dt, A, B, C, state."""
    g = torch.Generator().manual_seed(seed)
    shapes = [(b, t, d), (b, t, d), (n, d), (b, t, n), (b, t, n), (b, n, d)]
    x, dt, A, B, C, state = (torch.randn(*shape, generator=g, dtype=dtype) for shape in shapes)
    return [x, dt.abs(), -A.abs(), B, C, state]


@settings(max_examples=40, deadline=None)
@given(
    t=st.integers(1, 300),
    b=st.integers(1, 3),
    d=st.integers(1, 5),
    segment=st.sampled_from([1, 7, 64, 100, 1000]),
    seed=st.integers(0, 99),
)
def test_blocked_equals_sequential(t: int, b: int, d: int, segment: int, seed: int) -> None:
    """`segment` steps at a time: single steps, short ones, and squares of chunks with what remains of them."""
    args = _inputs(b, t, d, 3, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SEGMENT", segment * args[-1].numel())
        found = selective_scan(*args)
    torch.testing.assert_close(found, selective_scan_sequential(*args), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(("steps", "segment"), [(5, 100), (7, 3), (70, 64), (70, 100), (67, 1)])
def test_gradients(monkeypatch: pytest.MonkeyPatch, steps: int, segment: int) -> None:
    """Against finite differences in float64, of both results and to all six arguments."""
    args = _inputs(2, steps, 2, 2, 0, torch.float64)
    monkeypatch.setattr(module, "_SEGMENT", segment * args[-1].numel())
    leaves = [v.requires_grad_() for v in args]
    assert torch.autograd.gradcheck(selective_scan, leaves, fast_mode=True)


def test_gradients_are_autograd_s() -> None:
    args = _inputs(2, 333, 6, 4, 1, torch.float64)
    grads = []
    for scan in (selective_scan, selective_scan_sequential):
        leaves = [v.clone().requires_grad_() for v in args]
        y, state = scan(*leaves)
        (y.sin().sum() + state.cos().sum()).backward()
        grads.append([leaf.grad for leaf in leaves])
    torch.testing.assert_close(*grads)


def test_strong_and_vanishing_decays_are_exact() -> None:
    """Decays of e^-300 a step beside decays of 1, against float64. A division by decays would overflow."""
    args = _inputs(1, 400, 8, 4, 2)
    args[1] = args[1] * torch.logspace(-6, 3, 8)
    found = selective_scan(*args)
    y, state = selective_scan_sequential(*(v.double() for v in args))
    for got, expected in zip(found, (y, state), strict=True):
        assert torch.isfinite(got).all()
        error = (got - expected).abs().amax(-2) / expected.abs().amax(-2)  # per channel
        assert float(error.max()) <= 1e-4
    leaves = [v.requires_grad_() for v in args]
    selective_scan(*leaves)[0].square().sum().backward()
    for leaf in leaves:
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()


def test_causal() -> None:
    x, *rest = _inputs(1, 200, 3, 2, 3)
    before = selective_scan(x, *rest)[0]
    x[:, 120:] += 10
    after = selective_scan(x, *rest)[0]
    torch.testing.assert_close(before[:, :120], after[:, :120])
    assert (before[:, 120:] - after[:, 120:]).abs().max() > 0.1
