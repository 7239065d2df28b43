"""HiPPO-LegS: normal plus rank one, really the online Legendre projection, and the frequencies that S4D copies."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.polynomial import Legendre
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from scipy.linalg import expm

from kizzasi_export.models.hippo import legs, legs_dplr, legs_low_rank, s4d_inv, s4d_legs, s4d_lin

Array = NDArray[np.float64]


def polynomial(n: int, at: Array) -> Array:
    """√(2n+1)·P_n, orthonormal on [-1, 1] under the uniform probability."""
    return np.sqrt(2 * n + 1) * Legendre.basis(n)(at)


@pytest.mark.parametrize("n", [2, 8, 16, 64])
def test_diagonal_plus_rank_one_is_the_hippo_matrix(n: int) -> None:
    A, B = legs(n)
    found = legs_dplr(n)
    V = np.concatenate([found.V, found.V.conj()], 1)  # [n, n]
    Lambda = np.concatenate([found.Lambda, found.Lambda.conj()])
    P = np.concatenate([found.P, found.P.conj()])
    np.testing.assert_allclose(V.conj().T @ V, np.eye(n), atol=1e-12)
    rebuilt = V @ (np.diag(Lambda) - np.outer(P, P.conj())) @ V.conj().T
    np.testing.assert_allclose(rebuilt, A, atol=1e-12 * n * np.abs(A).max())
    np.testing.assert_allclose(V @ np.concatenate([found.B, found.B.conj()]), B, atol=1e-11)
    assert (found.Lambda.imag < 0).all()
    assert np.array_equal(found.Lambda.real, np.full(n // 2, -0.5))


@pytest.mark.parametrize("n", [2, 8, 33])
def test_rank_one_makes_it_normal(n: int) -> None:
    A, B = legs(n)
    P = legs_low_rank(n)
    normal = A + np.outer(P, P)
    np.testing.assert_allclose(normal @ normal.T, normal.T @ normal, atol=1e-9 * n**3)
    assert np.abs(A @ A.T - A.T @ A).max() > 0.5  # it was not
    np.testing.assert_allclose(B, np.sqrt(2) * P)


def test_the_state_is_the_legendre_projection_of_the_whole_past() -> None:
    """d/dt x = (A x + B f) / t (HiPPO, theorem 2) keeps f's coefficients over [0, t], and gives the signal back."""
    n, end = 24, 3.0
    A, B = legs(n)

    def signal(t: Array) -> Array:
        return np.sin(3 * t) + 0.5 * np.cos(7 * t + 1) - 0.2 * t

    # In log time the system does not depend on time; at 1e-6 s the signal has been constant so far.
    x0 = np.zeros(n)
    x0[0] = signal(np.array(1e-6))
    run = solve_ivp(
        lambda tau, x: A @ x + B * signal(np.exp(tau)),
        (np.log(1e-6), np.log(end)),
        x0,
        method="LSODA",
        rtol=1e-9,
        atol=1e-10,
    )
    x = run.y[:, -1]
    nodes, weights = np.polynomial.legendre.leggauss(200)  # on [-1, 1]
    past = (nodes + 1) / 2 * end
    expected = [(weights / 2 * signal(past) * polynomial(k, nodes)).sum() for k in range(n)]
    np.testing.assert_allclose(x, expected, atol=1e-6)
    rebuilt = sum(x[k] * polynomial(k, nodes) for k in range(n))
    assert np.abs(rebuilt - signal(past)).max() < 1e-5


def test_impulse_response_is_the_warped_legendre_basis() -> None:
    """e^{tA} B: what S4, which drops the 1/t, remembers with: exponentially warped Legendre polynomials."""
    A, B = legs(8)
    for t in (0.0, 0.1, 0.7, 2.5):
        z = np.exp(-t)
        expected = [z * polynomial(k, np.array(2 * z - 1)) for k in range(8)]
        np.testing.assert_allclose(expm(t * A) @ B, expected, atol=1e-9)


def test_s4d_starts() -> None:
    np.testing.assert_allclose(s4d_lin(6), -0.5 + 1j * np.pi * np.array([0, 1, 2]))
    exact, inverse = s4d_legs(64), s4d_inv(64)
    assert (np.diff(exact.imag) > 0).all()
    # S4D-Inv is an asymptotic formula for LegS's own frequencies: the largest agree within some percent.
    assert np.abs(np.sort(inverse.imag)[-3:] / exact.imag[-3:] - 1).max() < 0.08
    assert np.abs(s4d_lin(64).imag[-3:] / exact.imag[-3:] - 1).min() > 0.5  # the comparison can tell another start
