"""Which files a ``path`` means, what is in them, and the libraries that read them."""

from __future__ import annotations

import glob
import hashlib
import importlib
from pathlib import Path
from typing import Any

from kizzasi_edge.errors import ConfigError
from kizzasi_export.datasets.section import Format

_ENDINGS: dict[str, Format] = {
    ".csv": "csv",
    ".db3": "rosbag",
    ".mcap": "rosbag",
    ".npy": "numpy",
    ".npz": "numpy",
    ".parquet": "parquet",
}
_FOLDERS: dict[str, Format] = {"meta/info.json": "lerobot", "metadata.yaml": "rosbag"}


def resolve(patterns: list[str], base: Path, where: str) -> list[Path]:
    """Existing paths in the order of the patterns, those of one pattern sorted.

    Raises:
        ConfigError: no such file, a pattern that matches nothing, or no patterns.
    """
    paths: dict[Path, None] = {}
    for pattern in patterns:
        path = base / pattern
        if path.exists():
            found = [path]
        elif glob.has_magic(pattern):
            found = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
        else:
            raise ConfigError(f"{path}: no such data file")
        if not found:
            raise ConfigError(f"{where}: path: {pattern!r} matches nothing in {base.resolve()}")
        paths |= dict.fromkeys(found)
    if not paths:
        raise ConfigError(f"{where}: path: found an empty list, expected files")
    return list(paths)


def format_of(path: Path) -> Format:
    """By ending, or by what a folder holds.

    Raises:
        ConfigError: neither tells.
    """
    if path.is_dir():
        for name, kind in _FOLDERS.items():
            if (path / name).exists():
                return kind
        raise ConfigError(f"{path}: found a folder without {' or '.join(_FOLDERS)}, expected a dataset")
    if path.suffix.lower() not in _ENDINGS:
        raise ConfigError(f"{path}: found ending {path.suffix!r}, expected one of {', '.join(_ENDINGS)}, or a format")
    return _ENDINGS[path.suffix.lower()]


def sha256(path: Path) -> str:
    """Of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def library(name: str, source: object) -> Any:
    """Import a module that only some formats need.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"{source}: reading it needs {name.partition('.')[0]}: pip install 'kizzasi-edge[datasets]' ({error})"
        ) from None
