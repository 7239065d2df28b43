"""Formulas and atoms as text: what they mean, where they are wrong, and that no text crashes or hangs the parsers."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.temporal import Monitor, classify, compile_atoms, parse, parse_atom
from kizzasi_edge.guardrails.temporal.syntax import Atom, Binary, Const, Formula, Not, Unary, Until, walk

p, q, r = Atom("p"), Atom("q"), Atom("r")
JOINTS = ("j1", "j2", "j3")


@pytest.mark.parametrize(
    ("text", "formula"),
    [
        ("p -> q -> r", Binary("->", p, Binary("->", q, r))),
        ("p <-> q <-> r", Binary("<->", Binary("<->", p, q), r)),
        ("p <-> q -> r", Binary("<->", p, Binary("->", q, r))),
        ("p or q and r", Binary("or", p, Binary("and", q, r))),
        ("p || q && r", Binary("or", p, Binary("and", q, r))),
        ("p and q until r", Binary("and", p, Until("U", 0, None, q, r))),
        ("p U q S[0,1] r", Until("U", 0, None, p, Until("S", 0, 10, q, r))),
        ("not p and q", Binary("and", Not(p), q)),
        ("! ! p", Not(Not(p))),
        ("always p -> q", Binary("->", Unary("G", 0, None, p), q)),
        ("G F[0.2, .5] X p", Unary("G", 0, None, Unary("F", 2, 5, Unary("X", 1, 1, p)))),
        ("O[1,inf] H[0,2e-1] Y p", Unary("O", 10, None, Unary("H", 0, 2, Unary("Y", 1, 1, p)))),
        ("\n( true )\tor false ", Binary("or", Const(True), Const(False))),
        ("historically once previous next eventually p", parse("H O Y X F p", 10)),
        ("p since q", parse("p S q", 10)),
    ],
)
def test_what_a_formula_means(text: str, formula: Formula) -> None:
    assert parse(text, 10.0) == formula


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("", 1, ["the end", "atom's name"]),
        ("p q", 3, ["'q'", "an operator or the end"]),
        ("always(p -> )", 13, ["')'", "an atom's name"]),
        ("(p", 3, ["the end", "')'"]),
        ("p $ q", 3, ["'$'"]),
        ("F[0 1] p", 5, ["'1'", "','"]),
        ("F[0,1 p", 7, ["'p'", "']'"]),
        ("F[p,1] q", 3, ["'p'", "seconds"]),
        ("F[-1,1] q", 3, ["'-'"]),
        ("F[1,0.5] q", 3, ["ends before it starts"]),
        ("F[0,0.25] q", 5, ["0.25", "multiple of the period, 0.1 s", "nearest is 0.2"]),
        ("F[0,1e9] q", 5, ["1e9", "at most 1000000 periods"]),
        ("p until always", 15, ["the end"]),
        ("X[0,1] p", 2, ["'['"]),
        ("(" * 60 + "p" + ")" * 60, 49, ["at most 48"]),
        ("not " * 60 + "p", 193, ["at most 48"]),
        ("p -> " * 60 + "p", 241, ["at most 48"]),
        ("p" * 5000, 4097, ["5000 characters", "at most 4096"]),
    ],
)
def test_where_a_formula_is_wrong(text: str, column: int, words: list[str]) -> None:
    with pytest.raises(GuardrailError) as error:
        parse(text, 10.0, "arm.guard.toml: [temporal] formula")
    message, excerpt, caret = str(error.value).split("\n")
    for word in ["arm.guard.toml: [temporal] formula", f"column {column}:", *words]:
        assert word in message
    under = caret.index("^")
    if column <= 60 and text:
        assert (excerpt + " ")[under] == (text + " ")[column - 1]


@given(st.integers(0, 10_000), st.sampled_from([30.0, 100.0, 500.0, 1000.0, 333.0]))
def test_seconds_become_periods_exactly(periods: int, rate_hz: float) -> None:
    formula = parse(f"F[0,{periods / rate_hz:.9f}] p", rate_hz)
    assert isinstance(formula, Unary)
    assert formula.hi == periods


def evaluate(text: str, **values: float) -> int:
    position, velocity, command = [0.5, -0.25, 1.0], [0.0, -3.0, 2.0], [1.0, 2.0, 3.0]
    for key, value in values.items():
        if key in JOINTS:
            position[JOINTS.index(key)] = value
    signals = {key: value for key, value in values.items() if key not in JOINTS}
    return compile_atoms([parse_atom("a", text, JOINTS)], 3)(position, velocity, command, signals)[0]


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("position.j1 == 0.5", True),
        ("position[j2] < -0.25", False),
        ("position[j2] <= -0.25", True),
        ("max(abs(velocity)) >= 3", True),
        ("max(abs(velocity)) > 3", False),
        ("min(velocity) == -3", True),
        ("min(velocity, -4, command) == -4", True),
        ("sum(command) == 6", True),
        ("norm(velocity) * norm(velocity) > 12.99", True),
        ("norm(2) == 2", True),
        ("sum(position - command * 2 + 1) == 3 + 1.25 - 12", True),
        ("2 - 1 - 1 == 0", True),
        ("8 / 2 / 2 == 2", True),
        ("-2 * -3 + +1 != 7", False),
        ("1 + 2 * 3 == 7 ", True),
        ("(1 + 2) * 3 == 9", True),
        ("distance / 2 < 0.2", True),
        ("sum(command / command.j2) == 3", True),
    ],
)
def test_what_an_atom_means(text: str, holds: bool) -> None:
    assert evaluate(text, distance=0.3) == holds


@pytest.mark.parametrize("op", ["<", "<=", ">", ">=", "==", "!="])
@pytest.mark.parametrize(
    "left",
    ["d", "0 * d", "max(d, 1)", "max(1, d)", "min(1, d)", "min(d, 1)", "abs(d)", "norm(d)", "sum(position * d)",
     "missing", "1 / 0", "position.j1 / (d - d)", "max(position + d)"],
)  # fmt: skip
def test_a_nan_makes_an_atom_invalid_wherever_it_is(left: str, op: str) -> None:
    assert evaluate(f"{left} {op} 1", d=math.nan) == -1
    assert evaluate(f"1 {op} {left}", d=math.nan) == -1


def test_a_nan_in_any_joint_makes_the_atom_invalid() -> None:
    for joint in JOINTS:
        assert evaluate("max(abs(position)) < 9", **{joint: math.nan}) == -1
        assert evaluate("max(abs(position)) < 9", **{joint: math.inf}) == 0
    assert evaluate("distance < 0.3", distance=math.inf) == 0


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("position < 1", 1, ["'position'", "a single number"]),
        ("abs(position) < 1", 1, ["a single number"]),
        ("1 < position.j9", 14, ["'j9'", "['j1', 'j2', 'j3']"]),
        ("position[0] < 1", 10, ["'0'", "joint's name"]),
        ("speed < 1", 1, ["'speed'", "['distance']"]),
        ("distance", 9, ["the end", "comparison"]),
        ("distance < 1 < 2", 14, ["'<'", "the end of the atom"]),
        ("sum(1, 2) < 1", 9, ["one argument to sum"]),
        ("max() < 1", 5, ["')'"]),
        ("max < 1", 5, ["'(' after max"]),
        ("1e999 < distance", 1, ["range of a double"]),
        ("__import__('os') < 1", 12, ["'"]),
        ("distance.real < 1", 9, ["'.'"]),
        ("-" * 60 + "1 < 2", 49, ["at most 48"]),
    ],
)
def test_where_an_atom_is_wrong(text: str, column: int, words: list[str]) -> None:
    with pytest.raises(GuardrailError) as error:
        parse_atom("near", text, JOINTS, ["distance"])
    for word in ["'near'", f"column {column}:", *words]:
        assert word in str(error.value)


FORMULA_WORDS = [
    "p",
    "q",
    "not",
    "!",
    "and",
    "&&",
    "or",
    "->",
    "<->",
    "always",
    "G",
    "eventually",
    "F",
    "until",
    "U",
    "since",
    "S",
    "next",
    "X",
    "once",
    "O",
    "historically",
    "H",
    "previous",
    "Y",
    "[0,1]",
    "[0.5,inf]",
    "[",
    "]",
    ",",
    "(",
    ")",
    "true",
    "false",
    "inf",
    "0.1",
    "1e3",
    "99999999",
    "$",
    "λ",
]
ATOM_WORDS = [
    "position",
    "velocity",
    "command",
    ".",
    "[",
    "]",
    "j1",
    "j2",
    "d",
    "+",
    "-",
    "*",
    "/",
    "abs",
    "min",
    "max",
    "sum",
    "norm",
    "(",
    ")",
    ",",
    "<",
    "<=",
    ">",
    ">=",
    "==",
    "!=",
    "1",
    "0.5",
    "1e308",
    "é",
]


def only_refuses(call: Callable[[], object]) -> None:
    with contextlib.suppress(GuardrailError):
        call()


def try_formula(text: str) -> None:
    formula = parse(text, 10.0)
    assert sum(1 for _ in walk(formula)) <= len(text)
    atoms = {name: parse_atom(name, "max(abs(velocity)) < 1", JOINTS) for name in ("p", "q")}
    classify(formula, atoms, 3, 10.0, "monitor").explain()
    monitor = Monitor(formula, 10.0, ("p", "q"))
    for values in ((1, 0), (0, 1), (-1, -1)):
        monitor.update(values)


def try_atom(text: str) -> None:
    atom = parse_atom("a", text, JOINTS)
    found = compile_atoms([atom], 3)([1.0, 2.0, 3.0], [0.0, math.inf, 1e308], [math.nan] * 3, {"d": 2.0})
    assert found[0] in (-1, 0, 1)
    classify(parse("always a", 10.0), {"a": atom}, 3, 10.0, "monitor")


@settings(max_examples=300, deadline=2000)
@given(st.text(max_size=60))
@example("\x00")
@example("٣ < 1")
def test_any_text_is_parsed_or_refused(text: str) -> None:
    only_refuses(lambda: try_formula(text))
    only_refuses(lambda: try_atom(text))


@settings(max_examples=500, deadline=2000)
@given(st.lists(st.sampled_from(FORMULA_WORDS), max_size=25))
def test_any_words_are_a_formula_or_refused(words: list[str]) -> None:
    only_refuses(lambda: try_formula(" ".join(words)))


@settings(max_examples=600, deadline=2000)
@given(st.lists(st.sampled_from(ATOM_WORDS), max_size=25))
def test_any_words_are_an_atom_or_refused(words: list[str]) -> None:
    only_refuses(lambda: try_atom(" ".join(words)))


@settings(max_examples=400, deadline=2000)
@given(
    st.sampled_from(
        [
            "always(p -> eventually[0,0.5] q)",
            "p until[0,2] (q and once[0.1,0.3] p)",
            "G (F[0,1] G[0,0.2] p <-> not (q S[0.2,0.4] p)) || F[1,inf] X q",
        ]
    ),
    st.lists(st.tuples(st.integers(0, 70), st.sampled_from([*FORMULA_WORDS, "", " "]), st.integers(0, 2)), max_size=3),
)
def test_a_mutated_formula_is_parsed_or_refused(text: str, edits: list[tuple[int, str, int]]) -> None:
    for at, word, cut in edits:
        text = text[:at] + word + text[at + cut :]
    only_refuses(lambda: try_formula(text))


@pytest.mark.parametrize("piece", ["(", "!", "p&", "p U ", "G[0,1]", "p<->", "X ", "p<->(", "[", "H(", "p U(", "p->"])
@pytest.mark.parametrize("times", [40, 1000, 100_000])
def test_deep_nesting_ends(piece: str, times: int) -> None:
    only_refuses(lambda: try_formula(piece * times + "p" + ")" * (times * piece.count("("))))


@pytest.mark.parametrize("piece", ["(", "-", "1+", "abs(", "max(1,", "sum(position*", "1/"])
@pytest.mark.parametrize("times", [20, 40, 1000, 100_000])
def test_deep_arithmetic_ends(piece: str, times: int) -> None:
    only_refuses(lambda: try_atom(piece * times + "1" + ")" * (times * piece.count("(")) + "<1"))
