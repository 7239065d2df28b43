"""The attention-free recurrence of RWKV-4: parallel (an associative scan) and sequential (the oracle).

Per channel, with decay w < 0, bonus u, keys k and values v (Peng et al. 2023, eq. 16; RWKV-4's time_decay is log(-w)):

    y_t = (Σ_{i<t} e^{(t-1-i)w + k_i} v_i + e^{u + k_t} v_t) / (Σ_{i<t} e^{(t-1-i)w + k_i} + e^{u + k_t})

The state is that of the paper's numerically safe form (appendix): numerator aa·e^pp and denominator bb·e^pp of the
past, each [B, C].
"""

from __future__ import annotations

import torch
from torch import Tensor

NEVER = -1e38
"""pp before the first step: the log-weight of nothing, finite so that sums and gradients stay finite."""

WKV4State = tuple[Tensor, Tensor, Tensor]
"""aa, bb, pp."""


def wkv4_step(k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: WKV4State) -> tuple[Tensor, WKV4State]:
    """One step: k, v [B, C], w, u [C] → (y [B, C], next state). The paper's safe form, with every exponent ≤ 0."""
    aa, bb, pp = state
    top = torch.maximum(pp, u + k)  # [B, C]
    past, now = torch.exp(pp - top), torch.exp(u + k - top)  # [B, C] [B, C]
    y = (past * aa + now * v) / (past * bb + now)  # [B, C]
    top = torch.maximum(pp + w, k)  # [B, C]
    past, now = torch.exp(pp + w - top), torch.exp(k - top)  # [B, C] [B, C]
    return y, (past * aa + now * v, past * bb + now, top)


def wkv4_sequential(k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: WKV4State) -> tuple[Tensor, WKV4State]:
    """`wkv4_step` again and again: k, v [B, T, C] → (y [B, T, C], state after it)."""
    ys = []
    for i in range(k.shape[1]):
        y, state = wkv4_step(k[:, i], v[:, i], w, u, state)
        ys.append(y)
    return torch.stack(ys, 1), state


def wkv4_parallel(k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: WKV4State) -> tuple[Tensor, WKV4State]:
    """The same in O(T) work and O(log T) depth: k, v [B, T, C], w, u [C] → (y [B, T, C], state after it).

    A stretch of time is summed up by the mean of its values and the log of their total weight, both as seen from its
    last step. Nothing can overflow: means are averages, weights stay logarithms.
    """
    steps = k.shape[1]
    aa, bb, pp = state
    bb = bb.clamp_min(torch.finfo(bb.dtype).tiny)  # 0 before the first step, where pp says that it weighs nothing
    means = torch.cat([(aa / bb)[:, None], v], 1)  # [B, T+1, C]
    weights = torch.cat([(pp + bb.log())[:, None], k], 1)  # [B, T+1, C]
    means, weights = _prefixes(means, weights, w)
    y, _ = _join(means[:, :-1], weights[:, :-1], v, u + k)  # [B, T, C]
    ages = torch.arange(steps - 1, -1, -1, device=w.device)[:, None] * w  # [T, C]
    top = torch.maximum(pp + steps * w, (ages + k).amax(1))  # [B, C], the sequential form's pp
    scale = torch.exp(weights[:, -1] - top)  # [B, C]
    return y, (means[:, -1] * scale, scale, top)


def _join(mean: Tensor, weight: Tensor, later_mean: Tensor, later_weight: Tensor) -> tuple[Tensor, Tensor]:
    """Two stretches → (mean, log-weight) of both; all of one shape."""
    return torch.lerp(mean, later_mean, torch.sigmoid(later_weight - weight)), torch.logaddexp(weight, later_weight)


def _prefixes(means: Tensor, weights: Tensor, decay: Tensor) -> tuple[Tensor, Tensor]:
    """Stretches [B, T, C], each as long as `decay` [C] says → what they add up to, from the first to each (Blelloch).

    The first may be of any length: nothing comes before it.
    """
    length = means.shape[1]
    if length == 1:
        return means, weights
    pairs = _join(means[:, : length - 1 : 2], weights[:, : length - 1 : 2] + decay, means[:, 1::2], weights[:, 1::2])
    ends = _prefixes(*pairs, 2 * decay)  # what stands at 1, 3, 5 …
    inner = (length - 1) // 2
    between = _join(ends[0][:, :inner], ends[1][:, :inner] + decay, means[:, 2::2], weights[:, 2::2])  # at 2, 4, 6 …
    return _interleave(means[:, :1], between[0], ends[0]), _interleave(weights[:, :1], between[1], ends[1])


def _interleave(first: Tensor, even: Tensor, odd: Tensor) -> Tensor:
    """first [B, 1, C], even and odd [B, .., C] → first, odd 0, even 0, odd 1, … [B, T, C]."""
    even = torch.cat([first, even], 1)
    pairs = torch.stack([even[:, : odd.shape[1]], odd], 2).flatten(1, 2)
    return torch.cat([pairs, even[:, odd.shape[1] :]], 1)
