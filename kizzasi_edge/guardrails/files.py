"""Reading what others wrote: bounded in size and depth, no entities, errors that name the file."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from pathlib import Path
from xml.parsers import expat

from kizzasi_edge.errors import GuardrailError

MAX_BYTES = 16 << 20
MAX_DEPTH = 100
"""Elements inside elements: robots nest one per body."""


def read_bytes(path: Path, limit: int = MAX_BYTES) -> bytes:
    """The whole file. Raises :class:`GuardrailError` naming it if it cannot be read or is larger than ``limit``."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise GuardrailError(f"{path}: no such file") from None
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        raise GuardrailError(f"{path}: cannot be read: {exc}") from exc
    if len(data) > limit:
        raise GuardrailError(f"{path}: larger than {limit} bytes")
    return data


class Element(ET.Element):
    """An element that knows its line."""

    line = 0


def read_xml(path: Path) -> ET.Element:
    """The root of the file's :class:`Element` tree. Raises :class:`GuardrailError` naming file and line.

    A DOCTYPE is refused: entities that expand into entities ("billion laughs") need one, robot descriptions do not.
    """
    data = read_bytes(path)
    builder, parser, depth = ET.TreeBuilder(element_factory=Element), expat.ParserCreate(), 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise GuardrailError(f"{path}: line {parser.CurrentLineNumber}: more than {MAX_DEPTH} nested elements")
        builder.start(tag, attributes).line = parser.CurrentLineNumber  # type: ignore[attr-defined]

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def doctype(*_: object) -> None:
        raise GuardrailError(f"{path}: line {parser.CurrentLineNumber}: found a DOCTYPE; remove it and its entities")

    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = builder.data, doctype
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError, LookupError) as exc:  # the latter two: an encoding that expat cannot read
        if isinstance(exc, GuardrailError):
            raise
        raise GuardrailError(f"{path}: not well-formed XML: {exc}") from None
    return builder.close()


def finite(where: str, text: str) -> float:
    """``text`` as a number. Raises :class:`GuardrailError`: ``where``: found, expected."""
    try:
        value = math.nan if "_" in text else float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise GuardrailError(f"{where}: found {shortened(text)!r}; expected a finite number")
    return value


def shortened(text: str) -> str:
    """What a message shows of a file's own words."""
    return text if len(text) <= 60 else text[:57] + "…"
