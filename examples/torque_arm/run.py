"""A torque policy on the simulated arm, with and without the guard, the plant's masses off by 20 %.

    python examples/torque_arm/run.py --seconds 60 --json report.json

The policy is the `robotics` preset, untrained: 12 inputs (6 positions, 6 velocities), 6 torques, its outputs scaled to
twice the efforts, stepped by onnxruntime; whatever it asks for, the raw limits of the URDF must hold. Saboteurs
follow (kizzasi_edge/demo/torque_physics.py). With `--noise` the guard and the policy see the encoders through Gaussian
noise of 1e-4 rad and 5e-3 rad/s. Needs `pip install 'kizzasi-edge[sim,export,urdf-dynamics]'`.
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

from kizzasi_edge import Guardrails, Predictor
from kizzasi_edge.demo.torque_physics import ADVERSARIES, HOME, TorqueArm, adversary
from kizzasi_edge.guardrails.verdict import Status

GUARD = Path(__file__).with_name("arm.guard.toml")
NOISE = (1e-4, 5e-3)
"""Standard deviations of what the sensors say, rad and rad/s."""


def efforts(guard: Guardrails) -> np.ndarray:
    return np.array([limit.effort for limit in guard.limits])


def export_policy(path: Path, guard: Guardrails, seed: int = 1) -> Path:
    """Write the untrained preset as a bundle at `path`, its outputs scaled to twice the efforts."""
    import torch

    from kizzasi_export import build_model, export_step
    from kizzasi_export.models.normalizer import Normalizer
    from kizzasi_export.presets import preset

    torch.manual_seed(seed)
    n = len(guard.joints)
    model = build_model(**preset("robotics", input_dim=2 * n, output_dim=n))
    scale = Normalizer((0.0,) * 2 * n, (1.0,) * 2 * n, (0.0,) * n, tuple((2.0 * efforts(guard)).tolist()))
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
    proposer: str,
    model: Path,
    guard: Guardrails,
    mass_scale: float,
    seconds: float,
    *,
    guarded: bool,
    noise: bool = False,
) -> dict[str, Any]:
    """One run from HOME; `proposer` is "policy" or one of ADVERSARIES; not `guarded`: clipped to the efforts only."""
    arm, dt, most = TorqueArm(mass_scale=mass_scale), 1.0 / guard.rate_hz, efforts(guard)
    n, spread, rng = len(arm.joints), np.repeat(NOISE, len(arm.joints)) * noise, np.random.default_rng(2)
    arm.reset(HOME)
    guard.reset(HOME)
    policy = Predictor(model, guardrails=guard if guarded else None) if proposer == "policy" else None
    propose = None if policy else adversary(proposer, most, seed=1)
    seen, x, sent = np.zeros(2 * n), np.zeros(2 * n, np.float32), np.zeros(n, np.float32)
    interventions, took = 0, []
    for _ in range(round(seconds * guard.rate_hz)):
        seen[:n], seen[n:] = arm.q, arm.v
        if noise:
            seen += spread * rng.standard_normal(2 * n)
        x[:] = seen
        verdict = None
        if policy is not None and guarded:
            policy.step_into(x, sent, position=seen[:n], velocity=seen[n:])
            verdict = policy.verdict
        elif policy is not None:
            sent[:] = np.clip(policy.step(x), -most, most)
        elif propose is not None:
            torque = propose(arm.q, arm.v)
            if guarded:
                start = time.perf_counter_ns()
                verdict = guard.step_into(torque, sent, position=seen[:n], velocity=seen[n:])
                took.append((time.perf_counter_ns() - start) * 1e-3)
            else:
                sent[:] = np.clip(np.nan_to_num(torque), -most, most)
        interventions += verdict is not None and verdict.status is not Status.PASS
        arm.step(sent, dt)
    witness = arm.witness
    report: dict[str, Any] = {
        "proposer": proposer,
        "guarded": guarded,
        "noise": noise,
        "mass_scale": mass_scale,
        "seconds": seconds,
        "violations": {
            "position": int(witness.position.sum()),
            "velocity": int(witness.velocity.sum()),
            "effort": int(arm.overloads.sum()),
        },
        "least_margin": arm.margins,
    }
    if guarded:
        report |= {"interventions": interventions, "state": guard.state.name}
    if took:
        report["guard_us"] = {"p50": float(np.percentile(took, 50)), "p99": float(np.percentile(took, 99))}
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="simulated time of each run")
    parser.add_argument("--noise", action="store_true", help="noisy sensors, and only guarded runs")
    parser.add_argument("--json", type=Path, help="write all reports as JSON")
    options = parser.parse_args()
    guard = Guardrails.load(GUARD)
    sys.stdout.write(guard.explain() + "\n\n")
    reports = []
    with tempfile.TemporaryDirectory() as scratch:
        model = export_policy(Path(scratch) / "torque.onnx", guard)
        for proposer in ("policy", *ADVERSARIES):
            for guarded, scale in ((False, 1.0), (True, 0.8), (True, 1.0), (True, 1.2)):
                if options.noise and not guarded:
                    continue
                report = run(proposer, model, guard, scale, options.seconds, guarded=guarded, noise=options.noise)
                reports.append(report)
                sys.stdout.write(json.dumps(report) + "\n")
                sys.stdout.flush()
    if options.json:
        options.json.write_text(json.dumps(reports, indent=1))
    return int(any(any(report["violations"].values()) for report in reports if report["guarded"]))


if __name__ == "__main__":
    sys.exit(main())
