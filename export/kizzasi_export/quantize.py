"""Weights in fewer bits: how far they lead from float32, and training that knows of them.

The arithmetic is in blocks.py, the operators are in graph.py. Errors are relative to each output's scale (parity.py)
and bounded: an export above its bound is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from kizzasi_edge.bundle import Bundle, Quantization
from kizzasi_export import blocks, parity
from kizzasi_export.graph import BuiltGraph, Graph
from kizzasi_export.models import StepModel

BOUND: dict[blocks.Quantization, float] = {"int8": 0.1, "f16": 5e-3}
"""Open-loop error that an export may have unless another bound is given."""
FREE_RUN_FACTOR = 4.0
"""A free run may stray this many times the open-loop bound: its errors come back as inputs."""
FREE_RUN_STEPS = 256


@dataclass(frozen=True)
class Distance:
    """A quantised bundle beside its float32 model; `scale` [out] is y's, in the outputs' units."""

    open_loop: parity.Deviation
    free_run: parity.Deviation
    scale: parity.Array
    y: parity.Array


def distance(model: parity.Stepped, bundle: Bundle, seed: int) -> Distance:
    """Both get the same inputs for `parity.STEPS` steps, then their own outputs for `FREE_RUN_STEPS` more.

    Each keeps its own state all along. model: in float32 and eval mode.
    """
    x = parity.excitation(model, parity.STEPS, 1 if bundle.manifest.batch == 1 else 2, seed)
    rollout = parity.Rollout.of(bundle.manifest, FREE_RUN_STEPS)
    expected, found = parity.run_torch(model, x, rollout=rollout), parity.run_bundle(bundle, x, rollout=rollout)
    given, fed_back = slice(0, parity.STEPS), slice(parity.STEPS, None)
    scale = parity.scales(_part(expected, given))
    return Distance(
        open_loop=parity.deviation(_part(found, given), _part(expected, given), scale),
        free_run=parity.deviation(_part(found, fed_back), _part(expected, fed_back), scale),
        scale=scale["y"],
        y=found["y"],
    )


def section(
    built: BuiltGraph, precision: blocks.Quantization, found: Distance, bound: float | None = None
) -> Quantization:
    """The manifest's section; `bound` replaces the default open-loop bound."""
    bound = BOUND[precision] if bound is None else bound
    return Quantization(
        matrices=len(built.quantized),
        weights=sum(weight.numel() for weight in built.quantized.values()),
        block=blocks.BLOCK if precision == "int8" else None,
        steps=parity.STEPS,
        open_loop_error=parity.finite(found.open_loop.relative_error),
        bound=bound,
        free_run_steps=FREE_RUN_STEPS,
        free_run_error=parity.finite(found.free_run.relative_error),
        free_run_bound=FREE_RUN_FACTOR * bound,
        scale=found.scale.tolist(),
    )


def _part(outputs: parity.Outputs, steps: slice) -> parity.Outputs:
    return {name: array[steps] for name, array in outputs.items()}


class Int8Blocks(nn.Module):
    """A weight as the exported int8 file holds it; gradients pass straight through (Bengio et al. 2013)."""

    input_hook: torch.utils.hooks.RemovableHandle | None = None

    def forward(self, weight: Tensor) -> Tensor:
        """weight [N, K] → [N, K], or a convolution's [N, K, 1] likewise."""
        return _straight_through(weight, blocks.rounded(weight.flatten(1)).reshape(weight.shape))


def prepare(model: StepModel) -> None:
    """Make `model` compute with the weights that an int8 export of it would have, and keep learning float ones.

    The same matrices are rounded in the same blocks. The kernel also rounds the inputs of each product to 8 bits, in
    the same blocks: so does this, for those that are an `nn.Linear` and called as one. A matrix that the exporter makes
    of several parameters is followed back to those whose rows have its length; others stay float here. Until `finish`,
    the state_dict has the names of torch's parametrizations.
    """
    graph = Graph("fast", quantize="int8")
    with torch.enable_grad():
        model.emit(graph)
    wanted = {id(leaf) for weight in graph.quantized.values() for leaf in _leaves(weight, weight.shape[1])}
    for module in list(model.modules()):
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) in wanted:
                rounding = Int8Blocks()
                parametrize.register_parametrization(module, name, rounding)
                if isinstance(module, nn.Linear):
                    rounding.input_hook = module.register_forward_pre_hook(_round_input)


def finish(model: nn.Module) -> None:
    """Undo `prepare`: the float weights as they were trained, under their own names."""
    for module in list(model.modules()):
        if not parametrize.is_parametrized(module):
            continue
        for name, (rounding, *_) in list(module.parametrizations.items()):  # type: ignore[union-attr, operator]
            if isinstance(rounding, Int8Blocks):
                if rounding.input_hook is not None:
                    rounding.input_hook.remove()
                parametrize.remove_parametrizations(module, name, leave_parametrized=False)


@contextmanager
def fake_quantized(model: StepModel) -> Iterator[None]:
    """`prepare`, and `finish` at the end."""
    prepare(model)
    try:
        yield
    finally:
        finish(model)


def _round_input(_: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
    flat = args[0].reshape(-1, args[0].shape[-1])  # [.., K]
    return (_straight_through(args[0], blocks.rounded(flat).reshape(args[0].shape)),)


def _straight_through(value: Tensor, rounded: Tensor) -> Tensor:
    return rounded + (value - value.detach())  # exactly `rounded`, with the gradient of `value`


def _leaves(weight: Tensor, columns: int) -> list[Tensor]:
    """The parameters [N, columns] or [N, columns, 1] that `weight` is made of; itself, where it is one."""
    if weight.is_leaf:
        return [weight]
    found, seen, pending = [], set(), [weight.grad_fn]
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)  # of an AccumulateGrad node
        if leaf is not None and leaf.ndim > 1 and leaf.shape[1:].numel() == columns == leaf.shape[1]:
            found.append(leaf)
        pending += [following for following, _ in node.next_functions]
    return found
