"""Files of models and reports: whole or not at all, and in folders that are made for them."""

from __future__ import annotations

from pathlib import Path

from kizzasi_bridge import written
from kizzasi_edge.errors import BundleError


def write_file(path: Path, data: bytes) -> None:
    """Write and rename: readers see the old file or the new; what was there stays where that fails.

    Raises:
        BundleError: the file cannot be written.
    """
    written.write_file(path, data, BundleError)


def make_folder(path: Path) -> None:
    """With its parents, where it is not there.

    Raises:
        BundleError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BundleError(f"{path}: no folder, and none can be made: {error.strerror or error}") from error
