"""What a host says to a node of its own process to begin a session, and to leave a latched state."""

from __future__ import annotations

from kizzasi_bridge.protocol import AckResult, Arm, Clear, Limits, MsgType
from kizzasi_bridge.request import code_name
from kizzasi_bridge.virtual import VirtualNode
from kizzasi_edge.errors import LinkError

__all__ = ["arm", "clear"]


def arm(node: VirtualNode, limits: Limits) -> int:
    """Upload ``limits`` to a node that has measured, and arm it: the session. Raises :class:`LinkError` with the
    node's reason."""
    assert node.hello is not None, "not booted"
    schema_hash = node.hello.schema_hash
    for payload in limits.channel_payloads():
        _accepted(node, MsgType.LIMITS, payload)
    _accepted(node, MsgType.LIMITS_COMMIT, limits.commit_payload(schema_hash))
    return _accepted(node, MsgType.ARM, Arm(_nonce(node), limits.hash(schema_hash)).pack())


def clear(node: VirtualNode) -> bool:
    """Ask a node in FAILSAFE or ESTOP to leave it; False as long as it has not seen rest."""
    return node.request(MsgType.CLEAR, Clear(_nonce(node)).pack()).result == AckResult.OK


def _nonce(node: VirtualNode) -> int:
    node.send(MsgType.HELLO_REQ, b"\1\0")
    assert node.hello is not None
    return node.hello.nonce


def _accepted(node: VirtualNode, kind: MsgType, payload: bytes) -> int:
    ack = node.request(kind, payload)
    if ack.result != AckResult.OK:
        raise LinkError(f"{kind.name.lower()}: {code_name(AckResult, ack.result)} in state {node.state_now.name}")
    return ack.value
