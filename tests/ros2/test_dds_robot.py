"""A whole robot over DDS: `kizzasi-edge run` and the simulated arm with DDS code of its own, each in its process.

What the arm was told is judged here, in integers, against the guard's limits; where it went, against the raw ones. The
guard's margins are the demo's: 0.02 rad of position, a tenth of the speed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

pytest.importorskip("cyclonedds", reason="the extra dds is not installed")
pytest.importorskip("mujoco", reason="the extra sim is not installed")

from dds_plant import CONTROLLER_ORDER
from ddsrig import PATIENCE_S, fresh_domain
from robots import until
from setpoint_model import write_policy

from kizzasi_edge.bundle import Manifest, write_bundle
from kizzasi_edge.control import request
from kizzasi_edge.demo.expert import JOINTS
from kizzasi_edge.demo.physics import ASSETS
from kizzasi_edge.demo.witness import raw_limits
from kizzasi_edge.errors import ConnectorError
from kizzasi_edge.guardrails import Guardrails
from kizzasi_edge.ros2.dds_domain import Domain

I64 = npt.NDArray[np.int64]

N, RATE_HZ = len(JOINTS), 200
START = np.array([0.3, -1.4, 1.6, -1.5, -1.2, 0.5])  # six different numbers: an order mixed up is seen
TARGETS = START + np.array([[1.2, -0.2, 0.25, -0.3, 0.2, -0.15], [-1.2, 0.2, -0.2, 0.25, -0.15, 0.3]])
STALE_MS, TTL_MS = 200, 1000
ROBOT = f"""schema = 1
[robot]
name = "dds_arm"
[model]
path = "m.onnx"
[guard]
path = "arm.guard.toml"
[loop]
rate_hz = {RATE_HZ}
pace = "device"
[[input]]
name = "arm"
connector = "dds"
topic = "/joint_states"
type = "sensor_msgs/msg/JointState"
qos = "sensor_data"
stale_ms = {STALE_MS}
{{where}}
[[input]]
name = "wishes"
connector = "waypoints"
path = "wishes.csv"
[[output]]
connector = "dds"
topic = "/forward_position_controller/commands"
type = "std_msgs/msg/Float64MultiArray"
joints = {[JOINTS[i] for i in CONTROLLER_ORDER]}
ttl_ms = {TTL_MS}
arm_ttl_ms = 5000
{{where}}
[control]
socket = "s"
"""


def child(command: list[str], home: Path, stack: ExitStack) -> subprocess.Popen[bytes]:
    """A process that does not outlive the test; what it says goes to the folder's log."""
    environ = {key: value for key, value in os.environ.items() if key != "CYCLONEDDS_URI"}
    with (home / "log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environ)
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process


class Plant:
    """``dds_plant.py``, and what it has noted."""

    def __init__(self, domain: Domain, home: Path, stack: ExitStack) -> None:
        log, script = home / "plant.jsonl", Path(__file__).with_name("dds_plant.py")
        log.touch()
        self._log, self._unfinished = stack.enter_context(log.open()), ""
        self._rows: list[dict[str, Any]] = []
        start = ",".join(map(str, START))
        self.process = child([sys.executable, str(script), str(domain.id), str(log), start], home, stack)

    def rows(self, kind: str) -> list[dict[str, Any]]:
        *lines, self._unfinished = (self._unfinished + self._log.read()).split("\n")
        self._rows += map(json.loads, lines)
        return [row for row in self._rows if kind in row]

    def told(self) -> npt.NDArray[np.float64]:
        """Every command so far, in the joints' order [rad]."""
        found = np.empty((len(rows := self.rows("command")), N))
        found[:, list(CONTROLLER_ORDER)] = [row["command"] for row in rows] or np.empty((0, N))
        return found

    def rest(self) -> npt.NDArray[np.float64]:
        """Where it is measured, once that has not changed for a while [rad]."""

        def still() -> bool:
            latest = [row["measured"] for row in self.rows("measured")[-50:]]
            return len(latest) == 50 and all(row == latest[0] for row in latest)

        until(still)
        return np.array(self.rows("measured")[-1]["measured"])


class Robot:
    """Plant and gateway in a folder."""

    def __init__(self, domain: Domain, home: Path, stack: ExitStack) -> None:
        self.home, self.socket, self.guard = home, home / "s", Guardrails.load(home / "arm.guard.toml")
        where = f'domain = {domain.id}\ndiscovery = "localhost"\ninterface = "lo"'
        (home / "robot.toml").write_text(ROBOT.format(where=where))
        self.plant = Plant(domain, home, stack)
        until(lambda: bool(self.plant.rows("measured")), PATIENCE_S)
        self.start = self.plant.rest()
        command = [str(Path(sys.executable).parent / "kizzasi-edge"), "run", str(home / "robot.toml"), "--arm"]
        self.gateway = child(command, home, stack)
        until(lambda: self.status().get("ticks", 0) > 20, PATIENCE_S)

    def status(self) -> dict[str, Any]:
        assert self.gateway.poll() is None, (self.home / "log").read_text()
        try:
            return request(self.socket, "status")
        except ConnectorError:
            return {"state": "STARTING"}

    def speed(self) -> float:
        """Of the commands, relative to the most that the guard allows."""
        told = quanta(self.guard, self.plant.told()[-2:])
        return float((abs(np.diff(told, axis=0)) / limits(self.guard)[2]).max(initial=0))


@contextmanager
def robot(home: Path) -> Iterator[Robot]:
    text = (ASSETS / "arm.guard.toml").read_text().replace("rate_hz = 500", f"rate_hz = {RATE_HZ}")
    patience = "\n[faults]\nhang_ticks = 300\nfault_ticks = 300\n"  # of the guard with a busy machine
    (home / "arm.guard.toml").write_text(text + patience)
    (home / "arm.urdf").write_text((ASSETS / "arm.urdf").read_text())
    with fresh_domain() as domain, ExitStack() as stack:
        yield Robot(domain, home, stack)


def limits(guard: Guardrails) -> tuple[I64, ...]:
    return tuple(np.array([getattr(cell, key) for cell in guard.lattice], np.int64) for key in ("lo", "hi", "w", "h"))


def quanta(guard: Guardrails, told: npt.NDArray[np.float64]) -> I64:
    """Values received, in quanta, which they are exactly."""
    found = told / guard.quanta
    assert (found == np.rint(found)).all()
    return found.astype(np.int64)


def violations(guard: Guardrails, start: npt.NDArray[np.float64], told: npt.NDArray[np.float64], *, rests: bool) -> int:
    """CONTRACT §1 counted on a session's commands, from rest where the joints were measured, and to rest."""
    lo, hi, w, h = limits(guard)
    q = np.vstack([np.rint(start / guard.quanta).astype(np.int64), quanta(guard, told)])
    step = np.diff(q, axis=0, prepend=q[:1], append=q[-1:] if rests else np.empty((0, N), np.int64))
    change = np.diff(step, axis=0)
    return int((q < lo).sum() + (q > hi).sum() + (abs(step) > w).sum() + (abs(change) > h).sum())


def stayed_inside(plant: Plant) -> None:
    """The true joints, against the raw limits: the margins are what a servo's overshoot may use, and no more."""
    lower, upper, speed = raw_limits(ASSETS / "arm.urdf", JOINTS)
    q, qvel = (np.array([row[key] for row in plant.rows("q")]) for key in ("q", "qvel"))
    assert (lower <= q).all()
    assert (q <= upper).all()
    assert (abs(qvel) <= speed).all()


def test_a_policy_moves_the_arm_and_silent_joints_stop_it(tmp_path: Path) -> None:
    write_policy(tmp_path / "m.onnx", JOINTS, RATE_HZ)
    wishes = "".join(f"{1.5 * i},{','.join(map(str, TARGETS[i % 2]))}\n" for i in range(80))
    (tmp_path / "wishes.csv").write_text(f"time_s,{','.join(f'{joint}/target_position' for joint in JOINTS)}\n{wishes}")
    with robot(tmp_path) as one:
        plant, guard = one.plant, one.guard

        def off_target(at: npt.NDArray[np.float64]) -> float:
            return float(abs(at - TARGETS).max(axis=1).min())

        until(lambda: any(off_target(at) < 1e-3 for at in plant.told()[-5:]))
        until(lambda: one.speed() > 0.5)
        request(one.socket, "disarm")
        until(lambda: one.status()["state"] == "READY")
        where, told = plant.rest(), plant.told()
        assert violations(guard, one.start, told, rests=True) == 0
        assert abs(where - told[-1]).max() < 1e-3  # the arm is where it was told to be

        request(one.socket, "arm")
        until(lambda: len(plant.told()) > len(told) + 20 and one.speed() > 0.5)
        plant.process.send_signal(signal.SIGUSR1)
        until(lambda: one.status()["state"] == "FAILSAFE")
        failed_ns = time.time_ns()
        there, again = plant.rest(), plant.told()[len(told) :]
        assert violations(guard, where, again, rests=True) == 0
        assert off_target(again[-1]) > 0.01  # stopped on its way
        assert abs(there - again[-1]).max() < 1e-3
        # In time, counted in periods: until the joints are stale, then coasting, then the brake.
        silent_ns = max(row["t_ns"] for row in plant.rows("measured") if row["published"])
        after = sum(row["t_ns"] > silent_ns for row in plant.rows("command"))
        _, _, w, h = limits(guard)
        assert after <= STALE_MS * RATE_HZ // 1000 + guard.miss_budget + int(-(-w // h).max()) + 4
        assert failed_ns - silent_ns < TTL_MS * 1e6 + 2e9
        status = one.status()
        assert (status["device"]["fault"], status["device"]["session"]) == ("TTL", 0)
        assert min(status["stale"]["ticks"], status["stale"]["arm"], status["device"]["node"]["misses"]) > 0
        with pytest.raises(ConnectorError, match="FAILSAFE"):
            request(one.socket, "arm")
        stayed_inside(plant)
        request(one.socket, "stop")
        assert one.gateway.wait(PATIENCE_S) == 0
        assert len(plant.told()) == len(told) + len(again)


def write_wild(path: Path) -> None:
    """A model whose setpoints sweep through ±10 rad, each joint's faster and faster, and which divides by its input."""

    def tensor(name: str, *shape: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    chirp = [1e-2, 3e-3, 4e-6, 1e-4, 3e-4, 1e-3]  # the elbow's keeps it at the end of its range for seconds
    weights = {"one": [[1.0]], "ten": [[10.0]], "zero": [[0.0]], "chirp": [chirp]}
    steps = [
        ("Mul", "age age", "squared"),
        ("Mul", "squared chirp", "angle"),
        ("Sin", "angle", "wave"),
        ("Mul", "wave ten", "far"),
        ("Div", "far x", "y"),
        ("Add", "age one", "age_out"),
        ("Identity", "zero", "age_init"),
    ]
    graph = helper.make_graph(
        [helper.make_node(kind, inputs.split(), [output]) for kind, inputs, output in steps],
        "wild",
        [tensor("x", 1, 1), tensor("age", 1, 1)],
        [tensor("y", 1, N), tensor("age_out", 1, 1), tensor("age_init", 1, 1)],
        [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in weights.items()],
    )
    core = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    vector = {"seed": 1, "x": [[1.0]], "y": [[0.0] * N]}
    manifest = {
        "kind": "test",
        "variant": "portable",
        "input_dim": 1,
        "output_dim": N,
        "sample_rate_hz": float(RATE_HZ),
        "inputs": [{"name": "divisor", "unit": "1"}],
        "outputs": [{"name": f"{joint}/position", "unit": "rad"} for joint in JOINTS],
        "states": [{"name": "age", "shape": [1, 1]}],
        "config": {},
        "parity": {"steps": 1, "max_abs_error": 0.0, "relative_error": 0.0, "vector": vector},
        "onnxruntime_min": "1.16",
        "opset": {"": 17},
    }
    write_bundle(path, core, Manifest.model_validate(manifest))


def test_a_wild_model_moves_it_within_the_limits_until_the_gateway_is_killed(tmp_path: Path) -> None:
    write_wild(tmp_path / "m.onnx")
    wishes = "".join(f"{0.5 * i},1\n{0.5 * i + 0.46:g},0\n" for i in range(240))  # 40 ms of Inf and NaN, twice a second
    (tmp_path / "wishes.csv").write_text(f"time_s,divisor\n{wishes}")
    with robot(tmp_path) as one:
        plant, guard = one.plant, one.guard
        _, hi, w, _ = limits(guard)

        def went_far_and_fast() -> bool:
            q = quanta(guard, plant.told())
            return bool(((hi - q) * guard.quanta < 1e-3).any() and (abs(np.diff(q, axis=0)) == w).any())

        until(lambda: one.status().get("armed_ticks", 0) > 2.5 * RATE_HZ and went_far_and_fast(), PATIENCE_S)
        until(lambda: one.speed() > 0.5)
        status = one.status()
        os.kill(one.gateway.pid, signal.SIGKILL)
        one.gateway.wait()
        dead_ns = time.time_ns()
        where, told = plant.rest(), plant.told()
        assert violations(guard, one.start, told, rests=False) == 0
        assert sum(status["interventions"].values()) > RATE_HZ
        assert status["guard"]["events"]["NON_FINITE"] > 0
        assert status["sessions"] == 1
        stayed_inside(plant)
        assert max(row["t_ns"] for row in plant.rows("command")) < dead_ns  # nothing more has come
        assert abs(where - told[-1]).max() < 1e-3  # and the arm stays where it was told to be
        with pytest.raises(ConnectorError, match="no running robot answers"):
            request(one.socket, "status")
