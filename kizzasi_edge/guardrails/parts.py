"""What a guard is made of, by what its file commands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kizzasi_edge.guardrails.drive import Drive
from kizzasi_edge.guardrails.effort_rows import effort_rules
from kizzasi_edge.guardrails.explain import explain_motion
from kizzasi_edge.guardrails.faults import FaultLimits
from kizzasi_edge.guardrails.lattice import JointLimits, LatticeLimits
from kizzasi_edge.guardrails.limits import joint_limits
from kizzasi_edge.guardrails.motion import build_motion, motion_lattice
from kizzasi_edge.guardrails.rows import Quadratic, Row
from kizzasi_edge.guardrails.sensors import SensorWatch
from kizzasi_edge.guardrails.spec import GuardFile
from kizzasi_edge.guardrails.verdict import Layout
from kizzasi_edge.guardrails.watch import fault_limits, require_watchable, sensor_watch, watches_joints, watches_time

if TYPE_CHECKING:
    from kizzasi_edge.guardrails.temporal.rules import TemporalRules


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """``describe``: for ``explain()``. ``stamped``: steps need a stamp. ``needs_position``: they need measured
    positions because of ``[faults]``.
    """

    command: str
    drive: Drive
    layout: Layout
    fault_limits: FaultLimits
    output_names: tuple[str, ...]
    describe: Callable[[], list[str]]
    limits: tuple[JointLimits, ...] = ()
    lattice: tuple[LatticeLimits, ...] = ()
    node: tuple[LatticeLimits, ...] = ()
    rows: tuple[Row, ...] = ()
    quadratics: tuple[Quadratic, ...] = ()
    temporal: TemporalRules | None = None
    watch: SensorWatch | None = None
    stamped: bool = False
    needs_position: bool = False


def build_parts(spec: GuardFile, where: str | Path) -> Parts:
    """Raises :class:`GuardrailError` naming file, section, key, found, expected; MissingExtra for a library that the
    rules need."""
    if any(constraint.kind == "bones" for constraint in spec.constraint):
        return _pose(spec, where)
    limits = joint_limits(spec, where)
    require_watchable(spec, spec.guard.command, where)
    watch = sensor_watch(spec, limits, where)
    if spec.guard.command == "torque":
        from kizzasi_edge.guardrails.torque import torque_drive

        torque = torque_drive(spec, limits, where)
        temporal = _temporal(spec, torque.lattice, where)
        built = Parts(
            "torque",
            torque,
            torque.layout,
            fault_limits(spec),
            torque.layout.channels,
            torque.explain,
            torque.limits,
            torque.lattice,
            torque.lattice,
        )
    else:
        efforts = None if spec.dynamics is None else effort_rules(spec, limits, where)
        limits = limits if efforts is None else efforts.limits
        cells = motion_lattice(spec, limits, where)
        temporal = _temporal(spec, cells, where)
        motion = build_motion(spec, limits, cells, temporal, efforts, where)
        built = Parts(
            spec.guard.command,
            motion.drive,
            motion.drive.layout,
            fault_limits(spec),
            motion.drive.layout.channels,
            partial(explain_motion, spec, where, limits, cells, motion.jerk, motion.rows, motion.quadratics, efforts),
            limits,
            motion.lattice,
            cells,
            motion.rows,
            motion.quadratics,
        )
    layout = built.layout
    if temporal is not None:
        layout = replace(layout, deadlines=temporal.deadlines, watched=temporal.names)
    return replace(
        built,
        layout=layout,
        temporal=temporal,
        watch=watch,
        stamped=watches_time(spec),
        needs_position=watches_joints(spec),
    )


def _temporal(spec: GuardFile, cells: tuple[LatticeLimits, ...], where: str | Path) -> TemporalRules | None:
    if not spec.temporal:
        return None
    from kizzasi_edge.guardrails.temporal.rules import TemporalRules

    return TemporalRules(spec, cells, where)


def _pose(spec: GuardFile, where: str | Path) -> Parts:
    from kizzasi_edge.guardrails.bones import pose_drive

    require_watchable(spec, "pose", where)
    drive = pose_drive(spec, where)
    return Parts(
        "pose",
        drive,
        drive.layout,
        fault_limits(spec),
        drive.output_names,
        drive.explain,
        watch=sensor_watch(spec, (), where),
        stamped=watches_time(spec),
    )
