"""The guard's time per command beside a bare np.clip, QP solvers on the same rows, and the kizzasi wheel's ranges.

    python benchmarks/bench_guardrails.py [--json PATH] [--rounds N]

Seven joints, one thread pinned to one core, all contenders of a case in the same run in interleaved rounds. Every
contender is fed the same smooth stream of commands, one after the other, as a robot would: solvers are set up once
and only take the new command, warm where they can. Peers that are not installed are left out with a line:
pip install daqp osqp proxsuite clarabel kizzasi==0.2.3

* nothing active: commands that the guard passes; the core is its C call alone
* everything clamped: commands far outside, by turns on either side
* 24 rows: the nearest point of a box and 24 rows; `excess` is by how much the worst answer breaks one of them
* two quadratics: the same with a box and two ellipsoids
* …, jumps: the same commands in random order, so that the last answer is of little help
* temporal: one period of a rule's monitor
* kizzasi wheel: its guardrails are ranges on its model's outputs, timed as part of a step

Exit code 1 if a requirement below is not met.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from kizzasi_bridge._kz_core import ffi, lib
from racing import Call, pin, race
from rich.console import Console
from rich.table import Table

from kizzasi_edge.bench import machine
from kizzasi_edge.guardrails import Guardrails, Status
from kizzasi_edge.guardrails.project import Projection
from kizzasi_edge.guardrails.rows import Quadratic, Row
from kizzasi_edge.guardrails.temporal.monitors import Monitor
from kizzasi_edge.guardrails.temporal.syntax import Verdict3, parse

JOINTS, ROWS, PERIOD, RATE_HZ = 7, 24, 512, 500
FORMULA = "always(near -> eventually[0,0.5] stopped)"

Solve = Callable[[np.ndarray], np.ndarray]


@dataclass
class Case:
    """Contenders by name, and what their answers are checked for before the race."""

    calls: dict[str, Call] = field(default_factory=dict)
    excess: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Requirement:
    """``name`` takes at most ``most`` µs, or ``most`` times ``beside``."""

    case: str
    name: str
    key: str
    most: float
    beside: str | None = None


REQUIREMENTS = (
    Requirement("nothing active", "core", "p50_us", 1.0),
    Requirement("nothing active", "guard.step", "p50_us", 1.0, "np.clip"),
    Requirement("24 rows", "kz_project", "p50_us", 2.0),
    Requirement("24 rows", "kz_project", "p99_us", 5.0),
    Requirement("two quadratics", "kz_project", "p50_us", 5.0),
    Requirement("two quadratics", "kz_project", "p99_us", 20.0),
    Requirement("temporal", "monitor update", "p50_us", 0.5),
)


def stream(scale: float, seed: int, harmonics: int = 3) -> list[np.ndarray]:
    """One second of smooth commands (7,) around 0, a closed curve, of about ``scale`` in each joint."""
    rng = np.random.default_rng(seed)
    phase = 2 * np.pi * np.arange(PERIOD) / PERIOD
    waves = [
        rng.normal(size=JOINTS) * np.sin(k * phase[:, None] + rng.uniform(0, 7, JOINTS))
        for k in range(1, harmonics + 1)
    ]
    curve = np.sum(waves, axis=0)
    return list(np.ascontiguousarray(curve * scale / curve.std()))


def feed(inputs: Sequence[Any], act: Callable[[Any], object]) -> Call:
    """A call that acts on the next input; what that costs is the same for everybody."""
    following = cycle(inputs).__next__
    return lambda: act(following())


def guard() -> Guardrails:
    builder = Guardrails.builder(rate_hz=RATE_HZ, velocity_scale=1.0)
    for i in range(JOINTS):
        builder.joint(f"j{i}", position=(-2.9, 2.9), velocity=20.0, acceleration=300.0)
    made = builder.build()
    made.reset(np.zeros(JOINTS))
    return made


def per_command(commands: list[np.ndarray], status: Status) -> Case:
    """The guard on commands that all end in ``status``, beside np.clip of the same arrays."""
    inputs = [np.asarray(command, np.float32) for command in commands]
    fresh, into, alone = guard(), guard(), guard()
    for each in (fresh, into, alone):
        found = [each.step(command)[1].status for command in inputs * 2][PERIOD:]
        if set(found) != {status}:
            raise AssertionError(f"commands that should all end in {status.name} end in {set(found)}")
    out = np.empty(JOINTS, np.float32)
    low, high = (np.array([getattr(limit, side) for limit in fresh.limits], np.float32) for side in ("lower", "upper"))
    core = alone._core  # the C call that step wraps; nothing public does as little
    pointers = [ffi.from_buffer("float[]", command) for command in inputs]
    return Case(
        {
            "core": feed(pointers, lambda command: lib.kzh_guard_step(core._g, command, core._out_p)),
            "guard.step": feed(inputs, fresh.step),
            "guard.step_into": feed(inputs, lambda command: into.step_into(command, out)),
            "np.clip": feed(inputs, lambda command: np.clip(command, low, high)),
            "np.clip, out=": feed(inputs, lambda command: np.clip(command, low, high, out=out)),
        }
    )


@dataclass(frozen=True, eq=False)
class Problem:
    """min |x − u|² over |x| ≤ ``half``, ``a`` x ≤ ``b``, x'``q``x ≤ 1 each."""

    half: np.ndarray
    a: np.ndarray
    b: np.ndarray
    q: list[np.ndarray]

    def excess(self, x: np.ndarray) -> float:
        parts = [np.abs(x) - self.half, self.a @ x - self.b, np.array([x @ q @ x - 1 for q in self.q])]
        return max(0.0, *(float(part.max()) for part in parts if part.size))


