"""The connector "zenoh": what `check` says, values in, setpoints out, and what is imported for it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kizzasi_edge.align import Align, Input
from kizzasi_edge.connectors import connector_class
from kizzasi_edge.errors import ConfigError, ConnectorError, MissingExtra
from kizzasi_edge.frames import Command
from kizzasi_edge.guardrails import Guardrails
from kizzasi_edge.toml_file import validate

pytest.importorskip("zenoh", reason="the extra zenoh is not installed")
pytest.importorskip("xxhash", reason="the extra zenoh is not installed")

from robots import GUARD
from setpoint_model import write_policy
from zenohrig import ARRAY, JOINT_STATE, Peer, array_of, connecting, free, joint_state, listening, opened, until

from kizzasi_edge.cli import main
from kizzasi_edge.ros2.qos import PRESETS
from kizzasi_edge.ros2.zenoh import Zenoh
from kizzasi_edge.ros2.zenoh_domain import ZenohDomain
from kizzasi_edge.ros2.zenoh_graph import look

CHANNELS = {"a/position": "/joint_states:position[a]", "b/position": "/joint_states:position[b]"}
DEFAULT, SENSOR = PRESETS["default"], PRESETS["sensor_data"]


def connector(domain: ZenohDomain, *, writes: bool = False, **options: Any) -> Any:
    made = connector_class("zenoh", "robot.toml: [[input]] 1", writes=writes)
    where = {"domain": domain.id, "connect": list(domain.connect or ()), "listen": list(domain.listen or ())}
    return made(validate({**where, **options}, made.Options, "robot.toml: [[input]] 1", ConfigError), Path())


def source(domain: ZenohDomain, **options: Any) -> Any:
    return connector(domain, **{"topic": "/joint_states", "type": JOINT_STATE.name, "channels": CHANNELS, **options})


@contextmanager
def robot(**settings: Any) -> Iterator[Zenoh]:
    """Another process's node, as far as Zenoh is concerned."""
    with opened(listening(node="robot", **settings)) as transport:
        yield transport


def test_values_come_in_and_a_dead_publisher_makes_them_stale() -> None:
    domain = listening()
    reading = source(domain)
    reading.open()
    align = Align(list(CHANNELS), [Input("joints", reading, {}, 100_000_000)])
    assert align.read(time.monotonic_ns(), 1) is None
    with Peer.beside("write", domain) as peer:
        until(lambda: reading.counters["publishers"])
        peer.send(joint_state(["b", "a"], [2, 1]))
        assert until(reading.read).values.tolist() == [1, 2]
        peer.send(b"no message")
        until(lambda: reading.counters["refused"])
        peer.send(joint_state(["a", "b"], [3, 4]), first=10, count=100_000, rate_hz=200)
        until(lambda: align.read(time.monotonic_ns(), 1) and reading.read().values.tolist() == [3, 4])
        assert {key: reading.counters[key] for key in ("lost", "malformed", "publishers", "connected")} == {
            "lost": 7, "malformed": 0, "publishers": 1, "connected": 1,
        }  # fmt: skip
        peer.kill()
        until(lambda: align.read(time.monotonic_ns(), 1) is None)
        until(lambda: reading.counters["publishers"] == 0 and reading.counters["disconnected"] == 1)
    reading.close()
    reading.close()


def test_nothing_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kizzasi_edge.ros2.zenoh_graph.LOOK_S", 0.3)
    with robot() as there:
        there.advertise("/states", JOINT_STATE, DEFAULT)
        with pytest.raises(ConnectorError) as error:
            source(connecting(there.domain), channels={}, wait_s=0.1).open()
    for text in ("nothing to read within 0.1 s", "nobody publishes it", "published on /states"):
        assert text in str(error.value)


def test_setpoints_arrive(tmp_path: Path) -> None:
    """Armed, commanded, at rest: at a controller that has nothing of ours."""
    (tmp_path / "g.guard.toml").write_text(GUARD)
    guard = Guardrails.load(tmp_path / "g.guard.toml")
    domain = listening()
    out = connector(domain, writes=True, topic="/commands", type=ARRAY.name, joints=["lift", "pan"], ttl_ms=5000)
    out.open()
    out.prepare(guard, 200)
    with Peer.beside("read", domain) as controller:
        until(lambda: out.counters["subscribers"] == 1)
        out.place(np.array([0.25, -0.125], np.float32))
        out.arm()
        assert out.counters["sent"] == 0
        wanted = np.array([0.3, -0.125], np.float32)

        def sent() -> int:
            out.write(Command(time.monotonic_ns(), 1, guard.output_names, wanted, np.ones(2, np.bool_)))
            out.wait(5.0)
            return int(out.counters["sent"])

        until(lambda: sent() >= 100)
        out.disarm()
        until(lambda: out.motion() is None)
        said = [controller.said() for _ in range(out.counters["sent"])]
    rows = [array_of(bytes.fromhex(one["payload"])) for one in said]
    numbers = [int.from_bytes(bytes.fromhex(one["attachment"])[:8], "little") for one in said]
    assert numbers == list(range(1, len(rows) + 1))
    assert rows[0][0] == -0.125
    assert rows[0][1] < 0.27
    assert max(pan for _, pan in rows) > 0.29
    until(lambda: out.status["counters"]["disconnected"] == 1)
    out.close()


def test_an_input_and_an_output_are_one_node() -> None:
    domain = listening()
    reading = source(domain)
    out = connector(domain, writes=True, topic="/commands", type=ARRAY.name, joints=["a"])
    reading.open()
    out.open()
    assert reading._transport is out._transport
    reading.close()
    assert not out._transport.session.is_closed()
    out.close()


