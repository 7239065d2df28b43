"""Models that run the same as a parallel scan, a step, and an ONNX step graph."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
from torch import nn

from kizzasi_export.models.base import Network, SequenceModel, State
from kizzasi_export.models.head import CategoricalHead, make_head
from kizzasi_export.models.normalizer import Normalizer
from kizzasi_export.models.reference import ReferenceModel
from kizzasi_export.models.stack import check_size
from kizzasi_export.models.step_model import StepModel
from kizzasi_export.models.tokenizer import Tokenizer

__all__ = [
    "KINDS",
    "Network",
    "Normalizer",
    "ReferenceModel",
    "SequenceModel",
    "State",
    "StepModel",
    "Tokenizer",
    "build_model",
]

_NETWORKS: dict[str, tuple[str, str]] = {
    "mamba": ("mamba", "Mamba"),
    "mamba2": ("mamba2", "Mamba2"),
    "rwkv4": ("rwkv4", "RWKV4"),
    "rwkv6": ("rwkv6", "RWKV6"),
    "rwkv7": ("rwkv7", "RWKV7"),
    "s4": ("s4", "S4"),
    "s4d": ("s4d", "S4D"),
    "s5": ("s5", "S5"),
    "transformer": ("transformer", "Transformer"),
}
"""Kind → module and network class; the class `<name>Config` beside it holds the sizes."""

KINDS: tuple[str, ...] = tuple(_NETWORKS)


def build_model(
    kind: str,
    *,
    input_dim: int,
    output_dim: int,
    hidden_dim: int = 64,
    state_dim: int = 16,
    num_layers: int = 2,
    context_window: int | None = None,
    head: str = "continuous",
    tokenizer: Tokenizer | Mapping[str, Any] | None = None,
    reference_tau: float | None = None,
    anchor: Sequence[int] | None = None,
    **architecture: Any,
) -> StepModel:
    """A model with fresh weights (seed torch first) and an identity normaliser.

    Args:
        kind: one of `KINDS`.
        input_dim, output_dim: channels of x and y.
        hidden_dim, num_layers: width and depth.
        state_dim: state values per channel, for the kinds that have such a size (mamba, mamba2, s4, s4d, s5). RWKV's
            follows from `head_dim`, the Transformer's from `context_window`.
        context_window: steps that matter: the training window, and for the Transformer the length of its cache.
        head: "continuous", "gaussian" (adds output ``logvar``) or "categorical" (adds ``logits``).
        tokenizer: for a categorical head: a `Tokenizer`, or its arguments kind, vocab, low, high.
        reference_tau: time constant in samples of the output reference model (the network then commands
            velocities per sample, which the graph integrates to positions); None = no such stage.
        anchor: with `reference_tau`, one input index per output: the measured quantity that it starts from.
        architecture: further sizes of the kind (the fields of its config class).

    Raises:
        ValueError: an unknown kind or size, or a tokenizer or anchor that does not fit.
    """
    if kind not in _NETWORKS:
        raise ValueError(f"unknown model kind {kind!r}, expected one of {', '.join(KINDS)}")
    sizes = {"hidden_dim": hidden_dim, "state_dim": state_dim, "num_layers": num_layers, **architecture}
    sizes = {name: value.item() if isinstance(value, np.generic) else value for name, value in sizes.items()}
    check_size("input_dim", input_dim)
    check_size("output_dim", output_dim)
    if isinstance(tokenizer, Tokenizer):
        tokenizer = tokenizer.as_dict()
    made = make_head(head, output_dim, tokenizer)
    network = _network(kind, input_dim, made.raw_dim, context_window, sizes)
    reference = _reference(reference_tau, anchor, input_dim, output_dim)
    config = {
        "kind": kind,
        "input_dim": int(input_dim),
        "output_dim": int(output_dim),
        **sizes,
        "context_window": None if context_window is None else int(context_window),
        "head": head,
        "tokenizer": made.tokenizer.as_dict() if isinstance(made, CategoricalHead) else None,
        "reference_tau": reference_tau,
        "anchor": None if anchor is None else [int(index) for index in anchor],
    }
    return StepModel(network, config, made, reference)


def _network(
    kind: str, input_dim: int, raw_dim: int, context_window: int | None, sizes: Mapping[str, Any]
) -> nn.Module:
    module, name = _NETWORKS[kind]
    home = importlib.import_module(f"kizzasi_export.models.{module}")
    config = getattr(home, f"{name}Config")
    known = {field.name for field in dataclasses.fields(config)}
    if unknown := sorted(sizes.keys() - known):
        raise ValueError(f"{kind}: unknown size {', '.join(unknown)}, expected one of {', '.join(sorted(known))}")
    arguments = dict(sizes)
    if context_window is not None:
        check_size(f"{kind}: context_window", context_window)
        if "context_window" in known:
            arguments["context_window"] = context_window
    try:
        network: nn.Module = getattr(home, name)(config(input_dim=input_dim, output_dim=raw_dim, **arguments))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{kind}: {error}") from None
    return network


def _reference(
    tau: float | None, anchor: Sequence[int] | None, input_dim: int, output_dim: int
) -> ReferenceModel | None:
    if tau is None:
        if anchor is not None:
            raise ValueError("anchor is given without reference_tau")
        return None
    if anchor is None or len(anchor) != output_dim:
        found = "none" if anchor is None else len(anchor)
        raise ValueError(f"reference_tau needs one anchor per output: expected {output_dim}, found {found}")
    for i, index in enumerate(anchor):
        if not (isinstance(index, Integral) and 0 <= index < input_dim):
            raise ValueError(f"anchor[{i}] = {index!r}, expected an input index 0 … {input_dim - 1}")
    return ReferenceModel(tau, anchor)
