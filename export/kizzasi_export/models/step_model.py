"""The deployable model: normaliser, network, head and reference model as one module.

Training, verification and the exported graph all use this module, so they cannot disagree about units.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from kizzasi_export.graph import Graph, as_array
from kizzasi_export.models.base import Network, State
from kizzasi_export.models.head import Head
from kizzasi_export.models.normalizer import Normalizer
from kizzasi_export.models.reference import ReferenceModel


class StepModel(nn.Module):
    """x (raw SI) → normalise → network → head (de-normalises) → optional reference model → y (raw SI).

    Args:
        network: the learned part; satisfies `Network`. Its last axis is the head's `raw_dim`.
        config: arguments that rebuild this module through `build_model(**config)`.
        head: what the network's output means; None = continuous.
        reference: None, or the output stage.
    """

    input_mean: Tensor
    input_std: Tensor
    output_mean: Tensor
    output_std: Tensor

    def __init__(
        self,
        network: nn.Module,
        config: Mapping[str, Any],
        head: Head | None = None,
        reference: ReferenceModel | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(network, Network):
            raise TypeError(f"{type(network).__name__} lacks forward, scan, initial_state, parity_states, step or emit")
        self.network: nn.Module = network
        self.config = dict(config)
        self.input_dim, self.output_dim = int(config["input_dim"]), int(config["output_dim"])
        self.head = Head(self.output_dim) if head is None else head
        self.reference = reference
        if reference is not None and self.head.kind != "continuous":
            raise ValueError(f"reference_tau needs a continuous head, found {self.head.kind}")
        for side, dim in (("input", self.input_dim), ("output", self.output_dim)):
            self.register_buffer(f"{side}_mean", torch.zeros(dim))
            self.register_buffer(f"{side}_std", torch.ones(dim))

    @property
    def _net(self) -> Network:
        return cast(Network, self.network)

    def set_normalizer(self, normalizer: Normalizer) -> None:
        """Adopt means and standard deviations.

        Raises:
            ValueError: a length that is not the model's input_dim or output_dim.
        """
        for side, dim in (("input", self.input_dim), ("output", self.output_dim)):
            for moment in ("mean", "std"):
                values = getattr(normalizer, f"{side}_{moment}")
                if len(values) != dim:
                    raise ValueError(f"normalizer: {side}_{moment} has {len(values)} values, the model has {dim}")
                getattr(self, f"{side}_{moment}").copy_(torch.tensor(values))

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, input_dim] → y [B, T, output_dim]."""
        return self.outputs(x)["y"]

    def outputs(self, x: Tensor) -> dict[str, Tensor]:
        """`forward` with the head's other output: ``logvar`` [B, T, out] or ``logits`` [B, T, out, vocab]."""
        found = self._headed(self._net.forward(self._normalised(x, "BT")))
        if self.reference is not None:
            found["y"] = self.reference(found["y"], x)
        return found

    def goal(self, x: Tensor) -> Tensor:
        """What the network asks for before the reference model: x [B, T, input_dim] → [B, T, output_dim]."""
        return self._headed(self._net.forward(self._normalised(x, "BT")))["y"]

    def initial_state(self, batch: int) -> State:
        """The state before the first step, of every part."""
        state = self._net.initial_state(batch)
        return state if self.reference is None else state | self.reference.initial_state(batch, self.input_mean.dtype)

    def parity_states(self, batch: int) -> list[State]:
        """See `Network`."""
        return self._net.parity_states(batch)

    def scan(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        """`outputs` from any state, and the state after it: x [B, T, input_dim] → (outputs, state)."""
        raw, after = self._net.scan(self._normalised(x, "BT"), state)
        found = self._headed(raw)
        if self.reference is not None:
            found["y"], reference = self.reference.scan(found["y"], x, state)
            after |= reference
        return found, after

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """x [B, input_dim] → (y [B, output_dim], next state)."""
        found, after = self.step_outputs(x, state)
        return found["y"], after

    def step_outputs(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        """`step` with the head's other output: x [B, input_dim] → (outputs, next state)."""
        raw, after = self._net.step(self._normalised(x, "B"), state)
        found = self._headed(raw)
        if self.reference is not None:
            found["y"], reference = self.reference.step(found["y"], x, state)
            after |= reference
        return found, after

    def emit(self, graph: Graph) -> None:
        """The whole step graph: input ``x``, the states, output ``y`` and the head's other output."""
        x = graph.input("x", (self.input_dim,))
        graph.scope("normalizer")
        raw = self._net.emit(graph, self._emit_normalised(graph, x))  # [B, raw_dim]
        graph.scope("head")
        y = self.head.emit(graph, raw, self.output_mean, self.output_std)  # [B, out]
        if self.reference is not None:
            y = self.reference.emit(graph, y, x)
        graph.output("y", y, (self.output_dim,))

    def _normalised(self, x: Tensor, lead: str) -> Tensor:
        """x [*lead, input_dim] in units of the normaliser. Raises ValueError where it is not of that shape."""
        if x.ndim != len(lead) + 1 or x.shape[-1] != self.input_dim or 0 in x.shape:  # one channel would broadcast
            wanted = ", ".join([*(f"{axis} ≥ 1" for axis in lead), str(self.input_dim)])
            raise ValueError(f"x: found shape {list(x.shape)}, expected [{wanted}]")
        return (x - self.input_mean) / self.input_std

    def _headed(self, raw: Tensor) -> dict[str, Tensor]:
        return self.head(raw, self.output_mean, self.output_std)  # type: ignore[no-any-return]

    def _emit_normalised(self, graph: Graph, x: str) -> str:
        """x [B, in] → [B, in], normalised; an identity normaliser costs no node."""
        mean, std = as_array(self.input_mean), as_array(self.input_std)
        if np.any(mean != 0):
            x = graph.op("Sub", [x, graph.const("mean", mean)])
        return graph.op("Div", [x, graph.const("std", std)]) if np.any(std != 1) else x
