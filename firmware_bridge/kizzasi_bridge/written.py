"""Files appear whole or not at all: a temporary name, then rename."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from .errors import KizzasiError

__all__ = ["write_file"]


def write_file(path: Path, data: bytes, error: type[KizzasiError]) -> None:
    """Write and rename: readers see the old file or the new; what was there stays where that fails. A file that is
    replaced keeps its permissions.

    Raises:
        error: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, temporary)
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # or a power cut could undo the rename
        finally:
            os.close(folder)
    except OSError as problem:
        _remove(temporary)
        raise error(f"{path}: cannot be written: {problem.strerror or problem}") from problem


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # its folder is no folder, or went away: nothing is left there
        return
