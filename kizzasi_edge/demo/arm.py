"""``kizzasi-edge demo arm``: plant, firmware and gateway as three processes, watched and judged by this one.

    plant (MuJoCo)  ←unix socket, lock-step→  firmware (C, POSIX board)  ←pty, serial frames→  gateway (the loop)

This process only starts them, talks to the gateway's control socket as an operator would, and afterwards compares
what the plant saw with the limits and with the expert's reference.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.live import Live

from kizzasi_bridge.board import PosixBoard
from kizzasi_bridge.schema import Schema
from kizzasi_edge.bundle import Bundle
from kizzasi_edge.control import request
from kizzasi_edge.demo.expert import HOME, JOINTS, random_targets
from kizzasi_edge.demo.physics import ASSETS, QUANTUM
from kizzasi_edge.demo.report import write_report
from kizzasi_edge.demo.tracking import expert_run, rmse, targets_at, unwrap_us
from kizzasi_edge.demo.witness import raw_limits
from kizzasi_edge.errors import ConfigError, ConnectorError, MissingExtra
from kizzasi_edge.guardrails import Guardrails
from kizzasi_edge.live import table

ROBOT_TOML = """schema = 1

[robot]
name = "arm"

[model]
path = "{model}"

[guard]
path = "arm.guard.toml"

[loop]
rate_hz = {rate_hz:g}
pace = "device"

[[input]]
name = "arm"
connector = "serial"
port = "{port}"
baud = 1000000
stale_ms = 50

[[input]]
name = "targets"
connector = "waypoints"
path = "targets.csv"

[[output]]
name = "arm"
connector = "serial"
port = "{port}"
ttl_ms = 100

[control]
socket = "{socket}"

[record]
path = "gateway.npz"
seconds = {seconds:g}
"""

START_S = 30.0


class Stage:
    """The three processes of a run, in ``out``. Built by :func:`stage`; also what the fault tests drive.

    Attributes: ``board`` the firmware, ``gateway`` the loop's process, ``socket`` its control socket.
    """

    def __init__(self, out: Path, scratch: Path, adversary: str | None) -> None:
        self.out, self.socket, self._adversary = out, scratch / "control.sock", adversary
        self.plant: subprocess.Popen[bytes]
        self.board: PosixBoard
        self.gateway: subprocess.Popen[bytes]

    def start_gateway(self) -> None:
        """Start the gateway and wait until it answers and the firmware is READY (or latched, after a fault)."""
        arguments = [sys.executable, "-m", "kizzasi_edge.demo.gateway", str(self.out / "robot.toml")]
        with (self.out / "gateway.log").open("wb") as log:
            self.gateway = subprocess.Popen(arguments + ([self._adversary] if self._adversary else []), stderr=log)
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self.gateway.poll() is not None:
                raise ConnectorError(f"the gateway ended: {(self.out / 'gateway.log').read_text().strip()}")
            if self.socket.exists() and self.status()["state"] in ("READY", "FAILSAFE", "ESTOP"):
                return
            time.sleep(0.05)
        raise ConnectorError(f"the gateway was not ready within {START_S:g} s; see {self.out / 'gateway.log'}")

    def status(self) -> dict[str, Any]:
        """The gateway's status; ``{"state": "STARTING"}`` while it does not answer yet."""
        try:
            return request(self.socket, "status")
        except ConnectorError:
            if self.gateway.poll() is not None:
                raise
            return {"state": "STARTING"}

    def kill_gateway(self) -> None:
        """End it, in whatever state it is; harmless if it never started."""
        if hasattr(self, "gateway"):
            _end(self.gateway)

    def stop_gateway(self) -> None:
        """Disarm, let it save its record, and wait for it."""
        request(self.socket, "stop")
        self.gateway.wait(15)


