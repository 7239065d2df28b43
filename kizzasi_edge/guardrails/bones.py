"""Poses as a guard drives them: binding of kz_bones (firmware_bridge/c/kz_bones.h); what it promises: docs/bones.md."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt
from kizzasi_bridge._kz_core import ffi, lib

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.drive import F64, FloatArray
from kizzasi_edge.guardrails.faults import Event
from kizzasi_edge.guardrails.skeleton import Skeleton
from kizzasi_edge.guardrails.verdict import HEADER, RULE_BITS, Layout, Record

if TYPE_CHECKING:
    from kizzasi_edge.guardrails.spec import ConstraintSection, GuardFile

__all__ = ["PoseDrive", "channel_names", "pose_drive"]

RULES = {
    lib.KZ_BONES_LENGTH: "length",
    lib.KZ_BONES_CONE: "cone",
    lib.KZ_BONES_TURN: "turn",
    lib.KZ_BONES_DIRECTION: "direction",
    lib.KZ_BONES_ROOT: "root",
    **{bit: name for bit, name in RULE_BITS.items() if name in ("non_finite", "miss")},
}
"""Bits of a verdict's bytes, one byte per node: kz_bones.h's, and what the stack may give as a reason for a hold."""

_FLOAT32_ROUNDING = 2.0**-23
_NON_FINITE = int(Event.NON_FINITE)


def channel_names(skeleton: Skeleton) -> tuple[str, ...]:
    """``<node>/x``, ``<node>/y``, ``<node>/z`` for each node: the outputs of a pose model."""
    return tuple(f"{name}/{axis}" for name in skeleton.names for axis in "xyz")


class PoseDrive:
    """Every pose that leaves it is one of the skeleton's: bone lengths exact, joints within their cones.

    A pose is flat ``(3·nodes,)``, in the order of ``output_names``; the layout's channels are the nodes. Before the
    first pose it stands in the rest pose, root at the origin; the first one is not limited in speed, unless it was
    seeded or has sent the rest pose. Braking and coasting both hold the last pose.

    ``rate_hz``: poses per second. ``root_speed``: largest speed of the root, in units of the positions per second.
    ``turn_speed`` [rad/s]: how fast a bone's direction may turn in the world frame, one for all or by the name of the
    node where the bone ends; a bone with a cone must be allowed to turn as fast as its parent's.

    Raises :class:`GuardrailError` naming the node and the limit.
    """

    measures: tuple[str, ...] = ()

    def __init__(
        self,
        skeleton: Skeleton,
        rate_hz: float,
        *,
        root_speed: float = math.inf,
        turn_speed: float | Mapping[str, float] = math.inf,
    ) -> None:
        self.skeleton, self._where = skeleton, skeleton.where
        self.rate_hz = rate_hz
        self.output_names = channel_names(skeleton)
        n = len(skeleton.names)
        self.layout = Layout(skeleton.names, (RULES,) * n)
        self.shape: tuple[int, ...] = (3 * n,)
        self._root_step, self._turns = root_speed / rate_hz, _turn_speeds(skeleton, turn_speed) / rate_hz
        self._b: Any = ffi.new("kz_bones *")
        b = self._b
        b.n = n
        b.parent[0:n] = list(skeleton.parents)
        b.length[0:n] = skeleton.lengths.tolist()
        b.cone[0:n] = skeleton.cones.tolist()
        self.derate(False)
        if not lib.kz_bones_init(b, ffi.from_buffer("double[]", np.ascontiguousarray(skeleton.rest_directions))):
            raise GuardrailError(f"{skeleton.where}: this skeleton cannot be guarded")
        self.record: Record = ffi.buffer(ffi.addressof(b, "verdict"), HEADER.size + n)
        self._want = np.zeros(3 * n)
        self._want_p = ffi.from_buffer("double[]", self._want)
        self._pose: F64 = np.frombuffer(ffi.buffer(b.pose), np.float64, 3 * n)
        self._before: F64 = np.frombuffer(ffi.buffer(b.before), np.float64, 3 * n)

    @property
    def pose(self) -> F64:
        """Copy ``(nodes, 3)`` of the last pose in float64: what is sent, before it is rounded to float32."""
        return self._pose.reshape(-1, 3).copy()

    def seed(self, position: F64) -> None:
        """Stand at rest in a measured pose ``(3·nodes,)``, finite, as the skeleton can take it."""
        self._want[:] = position
        lib.kz_bones_seed(self._b, self._want_p)

    def rebase(self, applied: npt.NDArray[np.int32], step: npt.NDArray[np.int32]) -> None:
        raise GuardrailError(f"{self._where}: no node applies poses")

    def measure(self, position: F64, velocity: F64 | None) -> None:
        """Nothing: poses follow the last pose sent."""

    def follow(self, command: FloatArray, out: FloatArray) -> int:
        """``out`` ← the skeleton's pose for ``command``, both float32. 0, or NON_FINITE: then nothing has moved.

        PASS if no coordinate moved by more than the proposal's own rounding and 1e-9, else PROJECTED."""
        self._want[:] = command
        if not lib.kz_bones_step(self._b, self._want_p, _FLOAT32_ROUNDING):
            return _NON_FINITE
        out[:] = self._pose
        return 0

    def coast(self, out: FloatArray, rule: int) -> None:
        lib.kz_bones_hold(self._b, rule)
        out[:] = self._pose

    brake = coast

    def derate(self, slow: bool) -> None:
        """Half of ``root_speed`` and ``turn_speed``, where there are any, or all of them."""
        share = 0.5 if slow else 1.0
        self._b.root_step = share * self._root_step
        self._b.turn[0 : len(self._turns)] = (share * self._turns).tolist()

    @property
    def at_rest(self) -> bool:
        return bool(np.array_equal(self._pose, self._before))

    def applied(self) -> tuple[list[float], list[float]]:
        """Of each joint: there is none."""
        return [], []

    def asks_no_motion(self, command: FloatArray) -> bool:
        """Whether the root and every bone's direction stay as near to the last pose as their speeds allow in a period;
        always, without speeds."""
        parents = list(self.skeleton.parents[1:])
        want, pose = np.asarray(command, np.float64).reshape(-1, 3), self._pose.reshape(-1, 3)
        if np.linalg.norm(want[0] - pose[0]) > self._root_step:
            return False
        asked, last = want[1:] - want[parents], pose[1:] - pose[parents]
        turned = np.arctan2(np.linalg.norm(np.cross(asked, last), axis=1), np.sum(asked * last, axis=1))
        return bool((turned <= self._turns[1:]).all())

    def explain(self) -> list[str]:
        skeleton, rate, turns = self.skeleton, self.rate_hz, self._turns * self.rate_hz
        lines = [
            f"Guard of poses from {skeleton.where}, one every {1e3 / rate:g} ms.",
            f"Every pose is one of this skeleton of {len(skeleton.names)} nodes: bone lengths to 1e-12 as computed; "
            "sent in float32, which rounds a coordinate of size X by up to X/2^24.",
            f"The root moves {_limit(self._root_step * rate, '/s')}.",
            "",
        ]
        for i, (name, parent) in enumerate(zip(skeleton.names[1:], skeleton.parents[1:], strict=True), 1):
            bent = "" if skeleton.cones[i] >= math.pi else f", within {skeleton.cones[i]:g} rad of its parent's bone"
            lines.append(
                f"  {name}: {skeleton.lengths[i]:.6g} from {skeleton.names[parent]}{bent}, "
                f"turns {_limit(turns[i], ' rad/s')}"
            )
        return [
            *lines,
            "",
            "Without a usable proposal the last pose is held. Nothing is measured: the first pose is not limited in "
            "speed, unless it starts from a measured one.",
            "Not limited: the twist of a bone about itself, which positions do not determine.",
        ]


