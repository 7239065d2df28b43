"""examples/guards: each file is loaded, driven by an adversary, and judged exactly on what is sent.

The judges know the numbers written in the files, and nothing of the guard but its quanta: what is sent is a whole
number of them, and sums over those are exact in rationals. Where a rule is taken out of its file, the same adversary
breaks it.
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from kizzasi_edge.guardrails import Guardrails, State, Verdict, senses
from kizzasi_edge.guardrails.dynamics import Dynamics
from kizzasi_edge.guardrails.spec import parse_spec

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples" / "guards"
EVERY = sorted([*(ROOT / "examples").rglob("*.guard.toml"), *(ROOT / "kizzasi_edge").rglob("*.guard.toml")])

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


@pytest.mark.parametrize("path", EVERY, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_guard_file_loads_and_explains_itself(path: Path) -> None:
    guard = Guardrails.load(path)
    text = guard.explain()
    assert str(path) in text or guard.command == "torque"
    assert all(joint in text for joint in guard.joints[:4])


@dataclass
class Run:
    """What was sent in quanta, a row per period, and what was said about it."""

    guard: Guardrails
    sent: list[I64] = field(default_factory=list)
    verdicts: list[str] = field(default_factory=list)
    given_up: list[bool] = field(default_factory=list)

    def add(self, out: npt.NDArray[np.float32], verdict: Verdict) -> None:
        raw = out.astype(np.float64) / self.guard.quanta
        assert np.array_equal(raw, np.rint(raw)), "what is sent is on the lattice"
        self.sent.append(raw.astype(np.int64))
        self.verdicts.append(verdict.status.name)
        self.given_up.append("jerk" in verdict.given_up)

    @property
    def q(self) -> I64:
        return np.array(self.sent)

    def exact(self) -> list[list[Fraction]]:
        """What was sent, as rationals in SI units."""
        quanta = [Fraction(q) for q in self.guard.quanta]
        return [[int(x) * q for x, q in zip(line, quanta, strict=True)] for line in self.sent]


def without(name: str, *rules: str) -> Guardrails:
    """The example without some of its rules."""
    data: dict[str, Any] = tomllib.loads((FOLDER / name).read_text())
    data["constraint"] = [rule for rule in data["constraint"] if rule["name"] not in rules]
    return Guardrails(parse_spec(data, FOLDER / name), FOLDER / name)


Ask = Callable[[F64], F64]


def script(rng: np.random.Generator, low: F64, high: F64, reach: F64, slow: int) -> Iterator[Ask | None]:
    """For ever: proposals as functions of where the joints are, or None for a period without one.

    Limit to limit, noise far beyond, walks at ``reach`` a period in one direction; NaN and bursts of misses; now and
    then rest, long enough to come to it. ``slow``: lengths are so many times those of a nimble robot.
    """
    n = len(low)
    for turn in itertools.count():
        kind = rng.integers(0, 7)
        target = np.where(rng.random(n) < 0.5, low, high)
        walk = reach * rng.uniform(-1.0, 1.0, n)
        length = slow * int(rng.integers(10, 60))
        if turn % 4 == 3:
            yield from [lambda q: q] * (slow * 100)
        elif kind == 0:
            yield from [None] * int(rng.integers(1, 9))
        elif kind == 1:
            yield lambda _: np.where(rng.random(n) < 0.5, np.nan, 0.0)
        elif kind in (2, 3):
            yield from [lambda _, target=target: target] * length
        elif kind == 4:
            yield from (lambda _: rng.normal(size=n) * 100.0 for _ in range(length))
        else:
            yield from [lambda q, walk=walk: q + walk] * length


def positions(
    guard: Guardrails,
    seed: int,
    periods: int,
    start: list[float],
    *,
    slow: int = 1,
    signals: Callable[[int], Mapping[str, float]] | None = None,
    every: Callable[[int], dict[str, Any]] = lambda _: {},
) -> Run:
    """Drive position commands; ``signals`` and other arguments of the step by period."""
    rng = np.random.default_rng(seed)
    run, out = Run(guard), np.empty(len(guard.joints), np.float32)
    low, high, reach = (np.array([getattr(c, key) for c in guard.lattice]) * guard.quanta for key in ("lo", "hi", "w"))
    guard.reset(start)
    asks = script(rng, low, high, reach, slow)
    for period in range(periods):
        here = guard.motion[0] * guard.quanta
        ask = next(asks)
        given = every(period)
        if ask is None:
            run.add(out, guard.miss(out))
            continue
        if "position" in guard.measures:
            given["position"] = here
        if signals is not None:
            given["signals"] = signals(period)
        run.add(out, guard.step_into(ask(here), out, **given))
    return run


def assert_lattice(run: Run) -> None:
    """Range, step and change of step of positions, in integers."""
    lo, hi, w, h = (np.array([getattr(cell, key) for cell in run.guard.lattice]) for key in ("lo", "hi", "w", "h"))
    q = run.q
    v = np.diff(q, axis=0)
    assert ((lo <= q) & (q <= hi)).all()
    assert (np.abs(v) <= w).all()
    assert (np.abs(np.diff(v, axis=0)) <= h).all()


# ---- conservation ----------------------------------------------------------------------------------------------------

OPEN = [0.4, 0.3, 0.3]


@pytest.mark.parametrize("seed", range(3))
def test_conservation_the_sum_stays_within_its_tolerance(seed: int) -> None:
    run = positions(Guardrails.load(FOLDER / "conservation.guard.toml"), seed, 4000, OPEN)
    assert_lattice(run)
    sums = [sum(line, Fraction(0)) for line in run.exact()]
    assert all(abs(total - 1) <= Fraction("0.02") for total in sums)
    assert max(abs(total - 1) for total in sums) > Fraction("0.0199"), "the tolerance is used"
    assert {"PASS", "PROJECTED", "HOLD"} <= set(run.verdicts)


def test_conservation_is_not_kept_without_its_rule() -> None:
    run = positions(without("conservation.guard.toml", "flow"), 0, 4000, OPEN)
    assert max(abs(sum(line, Fraction(0)) - 1) for line in run.exact()) > Fraction("0.5")


def exchange(speed: float) -> tuple[list[str], float]:
    """Open a and close b at ``speed`` per second: statuses, and the fastest that it went."""
    guard = Guardrails.load(FOLDER / "conservation.guard.toml")
    guard.reset(OPEN)
    want, v = np.array(OPEN), 0.0
    sent, statuses = [want.copy()], []
    for _ in range(60):
        v = min(v + 0.05, speed)
        want = want + np.array([v, -v, 0.0]) / guard.rate_hz
        out, verdict = guard.step(want)
        sent.append(out.astype(np.float64))
        statuses.append(verdict.status.name)
        if verdict.status.name == "PROJECTED":
            assert "flow" in verdict.rules
    return statuses, float(np.abs(np.diff(sent, axis=0)).max() * guard.rate_hz)


def test_conservation_an_exchange_passes_up_to_the_documented_speed() -> None:
    statuses, fastest = exchange(0.3)
    assert set(statuses) == {"PASS"}
    assert fastest == pytest.approx(0.3, abs=1e-4)
    statuses, fastest = exchange(0.7)
    assert statuses[-1] == "PROJECTED"
    assert round(fastest, 2) == 0.36


# ---- energy ----------------------------------------------------------------------------------------------------------


def energies(run: Run) -> list[Fraction]:
    """½·(ẋ² + 3·ẏ²) of the head, in J: x = (a + b)/2, y = (a − b)/2."""
    rate, found, lines = Fraction(run.guard.rate_hz), [], run.exact()
    for before, now in itertools.pairwise(lines):
        a, b = ((new - old) * rate for old, new in zip(before, now, strict=True))
        found.append((((a + b) / 2) ** 2 + 3 * ((a - b) / 2) ** 2) / 2)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_energy_stays_below_its_bound_through_misses_and_nan(seed: int) -> None:
    run = positions(Guardrails.load(FOLDER / "energy.guard.toml"), seed, 4000, [0.1, -0.2])
    assert_lattice(run)
    found = energies(run)
    assert max(found) <= Fraction("0.4")
    assert max(found) > Fraction("0.399"), "the bound is reached"
    assert {"PASS", "PROJECTED", "HOLD", "BRAKE"} <= set(run.verdicts)


def test_energy_is_not_kept_without_its_rule() -> None:
    assert max(energies(positions(without("energy.guard.toml", "energy"), 0, 4000, [0.0, 0.0]))) > 1


# ---- velocity --------------------------------------------------------------------------------------------------------


def velocities(guard: Guardrails, seed: int, periods: int) -> tuple[Run, I64]:
    """Drive velocity commands; the joints move by what is sent. Also their positions, in what a quantum makes."""
    rng = np.random.default_rng(seed)
    run, out = Run(guard), np.empty(3, np.float32)
    unit = guard.quanta / guard.rate_hz
    most = np.array([cell.hi for cell in guard.lattice]) * guard.quanta
    asks = script(rng, -3.0 * most, 3.0 * most, most, 1)
    q = np.zeros(3, np.int64)
    where = []
    guard.reset(q * unit)
    for _ in range(periods):
        ask = next(asks)
        if ask is None:
            run.add(out, guard.miss(out))
        else:
            run.add(out, guard.step_into(ask(np.zeros(3)), out, position=q * unit))
        q = q + run.sent[-1]
        where.append(q)
    return run, np.array(where)


@pytest.mark.parametrize("seed", range(3))
def test_velocity_speeds_their_changes_jerk_turn_and_the_masts_range(seed: int) -> None:
    guard = Guardrails.load(FOLDER / "velocity.guard.toml")
    run, where = velocities(guard, seed, 6000)
    v = np.vstack([np.zeros((2, 3), np.int64), run.q])
    per_s2, per_s3 = (Fraction(guard.rate_hz) ** k for k in (1, 2))
    quanta = [Fraction(q) for q in guard.quanta]
    for joint, (speed, acceleration, jerk) in enumerate(((12.0, 30, 900), (12.0, 30, 900), (1.5, 6, 300))):
        q = quanta[joint]
        change = np.diff(v[:, joint])
        assert int(np.abs(v[:, joint]).max()) * q <= Fraction(speed) * Fraction("0.9")
        assert int(np.abs(change).max()) * q * per_s2 <= acceleration
        kept = np.abs(np.diff(change))[~np.array(run.given_up)]
        assert int(kept.max()) * q * per_s3 <= jerk
    assert any(run.given_up), "misses and NaN brake, and braking gives jerk up"
    turn = [(right - left) / 4 for left, right, _ in run.exact()]
    assert max(map(abs, turn)) <= Fraction("1.5")
    assert max(map(abs, turn)) > Fraction("1.49")
    mast = where[:, 2] * (guard.quanta[2] / guard.rate_hz)
    assert np.abs(mast).max() <= 2.5
    assert np.abs(mast).max() > 2.45
    assert np.abs(where[:, 0] * guard.quanta[0] / guard.rate_hz).max() > 10.0, "wheels turn without end"


# ---- the arm with everything -----------------------------------------------------------------------------------------

ARM = FOLDER / "arm_full.guard.toml"
HOME = [0.0, -1.5, 1.0, 0.0, 0.0, 0.0]
PAN, LIFT, ELBOW, WRIST_1, WRIST_2, WRIST_3 = range(6)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], dict[str, Any]]:
    """The guard's clock, two milliseconds a period: a busy machine is not what is tested. Gives a fresh stamp."""
    now = [1_000_000_000]
    monkeypatch.setattr(senses, "time", SimpleNamespace(monotonic_ns=lambda: now[0]))

    def period(_: int) -> dict[str, Any]:
        now[0] += 2_000_000
        return {"stamp_ns": now[0]}

    return period


