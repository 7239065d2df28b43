"""Training data: recordings from files or generators, checked before any time is spent on training."""

from __future__ import annotations

from kizzasi_export.datasets.arrays import load_npz
from kizzasi_export.datasets.open import open_streams
from kizzasi_export.datasets.section import DataSection
from kizzasi_export.datasets.sequence import SequenceDataset
from kizzasi_export.datasets.streams import Recording, Streams

__all__ = ["DataSection", "Recording", "SequenceDataset", "Streams", "load_npz", "open_streams"]
