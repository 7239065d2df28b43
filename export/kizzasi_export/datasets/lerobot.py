"""LeRobotDataset v3 folders: https://huggingface.co/docs/lerobot/lerobot-dataset-v3.

``meta/info.json`` gives fps, features (dtype, shape, names of the elements) and the pattern of the data files;
``meta/episodes/*/*.parquet`` has one row an episode: which data file holds it, and its length. An episode lies in one
file. Videos and images are not read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kizzasi_edge.errors import ConfigError
from kizzasi_export.datasets.clock import RATE_TOLERANCE, Clock
from kizzasi_export.datasets.columns import require_finite
from kizzasi_export.datasets.recordings import Part, from_columns, needed
from kizzasi_export.datasets.section import DataSection
from kizzasi_export.datasets.tables import read_columns

_EPISODE, _FRAME, _TIME = "episode_index", "frame_index", "timestamp"
_ROUNDING_S = 1e-4
_CHUNK, _FILE = "data/chunk_index", "data/file_index"


def read(folder: Path, section: DataSection, clock: Clock) -> Part:
    """All episodes of a dataset.

    Raises:
        ConfigError: another version, a feature that is no scalar or vector of numbers, another rate, or data that
            contradict the metadata.
    """
    path = folder / "meta/info.json"
    info = _info(path)
    _check_rate(info["fps"], clock, path)
    wanted = needed(section)
    elements = _elements(info["features"], wanted, path)
    tables = sorted(folder.glob("meta/episodes/*/*.parquet"))
    files: dict[Path, dict[int, int]] = {}  # data file → episode → length
    for table in tables:
        index = ("length", _EPISODE, _CHUNK, _FILE)
        columns = read_columns(table, set(index), parquet=True)
        values = columns.values(columns.find(index))  # [episodes, 4]
        require_finite(values, index, str(table))
        for length, episode, chunk, number in values.astype(int).tolist():
            data = folder / _filled(info["data_path"], chunk, number, path)
            files.setdefault(data, {})[episode] = length
    if not files:
        raise ConfigError(f"{folder}: no episodes in meta/episodes/*/*.parquet")
    parts = []
    for data, lengths in files.items():
        if not data.exists():
            raise ConfigError(f"{data}: no such data file, but meta/episodes names it")
        columns = read_columns(data, wanted | {_EPISODE, _FRAME, _TIME}, parquet=True, elements=elements)
        columns.unread = [name for name in info["features"] if name not in elements]
        counters = (_TIME, _FRAME, _EPISODE)
        values = columns.values(columns.find(counters))  # [T, 3]
        require_finite(values, counters, str(data))
        time, frame, found = values.T  # [T]
        # Stored as float32 and so rounded to either side of where a step of the grid lies.
        regular = frame / info["fps"]
        columns.channels[_TIME] = np.where(np.abs(time - regular) < _ROUNDING_S, regular, time)
        there = {int(episode): int((found == episode).sum()) for episode in np.unique(found)}
        if there != lengths:
            raise ConfigError(
                f"{data}: found episodes (length) {_text(there)}, expected {_text(lengths)} as in meta/episodes"
            )
        parts.append(from_columns(columns, section, clock, [data], time=_TIME, episode=_EPISODE))
    return Part(
        [recording for part in parts for recording in part.recordings],
        parts[0].input_names,
        parts[0].output_names,
        [timing for part in parts for timing in part.timings],
        [path, *tables, *files],
    )


def _info(path: Path) -> dict[str, Any]:
    try:
        info = json.loads(path.read_text())
        version, missing = str(info["codebase_version"]), {"fps", "features", "data_path"} - info.keys()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: cannot be read as a LeRobotDataset's info: {error!r}") from None
    if not version.startswith("v3."):
        raise ConfigError(
            f"{path}: codebase_version: found {version!r}, expected v3.x; lerobot converts older datasets"
        )
    if missing:
        raise ConfigError(f"{path}: no {', '.join(sorted(missing))}")
    for key, kind, expected in (
        ("fps", (int, float), "a number > 0"), ("features", dict, "an object"), ("data_path", str, "a pattern")
    ):  # fmt: skip
        if not isinstance(info[key], kind) or (key == "fps" and not 0 < info[key] < math.inf):
            raise ConfigError(f"{path}: {key}: found {info[key]!r}, expected {expected}")
    return dict(info)


def _filled(pattern: str, chunk: int, number: int, path: Path) -> str:
    """The data file that the pattern of info.json at `path` names."""
    try:
        return pattern.format(chunk_index=chunk, file_index=number)
    except (AttributeError, IndexError, KeyError, ValueError) as error:
        raise ConfigError(
            f"{path}: data_path: found {pattern!r}, expected {{chunk_index}} and {{file_index}} in it ({error!r})"
        ) from None


def _check_rate(fps: float, clock: Clock, path: Path) -> None:
    if not clock.resample and clock.rate_hz and abs(fps / clock.rate_hz - 1) > RATE_TOLERANCE:
        raise ConfigError(
            f"{path}: fps: found {fps}, expected {clock.rate_hz:g} ± {RATE_TOLERANCE:.0%} as in [export] "
            "sample_rate_hz; or set resample = true"
        )


def _elements(features: dict[str, Any], wanted: set[str], path: Path) -> dict[str, Sequence[str] | None]:
    """Names of the elements of each readable feature that is wanted."""
    elements: dict[str, Sequence[str] | None] = {}
    for name, feature in features.items():
        if not any(w == name or w.startswith(f"{name}[") for w in wanted):
            continue
        if not isinstance(feature, dict) or not isinstance(feature.get("shape", []), list):
            raise ConfigError(f"{path}: feature {name!r}: found {feature!r}, expected an object with dtype and shape")
        kind, shape = feature.get("dtype"), feature.get("shape", [])
        if kind in ("image", "video", "audio", "string") or len(shape) != 1:
            raise ConfigError(f"{path}: feature {name!r} is {kind} {list(shape)}, expected a vector of numbers")
        names = feature.get("names")
        if isinstance(names, dict):  # older datasets group them: {"motors": ["shoulder", …]}
            names = [element for group in names.values() if isinstance(group, list) for element in group]
        elements[name] = [str(element) for element in names] if isinstance(names, list) else None
    return elements


def _text(lengths: dict[int, int]) -> str:
    return ", ".join(f"{episode} ({length})" for episode, length in sorted(lengths.items())[:8])
