"""What a guard of poses makes of a noisy stream: one page, before and after.

    python examples/skeleton/show.py --out skeleton.html

A person walks; the "model" adds noise to every node, loses a hand, swaps the legs, jumps, and fails. Every proposal
goes through skeleton.guard.toml. Needs `pip install 'kizzasi-edge[sim]'` (matplotlib).
"""

from __future__ import annotations

import argparse
import html
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from kizzasi_edge import page
from kizzasi_edge.guardrails import Guardrails
from kizzasi_edge.guardrails.bones import PoseDrive
from kizzasi_edge.guardrails.skeleton import Skeleton

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GUARD = Path(__file__).with_name("skeleton.guard.toml")
SECONDS = 5.0
STEPS_HZ = 0.9
NOISE = 0.02  # m
BEFORE, AFTER = "tab:red", "tab:green"

F64 = npt.NDArray[np.float64]

SWING = {"LeftLeg": 0.45, "RightLeg": -0.45, "LeftForeArm": -0.4, "RightForeArm": 0.4}
"""How far [rad] a limb swings forwards and back, by the node where its first bone ends."""
BEND = {"LeftFoot": 0.5, "RightFoot": -0.5}
"""The knees, bent while their legs swing."""
HANG = {"LeftForeArm": -1.3, "RightForeArm": 1.3}
"""How far the arms hang down from the rest pose, in which they are stretched out."""


@dataclass(frozen=True)
class Worst:
    """The worst of a stream (NaN apart): ``length`` error [m], ``bend`` beyond a cone [rad], ``turn`` of a bone
    [rad/s], ``speed`` of the root [m/s]."""

    length: float
    bend: float
    turn: float
    speed: float


def walk(skeleton: Skeleton, rate_hz: float) -> F64:
    """A walking person (periods, nodes, 3), each pose the skeleton's own."""
    time_s = np.arange(round(SECONDS * rate_hz)) / rate_hz
    phase = 2 * np.pi * STEPS_HZ * time_s
    poses = np.zeros((len(time_s), len(skeleton.names), 3))
    poses[:, 0] = np.column_stack([0 * phase, 0.93 + 0.02 * np.cos(2 * phase), 1.1 * time_s])
    swing, hang = np.zeros(poses.shape[:2]), np.zeros(len(skeleton.names))
    for i, (name, p) in enumerate(zip(skeleton.names[1:], skeleton.parents[1:], strict=True), 1):
        bend = BEND.get(name, 0.0)
        swing[:, i] = (
            swing[:, p] - SWING.get(name, 0.0) * np.sin(phase) + abs(bend) * (1 + np.cos(phase) * np.sign(bend))
        )
        hang[i] = hang[p] + HANG.get(name, 0.0)
        x, y, z = skeleton.rest_directions[i]
        x, y = x * math.cos(hang[i]) - y * math.sin(hang[i]), x * math.sin(hang[i]) + y * math.cos(hang[i])
        s, c = np.sin(swing[:, i]), np.cos(swing[:, i])
        poses[:, i] = poses[:, p] + skeleton.lengths[i] * np.column_stack(
            [np.full_like(s, x), y * c - z * s, y * s + z * c]
        )
    return poses


def spoil(poses: F64, skeleton: Skeleton, rng: np.random.Generator) -> tuple[F64, dict[int, str]]:
    """What a model might make of them, and the periods in which something special happens."""
    spoilt = poses + rng.normal(scale=NOISE, size=poses.shape)
    names, n = skeleton.names, len(poses)
    hand, side = names.index("LeftHand"), [name.replace("Left", "Right") for name in names]
    events = {
        n // 6: "hand lost",
        2 * n // 6: "legs swapped",
        3 * n // 6: "jump",
        4 * n // 6: "stretched",
        5 * n // 6: "NaN",
    }
    lost, swapped, jump, stretched, nan = events
    spoilt[lost : lost + 8, hand:] += rng.normal(scale=0.5, size=3)
    for i, other in enumerate(side):
        if "Leg" in other or "Foot" in other:
            j = names.index(other)
            spoilt[swapped : swapped + 5, [i, j]] = spoilt[swapped : swapped + 5, [j, i]]
    spoilt[jump : jump + 6] += [0.6, 0.3, 0.0]
    spoilt[stretched : stretched + 6] = spoilt[stretched : stretched + 6] * [1.0, 1.4, 1.0]
    spoilt[nan : nan + 6, 3] = np.nan
    return spoilt, events


def worst(skeleton: Skeleton, poses: F64, rate_hz: float) -> Worst:
    """Read from the positions alone."""
    parents = np.array(skeleton.parents[1:])
    bones = poses[:, 1:] - poses[:, parents]
    norms = np.linalg.norm(bones, axis=2)
    bent = np.flatnonzero(parents > 0)
    excess = _angle(bones[:, bent], bones[:, parents[bent] - 1]) - skeleton.cones[1:][bent]
    return Worst(
        float(np.nanmax(np.abs(norms - skeleton.lengths[1:]))),
        max(float(np.nanmax(excess)), 0.0),
        float(np.nanmax(_angle(bones[1:], bones[:-1]))) * rate_hz,
        float(np.nanmax(np.linalg.norm(np.diff(poses[:, 0], axis=0), axis=1))) * rate_hz,
    )


