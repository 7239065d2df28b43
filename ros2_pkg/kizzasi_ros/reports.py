"""What the node says of itself: /diagnostics, and the guard's verdicts, as messages that ROS tools show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from kizzasi_edge.guardrails import Status, Verdict
from kizzasi_edge.guardrails.faults import State

STOPPED = ("FAILSAFE", "ESTOP", "DISCONNECTED")
"""States of a device that does not follow."""
LOSSES = ("overruns", "silent", "overtaken", "bad_inputs", "bad_outputs", "hangs", "guard_exceptions")
"""Counters of the loop that should not grow."""


def verdict_report(node: str, verdict: Verdict, changed: Mapping[str, int]) -> DiagnosticStatus:
    """One decision of the guard: OK as proposed, WARN when it changed the command, ERROR when it stops the robot.
    ``changed``: armed ticks since the start in which each rule changed the command, those between two reports among
    them."""
    level = DiagnosticStatus.OK
    if verdict.state >= State.STOPPED or verdict.status is Status.ESTOP:
        level = DiagnosticStatus.ERROR
    elif verdict.status or verdict.state:
        level = DiagnosticStatus.WARN
    shaped = {
        channel: ", ".join(name for bit, name in names.items() if bits & bit)
        for channel, bits, names in zip(verdict.layout.channels, verdict.bits, verdict.layout.names, strict=True)
        if bits
    }
    return _status(
        f"{node}: verdict",
        level,
        f"{verdict.status.name}, {verdict.state.name}",
        {
            "status": verdict.status.name,
            "state": verdict.state.name,
            "rules": ", ".join(verdict.rules),
            "intervention": f"{verdict.intervention:.6g}",
            "violated": ", ".join(verdict.violated),
            **shaped,
            **{f"changed by {rule}": count for rule, count in changed.items()},
        },
    )


def diagnostics(node: str, stamp: Any, lifecycle: str, now: Mapping[str, Any], before: Mapping[str, Any]) -> Any:
    """``now`` and ``before``: the robot's status (:meth:`kizzasi_edge.operator.Operator.status`) and that of the last
    report, empty where nothing runs: what has grown since is a warning."""
    robot = str(now.get("robot", ""))
    statuses = [_loop(node, lifecycle, now, before)]
    if now:
        statuses += [_guard(node, now["guard"]), _device(node, now)]
    for status in statuses:
        status.hardware_id = robot
    message = DiagnosticArray(status=statuses)
    message.header.stamp = stamp
    return message


def _loop(node: str, lifecycle: str, now: Mapping[str, Any], before: Mapping[str, Any]) -> DiagnosticStatus:
    level, said = DiagnosticStatus.OK, lifecycle
    values: dict[str, object] = {"lifecycle": lifecycle}
    if now:
        grown = [name for name in LOSSES if now[name] > before.get(name, 0)]
        stale = [name for name, count in now["stale"].items() if count > before.get("stale", {}).get(name, 0)]
        if stale:
            grown.append(f"stale ({', '.join(name for name in stale if name != 'ticks')})")
        if grown:
            level, said = DiagnosticStatus.WARN, f"{lifecycle}; more {', '.join(grown)}"
        values |= {name: now[name] for name in ("ticks", "armed_ticks", "sessions", "resets", *LOSSES)}
        values |= {f"stale {name}": count for name, count in now["stale"].items()}
        values["last_error"] = now["last_error"]
        values["refused by the system"] = "; ".join(now["refused"])
    return _status(f"{node}: loop", level, said, values)


def _guard(node: str, guard: Mapping[str, Any]) -> DiagnosticStatus:
    state = State[guard["state"]]
    level = DiagnosticStatus.OK
    if state:
        level = DiagnosticStatus.ERROR if state >= State.STOPPED else DiagnosticStatus.WARN
    cause = ", ".join(guard["cause"])
    events = {f"events {name}": count for name, count in guard["events"].items()}
    said = f"{state.name}: {cause}" if cause else state.name
    return _status(f"{node}: guard", level, said, {"cause": cause, "violated": ", ".join(guard["violated"]), **events})


def _device(node: str, now: Mapping[str, Any]) -> DiagnosticStatus:
    device = now["device"]
    level = DiagnosticStatus.ERROR if now["state"] in STOPPED else DiagnosticStatus.OK
    values = {"interventions": sum(now["interventions"].values()), **_flat("", device)}
    fault = device.get("fault", "")
    said = f"{now['state']}: {fault}" if level == DiagnosticStatus.ERROR and fault else now["state"]
    return _status(f"{node}: device", level, said, values)


def _flat(prefix: str, table: Mapping[str, Any]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in table.items():
        found |= _flat(f"{prefix}{key} ", value) if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _status(name: str, level: bytes, said: str, values: Mapping[str, object]) -> DiagnosticStatus:
    pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    return DiagnosticStatus(name=name, level=level, message=said, values=pairs)
