"""A ROS 2 topic as an output, over any transport: the commands that a robot's controllers take."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, StrictInt, StrictStr

from kizzasi_edge.connectors.host_node import HostNode
from kizzasi_edge.errors import ConfigError
from kizzasi_edge.frames import Command
from kizzasi_edge.joints import SUFFIX
from kizzasi_edge.ros2.codec import Encoder
from kizzasi_edge.ros2.commands import command_encoder, interfaces
from kizzasi_edge.ros2.messages import Messages
from kizzasi_edge.ros2.qos import QosSection
from kizzasi_edge.ros2.topics import TopicOptions, topic_channels
from kizzasi_edge.ros2.transport import Access, Publication, Transport
from kizzasi_edge.toml_file import Number

if TYPE_CHECKING:
    from kizzasi_edge.guardrails import Guardrails

TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"


class TopicCommandsOptions(TopicOptions):
    """A topic, and ``joints``: the guard's joints in the order of the controller's own list (of
    forward_command_controller that order is all there is); ``command_interface``: what the controller takes, refused
    where the guard commands anything else; ``reach_s``: a JointTrajectory's time_from_start; ``ttl_ms``,
    ``arm_ttl_ms`` and ``damping`` as of a serial device."""

    joints: Annotated[list[StrictStr], Field(min_length=1)]
    command_interface: Literal["position", "velocity", "effort"] | None = None
    reach_s: Annotated[Number, Field(ge=0, le=60)] = 0.0
    qos: QosSection = QosSection(depth=1)
    ttl_ms: Annotated[StrictInt, Field(ge=1, le=60_000)] = 100
    arm_ttl_ms: Annotated[StrictInt, Field(ge=1, le=60_000)] = 1000
    damping: Mapping[StrictStr, Annotated[Number, Field(ge=0)]] = {}


class TopicCommands:
    """An :class:`~kizzasi_edge.connectors.base.Actuator` of one topic: nothing is published before a session's first
    command, nor after its brake has come to rest. ``commands``: what the options leave; the guard's is what is sent."""

    def __init__(self, options: TopicCommandsOptions, base: Path, access: Access) -> None:
        self.options, self.access = options, access
        self.kind = Messages([base / path for path in options.definitions], access.types).type(options.type)
        self._channels = topic_channels(options.channels, options.topic)
        taken = interfaces(self.kind, options.topic, self._channels, options.command_interface)
        self.commands = tuple(command for command, suffix in SUFFIX.items() if suffix[1:] in taken)
        self._encoder = self._encoder_of(self.commands[0])  # refused now rather than in prepare()
        self._transport: Transport | None = None
        self._publication: Publication | None = None
        self._node: HostNode | None = None

    def open(self) -> None:
        if self._transport is None:
            self._transport = self.access.join()
            self._publication = self._transport.advertise(self.options.topic, self.kind, self.options.qos.profile)

    def close(self) -> None:
        if self._node is not None:
            self._node.close()
            self._node = None
        if self._transport is not None:
            if self._publication is not None:
                self._publication.close()
            self.access.leave(self._transport)
            self._transport = self._publication = None

    def prepare(self, guard: Guardrails, rate_hz: float) -> None:
        """Check the joints, and start the node that keeps this guard's limits."""
        if sorted(self.options.joints) != sorted(guard.joints):
            raise ConfigError(
                f"{self.options.topic}: joints: found {self.options.joints}; the guard {guard.where} guards "
                f"{list(guard.joints)}"
            )
        if guard.command not in self.commands:
            raise ConfigError(
                f"{self.options.topic}: takes {' or '.join(self.commands)}; the guard {guard.where} commands "
                f"{guard.command} ([guard] command)"
            )
        self._encoder = self._encoder_of(guard.command)
        self._order = np.array([guard.joints.index(joint) for joint in self.options.joints])
        self._node = HostNode(
            guard,
            rate_hz,
            self._send,
            ttl_s=self.options.ttl_ms * 1e-3,
            arm_ttl_s=self.options.arm_ttl_ms * 1e-3,
            damping=self.options.damping,
            where=self.options.topic,
        )

    def findings(self, rate_hz: float, joints: int) -> list[tuple[bool, str]]:
        """Whether the topic's subscriptions and this publication match."""
        return self.access.look(self.options.topic, self.kind, self.options.qos.profile, writes=True)

    def place(self, position: npt.NDArray[np.float32]) -> None:
        self._prepared.place(position)

    def wait(self, timeout_s: float) -> int:
        return self._prepared.wait(timeout_s)

    def motion(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]] | None:
        return self._prepared.motion()

    @property
    def session(self) -> int:
        return 0 if self._node is None else self._node.session

    @property
    def state(self) -> str:
        return "INIT" if self._node is None else self._node.state

    def write(self, command: Command) -> None:
        self._prepared.write(command)

    def idle(self) -> None:
        """Nothing: a robot that listens to a topic needs no sign of life."""

    def arm(self) -> None:
        self._prepared.arm()

    def disarm(self) -> None:
        self._prepared.disarm()

    def estop(self) -> None:
        self._prepared.estop()

    def clear(self) -> None:
        self._prepared.clear()

    @property
    def status(self) -> Mapping[str, object]:
        node = {} if self._node is None else self._node.status
        return {"topic": self.options.topic, **node, "counters": self.counters}

    @property
    def counters(self) -> Mapping[str, int]:
        return {} if self._publication is None else self._publication.counters

    @property
    def _prepared(self) -> HostNode:
        if self._node is None:
            raise ConfigError(f"{self.options.topic}: no guard was prepared for this output")
        return self._node

    def _encoder_of(self, command: str) -> Encoder:
        options = self.options
        names = [options.rename.get(joint, joint) for joint in options.joints]
        if len(set(names)) < len(names):
            raise ConfigError(f"{options.topic}: rename: joints {options.joints} would share names: {names}")
        return command_encoder(
            self.kind,
            options.topic,
            names,
            interface=SUFFIX[command][1:],
            channels=self._channels,
            reach_s=options.reach_s,
        )

    def _send(self, values: npt.NDArray[np.float32]) -> None:
        # A trajectory with stamp 0 begins when it arrives; with any other it begins then, on the robot's own clock.
        stamp_ns = 0 if self.kind.name == TRAJECTORY else time.time_ns()
        if self._publication is not None:
            self._publication.publish(self._encoder.encode(values[self._order], stamp_ns))