def rows_problem() -> Problem:
    a = np.random.default_rng(1).normal(size=(ROWS, JOINTS))
    a /= np.linalg.norm(a, axis=1)[:, None]
    return Problem(np.ones(JOINTS), a, np.full(ROWS, 0.8), [])


def quadratics_problem() -> Problem:
    rng = np.random.default_rng(2)
    factors = [rng.normal(size=(JOINTS, JOINTS)) / 2 for _ in range(2)]
    return Problem(np.ones(JOINTS), np.empty((0, JOINTS)), np.empty(0), [m.T @ m for m in factors])


def prepared(p: Problem) -> Projection:
    rows = [Row(f"row {j}", "position", a, b) for j, (a, b) in enumerate(zip(p.a, p.b, strict=True))]
    zero = np.zeros(JOINTS)
    projection = Projection(JOINTS, rows, [Quadratic(f"q {k}", "position", q, zero, 1.0) for k, q in enumerate(p.q)])
    projection.lo[:], projection.hi[:] = -p.half, p.half
    return projection


def ours(p: Problem) -> Solve:
    projection = prepared(p)

    def solve(u: np.ndarray) -> np.ndarray:
        projection.u[:] = u
        projection.run()
        return projection.x

    return solve


def core_call(p: Problem, commands: list[np.ndarray]) -> Call:
    projection = prepared(p)
    pointers = [ffi.from_buffer("double[]", u) for u in commands]
    return feed(pointers, lambda u: lib.kz_project(projection._p, u, ffi.NULL, projection._x_p))


def by_daqp(p: Problem) -> Solve:
    import daqp

    model = daqp.Model()
    upper, lower = np.concatenate([p.half, p.b]), np.concatenate([-p.half, np.full(len(p.b), -1e30)])
    model.setup(np.eye(JOINTS), np.zeros(JOINTS), np.ascontiguousarray(p.a), upper, lower)

    def solve(u: np.ndarray) -> np.ndarray:
        model.update(f=-u)
        return np.asarray(model.solve()[0])

    return solve


