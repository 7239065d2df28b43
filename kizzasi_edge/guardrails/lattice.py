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

FLOAT32_SMALLEST = -126
"""Exponent of the smallest normal float32."""


@dataclass(frozen=True, slots=True)
class JointLimits:
    """Limits of one joint after margins, in SI units (rad, rad/s, rad/s², rad/s³, N·m; m, N for prismatic joints).

    Infinite: no such limit; a position guard has range, velocity and acceleration of every joint.
    ``origin`` names, for each kind, the constraint or section it comes from, for verdicts and messages.
    """

    name: str
    lower: float
    upper: float
    velocity: float
    acceleration: float
    origin: dict[str, str]
    quantum: float | None = None
    jerk: float = math.inf
    effort: float = math.inf


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
    return math.ldexp(1.0, max(math.ceil(math.log2(max(abs(lower), abs(upper)))) - 24, FLOAT32_SMALLEST))


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
        raise _refusal(limits, "position", f"no position left in [{limits.lower:g}, {limits.upper:g}] at {quantum:g}")
    # Commands travel as float32: each must come back as the same number of quanta, or it is not the guarded value.
    most = 1 << (24 if math.frexp(quantum)[0] == 0.5 else 23)
    if (reach := max(abs(lo), abs(hi))) > most:
        least = Fraction(max(abs(limits.lower), abs(limits.upper))) / (1 << 23)  # what is named is no power of two
        text = f"too fine for positions in float32 up to {float(q * reach):g}; at least {_up(least)}"
        raise _refusal(limits, "quantum", f"found {quantum:g}; {text}")
    if w < 1:
        text = f"found {limits.velocity:g} (after velocity_scale), below one quantum of {quantum:g} per period"
        raise _refusal(limits, "velocity", f"{text}; at least {_up(q * rate)}")
    if h < 1:
        text = f"found {limits.acceleration:g}, below one quantum of {quantum:g} per period² at {rate_hz:g} Hz"
        raise _refusal(limits, "acceleration", f"{text}; at least {_up(q * rate**2)}")
    # A change of step above 2w never happens: keeping h there keeps every intermediate of kz_guard in range.
    lost = float(1 - Fraction(h) / h_exact)
    return LatticeLimits(limits.name, quantum, lo, hi, min(w, RAW_MAX), min(h, 2 * w, RAW_MAX), lost)


def to_velocity_lattice(limits: JointLimits, rate_hz: float) -> LatticeLimits:
    """The lattice of velocity commands: ``quantum`` is one of velocity, and positions count what it makes in a period.

    So ``lo ≤ q ≤ hi`` bounds measured positions, ``w`` the velocity sent and ``h`` its change. A joint without a range
    is bounded where the count ends. Raises :class:`GuardrailError` as :func:`to_lattice` does.
    """
    bounded = math.isfinite(limits.lower) and math.isfinite(limits.upper)
    reach = max(abs(limits.lower), abs(limits.upper)) * rate_hz if bounded else 0.0
    fine = max(math.ceil(math.log2(limits.velocity)) - 24, FLOAT32_SMALLEST)
    quantum = limits.quantum or math.ldexp(1.0, max(fine, math.ceil(math.log2(reach)) - 29 if reach else fine))
    q, rate = Fraction(quantum), Fraction(rate_hz)
    lo = math.ceil(Fraction(limits.lower) * rate / q) if bounded else -RAW_MAX
    hi = math.floor(Fraction(limits.upper) * rate / q) if bounded else RAW_MAX
    w, h_exact = math.floor(Fraction(limits.velocity) / q), Fraction(limits.acceleration) / rate / q
    h = math.floor(h_exact)
    if lo > hi:
        raise _refusal(limits, "position", f"no position left in [{limits.lower:g}, {limits.upper:g}]")
    if bounded and max(abs(lo), abs(hi)) >= RAW_MAX:  # RAW_MAX itself says that there is no range
        least = _up(Fraction(max(abs(limits.lower), abs(limits.upper))) * rate / (RAW_MAX - 1))
        raise _refusal(limits, "quantum", f"found {quantum:g} per second; too fine for this range; at least {least}")
    if not 1 <= w <= (1 << 24):
        raise _refusal(limits, "velocity", f"found {limits.velocity:g}; expected 1 to 2^24 quanta of {quantum:g}")
    if h < 1:
        text = f"found {limits.acceleration:g}, below one quantum of {quantum:g} per period at {rate_hz:g} Hz"
        raise _refusal(limits, "acceleration", f"{text}; at least {_up(q * rate)}")
    return LatticeLimits(limits.name, quantum, lo, hi, w, min(h, 2 * w), float(1 - Fraction(h) / h_exact))


def jerk_quanta(limits: JointLimits, quantum: float, rate_hz: float, periods: int) -> int:
    """The jerk limit as quanta per period³ of positions (``periods`` 3) or per period² of velocities (2); 0: none.

    Raises :class:`GuardrailError` where it is below one, with the least that works.
    """
    if math.isinf(limits.jerk):
        return 0
    one = Fraction(quantum) * Fraction(rate_hz) ** periods
    jerk = math.floor(Fraction(limits.jerk) / one)
    if jerk < 1:
        raise _refusal(limits, "jerk", f"found {limits.jerk:g}, below one quantum of {quantum:g}; at least {_up(one)}")
    return min(jerk, RAW_MAX)


def _refusal(limits: JointLimits, kind: str, text: str) -> GuardrailError:
    origin = limits.origin.get(kind, kind)
    place = f"[joints] {kind}" if origin == kind else f"[constraint] {origin!r}"
    return GuardrailError(f"{place}: joint {limits.name!r}: {text}")


def _up(value: Fraction) -> str:
    """Six digits, rounded up: what is asked for must work."""
    unit = Fraction(10) ** (math.floor(math.log10(value)) - 5)
    text = f"{float(math.ceil(value / unit) * unit):.6g}"
    return text if Fraction(float(text)) >= value else f"{float((math.ceil(value / unit) + 1) * unit):.6g}"
