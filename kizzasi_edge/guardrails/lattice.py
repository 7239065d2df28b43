"""From limits in SI units to the integer lattice that is promised (CONTRACT §1).

Everything is rounded inwards in exact rational arithmetic: the lattice limits are never looser than the SI ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from kizzasi_edge.errors import GuardrailError

RAW_MAX = 0x3FFFFFFF
"""``KZ_RAW_MAX`` of kz_guard.h."""


@dataclass(frozen=True, slots=True)
class JointLimits:
    """Limits of one joint after margins, in SI units (rad, rad/s, rad/s²; m for prismatic joints).

    ``origin`` names, for each kind, the constraint or section it comes from, for verdicts and messages.
    """

    name: str
    lower: float
    upper: float
    velocity: float
    acceleration: float
    origin: dict[str, str]
    quantum: float | None = None


@dataclass(frozen=True, slots=True)
class LatticeLimits:
    """Limits of one channel in quanta: ``lo ≤ q ≤ hi``, ``|Δq| ≤ w``, ``|Δ²q| ≤ h`` per command period."""

    name: str
    quantum: float
    lo: int
    hi: int
    w: int
    h: int
    acceleration_lost: float
    """Share of the acceleration limit that rounding h down to whole quanta gives away."""


def default_quantum(lower: float, upper: float) -> float:
    """Q = 2^(⌈log₂ max|q|⌉ − 24): every multiple inside the limits is exactly a float32."""
    return math.ldexp(1.0, math.ceil(math.log2(max(abs(lower), abs(upper)))) - 24)


def to_lattice(limits: JointLimits, rate_hz: float) -> LatticeLimits:
    """Round one joint's limits inwards onto its lattice.

    Raises :class:`GuardrailError` if nothing is left: an empty range, or an acceleration limit below one quantum per
    period² (the message gives the smallest that works).
    """
    quantum = limits.quantum or default_quantum(limits.lower, limits.upper)
    q, rate = Fraction(quantum), Fraction(rate_hz)
    lo, hi = math.ceil(Fraction(limits.lower) / q), math.floor(Fraction(limits.upper) / q)
    w_exact, h_exact = Fraction(limits.velocity) / rate / q, Fraction(limits.acceleration) / rate**2 / q
    w, h = math.floor(w_exact), math.floor(h_exact)
    if lo > hi:
        raise GuardrailError(
            f"joint {limits.name!r}: no position left in [{limits.lower:g}, {limits.upper:g}] at quantum {quantum:g}"
        )
    if max(abs(lo), abs(hi)) > RAW_MAX:
        raise GuardrailError(
            f"joint {limits.name!r}: {max(abs(lo), abs(hi))} quanta of {quantum:g} do not fit; at most {RAW_MAX}"
        )
    if w < 1:
        least = float(q * rate)
        raise GuardrailError(
            f"joint {limits.name!r}: velocity {limits.velocity:g} is below one quantum per period; at least {least:.6g}"
        )
    if h < 1:
        least = float(q * rate**2)
        raise GuardrailError(
            f"joint {limits.name!r}: acceleration {limits.acceleration:g} is below one quantum per period²; "
            f"at {rate_hz:g} Hz and quantum {quantum:g} at least {least:.6g} is needed"
        )
    # A change of step above 2w never happens: keeping h there keeps every intermediate of kz_guard in range.
    lost = float(1 - Fraction(h) / h_exact)
    return LatticeLimits(limits.name, quantum, lo, hi, min(w, RAW_MAX), min(h, 2 * w, RAW_MAX), lost)
