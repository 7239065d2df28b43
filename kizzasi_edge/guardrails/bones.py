"""The guard of poses: binding of kz_bones (firmware_bridge/c/kz_bones.h), and what it promises in docs/bones.md."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from kizzasi_bridge._kz_core import ffi, lib

from kizzasi_edge.errors import GuardrailError, InputError
from kizzasi_edge.guardrails.skeleton import Skeleton
from kizzasi_edge.guardrails.verdict import Status, Verdict

__all__ = ["RULE_NAMES", "BonesGuard", "channel_names"]

RULE_NAMES = {1: "length", 2: "cone", 4: "turn", 8: "direction", 16: "root", 32: "non_finite"}
"""Bits of :attr:`Verdict.bits`, one byte per node, as kz_bones.h numbers them."""

Pose = npt.NDArray[np.float32] | npt.NDArray[np.float64]

_FLOAT32_ROUNDING = 2.0**-23


def channel_names(skeleton: Skeleton) -> tuple[str, ...]:
    """``<node>/x``, ``<node>/y``, ``<node>/z`` for each node: the outputs of a pose model."""
    return tuple(f"{name}/{axis}" for name in skeleton.names for axis in "xyz")


class BonesGuard:
    """Every pose that leaves it is one of the skeleton's: bone lengths exact, joints within their cones.

    ``rate_hz``: poses per second. ``root_speed``: largest speed of the root, in units of the positions per second.
    ``turn_speed`` [rad/s]: how fast a bone's direction may turn in the world frame, one for all or by the name of the
    node where the bone ends; a bone with a cone must be allowed to turn as fast as its parent's. ``channels``: names
    of a model's outputs, where their order is not that of :func:`channel_names`; poses are then flat and in theirs.

    A non-finite proposal holds the last pose (before any: the rest pose, root at the origin).
    Raises :class:`GuardrailError` naming the node and the limit.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        rate_hz: float,
        *,
        root_speed: float = math.inf,
        turn_speed: float | Mapping[str, float] = math.inf,
        channels: Sequence[str] | None = None,
    ) -> None:
        if not 0 < rate_hz < math.inf:
            raise GuardrailError(f"{skeleton.where}: rate_hz: found {rate_hz}; expected a finite rate above 0")
        if not root_speed > 0:
            raise GuardrailError(f"{skeleton.where}: root_speed: found {root_speed}; expected a speed above 0")
        self.skeleton = skeleton
        self.rate_hz = rate_hz
        n = len(skeleton.names)
        self._b: Any = ffi.new("kz_bones *")
        b = self._b
        b.n, b.root_step = n, root_speed / rate_hz
        b.parent[0:n] = list(skeleton.parents)
        b.length[0:n] = skeleton.lengths.tolist()
        b.cone[0:n] = skeleton.cones.tolist()
        b.turn[0:n] = [speed / rate_hz for speed in _turn_speeds(skeleton, turn_speed)]
        if not lib.kz_bones_init(b, ffi.from_buffer("double[]", np.ascontiguousarray(skeleton.rest_directions))):
            raise GuardrailError(f"{skeleton.where}: this skeleton cannot be guarded")
        self._shapes = ((n, 3), (3 * n,)) if channels is None else ((3 * n,),)
        self._order = None if channels is None else _order(skeleton, channels)
        self._want = np.zeros(3 * n)
        self._given = self._want if self._order is None else np.zeros(3 * n)
        self._want_p = ffi.from_buffer("double[]", self._want)
        self._pose: npt.NDArray[np.float64] = np.frombuffer(ffi.buffer(b.pose), np.float64, 3 * n)
        self._rules = ffi.buffer(b.rules, n)
        self._names = (RULE_NAMES,) * n
        self._live = Verdict(Status.PASS, 0.0, bytes(n), skeleton.names, self._names, 0)

    @property
    def pose(self) -> npt.NDArray[np.float64]:
        """Copy ``(nodes, 3)`` of the last pose, float64."""
        return self._pose.reshape(-1, 3).copy()

    def seed(self, pose: Pose) -> None:
        """Start from a measured pose (shape as in :meth:`step`): the speed limits count from here."""
        self._take(pose)
        lib.kz_bones_seed(self._b, self._want_p, self._rounding(pose))

    def step(self, pose: Pose, stamp_ns: int = 0) -> tuple[npt.NDArray[np.float64], Verdict]:
        """The pose to send for the proposal ``pose``, float32 or float64, ``(nodes, 3)`` or flat ``(3·nodes,)``.

        Returns a float64 array of the same shape, and the verdict: ``PASS`` if no coordinate moved by more than 1e-9
        (a float32 proposal: than its own rounding), ``PROJECTED``, or ``HOLD`` on NaN/Inf. Raises
        :class:`InputError` if shape or dtype are others.
        """
        out = np.empty(np.shape(pose))
        live = self.step_into(pose, out, stamp_ns)
        return out, Verdict(live.status, live.intervention, live.bits, live.joints, live.names, live.stamp_ns)

    def step_into(self, pose: Pose, out: Pose, stamp_ns: int = 0) -> Verdict:
        """:meth:`step` into ``out`` (float64, or float32: docs/bones.md says what that costs), without allocation:
        the verdict is the same object each time."""
        self._take(pose)
        if out.shape != pose.shape or out.dtype not in (np.float32, np.float64):
            raise InputError(f"out: found {out.dtype} {out.shape}; expected float32 or float64 {pose.shape}")
        b, live = self._b, self._live
        lib.kz_bones_step(b, self._want_p, self._rounding(pose))
        if self._order is None:
            out.reshape(-1)[:] = self._pose
        else:
            out[self._order] = self._pose
        live.status, live.intervention, live.bits, live.stamp_ns = (
            _STATUS[b.status],
            b.intervention,
            bytes(self._rules),
            stamp_ns,
        )
        return live

    def _take(self, pose: Pose) -> None:
        shape, dtype = np.shape(pose), getattr(pose, "dtype", None)
        if shape not in self._shapes or dtype not in (np.float32, np.float64):
            expected = " or ".join(map(str, self._shapes))
            raise InputError(f"pose: found {dtype} {shape}; expected float32 or float64 {expected}")
        self._given[:] = pose.reshape(-1)
        if self._order is not None:
            np.take(self._given, self._order, out=self._want, mode="clip")

    def _rounding(self, pose: Pose) -> float:
        return _FLOAT32_ROUNDING if pose.dtype == np.float32 else 0.0