def by_osqp(p: Problem) -> Solve:
    import osqp
    from scipy import sparse

    matrix = sparse.csc_matrix(np.vstack([np.eye(JOINTS), p.a]))
    upper, lower = np.concatenate([p.half, p.b]), np.concatenate([-p.half, np.full(len(p.b), -np.inf)])
    solver = osqp.OSQP()
    identity = sparse.csc_matrix(np.eye(JOINTS))
    solver.setup(identity, np.zeros(JOINTS), matrix, lower, upper, verbose=False, eps_abs=1e-6, eps_rel=1e-6)

    def solve(u: np.ndarray) -> np.ndarray:
        solver.update(q=-u)
        return np.asarray(solver.solve().x)

    return solve


def by_proxsuite(p: Problem) -> Solve:
    from proxsuite import proxqp

    qp = proxqp.dense.QP(JOINTS, 0, JOINTS + len(p.b))
    upper, lower = np.concatenate([p.half, p.b]), np.concatenate([-p.half, np.full(len(p.b), -1e20)])
    qp.settings.initial_guess = proxqp.InitialGuess.WARM_START_WITH_PREVIOUS_RESULT
    qp.settings.eps_abs = 1e-6
    qp.init(np.eye(JOINTS), np.zeros(JOINTS), None, None, np.vstack([np.eye(JOINTS), p.a]), lower, upper)
    qp.solve()

    def solve(u: np.ndarray) -> np.ndarray:
        qp.update(g=-u)
        qp.solve()
        return np.asarray(qp.results.x)

    return solve


def by_clarabel(p: Problem) -> Solve:
    import clarabel
    from scipy import sparse

    box = np.vstack([np.eye(JOINTS), -np.eye(JOINTS), p.a])
    blocks, bounds = [box], [np.concatenate([p.half, p.half, p.b])]
    cones: list[Any] = [clarabel.NonnegativeConeT(len(box))]
    for q in p.q:  # |L'x| ≤ 1
        blocks.append(np.vstack([np.zeros((1, JOINTS)), -np.linalg.cholesky(q).T]))
        bounds.append(np.concatenate([[1.0], np.zeros(JOINTS)]))
        cones.append(clarabel.SecondOrderConeT(JOINTS + 1))
    settings = clarabel.DefaultSettings()
    settings.verbose = settings.presolve_enable = False
    matrix, identity = sparse.csc_matrix(np.vstack(blocks)), sparse.csc_matrix(np.eye(JOINTS))
    solver = clarabel.DefaultSolver(identity, np.zeros(JOINTS), matrix, np.concatenate(bounds), cones, settings)

    def solve(u: np.ndarray) -> np.ndarray:
        solver.update(q=-u)
        return np.asarray(solver.solve().x)

    return solve


def projections(p: Problem, peers: dict[str, Callable[[Problem], Solve]], commands: list[np.ndarray]) -> Case:
    """Everyone's projection of the same commands."""
    case = Case({"kz_project": core_call(p, commands)})
    for name, make in {"Projection.run": ours, **peers, "np.clip": by_clip}.items():
        try:
            solve = make(p)
        except ImportError as missing:
            print(f"left out: {name}: {missing}")
            continue
        case.excess[name] = max(p.excess(solve(u)) for u in commands)
        case.calls[name] = feed(commands, solve)
    return case


def by_clip(p: Problem) -> Solve:
    return lambda u: np.clip(u, -p.half, p.half)


def temporal() -> Case:
    """One period of a deadline's monitor: mostly idle, now and then with a deadline running, never violated."""
    monitor = Monitor(parse(FORMULA, RATE_HZ), RATE_HZ)
    values = [{"near": k % 128 == 0, "stopped": k % 128 == 60} for k in range(PERIOD)]
    atoms = [tuple(int(value[name]) for name in monitor.atoms) for value in values]
    for value in atoms * 2:
        if monitor.update(value) is not Verdict3.PENDING:
            raise AssertionError("the rule is kept and can still be broken: its verdict should be pending")
    return Case({"monitor update": feed(atoms, monitor.update)})