@pytest.mark.parametrize("seed", range(2))
def test_the_arm_keeps_everything_at_once(seed: int, clock: Callable[[int], dict[str, Any]]) -> None:
    guard = Guardrails.load(ARM)
    assert guard.signals == ("distance", "payload")
    rng = np.random.default_rng(100 + seed)
    near = np.repeat(rng.random(120) < 0.3, 100)
    run = positions(
        guard,
        seed,
        12_000,
        HOME,
        slow=6,
        every=clock,
        signals=lambda k: {"distance": 0.3 if near[k] else 2.0, "payload": 5.0 * float(k % 500 < 30)},
    )
    assert_lattice(run)
    rate, lines = Fraction(guard.rate_hz), run.exact()
    for line in lines:
        assert abs(line[ELBOW]) <= Fraction("2.6")
        assert abs(line[WRIST_3]) <= 4
        assert -4 <= line[LIFT] + line[ELBOW] <= Fraction("1.5")
    fastest, rest = Fraction(0), []
    for before, now in itertools.pairwise(lines):
        v = [(new - old) * rate for old, new in zip(before, now, strict=True)]
        assert abs(v[PAN]) <= Fraction("1.2")
        assert max(abs(v[WRIST_1]), abs(v[WRIST_2])) <= 2
        assert abs(v[PAN]) + abs(v[ELBOW]) <= 2
        energy = v[WRIST_1] ** 2 / 4 + v[WRIST_2] ** 2 / 5
        assert energy <= Fraction("0.3")
        fastest = max(fastest, energy)
        rest.append(max(map(abs, v)) < Fraction("0.01"))
    assert fastest > Fraction("0.29")
    assert_deadlines(near[: len(rest)], rest, 750)
    assert_jerk(run)
    assert_efforts(run)
    assert {"PASS", "PROJECTED", "BRAKE", "HOLD"} <= set(run.verdicts)
    assert guard.state < State.REARM, "nothing has latched"


