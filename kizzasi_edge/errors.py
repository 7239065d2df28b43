"""One error tree; each class also derives from the built-in a user would catch.

::

    KizzasiError
    ├── ConfigError(ValueError)          (kizzasi_bridge) TOML, CSV: names file, section, key, found, expected
    ├── BundleError(ValueError)          the .onnx file or its manifest
    ├── GuardrailError(ValueError)       a guard that must not be built, or was asked to step without its inputs
    ├── InputError(ValueError)           an input with the wrong shape, or a NaN/Inf in it; no state has changed
    ├── ModelError(ArithmeticError)      the model computed NaN/Inf; its state was not committed
    ├── SnapshotError(ValueError)        a snapshot of another bundle
    ├── StaleInput(TimeoutError)         an input older than its limit
    ├── MissingExtra(ImportError)        (kizzasi_bridge) an optional library is missing; says which extra to install
    ├── WireError(ValueError)            (kizzasi_bridge) a value that does not fit the wire format
    └── ConnectorError(OSError)          (kizzasi_bridge) a port, socket or file that cannot be used
        └── LinkError                    (kizzasi_bridge) a device that refuses or stays silent
"""

from __future__ import annotations

from kizzasi_bridge.errors import ConfigError, ConnectorError, KizzasiError, LinkError, MissingExtra, WireError

__all__ = [
    "BundleError",
    "ConfigError",
    "ConnectorError",
    "GuardrailError",
    "InputError",
    "KizzasiError",
    "LinkError",
    "MissingExtra",
    "ModelError",
    "SnapshotError",
    "StaleInput",
    "WireError",
]


class BundleError(KizzasiError, ValueError):
    """A model file that is missing, damaged, or whose manifest cannot be honoured."""


class GuardrailError(KizzasiError, ValueError):
    """A guard that must not be built, or a step without the inputs the guard needs."""


class InputError(KizzasiError, ValueError):
    """A model input of the wrong shape or with a non-finite value; nothing was stepped."""


class ModelError(KizzasiError, ArithmeticError):
    """The model computed a non-finite output; its state was left as it was."""


class SnapshotError(KizzasiError, ValueError):
    """A snapshot that belongs to another bundle."""


class StaleInput(KizzasiError, TimeoutError):
    """An input older than its declared limit."""
