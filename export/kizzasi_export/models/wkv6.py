"""The recurrence of RWKV-6: chunked (matrix products, fast in parallel) and sequential (the oracle).

Per head, with receptance r, key k and decay 0 < e^w < 1 in R^K, value v in R^V and bonus u in R^K (Peng et al. 2024,
"Eagle and Finch", §4.2):

    y_t = r_t^T (S_{t-1} + diag(u) k_t v_t^T)
    S_t = diag(e^{w_t}) S_{t-1} + k_t v_t^T        S ∈ R^{K×V}

Shapes: r, k, w [B, T, H, K], v [B, T, H, V], u [H, K], state [B, H, K, V].
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def wkv6_step(r: Tensor, k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """One step: r, k, w [B, H, K], v [B, H, V] → (y [B, H, V], next state)."""
    kv = k[..., None] * v[..., None, :]  # [B, H, K, V]
    y = (r[..., None, :] @ (state + u[..., None] * kv))[..., 0, :]  # [B, H, V]
    return y, w.exp()[..., None] * state + kv


def wkv6_sequential(r: Tensor, k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """`wkv6_step` again and again → (y [B, T, H, V], state after it)."""
    ys = []
    for i in range(r.shape[1]):
        y, state = wkv6_step(r[:, i], k[:, i], v[:, i], w[:, i], u, state)
        ys.append(y)
    return torch.stack(ys, 1), state


def wkv6_chunked(
    r: Tensor, k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: Tensor, *, chunk: int = 32
) -> tuple[Tensor, Tensor]:
    """The same by matrix products within chunks of `chunk` (a power of two) steps and a loop over the chunks.

    The decay between two steps of a chunk is split at the border between the neighbouring halves (of 1, 2, 4, …
    steps) that they lie in: e^{since the border}·e^{until the border}. Both are products of decays
    and need no division, so decays of any strength are exact.
    """
    steps = r.shape[1]
    bonus = (r * u * k).sum(-1, keepdim=True) * v  # [B, T, H, V]
    r, k, v, w = (_split(x, chunk) for x in (r, k, v, w))  # [B, H, n, chunk, K or V]
    y = torch.zeros_like(v)  # [B, H, n, chunk, V]
    before, after = torch.zeros_like(w), torch.zeros_like(w)  # log-decay from t to either end of its half, without t
    half = 1
    while half < chunk:
        early, late = _halves(after, half)[0], _halves(before, half)[1]  # [B, H, n, m, half, K]
        scores = (_halves(r, half)[1] * late.exp()) @ (_halves(k, half)[0] * early.exp()).transpose(-1, -2)
        read = scores @ _halves(v, half)[0]  # [B, H, n, m, half, V]
        y = y + _joined(torch.zeros_like(read), read)
        first, second = (x.sum(-2, keepdim=True) for x in _halves(w, half))  # [B, H, n, m, 1, K]
        before = _joined(_halves(before, half)[0], late + first)  # [B, H, n, chunk, K]
        after = _joined(early + second, _halves(after, half)[1])  # [B, H, n, chunk, K]
        half *= 2
    left = (k * after.exp()).transpose(-1, -2) @ v  # [B, H, n, K, V], what each chunk adds to the state
    kept = w.sum(-2).exp()[..., None]  # [B, H, n, K, 1]
    starts = []
    for i in range(left.shape[2]):
        starts.append(state)
        state = kept[:, :, i] * state + left[:, :, i]
    y = y + (r * before.exp()) @ torch.stack(starts, 2)
    return y.flatten(2, 3)[:, :, :steps].transpose(1, 2) + bonus, state


def _split(x: Tensor, chunk: int) -> Tensor:
    """[B, T, H, C] → [B, H, n, chunk, C]; zeros at the end (no keys, no decay) change nothing."""
    x = F.pad(x, (0, 0, 0, 0, 0, -x.shape[1] % chunk))
    b, t, h, c = x.shape
    return x.transpose(1, 2).reshape(b, h, t // chunk, chunk, c)


def _halves(x: Tensor, half: int) -> tuple[Tensor, Tensor]:
    """[..., chunk, C] → the first and the second half of each piece of 2·half steps, [..., m, half, C]."""
    pieces = x.reshape(*x.shape[:-2], -1, 2, half, x.shape[-1])
    return pieces[..., 0, :, :], pieces[..., 1, :, :]


def _joined(first: Tensor, second: Tensor) -> Tensor:
    """The inverse of `_halves`: [..., m, half, C] twice → [..., chunk, C]."""
    return torch.stack([first, second], -3).flatten(-4, -2)
