"""[[temporal]] of a guard file: what it becomes, what is refused and where, and who reads which state."""

from __future__ import annotations

import builtins
import math
import tomllib
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kizzasi_edge.errors import GuardrailError, MissingExtra
from kizzasi_edge.guardrails import Guardrails
from kizzasi_edge.guardrails.spec import parse_spec
from kizzasi_edge.guardrails.temporal.rules import TemporalRules

FILE = "arm.guard.toml"
JOINTS = """
[joints]
names = ["j1", "j2"]
position = [[-1.0, 1.5], [-1.2, 1.5]]
velocity = 2.0
velocity_scale = 1.0
acceleration = [12.0, 10.0]
"""


def text_of(temporal: str, *, command: str = "position", more: str = "", joints: str = JOINTS) -> str:
    guard = f'schema = 1\n[guard]\nrate_hz = 100\ncommand = "{command}"\nmiss_budget = 1\n'
    return f"{guard}{joints}{more}\n{temporal}"


def guard_of(temporal: str, **keys: str) -> Guardrails:
    return Guardrails(parse_spec(tomllib.loads(text_of(temporal, **keys)), FILE), FILE)


def rules_of(temporal: str, **keys: str) -> TemporalRules:
    rules = guard_of(temporal, **keys).temporal
    assert rules is not None
    return rules


def rule(formula: str, name: str = "r", **keys: str) -> str:
    """A section; the values of ``keys`` are TOML."""
    lines = [f"{key} = {value}" for key, value in {"name": f'"{name}"', "formula": f'"{formula}"', **keys}.items()]
    return "\n".join(["[[temporal]]", *lines, ""])


NEAR = '{ near = "distance < 0.3", stopped = "max(abs(velocity)) < 0.01" }'
STOP = rule("always(near -> eventually[0,0.5] stopped)", "stop", atoms=NEAR)
HOME = '{ low = "battery < 0.2", home = "max(abs(position - 0.25)) < 0.001" }'
DOCK = rule(
    "always(low -> eventually[0,4] home)", "dock", atoms=HOME, fallback='"go-to-pose"', pose="{ j1 = 0.25, j2 = 0.25 }"
)
SLOW = rule("always slow", "slow", atoms='{ slow = "velocity.j1 + velocity.j2 <= 1" }')
COUPLED = '[[constraint]]\nkind = "linear"\nname = "sum"\na = { j1 = 1.0, j2 = 1.0 }\nmax = 1.0\n'

REST = ([0.0, 0.0], [0.0, 0.0])
FAST = ([0.0, 0.0], [1.0, -1.0])


def step(rules: TemporalRules, state: tuple[list[float], list[float]] = REST, **signals: float) -> bool:
    """One period with that applied state, nothing measured."""
    return rules.update(*state, None, None, [0.0, 0.0], signals)


# ---- what a file becomes ---------------------------------------------------------------------------------------------


def test_every_rule_has_its_place() -> None:
    watched = rule("always calm", "calm", atoms='{ calm = "abs(load) < 5" }', mode='"monitor"')
    until = rule(
        "tight until[0,1] rest", "start", atoms='{ tight = "abs(position.j2) <= 0.5", rest = "velocity.j1 == 0" }'
    )
    rules = rules_of(STOP + watched + SLOW + until)
    assert rules.names == ("stop", "calm", "slow", "start")
    assert rules.deadlines == ("stop", "start")
    assert rules.signals == ("distance", "load")
    assert [(row.name, row.on, row.hard, row.a.tolist()) for row in rules.rows] == [
        ("slow", "velocity", True, [1.0, 1.0]), ("start", "position", True, [0.0, 1.0]),
        ("start", "position", True, [0.0, -1.0]),
    ]  # fmt: skip
    assert [row.b for row in rules.rows] == pytest.approx([1.0, 0.5, 0.5], abs=1e-11)
    assert rules.enabled_rows == 0b111
    assert (rules.times, rules.violated_bits) == ((math.inf, math.inf), 0)
    lines = rules.explain()
    assert len(lines) == 4
    for line, words in zip(lines, ["'brake' (at most 0.2", "monitored only", "stated dynamics", "until"], strict=True):
        assert words in line


