"""Code for formulas that look at the present and the past only: their value is known in their own period.

Such a formula becomes a few lines of Python with its state in closure variables, generated from the parsed tree.
An atom's value is ``v[i]`` in {1 holds, 0 fails, -1 invalid}. An invalid atom (a NaN) fails where the formula wants it
to hold and holds where the formula wants it to fail, so the formula's value is the worst over all that the NaN may
hide: ``positive`` below is that polarity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.temporal.syntax import Atom, Binary, Const, Formula, Not, Unary, Until, Verdict3

Steps = tuple[Callable[[Sequence[int]], Any], Callable[[], float], Callable[[], None]]
VERDICT = (Verdict3.PENDING, Verdict3.SATISFIED, Verdict3.VIOLATED)
"""Verdicts by their number: ``VERDICT[-1]`` is VIOLATED."""

MAX_DELAY = 4_000_000
"""Bytes of delay lines (one per period of an interval that starts in the past) that one formula may take."""


class Code:
    """Lines of one step, run once per period, and the initial values of the state they keep."""

    def __init__(self, atoms: tuple[str, ...]) -> None:
        self.index = {name: i for i, name in enumerate(atoms)}
        self.lines: list[str] = []
        self.state: dict[str, int | bool] = {}
        self.delays: dict[str, int] = {}
        self._names = 0
        self._known: dict[
            tuple[int, bool], tuple[Formula, str]
        ] = {}  # keeps each formula, so that its id stays its own

    def name(self, prefix: str) -> str:
        self._names += 1
        return f"{prefix}{self._names}"

    def keep(self, initial: int | bool) -> str:
        """A new state variable."""
        name = self.name("s")
        self.state[name] = initial
        return name

    def add(self, text: str) -> None:
        self.lines.extend(text.split("\n"))

    def value(self, formula: Formula, positive: bool = True) -> str:
        """An expression for the formula's value in this period; emits the lines that it needs."""
        key = (id(formula), positive)
        if key not in self._known:
            self._known[key] = formula, self._value(formula, positive)
        return self._known[key][1]

    def _value(self, formula: Formula, positive: bool) -> str:
        match formula:
            case Const(value):
                return str(value)
            case Atom(name):
                return f"v[{self.index[name]}] > 0" if positive else f"v[{self.index[name]}] != 0"
            case Not(arg):
                return f"not ({self.value(arg, not positive)})"
            case Binary("->", left, right):
                return f"(not ({self.value(left, not positive)}) or {self.value(right, positive)})"
            case Binary("<->", left, right):
                both = f"({self.value(left, positive)}) and ({self.value(right, positive)})"
                neither = f"({self.value(left, not positive)}) or ({self.value(right, not positive)})"
                x = self.name("x")
                self.add(f"{x} = {both} or not ({neither})")
                return x
            case Binary(op, left, right):
                return f"({self.value(left, positive)} {op} {self.value(right, positive)})"
            case Unary("Y", _, _, arg):
                return self.delayed(self.value(arg, positive), 1)
            case Unary("O", lo, hi, arg):
                return self.once(self.value(arg, positive), lo, hi)
            case Unary("H", lo, hi, arg):
                return f"not {self.once(f'not ({self.value(arg, positive)})', lo, hi)}"
            case Until("S", lo, hi, left, right):
                return self.since(self.value(left, positive), self.value(right, positive), lo, hi)
        raise AssertionError(formula)  # future operators are not asked for

    def once(self, p: str, lo: int, hi: int | None) -> str:
        if hi is None:
            s = self.keep(False)
            self.add(f"if {p}: {s} = True")
            return self.delayed(s, lo)
        s = self.keep(0)  # periods, this one included, during which the last p counts
        self.add(f"if {p}: {s} = {hi - lo + 1}\nelif {s}: {s} -= 1")
        return self.delayed(f"{s} > 0", lo)

    def since(self, p: str, q: str, lo: int, hi: int | None) -> str:
        if hi is None:
            s = self.keep(False)
            self.add(f"if {q}: {s} = True\nelif not ({p}): {s} = False")
        else:
            s = self.keep(0)
            self.add(f"if {q}: {s} = {hi - lo + 1}\nelif not ({p}): {s} = 0\nelif {s}: {s} -= 1")
        since = self.delayed(f"{s} > 0", lo)
        return f"({since} and not {self.once(f'not ({p})', 0, lo - 1)})" if lo else since

    def delayed(self, p: str, periods: int) -> str:
        """``p`` as it was so many periods ago; False before the first."""
        if periods == 0:
            return f"({p})"
        if periods == 1:
            x, s = self.name("x"), self.keep(False)
            self.add(f"{x} = {s}\n{s} = {p}")
            return x
        return self.delay(p, periods)[0]

    def delay(self, p: str, periods: int) -> tuple[str, str, str]:
        """:meth:`delayed` by at least a period; also the ring of what is still to come, and where its oldest is."""
        x, ring, i = self.name("x"), self.name("r"), self.keep(0)
        self.delays[ring] = periods
        if sum(self.delays.values()) > MAX_DELAY:
            raise GuardrailError(f"formula: its past intervals start {sum(self.delays.values())} periods ago in all; "
                                 f"expected at most {MAX_DELAY}")  # fmt: skip
        self.add(f"{x} = {ring}[{i}] > 0\n{ring}[{i}] = {p}\n{i} = {i} + 1 if {i} < {periods - 1} else 0")
        return x, ring, i

    def build(self, ending: str, remaining: str = "inf") -> Steps:
        """Functions ``(step(v), remaining(), reset())``. ``ending``: lines after the step's, with its return."""
        state = ", ".join(self.state)
        share = f"        nonlocal {state}\n" if state else ""
        initial = "".join(f"{name} = {value}\n" for name, value in self.state.items())
        rings = "".join(f"    {name} = bytearray({size})\n" for name, size in self.delays.items())
        clear = "".join(f"        {name}[:] = bytes({size})\n" for name, size in self.delays.items())
        source = (
            f"def make():\n{rings}{_indent(initial, 1)}"
            f"    def step(v):\n{share}{_indent(chr(10).join(self.lines), 2)}{_indent(ending, 2)}"
            f"    def remaining():\n        return {remaining}\n"
            f"    def reset():\n{share}{clear}{_indent(initial, 2)}        return None\n"
            "    return step, remaining, reset\n"
        )
        namespace: dict[str, Callable[[], Steps]] = {}
        exec(source, {"__builtins__": {}, "bytearray": bytearray, "bytes": bytes, "inf": math.inf, "min": min,
                      "VERDICT": VERDICT, "oldest": _oldest}, namespace)  # fmt: skip
        return namespace["make"]()


def _oldest(ring: bytearray, start: int) -> float:
    """Periods from the oldest in the ring, at ``start``, to the first that is set; inf if none is."""
    at = ring.find(1, start)
    if at >= 0:
        return at - start
    at = ring.find(1, 0, start)
    return at + len(ring) - start if at >= 0 else math.inf


def _indent(text: str, levels: int) -> str:
    return "".join(f"{'    ' * levels}{line}\n" for line in text.split("\n") if line)
