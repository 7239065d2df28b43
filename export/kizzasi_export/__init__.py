"""Offline side: build, train, verify and export sequence models (torch). Never imported on the robot."""

from __future__ import annotations

from kizzasi_export.export import export_step
from kizzasi_export.models import KINDS, Normalizer, SequenceModel, StepModel, Tokenizer, build_model
from kizzasi_export.presets import PRESETS, preset

__all__ = [
    "KINDS",
    "PRESETS",
    "Normalizer",
    "SequenceModel",
    "StepModel",
    "Tokenizer",
    "build_model",
    "export_step",
    "preset",
]
