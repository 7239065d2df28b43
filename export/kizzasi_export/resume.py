"""Whether a training's saved state can be continued by this configuration, said before any work is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from kizzasi_edge.errors import ConfigError
from kizzasi_export.trainee import Trainee

_WHERE_IT_RUNS = {"accelerator", "strategy", "precision"}
"""Keys of ``[training]`` that may differ: all others change what a resumed training would compute."""


def saved_state(path: Path) -> dict[str, Any]:
    """A file that the trainer wrote.

    Raises:
        ConfigError: it is not there, damaged, or somebody else's.
    """
    try:
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        missing = {"state_dict", "history", "settings", "data", "finished"} - saved.keys()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; leave --resume out to start anew") from None
    except Exception as error:  # zip, pickle and torch have one for each way a file can be damaged
        raise ConfigError(
            f"{path}: damaged, or not a state that torch saved ({type(error).__name__}); leave --resume out to start "
            "anew"
        ) from None
    if missing:
        raise ConfigError(f"{path}: no {', '.join(sorted(missing))}, expected a state that this trainer saved")
    return saved


def require_same(saved: dict[str, Any], trainee: Trainee, path: Path) -> None:
    """Raise ConfigError naming the first thing in which `saved`, read from `path`, is another training's state."""
    hint = f"as in {path}; leave --resume out to start anew"
    for key, found in trainee.settings.items():
        if key not in _WHERE_IT_RUNS and found != (expected := saved["settings"].get(key)):
            raise ConfigError(f"[training] {key}: found {found!r}, expected {expected!r} {hint}")
    if trainee.data_sizes != list(saved["data"]):
        raise ConfigError(
            f"training data: found {trainee.data_sizes} sequences and steps to train on and to validate, expected "
            f"{list(saved['data'])} {hint}"
        )
    ours, theirs = (
        {name: list(value.shape) for name, value in tensors.items() if isinstance(value, torch.Tensor)}
        for tensors in (trainee.state_dict(), saved["state_dict"])
    )
    for name in [*ours, *theirs]:
        if ours.get(name) != theirs.get(name):
            found, expected = (shapes.get(name, "no such tensor") for shapes in (ours, theirs))
            raise ConfigError(f"[model] {name.removeprefix('model.')}: found {found}, expected {expected} {hint}")
