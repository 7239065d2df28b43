"""Temporal formulas: lexer, parser, abstract syntax.

Loosest to tightest: ``<->`` (left), ``->`` (right), ``or ||``, ``and &&``, ``until U since S`` (right), and the prefix
operators ``not ! always G eventually F next X once O historically H previous Y``, which bind tightest. An interval
``[a, b]`` in seconds follows a temporal operator (not X, Y); ``b`` may be ``inf``. Without one: ``[0, inf]``.
Intervals are kept in periods; nothing after the parser knows seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from fractions import Fraction

from kizzasi_edge.guardrails.temporal.reader import Reader, refuse

MAX_PERIODS = 1_000_000
"""The longest interval, in command periods."""
ROUNDING = Fraction(1, 1_000_000)
"""An interval end may miss a multiple of the period by this much of a period: 0.3333333 s at 30 Hz is 10 periods."""


@dataclass(frozen=True, slots=True)
class Atom:
    """A named proposition."""

    name: str


@dataclass(frozen=True, slots=True)
class Const:
    """``true`` or ``false``."""

    value: bool


@dataclass(frozen=True, slots=True)
class Not:
    arg: Formula


@dataclass(frozen=True, slots=True)
class Binary:
    """``op``: ``and``, ``or``, ``->``, ``<->``."""

    op: str
    left: Formula
    right: Formula


@dataclass(frozen=True, slots=True)
class Unary:
    """``op``: ``G F O H`` over [``lo``, ``hi``] in periods (``hi`` None: unbounded); ``X``, ``Y``: [1, 1]."""

    op: str
    lo: int
    hi: int | None
    arg: Formula


@dataclass(frozen=True, slots=True)
class Until:
    """``op``: ``U`` or ``S``: ``left`` holds up to (since) a period within [``lo``, ``hi``] where ``right`` holds."""

    op: str
    lo: int
    hi: int | None
    left: Formula
    right: Formula


Formula = Atom | Const | Not | Binary | Unary | Until

FUTURE = frozenset("GFXU")


class Verdict3(IntEnum):
    """What is known of a formula after a prefix of a trace, over all traces that go on from there."""

    VIOLATED = -1
    PENDING = 0
    SATISFIED = 1


_WORDS = {
    "not": "!", "and": "and", "or": "or", "always": "G", "eventually": "F", "next": "X", "once": "O",
    "historically": "H", "previous": "Y", "until": "U", "since": "S", "true": "true", "false": "false", "inf": "inf",
    **{letter: letter for letter in "GFXOHYUS"},
}  # fmt: skip
RESERVED = frozenset(_WORDS)
"""Words that cannot name an atom."""
_SYMBOLS = {"&&": "and", "||": "or", "&": "and", "|": "or"}
_PREFIX = frozenset("!GFXOHY")
_OPERATORS = r"<->|->|&&|\|\||[!&|()\[\],]"
_LEVELS = (("<->",), ("->",), ("or",), ("and",), ("U", "S"))
_RIGHT = frozenset(("->", "U", "S"))


def parse(text: str, rate_hz: float, where: str = "formula") -> Formula:
    """The formula ``text``; its intervals are converted exactly to periods of 1/``rate_hz`` seconds.

    Raises :class:`GuardrailError` naming ``where``, the column, what was found there and what was expected.
    """
    return _Parser(text, rate_hz, where).parse()


def atoms_of(formula: Formula) -> tuple[str, ...]:
    """The atoms' names, in order of first appearance."""
    return tuple(dict.fromkeys(node.name for node in walk(formula) if isinstance(node, Atom)))


def children(formula: Formula) -> tuple[Formula, ...]:
    match formula:
        case Not(arg) | Unary(_, _, _, arg):
            return (arg,)
        case Binary(_, left, right) | Until(_, _, _, left, right):
            return (left, right)
    return ()


def walk(formula: Formula) -> Iterator[Formula]:
    """``formula`` and everything in it, depth first, left to right."""
    yield formula
    for child in children(formula):
        yield from walk(child)


def has_future(formula: Formula) -> bool:
    """Whether the formula looks ahead, so that its value may not be known in its own period."""
    return any(isinstance(node, Unary | Until) and node.op in FUTURE for node in walk(formula))


def horizon(formula: Formula) -> int | None:
    """Periods after its own by which the formula's value is known at the latest; None: it may never be."""
    ahead = [horizon(child) for child in children(formula)]
    if any(h is None for h in ahead):
        return None
    most = max((h for h in ahead if h is not None), default=0)
    if isinstance(formula, Unary | Until) and formula.op in FUTURE:
        return None if formula.hi is None else formula.hi + most
    return most


class _Parser(Reader):
    def __init__(self, text: str, rate_hz: float, where: str) -> None:
        super().__init__(
            text,
            where,
            symbols=_OPERATORS,
            expected="an operator, an atom's name, a number or a parenthesis",
            words=_WORDS,
            word="atom",
            aliases=_SYMBOLS,
        )
        self.rate = Fraction(rate_hz)

    def parse(self) -> Formula:
        formula = self.binary(0)
        self.expect("end", "an operator or the end of the formula")
        return formula

    def binary(self, level: int) -> Formula:
        if level == len(_LEVELS):
            return self.prefix()
        left = self.binary(level + 1)
        entered = 0
        while token := self.accept(*_LEVELS[level]):
            entered += 1
            self.deeper(1)
            lo, hi = self.interval() if token.kind in "US" else (0, None)
            right = self.binary(level if token.kind in _RIGHT else level + 1)
            left = Until(token.kind, lo, hi, left, right) if token.kind in "US" else Binary(token.kind, left, right)
        self.deeper(-entered)
        return left

    def prefix(self) -> Formula:
        self.deeper(1)
        if token := self.accept(*_PREFIX):
            if token.kind == "!":
                formula: Formula = Not(self.prefix())
            elif token.kind in "XY":
                formula = Unary(token.kind, 1, 1, self.prefix())
            else:
                lo, hi = self.interval()
                formula = Unary(token.kind, lo, hi, self.prefix())
        elif self.accept("("):
            formula = self.binary(0)
            self.expect(")", "an operator or ')'")
        elif token := self.accept("true", "false"):
            formula = Const(token.kind == "true")
        elif token := self.accept("atom"):
            formula = Atom(token.text)
        else:
            self.fail("an atom's name, a prefix operator, true, false or '('")
        self.deeper(-1)
        return formula

    def interval(self) -> tuple[int, int | None]:
        if not self.accept("["):
            return 0, None
        start = self.tokens[self.i]
        lo = self.periods()
        self.expect(",", "',' between the ends of the interval")
        if self.accept("inf"):
            hi = None
        else:
            hi = self.periods()
            if hi < lo:
                refuse(
                    self.text, start.at, f"[{start.text}, …] that ends before it starts", "[a, b], a ≤ b", self.where
                )
        self.expect("]", "']'")
        return lo, hi

    def periods(self) -> int:
        token = self.expect("number", "a number of seconds")
        exact = Fraction(token.text) * self.rate
        if exact > MAX_PERIODS:
            refuse(self.text, token.at, token.text, f"at most {MAX_PERIODS} periods of {self.period():g} s", self.where)
        whole = round(exact)
        if abs(exact - whole) > ROUNDING:
            refuse(
                self.text,
                token.at,
                token.text,
                f"a multiple of the period, {self.period():g} s; the nearest is {whole * self.period():.9g}",
                self.where,
            )
        return whole

    def period(self) -> float:
        return float(1 / self.rate)
