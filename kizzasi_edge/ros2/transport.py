"""What moves ROS 2 messages: ready CDR bytes under a topic's name, in and out. It knows no message's contents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from kizzasi_edge.ros2.qos import QosProfile

OnMessage = Callable[[bytes, int], None]
"""Called with the CDR bytes (4 bytes of encapsulation header first) and the receive time, monotonic ns, on the
transport's own thread: it must be quick, and what it raises is counted, not passed on."""


@dataclass(frozen=True)
class MessageType:
    """A message type as the wire needs it: ``name`` ("sensor_msgs/msg/JointState"), its RIHS01 ``hash`` ("" where there
    is none) and ``fields`` of it and of the types in it, as a rosbags typestore keeps them (``Typestore.fielddefs``):
    DDS compares types by their structure."""

    name: str
    hash: str
    fields: Mapping[str, Any] = field(repr=False, compare=False)


class Subscription(Protocol):
    """One topic that is read."""

    def close(self) -> None:
        """Read no further; a callback that runs already may end after this."""

    @property
    def counters(self) -> Mapping[str, int]:
        """``received``, ``failed`` (the callback raised), ``publishers`` (matched now). What never came, only
        a transport whose messages bear numbers knows: it counts ``lost`` too."""


class Publication(Protocol):
    """One topic that is written."""

    def publish(self, cdr: bytes) -> bool:
        """Send one message; never blocks. False: dropped, and counted."""

    def close(self) -> None: ...

    @property
    def counters(self) -> Mapping[str, int]:
        """``sent``, ``dropped``, ``subscribers`` (matched now)."""


class Transport(Protocol):
    """``topic`` is a ROS name ("joint_states", "/arm/joint_states"); a relative one is under the node's namespace.
    Each method raises :class:`~kizzasi_edge.errors.ConnectorError` where the transport cannot do it."""

    def subscribe(self, topic: str, kind: MessageType, qos: QosProfile, on_message: OnMessage) -> Subscription: ...

    def advertise(self, topic: str, kind: MessageType, qos: QosProfile) -> Publication: ...

    def close(self) -> None:
        """End all subscriptions and publications; no callback runs afterwards."""


class Access(Protocol):
    """How a connector comes to its transport. ``types``: the ROS distribution whose message types are spoken there."""

    @property
    def types(self) -> str: ...

    def join(self) -> Transport:
        """The transport, open; shared by those of this process with the same settings. Raises
        :class:`~kizzasi_edge.errors.ConnectorError`, :class:`~kizzasi_edge.errors.MissingExtra`."""

    def leave(self, transport: Transport) -> None:
        """It is no longer needed here; the last one closes it."""

    def look(self, topic: str, kind: MessageType, qos: QosProfile, *, writes: bool) -> list[tuple[bool, str]]:
        """What keeps our end of a topic from the others there: (is an error, text); [] if all is well, or unknown."""
