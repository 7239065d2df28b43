"""How often rules that couple joints change the commands of a robot that has little need of them.

    python benchmarks/coupled_share.py [--json PATH] [--seconds S]

The demo's arm on unseen targets: the expert's setpoints, and those of the trained policy, as it gave them to the
simulated arm behind the guard without rules. Each stream is replayed to that guard and to guards with one rule more, or
all of them:

* wrist: a row on two positions, wrist_2 − wrist_3
* speeds: rows on two velocities, |shoulder_pan + shoulder_lift|
* ellipsoid: a quadratic on all positions

Each is wider by a margin, from the home pose, than anything that the expert does; below 0 it cuts some of it off. A
tick is touched if the guard with the rule did not pass its command and the guard without did.
"""

from __future__ import annotations

import argparse
import json
import os
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from kizzasi_edge import Predictor
from kizzasi_edge.bench import machine
from kizzasi_edge.demo.expert import HOME, JOINTS, RATE_HZ, random_pose, random_targets, reference_trajectory
from kizzasi_edge.demo.physics import ASSETS
from kizzasi_edge.demo.tracking import drive
from kizzasi_edge.guardrails import Guardrails, Status
from kizzasi_edge.guardrails.spec import parse_spec

F64 = npt.NDArray[np.float64]
FILE = ASSETS / "arm.guard.toml"
MARGINS = (0.1, 0.0, -0.1)
STREAMS = 4


def guard(constraints: list[dict[str, Any]]) -> Guardrails:
    """The demo's guard with ``constraints`` added."""
    data = tomllib.loads(FILE.read_text())
    data["constraint"] = constraints
    return Guardrails(parse_spec(data, FILE), FILE)


def rules(expert: F64, margin: float) -> dict[str, list[dict[str, Any]]]:
    """By name, the constraints to be added. ``expert`` (streams, ticks, joints): what they leave room for."""
    pan, lift, wrist_2, wrist_3 = (JOINTS[i] for i in (0, 1, 4, 5))
    middle = float(HOME[4] - HOME[5])
    twist = middle + (1 + margin) * (float((expert[..., 4] - expert[..., 5]).max()) - middle)
    speed = (1 + margin) * float(np.abs(np.diff(expert[..., 0] + expert[..., 1], axis=-1)).max()) * RATE_HZ
    radius = (1 + margin) * float(np.linalg.norm(expert - HOME, axis=-1).max())
    center = dict(zip(JOINTS, HOME.tolist(), strict=True))
    wrist = {"kind": "linear", "a": {wrist_2: 1.0, wrist_3: -1.0}, "max": twist}
    speeds = {"kind": "linear", "on": "velocity", "a": {pan: 1.0, lift: 1.0}, "min": -speed, "max": speed}
    ellipsoid = {"kind": "quadratic", "diagonal": dict.fromkeys(JOINTS, 1.0), "center": center, "max": radius**2}
    named = {"wrist": wrist, "speeds": speeds, "ellipsoid": ellipsoid}
    each = {name: [{"name": name} | rule] for name, rule in named.items()}
    return each | {"all": [rule for one in each.values() for rule in one]}


def policy_commands(start: F64, targets: F64) -> F64:
    """What the policy asks for, (ticks, joints), driving the simulated arm behind the guard without rules."""
    policy, commands = Predictor(ASSETS / "arm.onnx"), []

    def driver(measured: F64, target: F64) -> npt.ArrayLike:
        commands.append(policy.step(np.concatenate([measured, target])))
        return commands[-1]

    drive(driver, start, targets, guard([]), noise=1e-4)
    return np.array(commands, np.float64)


def statuses(guard: Guardrails, start: F64, commands: F64) -> npt.NDArray[np.int64]:
    """The status of each tick (ticks,)."""
    guard.reset(start)
    return np.array([guard.step(command)[1].status for command in commands])


def touched(commands: F64, starts: F64, constraints: list[dict[str, Any]]) -> dict[str, float]:
    """Shares of all ticks by status, of those that the constraints touched."""
    shares: Counter[str] = Counter()
    plain, ruled = guard([]), guard(constraints)
    for start, stream in zip(starts, commands, strict=True):
        status = statuses(ruled, start, stream)
        changed = (status != Status.PASS) & (statuses(plain, start, stream) == Status.PASS)
        shares.update(Status(int(value)).name for value in status[changed])
    return {name: count / commands[..., 0].size for name, count in shares.items()}


def measure(seconds: float, seed: int = 1) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """By stream, rule and margin: what :func:`touched` says."""
    rng = np.random.default_rng(seed)
    starts = random_pose(rng, STREAMS)
    targets = random_targets(rng, STREAMS, round(seconds * RATE_HZ))
    expert = reference_trajectory(starts, targets)
    policy = np.array([policy_commands(*each) for each in zip(starts, targets, strict=True)])
    return {
        stream: {
            rule: {f"{margin:+.0%}": touched(commands, starts, rules(expert, margin)[rule]) for margin in MARGINS}
            for rule in rules(expert, 0.0)
        }
        for stream, commands in (("expert", expert), ("policy", policy))
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="How often coupled rules change commands with little need of them.")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each stream")
    options = parser.parse_args()
    found = measure(options.seconds)
    table = Table(title=f"{STREAMS} streams of {options.seconds:g} s at {RATE_HZ:g} Hz: % of ticks touched, by margin")
    for column in ("stream", "rule", *(f"{margin:+.0%}" for margin in MARGINS)):
        table.add_column(column)
    for stream, by_rule in found.items():
        for rule, by_margin in by_rule.items():
            table.add_row(stream, rule, *(describe(shares) for shares in by_margin.values()))
    Console(width=110).print(table)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "share": found}, indent=2) + "\n")


def describe(shares: dict[str, float]) -> str:
    parts = ", ".join(f"{name} {100 * share:.2f}" for name, share in shares.items())
    return f"{100 * sum(shares.values()):.2f}" + (f" ({parts})" if parts else "")


if __name__ == "__main__":
    main()
