"""numpy files: arrays x and y, or named columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kizzasi_edge.errors import ConfigError
from kizzasi_export.datasets.clock import Clock
from kizzasi_export.datasets.columns import Columns
from kizzasi_export.datasets.recordings import Part, from_columns
from kizzasi_export.datasets.section import DataSection
from kizzasi_export.datasets.sequence import SequenceDataset
from kizzasi_export.datasets.streams import Recording, Streams


def read(path: Path, section: DataSection, clock: Clock) -> Part:
    """Arrays x, y and weight of an .npz file; or, where `section` names inputs, columns.

    Columns are an .npz file's arrays [T] or [T, k], a structured .npy array's fields, or a plain .npy array's
    numbered columns.

    Raises:
        ConfigError: not such a file, missing arrays, shapes that do not fit, or NaN.
    """
    arrays = _load(path)
    if section.inputs is None:
        return Part(_sequences(arrays, path), None, None, [], [path])
    columns = Columns(str(path))
    for name, values in arrays.items():
        columns.add(name, values)
    return from_columns(columns, section, clock, [path], time=section.time, episode=section.episode)


def load_npz(path: Path, *, window: int | None = None) -> SequenceDataset:
    """Arrays ``x``, ``y`` and optionally ``weight`` of an .npz file, cut into windows.

    Args:
        path: x [N, T, in] or [T, in], y likewise, weight [N, T] or [T].
        window: steps per window; None keeps whole sequences. A remainder shorter than a window is dropped.

    Raises:
        ConfigError: no such file, a missing array, wrong shapes, NaN, or sequences shorter than `window`.
    """
    return Streams(tuple(_sequences(_load(path), path))).windows(window)


def _load(path: Path) -> dict[str, NDArray[Any]]:
    """Arrays by name; of an .npy file its columns by field name or number."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.ndarray):
            with loaded:
                return {name: np.asarray(loaded[name]) for name in loaded.files}
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such data file") from None
    except Exception as error:  # zipfile, zlib, tokenize: one for each way a file can be damaged
        raise ConfigError(f"{path}: cannot be read as {path.suffix}: {error}") from None
    if loaded.dtype.names is not None:
        return {name: loaded[name] for name in loaded.dtype.names}
    if loaded.ndim != 2:
        raise ConfigError(f"{path}: found shape {list(loaded.shape)}, expected [T, columns] or a structured array")
    return {str(i): column for i, column in enumerate(loaded.T)}


def _sequences(arrays: dict[str, NDArray[Any]], path: Path) -> list[Recording]:
    """x [N, T, in] or [T, in], y and weight likewise, as N recordings."""
    for name in ("x", "y"):
        if name not in arrays:
            raise ConfigError(
                f"{path}: no array {name!r}; found {sorted(arrays)}, expected x and y, or inputs and outputs "
                "that name columns"
            )
    batched = {
        name: arrays[name][None] if arrays[name].ndim == dims else arrays[name]
        for name, dims in (("x", 2), ("y", 2), ("weight", 1))
        if name in arrays
    }
    data = SequenceDataset(batched["x"], batched["y"], batched.get("weight"), source=str(path))
    sources = [str(path)] if len(data) == 1 else [f"{path}, sequence {i}" for i in range(len(data))]
    weights = data.weight if "weight" in arrays else [None] * len(data)
    return [Recording(x, y, w, source) for x, y, w, source in zip(data.x, data.y, weights, sources, strict=True)]