@pytest.mark.parametrize("command", ["position", "velocity"])
def test_a_rule_on_commands_is_a_row_on_what_is_commanded(command: str) -> None:
    rules = rules_of(rule("always soft", atoms='{ soft = "command.j1 - command.j2 < 0.75" }'), command=command)
    (row,) = rules.rows
    assert (row.on, row.a.tolist(), row.b) == (command, [1.0, -1.0], pytest.approx(0.75 - 1e-6))


REFUSED = [
    ("a formula that ends", rule("always(p -> )", atoms='{ p = "x < 1" }'), ["'r' formula: column 13", "found ')'"]),
    ("an atom of nothing", rule("always p", atoms='{ p = "x < " }'), ["'r' atom 'p': column 5", "found the end"]),
    ("a joint", rule("always p", atoms='{ p = "position.j3 < 1" }'), ["'r' atom 'p'", "'j3'", "['j1', 'j2']"]),
    ("no such atom", rule("always q", atoms='{ p = "x < 1" }', mode='"monitor"'), ["found the name 'q'", "['p']"]),
    ("an operator's name", rule("always p", atoms='{ p = "x < 1", until = "x < 2" }'), ["found the name 'until'"]),
    ("no word", rule("always p", atoms='{ p = "x < 1", "a b" = "x < 2" }'), ["atoms: found the name 'a b'"]),
    ("twice", STOP + STOP, ["[temporal] 'stop' name: found twice"]),
    ("signals cannot be enforced", rule("always p", atoms='{ p = "x < 1" }'), ['mode: found "enforce"', "'x'"]),
    ("unbounded", rule("always eventually p", atoms='{ p = "x < 1" }', mode='"monitor"'), ["found an unbounded"]),
    ("off the lattice", rule("eventually[0,0.005] p", atoms='{ p = "x < 1" }'), ["multiple of the period, 0.01 s"]),
    ("rows too many", rule("always p", atoms=f'{{ p = "{"sum(abs(velocity)) +" * 3} max(velocity) < 9" }}'),
     ["expands into 128 rows; expected at most 64"]),
    ("standing still", rule("always p", atoms='{ p = "velocity.j1 >= 0.1" }'), ["atom 'p'", "could not stand still"]),
    ("out of reach", rule("always p", atoms='{ p = "position.j1 > 1.6" }'), ["atom 'p'", "no position within"]),
    ("too large", rule("always p", atoms='{ p = "position.j1 < 1e60" }'), ["above 1e+50"]),
    ("keys of a deadline", SLOW + 'margin = 0.1\n', ["'slow' margin: not used", "no deadline"]),
    ("goal of the world", rule("always(p -> eventually[0,1] q)", atoms='{ p = "x < 1", q = "y < 1" }'), ["reads y"]),
    ("goal at a place", rule("always(p -> eventually[0,1] q)", atoms='{ p = "x < 1", q = "position.j1 < 1" }'),
     ["comes to rest anywhere"]),
    ("goal not at rest", rule("always(p -> eventually[0,1] q)", atoms='{ p = "x < 1", q = "velocity.j1 > 1" }'),
     ["'r': fallback Brake ends at rest, where the goal does not hold"]),
    ("goal in the past", rule("always(p -> eventually[0,1] once q)", atoms='{ p = "x < 1", q = "velocity.j1 < 1" }'),
     ["looks at the past"]),
    ("too short", rule("always(near -> eventually[0,0.2] stopped)", atoms=NEAR),
     ["'r': a deadline of 0.2 s; expected at least 0.22", "takes up to 0.21 s", "0.01 are kept"]),
    ("margin too wide", STOP + "margin = 0.4\n", ["expected at least 0.62"]),
    ("no period", rule("always(near -> eventually[0,0] stopped)", atoms=NEAR), ["bound_s"]),
    ("declared too short", STOP + "time_to_go = 0.1\n", ["time_to_go: found 0.1; expected at least 0.21"]),
    ("declared too long", STOP + "time_to_go = 1\n", ["expected at least 1:"]),
    ("a pose for no joint", DOCK.replace("j2 = 0.25", "j9 = 0.25"), ["pose: found joint 'j9'"]),
    ("a pose for half the joints", DOCK.replace(", j2 = 0.25", ""), ["pose: 'j2' is missing"]),
    ("a pose at the limit", DOCK.replace("j2 = 0.25", "j2 = 1.49"), ["'dock': pose of joint 'j2': found 1.49"]),
    ("elsewhere", DOCK.replace("position - 0.25", "position - 0.5"), ["GoToPose ends at rest at [0.25, 0.25]"]),
    ("a way that is blocked by a rule", DOCK + rule("always p", atoms='{ p = "position.j1 < 1" }'),
     ["'dock' fallback: found 'go-to-pose' beside 'r', a rule on positions"]),
    ("a way that is slowed down", DOCK + SLOW, ["'dock' time_to_go: computed", "'slow' may slow them down"]),
]  # fmt: skip


