"""What a model engine is: one step of the model, its buffers and its state, and nothing else.

Guards, names and input checks live in the Predictor, so that every engine is small enough to compare with
another one bit by bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
StateArray = npt.NDArray[np.float32] | npt.NDArray[np.int64]


class Engine(Protocol):
    """A model's step and its state buffers. Not thread-safe: one engine belongs to one thread.

    Attributes:
        name: "ort" or "native".
        x: the input buffer, float32 (input_dim,), or (batch, input_dim) when opened with batch > 1. SI units.
        y: the output buffer of the last run, float32 (output_dim,) or (batch, output_dim). SI units.
        head: the buffers of the head's other outputs by name (`Manifest.head_outputs`), batch as in y.
    """

    name: str
    x: FloatArray
    y: FloatArray
    head: dict[str, FloatArray]

    def run(self) -> None:
        """Computes y and the next state from x and the state, which stays as it is until commit().

        Raises ModelError when the model's kernels fail.
        """

    def commit(self) -> None:
        """Adopts the next state computed by the last run()."""

    def state(self) -> dict[str, StateArray]:
        """Copies of the state tensors by name; the batch comes first."""

    def load_state(self, state: Mapping[str, StateArray]) -> None:
        """Replaces the state. Raises SnapshotError, changing nothing, when a name, shape or dtype differs."""

    def reset(self) -> None:
        """Back to the model's initial state."""

    def fork(self) -> Engine:
        """An engine on the same weights with buffers of its own, starting from a copy of this state."""
