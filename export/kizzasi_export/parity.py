"""Measures how far onnxruntime's step strays from torch's: the figure stored in every manifest.

Errors are relative to each output's own scale (its standard deviation over the run), because a model's
outputs may be radians and metres side by side. Models must be in eval mode.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kizzasi_edge.bundle import Bundle, Manifest, Parity, ParityVector
from kizzasi_edge.engines.base import StateArray
from kizzasi_edge.engines.ort import OrtEngine
from kizzasi_edge.predictor import feedback
from kizzasi_export.models import State, StepModel

BOUND = 1e-5
WIDEST_BOUND = 1e-4
"""For a model that float32 itself does not compute to `BOUND`: a norm over few channels, decays next to 1."""
STEPS = 1024
VECTOR_STEPS = 16
SCALE_FLOOR = 1e-6

LOGVAR_FLOOR = 1.0  # a log-variance is relative by itself

Array = NDArray[np.float32]


class Stepped(Protocol):
    """What is compared with a bundle: `StepModel`, or a user's module behind the same interface."""

    input_dim: int
    output_dim: int
    input_mean: Tensor
    input_std: Tensor

    def initial_state(self, batch: int) -> State: ...

    def parity_states(self, batch: int) -> list[State]:
        """Where else to compare from: values that replace those of the initial state."""
        ...

    def step_outputs(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        """x [B, input_dim] → (outputs by name, ``y`` [B, output_dim] among them; next state)."""
        ...


@dataclass(frozen=True)
class Rollout:
    """A free run after the given inputs: outputs `source` are fed back as inputs `target`, the others are held."""

    steps: int
    source: NDArray[np.intp]
    target: NDArray[np.intp]

    @classmethod
    def of(cls, manifest: Manifest, steps: int) -> Rollout:
        """As `Predictor.predict_n` does with this model."""
        return cls(steps, *feedback(manifest.input_names, manifest.output_names))

    def next(self, row: Array, y: Array) -> Array:
        """row [B, in], y [B, out] → the following row."""
        row = row.copy()
        row[:, self.target] = y[:, self.source]
        return row


@dataclass(frozen=True)
class Deviation:
    """max |error| in the outputs' units, and relative to each output's scale."""

    max_abs_error: float
    relative_error: float

    def worst(self, other: Deviation) -> Deviation:
        """The larger of each error."""
        return Deviation(max(self.max_abs_error, other.max_abs_error), max(self.relative_error, other.relative_error))


def excitation(model: Stepped, steps: int, streams: int, seed: int) -> Array:
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
def run_torch(model: Stepped, x: Array, state: State | None = None, rollout: Rollout | None = None) -> Outputs:
    """Repeated `step`, from the initial state unless another is given: x [T, B, in] → outputs, T + rollout steps."""
    state = model.initial_state(x.shape[1]) if state is None else state
    rows: list[dict[str, Array]] = []
    row = x[0]
    for t in range(len(x) + (rollout.steps if rollout else 0)):
        row = x[t] if rollout is None or t < len(x) else rollout.next(row, rows[-1]["y"])
        found, state = model.step_outputs(torch.from_numpy(row), state)
        rows.append({name: value.numpy().copy() for name, value in found.items()})  # steps may work in place
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def run_bundle(
    bundle: Bundle, x: Array, state: Mapping[str, StateArray] | None = None, rollout: Rollout | None = None
) -> Outputs:
    """The same in onnxruntime, through the engine that robots use; `state` replaces values of the initial one."""
    engine = OrtEngine(bundle, batch=x.shape[1])
    if state is not None:
        engine.load_state({**engine.state(), **state})
    steps = len(x) + (rollout.steps if rollout else 0)
    shapes = {"y": (bundle.manifest.output_dim,), **bundle.manifest.head_outputs}
    found = {name: np.empty((steps, x.shape[1], *shape), np.float32) for name, shape in shapes.items()}
    row = x[0]
    for t in range(steps):
        row = x[t] if rollout is None or t < len(x) else rollout.next(row, found["y"][t - 1])
        engine.x[...] = row.reshape(engine.x.shape)
        engine.run()
        engine.commit()
        for name, array in {"y": engine.y, **engine.head}.items():
            found[name][t] = array.reshape(found[name][t].shape)
    return found


def deviation(found: Outputs, expected: Outputs, scale: Outputs | None = None) -> Deviation:
    """Compare two runs; a non-finite value anywhere counts as an infinite error.

    Compared are y and the head's other output, of a categorical head the logits only (y jumps between levels). The
    relative error leaves out what is within float32's last bit of the expected value.
    `scale` is what `scales` says of another run; None = of `expected`.
    """
    scale = scales(expected) if scale is None else scale
    largest, relative = 0.0, 0.0
    for name in ("logits",) if "logits" in expected else tuple(expected):
        error = np.abs(found[name].astype(np.float64) - expected[name])
        if not np.isfinite(error).all():
            return Deviation(float("inf"), float("inf"))
        # The last bit of an output with a large offset (a pressure of 1e5 Pa) is much of its scale, and rounding's.
        beyond = np.maximum(error - np.spacing(np.abs(expected[name])), 0)
        largest, relative = max(largest, float(error.max())), max(relative, float((beyond / scale[name]).max()))
    return Deviation(largest, relative)


def scales(outputs: Outputs) -> Outputs:
    """Each output's standard deviation over the run, [out] or [out, vocab], not below a floor."""
    floor = {"logvar": LOGVAR_FLOOR}
    return {
        name: np.maximum(array.astype(np.float64).std((0, 1)), floor.get(name, SCALE_FLOOR)).astype(np.float32)
        for name, array in outputs.items()
    }


def measure(model: Stepped, bundle: Bundle, *, steps: int = STEPS, seed: int = 0) -> Parity:
    """Parity of `bundle` with `model` over `steps` steps (two streams for a symbolic batch).

    The worst of the runs from the initial state and from each of the model's `parity_states`. An error above `BOUND`
    is held to four times what torch itself loses in float32, where that is more, up to `WIDEST_BOUND`.
    """
    x = excitation(model, steps, 1 if bundle.manifest.batch == 1 else 2, seed)
    expected = run_torch(model, x)
    found = deviation(run_bundle(bundle, x), expected)
    for state in model.parity_states(x.shape[1]):
        there = run_torch(model, x, model.initial_state(x.shape[1]) | state)
        start = {name: value.numpy() for name, value in state.items()}
        found = found.worst(deviation(run_bundle(bundle, x, start), there))
    head = slice(0, min(VECTOR_STEPS, steps))
    return Parity(
        steps=steps,
        max_abs_error=finite(found.max_abs_error),
        relative_error=finite(found.relative_error),
        bound=BOUND if found.relative_error <= BOUND else _attainable(model, x, expected),
        vector=ParityVector(seed=seed, x=x[head, 0].tolist(), y=expected["y"][head, 0].tolist()),
    )


def _attainable(model: Stepped, x: Array, expected: Outputs) -> float:
    """The bound that two float32 computations of a model may be held to, `expected` being torch's."""
    if not isinstance(model, StepModel):
        return BOUND
    exact = run_torch(copy.deepcopy(model).double(), x.astype(np.float64))
    return min(max(BOUND, 4 * deviation(expected, exact).relative_error), WIDEST_BOUND)


def finite(error: float) -> float:
    """JSON has no infinity; the largest float64 stands for it and fails every bound."""
    return min(error, float(np.finfo(np.float64).max))
