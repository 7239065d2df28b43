"""Training speed: the parallel forward beside the step loop for every kind, and Mamba-2's gradients beside mambapy's.

    python benchmarks/bench_training.py [--json PATH] [--rounds N] [--threads N] [--kinds K ...]

Two threads, all contenders in the same run in interleaved rounds, medians. mambapy is the widely used implementation
in plain torch; its Mamba2 needs a GPU (mamba_ssm's kernels), so ours is timed against its Mamba with the parallel scan
(pscan) at the same width, depth and state, and so is our Mamba.

Requirements (exit code 1 otherwise):

* forward over 1024 steps, batch 1, without gradients: ≥ 20 × as fast as 1024 calls of `step`, for every kind
* forward and backward of our Mamba2 at 128/2, state 16, 512 steps, batch 32: faster than mambapy's
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from kizzasi_export import KINDS, build_model

INPUTS, OUTPUTS, STATE_DIM = 12, 6, 16
SIZES = ((64, 2), (128, 2))
STEPS, LEAST_RATIO = 1024, 20.0
TRAIN_STEPS, TRAIN_BATCH = 512, 32


def model_of(kind: str, hidden: int, layers: int) -> nn.Module:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_dim": hidden, "num_layers": layers, "state_dim": STATE_DIM}
    return build_model(kind, input_dim=INPUTS, output_dim=OUTPUTS, context_window=STEPS, **sizes)


def forward_contenders(kind: str, hidden: int, layers: int, batch: int) -> dict[str, Callable[[], None]]:
    model: Any = model_of(kind, hidden, layers).eval()
    x = torch.randn(batch, STEPS, INPUTS)

    @torch.no_grad()
    def parallel() -> None:
        model(x)

    @torch.no_grad()
    def loop() -> None:
        state = model.initial_state(batch)
        for row in x.unbind(1):
            _, state = model.step(row, state)

    return {"parallel": parallel, "step loop": loop}


def training_contenders() -> dict[str, Callable[[], None]]:
    """Forward and backward of the layers alone: what goes in and out of them is the same for all."""
    hidden, layers = SIZES[1]
    u = torch.randn(TRAIN_BATCH, TRAIN_STEPS, hidden)

    def ours(kind: str) -> Callable[[], None]:
        network: Any = model_of(kind, hidden, layers).network

        def run() -> None:
            v = u
            for branch in network.branches():
                v = v + branch.mixer(branch.norm(v), {})
            v.square().mean().backward()

        return run

    contenders = {f"ours, {kind}": ours(kind) for kind in ("mamba2", "mamba")}
    if importlib.util.find_spec("mambapy") is not None:
        from mambapy.mamba import Mamba, MambaConfig

        torch.manual_seed(0)
        theirs = Mamba(MambaConfig(d_model=hidden, n_layers=layers, d_state=STATE_DIM, pscan=True))
        contenders["mambapy, mamba with pscan"] = lambda: theirs(u).square().mean().backward()
    return contenders


def measure(contenders: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median seconds of each, after one warm-up round."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds + 1):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: float(np.median(values[1:])) for name, values in times.items()}


def available(kinds: list[str]) -> list[str]:
    return [kind for kind in kinds if importlib.util.find_spec(f"kizzasi_export.models.{kind}") is not None]


def main() -> int:
    parser = argparse.ArgumentParser(description="Parallel forward against the step loop; gradients against mambapy.")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS))
    parser.add_argument("--batches", nargs="*", type=int, default=[1, 16], help="only batch 1 is a requirement")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results, met = [], True
    print(f"forward over {STEPS} steps, {options.threads} threads     parallel ms   step loop ms   ratio")
    for kind in available(options.kinds):
        for hidden, layers in SIZES:
            for batch in options.batches:
                seconds = measure(forward_contenders(kind, hidden, layers, batch), options.rounds)
                ratio = seconds["step loop"] / seconds["parallel"]
                short = batch == 1 and ratio < LEAST_RATIO
                met &= not short
                print(
                    f"  {kind:<12}{hidden:>4}/{layers} batch {batch:>2}{'':11}{seconds['parallel'] * 1e3:11.2f}"
                    f"{seconds['step loop'] * 1e3:15.1f}{ratio:8.1f}{'  NOT met' if short else ''}",
                    flush=True,
                )
                results.append({"kind": kind, "size": f"{hidden}/{layers}", "batch": batch, "ratio": ratio, **seconds})
    hidden, layers = SIZES[1]
    print(f"\nforward and backward, {hidden}/{layers}, state {STATE_DIM}, {TRAIN_STEPS} steps, batch {TRAIN_BATCH}")
    training = measure(training_contenders(), options.rounds)
    for name, value in training.items():
        print(f"  {name:<36}{value * 1e3:9.1f} ms")
    theirs = [value for name, value in training.items() if name.startswith("mambapy")]
    if theirs:
        faster = training["ours, mamba2"] < theirs[0]
        met &= faster
        print(f"  requirement our mamba2 faster than mambapy's: {'met' if faster else 'NOT met'}")
    else:
        print("  mambapy is not installed: nothing to compare with")
    if options.json:
        report = {"threads": options.threads, "forward": results, "training": training, "met": met}
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
