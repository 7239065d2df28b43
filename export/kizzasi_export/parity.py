"""Measures how far onnxruntime's step strays from torch's: the figure stored in every manifest.

Errors are relative to each output's own scale (its standard deviation over the run), because a model's
outputs may be radians and metres side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from kizzasi_edge.bundle import Bundle, Parity, ParityVector
from kizzasi_edge.engines.base import StateArray
from kizzasi_edge.engines.ort import OrtEngine
from kizzasi_export.models import State, StepModel

BOUND = 1e-5
STEPS = 1024
VECTOR_STEPS = 16
SCALE_FLOOR = 1e-6

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Deviation:
    """max |error| in the outputs' units, and relative to each output's scale."""

    max_abs_error: float
    relative_error: float


def excitation(model: StepModel, steps: int, streams: int, seed: int) -> Array:
    """A seeded input sequence [steps, streams, input_dim] in the model's units.

    Coloured (time constant 50 steps) plus a little white noise, with the normaliser's mean and spread: it
    moves every output through its range, also behind a slow reference model.
    """
    rng = np.random.default_rng(seed)
    shape = (steps, streams, model.input_dim)
    drive, noise = rng.standard_normal(shape), rng.standard_normal(shape)
    slow = np.empty(shape)
    pole = np.exp(-1 / 50)
    slow[0] = drive[0]
    for t in range(1, steps):
        slow[t] = pole * slow[t - 1] + np.sqrt(1 - pole**2) * drive[t]
    mean, std = model.input_mean.cpu().numpy(), model.input_std.cpu().numpy()
    return (mean + std * (slow + 0.1 * noise)).astype(np.float32)


Outputs = dict[str, Array]
"""A run's outputs by name: ``y`` [T, B, out] and the head's other one, [T, B, ...]."""


@torch.no_grad()
def run_torch(model: StepModel, x: Array, state: State | None = None) -> Outputs:
    """Repeated `step`, from the initial state unless another is given: x [T, B, in] → outputs."""
    model.eval()
    state = model.initial_state(x.shape[1]) if state is None else state
    rows = []
    for row in x:
        found, state = model.step_outputs(torch.from_numpy(row), state)
        rows.append({name: value.numpy() for name, value in found.items()})
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def run_bundle(bundle: Bundle, x: Array, state: Mapping[str, StateArray] | None = None) -> Outputs:
    """The same in onnxruntime, through the engine that robots use."""
    engine = OrtEngine(bundle, batch=x.shape[1])
    if state is not None:
        engine.load_state(state)
    shapes = {"y": (bundle.manifest.output_dim,), **bundle.manifest.head_outputs}
    found = {name: np.empty((*x.shape[:2], *shape), np.float32) for name, shape in shapes.items()}
    for t, row in enumerate(x):
        engine.x[...] = row.reshape(engine.x.shape)
        engine.run()
        engine.commit()
        for name, array in {"y": engine.y, **engine.head}.items():
            found[name][t] = array.reshape(found[name][t].shape)
    return found


def compared(outputs: Outputs) -> Array:
    """What parity is measured on, [T, B, n]: the logits where there are some (y then jumps between levels)."""
    kept = [array for name, array in outputs.items() if "logits" not in outputs or name == "logits"]
    return np.concatenate([array.reshape(*array.shape[:2], -1) for array in kept], -1)


def deviation(y: Array, reference: Array) -> Deviation:
    """Compare two runs [T, B, out]; a non-finite value anywhere counts as an infinite error."""
    error = np.abs(y.astype(np.float64) - reference)
    if not np.isfinite(error).all():
        return Deviation(float("inf"), float("inf"))
    scale = np.maximum(reference.astype(np.float64).std((0, 1)), SCALE_FLOOR)  # [out]
    return Deviation(float(error.max()), float((error / scale).max()))


def measure(model: StepModel, bundle: Bundle, *, steps: int = STEPS, seed: int = 0) -> Parity:
    """Parity of `bundle` with `model` over `steps` steps (two streams for a symbolic batch)."""
    x = excitation(model, steps, 1 if bundle.manifest.batch == 1 else 2, seed)
    expected = run_torch(model, x)
    found = deviation(compared(run_bundle(bundle, x)), compared(expected))
    head = slice(0, min(VECTOR_STEPS, steps))
    # JSON has no infinity; the largest float64 stands for it and fails every bound.
    largest = np.finfo(np.float64).max
    return Parity(
        steps=steps,
        max_abs_error=min(found.max_abs_error, largest),
        relative_error=min(found.relative_error, largest),
        bound=BOUND,
        vector=ParityVector(seed=seed, x=x[head, 0].tolist(), y=expected["y"][head, 0].tolist()),
    )
