"""Guards with temporal rules, as a file declares them, against whoever commands."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kizzasi_edge.guardrails import Guardrails
from kizzasi_edge.guardrails.faults import State
from kizzasi_edge.guardrails.spec import parse_spec

N, RATE = 3, 100.0
HEAD = f"""
schema = 1
[guard]
rate_hz = {RATE}
command = "position"
miss_budget = 2
[joints]
names = ["j1", "j2", "j3"]
position = [[-1.0, 1.0], [-1.2, 1.0], [-1.0, 1.4]]
velocity = [2.0, 1.5, 2.5]
velocity_scale = 1.0
acceleration = [12.0, 20.0, 9.0]
[[temporal]]
name = "stop"
formula = "always(near -> eventually[0,0.5] stopped)"
atoms = {{ near = "distance < 0.3", stopped = "max(abs(velocity)) <= 0" }}
[[temporal]]
name = "together"
formula = "always together"
atoms = {{ together = "abs(velocity.j1 - velocity.j2) <= 1" }}
[[temporal]]
name = "slow"
formula = "always slow"
atoms = {{ slow = "sum(abs(velocity)) < 3" }}
"""
POSITIONS = """
[[temporal]]
name = "inside"
formula = "always (inside and not not soft)"
atoms = { inside = "position.j1 + 2*position.j2 - position.j3/3 <= 0.7", soft = "max(position.j1, position.j2) <= 0.8" }
[[temporal]]
name = "sent"
formula = "always sent"
atoms = { sent = "command.j1 - command.j3 < 0.9" }
"""
VELOCITIES = """
[[temporal]]
name = "sent"
formula = "always sent"
atoms = { sent = "command.j1 - command.j3 < 0.9" }
"""

Command = Callable[[np.random.Generator, int], np.ndarray]


def jump(rng: np.random.Generator, k: int) -> np.ndarray:
    return rng.uniform(-4, 4, N)


def bang(rng: np.random.Generator, k: int) -> np.ndarray:
    return np.where(np.arange(N) + k // 37 & 1, 9.0, -9.0)


def away(rng: np.random.Generator, k: int) -> np.ndarray:
    return np.array([9.0, 9.0, -9.0])


def broken(rng: np.random.Generator, k: int) -> np.ndarray:
    return np.full(N, np.nan) if rng.random() < 0.3 else rng.uniform(-4, 4, N)


COMMANDS: tuple[Command, ...] = (jump, bang, away, broken)


def run(guard: Guardrails, seed: int, periods: int) -> dict[str, int]:
    """Periods of adversaries, lost ones and requests; what happened, counted. ``broken``: what was sent breaks "stop",
    "together" or "slow", as judged here."""
    rng = np.random.default_rng(seed)
    position, out = rng.uniform(-0.09, 0.09, N), np.zeros(N, np.float32)
    guard.reset(position)
    seen = {"fallback": 0, "requests": 0, "shaped": 0, "violated": 0, "broken": 0}
    near = burst = 0
    waited, triggered, speed = -1, False, np.zeros(N)
    unit = guard.quanta * (RATE if guard.command == "position" else 1.0)
    command = COMMANDS[0]
    for k in range(periods):
        if k % 50 == 0:
            command = COMMANDS[int(rng.integers(len(COMMANDS)))]
        near = near - 1 if near else int(rng.random() < 0.02) * 20
        burst = burst - 1 if burst else int(rng.random() < 0.01) * 2
        seen["requests"] += near == 20
        signals = {"distance": float(rng.choice([0.1, np.nan])) if near else 1.0}
        lost = burst > 0 and guard.state != State.FALLBACK
        triggered = triggered if lost else near > 0  # a lost period repeats the last signals
        if not speed.any():
            waited = -1
        elif waited >= 0 or triggered:
            waited += 1
        if lost:
            verdict = guard.miss(out)
        else:
            measured = {"position": position} if guard.measures else {}
            out, verdict = guard.step(command(rng, k), signals=signals, **measured)
        if guard.command == "velocity":
            position = position + out.astype(np.float64) / RATE
        speed = guard.motion[1] * unit
        seen["broken"] += waited >= 50 or np.abs(speed).sum() >= 3 or abs(speed[0] - speed[1]) > 1
        seen["fallback"] += verdict.state == State.FALLBACK
        seen["shaped"] += bool(verdict.shaped)
        seen["violated"] += bool(verdict.violated)
    return seen


def guard_of(text: str, command: str = "position") -> Guardrails:
    return Guardrails(parse_spec(tomllib.loads(text.replace('"position"', f'"{command}"', 1)), "arm.guard.toml"))


@pytest.mark.parametrize(("command", "more"), [("position", POSITIONS), ("velocity", VELOCITIES)])
@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**31))
def test_what_is_enforced_is_never_violated(command: str, more: str, seed: int) -> None:
    guard = guard_of(HEAD + more, command)
    seen = run(guard, seed, 1600)
    assert (seen["violated"], seen["broken"]) == (0, 0)
    assert seen["requests"] > 0
    assert seen["fallback"] > 0
    assert seen["shaped"] > 100


@pytest.mark.parametrize(("command", "more"), [("position", POSITIONS), ("velocity", VELOCITIES)])
def test_only_watched_the_same_rules_are_violated(command: str, more: str) -> None:
    guard = guard_of((HEAD + more).replace('name = "s', 'mode = "monitor"\nname = "s'), command)
    seen = run(guard, 1, 800)
    assert seen["violated"] > 0
    assert seen["broken"] > 0
    rules = guard.temporal
    assert rules is not None
    watched = {name for i, name in enumerate(rules.names) if rules.violated_bits >> i & 1}
    assert watched == {"stop", "slow", "sent"}


def test_a_verdict_names_what_is_left_and_what_is_lost() -> None:
    lost = '[[temporal]]\nname = "lost"\nmode = "monitor"\nformula = "always far"\natoms = { far = "distance > 0.5" }\n'
    guard = guard_of(HEAD + lost)
    guard.reset(np.zeros(N))
    _, first = guard.step([0.5, 0.5, 0.5], signals={"distance": 1.0})
    assert (first.remaining, first.violated) == ({}, ())
    _, second = guard.step([0.5, 0.5, 0.5], signals={"distance": 0.1})
    assert (second.remaining, second.violated) == ({"stop": 0.5}, ("lost",))
    _, third = guard.step([0.5, 0.5, 0.5], signals={"distance": 1.0})
    assert third.remaining == {"stop": pytest.approx(0.49)}
    assert (first.remaining, second.remaining) == ({}, {"stop": 0.5})  # each its own
    assert guard.signals == ("distance",)
    for name in ("'stop'", "'together'", "'slow'", "'lost'"):
        assert f"temporal rule {name}" in guard.explain()


JOINTS = HEAD[: HEAD.index("[[temporal]]")]
POSE = 'fallback = "go-to-pose"\npose = { j1 = 0.25, j2 = 0.25, j3 = 0.25 }\n'


@pytest.mark.parametrize("mode", ["enforce", "monitor"])
def test_slow_until_at_home(mode: str) -> None:
    guard = guard_of(
        f"""{JOINTS}