@pytest.fixture
def quick_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kizzasi_edge.ros2.zenoh_graph.LOOK_S", 0.3)


@pytest.mark.usefixtures("quick_look")
def test_a_look_at_the_graph() -> None:
    with robot(namespace="/arm") as there:
        there.advertise("states", JOINT_STATE, SENSOR)
        there.subscribe("commands", ARRAY, DEFAULT, lambda *_: None)
        here = connecting(there.domain)
        assert look(here, "/arm/states", JOINT_STATE, SENSOR, writes=False) == []
        assert look(here, "/arm/commands", ARRAY, DEFAULT, writes=True) == []
        ((is_error, text),) = look(here, "/arm/states", JOINT_STATE, DEFAULT, writes=False)
        assert not is_error
        assert "the publisher of /arm/robot is heard all the same" in text
        assert "offers best_effort" in text
        (one, (_, seen)) = look(here, "/arm/states", ARRAY, SENSOR, writes=False)
        assert one[0]
        assert f"type: found {JOINT_STATE.name}; expected {ARRAY.name}" in one[1]
        assert "1 other participant(s), nodes /arm/robot, topics /arm/commands (std_msgs/msg/Float64MultiArray)" in seen
        (one, _) = look(here, "/arm/states", replace(JOINT_STATE, hash="RIHS01_00"), SENSOR, writes=False)
        assert one[0]
        assert f"type hash: found {JOINT_STATE.hash}, another version" in one[1]
        (one, _) = look(replace(here, distro="humble"), "/arm/states", JOINT_STATE, SENSOR, writes=False)
        assert one[0]
        assert "expected TypeHashNotSupported" in one[1]
        (one, _) = look(here, "states", JOINT_STATE, SENSOR, writes=False)
        assert not one[0]
        assert "sensor_msgs/msg/JointState is published on /arm/states" in one[1]
        found = look(replace(here, id=8), "/arm/states", JOINT_STATE, SENSOR, writes=False)
        assert not any(is_error for is_error, _ in found)
        assert "no other process is seen at all in domain 8" in found[0][1]
        assert "ROS_DOMAIN_ID" in found[0][1]
        assert found[-1][1] == "/arm/states is published in domain 7"


@pytest.mark.usefixtures("quick_look")
def test_a_router_that_does_not_answer_is_an_error() -> None:
    at = free()
    for mode in ("peer", "client"):
        ((is_error, text),) = look(connecting(at, mode=mode), "t", JOINT_STATE, SENSOR, writes=False)
        assert is_error
        assert at in text
    ((is_error, text), _) = look(listening(), "t", JOINT_STATE, SENSOR, writes=False)
    assert not is_error  # we wait for others, and nobody has come yet
    assert "no other process is seen at all" in text


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
connector = "zenoh"
topic = "/joint_states"
type = "sensor_msgs/msg/JointState"
domain = {domain.id}
connect = {connect}
listen = []
stale_ms = 100
[input.channels]
{channels}
"""


@pytest.mark.usefixtures("quick_look")
def test_check(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    write_policy(tmp_path / "m.onnx", ["pan", "lift"], 200)
    (tmp_path / "g.guard.toml").write_text(GUARD)
    names = ["pan/position", "lift/position", "pan/target_position", "lift/target_position"]
    channels = "\n".join(f'"{name}" = "/joint_states:position[{name[:4]}]"' for name in names)

    def check(domain: ZenohDomain) -> dict[str, Any]:
        text = ROBOT.format(domain=domain, connect=json.dumps(domain.connect), channels=channels)
        (tmp_path / "robot.toml").write_text(text)
        arguments = ["kizzasi-edge", "check", str(tmp_path / "robot.toml"), "--json", str(tmp_path / "out.json")]
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit):
            main()
        capsys.readouterr()
        found: dict[str, Any] = json.loads((tmp_path / "out.json").read_text())
        return found

    with robot() as there:
        there.advertise("/joint_states", JOINT_STATE, DEFAULT)
        well = check(connecting(there.domain))
        assert (well["ok"], well["errors"], well["warnings"]) == (True, [], [])
    badly = check(connecting(there.domain))
    assert not badly["ok"]
    (error,) = badly["errors"]
    assert re.search(r"\[\[input\]\] 1 /joint_states: nobody answers in domain 7, Zenoh", error)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    reading = source(listening())
    for module in ("zenoh", "zenoh_session", "zenoh_graph"):
        monkeypatch.delitem(sys.modules, f"kizzasi_edge.ros2.{module}", raising=False)
    monkeypatch.setitem(sys.modules, "zenoh", None)
    for use in (reading.open, lambda: reading.findings(200, 2)):
        with pytest.raises(MissingExtra, match=r"pip install 'kizzasi-edge\[zenoh\]'"):
            use()


def test_others_do_not_import_it() -> None:
    """The package, a connector of another kind, and even this one until it is opened."""
    script = (
        "import sys, kizzasi_edge\nfrom pathlib import Path\nfrom kizzasi_edge.connectors import connector_class\n"
        "for name in ('dds', 'zenoh'):\n"
        "    made = connector_class(name, 'x')\n"
        "    options = made.Options(topic='/t', type='sensor_msgs/msg/JointState', channels={})\n"
        "    made(options, Path())\n"
        "print(*[name for name in ('zenoh', 'xxhash', 'cyclonedds') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []
