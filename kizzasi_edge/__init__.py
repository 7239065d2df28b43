"""kizzasi_edge: learned sequence models on robots, safely.

The public names load on first use (PEP 562), so that importing the package costs milliseconds and pulls in
neither onnxruntime nor an optional library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kizzasi_edge.bundle import Bundle
    from kizzasi_edge.config import load_config
    from kizzasi_edge.errors import (
        BundleError,
        ConfigError,
        ConnectorError,
        GuardrailError,
        InputError,
        KizzasiError,
        LinkError,
        MissingExtra,
        ModelError,
        SnapshotError,
        StaleInput,
        WireError,
    )
    from kizzasi_edge.frames import Command, Observation
    from kizzasi_edge.guardrails import Guardrails
    from kizzasi_edge.predictor import Predictor

    __version__: str

__all__ = [
    "Bundle",
    "BundleError",
    "Command",
    "ConfigError",
    "ConnectorError",
    "GuardrailError",
    "Guardrails",
    "InputError",
    "KizzasiError",
    "LinkError",
    "MissingExtra",
    "ModelError",
    "Observation",
    "Predictor",
    "SnapshotError",
    "StaleInput",
    "WireError",
    "__version__",
    "load_config",
]

_HOME = {
    "Bundle": "bundle",
    "load_config": "config",
    "Command": "frames",
    "Observation": "frames",
    "Guardrails": "guardrails",
    "Predictor": "predictor",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("kizzasi-edge")
    else:
        value = getattr(import_module(f"{__name__}.{_HOME.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
