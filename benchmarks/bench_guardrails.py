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
* monitor: one period of a temporal rule's monitor
* guard: …: `Guardrails.step` as a user calls it, for a file of each kind (guard_cases.py); `changed` is the share of
  commands that the guard changed. The torque example has six joints, the pose example 24 nodes.
* kizzasi wheel: its guardrails are ranges on its model's outputs, timed as part of a step

And the memory of `step_into` and `miss` in each of the guard's cases, by tracemalloc: what a call leaves behind, and
what it takes meanwhile.

Exit code 1 if a requirement below is not met.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from guard_cases import PERIOD, RATE_HZ, GuardCase, contenders, guard_cases, memory, plain_guard, stream
from kizzasi_bridge._kz_core import ffi, lib
from qp_peers import CONIC_PEERS, JOINTS, ROW_PEERS, Problem, Solve, by_clip, quadratics_problem, rows_problem
from racing import Call, feed, pin, race, write_results
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kizzasi_edge.guardrails import Status
from kizzasi_edge.guardrails.core import CoreDrive
from kizzasi_edge.guardrails.project import Projection
from kizzasi_edge.guardrails.rows import Quadratic, Row
from kizzasi_edge.guardrails.temporal.monitors import Monitor
from kizzasi_edge.guardrails.temporal.syntax import Verdict3, parse

FORMULA = "always(near -> eventually[0,0.5] stopped)"

Figures = dict[str, dict[str, dict[str, float]]]
"""Case → contender → p50_us, p99_us and, where there are such, excess or changed."""
Memory = dict[str, dict[str, dict[str, int]]]
"""Case → step_into or miss → kept and transient bytes."""


@dataclass
class Case:
    """Contenders by name, and what else was found out about them before the race."""

    calls: dict[str, Call] = field(default_factory=dict)
    found: dict[str, dict[str, float]] = field(default_factory=dict)


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
    Requirement("monitor", "monitor update", "p50_us", 0.5),
    Requirement("guard: a deadline rule", "guard.step", "p50_us", 3.0, "np.clip"),
)


def per_command(commands: np.ndarray, status: Status) -> Case:
    """The guard on commands that all end in ``status``, beside np.clip of the same arrays."""
    inputs = list(commands.astype(np.float32))
    fresh, into, alone = (plain_guard(np.zeros(JOINTS)) for _ in range(3))
    for each in (fresh, into, alone):
        found = [each.step(command)[1].status for command in inputs * 2][PERIOD:]
        if set(found) != {status}:
            raise AssertionError(f"commands that should all end in {status.name} end in {set(found)}")
    out = np.empty(JOINTS, np.float32)
    low, high = (np.array([getattr(limit, side) for limit in fresh.limits], np.float32) for side in ("lower", "upper"))
    drive = alone.drive
    assert isinstance(drive, CoreDrive)
    guard, sent = drive._g, drive._out_p  # the C call that step wraps; nothing public does as little
    pointers = [ffi.from_buffer("float[]", command) for command in inputs]
    return Case(
        {
            "core": feed(pointers, lambda command: lib.kzh_guard_follow(guard, command, sent)),
            "guard.step": feed(inputs, fresh.step),
            "guard.step_into": feed(inputs, lambda command: into.step_into(command, out)),
            "np.clip": feed(inputs, lambda command: np.clip(command, low, high)),
            "np.clip, out=": feed(inputs, lambda command: np.clip(command, low, high, out=out)),
        }
    )


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


def core_call(p: Problem, commands: np.ndarray) -> Call:
    projection = prepared(p)
    pointers = [ffi.from_buffer("double[]", u) for u in commands]
    return feed(pointers, lambda u: lib.kz_project(projection._p, u, ffi.NULL, projection._x_p))


def projections(p: Problem, peers: dict[str, Callable[[Problem], Solve]], commands: np.ndarray) -> Case:
    """Everyone's projection of the same commands."""
    case = Case({"kz_project": core_call(p, commands)})
    for name, make in {"Projection.run": ours, **peers, "np.clip": by_clip}.items():
        try:
            solve = make(p)
        except ImportError as missing:
            print(f"left out: {name}: {missing}")
            continue
        case.found[name] = {"excess": max(p.excess(solve(u)) for u in commands)}
        case.calls[name] = feed(list(commands), solve)
    return case


def monitor() -> Case:
    """One period of a deadline's monitor: mostly idle, now and then with a deadline running, never violated."""
    rule = Monitor(parse(FORMULA, RATE_HZ), RATE_HZ)
    values = [{"near": k % 128 == 0, "stopped": k % 128 == 60} for k in range(PERIOD)]
    atoms = [tuple(int(value[name]) for name in rule.atoms) for value in values]
    for value in atoms * 2:
        if rule.update(value) is not Verdict3.PENDING:
            raise AssertionError("the rule is kept and can still be broken: its verdict should be pending")
    return Case({"monitor update": feed(atoms, rule.update)})


