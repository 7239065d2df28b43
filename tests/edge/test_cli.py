"""The command line as a user meets it: a subprocess, its exit code, and at most one screen on stderr."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import termios
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kizzasi_bridge.board import PosixBoard
from kizzasi_bridge.schema import Schema
from kizzasi_edge.bundle import write_bundle

GUARD = """schema = 1
[guard]
rate_hz = 500
[joints]
names = ["pan", "lift"]
position = [[-1, 1], [-1, 1]]
velocity = 2
acceleration = 12
quantum = 4.76837158203125e-07
"""
ROBOT = """schema = 1
[robot]
name = "t"
[model]
path = "arm.onnx"
[guard]
path = "arm.guard.toml"
[loop]
rate_hz = 500
pace = "device"
[[input]]
connector = "serial"
port = "PORT"
[[input]]
connector = "waypoints"
path = "t.csv"
[[output]]
connector = "serial"
port = "PORT"
[control]
socket = "t.sock"
"""


VERSION = b'"schema_version": 1'


@dataclass
class Home:
    """A folder with a robot.toml and all that it names."""

    path: Path
    environment: dict[str, str]

    def cli(self, *arguments: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from kizzasi_edge.cli import main; main()", *arguments]
        return subprocess.run(
            command, cwd=self.path, env=self.environment, capture_output=True, text=True, timeout=timeout
        )

    def write(self, *, robot: str = ROBOT, guard: str = GUARD) -> None:
        (self.path / "robot.toml").write_text(robot)
        (self.path / "arm.guard.toml").write_text(guard)

    def refused(self, *arguments: str, words: list[str]) -> str:
        done = self.cli(*arguments)
        assert done.returncode == 1, done.stderr
        assert "Traceback" not in done.stderr
        assert done.stderr.startswith("error: ")
        assert len(done.stderr.splitlines()) <= 20
        for word in words:
            assert word in done.stderr
        return done.stderr


@pytest.fixture
def port() -> Iterator[Path]:
    """A pty with nobody behind it."""
    master, slave = os.openpty()
    yield Path(os.ttyname(slave))
    os.close(master)
    os.close(slave)


@pytest.fixture
def home(tmp_path: Path, build: Any, arm_core: bytes, port: Path) -> Home:
    write_bundle(tmp_path / "arm.onnx", arm_core, build.manifest_for(arm_core, build.inputs, build.outputs))
    (tmp_path / "t.csv").write_text("time_s,pan/target_position,lift/target_position\n0,0.1,0.2\n")
    home = Home(tmp_path, {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "XDG_RUNTIME_DIR": str(tmp_path)})
    home.write(robot=ROBOT.replace("PORT", str(port)))
    return home


def robot(port: Path | str) -> str:
    return ROBOT.replace("PORT", str(port))


# ---- bad input, of the list ----------------------------------------------------------------------------------


def test_an_unknown_config_key(home: Home, port: Path) -> None:
    home.write(robot=robot(port).replace("rate_hz = 500", "rate_hz = 500\nrate_khz = 0.5"))
    for command in ("run", "check"):
        home.refused(command, "robot.toml", words=["robot.toml: [loop] rate_khz", "unknown key", "0.5", "rate_hz"])


def test_an_unknown_connector_key(home: Home, port: Path) -> None:
    home.write(robot=robot(port).replace('path = "t.csv"', 'path = "t.csv"\nspeed = 2'))
    home.refused("check", "robot.toml", words=["robot.toml: [[input]] 2: speed", "unknown key", "found 2"])


def test_a_missing_model(home: Home) -> None:
    (home.path / "arm.onnx").unlink()
    home.refused("run", "robot.toml", words=["robot.toml: [model] path", "'arm.onnx'", "no such file"])
    home.refused("inspect", "arm.onnx", words=["arm.onnx"])


def test_a_model_with_another_manifest_version(home: Home) -> None:
    model = home.path / "arm.onnx"
    data = model.read_bytes()
    assert data.count(VERSION) == 1
    model.write_bytes(data.replace(VERSION, b'"schema_version": 9'))
    for command in (("run", "robot.toml"), ("check", "robot.toml"), ("inspect", "arm.onnx")):
        home.refused(*command, words=["arm.onnx", "schema_version", "9", "1"])


def test_what_is_no_model(home: Home) -> None:
    (home.path / "arm.onnx").write_bytes(b"not a model")
    home.refused("inspect", "arm.onnx", words=["arm.onnx"])
    home.refused("check", "robot.toml", words=["arm.onnx"])


def test_inverted_limits(home: Home, port: Path) -> None:
    home.write(robot=robot(port), guard=GUARD.replace("[[-1, 1]", "[[1, -1]"))
    for path in ("robot.toml", "arm.guard.toml"):
        home.refused("check", path, words=["arm.guard.toml: [joints] position", "[1, -1]", "'pan'", "lo < hi"])
    home.refused("run", "robot.toml", words=["arm.guard.toml: [joints] position"])


def test_a_urdf_without_limits(home: Home, port: Path) -> None:
    (home.path / "r.urdf").write_text('<robot name="r"><joint name="pan" type="revolute"/></robot>')
    text = 'schema = 1\n[guard]\nrate_hz = 500\n[joints]\nfrom_urdf = "r.urdf"\nacceleration = 9\n'
    home.write(robot=robot(port), guard=text)
    home.refused("run", "robot.toml", words=["r.urdf: joint 'pan'", "no <limit>"])
    home.refused("check", "arm.guard.toml", words=["r.urdf: joint 'pan'", "no <limit>"])


def test_a_port_that_does_not_exist(home: Home) -> None:
    home.write(robot=robot("/dev/ttyNOPE"))
    for command in (("run", "robot.toml"), ("run", "robot.toml", "--dry-run"), ("check", "robot.toml")):
        home.refused(*command, words=["robot.toml: [[input]] 1 port", "/dev/ttyNOPE", "no such device"])


def test_a_port_in_use(home: Home, port: Path) -> None:
    holder = os.open(port, os.O_RDWR | os.O_NOCTTY)
    try:
        fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.ioctl(holder, termios.TIOCEXCL)
        home.refused("run", "robot.toml", words=["robot.toml: [[input]] 1", str(port), "in use"])
    finally:
        fcntl.ioctl(holder, termios.TIOCNXCL)
        os.close(holder)


def test_a_port_that_is_none(home: Home) -> None:
    home.write(robot=robot(home.path / "t.csv"))
    home.refused("run", "robot.toml", words=["robot.toml: [[input]] 1", "t.csv", "a regular file"])


def test_a_silent_port(home: Home, port: Path) -> None:
    home.refused("run", "robot.toml", words=["robot.toml: [[input]] 1", str(port), "no byte received"])


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_baud_rate_too_slow_for_the_loop(home: Home, port: Path, command: str) -> None:
    home.write(robot=robot(port).replace("[[output]]", "[[output]]\nbaud = 115200"))
    home.refused(command, "robot.toml", words=["robot.toml: [[input]] 1 baud", "found 115200", "500 Hz", "at least"])


def test_rates_that_disagree(home: Home, port: Path) -> None:
    home.write(robot=robot(port), guard=GUARD.replace("rate_hz = 500", "rate_hz = 250"))
    words = ["rates disagree", "[loop] rate_hz of robot.toml = 500", "arm.guard.toml = 250", "arm.onnx = 500"]
    home.refused("run", "robot.toml", words=words)
    home.refused("check", "robot.toml", words=words)


def test_joints_that_disagree(home: Home, port: Path) -> None:
    home.write(robot=robot(port), guard=GUARD.replace('"lift"', '"elbow"'))
    for command in ("run", "check"):
        home.refused(
            command, "robot.toml", words=["model outputs ['pan/position', 'lift/position']", "['pan', 'elbow']"]
        )


def test_sections_of_one_port_that_disagree(home: Home, port: Path) -> None:
    text = robot(port).replace('[[input]]\nconnector = "serial"', '[[input]]\nconnector = "serial"\nbaud = 2000000')
    home.write(robot=text.replace("[[output]]", "[[output]]\nbaud = 1000000"))
    home.refused("check", "robot.toml", words=["robot.toml: [[output]] 1 baud", "1000000", "2000000"])


def test_an_unknown_connector(home: Home, port: Path) -> None:
    home.write(robot=robot(port).replace('"waypoints"', '"psychic"'))
    home.refused("check", "robot.toml", words=["[[input]] 2 connector", "'psychic'", "serial", "waypoints"])


def test_arming_without_an_output(home: Home, port: Path) -> None:
    text = (
        robot(port).replace(f'[[output]]\nconnector = "serial"\nport = "{port}"\n', "").replace('"device"', '"clock"')
    )
    home.write(robot=text)
    home.refused("run", "robot.toml", "--arm", words=["robot.toml: [[output]]", "nothing to arm"])


def test_pace_by_a_device_that_is_not_there(home: Home, port: Path) -> None:
    home.write(robot=robot(port).replace(f'[[output]]\nconnector = "serial"\nport = "{port}"\n', ""))
    home.refused("check", "robot.toml", words=["robot.toml: [loop] pace", "'device'", "[[output]]"])


@pytest.mark.parametrize("bad", ["[1, 2", "[0.1, 0.2, 0.3]", "[nan, 0, 0, 0]"])
def test_a_wrong_x_of_a_program(home: Home, bad: str) -> None:
    """The API's part of the list: wrong-length x and NaN x, as a user's script meets them."""
    values = bad if bad.endswith("]") else "[0.1, 0.2]"
    script = f"""
