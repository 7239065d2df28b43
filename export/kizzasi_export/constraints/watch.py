"""Training under a guard: its loss, and the figure that says whether that helped."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from kizzasi_edge.errors import ConfigError
from kizzasi_edge.guardrails import Guardrails
from kizzasi_export.checkpoint import ExportSpec
from kizzasi_export.constraints.loss import constrained_loss
from kizzasi_export.constraints.projection import GuardProjection
from kizzasi_export.constraints.rules import HISTORY
from kizzasi_export.constraints.section import ConstraintsSection
from kizzasi_export.datasets import Streams
from kizzasi_export.losses import OutputLoss
from kizzasi_export.models import StepModel


class GuardWatch:
    """The guard that a model is trained under.

    Args:
        section: ``[constraints]``; its guard is relative to `base`.
        model: what is to be trained.
        export: its output names and rate.

    Raises:
        GuardrailError: the guard file cannot be used, or its joints are not the model's outputs.
        ConfigError: another rate than the data's, or a head whose point estimate has no gradient.
    """

    def __init__(self, section: ConstraintsSection, base: Path, model: StepModel, export: ExportSpec) -> None:
        path = base / section.guard
        self.section, self.output_names = section, export.output_names
        self.guard = Guardrails.load(path)
        if abs(self.guard.rate_hz - export.sample_rate_hz) > 1e-9 * export.sample_rate_hz:
            raise ConfigError(
                f"{path}: [guard] rate_hz: found {self.guard.rate_hz:g}, expected {export.sample_rate_hz:g} as the data"
            )
        if model.head.kind == "categorical":
            raise ConfigError(
                "[constraints]: found a categorical head, whose levels have no gradient; expected another head or none"
            )
        self.projection = GuardProjection(self.guard, self.output_names)

    def loss(self, base: OutputLoss) -> OutputLoss:
        """`base` with what ``[constraints]`` asks for."""
        return constrained_loss(self.section, base, self.guard, self.output_names)

    @torch.no_grad()
    def measure(self, model: StepModel | None, streams: Streams) -> dict[str, float]:
        """``share`` of the commands that the guard would change, and ``rms`` of that change over all [SI units].

        The commands are the model's, or without one the targets themselves. Each recording is guarded from where its
        targets start; no recording is looked at beyond its first 2000 steps.
        """
        changed = steps = values = 0
        squares = 0.0
        for recording in streams:
            if len(recording) <= HISTORY:  # nothing in it can be judged
                continue
            x, y = (torch.from_numpy(v[:2000])[None] for v in (recording.x, recording.y))
            proposed = (y if model is None else model.eval()(x))[:, HISTORY:]
            sent, moved = self.projection(proposed, y[:, 1], y[:, 0])
            changed, steps = changed + int(moved.sum()), steps + moved.numel()
            squares, values = squares + float((sent - proposed).double().square().sum()), values + sent.numel()
        return {"share": changed / max(steps, 1), "rms": math.sqrt(squares / max(values, 1))}

    def report(self, before: dict[str, float], model: StepModel, streams: Streams) -> dict[str, Any]:
        """The section and the three measurements, for provenance."""
        found = {"before": before, "after": self.measure(model, streams), "targets": self.measure(None, streams)}
        return {**self.section.model_dump(mode="json"), "guard_changes": found}

    @staticmethod
    def describe(report: dict[str, Any]) -> str:
        texts = {
            name: f"{100 * found['share']:.1f} % of commands by {found['rms']:.2g} RMS"
            for name, found in report["guard_changes"].items()
        }
        return (
            f"{texts['after']} (before training {texts['before']}, the targets' own {texts['targets']}), on held-out "
            "data; the guarantee is the guard's, not the training's"
        )
