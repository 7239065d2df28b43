"""The serial connector with devices of velocities and torques: the real board on a pty, from options to motion."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from devices import FINE, guard_of, schema_of, torque_guard, torque_schema
from robots import BOARD_JOINTS, GUARD, INPUTS, running, status, until, write_files
from robots import QUANTUM as QUANTUM_OF_BOARD

from kizzasi_bridge.board import PosixBoard
from kizzasi_bridge.schema import Channel, Schema, Sensor
from kizzasi_edge.bundle import write_bundle
from kizzasi_edge.config import load_config
from kizzasi_edge.connectors.serial import SerialDevice, SerialOptions
from kizzasi_edge.robot import Robot


def device_on(board: PosixBoard, **options: Any) -> SerialDevice:
    patient = {"ttl_ms": 2000, "arm_ttl_ms": 5000, **options}
    device = SerialDevice(SerialOptions(port=str(board.port), **patient), Path("/"))
    device.open()
    return device


def write(device: SerialDevice, values: np.ndarray) -> None:
    observation = device.read()
    assert observation is not None
    device.write(observation.command(tuple(map(str, range(len(values)))), values))


def test_velocities_over_the_wire() -> None:
    guard = guard_of("velocity")
    with PosixBoard(schema_of("velocity")) as board:
        device = device_on(board)
        try:
            device.prepare(guard, 500)
            device.arm()
            start = device.read()
            in_time, since_miss, before = 0, 0, device.link.latest
            for waits in count():
                if waits >= 100 and in_time >= 20:
                    break
                assert device.wait(5.0)
                state = device.link.latest
                # After a miss, a command may still be on its way that stands on what was before it.
                whole = state.count == before.count + 1 and state.misses == before.misses
                since_miss, before = since_miss + 1 if whole else 0, state
                if since_miss > 10 or before.misses == 0:
                    in_time += 1
                    assert state.clamp_mask == 0
                observation = device.read()
                assert observation is not None
                at = dict(zip(observation.names, observation.values.tolist(), strict=True))
                motion = device.motion()
                assert motion is not None
                guard.rebase(*motion)
                sent, _ = guard.step(
                    np.array([0.2, -0.3, 0.1]), position=np.array([at[f"{joint}/position"] for joint in guard.joints])
                )
                write(device, sent)
            end = device.read()
            assert start is not None
            assert end is not None
            moved = dict(zip(end.names, (end.values - start.values).tolist(), strict=True))
            assert device.state == "ARMED"
            assert np.sign([moved[f"{joint}/position"] for joint in guard.joints]).tolist() == [1, -1, 1]
        finally:
            device.close()


def test_torques_over_the_wire() -> None:
    torques = torque_guard()
    with PosixBoard(torque_schema(torques)) as board:
        device = device_on(board, damping={torques.joints[0]: 0.5})
        try:
            device.prepare(torques, 500)
            device.arm()
            raw = np.array([200, -100, 300, 0, 50, -60])
            sent = (raw * torques.quanta).astype(np.float32)
            applied = None
            for _ in range(2000):  # on a busy machine a period may pass without a command
                assert device.wait(5.0)
                motion = device.motion()
                assert motion is not None
                applied = motion[0].tolist()
                if applied == raw.tolist():
                    break
                write(device, sent)
            assert applied == raw.tolist()
        finally:
            device.close()


def test_a_safe_place_over_the_wire() -> None:
    guard = guard_of("position")
    with PosixBoard(schema_of("position")) as board:
        device = device_on(board, goto_safe={"pan": 0.01}, arm_ttl_ms=200)
        try:
            device.prepare(guard, 500)
            device.arm()  # and no COMMAND follows
            goal = round(0.01 / -FINE) + 12_345
            for _ in range(2000):
                device.wait(2.0)
                state = device.link.latest
                if state is not None and state.applied[1] == goal:
                    break
            assert state is not None
            assert device.state == "FAILSAFE"
            assert state.applied[1] == goal
        finally:
            device.close()


def test_a_robot_of_velocities(tmp_path: Path, build: Any, arm_core: bytes) -> None:
    """The gateway as a whole: a model whose outputs are velocities, and a device that takes them."""
    unit = QUANTUM_OF_BOARD * 200
    schema = Schema(
        "t",
        1000,
        tuple(Channel(f"{joint}/velocity", "rad", 0, QUANTUM_OF_BOARD, "velocity") for joint in BOARD_JOINTS),
        tuple(Sensor(f"{joint}/position", "rad", 0, QUANTUM_OF_BOARD, i) for i, joint in enumerate(BOARD_JOINTS)),
    )
    manifest = build.manifest_for(arm_core, INPUTS, ("pan/velocity", "lift/velocity"), sample_rate_hz=200.0)
    write_bundle(tmp_path / "m.onnx", arm_core, manifest)
    with PosixBoard(schema) as board:
        write_files(tmp_path, board.port)
        text = GUARD.replace("rate_hz = 200", 'rate_hz = 200\ncommand = "velocity"')
        (tmp_path / "g.guard.toml").write_text(text.replace(f"quantum = {QUANTUM_OF_BOARD}", f"quantum = {unit!r}"))
        robot = Robot(load_config(tmp_path / "robot.toml"))
        with running(robot, arm=True):
            until(lambda: status(tmp_path)["armed_ticks"] > 150)
            seen = status(tmp_path)
    assert seen["state"] == "ARMED"
    with np.load(tmp_path / "r.npz") as file:
        sent, armed = file["sent"].astype(np.float64) / unit, file["armed"]
    sent = sent[armed.astype(bool)]
    assert np.array_equal(sent, np.rint(sent))
    assert np.abs(sent).max() > 100, "it moves"
    cells = robot.guard.node
    assert (np.abs(sent).max(axis=0) <= [cell.w for cell in cells]).all()


@pytest.mark.parametrize("bad", [{"goto_safe": {"lift": "up"}}, {"damping": {"lift": -1.0}}])
def test_options_are_checked(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"goto_safe|damping"):
        SerialOptions(port="/dev/x", **bad)
