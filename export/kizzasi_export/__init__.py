"""Offline side: build, train, verify and export sequence models (torch). Never imported on the robot."""

from __future__ import annotations

from kizzasi_export.export import export_step
from kizzasi_export.models import KINDS, Normalizer, SequenceModel, StepModel, build_model

__all__ = ["KINDS", "Normalizer", "SequenceModel", "StepModel", "build_model", "export_step"]
