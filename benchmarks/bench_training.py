"""Training speed: the parallel forward beside the step loop for every kind, and gradients beside mambapy's.

    python benchmarks/bench_training.py [--json PATH] [--rounds N] [--kinds mamba2 …]

Two threads, all contenders of a comparison in the same run in interleaved rounds, medians. The step loop takes 128 of
the 1024 steps and its time is scaled: a step never costs less later on (the Transformer's only grow with its cache).

mambapy is the widely used implementation in plain torch. Its Mamba2 needs a GPU (mamba_ssm's kernels), so ours is timed
beside its Mamba with the parallel scan (pscan) at the same width, depth and state, and so is our Mamba.

Exit code 1 if a requirement is not met:

* forward over 1024 steps, batch 1, without gradients: ≥ 20 × as fast as 1024 calls of `step`, for every kind and size
* forward and backward of our Mamba2 at 128/2, state 16, 512 steps, batch 32: faster than mambapy's Mamba (left out
  where mambapy is not installed)
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from racing import Call, race

from kizzasi_edge.bench import machine
from kizzasi_export import KINDS, StepModel, build_model

THREADS = 2
INPUTS, OUTPUTS, STATE_DIM = 12, 6, 16
SIZES = ("64/2", "128/2")
STEPS, LOOP_STEPS, LEAST_RATIO = 1024, 128, 20.0
TRAIN_SIZE, TRAIN_STEPS, TRAIN_BATCH = "128/2", 512, 32
OURS, THEIRS = "mamba2", "mambapy's mamba"


def model_of(kind: str, size: str) -> StepModel:
    torch.manual_seed(0)
    hidden, layers = (int(part) for part in size.split("/"))
    sizes: dict[str, Any] = {"hidden_dim": hidden, "num_layers": layers, "state_dim": STATE_DIM}
    return build_model(kind, input_dim=INPUTS, output_dim=OUTPUTS, context_window=STEPS, **sizes)


def forward_calls(kind: str, size: str) -> dict[str, Call]:
    """`STEPS` steps at once, and `LOOP_STEPS` of them one by one."""
    model = model_of(kind, size).eval()
    x = torch.randn(1, STEPS, INPUTS)

    @torch.no_grad()
    def loop() -> None:
        state = model.initial_state(1)
        for row in x[:, :LOOP_STEPS].unbind(1):
            _, state = model.step(row, state)

    return {"parallel": torch.no_grad()(lambda: model(x)), "loop": loop}


def training_calls() -> dict[str, Call]:
    """Forward and backward of the layers alone: what goes in and out of them is the same for all."""
    hidden, layers = (int(part) for part in TRAIN_SIZE.split("/"))
    u = torch.randn(TRAIN_BATCH, TRAIN_STEPS, hidden)

    def ours(kind: str) -> Call:
        network: Any = model_of(kind, TRAIN_SIZE).network

        def run() -> None:
            v = u
            for branch in network.branches():
                v = v + branch.mixer(branch.norm(v), {})
            v.square().mean().backward()

        return run

    calls = {kind: ours(kind) for kind in (OURS, "mamba")}
    try:
        from mambapy.mamba import Mamba, MambaConfig
    except ImportError:
        return calls
    torch.manual_seed(0)
    theirs = Mamba(MambaConfig(d_model=hidden, n_layers=layers, d_state=STATE_DIM, pscan=True))
    return calls | {THEIRS: lambda: theirs(u).square().mean().backward()}


def medians_ms(calls: dict[str, Call], rounds: int) -> dict[str, float]:
    return {name: float(np.median(times)) / 1e3 for name, times in race(calls, rounds).items()}


def race_forward(kind: str, size: str, rounds: int) -> dict[str, float]:
    """Race both forms of one model and print a line; {parallel_ms, loop_ms, ratio}, the loop's over all steps."""
    ms = medians_ms(forward_calls(kind, size), rounds)
    loop_ms = ms["loop"] * (STEPS // LOOP_STEPS)
    ratio = loop_ms / ms["parallel"]
    verdict = "met" if ratio >= LEAST_RATIO else "NOT met"
    print(f"  {kind:<12}{size:>6}{ms['parallel']:14.2f}{loop_ms:15.1f}{ratio:8.1f}  {verdict}", flush=True)
    return {"parallel_ms": ms["parallel"], "loop_ms": loop_ms, "ratio": ratio}


def race_training(rounds: int) -> dict[str, float]:
    """Race the gradients and print them; contender → ms."""
    found = medians_ms(training_calls(), rounds)
    print(f"\nforward + backward, {TRAIN_SIZE}, state {STATE_DIM}, {TRAIN_STEPS} steps, batch {TRAIN_BATCH}")
    for name, ms in found.items():
        print(f"  {name:<20}{ms:10.0f} ms")
    if THEIRS in found:
        verdict = "met" if found[OURS] < found[THEIRS] else "NOT met"
        print(f"  {OURS} faster than {THEIRS}: {verdict}, {found[THEIRS] / found[OURS]:.2f} ×")
    else:
        print("  mambapy is not installed: nothing to compare with")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Parallel forward against the step loop; gradients against mambapy.")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    scale = STEPS // LOOP_STEPS
    print(f"forward, {STEPS} steps, batch 1, {THREADS} threads; step loop: {scale} × the time of {LOOP_STEPS} steps")
    print(f"  {'kind':<12}{'size':>6}{'parallel ms':>14}{'step loop ms':>15}{'ratio':>8}")
    forward = {size: {kind: race_forward(kind, size, options.rounds) for kind in options.kinds} for size in SIZES}
    training = race_training(options.rounds)
    met = all(found["ratio"] >= LEAST_RATIO for rows in forward.values() for found in rows.values())
    met &= THEIRS not in training or training[OURS] < training[THEIRS]
    if options.json:
        about = machine() | {"torch": torch.__version__, "threads": THREADS}
        report = {"machine": about, "forward": forward, "training_ms": training, "met": met}
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
