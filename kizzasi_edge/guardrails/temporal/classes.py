"""How far a formula can be enforced: every formula is of one class, and each class says what it promises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.temporal.atoms import Comparison
from kizzasi_edge.guardrails.temporal.linear import STRICT_MARGIN, LinearBound, NotLinear, bounds_of
from kizzasi_edge.guardrails.temporal.monitors import check
from kizzasi_edge.guardrails.temporal.shapes import conjuncts, response
from kizzasi_edge.guardrails.temporal.syntax import Atom, Binary, Formula, Not, Unary, Until, has_future, walk

Mode = Literal["enforce", "monitor"]


@dataclass(frozen=True, slots=True, eq=False)
class CommandRows:
    """``always φ``, φ a conjunction of linear atoms on the command: rows of the projection, all of them, every tick."""

    rows: tuple[LinearBound, ...]

    def explain(self) -> str:
        return (
            f"enforced: {_rows(self.rows)} on every command that is sent "
            f"(a strict < with a margin of {STRICT_MARGIN:g}·max(1, |b|))"
        )


@dataclass(frozen=True, slots=True, eq=False)
class StateRows:
    """``always φ``, φ a conjunction of linear atoms on position or velocity: rows that must stay viable."""

    rows: tuple[LinearBound, ...]

    def explain(self) -> str:
        return (
            f"enforced under the stated dynamics: {_rows(self.rows)} on every position and velocity commanded, and on "
            "all that braking from there can reach; the plant is assumed to follow within the declared margins"
        )


@dataclass(frozen=True, slots=True)
class Deadline:
    """``always (trigger -> eventually [0, bound_s] goal)``: the fallback takes over while the goal is in reach."""

    trigger: Formula
    goal: Formula
    bound_s: float

    def explain(self) -> str:
        return (
            f"enforced given a bound on the time to the goal: within {self.bound_s:g} s of each trigger the goal "
            "holds; the fallback takes over when the time left is the time it needs plus a margin"
        )


@dataclass(frozen=True, slots=True, eq=False)
class UntilRows:
    """``φ until [0, bound_s] goal``: rows while the goal has not held, and a deadline for the goal."""

    rows: tuple[LinearBound, ...]
    goal: Formula
    bound_s: float

    def explain(self) -> str:
        return (
            f"enforced: {_rows(self.rows)} until the goal holds, and, given a bound on the time to it, "
            f"the goal within {self.bound_s:g} s of the start"
        )


@dataclass(frozen=True, slots=True)
class Monitored:
    """Watched and reported, never enforced."""

    reason: str

    def explain(self) -> str:
        return f"monitored only: {self.reason}"


Class = CommandRows | StateRows | Deadline | UntilRows | Monitored


def classify(
    formula: Formula,
    atoms: Mapping[str, Comparison],
    joints: int,
    rate_hz: float,
    mode: Mode = "enforce",
    where: str = "formula",
) -> Class:
    """The class of ``formula``; ``joints``: how many there are.

    Raises :class:`GuardrailError` for a name that is no atom, a formula that cannot be monitored, and one that is
    :class:`Monitored` where ``mode`` is ``enforce``, with the reason.
    """
    for node in walk(formula):
        if isinstance(node, Atom) and node.name not in atoms:
            raise GuardrailError(f"{where}: found the name {node.name!r}; expected an atom, one of {sorted(atoms)}")
    check(formula)
    found = _classify(formula, atoms, joints, rate_hz)
    if mode == "enforce" and isinstance(found, Monitored):
        raise GuardrailError(f'{where}: mode: found "enforce"; expected "monitor", because {found.reason}')
    return found


def _classify(formula: Formula, atoms: Mapping[str, Comparison], joints: int, rate_hz: float) -> Class:
    answer = response(formula)
    if answer is not None and answer.op == "F" and answer.lo == 0:
        return Deadline(answer.trigger, answer.goal, answer.bound / rate_hz)
    try:
        if isinstance(formula, Until) and formula.op == "U":
            if formula.lo or formula.hi is None or has_future(formula.right):
                return Monitored("an until is enforced with an interval [0, D] and a goal of the present only")
            return UntilRows(_all_rows(formula.left, atoms, joints), formula.right, formula.hi / rate_hz)
        rows: list[LinearBound] = []
        for part in conjuncts(formula):
            if not isinstance(part, Unary) or (part.op, part.lo, part.hi) != ("G", 0, None):
                return Monitored(
                    "it is none of always φ, always (p -> eventually [0, D] q), φ until [0, D] q with φ a conjunction "
                    "of linear atoms"
                )
            rows += _all_rows(part.arg, atoms, joints)
    except NotLinear as error:
        return Monitored(str(error))
    kinds = {row.on for row in rows}
    if kinds == {"command"}:
        return CommandRows(tuple(rows))
    if "command" in kinds:
        return Monitored("it joins rows on the command and on the state; write one rule for each")
    return StateRows(tuple(rows))


def _all_rows(formula: Formula, atoms: Mapping[str, Comparison], joints: int) -> tuple[LinearBound, ...]:
    """The rows of a conjunction of atoms and negated atoms."""
    match formula:
        case Atom(name):
            return bounds_of(atoms[name], joints)
        case Not(Atom(name)):
            return bounds_of(atoms[name], joints, negated=True)
        case Not(Not(arg)):
            return _all_rows(arg, atoms, joints)
    parts = conjuncts(formula)
    if len(parts) == 1:
        word = formula.op if isinstance(formula, Unary | Until | Binary) else type(formula).__name__.lower()
        raise NotLinear(f"{word!r} inside it is not a conjunction of atoms")
    return tuple(row for part in parts for row in _all_rows(part, atoms, joints))


def _rows(rows: tuple[LinearBound, ...]) -> str:
    names = ", ".join(dict.fromkeys(row.name for row in rows))
    return f"{names} ({len(rows)} linear row{'s' * (len(rows) > 1)})"