_STATUS = tuple(Status)


def _turn_speeds(skeleton: Skeleton, given: float | Mapping[str, float]) -> list[float]:
    """Speed of each bone; refused where a cone could turn away from a bone faster than the bone can follow."""
    if isinstance(given, Mapping):
        if unknown := sorted(given.keys() - set(skeleton.names[1:])):
            raise GuardrailError(
                f"{skeleton.where}: turn_speed: found {unknown}; expected bones of {list(skeleton.names[1:])}"
            )
        speeds = [given.get(name, math.inf) for name in skeleton.names]
    else:
        speeds = [given] * len(skeleton.names)
    for i, (name, parent) in enumerate(zip(skeleton.names, skeleton.parents, strict=True)):
        where = f"{skeleton.where}: turn_speed: node {name!r}"
        if not speeds[i] > 0:
            raise GuardrailError(f"{where}: found {speeds[i]}; expected an angular speed above 0 rad/s")
        if skeleton.cones[i] < math.pi and speeds[i] < speeds[parent]:
            raise GuardrailError(
                f"{where}: found {speeds[i]:g} rad/s; its cone follows {skeleton.names[parent]!r}, "
                f"which may turn at {speeds[parent]:g}: expected at least that"
            )
    return speeds


def _order(skeleton: Skeleton, channels: Sequence[str]) -> npt.NDArray[np.intp]:
    expected = channel_names(skeleton)
    if sorted(channels) != sorted(expected):
        extra, missing = sorted(set(channels) - set(expected)), sorted(set(expected) - set(channels))
        merged = f" (merged: {dict(skeleton.merged)})" if skeleton.merged else ""
        raise GuardrailError(
            f"{skeleton.where}: channels: found {len(channels)}, unknown {extra[:6]}, missing {missing[:6]}; "
            f"expected <node>/x, /y, /z once for each of {len(skeleton.names)} nodes{merged}"
        )
    at = {name: i for i, name in enumerate(channels)}
    return np.array([at[name] for name in expected], np.intp)
