"""The shape that all our networks share: a residual stream through pre-normed branches.

    u ← input_projection(x)     u ← u + mixer(norm(u)) for each branch     y ← output_projection(final_norm(u))

An architecture is its mixers, and the names that the reference implementation gives to norms and mixers. Everything
that walks over the branches is here, once: forward, scan, step and emit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from numbers import Integral, Real
from operator import attrgetter
from typing import Any

from torch import Tensor, nn

from kizzasi_export.graph import Graph
from kizzasi_export.models.base import State
from kizzasi_export.models.norm import Norm

Shared = dict[str, Any]
"""What the branches of one call hand to each other, by name: tensors, or value names while emitting."""


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes that every architecture has; subclasses add their own. Every int is a whole number ≥ 1."""

    input_dim: int
    output_dim: int
    hidden_dim: int = 64
    state_dim: int = 16
    num_layers: int = 2

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "int" or (field.type == "int | None" and value is not None):
                check_size(field.name, value)
            elif field.type == "float" and not isinstance(value, Real):
                raise ValueError(f"{field.name} = {value!r}, expected a number")


def check_size(name: str, value: object, least: int = 1) -> None:
    """Raises ValueError where `value` is no whole number, or smaller than `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ValueError(f"{name} = {value!r}, expected a whole number ≥ {least}")
    if value < least:
        raise ValueError(f"{name} = {value}, expected ≥ {least}")


class Mixer(nn.Module):
    """One branch: a causal function of u with a state of its own, whose names are local to the branch.

    `states` are those names; `shared` is what `ResidualNetwork.advance` and earlier branches of the same call have put
    there.
    """

    states: tuple[str, ...] = ()

    def initial_state(self, batch: int) -> State:
        """The state before the first step, name → [batch, ...]."""
        raise NotImplementedError

    def forward(self, u: Tensor, shared: Shared) -> Tensor:
        """u [B, T, hidden] → [B, T, hidden], from the initial state."""
        return self.scan(u, self.initial_state(len(u)), shared)[0]

    def scan(self, u: Tensor, state: State, shared: Shared) -> tuple[Tensor, State]:
        """u [B, T, hidden] → ([B, T, hidden], state after it): T steps from `state`, parallel over time."""
        raise NotImplementedError

    def step(self, u: Tensor, state: State, shared: Shared) -> tuple[Tensor, State]:
        """u [B, hidden] → ([B, hidden], next state); `state` is not modified."""
        raise NotImplementedError

    def emit(self, g: Graph, u: str, index: int, shared: Shared) -> str:
        """The step as nodes: value `u` [B, 1, hidden] → value [B, 1, hidden]; states are named ``<name>{index}``."""
        raise NotImplementedError


@dataclass(frozen=True)
class Branch:
    """One residual branch. `index` is appended to its states' names."""

    index: int
    norm: Norm
    mixer: Mixer


class ResidualNetwork(nn.Module):
    """input_projection → branches → output_projection, on normalised values.

    Subclasses register their modules under the reference's names and return them from `branches` and `final_norm`.
    """

    def __init__(self, cfg: NetworkConfig) -> None:
        super().__init__()
        self.input_projection = nn.Linear(cfg.input_dim, cfg.hidden_dim)
        self.output_projection = nn.Linear(cfg.hidden_dim, cfg.output_dim)

    def branches(self) -> list[Branch]:
        """The residual branches in order."""
        raise NotImplementedError

    def final_norm(self) -> Norm:
        """The norm before the output projection."""
        raise NotImplementedError

    def entry_norm(self) -> Norm | None:
        """A norm after the input projection, where the architecture has one (RWKV's ln0)."""
        return None

    def own_state(self, batch: int) -> State:
        """State that belongs to no branch (a transformer's position)."""
        return {}

    def advance(self, state: State, steps: int) -> tuple[Shared, State]:
        """What `own_state` means to the branches for the next `steps` steps, and the own state after them."""
        return {}, {}

    def emit_advance(self, g: Graph) -> Shared:
        """`advance` for one step, as nodes."""
        return {}

    def initial_state(self, batch: int) -> State:
        """The states of all branches, ``<name>{index}`` [batch, ...], and the network's own."""
        state = self.own_state(batch)
        for branch in self.branches():
            state |= {f"{name}{branch.index}": value for name, value in branch.mixer.initial_state(batch).items()}
        return state

    def parity_states(self, batch: int) -> list[State]:
        """See `Network`: nowhere else by default."""
        return []

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, input_dim] → [B, T, output_dim]."""
        shared, _ = self.advance(self.own_state(len(x)), x.shape[1])
        u = self._enter(x)  # [B, T, hidden]
        for branch in self.branches():
            u = u + branch.mixer(branch.norm(u), shared)  # [B, T, hidden]
        return self._leave(u)

    def scan(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """x [B, T, input_dim] → ([B, T, output_dim], state after it)."""
        return self._walk(x, state, x.shape[1], attrgetter("scan"))

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """x [B, input_dim] → ([B, output_dim], next state)."""
        return self._walk(x, state, 1, attrgetter("step"))

    def _walk(
        self, x: Tensor, state: State, steps: int, method: Callable[[Mixer], Callable[..., tuple[Tensor, State]]]
    ) -> tuple[Tensor, State]:
        shared, after = self.advance(state, steps)
        u = self._enter(x)
        for branch in self.branches():
            i, mixer = branch.index, branch.mixer
            before = {name: state[f"{name}{i}"] for name in mixer.states}
            out, own = method(mixer)(branch.norm(u), before, shared)
            after |= {f"{name}{i}": value for name, value in own.items()}
            u = u + out
        return self._leave(u), after

    def emit(self, graph: Graph, x: str) -> str:
        """Value `x` [B, input_dim] → value [B, output_dim]; scopes ``layers.{index}``."""
        shared = self.emit_advance(graph)
        graph.scope("input_projection")
        u = graph.linear(x, "linear", self.input_projection.weight, self.input_projection.bias)  # [B, hidden]
        residual = graph.op("Unsqueeze", [u, graph.indices(1)])  # [B, 1, hidden]
        if (entry := self.entry_norm()) is not None:
            residual, _ = entry.emit(graph, "entry_norm", residual, None)
        branch_out: str | None = None
        for number, branch in enumerate(self.branches()):
            graph.scope(f"layers.{branch.index}")
            normed, residual = branch.norm.emit(graph, f"norm{number}", residual, branch_out)
            branch_out = branch.mixer.emit(graph, normed, branch.index, shared)
        graph.scope("output_projection")
        normed, _ = self.final_norm().emit(graph, "final_norm", residual, branch_out)
        normed = graph.op("Squeeze", [normed, graph.indices(1)])  # [B, hidden]
        return graph.linear(normed, "linear", self.output_projection.weight, self.output_projection.bias)

    def _enter(self, x: Tensor) -> Tensor:
        u: Tensor = self.input_projection(x).to(x.dtype)  # the stream is float32 under autocast too
        entry = self.entry_norm()
        return u if entry is None else entry(u)

    def _leave(self, u: Tensor) -> Tensor:
        return self.output_projection(self.final_norm()(u))  # type: ignore[no-any-return]
