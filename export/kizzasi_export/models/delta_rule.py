"""The generalised delta rule of RWKV-7: chunked (fast in parallel) and sequential (the oracle).

Both compute, per head, with S ∈ R^{P×N} (Peng et al. 2025, §4.1 "The Weighted Key Value State Evolution", where
a is the negated removal key and b the removal key times the in-context learning rate):

    S_t = S_{t-1} (diag(w_t) + a_t b_t^T) + v_t k_t^T
    y_t = S_t r_t

Letters: b batch, t time, h head, c chunk, l and s positions in a chunk, n key size N, p value size P.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK = 32
"""Steps per chunk. Quotients of decays are formed within one, so CHUNK·|log w| must stay far below 88 (float32)."""


def delta_chunked(
    r: Tensor, log_w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, state: Tensor, *, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """The rule by chunks: a triangular system in each, all at once, then one product per chunk in sequence.

    With G_l = w_1 ⊙ … ⊙ w_l in a chunk that starts from S_0, and u_l = S_{l-1} a_l, unrolling the rule gives

        S_l diag(G_l)^{-1} = S_0 + Σ_{s≤l} u_s (b_s/G_s)^T + v_s (k_s/G_s)^T

    so the u solve a unit lower triangular system (the WY form of Yang et al. 2024, arXiv 2406.06484 §3, with a decay
    per channel), and the state after the chunk is affine in S_0. Substitution solves it: with a steady input the
    inverse is small, but the powers that a product form of it would add up are not.

    Args:
        r, k, a, b: [b, t, h, n].
        log_w: [b, t, h, n], log of the decay, ≤ 0 and small enough (see `CHUNK`).
        v: [b, t, h, p].
        state: [b, h, p, n] before the first step.
        chunk: block length; t need not be a multiple.

    Returns:
        (y [b, t, h, p], state [b, h, p, n] after the last step).
    """
    steps = r.shape[1]
    chunk = min(chunk, steps)
    r, log_w, k, v, a, b = (_split(x, chunk) for x in (r, log_w, k, v, a, b))  # [b, h, c, l, n or p]
    n, p = r.shape[-1], v.shape[-1]
    G_log = log_w.cumsum(-2)  # [b, h, c, l, n]
    r, a = r * G_log.exp(), a * (G_log - log_w).exp()  # [b, h, c, l, n]: they read S_l and S_{l-1} from their quotients
    bk = torch.cat([b, k], -2)  # [b, h, c, 2l, n]
    quotients = bk * (-G_log).exp().repeat(1, 1, 1, 2, 1)  # [b, h, c, 2l, n]
    reads = torch.cat([a, r], -2) @ quotients.transpose(-1, -2)  # [b, h, c, 2l, 2l]
    (ab, ak), (rb, rk) = (rows.chunk(2, -1) for rows in reads.chunk(2, -2))  # [b, h, c, l, s] each
    ab, ak, rb, rk = ab.tril(-1), ak.tril(-1), rb.tril(), rk.tril()

    # u = (I − ab)^{-1} (a S_0^T + ak v) = W S_0^T + U
    WU = torch.linalg.solve_triangular(-ab, torch.cat([a, ak @ v], -1), upper=False, unitriangular=True)

    # The state after a chunk, transposed: M S_0^T + C
    G_end = G_log[..., -1:, :]  # [b, h, c, 1, n]
    b_end, k_end = (bk * (G_end - G_log).exp().repeat(1, 1, 1, 2, 1)).transpose(-1, -2).chunk(2, -1)  # [b, h, c, n, l]
    M, C = (b_end @ WU).split([n, p], -1)  # [b, h, c, n, n] [b, h, c, n, p]
    M, C = M + torch.diag_embed(G_end[..., 0, :].exp()), C + k_end @ v
    S = state.transpose(-1, -2).flatten(0, 1)  # [b·h, n, p]
    starts = []
    for M_c, C_c in zip(M.flatten(0, 1).unbind(1), C.flatten(0, 1).unbind(1), strict=True):
        starts.append(S)
        S = torch.baddbmm(C_c, M_c, S)

    W, U = WU.split([n, p], -1)  # [b, h, c, l, n] [b, h, c, l, p]
    y = (r + rb @ W) @ torch.stack(starts, 1).reshape(C.shape) + rb @ U + rk @ v  # [b, h, c, l, p]
    return y.flatten(2, 3)[:, :, :steps].transpose(1, 2), S.transpose(-1, -2).reshape(state.shape)


def delta_sequential(
    r: Tensor, log_w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """The same recurrence, one step after another; arguments and results as `delta_chunked`."""
    ys = []
    for t in range(r.shape[1]):
        y, state = delta_step(r[:, t], log_w[:, t], k[:, t], v[:, t], a[:, t], b[:, t], state)
        ys.append(y)
    return torch.stack(ys, 1), state


def delta_step(
    r: Tensor, log_w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """One step: r, log_w, k, a, b [b, h, n], v [b, h, p], state [b, h, p, n] → (y [b, h, p], next state)."""
    removed = (state @ a[..., None]) * b[..., None, :]  # [b, h, p, n]
    state = state * log_w.exp()[..., None, :] + removed + v[..., None] * k[..., None, :]  # [b, h, p, n]
    return (state @ r[..., None])[..., 0], state


def _split(x: Tensor, chunk: int) -> Tensor:
    """[b, t, h, n] → [b, h, c, l, n]; zeros at the end leave the state as it is: w = 1, nothing removed or added."""
    x = F.pad(x, (0, 0, 0, 0, 0, -x.shape[1] % chunk))
    return x.reshape(len(x), -1, chunk, *x.shape[2:]).permute(0, 3, 1, 2, 4)
