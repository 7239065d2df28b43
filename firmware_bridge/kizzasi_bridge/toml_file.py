"""Read a TOML file into a pydantic model, with errors that name file, section, key, found and expected."""

from __future__ import annotations

import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import KizzasiError

__all__ = ["MAX_LINES", "Number", "Section", "read_toml", "validate"]


class Section(BaseModel):
    """Base of every configuration section: unknown keys are errors, values are not coerced between types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


M = TypeVar("M", bound=BaseModel)

Number = Annotated[float, Field(strict=True)]
"""An integer or a float, as float; nothing else."""

MAX_LINES = 12
"""Problems shown at once: an error is one screen."""


def read_toml(path: str | Path, error: type[KizzasiError]) -> dict[str, Any]:
    """Parse ``path``; raises ``error`` naming the file (and line and column of a syntax error)."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise error(f"{path}: no such file") from None
    except IsADirectoryError:
        raise error(f"{path}: is a directory, expected a TOML file") from None
    except (OSError, UnicodeDecodeError) as exc:
        raise error(f"{path}: cannot be read: {exc}") from exc
    except (ValueError, RecursionError) as exc:  # also numbers of thousands of digits, a NUL in the path
        raise error(f"{path}: not valid TOML: {exc}") from None


def validate(data: dict[str, Any], model: type[M], where: str | Path, error: type[KizzasiError]) -> M:
    """Validate ``data``; raises ``error`` with one line per problem: ``file: [section] key: found …, expected …``."""
    try:
        return model.model_validate(data)
    except ValidationError as exc:
        found: dict[tuple[str | int, ...], list[Any]] = {}
        for item in exc.errors():
            found.setdefault(_location(item), []).append(item)
        # A union reports every member: only the deepest place is meant.
        deepest = [loc for loc in found if not any(loc == other[: len(loc)] != other for other in found)]
        lines = [_line(loc, found[loc], model, where) for loc in deepest[:MAX_LINES]]
        if len(deepest) > MAX_LINES:
            lines.append(f"… and {len(deepest) - MAX_LINES} more")
        raise error("\n".join(lines)) from None


def _location(item: Any) -> tuple[str | int, ...]:
    """Where it is, without pydantic's names for the members of a union."""
    return tuple(part for part in item["loc"] if isinstance(part, int) or not ("[" in part or part in ("float", "int")))


def _line(loc: tuple[str | int, ...], items: list[Any], model: type[BaseModel], where: str | Path) -> str:
    keys = [part for part in loc if isinstance(part, str)]
    last = loc.index(keys[-1]) if keys else 0
    section = ""
    for part, following in pairwise(loc[: last + 1]):
        if isinstance(part, str):
            section += f"[[{part}]] {following + 1} " if isinstance(following, int) else f"[{part}] "
    key = (keys[-1] if keys else "file") + "".join(f"[{part}]" for part in loc[last + 1 :])
    head = f"{where}: {section}{key}"
    first = items[0]
    if first["type"] == "extra_forbidden":
        return f"{head}: unknown key (found {_short(first['input'])}); expected one of {_keys(model, keys[:-1])}"
    if first["type"] == "missing":
        return f"{head}: missing; expected a value"
    messages = [item["msg"].removeprefix("Value error, ").removeprefix("Input should be ") for item in items]
    return f"{head}: found {_short(first['input'])}; expected {' or '.join(messages)}"


def _keys(model: type[BaseModel], path: list[str]) -> list[str]:
    """The keys of the section at ``path``."""
    for part in path:
        field = next((field for name, field in model.model_fields.items() if part in (name, field.alias)), None)
        inner = None if field is None else _section_type(field.annotation)
        if inner is None:
            break
        model = inner
    return [field.alias or name for name, field in model.model_fields.items()]


def _section_type(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _section_type(part))), None)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
