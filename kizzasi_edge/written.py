"""Files appear whole or not at all: a temporary name, then rename."""

from __future__ import annotations

import os
from pathlib import Path

from kizzasi_edge.errors import BundleError


def write_file(path: Path, data: bytes) -> None:
    """Write and rename: readers see the old file or the new; what was there stays where that fails.

    Raises:
        BundleError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # or a power cut could undo the rename
        finally:
            os.close(folder)
    except OSError as error:
        _remove(temporary)
        raise BundleError(f"{path}: cannot be written: {error.strerror or error}") from error


def make_folder(path: Path) -> None:
    """With its parents, where it is not there.

    Raises:
        BundleError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BundleError(f"{path}: no folder, and none can be made: {error.strerror or error}") from error


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # its folder is no folder, or went away: nothing is left there
        return
