"""Everything a loop needs, in virtual time: the real guard and the firmware's own node, nothing between them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from kizzasi_bridge import protocol
from kizzasi_bridge.protocol import MsgType, NodeState
from kizzasi_bridge.schema import Schema
from kizzasi_bridge.virtual import VirtualNode
from kizzasi_edge.align import Align, Input
from kizzasi_edge.bundle import Bundle
from kizzasi_edge.frames import Command, Observation
from kizzasi_edge.guardrails import Guardrails
from kizzasi_edge.guardrails.core import CoreDrive
from kizzasi_edge.loop import Loop, Policy
from kizzasi_edge.predictor import Predictor
from kizzasi_edge.recorder import Recorder

JOINTS = ("lift", "pan")  # not the model's order
QUANTUM = 2.0**-21
# The model fails (1/0) when its first input is 10: let that be a target.
INPUTS = ("pan/target_position", "lift/target_position", "pan/position", "lift/position")

FloatArray = npt.NDArray[np.float32]
STEP = np.float32(0.001)


def guard_of(rules: Sequence[Mapping[str, Any]] = (), **changes: float) -> Guardrails:
    from kizzasi_edge.guardrails.spec import parse_spec

    joints = {"names": list(JOINTS), "position": [[-0.3, 0.3]] * 2, "velocity": 1.0, "acceleration": 12.0,
              "quantum": QUANTUM}  # fmt: skip
    guard = {"rate_hz": 500, "nan_ticks": 50, **changes}
    return Guardrails(parse_spec({"schema": 1, "guard": guard, "joints": joints, "constraint": list(rules)}, "t"), "t")


class Node:
    """Source and actuator: the node, with nothing between; `wait` lets one period pass."""

    names = tuple(f"{joint}/position" for joint in JOINTS)

    def __init__(self) -> None:
        self.node = VirtualNode(Schema.positions(JOINTS, scale=QUANTUM))
        self.session = 0
        self.stamp_ns = 0
        self.mute = False  # True: observations stay as old as they are
        self.applied: list[npt.NDArray[np.int32]] = []
        self.sent: list[Command] = []
        self.placed: list[FloatArray] = []
        self.idles = self.estops = self.arms = 0
        self.lost = False  # True: the cable is cut
        self._last: tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]] | None = None

    def open(self) -> None: ...

    def close(self) -> None: ...

    def prepare(self, guard: Guardrails, rate_hz: float) -> None:
        self.node.tick(2)
        self.node.send(MsgType.HELLO_REQ, b"\1\0")
        assert self.node.hello is not None
        cells = tuple(protocol.ChannelLimits(c.lo, c.hi, c.w, c.h) for c in guard.lattice)
        limits = protocol.Limits(cells, 2000, guard.miss_budget, 100, 500)
        for payload in limits.channel_payloads():
            assert self.node.request(MsgType.LIMITS, payload).result == 0
        self.hash = limits.hash(self.node.hello.schema_hash)
        assert self.node.request(MsgType.LIMITS_COMMIT, limits.commit_payload(self.node.hello.schema_hash)).result == 0
        self.node.tick(2)

    def place(self, position: FloatArray) -> None:
        self.placed.append(position.copy())

    def wait(self, timeout_s: float) -> int:
        self.node.tick(2)
        assert self.node.state is not None
        applied = np.array(self.node.state.values[:2], np.int32)
        step = applied - self._last[0] if self._last else np.zeros(2, np.int32)
        self._last = applied, step
        self.applied.append(applied)
        if not self.mute:
            self.stamp_ns = time.monotonic_ns()
            self.sample = self.node.state
        if self.node.state.state != NodeState.ARMED or self.lost:
            self.session = 0
        return 1

    def read(self) -> Observation | None:
        values = np.array(self.sample.values[2:], np.float64) * QUANTUM
        return Observation(
            self.stamp_ns, 0, self.names, values.astype(np.float32), np.ones(2, np.bool_), self.sample.sample_t_us
        )

    @property
    def counters(self) -> Mapping[str, int]:
        return {}

    def findings(self, rate_hz: float, joints: int) -> list[tuple[bool, str]]:
        return []

    def motion(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]] | None:
        return self._last

    @property
    def state(self) -> str:
        assert self.node.state is not None
        return "DISCONNECTED" if self.lost else NodeState(self.node.state.state).name

    def write(self, command: Command) -> None:
        # The loop reuses the values' buffer.
        self.sent.append(replace(command, values=command.values.copy()))
        raw = [round(float(value) / QUANTUM) for value in command.values]
        self.node.send(MsgType.COMMAND, protocol.Command(self.session, command.t_us, 100, raw).pack())

    def idle(self) -> None:
        self.idles += 1
        if self.lost:
            return
        self.node.send(MsgType.HEARTBEAT)

    def arm(self) -> None:
        self.arms += 1
        assert self.node.state is not None
        ack = self.node.request(MsgType.ARM, protocol.Arm(self.node.state.nonce, self.hash).pack())
        assert ack.result == 0
        self.session = ack.value

    def disarm(self) -> None:
        self.session = 0
        assert self.node.request(MsgType.DISARM).result == 0

    def estop(self) -> None:
        self.estops += 1
        self.node.send(MsgType.ESTOP)

    def clear(self) -> None:
        assert self.node.state is not None
        assert self.node.request(MsgType.CLEAR, protocol.Clear(self.node.state.nonce).pack()).result == 0

    @property
    def status(self) -> Mapping[str, object]:
        return {}


class Targets:
    """Targets that a test moves."""

    names: tuple[str, ...] = INPUTS[:2]

    def __init__(self) -> None:
        self.values = np.zeros(2, np.float32)

    def open(self) -> None: ...

    def close(self) -> None: ...

    def read(self) -> Observation | None:
        return Observation(time.monotonic_ns(), 0, self.names, self.values, np.ones(2, np.bool_))

    @property
    def counters(self) -> Mapping[str, int]:
        return {}

    def findings(self, rate_hz: float, joints: int) -> list[tuple[bool, str]]:
        return []


class Ramp:
    """A policy as it should be: from where the arm is, at rest after each reset, then ever faster to its target."""

    output_names: tuple[str, ...] = ("pan/position", "lift/position")

    def __init__(self) -> None:
        self.resets = 0
        self.broken: Any = None
        self.reset()

    def reset(self) -> None:
        self.resets += 1
        self._speed = np.float32(0)

    def propose(self, x: FloatArray) -> Any:
        if isinstance(self.broken, Exception):
            raise self.broken
        if self.broken is not None:
            return self.broken
        y = x[2:] + np.clip(x[:2] - x[2:], -self._speed, self._speed)
        self._speed = min(self._speed + STEP / 20, STEP)
        return y


def plant_bugs(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Calls of every guard's drive, built from now on, that raise as long as they are in the set returned."""
    bugs: set[str] = set()

    def buggy(name: str) -> Callable[..., Any]:
        call = getattr(CoreDrive, name)

        def maybe(drive: CoreDrive, *arguments: Any) -> Any:
            if name in bugs:
                raise MemoryError(name)
            return call(drive, *arguments)

        return maybe

    for name in ("follow", "coast", "brake"):
        monkeypatch.setattr(CoreDrive, name, buggy(name))
    return bugs


