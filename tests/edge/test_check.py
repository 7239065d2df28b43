"""`kizzasi-edge check`: what it refuses, one broken file for each item, and what it says of a file that is right."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kizzasi_edge.bundle import write_bundle
from kizzasi_edge.cli import main
from kizzasi_edge.connectors.serial import SerialDevice

HEAD = """schema = 1
[guard]
rate_hz = 200
"""
JOINTS = """[joints]
names = ["pan", "lift"]
position = [[-1.0, 1.0], [-0.5, 0.5]]
velocity = 2.0
acceleration = 12.0
"""
GUARD = HEAD + JOINTS
DEMO = Path(__file__).parents[2] / "examples"


@dataclass
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """The command line in this process."""

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["kizzasi-edge", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        assert isinstance(end.value.code, int)
        return Done(end.value.code, *capsys.readouterr())

    return run


def rule(**keys: str | float) -> str:
    return "[[constraint]]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())


def linear(name: str, a: str, **keys: str | float) -> str:
    return rule(kind='"linear"', name=f'"{name}"', a=f"{{ {a} }}", **keys)


def quadratic(**keys: str | float) -> str:
    return rule(kind='"quadratic"', name='"bowl"', max=0.5, **keys)


def temporal(formula: str, **atoms: str) -> str:
    named = ", ".join(f'{name} = "{text}"' for name, text in atoms.items())
    return f'[[temporal]]\nname = "t"\nformula = "{formula}"\natoms = {{ {named} }}\n'


def commanding(kind: str) -> str:
    return GUARD.replace("rate_hz = 200", f'rate_hz = 200\ncommand = "{kind}"')


BROKEN: dict[str, tuple[str, list[str]]] = {
    # empty sets
    "a range outside the joint's": (
        GUARD + rule(kind='"range"', name='"table"', joint='"pan"', min=2.0, max=3.0),
        ["[constraint] 'table'", "'pan'", "nothing left between 2 and 1"],
    ),
    "margins that leave nothing": (
        GUARD.replace("[joints]", "[joints]\nmargin = 0.6"),
        ["[joints] margin", "found 0.6", "'lift'", "nothing is left of [-0.5, 0.5]"],
    ),
    "a row that no position keeps": (
        GUARD + linear("far", "pan = 1.0", min=2.0),
        ["[constraint] 'far'", "no position", "is left"],
    ),
    "a formula that no position keeps": (
        GUARD + temporal("always p", p="command[pan] > 5"),
        ["[temporal] 't' atom 'p'", "no position", "found at least", "expected at most"],
    ),
    "steps below one quantum": (
        GUARD.replace("[joints]", "[joints]\nquantum = 0.25"),
        ["[joints] velocity", "'pan'", "below one quantum of 0.25", "at least 50"],
    ),
    # sets without a stop
    "a velocity that must not be 0": (
        GUARD + linear("drift", "pan = 1.0", on='"velocity"', min=0.1),
        ["[constraint] 'drift'", "does not admit velocity 0", "stand still", "expected 0 inside"],
    ),
    "an energy that must not be 0": (
        GUARD + quadratic(diagonal="{ pan = 1.0 }", center="{ pan = 1.0 }", on='"velocity"'),
        ["[constraint] 'bowl'", "does not admit velocity 0"],
    ),
    "an acceleration that must not be 0": (
        GUARD + linear("push", "pan = 1.0", on='"acceleration"', min=0.1),
        ["[constraint] 'push'", "does not admit acceleration 0"],
    ),
    "a formula that forbids to stop": (
        GUARD + temporal("always p", p="velocity[pan] > 0.1"),
        ["[temporal] 't' atom 'p'", "does not admit velocity 0"],
    ),
    "a deadline shorter than the brake": (
        GUARD + temporal("always(p -> eventually[0,0.01] stopped)", p="s < 1", stopped="max(abs(velocity)) < 0.01"),
        ["[temporal] 't'", "a deadline of 0.01 s", "expected at least", "'brake'"],
    ),
    # inverted and non-finite bounds
    "an inverted position": (
        GUARD.replace("[-1.0, 1.0]", "[1.0, -1.0]"),
        ["[joints] position", "found [1, -1]", "'pan'", "expected lo < hi"],
    ),
    "an inverted range": (
        GUARD + rule(kind='"range"', name='"band"', joint='"pan"', min=0.5, max=-0.5),
        ["[constraint] 'band' min", "found 0.5, max -0.5", "expected min < max"],
    ),
    "an inverted row": (
        GUARD + linear("band", "pan = 1.0", min=0.5, max=-0.5),
        ["[constraint] 'band' min", "found 0.5, max -0.5", "expected min < max"],
    ),
    "inverted thresholds": (
        GUARD + "[faults]\ntracking_error = 0.2\ntracking_stop = 0.1\n",
        ["[faults] tracking_stop", "found 0.1", "expected at least tracking_error 0.2"],
    ),
    "a position that is no number": (
        GUARD.replace("[-1.0, 1.0]", "[nan, 1.0]"),
        ["[joints] position", "found [nan, 1]", "expected finite numbers"],
    ),
    "an infinite velocity": (
        GUARD.replace("velocity = 2.0", "velocity = inf"),
        ["[joints] velocity", "found inf", "'pan'", "expected finite numbers"],
    ),
    "a bound that is no number": (
        GUARD + linear("band", "pan = 1.0", max="nan"),
        ["[constraint] 'band' max", "found nan", "expected a finite number"],
    ),
    "a coefficient that is no number": (
        GUARD + linear("band", "pan = inf", max=1.0),
        ["[constraint] 'band' a", "found inf", "'pan'", "expected a finite number"],
    ),
    # limits that guarding rests on
    "positions without acceleration": (
        GUARD.replace("acceleration = 12.0\n", ""),
        ["[joints] acceleration", "missing", "has no stop", "'pan'"],
    ),
    "torques without inertias": (commanding("torque"), ["[dynamics]", "missing"]),
    "an effort that nothing enforces": (GUARD + "effort = 3.0\n", ["[joints] effort", "not enforced", "[dynamics]"]),
    # indefinite Q
    "an indefinite Q": (
        GUARD + quadratic(matrix="{ pan = { lift = 1.0 }, lift = { pan = 1.0 } }"),
        ["[constraint] 'bowl' matrix", "found eigenvalue -1", "expected none below 0"],
    ),
    "an asymmetric Q": (
        GUARD + quadratic(matrix="{ pan = { pan = 1.0, lift = 1.0 } }"),
        ["[constraint] 'bowl' matrix", "(pan, lift)", "expected a symmetric matrix"],
    ),
    # conflicting rows
    "rows that conflict": (
        GUARD + linear("left", "pan = 1.0, lift = 1.0", max=-0.6) + linear("right", "pan = 1.0, lift = 1.0", min=0.6),
        ["[constraint] 'left' conflicts with 'right'", "no position"],
    ),
    "a formula that conflicts with a row": (
        GUARD
        + linear("left", "pan = 1.0, lift = 1.0", max=-0.6)
        + temporal("always p", p="command[pan] + command[lift] > 0.6"),
        ["'left' conflicts with 't'", "no position"],
    ),
    # unknown keys and names
    "an unknown section": (GUARD + "[fault]\njump = 1.0\n", ["fault: unknown key", "'faults'"]),
    "an unknown key of [guard]": (HEAD + "rate_khz = 0.2\n" + JOINTS, ["[guard] rate_khz: unknown key", "found 0.2"]),
    "an unknown key of [joints]": (GUARD + "velocty = 2.0\n", ["[joints] velocty: unknown key", "'velocity'"]),
    "an unknown key of [[constraint]]": (
        GUARD + linear("band", "pan = 1.0", mx=2.0),
        ["[[constraint]] 1 mx: unknown key", "'max'"],
    ),
    "an unknown key of [[temporal]]": (
        GUARD + temporal("always p", p="s < 1") + "mod = 'monitor'\n",
        ["[[temporal]] 1 mod: unknown key", "'mode'"],
    ),
    "an unknown key of [faults]": (GUARD + "[faults]\nstale = 5.0\n", ["[faults] stale: unknown key", "'stale_ms'"]),
    "an unknown key of [dynamics]": (GUARD + "[dynamics]\nmass = 1.0\n", ["[dynamics] mass: unknown key", "'urdf'"]),
    "an unknown kind": (GUARD + rule(kind='"cube"', name='"c"'), ["[[constraint]] 1 kind", "found 'cube'", "'linear'"]),
    "an unknown joint": (
        GUARD + linear("band", "pam = 1.0", max=1.0),
        ["[constraint] 'band' a", "found joint 'pam'", "['pan', 'lift']"],
    ),
    # what this combination would not enforce or never look at
    "a formula that can only be watched": (
        GUARD + temporal("eventually[0,1] p", p="s < 1"),
        ["[temporal] 't' formula", 'found "enforce"', 'expected "monitor"', "because"],
    ),
    "tracking of velocities": (
        commanding("velocity") + "[faults]\ntracking_error = 0.1\n",
        ["[faults] tracking_error", "not watched on velocity commands", "jump"],
    ),
    "poses with joints": (
        GUARD + rule(kind='"bones"', name='"body"', from_bvh='"x.bvh"'),
        ["[joints]", "'body'", "has no joints"],
    ),
    # no guard file at all
    "what is no TOML": (GUARD + "=", ["not valid TOML", "line 9"]),
    "another schema": (GUARD.replace("schema = 1", "schema = 2"), ["schema", "found 2", "expected 1"]),
}


@pytest.mark.parametrize("item", BROKEN)
def test_it_refuses(item: str, tmp_path: Path, run: Callable[..., Done]) -> None:
    text, words = BROKEN[item]
    file, out = tmp_path / "x.guard.toml", tmp_path / "x.json"
    file.write_text(text)
    done = run("check", file, "--json", out)
    assert done.code == 1
    assert done.out == ""
    assert done.err.startswith(f"error: {file}: ")
    assert len(done.err.splitlines()) <= 12
    for word in words:
        assert word in done.err
    report = json.loads(out.read_text())
    assert report["ok"] is False
    assert "error: " + "\n".join(report["errors"]) == done.err.rstrip("\n")


def test_the_file_that_the_broken_ones_come_from_is_right(tmp_path: Path, run: Callable[..., Done]) -> None:
    (tmp_path / "x.guard.toml").write_text(GUARD)
    done = run("check", tmp_path / "x.guard.toml", "--json", tmp_path / "x.json")
    assert (done.code, done.err) == (0, "")
    report = json.loads((tmp_path / "x.json").read_text())
    assert set(report) == {"config", "ok", "errors", "warnings", "guard", "model"}
    assert (report["ok"], report["errors"], report["warnings"], report["model"]) == (True, [], [], {})
    assert report["guard"] in done.out
    assert done.out.endswith("\n\nok\n")


@pytest.mark.parametrize("name", ["gone.guard.toml", "gone.toml", "."])
def test_what_is_not_there(name: str, tmp_path: Path, run: Callable[..., Done]) -> None:
    done = run("check", tmp_path / name)
    assert done.code == 1
    assert str(tmp_path) in done.err


# ---- what it explains ------------------------------------------------------------------------------------------------

EVERYTHING = (
    GUARD
    + "jerk = 500.0\n"
    + linear("apart", "pan = 1.0, lift = -1.0", max=1.2)
    + quadratic(diagonal="{ pan = 0.1, lift = 0.1 }", on='"velocity"', hard="false", priority=2)
    + temporal("always(near -> eventually[0,2] stopped)", near="distance < 0.3", stopped="max(abs(velocity)) < 0.01")
    + temporal("eventually[0,1] p", p="position[pan] > 0").replace('"t"', '"seen"')
    + 'mode = "monitor"\n'
    + "[faults]\nstale_ms = 40.0\njump = 0.02\ntracking_error = 0.1\nfault_ticks = 30\n"
)


def test_positions_with_everything(tmp_path: Path, run: Callable[..., Done]) -> None:
    (tmp_path / "x.guard.toml").write_text(EVERYTHING)
    done = run("check", tmp_path / "x.guard.toml")
    assert done.code == 0, done.err
    for part in (
        "Guard of 2 joints",
        "one position command every 5 ms",
        "  pan: [-1.0000, +1.0000] rad, 1.8000 rad/s",
        "rad/s³",
        "Jerk is kept outside BRAKE",
        "  apart: +1·pan -1·lift ≤ 1.2 on positions, hard",
        "  bowl: quadratic in pan, lift ≤ 0.5 on velocities, soft, priority 2",
        "temporal rule 't', 'always(near -> eventually[0,2] stopped)': enforced given a bound",
        "fallback 'brake'",
        "temporal rule 'seen', 'eventually[0,1] p': monitored only",
        "Every step needs measured positions, signal 'distance', the receive time of the oldest input.",
        "inputs older than 40 ms: coasts up to 3 periods, then brakes.",
        "leaps by 0.02 more than its joint can travel: brakes; 30 periods of it latch STOPPED.",
        "more than 0.1 between sent and measured position: half speed, until 10 good periods.",
        "a joint that is stuck (tracking_stop)",
        "Assumed",
    ):
        assert part in done.out
    assert "(jump)" not in done.out  # it is watched


def test_velocities(tmp_path: Path, run: Callable[..., Done]) -> None:
    text = commanding("velocity").replace("position = [[-1.0, 1.0], [-0.5, 0.5]]\n", "")
    (tmp_path / "x.guard.toml").write_text(text)
    free = run("check", tmp_path / "x.guard.toml").out
    assert "  pan: no range, 1.8000 rad/s" in free
    assert "Every step needs" not in free
    (tmp_path / "x.guard.toml").write_text(commanding("velocity"))
    bounded = run("check", tmp_path / "x.guard.toml").out
    assert "Every step needs measured positions." in bounded
    assert "positions are measured every period" in bounded
    assert "tracking" not in bounded  # it cannot be watched


def test_torques(run: Callable[..., Done]) -> None:
    if importlib.util.find_spec("pinocchio") is None:
        pytest.skip("pinocchio is not installed")
    done = run("check", DEMO / "torque_arm" / "arm.guard.toml")
    assert done.code == 0, done.err
    for part in ("one torque command every 2 ms", "150 N·m; brakes with", "±20%", "not proved", "velocities"):
        assert part in done.out
    assert "coasts" not in done.out  # a held torque does not


def test_poses(run: Callable[..., Done]) -> None:
    done = run("check", DEMO / "skeleton" / "skeleton.guard.toml")
    assert done.code == 0, done.err
    for part in (
        "skeleton of 24 nodes",
        "Head: 0.0921954 from Neck, within 0.8 rad",
        "no command: holds the last pose",
    ):
        assert part in done.out
    assert "jump)" not in done.out.replace("clock_jump", "")


# ---- a robot.toml ----------------------------------------------------------------------------------------------------

ROBOT = """schema = 1
[robot]
name = "t"
[model]
path = "m.onnx"
[guard]
path = "g.guard.toml"
[loop]
rate_hz = 200
[[input]]
name = "log"
connector = "waypoints"
path = "log.csv"
"""
SERIAL = """
[[{kind}]]
name = "arm"
connector = "serial"
port = "{port}"
"""
NAMES = ("pan/position", "lift/position", "pan/target_position", "lift/target_position")
STOP = temporal("always(near -> eventually[0,2] stopped)", near="distance < 0.3", stopped="max(abs(velocity)) < 0.01")


@pytest.fixture
def port() -> Iterator[str]:
    """A pty with nobody behind it."""
    master, slave = os.openpty()
    yield os.ttyname(slave)
    os.close(master)
    os.close(slave)


@pytest.fixture
def home(tmp_path: Path, build: Any, arm_core: bytes) -> Path:
    manifest = build.manifest_for(arm_core, NAMES, build.outputs, sample_rate_hz=200.0)
    write_bundle(tmp_path / "m.onnx", arm_core, manifest)
    (tmp_path / "robot.toml").write_text(ROBOT + f'[control]\nsocket = "{tmp_path / "s"}"\n')
    (tmp_path / "g.guard.toml").write_text(GUARD)
    (tmp_path / "log.csv").write_text(f"time_s,{','.join(NAMES)}\n0,0,0,0.1,0.2\n")
    return tmp_path


def add(home: Path, text: str) -> None:
    (home / "robot.toml").write_text((home / "robot.toml").read_text() + text)


def test_a_robot_that_fits(home: Path, run: Callable[..., Done]) -> None:
    done = run("check", home / "robot.toml", "--json", home / "r.json")
    assert done.code == 0, done.err
    report = json.loads((home / "r.json").read_text())
    assert report["warnings"] == []
    assert report["model"]["inputs"] == list(NAMES)
    assert "Guard of 2 joints" in report["guard"]


def test_a_signal_that_no_input_offers(home: Path, run: Callable[..., Done]) -> None:
    (home / "g.guard.toml").write_text(GUARD + STOP)
    words = "robot.toml: no [[input]] gives what the guard reads: ['distance']"
    done = run("check", home / "robot.toml")
    assert (done.code, words in done.err) == (1, True)
    assert words in run("run", home / "robot.toml", "--dry-run").err  # and nothing is opened
    assert not (home / "s").exists()
    (home / "near.csv").write_text("time_s,laser\n0,1\n")
    add(home, '[[input]]\nconnector = "waypoints"\npath = "near.csv"\nfields = { distance = "laser" }\n')
    assert run("check", home / "robot.toml").code == 0


def test_a_measurement_that_no_input_offers(home: Path, build: Any, arm_core: bytes, run: Callable[..., Done]) -> None:
    """The model reads other things; [faults] wants positions."""
    names = ("a", "b", "c", "d")
    write_bundle(home / "m.onnx", arm_core, build.manifest_for(arm_core, names, build.outputs, sample_rate_hz=200.0))
    (home / "log.csv").write_text("time_s,a,b,c,d\n0,0,0,0,0\n")
    assert run("check", home / "robot.toml").code == 0
    (home / "g.guard.toml").write_text(GUARD + "[faults]\njump = 0.1\n")
    done = run("check", home / "robot.toml")
    assert done.code == 1
    assert "no [[input]] gives what the guard reads: ['pan/position', 'lift/position']" in done.err


def test_a_field_that_an_input_does_not_have(home: Path, run: Callable[..., Done]) -> None:
    text = (home / "robot.toml").read_text().replace('"log.csv"', '"log.csv"\nfields = { "pan/position" = "q1" }')
    (home / "robot.toml").write_text(text)
    done = run("check", home / "robot.toml")
    assert done.code == 1
    for word in ("[[input]] log fields", "'q1'", "'pan/position'"):
        assert word in done.err


def test_what_only_the_device_can_tell_is_a_warning(home: Path, port: str, run: Callable[..., Done]) -> None:
    (home / "g.guard.toml").write_text(GUARD + STOP)
    add(home, SERIAL.format(kind="input", port=port))
    done = run("check", home / "robot.toml", "--json", home / "r.json")
    assert done.code == 0, done.err
    (warning,) = json.loads((home / "r.json").read_text())["warnings"]
    for word in ("robot.toml: [[input]]", "['distance']", "'arm'", "once it is open"):
        assert word in warning
    assert f"warning: {warning}" in done.out


@pytest.mark.parametrize(("command", "code"), [("position", 0), ("velocity", 1)])
def test_commands_that_the_output_does_not_take(
    home: Path,
    build: Any,
    arm_core: bytes,
    port: str,
    run: Callable[..., Done],
    command: str,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SerialDevice, "commands", ("position",))
    outputs = [f"{joint}/{command}" for joint in ("pan", "lift")]
    manifest = build.manifest_for(arm_core, NAMES, tuple(outputs), sample_rate_hz=200.0)
    write_bundle(home / "m.onnx", arm_core, manifest)
    (home / "g.guard.toml").write_text(commanding(command))
    add(home, SERIAL.format(kind="output", port=port))
    done = run("check", home / "robot.toml")
    assert done.code == code, done.err
    if code:
        for word in ("robot.toml: [[output]] 1", "g.guard.toml", "found 'velocity'", "driven by 'position' only"):
            assert word in done.err