@pytest.mark.parametrize(("temporal", "words"), [pytest.param(*case[1:], id=case[0]) for case in REFUSED])
def test_what_is_refused(temporal: str, words: list[str]) -> None:
    with pytest.raises(GuardrailError) as error:
        guard_of(temporal)
    message = str(error.value)
    assert message.startswith(f"{FILE}: [temporal] '")
    for word in words:
        assert word in message


def test_what_the_rest_of_the_file_rules_out() -> None:
    for more in (COUPLED, COUPLED.replace("linear", "quadratic").replace("a = ", "diagonal = ")):
        with pytest.raises(
            GuardrailError, match=r"'dock' fallback: found 'go-to-pose' beside 'sum', a rule on positions"
        ):
            guard_of(DOCK + "time_to_go = 3.5\n", more=more)
    on_velocities = COUPLED + 'on = "velocity"\n'
    with pytest.raises(GuardrailError, match=r"'dock' time_to_go: computed .*'sum' may slow"):
        guard_of(DOCK, more=on_velocities)
    guard_of(DOCK + "time_to_go = 3.5\n", more=on_velocities)
    with pytest.raises(GuardrailError, match=r"'jerk' may slow them down"):
        guard_of(DOCK, joints=JOINTS + "jerk = 500.0\n")
    guard_of(STOP, more=COUPLED)
    with pytest.raises(GuardrailError, match=r"'dock' fallback: found 'go-to-pose' with velocity commands"):
        guard_of(DOCK, command="velocity")
    with pytest.raises(GuardrailError, match="rule on positions with velocity commands"):
        guard_of(rule("always p", atoms='{ p = "position.j1 < 1" }'), command="velocity")


def test_torques_are_only_watched() -> None:
    limits = guard_of("").lattice
    for temporal in (STOP, SLOW, rule("always p", atoms='{ p = "command.j1 < 3" }')):
        spec = parse_spec(tomllib.loads(text_of(temporal, command="torque", more="[dynamics]\n")), FILE)
        with pytest.raises(GuardrailError, match='mode: found "enforce" with torque commands'):
            TemporalRules(spec, limits, FILE)
    temporal = rule("always p", atoms='{ p = "command.j1 < 3" }', mode='"monitor"')
    spec = parse_spec(tomllib.loads(text_of(temporal, command="torque", more="[dynamics]\n")), FILE)
    rules = TemporalRules(spec, limits, FILE)
    rules.update(*REST, None, None, [2.0, 9.0], {})
    assert rules.violated_bits == 0
    rules.update(*REST, None, None, [4.0, 0.0], {})
    assert rules.violated_bits == 1


