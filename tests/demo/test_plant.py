"""The simulated arm: one robot in two files, brakes hold, the witness counts, the process answers in time."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import mujoco
import numpy as np
import pytest

from kizzasi_edge.demo.expert import HOME, JOINTS, RATE_HZ, Expert
from kizzasi_edge.demo.physics import ASSETS, ENCODER_STEP, QUANTUM, ArmPhysics
from kizzasi_edge.demo.plant import REQUEST, Plant
from kizzasi_edge.demo.witness import Lattice, LimitWitness, Trace, raw_limits
from kizzasi_edge.errors import ConfigError, WireError

N = 6
DH = [(0.0, 0.1625, math.pi / 2), (-0.425, 0.0, 0.0), (-0.3922, 0.0, 0.0), (0.0, 0.1333, math.pi / 2),
      (0.0, 0.0997, -math.pi / 2), (0.0, 0.0996, 0.0)]  # a, d, alpha as published for the UR5e  # fmt: skip


def _dh_chain(q: np.ndarray) -> np.ndarray:
    """Flange position from the published Denavit-Hartenberg table."""
    pose = np.eye(4)
    for angle, (a, d, alpha) in zip(q, DH, strict=True):
        c, s, ca, sa = math.cos(angle), math.sin(angle), math.cos(alpha), math.sin(alpha)
        pose = pose @ np.array([[c, -s * ca, s * sa, a * c], [s, c * ca, -c * sa, a * s], [0, sa, ca, d], [0, 0, 0, 1]])
    return pose[:3, 3]


def test_urdf_and_mjcf_are_one_robot() -> None:
    urdf = mujoco.MjModel.from_xml_path(str(ASSETS / "arm.urdf"))
    mjcf = mujoco.MjModel.from_xml_path(str(ASSETS / "arm.xml"))
    assert [urdf.joint(i).name for i in range(N)] == [mjcf.joint(i).name for i in range(N)] == list(JOINTS)
    assert np.array_equal(urdf.jnt_range, mjcf.jnt_range)
    assert np.array_equal(urdf.jnt_actfrcrange, mjcf.actuator_forcerange)
    assert np.allclose(urdf.body_mass, mjcf.body_mass)
    for body in range(1, urdf.nbody):
        assert np.allclose(urdf.body_ipos[body], mjcf.body_ipos[body])
        assert np.allclose(sorted(urdf.body_inertia[body]), sorted(mjcf.body_inertia[body]), rtol=1e-6)
    one, other = mujoco.MjData(urdf), mujoco.MjData(mjcf)
    rng = np.random.default_rng(1)
    for _ in range(100):
        q = rng.uniform(-np.pi, np.pi, N)
        one.qpos[:] = q
        other.qpos[:] = q
        mujoco.mj_kinematics(urdf, one)
        mujoco.mj_kinematics(mjcf, other)
        for body in range(1, urdf.nbody):
            name = urdf.body(body).name
            assert np.abs(one.body(name).xpos - other.body(name).xpos).max() <= 1e-9
            assert np.abs(one.body(name).xmat - other.body(name).xmat).max() <= 1e-9


def test_kinematics_are_the_published_ones() -> None:
    mjcf = mujoco.MjModel.from_xml_path(str(ASSETS / "arm.xml"))
    data = mujoco.MjData(mjcf)
    flange = mjcf.body("wrist_3_link").id
    rng = np.random.default_rng(2)
    for _ in range(20):
        q = rng.uniform(-np.pi, np.pi, N)
        data.qpos[:] = q
        mujoco.mj_kinematics(mjcf, data)
        assert np.abs(data.xpos[flange] - _dh_chain(q)).max() <= 1e-9


def test_published_limits() -> None:
    low, high, speed = raw_limits(ASSETS / "arm.urdf", JOINTS)
    reach = np.array([2, 2, 1, 2, 2, 2]) * np.pi
    assert np.array_equal(high, reach)
    assert np.array_equal(low, -reach)
    assert np.array_equal(speed, np.full(N, np.pi))
    root = ET.parse(ASSETS / "arm.urdf").getroot()
    assert [float(e.attrib["effort"]) for e in root.iter("limit")] == [150, 150, 150, 28, 28, 28]


def test_missing_limits_are_named(tmp_path: Path) -> None:
    bare = tmp_path / "bare.urdf"
    bare.write_text('<robot name="r"><joint name="a"><limit lower="0" upper="1"/></joint></robot>')
    with pytest.raises(ConfigError, match=r"joint a.*velocity"):
        raw_limits(bare, ("a",))
    with pytest.raises(ConfigError, match=r"joint b.*no <limit>"):
        raw_limits(bare, ("b",))
    with pytest.raises(ConfigError, match="nowhere"):
        raw_limits(tmp_path / "nowhere.urdf", ("a",))


def _arm(noise: float = 0.0) -> ArmPhysics:
    arm = ArmPhysics(ASSETS / "arm.xml", noise=noise, seed=3)
    arm.reset(HOME)
    return arm


def test_servos_are_well_damped_and_fast() -> None:
    for joint in range(N):
        arm = _arm()
        goal = HOME.copy()
        goal[joint] += 0.05
        path = []
        for _ in range(400):
            arm.step(goal, 1000, True)
            path.append(arm.q[joint] - HOME[joint])
        rise = np.argmax(np.array(path) > 0.9 * 0.05)
        assert 0.05 < rise * 1e-3 < 0.25  # critically damped at 35 rad/s: 0.11 s
        assert max(path) < 0.05 * 1.05
        assert abs(path[-1] - 0.05) < 1e-4


def test_gravity_is_compensated() -> None:
    arm = _arm()
    for _ in range(1000):
        arm.step(HOME, 1000, True)
    assert np.abs(arm.q - HOME).max() < 1e-6


def test_power_off_brakes_stop_and_hold() -> None:
    arm = _arm()
    for k in range(300):
        arm.step(HOME + 2.0 * k * 1e-3, 1000, True)
    assert np.abs(arm.qvel).min() > 1.5
    at = arm.q.copy()
    for _ in range(100):
        arm.step(HOME, 1000, False)
    assert np.abs(arm.qvel).max() < 1e-2
    assert 0 < np.abs(arm.q - at).max() < 0.1  # it needed some way to stop
    held = arm.q.copy()
    for _ in range(2000):
        arm.step(HOME, 1000, False)
    assert np.abs(arm.q - held).max() < 2e-3  # and the servos, off, do not pull


def test_encoders_are_noisy_and_quantised() -> None:
    arm = _arm(noise=1e-3)
    read = np.array([arm.measure() for _ in range(3000)]) * QUANTUM - HOME
    assert np.allclose(read.std(0), 1e-3, rtol=0.1)
    assert np.abs(read.mean(0)).max() < 1e-4
    still = _arm().measure() * QUANTUM
    assert np.abs(still - HOME).max() <= ENCODER_STEP / 2 + QUANTUM


def test_step_time_does_not_depend_on_the_tick() -> None:
    fine, coarse = _arm(), _arm()
    for _ in range(200):
        fine.step(HOME + 0.1, 500, True)
    for _ in range(10):
        coarse.step(HOME + 0.1, 10_000, True)
    assert np.abs(fine.q - coarse.q).max() < 2e-3


def test_a_model_without_servos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"arm\.urdf"):
        ArmPhysics(ASSETS / "arm.urdf", noise=0.0, seed=0)
    with pytest.raises(ConfigError, match=r"missing\.xml"):
        ArmPhysics(tmp_path / "missing.xml", noise=0.0, seed=0)


# --- the witness ---


def _lattice() -> Lattice:
    wide = np.full(N, 10_000, np.int64)
    return Lattice(lo=-wide, hi=wide, w=np.full(N, 100, np.int64), h=np.full(N, 10, np.int64))


def _feed(path: list[int]) -> LimitWitness:
    witness = LimitWitness(raw_limits(ASSETS / "arm.urdf", JOINTS), _lattice())
    for value in path:
        witness.see_setpoint(np.full(N, value, np.int32), True)
    return witness


def test_witness_passes_what_touches_the_limits() -> None:
    path, step = [0], 0
    for change in [10] * 10 + [0] * 3 + [-10] * 20 + [10] * 10:
        step += change
        path.append(path[-1] + step)
    seen = _feed(path)
    assert seen.acceleration.sum() == seen.step.sum() == seen.range.sum() == 0


def test_witness_counts_each_kind_exactly() -> None:
    assert _feed([0, 11]).acceleration.tolist() == [1] * N  # from rest: the first step is a change too
    assert _feed([0, 10, 31]).acceleration.tolist() == [1] * N
    assert _feed([0, 10, 30, 60]).acceleration.sum() == 0
    assert _feed([10_000, 10_001]).range.tolist() == [1] * N
    ramp = np.cumsum(np.cumsum([0] + [10] * 11)).tolist()
    assert _feed(ramp).step.tolist() == [1] * N  # the 11th step is 110 > 100


def test_disabled_outputs_break_the_chain() -> None:
    witness = LimitWitness(raw_limits(ASSETS / "arm.urdf", JOINTS), _lattice())
    witness.see_setpoint(np.zeros(N, np.int32), True)
    witness.see_setpoint(np.full(N, 5000, np.int32), False)
    witness.see_setpoint(np.full(N, 5000, np.int32), True)
    witness.see_setpoint(np.full(N, 5005, np.int32), True)
    assert witness.acceleration.sum() == 0


def test_witness_counts_true_motion() -> None:
    witness = LimitWitness(raw_limits(ASSETS / "arm.urdf", JOINTS), None)
    q, qvel = np.zeros(N), np.zeros(N)
    witness.see_motion(q, qvel)
    q[2] = np.pi + 1e-6
    qvel[4] = -np.pi * 1.0001
    witness.see_motion(q, qvel)
    assert witness.position.tolist() == [0, 0, 1, 0, 0, 0]
    assert witness.velocity.tolist() == [0, 0, 0, 0, 1, 0]
    report = witness.summary(JOINTS)
    assert report["violations"]["position"] == report["violations"]["velocity"] == 1
    assert report["speed_max"]["wrist_2_joint"] == pytest.approx(np.pi * 1.0001)


def test_lattice_file_is_checked(tmp_path: Path) -> None:
    good = tmp_path / "lattice.json"
    channels = [{"name": name, "lo": -i, "hi": i, "w": 5, "h": 2} for i, name in enumerate(JOINTS)]
    good.write_text(json.dumps({"channels": channels[::-1]}))
    assert Lattice.load(good, JOINTS).hi.tolist() == [0, 1, 2, 3, 4, 5]  # by name, not by order
    good.write_text(json.dumps({"channels": channels[1:]}))
    with pytest.raises(ConfigError, match="shoulder_pan_joint"):
        Lattice.load(good, JOINTS)


def test_full_trace_counts_what_it_drops(tmp_path: Path) -> None:
    trace = Trace(N, 2)
    zeros, raw = np.zeros(N), np.zeros(N, np.int32)
    for k in range(5):
        trace.add(t_us=k, state=2, enabled=True, q=zeros, qvel=zeros, out=raw, applied=raw, measured=raw)
    assert (trace.rows, trace.dropped) == (2, 3)
    trace.save(tmp_path / "t.npz", joints=JOINTS, quantum=QUANTUM)
    with np.load(tmp_path / "t.npz") as saved:
        assert saved["t_us"].tolist() == [0, 1]
        assert tuple(saved["joints"]) == JOINTS


# --- the process ---


def _request(t_us: int, out: np.ndarray, *, boundary: bool, enabled: bool = True) -> bytes:
    raw = np.rint(out / QUANTUM).astype("<i4").tobytes()
    return REQUEST.pack(t_us, 1000, enabled, 2, boundary, N, 7) + raw + raw


def test_request_for_another_robot_is_refused() -> None:
    plant = Plant(_arm(), LimitWitness(raw_limits(ASSETS / "arm.urdf", JOINTS), None), Trace(N, 1))
    with pytest.raises(WireError, match="found 3 channels, expected 6"):
        plant.tick(REQUEST.pack(0, 1000, 1, 2, 0, 3, 0) + bytes(8 * N))


class _Process:
    def __init__(self, folder: Path, *arguments: str) -> None:
        self.socket, self.trace = folder / "s", folder / "trace.npz"
        environment = dict(os.environ, OMP_NUM_THREADS="1")
        command = [sys.executable, "-m", "kizzasi_edge.demo.plant", "--socket", str(self.socket)]
        self.process = subprocess.Popen(
            [*command, "--trace", str(self.trace), "--initial", ",".join(map(str, HOME)), *arguments],
            env=environment,
            stderr=subprocess.PIPE,
        )
        self.board = socket.socket(socket.AF_UNIX)
        self.board.settimeout(5.0)
        deadline = time.monotonic() + 20
        while True:
            try:
                self.board.connect(str(self.socket))
                return
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise
                time.sleep(0.02)

    def exchange(self, request: bytes) -> np.ndarray:
        self.board.sendall(request)
        answer = b""
        while len(answer) < 4 + 4 * N:
            answer += self.board.recv(64)
        flags, m, zero = struct.unpack_from("<BBH", answer)
        assert (flags, m, zero) == (0, N, 0)
        return np.frombuffer(answer, "<i4", N, 4) * QUANTUM

    def finish(self) -> dict:
        self.board.close()
        try:
            assert self.process.wait(10) == 0
        finally:
            self.process.kill()
            assert self.process.stderr is not None
            self.process.stderr.close()
        return json.loads(self.trace.with_suffix(".json").read_text())


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[_Process]:
    lattice = tmp_path / "lattice.json"
    step = 12.0 / RATE_HZ**2 / QUANTUM
    limits = {"lo": -(2**23), "hi": 2**23, "w": int(2.8 / RATE_HZ / QUANTUM), "h": int(step)}
    lattice.write_text(json.dumps({"channels": [{"name": name, **limits} for name in JOINTS]}))
    running = _Process(tmp_path, "--noise", "0.001", "--seed", "4", "--lattice", str(lattice))
    yield running
    running.process.kill()
    running.process.wait()


def test_process_follows_the_expert_without_a_violation(plant: _Process) -> None:
    law, q, velocity, target = Expert(), HOME.copy(), np.zeros(N), HOME + 0.6
    last = q
    for tick in range(3000):
        if tick % 2 == 0:
            last = q
            if tick > 0:  # as the node does: the first setpoint holds
                q, velocity = law.step(q, velocity, target, 1 / RATE_HZ)
            out = (last + q) / 2
        else:
            out = q
        raw = np.rint(np.array([out, q]) / QUANTUM).astype("<i4")
        request = REQUEST.pack(tick * 1000, 1000, 1, 2, tick % 2 == 0, N, 7) + raw.tobytes()
        measured = plant.exchange(request)
    assert np.abs(measured - target).max() < 0.02
    report = plant.finish()
    assert sum(report["violations"].values()) == 0
    assert report["ticks"] == report["physics_steps"] == 3000
    assert report["periods_compared"] == report["trace_rows"] == 1500
    # One arm must not be the demo's bottleneck; generous for a loaded test machine.
    assert report["tick_us"]["p50"] < 200
    with np.load(plant.trace) as saved:
        assert saved["q"].shape == saved["applied"].shape == (1500, N)
        assert np.abs(saved["q"][-1] - target).max() < 0.01
        assert not plant.socket.exists()


def test_process_sees_a_broken_promise(plant: _Process) -> None:
    plant.exchange(_request(0, HOME, boundary=True))
    for tick in range(1, 2000):
        plant.exchange(_request(tick * 1000, HOME + 2.0, boundary=tick % 2 == 0))
    report = plant.finish()
    assert report["violations"]["acceleration"] >= N
    assert report["violations"]["commanded_step"] >= N
    assert report["violations"]["velocity"] > 0
    assert report["violations_by_joint"]["position"]["elbow_joint"] > 0


def test_sigterm_keeps_the_trace(plant: _Process) -> None:
    for tick in range(10):
        plant.exchange(_request(tick * 1000, HOME, boundary=True))
    plant.process.send_signal(signal.SIGTERM)
    report = plant.finish()
    assert report["trace_rows"] == 10


def test_bad_arguments_are_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kizzasi_edge.demo.plant", "--socket", str(tmp_path / "s")]
    done = subprocess.run(
        [*command, "--trace", str(tmp_path / "t.npz"), "--initial", "1,2"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.strip() == "plant: --initial: found 2 values, expected 6"