def test_the_arm_is_at_rest_in_time_and_stays_there_while_somebody_is_near(
    clock: Callable[[int], dict[str, Any]],
) -> None:
    guard = Guardrails.load(ARM)
    guard.reset(HOME)
    states, resting, remaining = [], [], []
    for k in range(2000):
        here = guard.motion[0] * guard.quanta
        signals = {"distance": 0.2 if 400 <= k < 1800 else 2.0, "payload": 0.0}
        _, verdict = guard.step([5.0, -3.0, -2.0, 5.0, 5.0, -3.0], position=here, signals=signals, **clock(k))
        states.append(verdict.state)
        resting.append(bool((np.abs(guard.motion[1] * guard.quanta * guard.rate_hz) < 0.01).all()))
        remaining.append(verdict.remaining.get("stop_when_near"))
        assert not verdict.violated
    assert State.FALLBACK not in states[:500], "the model keeps commanding while there is time"
    assert State.FALLBACK in states[500:1150]
    assert not any(resting[300:500])
    assert all(resting[1150:1800]), "in time, and held"
    assert remaining[400] == pytest.approx(1.5, abs=0.01)
    assert states[1999] is State.NOMINAL
    assert not resting[1999], "gone on after the person has left"


def assert_deadlines(near: npt.NDArray[np.bool_], rest: list[bool], periods: int) -> None:
    """Each period with somebody near is followed by rest within ``periods``, as far as the run shows."""
    at_rest = np.flatnonzero(rest)
    for k in np.flatnonzero(near[: len(rest) - periods]):
        following = at_rest[np.searchsorted(at_rest, k)]
        assert following - k <= periods