class Pace:
    """One tick for each period of the node."""

    overruns = 0

    def __init__(self, node: Node) -> None:
        self._node = node

    def wait(self) -> bool:
        return self._node.wait(1.0) > 0


class Rig:
    """Everything a loop needs, put together."""

    def __init__(
        self,
        model: Bundle | Policy,
        *,
        dry: bool = False,
        stale_ms: float | None = None,
        rules: Sequence[Mapping[str, Any]] = (),
        **guard: float,
    ) -> None:
        self.node, self.targets, self.guard = Node(), Targets(), guard_of(rules, **guard)
        self.policy: Any = Predictor(model) if isinstance(model, Bundle) else model
        self.node.prepare(self.guard, 500)
        stale = None if stale_ms is None else int(stale_ms * 1e6)
        inputs = [Input("arm", self.node, {}, stale), Input("targets", self.targets, {}, None)]
        self.recorder = Recorder(5000, 4, 2, 2)
        self.loop = Loop(
            self.policy, self.guard, Align(INPUTS, inputs), None if dry else self.node, Pace(self.node), self.recorder
        )
        self.stats = self.loop.stats

    def run(self, ticks: int) -> None:
        for _ in range(ticks):
            self.loop.tick()

    def check_promise(self) -> None:
        q = np.array(self.node.applied, np.int64)
        for i, cell in enumerate(self.guard.lattice):
            assert q[:, i].min() >= cell.lo
            assert q[:, i].max() <= cell.hi
            assert np.abs(np.diff(q[:, i])).max() <= cell.w
            assert np.abs(np.diff(q[:, i], 2)).max() <= cell.h
