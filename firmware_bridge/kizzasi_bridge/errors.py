"""The bottom of the error tree: what the wire, the C core and every layer's files can raise.

::

    KizzasiError
    ├── ConfigError(ValueError)          a file that cannot be used: names file, section, key, found, expected
    ├── CalibrationError(ValueError)     poses that no calibration can be taken from
    ├── MissingExtra(ImportError)        an optional library is not installed; says which extra to install
    ├── WireError(ValueError)            a payload or frame that cannot be encoded
    └── ConnectorError(OSError)          a port, socket or file that cannot be used
        └── LinkError                    a device that answers wrongly, refuses or stays silent

``kizzasi_edge.errors`` continues the tree upwards. Every class also derives from the built-in
exception that a caller who has never heard of us would catch.
"""

from __future__ import annotations


class KizzasiError(Exception):
    """Root of every error this project raises on purpose."""


class ConfigError(KizzasiError, ValueError):
    """A configuration file that cannot be used: names file, section, key, what was found and expected."""


class CalibrationError(KizzasiError, ValueError):
    """Poses that no calibration can be taken from: the joint moves, is noisy, or was not moved."""


class MissingExtra(KizzasiError, ImportError):
    """An optional library is missing; the message names the extra that brings it."""


class WireError(KizzasiError, ValueError):
    """A value that does not fit the wire format (see docs/protocol.md)."""


class ConnectorError(KizzasiError, OSError):
    """A port, socket or file that cannot be opened, read or written."""


class LinkError(ConnectorError):
    """The device on the other side is silent, refuses a request, or speaks another schema."""
