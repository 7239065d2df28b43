"""Atoms: a comparison of two arithmetic expressions over position, velocity, command and named signals.

``near = "distance < 0.3"``, ``stopped = "max(abs(velocity)) < 0.01"``, ``left = "position.j1 >= 2*position[j2]"``.
Vectors run over the joints; a scalar joins a vector element by element; the two sides of a comparison are scalars.
Functions: abs, min, max, sum, norm. The text is parsed by the grammar below and never evaluated; from the parsed tree
one Python function for all atoms of a rule is generated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kizzasi_edge.guardrails.temporal.reader import Reader

HOLDS, FAILS, INVALID = 1, 0, -1
"""What an atom's evaluation gives. INVALID: a NaN took part, a signal was missing, or a divisor was 0."""

VECTORS = ("position", "velocity", "command")
FUNCTIONS = ("abs", "min", "max", "sum", "norm")
_OPERATORS = r"<=|>=|==|!=|[-+*/()\[\],.<>]"
_COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")


@dataclass(frozen=True, slots=True)
class Number:
    value: float


@dataclass(frozen=True, slots=True)
class Element:
    """Joint ``index`` of a vector."""

    vector: str
    index: int


@dataclass(frozen=True, slots=True)
class Vector:
    name: str


@dataclass(frozen=True, slots=True)
class Signal:
    name: str


@dataclass(frozen=True, slots=True)
class Call:
    """``op``: ``+ - * /`` (two arguments), ``neg`` (one), or one of :data:`FUNCTIONS`."""

    op: str
    args: tuple[Expression, ...]


Expression = Number | Element | Vector | Signal | Call


@dataclass(frozen=True, slots=True)
class Comparison:
    """An atom: ``left`` ``op`` ``right``."""

    name: str
    op: str
    left: Expression
    right: Expression


Evaluate = Callable[[Sequence[float], Sequence[float], Sequence[float], Mapping[str, float]], tuple[int, ...]]
"""(position, velocity, command, signals) → one of HOLDS, FAILS, INVALID per atom. Lists of floats are fastest."""


def parse_atom(
    name: str, text: str, joints: Sequence[str], signals: Sequence[str] | None = None, where: str = "atom"
) -> Comparison:
    """The atom ``name = "text"``. ``signals``: the names allowed (None: any).

    Raises :class:`GuardrailError` naming ``where``, the atom, the column, what was found and what was expected.
    """
    return _Parser(name, text, joints, signals, f"{where} {name!r}").parse()


def reads(atom: Comparison) -> frozenset[str]:
    """What the atom reads: of :data:`VECTORS`, and named signals."""

    def names(expression: Expression) -> frozenset[str]:
        match expression:
            case Signal(name) | Vector(name) | Element(name, _):
                return frozenset((name,))
            case Call(_, args):
                return frozenset().union(*map(names, args))
        return frozenset()

    return names(atom.left) | names(atom.right)


class _Parser(Reader):
    def __init__(self, name: str, text: str, joints: Sequence[str], signals: Sequence[str] | None, where: str) -> None:
        super().__init__(text, where, symbols=_OPERATORS, expected="a name, a number or an operator")
        self.name, self.signals = name, signals
        self.joints = {joint: i for i, joint in enumerate(joints)}

    def parse(self) -> Comparison:
        left = self.scalar()
        op = self.accept(*_COMPARISONS)
        if op is None:
            self.fail("an operator or a comparison, one of " + " ".join(_COMPARISONS))
        right = self.scalar()
        self.expect("end", "an operator or the end of the atom")
        return Comparison(self.name, op.kind, left, right)

    def scalar(self) -> Expression:
        start = self.i
        expression = self.sum()
        if is_vector(expression):
            self.fail("a single number on each side: use max, min, sum, norm, or name one joint", start)
        return expression

    def sum(self) -> Expression:
        return self.chain(("+", "-"), self.product)

    def product(self) -> Expression:
        return self.chain(("*", "/"), self.unary)

    def chain(self, operators: tuple[str, ...], operand: Callable[[], Expression]) -> Expression:
        left = operand()
        entered = 0
        while token := self.accept(*operators):
            entered += 1
            self.deeper(1)
            left = Call(token.kind, (left, operand()))
        self.deeper(-entered)
        return left

    def unary(self) -> Expression:
        self.deeper(1)
        if self.accept("-"):
            expression: Expression = Call("neg", (self.unary(),))
        elif self.accept("+"):
            expression = self.unary()
        elif self.accept("("):
            expression = self.sum()
            self.expect(")", "an operator or ')'")
        elif token := self.accept("number"):
            expression = Number(float(token.text))
            if not math.isfinite(expression.value):
                self.fail("a number within the range of a double", self.i - 1)
        else:
            expression = self.named()
        self.deeper(-1)
        return expression

    def named(self) -> Expression:
        token = self.expect("word", "a name, a number, '-' or '('")
        if token.text in FUNCTIONS:
            return self.call(token.text)
        if token.text not in VECTORS:
            if self.signals is not None and token.text not in self.signals:
                self.fail(f"{', '.join(VECTORS)}, a function or a signal, one of {list(self.signals)}", self.i - 1)
            return Signal(token.text)
        if self.accept("."):
            return Element(token.text, self.joint())
        if self.accept("["):
            index = self.joint()
            self.expect("]", "']'")
            return Element(token.text, index)
        return Vector(token.text)

    def joint(self) -> int:
        token = self.expect("word", f"a joint's name, one of {list(self.joints)}")
        if token.text not in self.joints:
            self.fail(f"a joint's name, one of {list(self.joints)}", self.i - 1)
        return self.joints[token.text]

    def call(self, function: str) -> Expression:
        self.expect("(", f"'(' after {function}")
        args = [self.sum()]
        while self.accept(","):
            args.append(self.sum())
        end = self.i
        self.expect(")", "an operator, ',' or ')'")
        if function in ("abs", "sum", "norm") and len(args) != 1:
            self.fail(f"one argument to {function}", end)
        return Call(function, tuple(args))


