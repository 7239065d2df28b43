"""What the parsers of formulas and of atoms share: tokens one after the other, bounds, errors with a caret."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn

from kizzasi_edge.errors import GuardrailError

MAX_LENGTH = 4096
"""Characters in a formula or an atom."""
MAX_DEPTH = 48
"""Operators and parentheses inside one another."""


@dataclass(frozen=True, slots=True)
class Token:
    """``kind``: ``number``, ``word``, ``end``, or what the grammar calls the word or symbol; ``at`` counts characters
    from 0."""

    kind: str
    text: str
    at: int


def refuse(text: str, at: int, found: str, expected: str, where: str) -> NoReturn:
    """Raise :class:`GuardrailError` with a caret under character ``at`` of ``text`` (an excerpt when it is long)."""
    at = min(at, len(text))
    start = max(0, at - 60)
    excerpt = "".join(c if c.isprintable() else " " for c in text[start : start + 100])
    raise GuardrailError(
        f"{where}: column {at + 1}: found {found}; expected {expected}\n  {excerpt}\n  {' ' * (at - start)}^"
    )


class Reader:
    """The tokens of ``text``, read by recursive descent. ``symbols`` is a regular expression; ``words`` and ``aliases``
    give the kinds of words and symbols that have their own (``word``: what any other word is)."""

    def __init__(
        self,
        text: str,
        where: str,
        *,
        symbols: str,
        expected: str,
        words: Mapping[str, str] | None = None,
        word: str = "word",
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        self.text, self.where = text, where
        if len(text) > MAX_LENGTH:
            refuse(text, MAX_LENGTH, f"{len(text)} characters", f"at most {MAX_LENGTH}", where)
        self.tokens = list(self._lex(symbols, expected, words or {}, word, aliases or {}))
        self.i = 0
        self.depth = 0

    def _lex(
        self, symbols: str, expected: str, words: Mapping[str, str], word: str, aliases: Mapping[str, str]
    ) -> Iterator[Token]:
        pattern = re.compile(
            r"[ \t\r\n]*(?:(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?)"
            rf"|(?P<word>[A-Za-z_][A-Za-z0-9_]*)|(?P<symbol>{symbols}))"
        )
        at, text = 0, self.text
        while match := pattern.match(text, at):
            kind = match.lastgroup or ""
            found, start, at = match.group(kind), match.start(kind), match.end()
            if kind == "word":
                kind = words.get(found, word)
            elif kind == "symbol":
                kind = aliases.get(found, found)
            yield Token(kind, found, start)
        rest = text[at:].lstrip(" \t\r\n")
        if rest:
            refuse(text, len(text) - len(rest), repr(rest[0]), expected, self.where)
        yield Token("end", "", len(text))

    def fail(self, expected: str, at: int | None = None) -> NoReturn:
        """Refuse token ``at``, or the one to be read next."""
        token = self.tokens[self.i if at is None else at]
        refuse(self.text, token.at, repr(token.text) if token.text else "the end", expected, self.where)

    def accept(self, *kinds: str) -> Token | None:
        token = self.tokens[self.i]
        if token.kind not in kinds:
            return None
        self.i += 1
        return token

    def expect(self, kind: str, expected: str) -> Token:
        return self.accept(kind) or self.fail(expected)

    def deeper(self, by: int) -> None:
        self.depth += by
        if self.depth > MAX_DEPTH:
            self.fail(f"at most {MAX_DEPTH} operators and parentheses inside one another")