@contextmanager
def stage(
    out: Path, *, seconds: float, rate_hz: float, adversary: str | None, seed: int, model: Path
) -> Iterator[Stage]:
    """Write the run's files into ``out`` and start plant, firmware and gateway; stop them all on leaving.

    Raises :class:`ConnectorError` (with the process's own words) if one does not start.
    """
    out.mkdir(parents=True, exist_ok=True)
    out = out.resolve()
    with ExitStack() as stack:
        # Unix socket paths are limited to 107 bytes: they go to a short temporary folder.
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kz-")))
        one = Stage(out, scratch, adversary)
        _write_files(out, seconds, rate_hz, seed)
        guard = Guardrails.load(out / "arm.guard.toml")
        lattice = [{"name": c.name, "lo": c.lo, "hi": c.hi, "w": c.w, "h": c.h} for c in guard.lattice]
        (out / "lattice.json").write_text(json.dumps({"channels": lattice}))
        plant_socket = scratch / "plant.sock"
        command = [sys.executable, "-m", "kizzasi_edge.demo.plant", "--socket", str(plant_socket)]
        command += ["--trace", str(out / "plant.npz"), "--lattice", str(out / "lattice.json"), "--seed", str(seed)]
        command += ["--initial=" + ",".join(map(str, HOME)), "--trace-rows", str(int((seconds + 60) * rate_hz))]
        one.plant = subprocess.Popen(command, stderr=(out / "plant.log").open("wb"))
        stack.callback(_end, one.plant)
        deadline = time.monotonic() + START_S
        while not plant_socket.exists():
            if one.plant.poll() is not None or time.monotonic() > deadline:
                raise ConnectorError(f"the plant did not start: {(out / 'plant.log').read_text().strip()}")
            time.sleep(0.02)
        one.board = stack.enter_context(
            PosixBoard(Schema.positions(JOINTS, scale=QUANTUM), plant=plant_socket, directory=scratch)
        )
        text = ROBOT_TOML.format(
            model=model, rate_hz=rate_hz, port=one.board.port, socket=one.socket, seconds=seconds + 60
        )
        (out / "robot.toml").write_text(text)
        stack.callback(one.kill_gateway)
        one.start_gateway()
        yield one