def wheel(commands: np.ndarray) -> Case:
    """A step of the published wheel's smallest model with and without its guardrails, which are ranges: they cannot be
    called by themselves, so what they cost is the difference."""
    try:
        import kizzasi
    except ImportError as missing:
        print(f"left out: kizzasi ({missing})")
        return Case()
    inputs = list(commands.astype(np.float32))
    case = Case()
    for name in ("model alone", "model, 7 ranges"):
        config = kizzasi.Config(JOINTS, JOINTS, hidden_dim=8, num_layers=1, state_dim=4)
        predictor = kizzasi.Predictor(config)
        if name != "model alone":
            predictor.set_guardrails([kizzasi.ConstraintSpec(f"range {i}", -2.9, 2.9, i) for i in range(JOINTS)])
        case.calls[name] = feed(inputs, predictor.step)
    return case


def end_to_end(guarded: GuardCase) -> Case:
    calls, changed = contenders(guarded)
    return Case(calls, {"guard.step": {"changed": changed}})


def run(rounds: int, guarded: dict[str, GuardCase]) -> Figures:
    """Race every case."""
    far = np.array([np.full(JOINTS, 10.0 if k // 64 % 2 else -10.0) for k in range(PERIOD)])
    smooth = stream(1.5, 3)
    jumps = np.random.default_rng(4).permutation(smooth)
    cases = {
        "nothing active": per_command(stream(0.1, 0), Status.PASS),
        "everything clamped": per_command(far, Status.CLAMPED),
        "24 rows": projections(rows_problem(), ROW_PEERS, smooth),
        "24 rows, jumps": projections(rows_problem(), ROW_PEERS, jumps),
        "two quadratics": projections(quadratics_problem(), CONIC_PEERS, smooth),
        "two quadratics, jumps": projections(quadratics_problem(), CONIC_PEERS, jumps),
        "monitor": monitor(),
        **{f"guard: {title}": end_to_end(each) for title, each in guarded.items() if title != "nothing active"},
        "kizzasi wheel": wheel(stream(0.1, 0)),
    }
    found: Figures = {}
    for title, case in cases.items():
        times = race(case.calls, rounds)
        found[title] = {
            name: {"p50_us": float(np.median(v)), "p99_us": float(np.percentile(v, 99)), **case.found.get(name, {})}
            for name, v in times.items()
        }
    return found


def show(found: Figures, taken: Memory) -> None:
    table = Table(title=f"{JOINTS} joints, one thread, µs")
    for column in ("case", "contender", "p50", "p99", "× np.clip", "excess", "changed"):
        table.add_column(column, justify="left" if column in ("case", "contender") else "right")
    for title, rows in found.items():
        clip = rows.get("np.clip")
        for number, (name, figures) in enumerate(rows.items()):
            ratio = f"{figures['p50_us'] / clip['p50_us']:.2f}" if clip else "–"
            excess = f"{figures['excess']:.0e}" if "excess" in figures else "–"
            changed = f"{figures['changed']:.0%}" if "changed" in figures else "–"
            times = (f"{figures['p50_us']:.2f}", f"{figures['p99_us']:.2f}")
            table.add_row("" if number else escape(title), name, *times, ratio, excess, changed)
        table.add_section()
    console = Console(width=100)
    console.print(table)
    table = Table(title="bytes a call, by tracemalloc")
    for column in ("guard", "step_into keeps", "takes", "miss keeps", "takes"):
        table.add_column(column, justify="left" if column == "guard" else "right")
    for title, bytes_of in taken.items():
        table.add_row(
            escape(title),
            *(str(bytes_of[call][key]) for call in ("step_into", "miss") for key in ("kept", "transient")),
        )
    console.print(table)


def judge(found: Figures, taken: Memory) -> bool:
    """Print every requirement; whether all of them are met."""
    met = True
    for r in REQUIREMENTS:
        figure = found[r.case][r.name][r.key]
        unit = f"× {r.beside}" if r.beside else "µs"
        if r.beside:
            figure /= found[r.case][r.beside][r.key]
        met &= figure <= r.most
        print(f"{r.case}: {r.name} {r.key[:3]} ≤ {r.most:g} {unit}: {said(figure <= r.most)}, {figure:.3g}")
    kept = [f"{title} {call}" for title, of in taken.items() for call, bytes_of in of.items() if bytes_of["kept"] > 0]
    print(f"no call keeps memory: {said(not kept)}{''.join(f', {name}' for name in kept)}")
    plain = taken["nothing active"]["step_into"]["transient"]
    print(f"nothing active: step_into allocates nothing: {said(not plain)}, {plain} bytes")
    return met and not kept and not plain


def said(met: bool) -> str:
    return "met" if met else "NOT met"


def main() -> int:
    parser = argparse.ArgumentParser(description="The guard beside np.clip, QP solvers and the kizzasi wheel.")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    pin()
    guarded = guard_cases()
    found = run(options.rounds, guarded)
    taken = {title: memory(case) for title, case in guarded.items()}
    show(found, taken)
    met = judge(found, taken)
    if options.json:
        write_results(options.json, found, met, memory_bytes=taken)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
