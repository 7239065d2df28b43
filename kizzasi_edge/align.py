"""From the newest observation of every source to one vector: the model's inputs, then what the guard wants beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kizzasi_edge.connectors.base import Source
from kizzasi_edge.errors import ConfigError
from kizzasi_edge.frames import Observation


@dataclass(frozen=True, slots=True)
class Input:
    """One ``[[input]]``: its source, ``fields`` our name → source name, and age limit [ns] (``None`` = none)."""

    label: str
    source: Source
    fields: Mapping[str, str]
    stale_ns: int | None


class Align:
    """Latest value of each input, by name: ``names`` holds the ``model_dim`` ones of the model, in its order, then what
    else the guard reads.

    :meth:`read` returns an observation whose ``values`` buffer is reused by the next call; its stamps are those of
    the oldest input (CONTRACT §5). ``stale`` counts the ticks that were refused because an input was too old or
    missing, by input.
    """

    def __init__(
        self, names: Sequence[str], inputs: Sequence[Input], needed: Sequence[str] = (), welcome: Sequence[str] = ()
    ) -> None:
        """Route every model input ``names`` and all that the guard ``needed`` to a source, and what is ``welcome`` if
        one offers it; sources must be open. Raises :class:`ConfigError`."""
        offered_by_any = {
            name for item in inputs for name in (*welcome, *needed) if item.fields.get(name, name) in item.source.names
        }
        extras = [*needed, *(name for name in welcome if name in offered_by_any)]
        self.names = tuple(dict.fromkeys((*names, *extras)))
        self.model_dim = len(names)
        self.inputs = tuple(inputs)
        self.stale = {item.label: 0 for item in inputs}
        self._values = np.zeros(len(self.names), np.float32)
        self._valid = np.ones(len(self.names), np.bool_)
        self._routes: list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]] = []
        taken: dict[str, str] = {}
        for item in inputs:
            offered, where = item.source.names, f"[[input]] {item.label}"
            pairs = []
            for position, name in enumerate(self.names):
                field = item.fields.get(name, name)
                if field not in offered:
                    if name in item.fields:
                        raise ConfigError(
                            f"{where} fields: found {field!r} for {name!r}; expected one of {list(offered)}"
                        )
                    continue
                if name in taken:
                    if name not in names and name not in needed:
                        continue  # welcome, and given already
                    raise ConfigError(f"{where}: input {name!r} also comes from {taken[name]}")
                taken[name] = item.label
                pairs.append((position, offered.index(field)))
            unknown = set(item.fields) - set(self.names)
            if unknown:
                raise ConfigError(f"{where} fields: found {sorted(unknown)}; the inputs are {list(self.names)}")
            if not pairs:
                raise ConfigError(f"{where}: gives none of the inputs {list(self.names)}; it offers {list(offered)}")
            into, out_of = zip(*pairs, strict=True)
            self._routes.append((np.array(into), np.array(out_of)))
        for asked, what in ((names, "the model inputs"), (needed, "what the guard reads:")):
            if missing := [name for name in asked if name not in taken]:
                raise ConfigError(f"no [[input]] gives {what} {missing}")

    def read(self, now_ns: int, seq: int) -> Observation | None:
        """The inputs now, or ``None`` when an input is missing or too old."""
        oldest_ns, clock_us, clock_ns = now_ns, 0, 0
        usable = True
        for item, (into, out_of) in zip(self.inputs, self._routes, strict=True):
            seen = item.source.read()
            if (
                seen is None
                or (item.stale_ns is not None and now_ns - seen.stamp_ns > item.stale_ns)
                or not seen.valid[out_of].all()
            ):
                self.stale[item.label] += 1
                usable = False
                continue
            self._values[into] = seen.values[out_of]
            oldest_ns = min(oldest_ns, seen.stamp_ns)
            if seen.t_us:
                clock_us, clock_ns = seen.t_us, seen.stamp_ns
        if not usable:
            return None
        # The device judges the age of a command on its own clock, so an older input is told in that clock's time.
        t_us = (clock_us - (clock_ns - oldest_ns) // 1000) & 0xFFFFFFFF if clock_us else 0
        return Observation(oldest_ns, seq, self.names, self._values, self._valid, t_us)
