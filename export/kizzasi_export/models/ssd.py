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
    """[..., L] → [..., L, L] with out[i, j] = Σ_{k=j+1..i} log_decay[k] for i ≥ j, else −∞ (Listing 1)."""
    length = log_decay.shape[-1]
    # Masking before the sum, instead of subtracting cumulative sums, keeps long segments exact.
    below = torch.ones(length, length, dtype=torch.bool, device=log_decay.device)
    spread = log_decay[..., None].expand(*log_decay.shape, length)  # [..., L, L]
    sums = spread.masked_fill(~below.tril(-1), 0.0).cumsum(-2)  # [..., L, L]
    return sums.masked_fill(~below.tril(0), float("-inf"))


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
    n = B.shape[-1]
    chunk = min(chunk, t)
    pad = -t % chunk
    if pad:  # zeros at the end change nothing before them
        x, log_decay = F.pad(x, (0, 0, 0, 0, 0, pad)), F.pad(log_decay, (0, 0, 0, pad))
        B, C = F.pad(B, (0, 0, 0, pad)), F.pad(C, (0, 0, 0, pad))
    c = x.shape[1] // chunk
    x = x.reshape(b, c, chunk, h, p)  # [b, c, l, h, p]
    a = log_decay.reshape(b, c, chunk, h).permute(0, 3, 1, 2)  # [b, h, c, l]
    B, C = B.reshape(b, c, chunk, n), C.reshape(b, c, chunk, n)  # [b, c, l, n]
    a_cum = a.cumsum(-1)  # [b, h, c, l]

    # 1. Diagonal blocks: attention-like within a chunk (eq. 16's L ∘ C B^T).
    L = segment_sum(a).exp()  # [b, h, c, l, s]
    scores = torch.einsum("bcln,bcsn->bcls", C, B)  # [b, c, l, s]
    y_diagonal = torch.einsum("bhcls,bcshp->bclhp", L * scores[:, None], x)  # [b, c, l, h, p]

    # 2. What each chunk leaves in the state (right factor, B-block).
    to_end = (a_cum[..., -1:] - a_cum).exp()  # [b, h, c, l]
    left = torch.einsum("bcln,bhcl,bclhp->bchnp", B, to_end, x)  # [b, c, h, n, p]

    # 3. Recurrence between chunks: the state each chunk starts from (centre factor, A-block).
    chunk_decay = F.pad(a_cum[..., -1], (1, 0))  # [b, h, c+1]
    between = segment_sum(chunk_decay).exp()  # [b, h, c+1, c+1]
    left = torch.cat([state[:, None], left], 1)  # [b, c+1, h, n, p]
    start = torch.einsum("bhzc,bchnp->bzhnp", between, left)  # [b, c+1, h, n, p]
    start, last = start[:, :-1], start[:, -1]  # [b, c, h, n, p] [b, h, n, p]

    # 4. What the starting state contributes within each chunk (left factor, C-block).
    y_offset = torch.einsum("bcln,bchnp,bhcl->bclhp", C, start, a_cum.exp())  # [b, c, l, h, p]
    return (y_diagonal + y_offset).reshape(b, c * chunk, h, p)[:, :t], last


def ssd_sequential(x: Tensor, log_decay: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The same recurrence, one step after another; arguments and results as `ssd_chunked`."""
    ys = []
    for i in range(x.shape[1]):
        decay = log_decay[:, i].exp()[..., None, None]  # [b, h, 1, 1]
        state = decay * state + B[:, i, None, :, None] * x[:, i, :, None, :]  # [b, h, n, p]
        ys.append(torch.einsum("bn,bhnp->bhp", C[:, i], state))  # [b, h, p]
    return torch.stack(ys, 1), state