def wheel(commands: list[np.ndarray]) -> Case:
    """A step of the published wheel's smallest model with and without its guardrails, which are ranges: they cannot be
    called by themselves, so what they cost is the difference."""
    try:
        import kizzasi
    except ImportError as missing:
        print(f"left out: kizzasi ({missing})")
        return Case()
    inputs = [np.asarray(command, np.float32) for command in commands]
    case = Case()
    for name in ("model alone", "model, 7 ranges"):
        config = kizzasi.Config(JOINTS, JOINTS, hidden_dim=8, num_layers=1, state_dim=4)
        predictor = kizzasi.Predictor(config)
        if name != "model alone":
            predictor.set_guardrails([kizzasi.ConstraintSpec(f"range {i}", -2.9, 2.9, i) for i in range(JOINTS)])
        case.calls[name] = feed(inputs, predictor.step)
    return case


def run(rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """Race every case: case → name → p50_us, p99_us and, for projections, excess."""
    far = [np.full(JOINTS, 10.0 if k // 64 % 2 else -10.0) for k in range(PERIOD)]
    conic = {"Clarabel": by_clarabel}
    smooth = stream(1.5, 3)
    jumps = list(np.random.default_rng(4).permutation(smooth))
    peers = {"DAQP": by_daqp, "OSQP": by_osqp, "ProxSuite": by_proxsuite, **conic}
    cases = {
        "nothing active": per_command(stream(0.1, 0), Status.PASS),
        "everything clamped": per_command(far, Status.CLAMPED),
        "24 rows": projections(rows_problem(), peers, smooth),
        "24 rows, jumps": projections(rows_problem(), peers, jumps),
        "two quadratics": projections(quadratics_problem(), conic, smooth),
        "two quadratics, jumps": projections(quadratics_problem(), conic, jumps),
        "temporal": temporal(),
        "kizzasi wheel": wheel(stream(0.1, 0)),
    }
    found: dict[str, dict[str, dict[str, float]]] = {}
    for title, case in cases.items():
        times = race(case.calls, rounds)
        found[title] = {
            name: {"p50_us": float(np.median(v)), "p99_us": float(np.percentile(v, 99))} for name, v in times.items()
        }
        for name, excess in case.excess.items():
            found[title][name]["excess"] = excess
    return found


def show(found: dict[str, dict[str, dict[str, float]]]) -> None:
    table = Table(title=f"{JOINTS} joints, one thread, µs")
    for column in ("case", "contender", "p50", "p99", "× np.clip", "excess"):
        table.add_column(column, justify="left" if column in ("case", "contender") else "right")
    for title, contenders in found.items():
        clip = contenders.get("np.clip")
        for number, (name, figures) in enumerate(contenders.items()):
            ratio = f"{figures['p50_us'] / clip['p50_us']:.2f}" if clip else "–"
            excess = f"{figures['excess']:.0e}" if "excess" in figures else "–"
            times = (f"{figures['p50_us']:.2f}", f"{figures['p99_us']:.2f}")
            table.add_row("" if number else title, name, *times, ratio, excess)
        table.add_section()
    Console(width=100).print(table)


def judge(found: dict[str, dict[str, dict[str, float]]]) -> bool:
    """Print every requirement; whether all of them are met."""
    met = True
    for r in REQUIREMENTS:
        figure = found[r.case][r.name][r.key]
        unit = f"× {r.beside}" if r.beside else "µs"
        if r.beside:
            figure /= found[r.case][r.beside][r.key]
        met &= figure <= r.most
        verdict = "met" if figure <= r.most else "NOT met"
        print(f"{r.case}: {r.name} {r.key[:3]} ≤ {r.most:g} {unit}: {verdict}, {figure:.3g}")
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description="The guard beside np.clip, QP solvers and the kizzasi wheel.")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    pin()
    found = run(options.rounds)
    show(found)
    met = judge(found)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "cases": found, "met": met}, indent=2) + "\n")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
