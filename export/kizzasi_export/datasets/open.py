"""From a ``[data]`` section to recordings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kizzasi_edge.errors import ConfigError
from kizzasi_export.datasets import arrays, generated, lerobot, rosbag, tables
from kizzasi_export.datasets.clock import RATE_TOLERANCE, Clock
from kizzasi_export.datasets.files import format_of, resolve, sha256
from kizzasi_export.datasets.recordings import Part
from kizzasi_export.datasets.section import DataSection
from kizzasi_export.datasets.streams import Streams

_READERS: dict[str, Callable[[Path, DataSection, Clock], Part]] = {
    "numpy": arrays.read,
    "csv": tables.read_csv,
    "parquet": tables.read_parquet,
    "lerobot": lerobot.read,
    "rosbag": rosbag.read,
}
_ALWAYS = {"format", "path", "window", "stride"}
_CHANNELS = _ALWAYS | {"inputs", "outputs", "horizon", "resample", "max_gap_s"}
_TABLE = _CHANNELS | {"weight", "time", "time_unit", "episode"}
_USED = {
    "numpy": _TABLE,
    "csv": _TABLE,
    "parquet": _TABLE,
    "lerobot": _CHANNELS | {"weight"},
    "rosbag": _CHANNELS | {"channels"},
}


def open_streams(section: DataSection, *, base: Path, rate_hz: float | None, where: str) -> Streams:
    """Read everything that a ``[data]`` section names.

    Args:
        base: folder that paths are relative to.
        rate_hz: steps per second that the model is exported for; None: not known, and not checked.
        where: names file and section in errors, such as ``train.toml: [data]``.

    Raises:
        ConfigError: keys that do not belong together, files or channels that are not there, NaN, another sampling
            rate, time that runs backwards, or recordings that do not fit each other.
    """
    if section.format == "generated":
        _refuse(section, generated.used_keys(section), "generated", where)
        return generated.generate(section, rate_hz=rate_hz, where=where)
    if section.path is None:
        raise ConfigError(f"{where}: path: missing; expected a file, folder or glob pattern")
    clock = Clock(rate_hz, section.resample, section.max_gap_s)
    parts: list[Part] = []
    paths = resolve([section.path] if isinstance(section.path, str) else section.path, base, where)
    formats = {path: section.format or format_of(path) for path in paths}
    for path, kind in formats.items():
        _check_keys(section, kind, rate_hz, where)
        parts.append(_READERS[kind](path, section, clock))
        if parts[-1].input_names != parts[0].input_names or parts[-1].output_names != parts[0].output_names:
            raise ConfigError(
                f"{path}: channels {parts[-1].input_names} → {parts[-1].output_names}, expected "
                f"{parts[0].input_names} → {parts[0].output_names} as in {paths[0]}"
            )
    recordings = tuple(recording for part in parts for recording in part.recordings)
    if not recordings:
        raise ConfigError(f"{where}: path: {', '.join(map(str, paths))}: no recording is longer than horizon")
    rate, timing = _timing(parts, clock, paths[0])
    files = {_label(file, base): sha256(file) for part in parts for file in part.files}
    source = {"format": "+".join(sorted(set(formats.values()))), "files": files, **timing}
    return Streams(recordings, parts[0].input_names, parts[0].output_names, rate, source)


def _check_keys(section: DataSection, kind: str, rate_hz: float | None, where: str) -> None:
    """Raise ConfigError for keys that this format does not use, or that need others."""
    plain = kind == "numpy" and section.inputs is None and section.outputs is None
    _refuse(section, _ALWAYS if plain else _USED[kind], "numpy without inputs" if plain else kind, where)
    stamped = kind in ("lerobot", "rosbag") or section.time is not None
    needs = (
        ("inputs", not plain and section.inputs is None, "the names of the model's input channels"),
        ("outputs", not plain and section.outputs is None, "the names of the model's output channels"),
        ("time", not stamped and section.resample, "a time column for resample"),
        ("time", not stamped and section.max_gap_s is not None, "a time column for max_gap_s"),
        ("time", section.time is None and section.time_unit is not None, "a time column for time_unit"),
        ("max_gap_s", section.resample and section.max_gap_s is None, "how old a held value may be, for resample"),
    )
    for key, missing, expected in needs:
        if missing:
            raise ConfigError(f"{where}: {key}: missing; expected {expected}")
    if section.resample and rate_hz is None:
        raise ConfigError(f"{where}: resample: found true, expected [export] sample_rate_hz to say at which rate")
    if section.max_gap_s is not None and rate_hz is not None and section.max_gap_s * rate_hz < 1:
        raise ConfigError(
            f"{where}: max_gap_s: found {section.max_gap_s}, expected at least one step of {1 / rate_hz:g} s"
        )


def _refuse(section: DataSection, used: set[str], kind: str, where: str) -> None:
    if unused := sorted(section.model_fields_set - used):
        raise ConfigError(
            f"{where}: {', '.join(unused)}: not used by format {kind!r}; expected only {', '.join(sorted(used))}"
        )


def _timing(parts: list[Part], clock: Clock, first: Path) -> tuple[float | None, dict[str, Any]]:
    """The steps' rate, and for provenance what was measured (the worst track)."""
    timings = [timing for part in parts for timing in part.timings]
    if not timings:
        return (clock.rate_hz if clock.resample else None), {}
    rates = [timing.rate_hz for timing in timings]
    if clock.rate_hz is None and max(rates) > (1 + RATE_TOLERANCE) * min(rates):
        raise ConfigError(f"{first} and others: rates from {min(rates):g} to {max(rates):g} Hz, expected one rate")
    measured = {
        "measured_rate_hz": [min(rates), max(rates)],
        "jitter_s": max(timing.jitter_s for timing in timings),
        "longest_step_s": max(timing.longest_s for timing in timings),
    }
    return (clock.rate_hz if clock.resample else rates[0]), measured


def _label(file: Path, base: Path) -> str:
    """As the train.toml names it."""
    return (file.relative_to(base) if file.is_relative_to(base) else file).as_posix()
