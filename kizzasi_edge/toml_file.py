"""Read a TOML file into a pydantic model, with errors that name file, section, key, found and expected."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from kizzasi_edge.errors import KizzasiError


class Section(BaseModel):
    """Base of every configuration section: unknown keys are errors, values are not coerced between types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


M = TypeVar("M", bound=BaseModel)


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
    except tomllib.TOMLDecodeError as exc:
        raise error(f"{path}: not valid TOML: {exc}") from None


def validate(data: dict[str, Any], model: type[M], where: str | Path, error: type[KizzasiError]) -> M:
    """Validate ``data``; raises ``error`` with one line per problem: ``file: [section] key: found …, expected …``."""
    try:
        return model.model_validate(data)
    except ValidationError as exc:
        lines = [_line(item, where) for item in exc.errors()]
        raise error("\n".join(lines)) from None


def _line(item: Any, where: str | Path) -> str:
    loc = [part for part in item["loc"] if not (isinstance(part, str) and "[" in part)]
    *section, key = [f"[{part}]" if isinstance(part, int) else str(part) for part in loc] or ["file"]
    place = ".".join(section).replace(".[", "[")
    head = f"{where}: [{place}] {key}" if place else f"{where}: {key}"
    if item["type"] == "extra_forbidden":
        return f"{head}: unknown key (found {_short(item['input'])}); expected one that the documentation names"
    if item["type"] == "missing":
        return f"{head}: missing; expected a value"
    expected = item["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return f"{head}: found {_short(item['input'])}; expected {expected}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
