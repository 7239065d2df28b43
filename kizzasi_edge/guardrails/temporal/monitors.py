"""Online monitors: each formula's verdict after each period, in O(1) amortised time and constant memory.

The verdict is that of the formula at the first period, over all traces that extend the prefix seen so far, by strong
Kleene logic: VIOLATED and SATISFIED are final; PENDING says that some subformula still has to be decided.
(Bauer, Leucker, Schallhart: Runtime verification for LTL and TLTL, 2011, with the formula's operators judged one by
one: a contradiction such as ``eventually (p and not p)`` is found at its deadline, not before.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.temporal.clauses import clauses
from kizzasi_edge.guardrails.temporal.engine import Engine
from kizzasi_edge.guardrails.temporal.syntax import (
    FUTURE,
    MAX_PERIODS,
    Formula,
    Unary,
    Until,
    Verdict3,
    atoms_of,
    children,
    has_future,
    horizon,
    walk,
)


class Monitor:
    """A running formula.

    ``update(values)`` takes one period's atoms in the order of ``atoms`` (1 or True holds, 0 or False fails, -1
    invalid) and gives the verdict. Once it is not PENDING it stays; ``reset()`` starts a new trace.
    """

    __slots__ = ("_remaining", "_reset", "atoms", "period_s", "update")

    def __init__(self, formula: Formula, rate_hz: float, atoms: Sequence[str] | None = None) -> None:
        """``atoms``: the order of the values (default: that of first appearance).

        Raises :class:`GuardrailError` for an atom that is not listed, an unbounded future operator inside another
        temporal operator, a future operator inside a past one, or intervals too long to watch.
        """
        self.atoms = atoms_of(formula) if atoms is None else tuple(atoms)
        for name in atoms_of(formula):
            if name not in self.atoms:
                raise GuardrailError(f"formula: found the atom {name!r}; expected one of {list(self.atoms)}")
        check(formula)
        self.period_s = 1.0 / rate_hz
        self.update: Callable[[Sequence[int]], Verdict3]
        step, self._remaining, self._reset = clauses(formula, self.atoms) or Engine(formula, self.atoms).steps()
        self.update = step

    @property
    def remaining(self) -> float:
        """Seconds until the oldest pending instant is decided at the latest; inf when none has a deadline."""
        return self._remaining() * self.period_s

    def reset(self) -> None:
        self._reset()


def check(formula: Formula) -> None:
    """Refuse what cannot be monitored in bounded memory. Raises :class:`GuardrailError` with the way out."""
    for node in walk(formula):
        if not isinstance(node, Unary | Until):
            continue
        for child in children(node):
            if node.op not in FUTURE and has_future(child):
                raise GuardrailError(
                    f"formula: found a future operator inside {_WORD[node.op]!r}; expected present and past ones there"
                )
            ahead = horizon(child)
            if ahead is None:
                raise GuardrailError(
                    f"formula: found an unbounded future operator inside {_WORD[node.op]!r}; "
                    "expected an interval [a, b] there"
                )
            if ahead + max(node.lo, node.hi or 0) > MAX_PERIODS:
                raise GuardrailError(
                    f"formula: its intervals add up to {ahead + max(node.lo, node.hi or 0)} periods; "
                    f"expected at most {MAX_PERIODS}"
                )


_WORD = {
    "G": "always", "F": "eventually", "X": "next", "U": "until", "O": "once", "H": "historically", "Y": "previous",
    "S": "since",
}  # fmt: skip