def test_without_ruckig_only_poses_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def blocked(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "ruckig":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", blocked)
    guard_of(STOP)
    with pytest.raises(MissingExtra, match=r"kizzasi-edge\[temporal\]"):
        guard_of(DOCK)


# ---- who reads what --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signals", [None, {}, {"distance": math.nan}, {"distance": 0.1}])
def test_a_missing_signal_triggers(signals: dict[str, float] | None) -> None:
    rules = rules_of(STOP)
    assert not rules.update(*FAST, None, None, [0.0, 0.0], {"distance": 1.0})
    assert rules.times == (math.inf,)
    rules.update(*FAST, None, None, [0.0, 0.0], signals)
    assert rules.times == (0.5,)


def test_triggers_read_what_is_measured_and_goals_what_is_applied() -> None:
    atoms = '{ fast = "max(abs(velocity)) > 0.5", stopped = "max(abs(velocity)) < 0.01" }'
    rules = rules_of(rule("always(fast -> eventually[0,0.5] stopped)", atoms=atoms))
    still, moving = [0.0, 0.0], [1.0, 1.0]
    rules.update(still, [0.1, 0.0], still, moving, still, None)
    assert rules.times == (0.5,)
    rules.update(still, [0.1, 0.0], still, still, still, None)  # measured at rest: the goal is about what was sent
    assert rules.times == (pytest.approx(0.49),)
    rules.update(still, still, still, moving, still, None)
    assert rules.times == (math.inf,)
    rules.update(still, moving, None, None, still, None)  # nothing measured: what was applied stands in
    assert rules.times == (0.5,)
    rules.update(still, still, None, [math.nan, 0.0], still, None)  # a NaN triggers; the goal holds nevertheless
    assert rules.times == (math.inf,)


def test_monitors_read_proposals_and_enforced_rules_what_was_sent() -> None:
    atoms = '{ soft = "command.j1 < 0.5", near = "abs(position.j1) < 1" }'
    watched = rule("always soft", "watched", atoms=atoms, mode='"monitor"')
    kept = rule("always soft", "kept", atoms=atoms)
    place = rule("always near", "place", atoms=atoms, mode='"monitor"')
    rules = rules_of(watched + kept + place)
    rules.update([0.4, 0.0], [0.0, 0.0], None, None, [0.4, 0.0], None)
    assert rules.violated_bits == 0
    rules.update([0.4, 0.0], [0.0, 0.0], None, None, [0.6, 0.0], None)
    assert rules.violated_bits == 0b001
    rules.update([0.4, 0.0], [0.0, 0.0], [1.2, 0.0], None, [0.4, 0.0], None)
    assert rules.violated_bits == 0b101
    rules.update([0.6, 0.0], [0.0, 0.0], None, None, [0.4, 0.0], None)
    assert rules.violated_bits == 0b111
    rules.update([0.0, 0.0], [0.0, 0.0], None, None, [0.0, 0.0], None)
    assert rules.violated_bits == 0b111  # until the next trace
    rules.reset()
    rules.update([0.0, 0.0], [0.0, 0.0], None, None, [0.0, 0.0], None)
    assert rules.violated_bits == 0


def test_a_period_without_a_proposal_repeats_the_last() -> None:
    rules = rules_of(rule("always soft", atoms='{ soft = "command.j1 < 0.5" }', mode='"monitor"'))
    rules.update(*REST, None, None, [0.4, 0.0], None)
    rules.update([0.9, 0.0], [0.0, 0.0], None, None, None, None)
    assert rules.violated_bits == 0
    rules.reset()
    rules.update(*REST, None, None, None, None)  # none so far: unknown
    assert rules.violated_bits == 1


# ---- deadlines -------------------------------------------------------------------------------------------------------


def test_an_until_keeps_its_rows_up_to_the_goal() -> None:
    atoms = '{ tight = "abs(position.j2) <= 0.5", rest = "max(abs(velocity)) == 0" }'
    rules = rules_of(SLOW + rule("tight until[0,0.5] rest", atoms=atoms))
    for k in range(30):
        engaged = step(rules, FAST)
        assert rules.times == (pytest.approx(0.5 - k * 0.01),)
        assert engaged == (k >= 37)
        assert rules.enabled_rows == 0b111
    assert not step(rules, REST)
    assert rules.enabled_rows == 0b001
    for _ in range(100):
        assert not step(rules, FAST)
    assert (rules.times, rules.violated_bits, rules.enabled_rows) == ((math.inf,), 0, 0b001)
    rules.reset()
    assert rules.enabled_rows == 0b111
    step(rules, ([0.0, 0.6], [1.0, 0.0]))  # outside from the start
    assert rules.violated_bits == 0b10


def test_a_deadline_that_passes_is_violated_once_and_for_all() -> None:
    rules = rules_of(STOP)
    bits = []
    for _ in range(60):
        step(rules, FAST, distance=0.1)  # a plant that does not brake: this guard would
        bits.append(rules.violated_bits)
    assert bits == [0] * 50 + [1] * 10
    assert rules.times[0] < 0
    step(rules, REST, distance=1.0)
    assert (rules.times, rules.violated_bits) == ((math.inf,), 1)
    rules.reset()
    assert rules.violated_bits == 0


def test_the_fallback_with_the_least_time_left_drives() -> None:
    rules = rules_of(DOCK + STOP)
    assert any("least time left drives" in line for line in rules.explain())
    assert len(rules_of(DOCK + DOCK.replace("dock", "dock2")).explain()) == 2  # they end alike: no such line
    for _ in range(400):
        dock = step(rules, FAST, battery=0.1, distance=1.0)
    assert dock
    assert rules.proposal is not None
    while rules.times[1] > 0.2:
        assert step(rules, FAST, battery=0.1, distance=0.1)
    assert rules.times[0] < rules.times[1]
    assert rules.proposal is not None  # the pose's deadline is long gone: it is the more urgent
    rules.reset()
    for _ in range(100):
        engaged = step(rules, FAST, battery=0.1, distance=0.1)
        if engaged:
            assert rules.times[1] < rules.times[0]
            assert rules.proposal is None  # braking
    assert engaged


def test_rules_to_one_pose_share_their_plan() -> None:
    rules = rules_of(DOCK + DOCK.replace("dock", "dock2").replace("battery < 0.2", "battery < 0.5"))
    guard = guard_of("")
    guard.reset([0.0, 0.0])
    q, v = np.zeros(2), np.zeros(2)
    plans = {id(deadline.fallback): deadline.fallback for deadline in rules._shields}
    assert len(plans) == 1
    engaged = 0
    for k in range(900):
        battery = 0.4 if k < 100 else 0.1
        drives = rules.update(q.tolist(), v.tolist(), None, None, [0.0, 0.0], {"battery": battery})
        engaged += drives
        guard.step(rules.proposal if drives and rules.proposal is not None else [-0.5, -0.5])
        steps = guard.motion
        q, v = steps[0] * guard.quanta, steps[1] * (guard.quanta * 100)
        assert rules.violated_bits == 0
    assert engaged > 0
    assert rules._shields[0].shield.requests > 1


def test_hold_keeps_driving_while_the_trigger_holds() -> None:
    for fallback, stays in (("brake", False), ("hold", True)):
        rules = rules_of(STOP + f'fallback = "{fallback}"\n')
        while not step(rules, FAST, distance=0.1):
            pass
        assert step(rules, REST, distance=0.1) == stays
        assert step(rules, REST, distance=math.nan) == stays
        assert rules.times == (math.inf,)
        assert not step(rules, REST, distance=1.0)


def test_a_declared_time_is_taken_at_its_word() -> None:
    rules = rules_of(STOP + "time_to_go = 0.4\nmargin = 0.05\n")
    assert "declared, not checked" in rules.explain()[0]
    engaged = [step(rules, FAST, distance=0.1) for _ in range(8)]
    assert engaged == [k + 1 > 50 - 40 - 5 for k in range(8)]  # with one period more, its command could be too late


def test_an_update_keeps_no_memory() -> None:
    watched = rule("always(p -> eventually[0.1,0.5] q)", atoms='{ p = "x < 1", q = "x > 2" }', mode='"monitor"')
    rules = rules_of(STOP + SLOW + watched)
    grown = []
    for _ in range(3):
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for k in range(400):
            step(rules, FAST if k % 20 else REST, distance=0.2 if k % 50 < 25 else 1.0, x=float(k % 4))
        grown.append(tracemalloc.get_traced_memory()[0] - before)
        tracemalloc.stop()
    assert grown[-1] < 1000


# ---- nothing but GuardrailError, whatever is written -----------------------------------------------------------------

WORDS = [
    "always",
    "eventually[0,0.5]",
    "until[0,1]",
    "not",
    "and",
    "->",
    "(",
    ")",
    "p",
    "q",
    "once[0,0.1]",
    "next",
    "true",
]
PIECES = ["position", "velocity.j1", "command[j2]", "x", "max(", "abs(", ")", "<", ">=", "==", "-", "*", "0.5", "1e300"]
formulas = st.one_of(
    st.sampled_from(["always(p -> eventually[0,0.5] q)", "p until[0,1] q", "always p", "always(p and not q)"]),
    st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join), st.text(max_size=20),
)  # fmt: skip
atoms = st.one_of(
    st.sampled_from(["max(abs(velocity)) < 0.1", "position.j1 <= 0.5", "x > 0", "command.j1 - command.j2 < 1"]),
    st.lists(st.sampled_from(PIECES), max_size=7).map(" ".join), st.text(max_size=12),
)  # fmt: skip
numbers = st.floats(allow_nan=True, allow_infinity=True) | st.integers(-3, 3) | st.floats(0, 1)
sections = st.fixed_dictionaries(
    {"name": st.text(max_size=5), "formula": formulas, "atoms": st.fixed_dictionaries({"p": atoms, "q": atoms})},
    optional={
        "mode": st.sampled_from(["monitor", "enforce"]), "margin": numbers, "time_to_go": st.just("ruckig") | numbers,
        "fallback": st.sampled_from(["brake", "hold", "go-to-pose"]),
        "pose": st.fixed_dictionaries({"j1": st.floats(-0.5, 0.5) | numbers, "j2": st.floats(-0.5, 0.5)}),
    },
)  # fmt: skip
floats = st.lists(st.floats() | st.floats(-1, 1), min_size=2, max_size=2)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(sections, max_size=2), st.sampled_from(["position", "velocity"]), st.lists(floats, min_size=4, max_size=4)
)
def test_any_section_is_run_or_refused(written: list[dict[str, Any]], command: str, values: list[list[float]]) -> None:
    data = {**tomllib.loads(text_of("", command=command)), "temporal": written}
    refusal = FILE
    try:
        guard = Guardrails(parse_spec(data, FILE), FILE)
    except GuardrailError as error:
        refusal = str(error)
    if refusal != FILE:
        assert refusal.startswith(FILE)
        return
    if guard.temporal is None:
        assert not written
        return
    rules = guard.temporal
    for state in ([0.1, 0.2], [0.0, 0.0]), ([0.3, 0.2], [1.0, -0.5]):
        rules.update(*state, values[0], values[1], values[2], {"x": values[3][0]})
        assert len(rules.times) == len(rules.deadlines)
        assert rules.violated_bits >> len(rules.names) == 0
    assert len(rules.explain()) >= len(rules.names)
