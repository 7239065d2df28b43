"""`kizzasi-edge run` and two joints on velocity drives, each in its process, over DDS: a wild model, and three ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

pytest.importorskip("cyclonedds", reason="the extra dds is not installed")

from ddsrig import PATIENCE_S, fresh_domain, until
from hostrig import RATE_HZ, in_quanta, violations

from kizzasi_edge.bundle import Manifest, write_bundle
from kizzasi_edge.control import request
from kizzasi_edge.errors import ConnectorError
from kizzasi_edge.guardrails import Guardrails

REACH = np.array([0.5, 0.4])  # pan, lift; the joints' ends
GUARD = f"""schema = 1
[guard]
rate_hz = {RATE_HZ}
command = "velocity"
[joints]
names = ["pan", "lift"]
position = [[-0.5, 0.5], [-0.4, 0.4]]
velocity = 1.5
acceleration = 10
margin = 0.06                 # the drives' lag, and that of the messages
[faults]
hang_ticks = 300
fault_ticks = 300
"""
ROBOT = """schema = 1
[robot]
name = "drives"
[model]
path = "m.onnx"
[guard]
path = "g.guard.toml"
[loop]
rate_hz = 200
pace = "device"
[[input]]
connector = "dds"
topic = "/joint_states"
type = "sensor_msgs/msg/JointState"
qos = "sensor_data"
stale_ms = 100
{where}
[[input]]
connector = "waypoints"
path = "wishes.csv"
[[output]]
connector = "dds"
topic = "/velocity_controller/commands"
type = "std_msgs/msg/Float64MultiArray"
joints = ["lift", "pan"]
command_interface = "velocity"
ttl_ms = 1000
arm_ttl_ms = 5000
{where}
[control]
socket = "s"
"""


def write_hasty(path: Path) -> None:
    """A model that wants to be at its targets at once: velocities of 40/s times the distance, over its divisor."""

    def tensor(name: str, *shape: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    eye, none = 40.0 * np.eye(2), np.zeros((2, 2))
    weights = {"far": np.vstack([-eye, eye, none[:1]]), "last": [[0.0]] * 4 + [[1.0]], "one": [[1.0]], "zero": [[0.0]]}
    steps = [
        ("MatMul", "x far", "hurry"),
        ("MatMul", "x last", "divisor"),
        ("Div", "hurry divisor", "y"),
        ("Add", "age one", "age_out"),
        ("Identity", "zero", "age_init"),
    ]
    graph = helper.make_graph(
        [helper.make_node(kind, inputs.split(), [output]) for kind, inputs, output in steps],
        "hasty",
        [tensor("x", 1, 5), tensor("age", 1, 1)],
        [tensor("y", 1, 2), tensor("age_out", 1, 1), tensor("age_init", 1, 1)],
        [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in weights.items()],
    )
    core = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    names = [f"{joint}/{kind}" for kind in ("position", "target_position") for joint in ("pan", "lift")]
    manifest: dict[str, Any] = {
        "kind": "test",
        "variant": "portable",
        "input_dim": 5,
        "output_dim": 2,
        "sample_rate_hz": float(RATE_HZ),
        "inputs": [*({"name": name, "unit": "rad"} for name in names), {"name": "divisor", "unit": "1"}],
        "outputs": [{"name": f"{joint}/velocity", "unit": "rad/s"} for joint in ("pan", "lift")],
        "states": [{"name": "age", "shape": [1, 1]}],
        "config": {},
        "parity": {
            "steps": 1,
            "max_abs_error": 0.0,
            "relative_error": 0.0,
            "vector": {"seed": 1, "x": [[0.0] * 4 + [1.0]], "y": [[0.0] * 2]},
        },
        "onnxruntime_min": "1.16",
        "opset": {"": 17},
    }
    write_bundle(path, core, Manifest.model_validate(manifest))


class Rig:
    """Plant and gateway in a folder, and what the plant has noted."""

    def __init__(self, home: Path, stack: ExitStack) -> None:
        domain = stack.enter_context(fresh_domain())
        self.home, self._stack = home, stack
        where = f'domain = {domain.id}\ndiscovery = "localhost"\ninterface = "lo"'
        (home / "robot.toml").write_text(ROBOT.format(where=where))
        (home / "g.guard.toml").write_text(GUARD)
        write_hasty(home / "m.onnx")
        # Targets far outside, now here, now there; 40 ms of Inf and NaN twice a second.
        rows = [f"{0.5 * i},{2 * (-1) ** (i // 2)},{-2 * (-1) ** (i // 3)}" for i in range(240)]
        rows = [
            text for i, row in enumerate(rows) for text in (f"{row},1", f"{0.5 * i + 0.46:g}{row[row.index(',') :]},0")
        ]
        head = "time_s,pan/target_position,lift/target_position,divisor"
        (home / "wishes.csv").write_text("\n".join([head, *rows]) + "\n")
        self.log = home / "plant.jsonl"
        self.log.touch()
        script = Path(__file__).with_name("dds_drives.py")
        self.plant = self._child([sys.executable, str(script), str(domain.id), str(self.log), "0.1,-0.2"])
        until(lambda: self.rows("q"))
        run = [str(Path(sys.executable).parent / "kizzasi-edge"), "run", str(home / "robot.toml"), "--arm"]
        self.gateway = self._child(run)
        self.guard = Guardrails.load(home / "g.guard.toml")

    def _child(self, command: list[str]) -> subprocess.Popen[bytes]:
        environ = {key: value for key, value in os.environ.items() if key != "CYCLONEDDS_URI"}
        with (self.home / "log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environ)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process

    def rows(self, kind: str) -> list[dict[str, Any]]:
        whole = self.log.read_text().rpartition("\n")[0]
        return [row for row in map(json.loads, whole.splitlines()) if kind in row]

    def told(self) -> npt.NDArray[np.int64]:
        return in_quanta(self.guard, [row["command"][::-1] for row in self.rows("command")])

    def status(self) -> dict[str, Any]:
        assert self.gateway.poll() is None, (self.home / "log").read_text()
        try:
            return request(self.home / "s", "status")
        except ConnectorError:
            return {"state": "STARTING"}

    def still(self) -> bool:
        seen = [row["v"] for row in self.rows("q")[-20:]]
        return bool(np.abs(seen).max() < 1e-6)


@pytest.mark.parametrize("end", ["stop", "disarm", "silence"])
def test_a_hasty_model_stays_inside_and_every_end_is_rest(tmp_path: Path, end: str) -> None:
    with ExitStack() as stack:
        rig = Rig(tmp_path, stack)
        w = max(cell.w for cell in rig.guard.node)

        def wild() -> bool:
            return rig.status().get("armed_ticks", 0) > 2 * RATE_HZ and bool((abs(rig.told()[-3:]) == w).any())

        until(wild, PATIENCE_S)
        match end:
            case "stop":
                rig.gateway.send_signal(signal.SIGTERM)
                assert rig.gateway.wait(PATIENCE_S) == 0
            case "disarm":
                request(tmp_path / "s", "disarm")
                until(lambda: rig.status()["state"] == "READY")
            case "silence":
                rig.plant.send_signal(signal.SIGUSR1)
                until(lambda: rig.status()["state"] == "FAILSAFE")
                assert rig.status()["device"]["fault"] == "TTL"
        until(rig.still, PATIENCE_S)
        told = rig.told()
        assert violations(rig.guard, told) == 0
        assert not told[-1].any()
        q = np.array([row["q"][::-1] for row in rig.rows("q")])
        assert (abs(q) <= REACH).all()
        assert (abs(q).max(axis=0) > 0.8 * REACH).any()  # it went where it could
        assert abs(np.array([row["v"] for row in rig.rows("q")])).max() <= 1.5
        if end != "stop":
            assert rig.status()["guard"]["events"]["NON_FINITE"] > 0
