"""Training data."""

from __future__ import annotations

from kizzasi_export.datasets.sequence import SequenceDataset, load_npz

__all__ = ["SequenceDataset", "load_npz"]