def assert_jerk(run: Run) -> None:
    """Outside BRAKE, the change of the change of step, in what the file says [rad/s³]."""
    limits = [400, 400, 400, 600, 600, 500]
    jerk = np.abs(np.diff(run.q, n=3, axis=0))[~np.array(run.given_up[3:])].max(0)
    for found, quantum, limit in zip(jerk, run.guard.quanta, limits, strict=True):
        assert int(found) * Fraction(quantum) * Fraction(run.guard.rate_hz) ** 3 <= limit


def assert_efforts(run: Run) -> None:
    """Of every seventh period the torque at the heaviest and the lightest links the file allows for."""
    robot = Dynamics(ROOT / "kizzasi_edge/demo/assets/arm.urdf", run.guard.joints)
    rotors = np.array([0.4, 0.4, 0.4, 0.08, 0.08, 0.08])
    effort = np.array([150.0, 100.0, 150.0, 28.0, 28.0, 28.0])
    q = run.q * run.guard.quanta
    v = np.diff(q, axis=0) * run.guard.rate_hz
    a = np.diff(v, axis=0) * run.guard.rate_hz
    most = 0.0
    for k in range(0, len(a), 7):
        here, speed = q[k + 1], v[k]
        links = robot.link_inertia(here) @ a[k] + robot.bias(here, speed)
        for mass in (0.9, 1.0, 1.1):
            torque = np.abs(mass * links + rotors * a[k])
            assert (torque <= effort * (1.0 + 1e-9)).all()
            most = max(most, float((torque / effort).max()))
    assert most > 0.5, "the arm is worked"


