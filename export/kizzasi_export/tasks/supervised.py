"""Train on recordings, x → y: files or generated ones, as ``[data]`` says (`DataSection`, docs/datasets.md).

With ``[training] tbptt`` whole recordings are streamed with their state carried; otherwise windows are cut from them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kizzasi_edge.errors import ConfigError
from kizzasi_edge.toml_file import validate
from kizzasi_export import lora
from kizzasi_export.config import TrainConfig
from kizzasi_export.constraints.watch import GuardWatch
from kizzasi_export.datasets import DataSection, Recording, SequenceDataset, Streams, open_streams
from kizzasi_export.datasets.sequence import Array
from kizzasi_export.finetune import start_model
from kizzasi_export.losses import head_loss
from kizzasi_export.models import Normalizer
from kizzasi_export.tasks import ExportSpec, TaskResult
from kizzasi_export.train import fit


def run(data: dict[str, Any], config: TrainConfig, *, resume: bool, progress: bool) -> TaskResult:
    """Fit the configured model, fresh or from a checkpoint, to the recordings.

    Raises:
        ConfigError: bad keys, bad data, or ``[export]``, ``[model]`` or ``[finetune]`` that do not fit the data.
    """
    where = f"{config.path}: [data]"
    section = validate(data, DataSection, where, ConfigError)
    streams = open_streams(section, base=config.base, rate_hz=config.export.sample_rate_hz, where=where)
    export = _export_spec(config, streams)
    training = config.training
    for key in ("window", "stride"):
        if training.tbptt is not None and getattr(section, key) is not None:
            raise ConfigError(
                f"{where} {key}: found {getattr(section, key)}, expected none: tbptt streams whole recordings"
            )
    window = _window(section, config, streams) if training.tbptt is None else 1
    fitted, held = hold_out(streams, training.validation_fraction, training.seed, window)
    with_reference = config.model.reference_tau is not None
    model, origin = start_model(config, _normalizer(fitted, with_reference), _target_range(fitted))
    sets: list[SequenceDataset] | list[Streams]
    if training.tbptt is None:
        sets = [part.windows(window, section.stride) for part in (fitted, held)]
        amount = f"{len(sets[0])} windows of {window} steps, {len(sets[1])} validate"
    else:
        sets = [fitted, held]
        amount = f"{fitted.steps} steps in {len(fitted)} recordings, {held.steps} steps validate"
    folder = config.base / config.output.folder
    watch = None if config.constraints is None else GuardWatch(config.constraints, config.base, model, export)
    before = None if watch is None else watch.measure(model, held)
    result = fit(
        model,
        sets[0],
        training,
        folder=folder,
        validation=sets[1],
        output_loss=None if watch is None else watch.loss(head_loss(training.loss)),
        resume=resume,
        progress=progress,
    )
    lora.merge(model)
    summary = {"data": amount}
    if watch is not None and before is not None:
        origin["constraints"] = watch.report(before, model, held)
        summary["guard would change"] = watch.describe(origin["constraints"])
    return TaskResult(
        model=model,
        export=export,
        fit=result,
        data={**streams.source, "steps": streams.steps, "amount": amount},
        summary=summary,
        origin=origin,
    )


def hold_out(streams: Streams, fraction: float, seed: int, window: int) -> tuple[Streams, Streams]:
    """(training, validation) without a common step, each with at least one recording of `window` steps.

    A seeded share of the recordings validates; of a single one its end does.

    Raises:
        ConfigError: too few steps.
    """
    recordings = streams.recordings
    usable = [i for i, recording in enumerate(recordings) if len(recording) >= window]
    if len(usable) > 1:
        order = np.random.default_rng(seed).permutation(usable)
        held = set(order[: min(max(1, round(fraction * len(usable))), len(usable) - 1)].tolist())
        parts = [[r for i, r in enumerate(recordings) if (i in held) == side] for side in (False, True)]
    else:
        longest = max(recordings, key=len)
        steps = len(longest)
        tail = max(window, round(fraction * steps))
        if steps - tail < window:
            raise ConfigError(
                f"{longest.source}: sequences of {steps} steps, expected at least window = {window} "
                f"and as many again to validate"
            )
        parts = [[_part(longest, slice(0, steps - tail))], [_part(longest, slice(steps - tail, steps))]]
    fitted, validating = (_with(streams, part) for part in parts)
    for name, part in (("training", fitted), ("validation", validating)):
        if not any(r.weight is None or bool((r.weight > 0).any()) for r in part):
            raise ConfigError(f"{part.recordings[0].source}: no {name} step has a weight above 0, expected some")
    return fitted, validating


def _part(recording: Recording, rows: slice) -> Recording:
    weight = None if recording.weight is None else recording.weight[rows]
    return Recording(recording.x[rows], recording.y[rows], weight, recording.source)


def _with(streams: Streams, recordings: list[Recording]) -> Streams:
    return Streams(
        tuple(recordings), streams.input_names, streams.output_names, streams.sample_rate_hz, streams.source
    )  # fmt: skip


def _window(section: DataSection, config: TrainConfig, streams: Streams) -> int:
    """``[data] window``, else the model's context window, else the recordings' own length; see `Streams.windows`."""
    lengths = [len(recording) for recording in streams]
    if section.window is not None:
        return section.window
    if config.model.context_window is not None:
        return min(config.model.context_window, max(lengths))
    if min(lengths) != max(lengths):
        raise ConfigError(
            f"{config.path}: [data] window: missing; recordings have {min(lengths)} to {max(lengths)} steps"
        )
    return lengths[0]


def _normalizer(streams: Streams, with_reference: bool) -> Normalizer:
    """With a reference model the network commands the velocity of y, so that is what its outputs are scaled by."""
    return Normalizer.fit(np.concatenate([r.x for r in streams]), _targets(streams, differences=with_reference))


def _targets(streams: Streams, differences: bool = False) -> Array:
    """The targets [n, out] that count, those with a weight; or their differences from step to step."""
    values = [np.diff(r.y, axis=0) if differences else r.y for r in streams]
    counted = [
        v if r.weight is None else v[r.weight[len(r) - len(v) :] > 0] for v, r in zip(values, streams, strict=True)
    ]
    return np.concatenate(counted)


def _target_range(streams: Streams) -> tuple[list[float], list[float]]:
    """Lowest and highest target of each output; half a unit to either side of a constant one."""
    targets = _targets(streams).astype(np.float64)  # [n, out]
    low, high = targets.min(0), targets.max(0)  # [out] [out]
    margin = np.where(high > low, 0.0, 0.5)
    return (low - margin).tolist(), (high + margin).tolist()


def _export_spec(config: TrainConfig, streams: Streams) -> ExportSpec:
    """``[export]``, and where it is silent what the data know."""
    found = config.export.model_dump()
    for key in ("sample_rate_hz", "input_names", "output_names"):
        if found[key] is None:
            known = getattr(streams, key)
            if known is None:
                raise ConfigError(f"{config.path}: [export] {key}: missing; expected a value, as the data have none")
            found[key] = known if key == "sample_rate_hz" else list(known)
    for side, dim in (("input", streams.input_dim), ("output", streams.output_dim)):
        for what in ("names", "units"):
            values = found[f"{side}_{what}"]
            if values is not None and len(values) != dim:
                raise ConfigError(
                    f"{config.path}: [export] {side}_{what}: found {len(values)}, expected {dim} as in the data"
                )
            if what == "names" and (len(set(values)) < dim or "" in values):
                raise ConfigError(f"{config.path}: [export] {side}_{what}: found {values}, expected different names")
    return ExportSpec(**found)