def is_vector(expression: Expression) -> bool:
    """Whether the expression has one value per joint."""
    if isinstance(expression, Call):
        return expression.op in ("+", "-", "*", "/", "neg", "abs") and any(map(is_vector, expression.args))
    return isinstance(expression, Vector)


def compile_atoms(atoms: Sequence[Comparison], joints: int) -> Evaluate:
    """One function that evaluates all ``atoms``; code is generated from the parsed trees only."""
    writer = _Writer(joints)
    results = []
    for atom in atoms:
        (left,), (right,) = writer.components(atom.left), writer.components(atom.right)
        left, right = writer.bind(left), writer.bind(right)
        holds, fails = f"{left} {atom.op} {right}", f"{left} {_COMPLEMENT[atom.op]} {right}"
        valid = f"{left} == {left} and {right} == {right} and "  # != holds of a NaN
        holds, fails = (valid * (atom.op == "!=") + holds), (valid * (atom.op == "==") + fails)
        results.append(f"1 if {holds} else 0 if {fails} else -1")
    body = "".join(f"    {line}\n" for line in writer.lines)
    returned = "".join(f"({result}), " for result in results)
    source = f"def evaluate(position, velocity, command, signals):\n{body}    return ({returned})\n"
    namespace: dict[str, Evaluate] = {}
    exec(source, {"__builtins__": {}, **_RUNTIME}, namespace)
    return namespace["evaluate"]


_COMPLEMENT = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}


def _divide(a: float, b: float) -> float:
    return a / b if b else math.nan


_RUNTIME = {
    "max": max, "min": min, "divide": _divide, "sqrt": math.sqrt, "abs": abs, "nan": math.nan, "float": float,
}  # fmt: skip


class _Writer:
    """Turns expressions into straight-line code; every intermediate scalar has a name, so code grows linearly."""

    def __init__(self, joints: int) -> None:
        self.joints = joints
        self.lines: list[str] = []
        self.names: dict[str, str] = {}

    def bind(self, code: str) -> str:
        if code not in self.names:
            self.names[code] = f"t{len(self.names)}"
            self.lines.append(f"{self.names[code]} = {code}")
        return self.names[code]

    def components(self, expression: Expression) -> list[str]:
        """One piece of code per joint, or one."""
        match expression:
            case Number(value):
                return [repr(value)]
            case Signal(name):
                return [self.bind(f"float(signals.get({name!r}, nan))")]
            case Element(vector, index):
                return [self.bind(f"{vector}[{index}]")]
            case Vector(name):
                return [self.bind(f"{name}[{i}]") for i in range(self.joints)]
            case Call(op, args):
                parts = [self.components(arg) for arg in args]
                flat = [part for group in parts for part in group]
                if op in ("max", "min"):
                    valid = " and ".join(
                        f"{x} == {x}" for x in dict.fromkeys(flat)
                    )  # max is blind to a NaN behind others
                    return [self.bind(f"{op}(({', '.join(flat)},)) if {valid} else nan")]
                if op == "sum":
                    return [self.bind(" + ".join(flat))]
                if op == "norm":
                    return [self.bind(f"sqrt({' + '.join(f'{x}*{x}' for x in flat)})")]
                if op == "abs":
                    return [self.bind(f"abs({x})") for x in flat]
                if op == "neg":
                    return [self.bind(f"-{x}") for x in flat]
                n = max(map(len, parts))
                left, right = (part * n if len(part) == 1 else part for part in parts)
                if op == "/":
                    return [self.bind(f"divide({a}, {b})") for a, b in zip(left, right, strict=True)]
                return [self.bind(f"{a} {op} {b}") for a, b in zip(left, right, strict=True)]
