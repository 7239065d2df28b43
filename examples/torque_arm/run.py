"""A torque policy on the simulated arm, with and without the torque guard, the plant's masses off by 20 %.

    python examples/torque_arm/run.py --seconds 60 --json report.json

The policy is the `robotics` preset, untrained: 12 inputs (6 positions, 6 velocities), 6 torques, its outputs scaled to
the efforts; whatever it asks for, the raw limits of the URDF must hold. Other adversaries follow. Needs
`pip install 'kizzasi-edge[sim,export,urdf-dynamics]'`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from kizzasi_edge import Predictor
from kizzasi_edge.demo.torque_physics import ADVERSARIES, HOME, TorqueArm, adversary
from kizzasi_edge.guardrails.torque import TorqueGuard

GUARD = Path(__file__).with_name("arm.guard.toml")


def export_policy(path: Path, guard: TorqueGuard, seed: int = 1) -> Path:
    """Write the untrained preset as a bundle at `path`, its outputs scaled to twice the efforts."""
    import torch

    from kizzasi_export import build_model, export_step
    from kizzasi_export.models.normalizer import Normalizer
    from kizzasi_export.presets import preset

    torch.manual_seed(seed)
    n = len(guard.joints)
    model = build_model(**preset("robotics", input_dim=2 * n, output_dim=n))
    scale = Normalizer((0.0,) * 2 * n, (1.0,) * 2 * n, (0.0,) * n, tuple(2.0 * float(most) for most in guard.effort))
    names = [f"{joint}/{kind}" for kind in ("position", "velocity") for joint in guard.joints]
    export_step(
        model,
        path,
        sample_rate_hz=guard.rate_hz,
        input_names=names,
        output_names=list(guard.joints),
        normalizer=scale,
        input_units=["rad"] * n + ["rad/s"] * n,
        output_units=["N·m"] * n,
    )
    return path


def run(
    proposer: str, model: Path, limits: TorqueGuard, mass_scale: float, seconds: float, *, guarded: bool
) -> dict[str, Any]:
    """One run from HOME; `proposer` is "policy" or one of ADVERSARIES; not `guarded`: clipped to the efforts only."""
    guard = limits if guarded else None
    arm, dt = TorqueArm(mass_scale=mass_scale), 1.0 / limits.rate_hz
    arm.reset(HOME)
    policy = Predictor(model, guardrails=guard) if proposer == "policy" else None  # type: ignore[arg-type]
    propose = None if policy else adversary(proposer, limits.effort, seed=1)
    x, sent = np.zeros(2 * len(arm.joints), np.float32), np.zeros(len(arm.joints), np.float32)
    before = (0, 0) if guard is None else (guard.interventions, guard.infeasible)
    if guard is not None:
        guard.reset()
    took = []
    for _ in range(round(seconds * limits.rate_hz)):
        if policy is not None:
            x[:] = np.concatenate([arm.q, arm.v])
            if guard is None:
                sent[:] = np.clip(policy.step(x), -limits.effort, limits.effort)
            else:
                policy.step_into(x, sent, position=arm.q, velocity=arm.v)
        elif propose is not None:
            torque = propose(arm.q, arm.v)
            if guard is None:
                sent[:] = np.clip(np.nan_to_num(torque), -limits.effort, limits.effort)
            else:
                start = time.perf_counter_ns()
                guard.step_into(torque, sent, position=arm.q, velocity=arm.v)
                took.append((time.perf_counter_ns() - start) * 1e-3)
        arm.step(sent, dt)
    witness = arm.witness
    low, high, fast = witness.extremes
    lower, upper = (np.array([getattr(limit, key) for limit in limits.limits]) for key in ("lower", "upper"))
    speed = np.array([limit.velocity for limit in limits.limits])
    report = {
        "proposer": proposer,
        "guarded": guarded,
        "mass_scale": mass_scale,
        "seconds": seconds,
        "violations": {"position": int(witness.position.sum()), "velocity": int(witness.velocity.sum())},
        "margin_used": {
            "position": float(max(0.0, np.max([lower - low, high - upper]))),
            "velocity": float(max(0.0, (fast - speed).max())),
        },
    }
    if guard is not None:
        changed, infeasible = guard.interventions - before[0], guard.infeasible - before[1]
        report |= {"interventions": changed, "infeasible": infeasible}
        if took:
            report["guard_us"] = {"p50": float(np.percentile(took, 50)), "p99": float(np.percentile(took, 99))}
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="simulated time of each run")
    parser.add_argument("--json", type=Path, help="write all reports as JSON")
    options = parser.parse_args()
    guard = TorqueGuard.load(GUARD)
    sys.stdout.write(guard.explain() + "\n\n")
    reports = []
    with tempfile.TemporaryDirectory() as scratch:
        model = export_policy(Path(scratch) / "torque.onnx", guard)
        for proposer in ("policy", *ADVERSARIES):
            for guarded, scale in ((False, 1.0), (True, 0.8), (True, 1.0), (True, 1.2)):
                report = run(proposer, model, guard, scale, options.seconds, guarded=guarded)
                reports.append(report)
                sys.stdout.write(json.dumps(report) + "\n")
                sys.stdout.flush()
    if options.json:
        options.json.write_text(json.dumps(reports, indent=1))
    return int(any(any(report["violations"].values()) for report in reports if report["guarded"]))


if __name__ == "__main__":
    sys.exit(main())