def _angle(a: F64, b: F64) -> F64:
    angle: F64 = np.arctan2(np.linalg.norm(np.cross(a, b), axis=2), np.sum(a * b, axis=2))
    return angle


def guarded(guard: Guardrails, proposals: F64) -> tuple[F64, list[str]]:
    """What is sent for each proposal, and its status."""
    answers = [guard.step(pose.reshape(-1).astype(np.float32)) for pose in proposals]
    sent = np.array([pose for pose, _ in answers], np.float64).reshape(proposals.shape)
    return sent, [verdict.status.name for _, verdict in answers]


def write_page(path: Path, seed: int) -> bool:
    """Write the page; whether all that was sent kept the skeleton (to the rounding of float32) and its speeds."""
    guard = Guardrails.load(GUARD)
    assert isinstance(guard.drive, PoseDrive)
    skeleton, rule, rate = guard.drive.skeleton, guard.spec.constraint[0], guard.rate_hz
    proposals, events = spoil(walk(skeleton, rate), skeleton, np.random.default_rng(seed))
    sent, statuses = guarded(guard, proposals)
    before, after = worst(skeleton, proposals, rate), worst(skeleton, sent, rate)
    limits = (0.0, 0.0, rule.turn_speed, rule.root_speed)
    rounding = 4 * 2.0**-24 * float(np.abs(sent).max())
    slack = (rounding, *(rounding / skeleton.lengths[1:].min() * scale for scale in (1, rate)), rounding * rate)
    rows = list(
        zip(
            ("bone length, error [m]", "beyond a cone [rad]", "turn of a bone [rad/s]", "speed of the root [m/s]"),
            (before.length, before.bend, before.turn, before.speed),
            (after.length, after.bend, after.turn, after.speed),
            limits,
            slack,
            strict=True,
        )
    )
    clean = all(got <= limit + more for _, _, got, limit, more in rows)
    count = ", ".join(f"{statuses.count(name)} {name}" for name in sorted(set(statuses)))
    body = [
        page.head("poses of a skeleton"),
        f"<h1>{len(sent)} poses: <span class={'ok' if clean else 'bad'}>"
        f"{'every one is the skeleton’s' if clean else 'limits were VIOLATED'}</span></h1><p>{count}</p>",
        "<table><tr><th>worst<th>proposed<th>sent<th>limit",
        *(f"<tr><td>{what}<td>{a:.3g}<td>{b:.3g}<td>{limit:g}" for what, a, b, limit, _ in rows),
        "</table><p>Sent in float32, which rounds what the guard computes.</p>",
        page.section("Before and after the guard, from the side", _figures(skeleton, proposals, sent, events)),
        page.section("Lengths of all bones, as parts of their own", _lengths(skeleton, proposals, sent, rate, events)),
        f"<h2>What the guard promises</h2><pre>{html.escape(guard.explain())}</pre></html>",
    ]
    path.write_text("\n".join(body), encoding="utf-8")
    return clean


def _figures(skeleton: Skeleton, proposals: F64, sent: F64, events: dict[int, str]) -> Figure:
    figure = page.figure(6.5)
    moments = {0: "walking", **{at + 2: name for at, name in events.items()}}
    grid = figure.subplots(2, len(moments), sharey=True)
    for column, (at, name) in enumerate(moments.items()):
        for axes, poses, colour in zip(grid[:, column], (proposals, sent), (BEFORE, AFTER), strict=True):
            pose = poses[at] - [0, 0, 1.1 * at * SECONDS / len(sent)]
            for i, p in enumerate(skeleton.parents[1:], 1):
                axes.plot(pose[[i, p], 2], pose[[i, p], 1], ".-", color=colour, ms=3, lw=1.3)
            axes.set(xlim=(-1, 1), ylim=(-0.3, 2.6), aspect="equal", xticks=[])
        grid[0, column].set_title(name, fontsize=9)
    grid[0, 0].set_ylabel("proposed [m]")
    grid[1, 0].set_ylabel("sent [m]")
    return figure


def _lengths(skeleton: Skeleton, proposals: F64, sent: F64, rate: float, events: dict[int, str]) -> Figure:
    figure = page.figure(3.5)
    axes = figure.subplots()
    time_s = np.arange(len(sent)) / rate
    for poses, colour, width in ((proposals, BEFORE, 0.4), (sent, AFTER, 1.5)):
        bones = poses[:, 1:] - poses[:, skeleton.parents[1:]]
        axes.plot(time_s, np.linalg.norm(bones, axis=2) / skeleton.lengths[1:], color=colour, lw=width)
    for at, name in events.items():
        axes.axvline(at / rate, color="0.3", lw=0.5, ls=":")
        axes.text(at / rate, 2.55, f" {name}", fontsize=8, va="top")
    axes.set(xlabel="time [s]", ylim=(0, 2.6), ylabel="length / declared")
    axes.margins(x=0)
    return figure


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="of the noise")
    parser.add_argument("--out", type=Path, default=Path("skeleton.html"))
    options = parser.parse_args()
    clean = write_page(options.out, options.seed)
    sys.stdout.write(f"{options.out}\n")
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
