"""The selective scan of Mamba (S6): parallel over time with a hand-written gradient, and sequential (the oracle).

Both compute, per channel, with the input stretched to N states (Gu & Dao 2023, algorithm 2 and eq. 2; A by zero-order
hold, B by Euler's rule as in the reference implementation):

    h_t = exp(dt_t·A) ∘ h_{t-1} + B_t (dt_t x_t)^T        h ∈ R^{N×D}
    y_t = C_t^T h_t

The decays have no low-rank form to exploit (they differ per step, channel and state), so the parallel form is a
blocked recurrence: time is cut into chunks, one step runs in all chunks at once, and the chunks are joined by a second,
short recurrence. Nothing is divided by a product of decays, so strong decays lose no accuracy.

Letters: b batch, t time, d channel, n state; within a segment, l position in a chunk, c chunk.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_SEGMENT = 1 << 21
"""Elements h of one segment: the few arrays of that size that exist at a time stay in a processor's last cache."""

_SHORT = 64
"""Steps below which one recurrence costs less than two."""


def selective_scan(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The scan, segment after segment; the backward pass recomputes h from each segment's first state.

    Args:
        x: [b, t, d].
        dt: [b, t, d], ≥ 0.
        A: [n, d], ≤ 0.
        B, C: [b, t, n].
        state: [b, n, d] before the first step.

    Returns:
        (y [b, t, d], state [b, n, d] after the last step).
    """
    A2 = A * math.log2(math.e)  # exp(dt·A) = 2^(dt·A2), and torch's exp2 takes a third of the time of its exp
    return _Scan.apply(dt * x, dt, B, C, A2, state)  # type: ignore[no-untyped-call, no-any-return]


def selective_scan_sequential(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """The same recurrence, one step after another; arguments and results as `selective_scan`."""
    ys = []
    for i in range(x.shape[1]):
        decay = torch.exp(dt[:, i, None] * A)  # [b, n, d]
        state = decay * state + B[:, i, :, None] * (dt * x)[:, i, None]  # [b, n, d]
        ys.append((C[:, i, None] @ state)[:, 0])  # [b, d]
    return torch.stack(ys, 1), state


def _segments(steps: int, most: int) -> tuple[list[slice], int]:
    """Segments of at most `most` steps that cover `steps`, each a multiple of the chunk or shorter than it."""
    most = min(steps, most)
    chunk = math.isqrt(most) if most >= _SHORT else most  # as many chunks as steps in a chunk: fewest operations
    most -= most % chunk
    whole = steps - steps % chunk
    edges = [*range(0, whole, most), *([whole] if whole < steps else []), steps]
    return [slice(*pair) for pair in pairwise(edges)], chunk


def _recur(
    decays: Sequence[Tensor], values: Sequence[Tensor], kept: Tensor, first: Tensor, *, reverse: bool = False
) -> Tensor:
    """In place values[i] += decays[i]·values[i-1], in all chunks; what the chunks start from.

    Args:
        decays, values: in order of the recurrence, l tensors [c, ...], the second is overwritten.
        kept: [c, ...] product of the decays.
        first: [...] what the first chunk (the last one if `reverse`) starts from.

    Returns:
        starts [c, ...], the value before each chunk's first.
    """
    starts = torch.empty_like(values[0])
    order = range(len(starts))[:: -1 if reverse else 1]
    starts[order[0]] = first
    if len(order) > 1:
        left = values[0].clone()  # [c, ...] becomes each chunk's last value, had it started from 0
        for decay, value in zip(decays[1:], values[1:], strict=True):
            torch.addcmul(value, decay, left, out=left)
        start, add, scale = starts.unbind(0), left.unbind(0), kept.unbind(0)
        for k, following in pairwise(order):
            torch.addcmul(add[k], scale[k], start[k], out=start[following])
    before = starts
    for decay, value in zip(decays, values, strict=True):
        before = torch.addcmul(value, decay, before, out=value)
    return starts


def _fold(v: Tensor, chunk: int) -> Tensor:
    """[b, t, f] → [l, c, b, f], a view: the steps that are taken together in one row."""
    b, t, f = v.shape
    chunk = min(chunk, t)
    return v.view(b, t // chunk, chunk, f).permute(2, 1, 0, 3)


def _room(count: int, segments: list[slice], chunk: int, state: Tensor) -> Tensor:
    """[count, enough] scratch for h of any segment, which all of them overwrite: to get fresh memory from the system
    takes longer than to compute what is stored in it.
    """
    steps = segments[0].stop
    return state.new_empty(count, (steps + steps // chunk) * state.numel())


def _shaped(room: Tensor, rows: int, chunks: int, state: Tensor) -> Tensor:
    """The beginning of [enough] as [rows, chunks, *state.shape]."""
    return room[: rows * chunks * state.numel()].view(rows, chunks, *state.shape)


class _Scan(torch.autograd.Function):
    """(dt·x, dt, B, C [b, t, ·], A = log2 e·A [n, d], state [b, n, d]) → (y [b, t, d], state after it)."""

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, dt: Tensor, B: Tensor, C: Tensor, A: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        segments, chunk = _segments(u.shape[1], max(1, _SEGMENT // state.numel()))
        room = _room(2, segments, chunk, state)
        y, before = torch.empty_like(u), []
        for segment in segments:
            before.append(state)
            parts = [_fold(v[:, segment], chunk).contiguous() for v in (u, dt, B, C)]
            _, h = _states(A, state, room, *parts[:3])
            _fold(y[:, segment], chunk).copy_((parts[3][..., None, :] @ h[1:]).squeeze(-2))
            state = h[-1, -1].clone()
        ctx.save_for_backward(u, dt, B, C, A, *before)
        ctx.segments, ctx.chunk = segments, chunk
        return y, state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dstate: Tensor) -> tuple[Tensor, ...]:
        *sequences, A, first = ctx.saved_tensors[:6]
        room = _room(3, ctx.segments, ctx.chunk, first)
        grads, dA = [torch.empty_like(v) for v in sequences], torch.zeros_like(A)
        for segment, state in zip(ctx.segments[::-1], ctx.saved_tensors[:4:-1], strict=True):
            parts = [_fold(v[:, segment], ctx.chunk).contiguous() for v in (*sequences, dy)]
            *found, more, dstate = _gradients(A, state, dstate, room, *parts)
            dA += more
            for grad, value in zip(grads, found, strict=True):
                _fold(grad[:, segment], ctx.chunk).copy_(value)
        return *grads, dA, dstate


def _states(A: Tensor, state: Tensor, room: Tensor, u: Tensor, dt: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """decay [l, c, b, n, d] and h [l+1, c, b, n, d], whose first row holds what each chunk starts from."""
    rows, chunks = u.shape[:2]
    decay = torch.mul(dt[..., None, :], A, out=_shaped(room[0], rows, chunks, state)).exp2_()
    h = _shaped(room[1], rows + 1, chunks, state)
    torch.mul(B[..., None], u[..., None, :], out=h[1:])
    kept = torch.exp2(dt.sum(0)[..., None, :] * A)  # [c, b, n, d]
    h[0] = _recur(decay.unbind(0), h[1:].unbind(0), kept, state)
    return decay, h


def _gradients(
    A: Tensor, state: Tensor, dlast: Tensor, room: Tensor, u: Tensor, dt: Tensor, B: Tensor, C: Tensor, dy: Tensor
) -> tuple[Tensor, ...]:
    """Of one segment, to u, dt, B, C [l, c, b, ·], A [n, d] and the state before it [b, n, d]."""
    decay, h = _states(A, state, room, u, dt, B)
    # g becomes ∂/∂h_t = C_t dy_t + decay_{t+1} ∂/∂h_{t+1}
    g = torch.mul(C[..., None], dy[..., None, :], out=_shaped(room[2], len(u), u.shape[1], state))  # [l, c, b, n, d]
    edge = torch.cat([decay[0, 1:], torch.ones_like(decay[0, :1])])  # [c, b, n, d] decay after a chunk's end
    kept = edge * torch.exp2(dt[1:].sum(0)[..., None, :] * A)  # [c, b, n, d]
    _recur([edge, *decay.unbind(0)[:0:-1]], g.unbind(0)[::-1], kept, dlast, reverse=True)
    du = (B[..., None, :] @ g).squeeze(-2)  # [l, c, b, d]
    dB = (g @ u[..., None]).squeeze(-1)  # [l, c, b, n]
    dC = (h[1:] @ dy[..., None]).squeeze(-1)  # [l, c, b, n]
    dstate = decay[0, 0] * g[0, 0]  # [b, n, d]
    exponent = decay.mul_(h[:-1]).mul_(g)  # [l, c, b, n, d] ∂/∂(ln 2·dt·A)
    dA = torch.mul(exponent, dt[..., None, :], out=g).sum((0, 1, 2)) * math.log(2.0)  # [n, d]
    ddt = exponent.mul_(A * math.log(2.0)).sum(-2)  # [l, c, b, d]
    return du, ddt, dB, dC, dA, dstate
