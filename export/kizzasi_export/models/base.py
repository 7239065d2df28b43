"""What every model promises: the same function as a parallel scan, as a step, and as an ONNX graph."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from kizzasi_export.graph import Graph

State = dict[str, Tensor]
"""Recurrent state: name → tensor (float32, or int64 for counters), leading dimension batch."""


@runtime_checkable
class SequenceModel(Protocol):
    """A causal sequence model in raw SI units. ``forward`` equals repeated ``step``."""

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, input_dim] → y [B, T, output_dim], from the initial state."""
        ...

    def initial_state(self, batch: int) -> State:
        """The state before the first step (not assumed zero)."""
        ...

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """x [B, input_dim] → (y [B, output_dim], next state); `state` is not modified."""
        ...

    def emit(self, graph: Graph) -> None:
        """Write the step into `graph`: input ``x``, states, output ``y`` (DESIGN: the model file)."""
        ...


@runtime_checkable
class Network(Protocol):
    """The learned part inside a model, on normalised values; the last axis of its result is the head's."""

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, input_dim] → [B, T, output_dim], from the initial state."""
        ...

    def scan(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """`forward` from any state, and the state after it: T repeated steps, in parallel."""
        ...

    def initial_state(self, batch: int) -> State: ...

    def parity_states(self, batch: int) -> list[State]:
        """Where else a graph is compared with torch from: values that replace those of the initial state, of states
        that torch and the graph keep alike.
        """
        ...

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """x [B, input_dim] → ([B, output_dim], next state); `state` is not modified."""
        ...

    def emit(self, graph: Graph, x: str) -> str:
        """Value `x` [B, input_dim] → the name of the output value [B, output_dim]."""
        ...