[[temporal]]
name = "approach"
formula = "gentle until[0,3] home"
atoms = {{ gentle = "max(abs(velocity)) < 0.4", home = "max(abs(position - 0.25)) < 0.001" }}
mode = "{mode}"
time_to_go = 1.5
{POSE}"""
    )
    rng, home = np.random.default_rng(2), -1
    guard.reset(np.zeros(N))
    speeds, violated = np.zeros(400), False
    for k in range(400):
        out, verdict = guard.step(jump(rng, k))
        violated |= bool(verdict.violated)
        speeds[k] = np.abs(guard.motion[1] * guard.quanta * RATE).max()
        if home < 0 and (np.abs(out - 0.25) < 0.001).all():
            home = k
    assert violated == (mode == "monitor")
    if mode == "enforce":
        assert 150 - 1 < home < 300  # by the fallback, which was left 1.5 s
        assert speeds[:home].max() < 0.4
        assert speeds[home + 1 :].max() > 1.0  # from then on at full speed again


def test_a_pose_is_reached_in_time_while_the_model_pulls_away() -> None:
    guard = guard_of(
        JOINTS + '[[temporal]]\nname = "dock"\nformula = "always(low -> eventually[0,4] home)"\n'
        'atoms = { low = "battery < 0.2", home = "max(abs(position - 0.25)) < 0.001" }\n'
        + POSE
    )  # fmt: skip
    rng = np.random.default_rng(5)
    guard.reset(np.zeros(N))
    arrived = driven = 0
    for k in range(4000):
        command = bang(rng, k) if k % 1000 < 500 else broken(rng, k)
        out, verdict = guard.step(command, signals={"battery": 0.1 if k % 500 > 60 else 0.9})
        driven += verdict.state == State.FALLBACK
        arrived += bool((np.abs(out - 0.25) < 0.001).all())
        assert not verdict.violated
    assert driven > 100
    assert arrived >= 4


def test_the_example_of_the_page(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "temporal.md").read_text()
    file = tmp_path / "arm.guard.toml"
    file.write_text(page.split("```toml\n")[1].split("```")[0])
    guard = Guardrails.load(file)
    assert guard.signals == ("distance", "weight")
    guard.reset(np.zeros(2))
    for k in range(1000):
        signals = {"distance": 0.2 if 300 <= k < 700 else 1.2, "weight": 9.0 if k == 800 else 0.0}
        out, verdict = guard.step(np.full(2, 1.5 if k < 500 else -1.5), signals=signals)
        assert np.isfinite(out).all()
        assert verdict.violated == (("calm",) if k >= 800 else ())
        if 600 <= k < 700:
            assert verdict.state == State.FALLBACK  # held
            assert not guard.motion[1].any()
    assert guard.motion[1].any()
