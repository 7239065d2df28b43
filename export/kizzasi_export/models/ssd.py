"""The state-space-dual scan of Mamba-2: chunked (fast in parallel) and sequential (the oracle).

Both compute, per head, with scalar decay a_t = exp(dt_t·A) (Dao & Gu 2024, eq. 1 with the SSD restriction):

    h_t = a_t h_{t-1} + B_t (dt_t x_t)^T        h ∈ R^{N×P}
    y_t = C_t^T h_t

Letters: b batch, t time, h head, p head_dim, n state_dim, c chunk, l and s positions in a chunk.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def segment_sum(log_decay: Tensor) -> Tensor:
    """[..., L] → [..., L, L] with out[i, j] = Σ_{k=j+1..i} log_decay[k] for i ≥ j, else −∞ (Listing 1).

    One product with a constant of ones and zeros: unlike differences of cumulative sums it is exact for long segments,
    and it is faster than sums of masked copies.
    """
    length = log_decay.shape[-1]
    lower = torch.ones(length, length, dtype=torch.bool, device=log_decay.device).tril()  # [L, L]
    members = (lower[:, None] & ~lower[None]).to(log_decay.dtype)  # [i, j, k]: j < k ≤ i
    never = torch.zeros_like(lower, dtype=log_decay.dtype).masked_fill(~lower, float("-inf"))  # [L, L]
    return F.linear(log_decay, members.flatten(0, 1), never.flatten()).reshape(*log_decay.shape, length)


def ssd_chunked(
    x: Tensor, log_decay: Tensor, B: Tensor, C: Tensor, state: Tensor, *, chunk: int
) -> tuple[Tensor, Tensor]:
    """The scan by blocks of the semiseparable matrix (Dao & Gu 2024, §6, Listing 1).

    Args:
        x: [b, t, h, p], already multiplied by dt.
        log_decay: [b, t, h], dt·A ≤ 0.
        B, C: [b, t, n], shared by all heads (ngroups = 1).
        state: [b, h, n, p] before the first step.
        chunk: block length; t need not be a multiple.

    Returns:
        (y [b, t, h, p], state [b, h, n, p] after the last step).
    """
    b, t, h, p = x.shape
    chunk = min(chunk, t)
    pad = -t % chunk
    if pad:  # zeros at the end change nothing before them
        x, log_decay = F.pad(x, (0, 0, 0, 0, 0, pad)), F.pad(log_decay, (0, 0, 0, pad))
        B, C = F.pad(B, (0, 0, 0, pad)), F.pad(C, (0, 0, 0, pad))
    c, n = x.shape[1] // chunk, B.shape[-1]
    x = x.reshape(b, c, chunk, h, p).transpose(2, 3).reshape(-1, chunk, p)  # [b·c·h, l, p]
    a = log_decay.reshape(b, c, chunk, h).transpose(2, 3).contiguous()  # [b, c, h, l]
    from_start = a.cumsum(-1).exp()  # [b, c, h, l]
    B, C = B.reshape(b, c, 1, chunk, n), C.reshape(b, c, 1, chunk, n)  # [b, c, 1, l, n]

    L = segment_sum(a).exp()  # [b, c, h, l, s]

    # 1. What each chunk leaves in the state (right factor, B-block).
    left = (L[..., -1, :, None] * B).flatten(0, 2).transpose(1, 2) @ x  # [b·c·h, n, p]

    # 2. Recurrence between chunks: the state each chunk starts from (centre factor, A-block).
    starts = []
    for add, kept in zip(left.reshape(b, c, h, n, p).unbind(1), from_start[..., -1].unbind(1), strict=True):
        starts.append(state)
        state = torch.addcmul(add, kept[..., None, None], state)  # [b, h, n, p]
    start = torch.stack(starts, 1).flatten(0, 2)  # [b·c·h, n, p]

    # 3. What the starting state contributes within each chunk (left factor, C-block).
    y = (from_start[..., None] * C).flatten(0, 2) @ start  # [b·c·h, l, p]

    # 4. Diagonal blocks: attention-like within a chunk (eq. 16's L ∘ C B^T).
    scores = L * (C @ B.transpose(-1, -2))  # [b, c, h, l, s]
    y = torch.baddbmm(y, scores.flatten(0, 2), x)  # [b·c·h, l, p]
    return y.reshape(b, c, h, chunk, p).transpose(2, 3).reshape(b, c * chunk, h, p)[:, :t], state


def ssd_sequential(x: Tensor, log_decay: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The same recurrence, one step after another; arguments and results as `ssd_chunked`."""
    ys = []
    for i in range(x.shape[1]):
        decay = log_decay[:, i].exp()[..., None, None]  # [b, h, 1, 1]
        state = decay * state + B[:, i, None, :, None] * x[:, i, :, None, :]  # [b, h, n, p]
        ys.append(torch.einsum("bn,bhnp->bhp", C[:, i], state))  # [b, h, p]
    return torch.stack(ys, 1), state
