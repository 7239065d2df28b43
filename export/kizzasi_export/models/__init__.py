"""Models that run the same as a parallel scan, a step, and an ONNX step graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from kizzasi_export.models.base import Network, SequenceModel, State
from kizzasi_export.models.mamba2 import Mamba2, Mamba2Config
from kizzasi_export.models.normalizer import Normalizer
from kizzasi_export.models.reference import ReferenceModel
from kizzasi_export.models.step_model import StepModel

__all__ = [
    "KINDS",
    "Network",
    "Normalizer",
    "ReferenceModel",
    "SequenceModel",
    "State",
    "StepModel",
    "build_model",
]

_NETWORKS: dict[str, Callable[..., nn.Module]] = {"mamba2": lambda **sizes: Mamba2(Mamba2Config(**sizes))}

KINDS: tuple[str, ...] = tuple(_NETWORKS)


def build_model(
    kind: str,
    *,
    input_dim: int,
    output_dim: int,
    hidden_dim: int = 64,
    state_dim: int = 16,
    num_layers: int = 2,
    reference_tau: float | None = None,
    anchor: Sequence[int] | None = None,
    **architecture: Any,
) -> StepModel:
    """A model with fresh weights (seed torch first) and an identity normaliser.

    Args:
        kind: one of `KINDS`.
        input_dim, output_dim: channels of x and y.
        hidden_dim, state_dim, num_layers: width, state size per channel, depth.
        reference_tau: time constant in samples of the output reference model (the network then commands
            velocities per sample, which the graph integrates to positions); None = no such stage.
        anchor: with `reference_tau`, one input index per output: the measured quantity that it starts from.
        architecture: further sizes of the kind; for mamba2: expand, conv_dim, head_dim, chunk.

    Raises:
        ValueError: an unknown kind or size, or an anchor that does not fit.
    """
    if kind not in _NETWORKS:
        raise ValueError(f"unknown model kind {kind!r}, expected one of {', '.join(KINDS)}")
    sizes = {
        "input_dim": input_dim,
        "output_dim": output_dim,
        "hidden_dim": hidden_dim,
        "state_dim": state_dim,
        "num_layers": num_layers,
        **architecture,
    }
    try:
        network = _NETWORKS[kind](**sizes)
    except TypeError as error:
        raise ValueError(f"{kind}: {error}") from None
    reference = _reference(reference_tau, anchor, input_dim, output_dim)
    config = {"kind": kind, **sizes, "reference_tau": reference_tau, "anchor": list(anchor) if anchor else None}
    return StepModel(network, config, reference)


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
        if not 0 <= index < input_dim:
            raise ValueError(f"anchor[{i}] = {index}, expected an input index 0 … {input_dim - 1}")
    return ReferenceModel(tau, anchor)