import numpy as np
from numpy import nan
from kizzasi_edge import Predictor, KizzasiError
p = Predictor("arm.onnx")
y = p.step(np.zeros(4, np.float32)); s = p.snapshot().state
try:
    p.step(np.array({values}, np.float32))
except ValueError as e:
    assert isinstance(e, KizzasiError)
    assert all((s[k] == v).all() for k, v in p.snapshot().state.items())
    raise SystemExit(str(e))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=home.path, env=home.environment, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "arm.onnx: x" in done.stderr
    assert "expected" in done.stderr


# ---- good input ------------------------------------------------------------------------------------------------------


def test_check_explains_and_writes_json(home: Home) -> None:
    done = home.cli("check", "robot.toml", "--json", "c.json")
    assert done.returncode == 0, done.stderr
    assert "Guard of 2 joints" in done.stdout
    assert done.stdout.rstrip().endswith("ok")
    report = json.loads((home.path / "c.json").read_text())
    assert report["ok"] is True
    assert report["errors"] == []
    assert report["model"]["sample_rate_hz"] == 500
    assert "Guard of 2 joints" in report["guard"]


def test_check_writes_json_about_what_is_wrong(home: Home) -> None:
    home.write(robot=robot("/dev/ttyNOPE"))
    home.refused("check", "robot.toml", "--json", "c.json", words=["ttyNOPE"])
    report = json.loads((home.path / "c.json").read_text())
    assert report["ok"] is False
    assert "ttyNOPE" in report["errors"][0]


