"""HiPPO: the state matrices that S4, S4D and S5 start from.

HiPPO-LegS (Gu et al. 2020, "HiPPO", theorem 2) keeps, in N numbers, the projection of everything heard so far onto the
first N Legendre polynomials stretched over the whole past. S4 (Gu et al. 2022, arXiv 2111.00396) writes its matrix as
normal plus rank one, which a unitary change of basis makes diagonal plus rank one (DPLR); S4D (arXiv 2206.11893) and
S5 (arXiv 2208.04933) keep the diagonal. All in float64: they are computed once.

Conjugate pairs: the eigenvalues come in pairs, and so do all coefficients of a real system; only the N/2 with negative
imaginary part are kept, and a sum over all N is twice the real part of the sum over those.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Real = NDArray[np.float64]
Complex = NDArray[np.complex128]


def legs(n: int) -> tuple[Real, Real]:
    """HiPPO-LegS: A [n, n], B [n] of x' = A x + B u (S4, eq. 2)."""
    root = np.sqrt(2.0 * np.arange(n) + 1)  # [n]
    A = -np.tril(np.outer(root, root), -1) - np.diag(np.arange(n) + 1.0)  # [n, n]
    return A, root


def legs_low_rank(n: int) -> Real:
    """P [n] that makes A + P Pᵀ normal: −1/2 plus a skew-symmetric matrix (S4, theorem 1)."""
    return np.sqrt(np.arange(n) + 0.5)  # type: ignore[no-any-return]


class Dplr(NamedTuple):
    """A = V (diag(Λ) − P P*) V*, half of each conjugate pair: Λ, P = V*P, B = V*B [n/2], V [n, n/2]."""

    Lambda: Complex
    P: Complex
    B: Complex
    V: Complex


def legs_dplr(n: int) -> Dplr:
    """HiPPO-LegS in the basis where it is diagonal plus rank one; n even."""
    A, B = legs(n)
    P = legs_low_rank(n)
    normal = A + np.outer(P, P)
    # A normal matrix −1/2 + S with S skew: −iS is Hermitian, so eigh gives exactly unitary eigenvectors.
    frequency, V = np.linalg.eigh(-1j * (normal + np.eye(n) / 2))  # ascending: the negative half first
    V = V[:, : n // 2]  # [n, n/2]
    return Dplr(-0.5 + 1j * frequency[: n // 2], _complex(V.conj().T @ P), _complex(V.conj().T @ B), V)


def s4d_lin(n: int) -> Complex:
    """S4D-Lin [n/2]: −1/2 + πi·k, the Fourier frequencies (S4D paper)."""
    return _complex(-0.5 + 1j * math.pi * np.arange(n // 2))


def s4d_inv(n: int) -> Complex:
    """S4D-Inv [n/2]: −1/2 + i·n/π·(n/(2k+1) − 1), how LegS's eigenvalues spread (S4D paper)."""
    return _complex(-0.5 + 1j * n / math.pi * (n / (2 * np.arange(n // 2) + 1) - 1))


def s4d_legs(n: int) -> Complex:
    """S4D-LegS [n/2]: the diagonal part of LegS itself, frequencies upwards (S4D paper)."""
    return legs_dplr(n).Lambda.conj()[::-1]


def _complex(array: NDArray[Any]) -> Complex:
    return np.asarray(array, np.complex128)


S4D_INITS = {"lin": s4d_lin, "inv": s4d_inv, "legs": s4d_legs}
