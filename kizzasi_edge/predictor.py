"""The model as a program uses it: named inputs in, checked and guarded outputs out.

A step is: check x → run → check y → guard → commit. The state moves in the last of these, so a step that
raises has changed nothing (DESIGN §8). The guard is asked even when the model fails: a robot in motion needs
an answer every period: a non-finite proposal makes it coast, then brake (CONTRACT §2).
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from kizzasi_edge.bundle import Bundle, Manifest
from kizzasi_edge.engines import open_engine
from kizzasi_edge.engines.base import FloatArray, StateArray
from kizzasi_edge.errors import ConfigError, InputError, ModelError, SnapshotError
from kizzasi_edge.joints import Measured, guard_order

if TYPE_CHECKING:
    from kizzasi_edge.guardrails import Guardrails, Verdict

__all__ = ["Predictor", "Snapshot"]

_F32 = np.dtype(np.float32)  # comparing with the type itself would build this at each step


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A model's state (read-only arrays by name) and the digest of the bundle it belongs to."""

    digest: str
    state: Mapping[str, StateArray]


class Predictor:
    """Steps one stream through a model and, where given, a guard. Not thread-safe.

    Args:
        model: path of a bundle, or an opened one.
        guardrails: guards every command; its joints must be the model's outputs (`<joint>`, or `<joint>/position`,
            `/velocity` or `/effort` as its command is), in any order; a pose guard's `output_names` as they are.
            restore(), reset() and predict_n() never touch it.
        engine: "auto", "ort" or "native".

    Attributes:
        input_names, output_names: of x's and y's elements, in order.
        sample_rate_hz: the rate the model was trained at and must be stepped at.
        engine: name of the engine in use.
        manifest, bundle: the model file.
        guardrails: the guard, or None.
        verdict: the guard's last decision (its live object: the next step changes it); None before the first.
        head: the last step's other outputs of a gaussian (``logvar``) or categorical (``logits``) head, float32 views
            that the next step overwrites; empty for a continuous head.
        failed_steps: steps whose output was not finite; their state was not committed.

    Raises:
        BundleError: the file cannot be used.
        GuardrailError: the guard's joints and the model's outputs differ.
        ConfigError: guard and model disagree about the rate, or there is no such engine.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Bundle,
        *,
        guardrails: Guardrails | None = None,
        engine: str = "auto",
    ) -> None:
        self.bundle = model if isinstance(model, Bundle) else Bundle.open(model)
        self.manifest: Manifest = self.bundle.manifest
        self.input_names = self.manifest.input_names
        self.output_names = self.manifest.output_names
        self.sample_rate_hz = self.manifest.sample_rate_hz
        self.guardrails = guardrails
        self.verdict: Verdict | None = None
        self.failed_steps = 0
        if guardrails is not None:
            self._order = guard_order(self.output_names, guardrails, str(self.bundle.path))
            self._measured = Measured(self.input_names, guardrails)
            _check_rate(self.bundle, guardrails)
            self._proposal = np.empty(len(self._order), np.float32)
            self._sent = np.empty(len(self._order), np.float32)
        self._engine = open_engine(self.bundle, engine)
        self.engine = self._engine.name
        self.head: Mapping[str, FloatArray] = self._engine.head
        self._x_finite = _FiniteCheck(self.manifest.input_dim)
        self._y_finite = _FiniteCheck(self.manifest.output_dim)

    def step(
        self,
        x: npt.ArrayLike,
        *,
        position: npt.ArrayLike | None = None,
        velocity: npt.ArrayLike | None = None,
        signals: Mapping[str, float] | None = None,
        stamp_ns: int = 0,
    ) -> FloatArray:
        """One step of one sample period.

        Args:
            x: (input_dim,), SI units as the manifest says; converted to float32 (step_into takes nothing else).
            position: measured joint positions (n,) in the guard's joint order, rad; by default the inputs
                named `<joint>/position`, where the model has them.
            velocity: measured joint velocities (n,), rad/s; by default the inputs named `<joint>/velocity`.
            signals: named scalars for guard rules that use them; added to those among the inputs, and they win.
            stamp_ns: monotonic receive time of the oldest input used; travels into the verdict.
                The last four matter to the guard only.

        Returns:
            A fresh float32 (output_dim,), SI units: the guard's command, or the model's y without a guard.

        Raises (the state is then as before):
            InputError: x has the wrong shape or dtype, or a NaN/Inf (names index and input).
            ModelError: without a guard, the model computed NaN/Inf. With one the guard's answer is returned.
            GuardrailError: the guard's first step found no position, or a step lacks what the guard measures.
        """
        out = np.empty(len(self.output_names), np.float32)
        self.step_into(
            np.asarray(x, np.float32), out, position=position, velocity=velocity, signals=signals, stamp_ns=stamp_ns
        )
        return out

    def step_into(
        self,
        x: FloatArray,
        out: FloatArray,
        *,
        position: npt.ArrayLike | None = None,
        velocity: npt.ArrayLike | None = None,
        signals: Mapping[str, float] | None = None,
        stamp_ns: int = 0,
    ) -> None:
        """step() into `out`, float32 (output_dim,), without allocating. Raises as step() does."""
        if not isinstance(out, np.ndarray) or out.shape != self._y_finite.shape or out.dtype != _F32:
            raise InputError(f"{self._where('out')}: {_found(out)}, expected float32 {self._y_finite.shape}")
        if self.guardrails is None:
            out[:] = self.propose(x)
            return
        self._load(x)
        engine = self._engine
        try:
            engine.run()
            finite = self._y_finite(engine.y)
        except ModelError:
            engine.y.fill(np.nan)
            finite = False
        engine.y.take(self._order, out=self._proposal, mode="clip")  # "raise" would buffer the result
        measured = self._measured
        self.verdict = self.guardrails.step_into(
            self._proposal,
            self._sent,
            position=measured.position(x) if position is None else position,
            velocity=measured.velocity(x) if velocity is None else velocity,
            signals=measured.signals(x, signals),
            stamp_ns=stamp_ns,
        )
        out[self._order] = self._sent
        if finite:
            engine.commit()
        else:
            self.failed_steps += 1

    def propose(self, x: FloatArray) -> FloatArray:
        """step() without the guard: for a loop that guards (and rebases the guard) by itself.

        Returns a float32 (output_dim,) view that the next step overwrites. Raises InputError or ModelError,
        the state then as before.
        """
        self._load(x)
        engine = self._engine
        try:
            engine.run()
        except ModelError:
            self.failed_steps += 1
            raise
        if not self._y_finite(engine.y):
            self.failed_steps += 1
            raise self._not_finite(engine.y, engine.state())
        engine.commit()
        return engine.y

    def predict_n(self, x: npt.ArrayLike, n: int) -> FloatArray:
        """A rollout of n steps from the live state, on copies: no state moves, and nothing is guarded.

        Outputs that bear an input's name are fed back as that input and the other inputs are held at x. Where
        no names are shared, y is fed back whole if it has x's length, else x is held.

        Returns float32 (n, output_dim). Raises InputError on a bad x or a negative n, ModelError when a step
        is not finite (names the step).
        """
        if n < 0:
            raise InputError(f"{self._where('n')}: found {n}, expected 0 or more steps")
        x = np.asarray(x, np.float32)
        self._check(x)
        engine = self._engine.fork()
        engine.x[:] = x
        source, target = feedback(self.input_names, self.output_names)
        ys = np.empty((n, len(self.output_names)), np.float32)
        for i in range(n):
            engine.run()
            if not self._y_finite(engine.y):
                error = self._not_finite(engine.y, engine.state())
                raise ModelError(f"step {i} of {n}: {error}")
            engine.commit()
            ys[i] = engine.y
            engine.x[target] = engine.y[source]
        return ys

    def snapshot(self) -> Snapshot:
        """The model's state now, as copies. The guard is no part of it."""
        state = self._engine.state()
        for array in state.values():
            array.setflags(write=False)
        return Snapshot(self.bundle.digest, state)

    def restore(self, snapshot: Snapshot) -> None:
        """Back to the snapshot's state; the guard stays put. Raises SnapshotError on another bundle's."""
        if snapshot.digest != self.bundle.digest:
            raise SnapshotError(
                f"{self.bundle.path}: snapshot of bundle {snapshot.digest[:12]}…, expected "
                f"{self.bundle.digest[:12]}…; replay recent inputs to hand a state to a new model"
            )
        self._engine.load_state(snapshot.state)

    def reset(self) -> None:
        """Back to the model's initial state. The guard stays put."""
        self._engine.reset()

    def _load(self, x: FloatArray) -> None:
        self._check(x)
        self._engine.x[:] = x

    def _check(self, x: FloatArray) -> None:
        if not isinstance(x, np.ndarray) or x.shape != self._x_finite.shape or x.dtype != _F32:
            raise InputError(f"{self._where('x')}: {_found(x)}, expected float32 {self._x_finite.shape}")
        if not self._x_finite(x):
            i = int(np.flatnonzero(~np.isfinite(x))[0])
            raise InputError(f"{self._where('x')}[{i}] ({self.input_names[i]}): found {x[i]}, expected a finite number")

    def _not_finite(self, y: FloatArray, state: Mapping[str, StateArray]) -> ModelError:
        i = int(np.flatnonzero(~np.isfinite(y))[0])
        message = f"{self._where('y')}[{i}] ({self.output_names[i]}): found {y[i]}, expected a finite number"
        lasting = [s.name for s in self.manifest.states if not s.in_place]  # this step wrote the others' next slot
        bad = [name for name in lasting if not np.isfinite(state[name]).all()]
        if bad:
            message += f"; NaN/Inf in the state since an earlier step ({', '.join(bad)}): reset() or restore()"
        return ModelError(message)

    def _where(self, name: str) -> str:
        return f"{self.bundle.path}: {name}"


