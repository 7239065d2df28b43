"""Binding of the C guard (kz_guard through guard_glue): the one implementation, shared with the firmware."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from kizzasi_bridge._kz_core import ffi, lib

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.lattice import LatticeLimits

MAX_CHANNELS: int = lib.KZ_MAX_CH


class CoreGuard:
    """One C guard and its preallocated buffers.

    ``command`` and ``out`` are float32 arrays ``(n,)`` that the C code reads and writes in place;
    ``position`` (float64) seeds, ``applied``/``step`` (int32, quanta) rebase.
    """

    __slots__ = (
        "_applied_p",
        "_command_p",
        "_coupled",
        "_g",
        "_out_p",
        "_position_p",
        "_rules",
        "_step_p",
        "applied",
        "command",
        "out",
        "position",
        "step",
    )

    def __init__(
        self,
        limits: Sequence[LatticeLimits],
        miss_budget: int,
        nan_ticks: int,
        *,
        approach: bool = False,
        coupled: Any = None,
    ) -> None:
        """``coupled``: rules that couple these joints, as :func:`~kizzasi_edge.guardrails.coupled.build_coupled` makes
        them."""
        n = len(limits)
        if not 1 <= n <= MAX_CHANNELS:
            raise GuardrailError(f"a guard has 1 to {MAX_CHANNELS} joints, found {n}")
        self._g: Any = ffi.new("kzh_guard *")
        g = self._g
        g.n, g.miss_budget, g.nan_ticks, g.approach = n, miss_budget, nan_ticks, approach
        self._coupled = coupled  # C only points to it
        g.coupled = ffi.NULL if coupled is None else coupled
        for i, limit in enumerate(limits):
            g.limit[i] = (limit.lo, limit.hi, limit.w, limit.h)
            g.quantum[i] = limit.quantum
            if not lib.kz_limit_ok(ffi.addressof(g.limit, i)):
                raise GuardrailError(f"joint {limit.name!r}: limits {limit} cannot be guarded")
        self.command: npt.NDArray[np.float32] = np.zeros(n, np.float32)
        self.out: npt.NDArray[np.float32] = np.zeros(n, np.float32)
        self.position: npt.NDArray[np.float64] = np.zeros(n, np.float64)
        self.applied: npt.NDArray[np.int32] = np.zeros(n, np.int32)
        self.step: npt.NDArray[np.int32] = np.zeros(n, np.int32)
        self._command_p = ffi.from_buffer("float[]", self.command)
        self._out_p = ffi.from_buffer("float[]", self.out)
        self._position_p = ffi.from_buffer("double[]", self.position)
        self._applied_p = ffi.from_buffer("int32_t[]", self.applied)
        self._step_p = ffi.from_buffer("int32_t[]", self.step)
        self._rules = ffi.buffer(ffi.addressof(g, "rules"), n)

    def run(self) -> None:
        """``out`` ← the admissible value nearest to ``command``; coast or brake if it is not finite."""
        lib.kzh_guard_step(self._g, self._command_p, self._out_p)

    def miss(self) -> None:
        """``out`` ← one period without a command: coast within the miss budget, then brake."""
        lib.kzh_guard_miss(self._g, self._out_p)

    def seed(self) -> None:
        """Stand at rest at ``position``."""
        lib.kzh_guard_seed(self._g, self._position_p)

    def rebase(self) -> None:
        """Stand at ``applied`` with last step ``step``."""
        lib.kzh_guard_rebase(self._g, self._applied_p, self._step_p)

    def estop(self) -> None:
        """Latch: brake, whatever is asked, until :meth:`clear`."""
        lib.kzh_guard_estop(self._g)

    def clear(self) -> None:
        """Release the latch and forget the run of non-finite commands behind it."""
        lib.kzh_guard_clear(self._g)

    @property
    def status(self) -> int:
        return int(self._g.status)

    @property
    def intervention(self) -> float:
        return float(self._g.intervention)

    @property
    def rules(self) -> bytes:
        return bytes(self._rules)

    @property
    def shaped(self) -> int:
        """A bit for each coupled rule that shaped the last command: the rows, then the quadratics."""
        g = self._g
        return 0 if self._coupled is None else g.rows | g.quads << self._coupled.rows

    @property
    def relaxed(self) -> int:
        """The same for soft rules that were given up."""
        g = self._g
        return 0 if self._coupled is None else g.relaxed | g.relaxed_quads << self._coupled.rows

    def motion(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Copies of the last sent positions and steps, in quanta."""
        n = self._g.n
        q = np.array([self._g.axis[i].q for i in range(n)], np.int32)
        v = np.array([self._g.axis[i].v for i in range(n)], np.int32)
        return q, v