@pytest.mark.parametrize(
    ("given", "state", "cause"),
    [
        ({"moved": 0.1}, State.BRAKE, "SENSOR_JUMP"),
        ({"moved": 0.1}, State.BRAKE, "SENSOR_RANGE"),
        ({"moved": np.nan}, State.BRAKE, "SENSOR_NON_FINITE"),
        ({"moved": 0.051}, State.DERATED, "TRACKING_WARN"),
        ({"moved": 0.21}, State.STOPPED, "TRACKING_STOP"),
        ({"age_ms": 25}, State.HOLD, "STALE"),
        ({"gap_ms": 150}, State.HOLD, "CLOCK_JUMP"),
        ({"command": [np.nan] * 6}, State.HOLD, "NON_FINITE"),
    ],
)
def test_what_each_key_of_faults_watches(
    given: dict[str, Any], state: State, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_000_000_000]
    monkeypatch.setattr(senses, "time", SimpleNamespace(monotonic_ns=lambda: now[0]))
    guard = Guardrails.load(ARM)
    start = [0.0, -1.5, 1.0, 6.25, 0.0, 0.0]
    guard.reset(start)

    def step(command: list[float] = start, moved: float = 0.0, age_ms: int = 1, gap_ms: int = 2) -> Verdict:
        position = [*start[:3], start[3] + moved, *start[4:]]
        now[0] += gap_ms * 1_000_000
        stamp = now[0] - age_ms * 1_000_000
        signals = {"distance": 9.0, "payload": 0.0}
        return guard.step(command, position=position, signals=signals, stamp_ns=stamp)[1]

    assert step().state is State.NOMINAL
    found = step(**given)
    assert found.state is state
    assert cause in {str(event.name) for event in found.cause}
    assert cause.lower() in found.rules


def test_active_ms_stops_an_arm_whose_commands_are_always_changed(clock: Callable[[int], dict[str, Any]]) -> None:
    guard = Guardrails.load(ARM)
    guard.reset(HOME)
    signals = {"distance": 9.0, "payload": 0.0}
    states = []
    for k in range(2600):
        here = guard.motion[0] * guard.quanta
        _, verdict = guard.step(here + 1e-3 * (-1) ** k, position=here, signals=signals, **clock(k))
        states.append(verdict.state)
    assert states.index(State.STOPPED) == 2500  # what was changed is known a period later
    for k in range(20):
        guard.clear()
        here = guard.motion[0] * guard.quanta
        _, verdict = guard.step(here, position=here, signals=signals, **clock(k))
    assert verdict.state is State.NOMINAL