class _FiniteCheck:
    """Whether a float32 (n,) has no NaN or Inf, in a quarter of the time of isfinite(x).all()."""

    def __init__(self, n: int) -> None:
        self.shape = (n,)
        self._mask = np.empty(n, np.bool_)
        self._all = b"\1" * n

    def __call__(self, array: FloatArray) -> bool:
        return np.isfinite(array, self._mask).tobytes() == self._all


def _found(array: object) -> str:
    if isinstance(array, np.ndarray):
        return f"found {array.dtype} {array.shape}"
    return f"found {type(array).__name__}"


def _check_rate(bundle: Bundle, guardrails: Guardrails) -> None:
    if not math.isclose(guardrails.rate_hz, bundle.manifest.sample_rate_hz, rel_tol=1e-9):
        raise ConfigError(
            f"{bundle.path}: sample_rate_hz: found {bundle.manifest.sample_rate_hz:g}, expected "
            f"{guardrails.rate_hz:g} as the guard's rate_hz"
        )


def feedback(inputs: tuple[str, ...], outputs: tuple[str, ...]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """The indices (into y, into x) of what a rollout feeds back (`Predictor.predict_n`)."""
    shared = [name for name in outputs if name in inputs]
    if not shared and len(inputs) == len(outputs):
        every = np.arange(len(inputs))
        return every, every
    source = [outputs.index(name) for name in shared]
    return np.array(source, np.intp), np.array([inputs.index(name) for name in shared], np.intp)
