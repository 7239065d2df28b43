"""A ROS 2 graph as rmw_zenoh_cpp's liveliness tokens show it, and why two endpoints of it do not find each other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kizzasi_edge.errors import ConfigError, ConnectorError
from kizzasi_edge.ros2.matching import LOOK_S, Endpoint, Findings, Graph, judge, look_until, other_version, who
from kizzasi_edge.ros2.names import full_name
from kizzasi_edge.ros2.qos import QosProfile, mismatches
from kizzasi_edge.ros2.transport import MessageType
from kizzasi_edge.ros2.zenoh import Zenoh, release, shared
from kizzasi_edge.ros2.zenoh_keys import ADMIN, PUBLISHER, SUBSCRIPTION, Token

EXPECTED = "the robot's ROS_DOMAIN_ID, and the router that its nodes are connected to (or a node's own address)"


def read(transport: Zenoh) -> Graph:
    """The graph as it is known by now, without our own node."""
    others = [token for token in transport.tokens.all() if token.session != transport.id]
    return Graph(
        transport.domain,
        len({token.session for token in others}),
        tuple(sorted({token.full_node_name for token in others})),
        tuple(
            Endpoint(token.topic, token.type, token.hash, token.qos, token.kind == PUBLISHER, token.full_node_name)
            for token in others
            if token.kind in (PUBLISHER, SUBSCRIPTION)
        ),
    )


def look(domain: Any, topic: str, kind: MessageType, qos: QosProfile, *, writes: bool) -> Findings:
    """Join the graph for a moment: (is an error, text) of why our end of ``topic`` matches nobody there, and what is
    there instead; and, no error, where the two ends' QoS differ: to Zenoh that does not matter."""
    try:
        transport = shared(domain)
    except (ConfigError, ConnectorError) as exc:
        return [(True, str(exc))]
    try:
        name = full_name(topic, domain.namespace)
        spoken = replace(kind, hash=domain.wire_hash(kind.hash))
        found = look_until(lambda: read(transport), lambda graph: explain(graph, name, spoken, writes=writes), LOOK_S)
        if not found:
            return _differences(read(transport), name, qos, writes)
        if not transport.links.counters["connected"] and domain.connect != ():
            return [(True, f"{topic}: nobody answers in {domain}; expected a Zenoh router or peer there")]
        return found + _elsewhere(transport, name, writes)
    finally:
        release(transport)


def explain(graph: Graph, topic: str, kind: MessageType, *, writes: bool) -> Findings:
    """:func:`~kizzasi_edge.ros2.matching.judge` by the rules of rmw_zenoh_cpp: only the type tells endpoints apart."""
    return judge(graph, topic, kind, lambda end: other_version(end, kind), writes=writes, expected=EXPECTED)


def _differences(graph: Graph, topic: str, qos: QosProfile, writes: bool) -> Findings:
    ends = graph.on(topic, writes=not writes)
    found = [(end, mismatches(*((qos, end.qos) if writes else (end.qos, qos)))) for end in ends]
    return [
        (False, f"{topic}: {who(end)} is heard all the same, but gives no more than it offers: {one}")
        for end, texts in found
        for one in texts
    ]


def _elsewhere(transport: Zenoh, topic: str, writes: bool) -> Findings:
    """The domains in which the other end of the topic is."""
    kind = SUBSCRIPTION if writes else PUBLISHER
    replies = transport.session.liveliness().get(f"{ADMIN}/*/**", timeout=1.0)
    tokens = [Token.parse(str(reply.ok.key_expr)) for reply in replies if reply.ok is not None]
    domains = sorted(
        {
            token.domain
            for token in tokens
            if token is not None and (token.topic, token.kind) == (topic, kind)
            if token.domain != str(transport.domain.id)
        }
    )
    verb = "subscribed to" if writes else "published"
    return [(False, f"{topic} is {verb} in domain {', '.join(domains)}")] if domains else []
