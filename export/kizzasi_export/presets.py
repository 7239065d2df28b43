"""Named sizes to start from (DESIGN §3). `context_window` is the training window and the Transformer's cache length."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "robotics": {"kind": "mamba2", "hidden_dim": 128, "state_dim": 8, "num_layers": 3, "context_window": 1024},
    "sensor": {"kind": "mamba2", "hidden_dim": 64, "state_dim": 8, "num_layers": 2, "context_window": 2048},
    "audio": {"kind": "mamba2", "hidden_dim": 256, "state_dim": 16, "num_layers": 4, "context_window": 8192},
    "lightweight": {"kind": "mamba", "hidden_dim": 32, "state_dim": 4, "num_layers": 1, "context_window": 512},
    "control": {"kind": "mamba2", "hidden_dim": 64, "state_dim": 8, "num_layers": 2, "context_window": 256},
    "video": {"kind": "mamba2", "hidden_dim": 512, "state_dim": 32, "num_layers": 6, "context_window": 16384},
}


def preset(name: str, **changes: Any) -> dict[str, Any]:
    """The arguments of `build_model` called `name`, with `changes` on top: ``build_model(**preset("control", …))``.

    Raises:
        ValueError: no preset of that name.
    """
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}, expected one of {', '.join(PRESETS)}")
    return {**PRESETS[name], **changes}