def test_check_of_a_guard_file_alone(home: Home) -> None:
    done = home.cli("check", "arm.guard.toml")
    assert done.returncode == 0
    assert "pan: [-1.0000, +1.0000] rad" in done.stdout


def test_inspect(home: Home) -> None:
    done = home.cli("inspect", "arm.onnx", "--json", "i.json")
    assert done.returncode == 0, done.stderr
    assert json.loads((home.path / "i.json").read_text())["replay"]["passed"] is True


def test_a_json_path_that_cannot_be_written(home: Home) -> None:
    home.refused("check", "robot.toml", "--json", "gone/c.json", words=["--json", "gone/c.json"])


def test_schema_is_json_schema(home: Home) -> None:
    done = home.cli("schema")
    assert done.returncode == 0
    schemas = json.loads(done.stdout)
    assert "rate_hz" in schemas["guard.toml"]["$defs"]["GuardSection"]["properties"]
    assert schemas["robot.toml"]["additionalProperties"] is False


def test_connectors_and_ports(home: Home) -> None:
    done = home.cli("connectors")
    assert done.returncode == 0
    assert {"serial", "waypoints"} <= {line.split()[0] for line in done.stdout.splitlines()}
    assert home.cli("ports").returncode == 0


@pytest.mark.parametrize("op", ["status", "arm", "disarm", "estop", "clear"])
def test_no_robot_runs(home: Home, op: str) -> None:
    home.refused(op, words=["kizzasi-*.sock", "no control socket", "--socket"])
    home.refused(op, "--socket", "gone.sock", words=["gone.sock", "no running robot answers", "kizzasi-edge run"])


def test_usage_errors(home: Home) -> None:
    for arguments in (["run", "robot.toml", "--dry-run", "--arm"], ["demo", "tank"], ["explode"]):
        done = home.cli(*arguments)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert len(done.stderr.splitlines()) <= 20
    assert home.cli("--help").returncode == 0


def test_nothing_moves_when_a_run_is_refused(home: Home) -> None:
    """A device that drives other joints, and one that counts otherwise: refused before limits are uploaded."""
    for schema, words in (
        (Schema.positions(("pan", "tilt"), scale=2.0**-21), ["lift", "tilt"]),
        (Schema.positions(("pan", "lift"), scale=2.0**-20), ["quanta", "[joints] quantum", "arm.guard.toml"]),
        (Schema.positions(("pan", "lift"), scale=2.0**-21, tick_us=1500), ["[loop] rate_hz", "1500 µs"]),
    ):
        with PosixBoard(schema) as board:
            home.write(robot=robot(board.port))
            home.refused("run", "robot.toml", "--arm", words=words)
            from kizzasi_bridge import Link

            with Link(board.port) as link:
                assert link.hello.limits_hash == 0  # nothing was committed, so no output was ever enabled
