"""What travels from a connector to the model and back: values with names and the time they were true.

The two stamps of an Observation are handed on unchanged to the Command made from it (CONTRACT §5): that is
how the firmware knows how old the measurement behind a command is. So a Command is made by
`Observation.command`, and nothing else sets its stamps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kizzasi_edge.errors import InputError

__all__ = ["Command", "Observation"]


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """One aligned set of measurements.

    Attributes:
        stamp_ns: monotonic receive time of the oldest input used, ns (CLOCK_MONOTONIC).
        seq: counts the observations of one run.
        names: what each value is, `<joint>/<interface>`.
        values: float32 (n,), SI units.
        valid: bool (n,); False where the source has no value (then values holds whatever was there).
        t_us: the device's clock when it sampled, µs, u32; 0 if the source has none.
    """

    stamp_ns: int
    seq: int
    names: tuple[str, ...]
    values: npt.NDArray[np.float32]
    valid: npt.NDArray[np.bool_]
    t_us: int = 0

    def __post_init__(self) -> None:
        _check(self)

    def command(
        self,
        names: tuple[str, ...],
        values: npt.NDArray[np.float32],
        valid: npt.NDArray[np.bool_] | None = None,
    ) -> Command:
        """The Command decided from this observation: stamps and seq travel along; all valid by default.

        Raises InputError when a length or dtype is wrong.
        """
        if valid is None:
            valid = np.ones(len(names), np.bool_)
        return Command(self.stamp_ns, self.seq, names, values, valid, self.t_us)


@dataclass(frozen=True, slots=True, eq=False)
class Command:
    """What to do about one Observation; fields as there, `values` float32 (n,) in SI units."""

    stamp_ns: int
    seq: int
    names: tuple[str, ...]
    values: npt.NDArray[np.float32]
    valid: npt.NDArray[np.bool_]
    t_us: int = 0

    def __post_init__(self) -> None:
        _check(self)


def _check(frame: Observation | Command) -> None:
    kind, n = type(frame).__name__, len(frame.names)
    for field, array, dtype in (("values", frame.values, np.float32), ("valid", frame.valid, np.bool_)):
        if array.shape != (n,) or array.dtype != dtype:
            raise InputError(
                f"{kind}.{field}: found {array.dtype} {array.shape}, expected {np.dtype(dtype)} ({n},) "
                f"for names {frame.names}"
            )
    if not 0 <= frame.t_us < 1 << 32:
        raise InputError(f"{kind}.t_us: found {frame.t_us}, expected 0 … 2³²−1 µs")
