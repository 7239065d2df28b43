"""What is on a ROS 2 graph, and why two endpoints of it do not find each other; on any transport."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Protocol

from kizzasi_edge.ros2.names import full_name
from kizzasi_edge.ros2.qos import QosProfile
from kizzasi_edge.ros2.transport import MessageType

LOOK_S = 2.0
"""How long a look at the graph waits for the other end before it says that there is none."""
SHOWN = 12
"""Names listed in one line: a robot's graph has hundreds."""

Findings = list[tuple[bool, str]]
"""(is an error, text)."""


class Place(Protocol):
    """Where a node is; its ``str`` says so in a sentence."""

    @property
    def namespace(self) -> str: ...


@dataclass(frozen=True)
class Endpoint:
    """A publisher (``writes``) or subscription of another process. ``hash``: "" if it does not say; ``node``: "" until
    it has introduced itself; ``partition`` (of DDS): "" the usual one."""

    topic: str
    type: str
    hash: str
    qos: QosProfile
    writes: bool
    node: str
    partition: str = ""


@dataclass(frozen=True)
class Graph:
    """The other processes of a domain: how many participants, their nodes' full names, their ROS endpoints."""

    domain: Place
    participants: int
    nodes: tuple[str, ...]
    endpoints: tuple[Endpoint, ...]

    def on(self, topic: str, *, writes: bool) -> list[Endpoint]:
        """The publishers, or the subscriptions, of a topic."""
        return [end for end in self.endpoints if end.topic == topic and end.writes == writes]

    def __str__(self) -> str:
        topics = sorted({f"{end.topic} ({end.type})" for end in self.endpoints})
        return (
            f"{self.domain}: {self.participants} other participant(s), nodes {_listed(self.nodes)}, "
            f"topics {_listed(topics)}"
        )


def look_until(read: Callable[[], Graph], judge: Callable[[Graph], Findings], timeout_s: float) -> Findings:
    """What ``judge`` finds in the graph, and what is there instead; [] as soon as it finds nothing."""
    deadline = time.monotonic() + timeout_s
    while (problems := judge(graph := read())) and time.monotonic() < deadline:
        time.sleep(0.02)
    return [*problems, (False, f"seen in {graph}")] if problems else []


def judge(
    graph: Graph,
    topic: str,
    kind: MessageType,
    apart: Callable[[Endpoint], list[str]],
    *,
    writes: bool,
    expected: str,
) -> Findings:
    """Who is at the other end of our publication (``writes``) or subscription. ``apart``: what keeps an endpoint of the
    same type from ours; ``expected``: what it takes to see anybody at all.

    Nobody yet is no error: they may come later. If none of those who are there will ever match, that is one."""
    topic = full_name(topic, graph.domain.namespace)
    others = graph.on(topic, writes=not writes)
    if not others:
        return [(False, _nobody(graph, topic, kind, writes, expected))]
    reasons = [(end, _of_type(end, kind) or apart(end)) for end in others]
    nobody = all(why for _, why in reasons)
    return [(nobody, f"{topic}: {who(end)} does not match: {one}") for end, why in reasons for one in why]


def other_version(end: Endpoint, kind: MessageType) -> list[str]:
    """One line if both ends say which version of the type they speak, and it is not the same."""
    if not (end.hash and kind.hash) or end.hash == kind.hash:
        return []
    return [f"type hash: found {end.hash}, another version of {kind.name}; expected {kind.hash}"]


def who(end: Endpoint) -> str:
    return f"the {'publisher' if end.writes else 'subscription'} of {end.node or 'a process without a ROS node'}"


def _of_type(end: Endpoint, kind: MessageType) -> list[str]:
    return [] if end.type == kind.name else [f"type: found {end.type}; expected {kind.name}"]


def _nobody(graph: Graph, topic: str, kind: MessageType, writes: bool, expected: str) -> str:
    verb = "subscribes to" if writes else "publishes"
    if not graph.participants:
        return f"{topic}: nobody {verb} it: no other process is seen at all in {graph.domain}; expected {expected}"
    hints = []
    across = sorted({end.topic for end in graph.endpoints if end.type == kind.name and end.writes != writes})
    if across:
        hints.append(f"{kind.name} is {'subscribed' if writes else 'published'} on {_listed(across)}")
    elif near := get_close_matches(topic, {end.topic for end in graph.endpoints if end.writes != writes}):
        hints.append(f"there is {_listed(near)}")
    return "; ".join([f"{topic}: nobody {verb} it in {graph.domain}", *hints])


def _listed(names: Sequence[str]) -> str:
    more = f" … and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) or "none") + more
