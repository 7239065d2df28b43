"""The guard as a user holds it: built from a file or a builder, stepped once per command period."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from kizzasi_edge.errors import GuardrailError, InputError
from kizzasi_edge.guardrails.builder import Builder
from kizzasi_edge.guardrails.core import CoreGuard
from kizzasi_edge.guardrails.coupled import build_coupled
from kizzasi_edge.guardrails.coupled_spec import coupled_rules
from kizzasi_edge.guardrails.explain import explain
from kizzasi_edge.guardrails.lattice import JointLimits, LatticeLimits, to_lattice
from kizzasi_edge.guardrails.limits import joint_limits
from kizzasi_edge.guardrails.spec import GuardFile, load_spec
from kizzasi_edge.guardrails.verdict import RULE_BITS, Status, Verdict

FloatArray = npt.NDArray[np.float32]


class Guardrails:
    """Keeps every command inside position, velocity and acceleration limits, exactly (docs/guardrails.md).

    The recursion stands on the last value sent, or on what :meth:`rebase` says was applied; measured positions only
    seed it. One instance guards one stream of commands and is not thread-safe.

    Attributes: ``joints`` names in order; ``rate_hz`` the command rate; ``limits`` SI limits after margins;
    ``lattice`` the integers that are promised (and uploaded to the node); ``rows`` and ``quadratics`` the rules that
    couple joints.
    """

    def __init__(self, spec: GuardFile, where: str | Path = "guard") -> None:
        self.spec = spec
        self.where = str(where)
        self.rate_hz = float(spec.guard.rate_hz)
        self.limits: tuple[JointLimits, ...] = joint_limits(spec, where)
        self.rows, self.quadratics = coupled_rules(spec, self.limits, where)
        try:
            self.lattice: tuple[LatticeLimits, ...] = tuple(to_lattice(limit, self.rate_hz) for limit in self.limits)
            self._core = CoreGuard(
                self.lattice,
                spec.guard.miss_budget,
                spec.guard.nan_ticks,
                approach=spec.guard.on_clamp == "approach",
                coupled=self._build_coupled(),
            )
        except GuardrailError as exc:
            raise GuardrailError(f"{where}: {exc}") from None
        self.joints = tuple(limit.name for limit in self.limits)
        self.quanta: npt.NDArray[np.float64] = np.array([limit.quantum for limit in self.lattice])
        self._n = len(self.joints)
        self._shape = (self._n,)
        self._names = tuple(
            {bit: limit.origin.get(kind, kind) for bit, kind in RULE_BITS.items()} for limit in self.limits
        )
        self._coupled = (*(row.name for row in self.rows), *(form.name for form in self.quadratics))
        self._seeded = False
        self._live = self._verdict(0)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Build from a ``*.guard.toml``. Raises :class:`GuardrailError` naming file, section, key, found, expected."""
        return cls(load_spec(path), path)

    @staticmethod
    def builder(*, rate_hz: float, miss_budget: int = 3, velocity_scale: float = 0.9) -> Builder:
        """Start building a guard in code; see :class:`Builder`."""
        return Builder(lambda spec: Guardrails(spec, "builder"), rate_hz, miss_budget, velocity_scale)

    def _build_coupled(self) -> Any:
        if not self.rows and not self.quadratics:
            return None
        return build_coupled(
            self.lattice, self.rows, self.quadratics, rate_hz=self.rate_hz, miss_budget=self.spec.guard.miss_budget
        )

    @property
    def miss_budget(self) -> int:
        return self.spec.guard.miss_budget

    def reset(self, position: npt.ArrayLike) -> None:
        """Stand at rest at a measured ``position`` ``(n,)`` [rad]; also clears a latched e-stop.

        Outside the limits the axis may then only move inwards, at an eighth of its speed.
        """
        self._core.position[:] = self._vector(position, "position")
        self._core.seed()
        self._seeded = True

    def rebase(self, applied: npt.NDArray[np.int32], step: npt.NDArray[np.int32]) -> None:
        """Stand on what the node says it applied: positions and last steps ``(n,)`` in quanta."""
        self._core.applied[:] = applied
        self._core.step[:] = step
        self._core.rebase()
        self._seeded = True

    def step(
        self,
        command: npt.ArrayLike,
        *,
        position: npt.ArrayLike | None = None,
        velocity: npt.ArrayLike | None = None,
        signals: Mapping[str, float] | None = None,
        stamp_ns: int = 0,
    ) -> tuple[FloatArray, Verdict]:
        """Admit one command.

        ``command`` ``(n,)`` proposed positions [rad]; may hold NaN or Inf: then coast, then brake. ``position``
        ``(n,)`` measured [rad]: required once, at the first step. ``velocity`` and ``signals`` are for rules on
        measurements. Returns a fresh float32 ``(n,)`` and a verdict of its own.

        Raises :class:`GuardrailError` without a first position, :class:`InputError` on a wrong shape; the guard then
        stands where it stood.
        """
        out = np.empty(self._n, np.float32)
        self._run(command, out, position, velocity, signals)
        return out, self._verdict(stamp_ns)

    def step_into(
        self,
        command: npt.ArrayLike,
        out: FloatArray,
        *,
        position: npt.ArrayLike | None = None,
        velocity: npt.ArrayLike | None = None,
        signals: Mapping[str, float] | None = None,
        stamp_ns: int = 0,
    ) -> Verdict:
        """:meth:`step` into ``out``. The verdict returned is the guard's own: it changes with the next call."""
        if out.shape != self._shape or out.dtype != np.float32:
            raise InputError(f"out: found {out.dtype} {out.shape}; expected float32 {self._shape}")
        self._run(command, out, position, velocity, signals)
        return self._refresh(stamp_ns)

    def _run(
        self,
        command: npt.ArrayLike,
        out: FloatArray,
        position: npt.ArrayLike | None,
        velocity: npt.ArrayLike | None,
        signals: Mapping[str, float] | None,
    ) -> None:
        if signals is not None or velocity is not None:
            self._refuse_unused(velocity, signals)
        core = self._core
        shape = command.shape if isinstance(command, np.ndarray) else np.shape(command)
        if shape != self._shape:
            raise InputError(
                f"command: found shape {shape}; expected {self._shape}, one for each of {list(self.joints)}"
            )
        if not self._seeded:
            if position is None:
                raise GuardrailError(
                    f"{self.where}: the first step needs position=, the measured positions of {list(self.joints)}"
                )
            self.reset(position)
        core.command[:] = command
        core.run()
        out[:] = core.out

    def miss(self, out: FloatArray, stamp_ns: int = 0) -> Verdict:
        """One period without a proposal (stale input, late model): coast within the budget, then brake."""
        if not self._seeded:
            raise GuardrailError(f"{self.where}: a guard that has no position yet cannot coast or brake")
        self._core.miss()
        out[:] = self._core.out
        return self._refresh(stamp_ns)

    def estop(self) -> None:
        """Latch: from the next call on brake to rest and stay there, until :meth:`clear` or :meth:`reset`."""
        self._core.estop()

    def clear(self) -> None:
        """Release a latched stop; the guard stands where it is."""
        self._core.clear()

    @property
    def motion(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Last sent positions and steps ``(n,)`` in quanta."""
        return self._core.motion()

    def explain(self) -> str:
        """What is enforced and under which assumptions, in words."""
        return explain(self.spec, self.where, self.limits, self.lattice, self.rows, self.quadratics)

    def _refuse_unused(self, velocity: npt.ArrayLike | None, signals: Mapping[str, float] | None) -> None:
        if velocity is not None:
            self._vector(velocity, "velocity")
        if signals:
            raise GuardrailError(f"{self.where}: signals {sorted(signals)} are given, but no rule uses a signal")

    def _vector(self, value: npt.ArrayLike, name: str) -> npt.NDArray[np.float64]:
        array = np.asarray(value, np.float64)
        if array.shape != (self._n,):
            raise InputError(
                f"{name}: found shape {array.shape}; expected ({self._n},), one per joint of {list(self.joints)}"
            )
        if not np.isfinite(array).all():
            bad = int(np.flatnonzero(~np.isfinite(array))[0])
            raise InputError(f"{name}[{bad}] ({self.joints[bad]}): found {array[bad]}; expected a finite number")
        return array

    def _verdict(self, stamp_ns: int) -> Verdict:
        core = self._core
        return Verdict(
            Status(core.status), core.intervention, core.rules, self.joints, self._names, stamp_ns,
            self._coupled, core.shaped, core.relaxed,
        )  # fmt: skip

    def _refresh(self, stamp_ns: int) -> Verdict:
        live, core = self._live, self._core
        live.status, live.intervention, live.bits, live.stamp_ns = (
            _STATUS[core.status],
            core.intervention,
            core.rules,
            stamp_ns,
        )
        if self._coupled:
            live.shaped, live.relaxed = core.shaped, core.relaxed
        return live


_STATUS = tuple(Status)
