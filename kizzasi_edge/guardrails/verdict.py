"""What the guard decided about one command."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

RULE_BITS = {
    1: "position",
    2: "velocity",
    4: "acceleration",
    8: "recovery",
    16: "non_finite",
    32: "miss",
    64: "approach",
    128: "coupled",
}
"""Bits of :attr:`Verdict.bits`, as kz_guard.h and guard_glue.h number them."""


class Status(IntEnum):
    """How the sent value relates to the proposed one (DESIGN order: the larger, the stronger)."""

    PASS = 0
    """Sent as proposed, rounded to the lattice (at most half a quantum)."""
    CLAMPED = 1
    """Moved to the nearest admissible value, joint by joint."""
    PROJECTED = 2
    """Projected onto rows that couple joints."""
    RETRACTED = 3
    """Pulled toward the brake command, because the projection could not be admitted."""
    BRAKE = 4
    """No usable proposal: braking at the acceleration limit."""
    HOLD = 5
    """No usable proposal: repeating the last step, or at rest."""
    ESTOP = 6
    """Latched: braking or at rest until :meth:`Guardrails.clear`."""


@dataclass(slots=True)
class Verdict:
    """The guard's decision about one command.

    ``status``: see :class:`Status`. ``intervention``: Euclidean norm of (sent − proposed) in SI units; 0 on PASS,
    infinite when there was no finite proposal. ``bits``: one byte of :data:`RULE_BITS` per joint.
    ``names``: for each joint, the rule names behind those bits (a declared constraint's own name where it is the
    tightest). ``coupled``: names of the rules that couple joints; ``shaped`` and ``relaxed``: a bit for each of them,
    that moved this command, or that was soft and given up for it. ``stamp_ns``: receive time of the oldest input used,
    as given to ``step``.
    """

    status: Status
    intervention: float
    bits: bytes
    joints: tuple[str, ...]
    names: tuple[dict[int, str], ...]
    stamp_ns: int
    coupled: tuple[str, ...] = ()
    shaped: int = 0
    relaxed: int = 0

    @property
    def rules(self) -> tuple[str, ...]:
        """Names of the rules that shaped this command, each once: joints' own in their order, then coupled ones."""
        found: dict[str, None] = {}
        for bits, names in zip(self.bits, self.names, strict=True):
            if bits:
                found.update((name, None) for bit, name in names.items() if bits & bit)
        found.update((name, None) for name in self._of(self.shaped))
        return tuple(found)

    @property
    def given_up(self) -> tuple[str, ...]:
        """Names of the soft rules that were relaxed for this command, each once."""
        return tuple(dict.fromkeys(self._of(self.relaxed)))

    def _of(self, mask: int) -> list[str]:
        return [name for i, name in enumerate(self.coupled) if mask >> i & 1] if mask else []

    @property
    def by_joint(self) -> dict[str, tuple[str, ...]]:
        """The same, for each joint that was touched."""
        return {
            joint: tuple(name for bit, name in names.items() if bits & bit)
            for joint, bits, names in zip(self.joints, self.bits, self.names, strict=True)
            if bits
        }
