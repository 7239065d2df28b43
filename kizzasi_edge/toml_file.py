"""Read a TOML file into a pydantic model; it lives a layer below, where the board's file is read as well."""

from __future__ import annotations

from kizzasi_bridge.toml_file import Number, Section, read_toml, validate

__all__ = ["Number", "Section", "read_toml", "validate"]
