"""New values into a board.toml whose comments and layout stay (tomlkit, of the extra ``serial``)."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from .board_file import BoardFile, Source, parse_board
from .errors import MissingExtra

__all__ = ["Changes", "edited"]

Changes = Mapping[Source, Mapping[str, int | float]]
"""For each section, its keys and their new values."""


def edited(board: BoardFile, text: str, changes: Changes) -> tuple[str, BoardFile]:
    """``text``, from which ``board`` was read, with ``changes``; and what it then says.

    Raises:
        MissingExtra: tomlkit is not installed.
        ConfigError: the file would say something impossible.
    """
    try:
        tomlkit = importlib.import_module("tomlkit")
    except ImportError:
        raise MissingExtra("writing a board.toml needs tomlkit: pip install 'kizzasi-edge[serial]'") from None
    line_end = "\r\n" if "\r\n" in text else "\n"
    document = tomlkit.parse(text.replace("\r\n", "\n"))
    for (kind, index), values in changes.items():
        table = document[kind][index]
        for key, value in values.items():
            _set(table, key, value)
    return tomlkit.dumps(document).replace("\n", line_end), parse_board(document.unwrap(), board.where)


def _set(table: Any, key: str, value: int | float) -> None:
    """As ``table[key] = value``; a new key comes before the blank lines and comments that lead to the next table."""
    body, after = table.value.body, []
    if key not in table:
        while body and body[-1][0] is None:
            after.append(body.pop())
    table[key] = value
    body.extend(reversed(after))
