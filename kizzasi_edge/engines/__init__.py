"""The engines that can step a bundle, by name."""

from __future__ import annotations

from collections.abc import Callable

from kizzasi_edge.bundle import Bundle
from kizzasi_edge.engines.base import Engine, FloatArray
from kizzasi_edge.engines.ort import OrtEngine
from kizzasi_edge.errors import ConfigError

__all__ = ["ENGINES", "Engine", "FloatArray", "OrtEngine", "open_engine"]

ENGINES: dict[str, Callable[[Bundle, int], Engine]] = {"ort": OrtEngine}
"""Name → constructor (bundle, batch)."""

_AUTO_ORDER = ("native", "ort")


def open_engine(bundle: Bundle, name: str = "auto", batch: int = 1) -> Engine:
    """Opens the engine called `name`; "auto" takes the fastest one that this build has.

    Raises:
        ConfigError: no engine of that name, or this build lacks it.
        BundleError: the engine cannot run this bundle.
    """
    if name == "auto":
        name = next(candidate for candidate in _AUTO_ORDER if candidate in ENGINES)
    if name in ENGINES:
        return ENGINES[name](bundle, batch)
    if name == "native":
        raise ConfigError(
            f'engine: found "native", expected "ort": this build has no native engine for kind '
            f'"{bundle.manifest.kind}" ({bundle.path})'
        )
    raise ConfigError(f'engine: found "{name}", expected one of auto, native, {", ".join(ENGINES)}')