def pose_drive(spec: GuardFile, where: str | Path) -> PoseDrive:
    """The drive that a guard file without ``[joints]`` declares: one constraint, of kind "bones".

    Raises :class:`GuardrailError` naming file, section, key, found and expected, also for what poses cannot have.
    """
    rule = next((rule for rule in spec.constraint if rule.kind == "bones"), None)
    if rule is None:
        raise GuardrailError(f"{where}: [[constraint]]: found none of kind 'bones'; expected one, which declares poses")
    _refuse_joints(spec, rule, where)
    return PoseDrive(
        _skeleton(rule, Path(where).parent, f"{where}: [constraint] {rule.name!r}"),
        float(spec.guard.rate_hz),
        root_speed=math.inf if rule.root_speed is None else rule.root_speed,
        turn_speed=math.inf if rule.turn_speed is None else rule.turn_speed,
    )


def _skeleton(rule: ConstraintSection, base: Path, place: str) -> Skeleton:
    if rule.from_bvh is not None:
        scale = 1.0 if rule.scale is None else rule.scale
        skeleton = Skeleton.from_bvh(base / rule.from_bvh, scale=scale, end_sites=rule.end_sites is not False)
    elif rule.from_urdf is not None:
        skeleton = Skeleton.from_urdf(base / rule.from_urdf)
    else:
        skeleton = Skeleton.from_tree(rule.tree or {}, f"{place} tree")
    return skeleton.with_cones({} if rule.cone is None else rule.cone, place)


def _refuse_joints(spec: GuardFile, rule: ConstraintSection, where: str | Path) -> None:
    """Poses have no joints: refuse what is about joints, rather than leave it out."""

    def refuse(section: str, found: str) -> NoReturn:
        raise GuardrailError(
            f"{where}: {section}: found {found} together with {rule.name!r} of kind 'bones'; a guard of poses has no "
            "joints: remove one of them"
        )

    if "joints" in spec.model_fields_set:
        refuse("[joints]", "joints")
    if others := [other for other in spec.constraint if other is not rule]:
        refuse(f"[constraint] {others[0].name!r}", f"kind {others[0].kind!r}")
    if spec.dynamics is not None:
        refuse("[dynamics]", "dynamics")
    if spec.guard.command != "position":
        refuse("[guard] command", repr(spec.guard.command))
    if spec.guard.on_clamp != "nearest":
        refuse("[guard] on_clamp", repr(spec.guard.on_clamp))
    if spec.temporal:
        refuse(f"[temporal] {spec.temporal[0].name!r}", "a temporal rule")


def _turn_speeds(skeleton: Skeleton, given: float | Mapping[str, float]) -> npt.NDArray[np.float64]:
    """Speed of each bone; refused where a cone could turn away from a bone faster than the bone can follow."""
    place = f"{skeleton.where}: turn_speed"
    if isinstance(given, Mapping):
        speeds = skeleton.by_node(given, math.inf, place)
    else:
        speeds = np.full(len(skeleton.names), given)
    for i, (name, parent) in enumerate(zip(skeleton.names, skeleton.parents, strict=True)):
        if not speeds[i] > 0:
            raise GuardrailError(f"{place}: node {name!r}: found {speeds[i]:g} rad/s; expected above 0")
        if skeleton.cones[i] < math.pi and speeds[i] < speeds[parent]:
            raise GuardrailError(
                f"{place}: node {name!r}: found {speeds[i]:g} rad/s; its cone follows {skeleton.names[parent]!r}, "
                f"which may turn at {speeds[parent]:g}: expected at least that"
            )
    return speeds


def _limit(speed: float, unit: str) -> str:
    return f"at most {speed:g}{unit}" if speed < math.inf else "as fast as it is told"
