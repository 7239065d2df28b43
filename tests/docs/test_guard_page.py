"""docs/guardrails.md and docs/faults.md: their tables are tried against the guard, cell by cell."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails import Event, Guardrails, Status, Verdict
from kizzasi_edge.guardrails.spec import KEYS, FaultsSection, parse_spec

ROOT = Path(__file__).resolve().parents[2]
PAGE, FAULTS = (ROOT / "docs" / f"{name}.md" for name in ("guardrails", "faults"))
WHERE = ROOT / "kizzasi_edge" / "demo" / "assets" / "page.guard.toml"  # beside arm.urdf; only named, never written
COMMANDS = ("position", "velocity", "torque", "pose")
ARM = ("shoulder_pan_joint", "shoulder_lift_joint", "elbow_joint", "wrist_1_joint", "wrist_2_joint", "wrist_3_joint")
ELBOW, WRIST = "elbow_joint", "wrist_1_joint"


def table(page: Path, first: str) -> list[list[str]]:
    """The rows below the heading of the table whose first column is called ``first``."""
    lines = page.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" |")])
    return rows


KINDS = {row[0]: row for row in table(PAGE, "kind")}


def coupled(kind: str, on: str) -> dict[str, Any]:
    weights = {ELBOW: 1.0, WRIST: 1.0}
    return {"kind": kind, ("a" if kind == "linear" else "diagonal"): weights, "max": 4.0, "on": on}


STILL = {"near": "distance < 1", "still": "max(abs(velocity)) < 0.1", "home": "max(abs(position)) < 0.1"}
BRAKE = {"formula": "always(near -> eventually[0,2] still)", "atoms": STILL}
GO = {
    "formula": "always(near -> eventually[0,30] home)",
    "atoms": STILL,
    "fallback": "go-to-pose",
    "pose": dict.fromkeys(ARM, 0.0),
}


def always(what: str) -> dict[str, Any]:
    return {"formula": "always p", "atoms": {"p": f"{what}.{ELBOW} < 1"}}


SAMPLES: dict[str, dict[str, Any]] = {
    "`range`": {"kind": "range", "joint": ELBOW, "min": -1.0, "max": 1.0},
    "`less`": {"kind": "less", "joint": ELBOW, "max": 1.0},
    "`greater`": {"kind": "greater", "joints": [ELBOW, WRIST], "min": -1.0},
    "`rate`": {"kind": "rate", "joint": ELBOW, "max": 1.0},
    "`velocity`": {"kind": "velocity", "joint": ELBOW, "max": 1.0},
    "`acceleration`": {"kind": "acceleration", "joint": ELBOW, "max": 2.0},
    "`jerk`": {"kind": "jerk", "joint": ELBOW, "max": 900.0},
    "`linear` on positions": coupled("linear", "position"),
    "`linear` on velocities": coupled("linear", "velocity"),
    "`linear` on accelerations": coupled("linear", "acceleration"),
    "`quadratic` on positions": coupled("quadratic", "position"),
    "`quadratic` on velocities": coupled("quadratic", "velocity"),
    "`torque`": {"kind": "torque", "joint": ELBOW, "max": 120.0},
    "`power`": {"kind": "power", "max": 300.0},
    "`bones`": {"kind": "bones", "tree": {"a": {}, "b": {"parent": "a", "length": 1.0, "direction": [1, 0, 0]}}},
}


def build(
    command: str,
    *,
    constraint: dict[str, Any] | None = None,
    temporal: dict[str, Any] | None = None,
    faults: dict[str, Any] | None = None,
) -> Guardrails:
    """The smallest guard of ``command`` with one rule."""
    data: dict[str, Any] = {"schema": 1, "guard": {"rate_hz": 500.0}}
    if command == "pose":
        data["constraint"] = [{"name": "skeleton", **SAMPLES["`bones`"]}]
    else:
        data["guard"]["command"] = command
        data["constraint"] = []
        data["joints"] = {"from_urdf": "arm.urdf", "acceleration": 3.0, "margin": 0.02}
        if command == "torque" or (command == "position" and constraint and constraint["kind"] in ("torque", "power")):
            data["dynamics"] = {"armature": [0.4, 0.4, 0.4, 0.08, 0.08, 0.08]}
    if constraint is not None:
        data["constraint"] = [*data["constraint"], {"name": "rule", **constraint}]
    if faults is not None:
        data["faults"] = faults
    if temporal is not None:
        data["temporal"] = [{"name": "rule", **temporal}]
    return Guardrails(parse_spec(data, WHERE), WHERE)


def refused(command: str, **rule: dict[str, Any]) -> str:
    with pytest.raises(GuardrailError) as error:
        build(command, **rule)
    return str(error.value)


def test_the_table_has_every_kind_with_its_keys() -> None:
    kinds = [re.match("`([^`]+)`", first) for first in KINDS]
    assert {kind.group(1) for kind in kinds if kind} == {*KEYS, "[[temporal]]"}
    assert list(SAMPLES) == list(KINDS)[: len(SAMPLES)]
    for kind, (needs, may) in KEYS.items():
        if kind == "bones":
            continue  # on a page of its own
        keys = " ".join(row[1] for first, row in KINDS.items() if first.startswith(f"`{kind}`"))
        for key in (*needs, *may):
            assert key in keys or key in ("joint", "joints"), f"{kind}: {key}"


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", SAMPLES)
def test_each_kind_with_each_command(kind: str, command: str) -> None:
    cell, rule = KINDS[kind][2 + COMMANDS.index(command)], SAMPLES[kind]
    if cell == "–":
        for hard in (True, False):
            assert WHERE.name in refused(command, constraint={**rule, "hard": hard})
        return
    if command == "pose":
        assert build("pose").command == "pose"
        return
    if "soft only" in cell:
        assert "hard" in refused(command, constraint=rule)
        guard = build(command, constraint={**rule, "hard": False})
    else:
        guard = build(command, constraint=rule)
        if "hard or soft" in cell:
            build(command, constraint={**rule, "hard": False})
        else:
            assert "hard" in refused(command, constraint={**rule, "hard": False})
    if "of measured positions" in cell:
        assert "position" in guard.measures
    coupling = {row.name for row in guard.rows} | {quadratic.name for quadratic in guard.quadratics}
    assert (coupling == {"rule"}) == cell.startswith("projection")
    if not cell.startswith("projection") and rule["kind"] != "power":
        assert "rule" in {origin for limit in guard.limits for origin in limit.origin.values()}
    if rule["kind"] == "torque" and command == "torque":
        cell_of = guard.lattice[ARM.index(ELBOW)]
        assert cell_of.hi * cell_of.quantum == 120.0


def test_temporal_rules_with_each_command() -> None:
    rows, deadlines, watched = (KINDS[f"`[[temporal]]` {what}"][2:] for what in ("rows", "deadlines", "watched"))
    assert rows == ["projection, hard", "projection, hard, velocities only", "–", "–"]
    assert deadlines == ["shield, hard", "shield, hard, no go-to-pose", "–", "–"]
    assert watched == ["monitor", "monitor", "monitor", "–"]
    for what in ("position", "velocity", "command"):
        assert [row.name for row in build("position", temporal=always(what)).rows] == ["rule"]
        assert "monitor" in refused("torque", temporal=always(what))
    for what in ("velocity", "command"):
        assert [row.on for row in build("velocity", temporal=always(what)).rows] == ["velocity"]
    assert "positions" in refused("velocity", temporal=always("position"))
    for command in ("position", "velocity"):
        assert build(command, temporal=BRAKE).layout.deadlines == ("rule",)
    assert build("position", temporal=GO).layout.deadlines == ("rule",)
    assert "go-to-pose" in refused("velocity", temporal=GO)
    for temporal in (BRAKE, GO):
        assert "monitor" in refused("torque", temporal=temporal)
    for command in ("position", "velocity", "torque"):
        guard = build(command, temporal={"formula": BRAKE["formula"], "atoms": STILL, "mode": "monitor"})
        assert guard.layout.watched == ("rule",)
        assert not guard.rows
    for temporal in (always("position"), BRAKE):
        refused("pose", temporal=temporal)
        refused("pose", temporal={**temporal, "mode": "monitor"})


def test_the_tables_of_verdicts() -> None:
    fields = [name for row in table(PAGE, "field") for name in re.findall("`([a-z_]+)`", row[0])]
    guard = build("position")
    _, verdict = guard.step(np.zeros(6, np.float32), position=np.zeros(6))
    assert all(hasattr(verdict, name) for name in fields)
    public = {name for name in dir(Verdict) if not name.startswith("_")}
    assert public - set(fields) == {"bits", "layout", "record", "relaxed", "shaped", "times", "violated_bits"}
    assert [status.name for status in Status] == re.findall("[A-Z]+", table(PAGE, "field")[0][1].split(":")[0])


def test_faults_md_lists_every_key_and_every_event() -> None:
    keys = {key for row in table(FAULTS, "`[faults]` key") for key in re.findall("`([a-z_]+)`", row[0])}
    assert keys == set(FaultsSection.model_fields)
    events = {name for row in table(FAULTS, "event") for name in re.findall("[A-Z][A-Z_]+", row[0])}
    assert events == {str(event.name) for event in Event}


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_not_watched_of_a_command_is_refused(command: str) -> None:
    for row in table(FAULTS, "`[faults]` key"):
        for key in re.findall("`([a-z_]+)`", row[0]):
            watched = (
                command == "position" or "[rad" not in row[0] or (command != "pose" and "else refused" not in row[1])
            )
            given = {key: 25 if key.endswith("_ticks") else 0.5 * 100.0 ** key.endswith("_ms")}
            if watched:
                build(command, faults=given)
            else:
                assert key in refused(command, faults=given)
