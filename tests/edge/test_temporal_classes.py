"""Which class a formula is of, and that its rows say the same as its atoms."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.temporal import (
    CommandRows,
    Deadline,
    Monitored,
    StateRows,
    UntilRows,
    classify,
    compile_atoms,
    parse,
    parse_atom,
)
from kizzasi_edge.guardrails.temporal.linear import bounds_of

JOINTS = ("j1", "j2")
ATOMS = {
    name: parse_atom(name, text, JOINTS)
    for name, text in {
        "slow": "max(abs(velocity)) < 0.5",
        "inside": "position.j1 + 2*position.j2 <= 1",
        "soft": "command.j1 - command.j2 < 0.8",
        "near": "distance < 0.3",
        "both": "position.j1 + command.j1 < 1",
    }.items()
}


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("always soft", CommandRows, ["enforced: soft (1 linear row)", "margin"]),
        ("always (slow and not not inside)", StateRows, ["stated dynamics", "slow, inside (5 linear rows)"]),
        ("not eventually (not slow or not inside)", StateRows, ["5 linear rows"]),
        ("always not inside and always slow", StateRows, ["not inside"]),
        ("always (near -> eventually[0,0.5] slow)", Deadline, ["within 0.5 s"]),
        ("always (not near or eventually[0,0.5] slow)", Deadline, ["within 0.5 s"]),
        ("slow until[0,2] near", UntilRows, ["4 linear rows", "within 2 s"]),
        ("always near", Monitored, ["'distance'", "measured"]),
        ("always both", Monitored, ["'both'", "command and position"]),
        ("always (soft and slow)", Monitored, ["one rule for each"]),
        ("always (slow or inside)", Monitored, ["'or'", "not a conjunction"]),
        ("always not slow", Monitored, ["not convex"]),
        ("always[0,1] slow", Monitored, ["none of always"]),
        ("eventually slow", Monitored, ["none of always"]),
        ("always (near -> eventually[0.1,0.5] slow)", Monitored, ["not a conjunction"]),
    ],
)
def test_classes(text: str, kind: type, words: list[str]) -> None:
    formula = parse(text, 100.0)
    found = classify(formula, ATOMS, 2, 100.0, "monitor")
    assert type(found) is kind
    for word in words:
        assert word in found.explain()
    if isinstance(found, Monitored):
        with pytest.raises(GuardrailError, match='"enforce"') as error:
            classify(formula, ATOMS, 2, 100.0, "enforce", "arm.guard.toml: [temporal] 'x'")
        assert found.reason in str(error.value)
        assert "arm.guard.toml: [temporal] 'x'" in str(error.value)


def test_a_name_that_is_no_atom_is_refused() -> None:
    with pytest.raises(GuardrailError, match=r"'far'.*'near'"):
        classify(parse("always far", 100.0), ATOMS, 2, 100.0)


LINEAR = [
    "max(abs(velocity)) < 0.5",
    "sum(abs(velocity - 0.25)) <= 1",
    "-1 < min(velocity * 2, velocity.j1 / -2)",
    "2 > max(velocity.j1 + velocity.j2, 3 * (velocity.j2 - 1) - velocity.j1)",
    "velocity.j1 >= -2 * velocity[j2] + 0.5 + max(0, velocity.j1)",
    "max(1, velocity.j1) - 2 * velocity.j2 < abs(-4)",
]
values = st.floats(-4, 4).map(lambda x: round(x, 3))


@given(st.sampled_from(LINEAR), values, values)
def test_rows_say_the_same_as_the_atom(text: str, v1: float, v2: float) -> None:
    atom = parse_atom("a", text, JOINTS)
    rows = bounds_of(atom, 2)
    assert {row.on for row in rows} == {"velocity"}
    margin = min(float(row.b - row.a @ [v1, v2]) for row in rows)
    holds = compile_atoms([atom], 2)([0.0, 0.0], [v1, v2], [0.0, 0.0], {})[0]
    if abs(margin) > 1e-4:
        assert (margin > 0) == (holds == 1)
    if margin >= 0:
        assert holds == 1 or abs(margin) < 1e-12


def test_strict_is_stricter() -> None:
    (loose,) = bounds_of(parse_atom("a", "command.j1 <= 8", JOINTS), 2)
    (strict,) = bounds_of(parse_atom("a", "command.j1 < 8", JOINTS), 2)
    assert (loose.b, strict.b) == (8.0, 8.0 - 8e-6)
    assert loose.a.tolist() == [1.0, 0.0]
