"""Binding of the C guard (kz_guard, kz_coupled through guard_glue): positions and velocities on the integer lattice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from kizzasi_bridge._kz_core import ffi, lib

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.lattice import RAW_MAX, LatticeLimits
from kizzasi_edge.guardrails.verdict import HEADER, Layout

if TYPE_CHECKING:
    from kizzasi_edge.guardrails.effort_rows import EffortRows

F64 = npt.NDArray[np.float64]
FloatArray = npt.NDArray[np.float32]

_follow, _applied = lib.kzh_guard_follow, lib.kzh_guard_applied
MAX_CHANNELS: int = lib.KZ_MAX_CH


class CoreDrive:
    """The :class:`~kizzasi_edge.guardrails.drive.Drive` of positions and velocities: one C guard and its buffers."""

    __slots__ = (
        "_applied",
        "_applied_p",
        "_command",
        "_command_p",
        "_coupled",
        "_effort",
        "_g",
        "_most",
        "_out",
        "_out_p",
        "_position",
        "_position_p",
        "_slow",
        "_step",
        "_step_p",
        "_velocity",
        "_velocity_p",
        "layout",
        "measures",
        "record",
        "shape",
    )

    def __init__(
        self,
        limits: Sequence[LatticeLimits],
        layout: Layout,
        *,
        rate_hz: float,
        miss_budget: int,
        velocity: bool = False,
        approach: bool = False,
        jerk: Sequence[int] | None = None,
        coupled: Any = None,
        effort: EffortRows | None = None,
    ) -> None:
        """``velocity``: commands are velocities (and ``limits`` of :func:`~.lattice.to_velocity_lattice`). ``jerk``:
        per joint [quanta], 0 for none. ``coupled``: rules that couple them, of :func:`~.coupled.build_coupled`;
        ``effort``: those of them that move with the joints."""
        n = len(limits)
        if not 1 <= n <= MAX_CHANNELS:
            raise GuardrailError(f"a guard has 1 to {MAX_CHANNELS} joints, found {n}")
        self._g: Any = ffi.new("kzh_guard *")
        g = self._g
        g.n, g.rate_hz, g.miss_budget, g.velocity, g.approach = n, rate_hz, miss_budget, velocity, approach
        self._coupled, self._effort = coupled, effort  # C only points to it
        g.coupled = ffi.NULL if coupled is None else coupled
        for i, limit in enumerate(limits):
            g.limit[i] = (limit.lo, limit.hi, limit.w, limit.h)
            g.unit[i] = limit.quantum
            g.jerk[i] = 0 if jerk is None else jerk[i]
            if not lib.kz_limit_ok(ffi.addressof(g.limit, i)):
                raise GuardrailError(f"joint {limit.name!r}: limits {limit} cannot be guarded")
        self.layout = layout
        self.shape: tuple[int, ...] = (n,)
        ranged = any(limit.hi < RAW_MAX for limit in limits)
        self.measures: tuple[str, ...] = ("position",) if velocity and ranged else ()
        self.record = ffi.buffer(ffi.addressof(g, "verdict"), HEADER.size + n)
        self._slow = False
        self._command: FloatArray = np.zeros(n, np.float32)
        self._out: FloatArray = np.zeros(n, np.float32)
        self._position: F64 = np.zeros(n)
        self._velocity: F64 = np.zeros(n)
        self._applied: npt.NDArray[np.int32] = np.zeros(n, np.int32)
        self._step: npt.NDArray[np.int32] = np.zeros(n, np.int32)
        self._most: npt.NDArray[np.int32] = np.array([limit.w for limit in limits], np.int32)
        self._command_p = ffi.from_buffer("float[]", self._command)
        self._out_p = ffi.from_buffer("float[]", self._out)
        self._position_p = ffi.from_buffer("double[]", self._position)
        self._velocity_p = ffi.from_buffer("double[]", self._velocity)
        self._applied_p = ffi.from_buffer("int32_t[]", self._applied)
        self._step_p = ffi.from_buffer("int32_t[]", self._step)

    def seed(self, position: F64) -> None:
        self._position[...] = position
        lib.kzh_guard_seed(self._g, self._position_p)

    def measure(self, position: F64, velocity: F64 | None) -> None:
        if self.measures:
            self._position[...] = position
            lib.kzh_guard_measure(self._g, self._position_p)

    def rebase(self, applied: npt.NDArray[np.int32], step: npt.NDArray[np.int32]) -> None:
        """Stand at ``applied`` with last step ``step``, in quanta. A velocity applied is itself the last step."""
        self._applied[:] = applied
        np.clip(step, -self._most, self._most, out=self._step)  # of full speed: derated, it may still be that fast
        lib.kzh_guard_rebase(self._g, self._applied_p, self._step_p)

    def follow(self, command: FloatArray, out: FloatArray) -> int:
        self._command[...] = command  # [:] would make a slice first: 65 ns
        if self._effort is not None:
            self._update_effort(self._effort)
        found: int = _follow(self._g, self._command_p, self._out_p)
        out[...] = self._out
        return found

    def coast(self, out: FloatArray, rule: int) -> None:
        if self._effort is not None:
            self._update_effort(self._effort)
        lib.kzh_guard_coast(self._g, rule, self._out_p)
        out[...] = self._out

    def brake(self, out: FloatArray, rule: int) -> None:
        lib.kzh_guard_brake(self._g, rule, self._out_p)
        out[...] = self._out

    def derate(self, slow: bool) -> None:
        if slow == self._slow:
            return
        self._slow = slow
        for i, w in enumerate(self._most.tolist()):
            self._g.limit[i].w = max(w // 2, 1) if slow else w
            if self._coupled is not None:
                self._coupled.limit[i].w = self._g.limit[i].w

    @property
    def at_rest(self) -> bool:
        return bool(lib.kzh_guard_at_rest(self._g))

    def asks_no_motion(self, command: FloatArray) -> bool:
        self._command[...] = command
        return bool(lib.kzh_guard_asks_no_motion(self._g, self._command_p))

    def enable(self, rows: int) -> None:
        """A bit for each coupled row that is to hold."""
        if self._coupled is not None:
            self._coupled.enabled = rows | (0 if self._effort is None else self._effort.mask)

    def _update_effort(self, effort: EffortRows) -> None:
        _applied(self._g, self._position_p, self._velocity_p)
        effort.update(self._position, self._velocity)

    def motion(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Copies of the last positions and steps ``(n,)``, in quanta."""
        lib.kzh_guard_motion(self._g, self._applied_p, self._step_p)
        return self._applied.copy(), self._step.copy()

    def applied(self) -> tuple[list[float], list[float]]:
        """The last position and velocity applied, SI units."""
        _applied(self._g, self._position_p, self._velocity_p)
        return self._position.tolist(), self._velocity.tolist()