def _write_files(out: Path, seconds: float, rate_hz: float, seed: int) -> None:
    for name in ("arm.urdf", "arm.guard.toml"):
        shutil.copyfile(ASSETS / name, out / name)
    guard_file = out / "arm.guard.toml"
    guard_file.write_text(guard_file.read_text().replace("rate_hz = 500", f"rate_hz = {rate_hz:g}"))
    rng = np.random.default_rng([seed, 1])
    targets = random_targets(rng, 1, int((seconds + 60) * rate_hz), dt=1 / rate_hz)[0]
    changed = np.flatnonzero(np.any(np.diff(targets, axis=0, prepend=np.nan), axis=1))
    with (out / "targets.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["time_s", *(f"{name}/target_position" for name in JOINTS)])
        writer.writerows([[row / rate_hz, *targets[row]] for row in changed])


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()


def run_demo(
    *,
    seconds: float,
    rate_hz: float,
    adversary: str | None,
    out: Path,
    seed: int,
    console: Console,
    live: bool,
    model: Path | None = None,
) -> dict[str, Any]:
    """Run the demo and write ``report.html`` into ``out``; returns what ``--json`` writes (DESIGN §8).

    ``seconds`` armed; ``rate_hz`` must be the rate the model was trained at. Raises a :class:`KizzasiError` before
    anything moves when a part is missing.
    """
    _need_extras()
    model = (model or ASSETS / "arm.onnx").resolve()
    manifest = Bundle.open(model).manifest
    if manifest.sample_rate_hz != rate_hz:
        raise ConfigError(
            f"--rate: found {rate_hz:g}; {model.name} was trained at {manifest.sample_rate_hz:g} Hz (train one for "
            "another rate with `kizzasi-export train` and pass it as --model)"
        )
    title = f"demo arm, adversary: {adversary or 'none'}"
    with stage(out, seconds=seconds, rate_hz=rate_hz, adversary=adversary, seed=seed, model=model) as one:
        request(one.socket, "arm")
        end = time.monotonic() + seconds
        status = one.status()
        with Live(table(status, title), console=console, refresh_per_second=4) if live else ExitStack() as screen:
            while (left := end - time.monotonic()) > 0:
                time.sleep(min(0.25, left))
                status = one.status()
                if isinstance(screen, Live):
                    screen.update(table(status, title))
        status = one.status()
        one.stop_gateway()
        one.board.terminate()
        one.plant.wait(10)
    result, data = judge(out, status, adversary, model.name)
    write_report(out / "report.html", result, data, Guardrails.load(out / "arm.guard.toml").explain())
    _summarise(console, result, out)
    return result


def judge(
    out: Path, status: Mapping[str, Any], adversary: str | None, model: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The run's figures, and the arrays behind them, from the recordings in ``out``."""
    with np.load(out / "gateway.npz") as file:
        gateway = {name: file[name] for name in file.files}
    with np.load(out / "plant.npz") as file:
        plant = {name: file[name] for name in file.files}
    summary = json.loads((out / "plant.json").read_text())
    guard = Guardrails.load(out / "arm.guard.toml")
    armed = gateway["armed"]
    gateway = {name: column[armed] if len(column) == len(armed) else column for name, column in gateway.items()}
    if not len(gateway["t_us"]):
        raise ConnectorError(f"the arm was never armed; see {out / 'gateway.log'}")
    # The first armed session, as the device timed it; both clocks start from the same u32.
    plant_us = unwrap_us(plant["t_us"])
    gateway_us = plant_us[0] + (gateway["t_us"] - plant["t_us"][0]).astype(np.uint32).astype(np.int64)
    rows = (plant_us >= gateway_us[0]) & (plant_us <= gateway_us[-1])
    targets = targets_at(plant_us[rows], gateway_us, gateway["x"][:, len(JOINTS) :].astype(np.float64))
    start = plant["applied"][rows][0] * QUANTUM
    reference, expert_joint = expert_run(start, targets, guard)
    q = plant["q"][rows]
    step_us, tick_us = gateway["model_ns"] * 1e-3, gateway["tick_ns"] * 1e-3
    duration_s = (gateway["stamp_ns"][-1] - gateway["stamp_ns"][0]) * 1e-9
    counters: Mapping[str, int] = status["device"]["counters"]
    seen = summary["violations"]
    result = {
        "model": model,
        "adversary": adversary,
        "ticks": len(gateway["t_us"]),
        "rate_hz": (len(gateway["t_us"]) - 1) / duration_s if duration_s else 0.0,
        "overruns": status["overruns"],
        "step_us": _percentiles(step_us),
        "tick_us": _percentiles(tick_us),
        "rmse_policy": rmse(q, reference),
        "rmse_expert": rmse(expert_joint, reference),
        "interventions": status["interventions"],
        "violations": {key: seen[key] for key in ("position", "velocity", "acceleration")},
        "sent_violations": {key.removeprefix("commanded_"): seen[key] for key in ("commanded_range", "commanded_step")},
        "margins": {"position": guard.spec.joints.margin, "velocity_scale": guard.spec.joints.velocity_scale},
        "plant": {key: summary[key] for key in ("physics_steps", "periods_compared", "tick_us")},
        "node": status["device"]["node"],
        "link": dict(counters),
    }
    raw = raw_limits(out / "arm.urdf", JOINTS)
    data = {
        "joints": JOINTS,
        "plant_s": (plant_us[rows] - gateway_us[0]) * 1e-6,
        "q": q,
        "qvel": plant["qvel"][rows],
        "targets": targets,
        "reference": reference,
        "raw_lower": raw[0],
        "raw_upper": raw[1],
        "raw_velocity": raw[2],
        "gateway_s": (gateway["stamp_ns"] - gateway["stamp_ns"][0]) * 1e-9,
        "proposal": gateway["proposal"],
        "sent": gateway["sent"],
        "change": np.abs(gateway["proposal"] - gateway["sent"]) * (gateway["rules"] != 0),
        "rules": gateway["rules"],
        "step_us": step_us,
        "tick_us": tick_us,
        "late_us": gateway["late_ns"] * 1e-3,
    }
    return result, data


def _percentiles(values: npt.NDArray[np.float64]) -> dict[str, float]:
    p50, p99 = np.percentile(values, (50, 99))
    return {"p50": float(p50), "p99": float(p99), "max": float(values.max())}


def _need_extras() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("mujoco", "matplotlib", "serial") if find_spec(name) is None]
    if missing:
        raise MissingExtra(f"demo arm needs {', '.join(missing)}: pip install 'kizzasi-edge[sim]'")


def _summarise(console: Console, result: Mapping[str, Any], out: Path) -> None:
    violations = {**result["violations"], **result["sent_violations"]}
    clean = not any(violations.values())
    console.print(
        f"{result['ticks']} ticks at {result['rate_hz']:.1f} Hz, model step p50 {result['step_us']['p50']:.0f} µs, "
        f"tick {result['tick_us']['p50']:.0f} / p99 {result['tick_us']['p99']:.0f} µs, overruns {result['overruns']}"
    )
    console.print(
        f"tracking RMSE {1e3 * result['rmse_policy']:.1f} mrad (expert {1e3 * result['rmse_expert']:.1f}); guard: "
        + (", ".join(f"{rule} {count}" for rule, count in result["interventions"].items()) or "no intervention")
    )
    console.print(
        "0 limit violations in the plant and on sent values" if clean else f"LIMIT VIOLATIONS: {violations}",
        style="bold green" if clean else "bold red",
    )
    console.print(f"report: {os.path.relpath(out / 'report.html')}")
